"""`pair`: novel against novel across groups, as ISEKAI-pair does: no name and no look is shared."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from isekai.episodes import Unit, draw, generator, having
from isekai.types import Episode, LabelWords

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def pair(
    dataset: "Dataset",
    *,
    shots: Sequence[int],
    queries: int,
    episodes: int,
    labels: LabelWords,
    seed: int,
) -> Iterator[Episode]:
    """Groups are matched two and two at random, their novel concepts one to one.

    Each group is in one match only, so that clusters share no concept; of an odd number of groups
    one sits out, and so does a novel concept that has no counterpart. Every seed has the same
    matches: a run over several seeds has no more clusters than a run over one.
    """
    novel = {group.id: having(group, "novel") for group in dataset.groups}
    groups = sorted(group for group, concepts in novel.items() if concepts)
    matched = generator(0, "pair", "groups").permutation(groups).tolist()
    units = []
    for one, two in zip(matched[::2], matched[1::2], strict=False):
        left, right = sorted((one, two))
        others = generator(0, "pair", left, right).permutation(novel[right]).tolist()
        for a, b in zip(novel[left], others, strict=False):
            name = f"{left}+{right}/{a.split('/', 1)[1]}+{b.split('/', 1)[1]}"
            units.append(Unit(name=name, cluster=f"{left}+{right}", concepts=(a, b)))
    return draw(
        dataset,
        "pair",
        sorted(units, key=lambda unit: unit.name),
        shots=shots,
        queries=queries,
        episodes=episodes,
        labels=labels,
        seed=seed,
    )
