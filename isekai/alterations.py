"""Copies of a picture as people make them, drawn from its id: pairs that are known to be the same.

Beside them one that is not: another thing before the same background. Each alteration is a plain
function of a picture and a generator. They are what deduplication is calibrated on, so their ranges
are part of its figures.
"""

import io
import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from isekai.episodes import generator

Alteration = Callable[[Image.Image, np.random.Generator], Image.Image]

_RESAMPLING = (
    Image.Resampling.LANCZOS,
    Image.Resampling.BICUBIC,
    Image.Resampling.BILINEAR,
)
_FILL = ((0, 0, 0), (255, 255, 255))
_MIDDLE = math.sqrt(1 / 3 / math.pi)
"""Half axes of an ellipse that covers a third of a picture, of its sides."""


def altered(picture: Image.Image, id: str, name: str, seed: int = 0) -> Image.Image:
    """The RGB picture under the alteration of this name; the same for the same id and seed."""
    return ALTERATIONS[name](picture.convert("RGB"), generator(seed, "alter", name, id))


def other_thing(picture: Image.Image, other: Image.Image) -> Image.Image:
    """The middle third of the picture's area, an ellipse, is taken from the other one: no copy."""
    width, height = picture.size
    mask = Image.new("L", picture.size, 0)
    across, down = width * _MIDDLE, height * _MIDDLE
    box = (width / 2 - across, height / 2 - down, width / 2 + across, height / 2 + down)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    mask = mask.filter(ImageFilter.GaussianBlur(max(width, height) / 100))
    changed = picture.convert("RGB")
    changed.paste(other.convert("RGB").resize(picture.size, Image.Resampling.BICUBIC), mask=mask)
    return changed


def same(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Nothing is changed."""
    return picture.copy()


def jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Stored as JPEG of quality 30 to 95, every quality as likely."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=int(rng.integers(30, 96)))
    return Image.open(buffer).convert("RGB")


def resize(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Both sides 0.4 to 1.6 times as long."""
    factor = math.exp(rng.uniform(math.log(0.4), math.log(1.6)))
    return _resized(picture, factor, factor, rng)


def stretch(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """One side, the width or the height, 0.75 to 0.95 times as long."""
    factor = rng.uniform(0.75, 0.95)
    across, down = (factor, 1.0) if rng.integers(2) else (1.0, factor)
    return _resized(picture, across, down, rng)


def crop_area(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """5 to 20 % of the area is cut off: 2.5 to 10.6 % of each side, anywhere."""
    return _cropped(picture, math.sqrt(1 - rng.uniform(0.05, 0.20)), rng)


def crop_side(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """5 to 20 % of each side is cut off: 9.8 to 36 % of the area, anywhere."""
    return _cropped(picture, 1 - rng.uniform(0.05, 0.20), rng)


def mirror(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Left and right are exchanged."""
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def rotate(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by 1 to 8 degrees either way, corners black or white."""
    angle = rng.uniform(1, 8) * rng.choice((-1, 1))
    fill = _FILL[rng.integers(len(_FILL))]
    return picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=fill)


def rotate_crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Turned by 1 to 8 degrees either way, and cropped to what has no empty corner."""
    angle = rng.uniform(1, 8) * rng.choice((-1, 1))
    turned = picture.rotate(angle, Image.Resampling.BICUBIC)
    radians, (width, height) = math.radians(abs(angle)), picture.size
    long, short = max(width, height), min(width, height)
    # The rectangle of the same proportions, about the same centre, that lies in the turned one.
    keep = short / (long * math.sin(radians) + short * math.cos(radians))
    left, top = (width * (1 - keep) / 2, height * (1 - keep) / 2)
    box = (math.ceil(left), math.ceil(top), math.floor(width - left), math.floor(height - top))
    return turned.crop(box)


def mixed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirrored or not, then 5 to 20 % of its area cut off, resized and stored as JPEG."""
    if rng.integers(2):
        picture = mirror(picture, rng)
    return jpeg(resize(crop_area(picture, rng), rng), rng)


ALTERATIONS: Mapping[str, Alteration] = {
    "exact": same,
    "jpeg": jpeg,
    "resize": resize,
    "stretch": stretch,
    "crop_area": crop_area,
    "crop_side": crop_side,
    "mirror": mirror,
    "rotate": rotate,
    "rotate_crop": rotate_crop,
    "mixed": mixed,
}
"""Name -> alteration, in the order in which tables show them."""


def _resized(
    picture: Image.Image, across: float, down: float, rng: np.random.Generator
) -> Image.Image:
    size = (max(round(picture.width * across), 1), max(round(picture.height * down), 1))
    return picture.resize(size, _RESAMPLING[rng.integers(len(_RESAMPLING))])


def _cropped(picture: Image.Image, keep: float, rng: np.random.Generator) -> Image.Image:
    """A part whose sides are `keep` times as long, at a place drawn evenly."""
    width = max(round(picture.width * keep), 1)
    height = max(round(picture.height * keep), 1)
    left = int(rng.integers(picture.width - width + 1))
    top = int(rng.integers(picture.height - height + 1))
    return picture.crop((left, top, left + width, top + height))
