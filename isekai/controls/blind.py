"""`blind`: the support pictures are an even grey; words and order stay.

What a model still gets right it does not have from the support pictures. A model that binds falls
to chance.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from isekai.types import Episode
from isekai.variants import refuse_value

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def blind(episode: Episode, *, dataset: "Dataset", value: str) -> Iterator[Episode]:
    """Grey pictures of the same size, so that a model spends as many tokens on them."""
    refuse_value("blind", value)
    grey = tuple(replace(example, shown="grey") for example in episode.support)
    yield replace(episode, support=grey)
