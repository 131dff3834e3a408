"""`zero`: the queries without any support set: what a model knows before it is shown anything."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from isekai.types import Episode
from isekai.variants import refuse_value

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def zero(episode: Episode, *, dataset: "Dataset", value: str) -> Iterator[Episode]:
    """The 0-shot column, also where `--shots` doesn't ask for it."""
    refuse_value("zero", value)
    yield replace(episode, support=(), shots=(0,))
