"""`order=TIMES`: the same support set, shown in several orders.

The mean over orders is a fairer number than that of one order, and their spread says how much the
order alone decides (Lu et al., "Fantastically ordered prompts", arXiv:2104.08786).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from isekai.episodes import generator
from isekai.errors import IsekaiError
from isekai.types import Episode

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def order(episode: Episode, *, dataset: "Dataset", value: str) -> Iterator[Episode]:
    """The k-shot support set shuffled as a whole: one episode for each order and shot count.

    Without support images there is nothing to order: 0 shots are left out.
    """
    times = int(value) if value.isdecimal() else 0
    if not 2 <= times <= 100:
        raise IsekaiError(f"control 'order={value}': give how many orders, from 2 to 100: order=3")
    for take in range(times):
        for shots in episode.shots:
            if not shots:
                continue
            shown = episode.support[: len(episode.labels) * shots]
            rng = generator(episode.seed, "orders", str(take), str(shots))
            yield replace(
                episode,
                id=f"{episode.id}/{take}@{shots}",
                support=tuple(shown[i] for i in rng.permutation(len(shown))),
                shots=(shots,),
                take=take,
            )
