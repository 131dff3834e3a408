"""`swap`: the labels change places in the whole episode, and right is what the support set says.

A model that binds follows the swap. One that names keeps to what it knows, and is wrong wherever it
was right before.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from isekai.types import Episode
from isekai.variants import refuse_false_before, refuse_value

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def swap(episode: Episode, *, dataset: "Dataset", value: str) -> Iterator[Episode]:
    """Each concept takes the next one's word; the words keep the order in which they are listed."""
    refuse_value("swap", value)
    refuse_false_before("swap", episode)
    concepts, words = list(episode.labels), list(episode.labels.values())
    turned = [*concepts[1:], concepts[0]]
    yield replace(episode, labels=dict(zip(turned, words, strict=True)))
