"""Makes pictures small enough for viewers and downloads, without loss where that is possible."""

import io
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from PIL import Image

from isekai import containers
from isekai.images import UnreadableImage, decode, encode

LIMIT = 1_000_000
"""Bytes of a picture; a row group of 200 such pictures is what viewers still read at once."""

_QUALITIES = range(50, 101)
"""Of a lossy WebP. Where 50 does not fit, the sides are halved."""

_LONGEST = 16_383
"""Pixels a side that the WebP format can hold."""


class Fitted(NamedTuple):
    """A picture that is at most as large as was asked."""

    data: bytes
    how: str
    """What was done to it, such as `lossless WebP` or `WebP of quality 93`; empty for nothing."""


def fit(data: bytes, limit: int = LIMIT) -> Fitted:
    """`data` as it is where it takes at most `limit` bytes, else the same picture as a WebP file.

    Tried are, in this order: without loss, as `images.decode` shows it; the highest quality that
    fits; then the same with half the sides, and so on. The XMP packet of a PNG, JPEG or WebP file
    goes along; whatever else is told in the file, a signature too, is lost, since it is about other
    bytes. Equal input gives equal bytes. UnreadableImage for what is no picture or is damaged.
    """
    if len(data) <= limit:
        return Fitted(data, "")
    picture, xmp = decode(data), _packet(data)
    for reduced in _halved(picture):
        whole = reduced is picture
        if whole and len(smaller := encode(picture, "webp", xmp)) <= limit:
            return Fitted(smaller, "lossless WebP")
        quality, smaller = _lossy(reduced, xmp, limit)
        if quality:
            size = "" if whole else f", {reduced.width}x{reduced.height} pixels"
            return Fitted(smaller, f"WebP of quality {quality}{size}")
    raise UnreadableImage(
        f"its {len(xmp):,} bytes of metadata leave no room for a picture in {limit:,}; store "
        "pictures as they are"
    )


def _packet(data: bytes) -> bytes:
    if containers.media_type(data) is None:
        return b""
    try:
        return containers.xmp(data)
    except ValueError as error:
        raise UnreadableImage(f"its metadata can't be read: {error}") from None


def _halved(picture: Image.Image) -> Iterator[Image.Image]:
    """The picture, then with half the sides each time, as far as WebP can hold it."""
    width, height = picture.size
    if max(width, height) <= _LONGEST:
        yield picture
    while max(width, height) > 1:
        width, height = max(width // 2, 1), max(height // 2, 1)
        yield picture.resize((width, height), Image.Resampling.LANCZOS)


def _lossy(picture: Image.Image, xmp: bytes, limit: int) -> tuple[int, bytes]:
    """The highest quality that fits, and the file; 0 if none does.

    Sizes grow with quality, all but a few bytes, so that it is found by halving.
    """

    @cache
    def at(quality: int) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality, method=4, xmp=xmp)
        return buffer.getvalue()

    place = bisect_right(_QUALITIES, limit, key=lambda quality: len(at(quality)))
    if not place:
        return 0, b""
    quality = _QUALITIES[place - 1]
    return quality, at(quality)
