"""An image as servers take it: its own bytes where they can, in base64."""

import base64
import io
from dataclasses import dataclass, field

from PIL import Image

from isekai.images import FORMATS, decode, encode
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
    """The image's own bytes if they are PNG, JPEG, WebP or GIF and no side is too long, else PNG.

    `max_side` is in pixels.
    """
    data = image.data
    media_type, (width, height) = _media_type(data), _size(data)
    if media_type is None or (max_side and max(width, height) > max_side):
        pixels = decode(data)
        if max_side:
            pixels.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        media_type, data, (width, height) = "image/png", encode(pixels), pixels.size
    return Picture(
        media_type=media_type,
        data=base64.b64encode(data).decode("ascii"),
        tokens=min(1600.0, max(64.0, width * height / _PIXELS_A_TOKEN)),
    )


def _media_type(data: bytes) -> str | None:
    """What the first bytes say: names of files may lie."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _size(data: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            return header.size
    except OSError:
        return decode(data).size  # says what is wrong with it
