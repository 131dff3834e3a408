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
    """Each concept takes the word of the one before; pictures, order and listing stay."""
    refuse_value("swap", value)
    refuse_false_before("swap", episode)
    words = list(episode.labels.values())
    turned = [words[-1], *words[:-1]]
    yield replace(episode, labels=dict(zip(episode.labels, turned, strict=True)))
