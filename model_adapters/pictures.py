"""An image as servers take it: its own pixels where they can, in base64, and nothing told of it."""

import base64
import io
from dataclasses import dataclass, field

from PIL import Image

from isekai.images import FORMATS, UnreadableImage, bare, decode, encode, media_type
from isekai.types import EncodedImage

_PIXELS_A_TOKEN = 750
"""Anthropic's rule of thumb for pictures; other models lie between a third and thrice of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An image in a request."""

    media_type: str
    data: str = field(repr=False)
    """Base64."""
    tokens: float
    """About how many it takes: a guess from its size, before a server has counted."""


def picture(image: EncodedImage, max_side: int | None = None) -> Picture:
    """The image's own file if it is PNG, JPEG, WebP or GIF and no side is too long, else a PNG.

    Metadata stays here: it may name the concept, which is the answer. `max_side` is in pixels.
    """
    size = _size(image.data)
    data = b"" if max_side and max(size) > max_side else _bare(image.data)
    if not data:
        pixels = decode(image.data)
        if max_side:
            pixels.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        data, size = encode(pixels), pixels.size
    return Picture(
        media_type=media_type(data) or "image/png",
        data=base64.b64encode(data).decode("ascii"),
        tokens=min(1600.0, max(64.0, size[0] * size[1] / _PIXELS_A_TOKEN)),
    )


def _bare(data: bytes) -> bytes:
    """The file without metadata; empty if it can only be sent as pixels coded anew."""
    try:
        return bare(data)
    except UnreadableImage:
        return b""


def _size(data: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            return header.size
    except OSError:
        return decode(data).size  # says what is wrong with it
