"""Decodes pictures from strangers: right colours, right way up, or a reason why not."""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from isekai import containers
from isekai.containers import media_type as media_type
from isekai.errors import DataError
from isekai.files import sha256
from isekai.types import EncodedImage

Format = Literal["png", "webp"]

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read. Pillow knows many more formats; the rare ones are where decoders have holes."""

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: 64 Mpx is 192 MB as RGB."""

MAX_SIDE = 20_000
"""A longer side is refused as well, however thin the picture."""

_ORIENTATION = 0x0112
_ICC_SPACE = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}

_warnings_are_global = threading.Lock()


class UnreadableImage(DataError):
    """The bytes are no picture that can be used; the text says why."""


def decode(data: bytes) -> Image.Image:
    """The picture as a person would see it: upright, sRGB, on white where it is transparent.

    An embedded colour profile is applied, 16-bit greys are scaled to 8 bits. Raises
    UnreadableImage for whatever is damaged, too large, moving, or of no defined colour.
    """
    if not data:
        raise UnreadableImage("empty file (0 bytes)")
    try:
        return _decode(data)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(
            f"not a picture, or its header is damaged; readable are {', '.join(FORMATS)}"
        ) from None
    except Image.DecompressionBombError as error:
        found = re.search(r"\d+", str(error))
        count = f"{int(found[0]):,} pixels" if found else str(error)
        raise UnreadableImage(f"{count}; at most {MAX_PIXELS:,} are read") from None
    except Exception as error:  # damaged files make Pillow raise almost any class
        raise UnreadableImage(f"damaged: {error or type(error).__name__}") from error


def encode(image: Image.Image, format: Format = "png", xmp: bytes = b"") -> bytes:
    """The pixels without loss, `xmp` if there is any, and nothing else.

    The same RGB image with the same packet always gives the same bytes. `isekai.metadata.packet`
    makes one.
    """
    alone = Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    buffer = io.BytesIO()
    if format == "png":
        told = PngInfo()
        if xmp:
            told.add_itxt("XML:com.adobe.xmp", xmp.decode())
        alone.save(buffer, "PNG", compress_level=3, pnginfo=told)
    else:
        alone.save(buffer, "WEBP", lossless=True, quality=50, method=3, xmp=xmp)
    return buffer.getvalue()


def bare(data: bytes) -> bytes:
    """A PNG, JPEG, WebP or GIF file with its picture and nothing that is told of it.

    Pixels are not coded again; colour profile, gamma and the like stay, and so does the
    orientation, as the one entry of a new EXIF block: `decode` gives the same picture. Comments,
    texts, XMP, the rest of EXIF, thumbnails, and whatever follows the file's end are gone.
    UnreadableImage for other formats and for files too damaged to be taken apart, since these
    could hide what has to go; `encode(decode(data))` is the way out.
    """
    try:
        orientation, _ = _header(containers.without_pixels(data))
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        return containers.shown(data, exif.tobytes()[6:] if orientation > 1 else b"")
    except ValueError as error:
        raise UnreadableImage(f"its metadata can't be taken off: {error}") from None


GREY = (128, 128, 128)


def grey_like(picture: EncodedImage) -> EncodedImage:
    """An even grey of the same size, upright as the picture is."""
    orientation, (width, height) = _header(picture.data)
    return _grey(height, width) if orientation >= 5 else _grey(width, height)


def _header(data: bytes) -> tuple[int, tuple[int, int]]:
    """How the picture is to be turned (EXIF's 1 to 8), and its width and height as stored."""
    with _quiet():
        try:
            header = Image.open(io.BytesIO(data), formats=FORMATS)
            orientation = header.getexif().get(_ORIENTATION, 1)
            return int(orientation) if orientation in range(2, 9) else 1, header.size
        except Exception as error:  # damaged files make Pillow raise almost any class
            raise UnreadableImage(f"damaged: {error or type(error).__name__}") from error


@lru_cache(maxsize=64)
def _grey(width: int, height: int) -> EncodedImage:
    data = encode(Image.new("RGB", (width, height), GREY))
    return EncodedImage(id=sha256(data), data=data)


def _decode(data: bytes) -> Image.Image:
    with _quiet():
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        _refuse(picture)
        if picture.format == "TIFF":
            picture.load()  # reads the remaining tags, with warnings
    picture.load()
    profile = picture.info.get("icc_profile")
    with _quiet():
        upright = ImageOps.exif_transpose(picture)
    image = _eight_bits(upright, picture)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode not in _ICC_SPACE:
        image = image.convert("L" if image.mode == "1" else "RGB")
    image = _to_srgb(image, profile)
    gamma = picture.info.get("gamma")
    if gamma and not profile and "srgb" not in picture.info and abs(gamma * 2.2 - 1) > 0.05:
        curve = [round(255 * (value / 255) ** (1 / (2.2 * gamma))) for value in range(256)]
        image = image.point(curve * 3)
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, "white"), alpha)
    image.info.clear()
    return image


def _refuse(picture: Image.Image) -> None:
    """Raise for what the header already shows to be unusable."""
    width, height = picture.size
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{width}x{height} pixels; at most {MAX_SIDE:,} a side and {MAX_PIXELS:,} in all are "
            "read: shrink it"
        )
    # A phone's JPEG may carry a depth map or a second view as further frames (MPO).
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        frames = getattr(picture, "n_frames", 2)
        kind = "pages" if picture.format == "TIFF" else "frames"
        raise UnreadableImage(f"animated: {frames} {kind}; give one picture a file")
    if picture.mode in ("F", "I"):
        raise UnreadableImage(
            f"pixels are 32-bit {'fractions' if picture.mode == 'F' else 'integers'}, "
            "which have no agreed white; save it with 8 or 16 bits"
        )


def _eight_bits(image: Image.Image, original: Image.Image) -> Image.Image:
    """16-bit greys scaled to 8 bits, white and see-through kept; other images unchanged."""
    if not image.mode.startswith("I;16"):
        return image
    tags = getattr(original, "tag_v2", {})
    white = 2 ** tags.get(258, (16,))[0] - 1  # BitsPerSample: Pillow keeps 12 bits as they are
    values = np.asarray(image).astype(np.uint32)
    grey = np.minimum((values * 255 + white // 2) // white, 255).astype(np.uint8)
    if tags.get(262) == 0:  # PhotometricInterpretation "white is zero", which Pillow leaves as is
        grey = 255 - grey
    scaled = Image.fromarray(grey)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        scaled.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return scaled


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An L, RGB or CMYK image as sRGB: by its profile, or by Pillow's rule if that is broken."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() == _ICC_SPACE[image.mode]:
                converted = ImageCms.profileToProfile(
                    image,
                    source,
                    ImageCms.createProfile("sRGB"),
                    renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                    outputMode="RGB",
                    flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
                )
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError):
            pass  # a broken profile says nothing; viewers show such a file without it, too
    return image.convert("RGB")


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of Pillow about headers: either the picture is right, or it is refused."""
    with _warnings_are_global, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
