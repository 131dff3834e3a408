"""`twin`: the two novel concepts of a group against each other.

They share a parent and neither has a known name, so that naming what one knows does not help.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

from isekai.episodes import Unit, draw, having
from isekai.types import Episode, LabelWords

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def twin(
    dataset: "Dataset",
    *,
    shots: Sequence[int],
    queries: int,
    episodes: int,
    labels: LabelWords,
    seed: int,
) -> Iterator[Episode]:
    """One unit a group; a group with more than two novel concepts gives one for every two."""
    units = []
    for group in sorted(dataset.groups, key=lambda group: group.id):
        pairs = list(combinations(having(group, "novel"), 2))
        for a, b in pairs:
            both = f"{a}+{b.split('/', 1)[1]}"
            name = group.id if len(pairs) == 1 else both
            units.append(Unit(name=name, cluster=group.id, concepts=(a, b)))
    return draw(
        dataset,
        "twin",
        units,
        shots=shots,
        queries=queries,
        episodes=episodes,
        labels=labels,
        seed=seed,
    )
