"""What is to be drawn, and with what."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from isekai import spec as specs
from isekai.images import Format
from isekai.protocols import Gate, ImageSource
from isekai.types import Group, ImageRequest

TRIES = 4
"""Drawings for one place, at most: each has a seed of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A source as some of the concepts are drawn with it."""

    source: ImageSource
    concepts: tuple[str, ...]
    options: Mapping[str, object]
    """What the spec gives for these concepts; empty for what is drawn as the user said."""
    size: int
    """Pixels of the longer side."""
    settings: Mapping[str, object]
    """The source's own, the size, the format and the gates; as JSON would give them back."""

    @property
    def told(self) -> dict[str, object]:
        """As the manifest tells it."""
        return {
            "model": self.source.model,
            "revision": self.source.revision,
            "settings": self.settings,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that an images folder is to hold."""

    variants: tuple[Variant, ...]
    """One after the other is drawn with; each concept belongs to one."""
    name: str
    """The source's name, as recorded in the ledger."""
    why: str
    groups: tuple[Group, ...]
    requests: tuple[ImageRequest, ...]
    """In the order of the ledger: by concept, then by index."""
    format: Format
    gates: Mapping[str, Gate]
    tries: int
    seed: int
    asked: Mapping[str, object]
    """The source's name and options as they were written, to build it again."""
    request: Mapping[str, object]
    """The whole request as the manifest tells it."""

    def variant(self, concept: str) -> Variant:
        """What the concept of this id is drawn with."""
        return next(variant for variant in self.variants if concept in variant.concepts)

    def given(self, request: ImageRequest) -> dict[str, Any]:
        """Everything that the pixels of a request depend on, apart from the concept."""
        return {
            "seed": request.seed,
            "prompt": request.prompt,
            "source": self.name,
            **self.variant(request.concept.id).told,
        }

    def again(self, request: ImageRequest, attempt: int) -> ImageRequest:
        """The request's attempt of this number."""
        if request.attempt == attempt:
            return request
        own = specs.seed(request.concept.id, request.index, self.seed, attempt)
        return replace(request, seed=own, attempt=attempt)

    def path(self, request: ImageRequest) -> str:
        return f"{request.concept.id}/{request.index:04d}.{self.format}"

    def aside(self, request: ImageRequest) -> str:
        """Where a drawing goes that a gate has turned down."""
        name = f"{request.index:04d}-{request.attempt}.{self.format}"
        return f"rejected/{request.concept.id}/{name}"
