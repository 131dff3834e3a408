"""`published`: the episodes that came with the dataset, so that everybody asks the same.

They are those of `twin`, `foil` and `pair`, drawn when the dataset was built, and keep the names of
these tasks: results stand beside those of whoever else asked them. Nothing is drawn: how many
queries or episodes are asked for changes nothing here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from isekai import episode_lists
from isekai.errors import DataError
from isekai.types import Episode, LabelWords

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def published(
    dataset: "Dataset",
    *,
    shots: Sequence[int],
    queries: int,
    episodes: int,
    labels: LabelWords,
    seed: int,
) -> Iterator[Episode]:
    """All published episodes, asked at these shot counts.

    A support set is nested: whatever shot count the longest one has room for can be asked. Words
    and seed are those of the lists; others are refused, since they would be other episodes.
    """
    told, listed = episode_lists.read(dataset)
    if labels != told.labels:
        raise DataError(
            f"{dataset.path}: its published episodes have {told.labels} words, given --labels "
            f"{labels}; ask them with --labels {told.labels}, or add --controls words={labels}"
        )
    if seed != told.seed:
        raise DataError(
            f"{dataset.path}: its published episodes were drawn from seed {told.seed}, given "
            f"--seeds {seed}; leave it out, or take the tasks {', '.join(told.lists)}"
        )
    most = max(told.shots)
    if max(shots) > most:
        fitting = ",".join(str(count) for count in shots if count <= most) or str(most)
        raise DataError(
            f"{dataset.path}: its published episodes show {most} images a label and --shots asks "
            f"for {max(shots)}; give --shots {fitting}"
        )
    if not listed:
        raise DataError(f"{dataset.path}: none of its tasks has a published episode")
    return (_at(episode, tuple(shots)) for episode in listed)


def _at(episode: Episode, shots: tuple[int, ...]) -> Episode:
    """The episode as it would have been drawn for these shot counts."""
    support = episode.support[: len(episode.labels) * max(shots)]
    return replace(episode, support=support, shots=shots)
