"""`words=true|fantasy|conflict`: the same pictures under other label words.

Fantasy words leave nothing but the context. True names can be known without it. A common word for
quite another thing ("this is called a bicycle") lets what a model knows fight what it is shown.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from isekai.episodes import words as draw
from isekai.errors import IsekaiError
from isekai.types import Episode, LabelWords
from isekai.variants import refuse_false_before

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def words(episode: Episode, *, dataset: "Dataset", value: str) -> Iterator[Episode]:
    """The words that the episode would have had with `--labels`."""
    for kind in get_args(LabelWords):
        if value == kind:
            refuse_false_before(f"words={kind}", episode)
            labels = draw(dataset, tuple(episode.labels), kind, episode.seed)
            yield replace(episode, labels=labels)
            return
    raise IsekaiError(
        f"control 'words={value}': the words are one of {', '.join(get_args(LabelWords))}"
    )
