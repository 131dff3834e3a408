"""Gates: what looks at a picture as it is drawn, and turns it down with a reason."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from isekai.types import Group


@runtime_checkable
class Knowing(Protocol):
    """A gate that has to know what a concept must not be taken for."""

    def inform(self, groups: Sequence[Group]) -> None:
        """All groups that are drawn, before the first picture."""
