"""`text`: no pictures at all, neither of the support set nor of the query; the words stay.

Whatever is above chance here leaks through the words. These answers also are the prior that
`--ranking prior` takes off.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from isekai.types import Episode
from isekai.variants import refuse_value

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def text(episode: Episode, *, dataset: "Dataset", value: str) -> Iterator[Episode]:
    """The same turns without a picture."""
    refuse_value("text", value)
    yield replace(
        episode,
        support=tuple(replace(example, shown="nothing") for example in episode.support),
        queries=tuple(replace(query, shown="nothing") for query in episode.queries),
    )
