"""The sizes that the published Flamingo models share and their checkpoints don't name."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What upstream's classes fix by their default arguments; the same for all released models."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    depth: Count = 6
    """Layers of the resampler."""
    latents: Count = 64
    """Vectors that the resampler makes of a picture."""
    heads: Count = 8
    """Attention heads of the resampler and of each cross-attention."""
    head_width: Count = 64
    grown: Count = 4
    """How much wider a feed-forward's inside is than its outside."""
    tower_layers: Count = 24
    tower_heads: Count = 16
    """Of the vision tower, where its file names neither."""
