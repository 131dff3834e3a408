"""`foil`: a novel concept against its group's foil, the thing of the real world that it is like.

With true labels a model can answer by naming: it knows the foil, and the other word is left over.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from isekai.episodes import Unit, draw, having
from isekai.types import Episode, LabelWords

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def foil(
    dataset: "Dataset",
    *,
    shots: Sequence[int],
    queries: int,
    episodes: int,
    labels: LabelWords,
    seed: int,
) -> Iterator[Episode]:
    """One unit a novel concept; a group without a foil gives none."""
    units = []
    for group in sorted(dataset.groups, key=lambda group: group.id):
        foils = having(group, "foil")
        for novel in having(group, "novel"):
            for other in foils:
                name = novel if len(foils) == 1 else f"{novel}+{other.split('/', 1)[1]}"
                units.append(Unit(name=name, cluster=group.id, concepts=(novel, other)))
    return draw(
        dataset,
        "foil",
        units,
        shots=shots,
        queries=queries,
        episodes=episodes,
        labels=labels,
        seed=seed,
    )
