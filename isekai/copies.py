"""Whether one picture is a copy of another: stored anew, resized, cropped, mirrored or turned.

A glance (`isekai.glances`) settles nearly all pairs: it says that the two can't be copies, or how
the one would lie on the other. From there it is turned and moved to fit, and if that doesn't
settle it, local features (`isekai.features`) propose another way. Pixels decide.

What lies on each other has to look the same everywhere: other views of a thing, or two things
before one background, agree in some places and not in others.
"""

from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import glances
from isekai.features import Features, is_sane, placed_by
from isekai.glances import Glance, Placing

SIDE = 128
"""Pixels of the longer side of the grey copy that is compared: 16 kB at most."""
OVERLAP = 0.5
"""Each picture has to show this share of its area in the other one."""

_CELL = 16
"""Pixels: a side of the places that are compared one by one."""
_WORST = 0.1
"""The place that counts: this share of all look no more alike."""
_NEARLY = 0.25
"""A score at half the size from which on it is worth to fit at full size."""
_SURE = 0.9
"""A score at which nothing else is tried."""
_EVEN = 0.01
"""Variance, of 1 over the whole picture, below which a place is even."""

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Look:
    """What is compared of a picture, each sought when it is asked for first."""

    def __init__(self, grey: Grey) -> None:
        self.grey = grey

    @cached_property
    def glance(self) -> Glance:
        return glances.glance(self.grey)

    @cached_property
    def features(self) -> Features:
        return Features.of(self.grey)


def small(picture: Image.Image) -> Grey:
    """[h, w]: a grey copy whose longer side has `SIDE` pixels."""
    factor = SIDE / max(picture.size)
    size = (max(round(picture.width * factor), 8), max(round(picture.height * factor), 8))
    grey = picture.convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(grey)


def score(a: Look, b: Look) -> float:
    """How sure it is that one is a copy of the other: 0 (not at all) to 1 (pixel by pixel).

    0 where they look too different at a glance, or don't overlap enough however one lies.
    """
    found = glances.likeness(a.glance, b.glance)
    best = 0.0
    for mirrored in sorted((False, True), key=lambda way: -found[way][0]):
        value, placing = found[mirrored]
        if value >= glances.LEAST and best <= _SURE:
            best = max(best, _placed(a, b, mirrored, placing))
    return best


# ---------------------------------------------------------------- how one lies on the other


def _placed(a: Look, b: Look, mirrored: bool, placing: Placing) -> float:
    """The best agreement of the ways in which `b` may lie in `a`, the cheapest tried first."""
    here, there = a.grey, np.ascontiguousarray(b.grey[:, ::-1]) if mirrored else b.grey
    start = _in_pixels(placing, here, there)
    best = _agreement(here, there, start)  # fitting may lose what lies right: cv2's ECC drifts
    if best > _SURE:
        return best
    fitted = _fitted_coarsely(here, there, start)
    best = max(best, _agreement(here, there, fitted))
    if _NEARLY <= best <= _SURE:
        best = max(best, _agreement(here, there, _fitted(here, there, fitted)))
    if best <= _SURE:
        features = b.features.mirrored(there.shape[1]) if mirrored else b.features
        proposed = placed_by(a.features, features)
        if proposed is not None:
            best = max(best, _agreement(here, there, proposed))
    return best


def _in_pixels(placing: Placing, a: Grey, b: Grey) -> Floats:
    """[2, 3]: where a point of `b` lies in `a`, from the same in unit squares."""

    def square(grey: Grey) -> Placing:
        height, width = grey.shape
        return np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1]])  # pixels have centres

    placed: Floats = (square(a) @ placing @ np.linalg.inv(square(b)))[:2].astype(np.float32)
    return placed


def _fitted_coarsely(a: Grey, b: Grey, placed: Floats) -> Floats:
    """The same at half the size."""
    start = placed.copy()
    start[:, 2] = (placed[:, 2] - 0.5 + placed[:, :2].sum(axis=1) / 2) / 2
    found = _fitted(_halved(a), _halved(b), start)
    end = found.copy()
    end[:, 2] = 2 * found[:, 2] + 0.5 - found[:, :2].sum(axis=1) / 2
    return end


def _halved(grey: Grey) -> Grey:
    halved = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return halved.astype(np.uint8, copy=False)


def _fitted(a: Grey, b: Grey, placed: Floats) -> Floats:
    """Turned, moved and stretched to the highest correlation nearby (cv2's ECC)."""
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-4)
    everywhere = np.full(b.shape, 255, np.uint8)
    start = _turned_round(placed)
    try:
        _, found = cv2.findTransformECC(a, b, start, cv2.MOTION_AFFINE, until, everywhere, 5)
    except cv2.error:  # it drifted off or saw nothing to follow: the start is the best there is
        return placed
    turned = np.asarray(found, np.float32)
    return _turned_round(turned) if is_sane(turned) else placed


def _turned_round(placed: Floats) -> Floats:
    """Where a point of `a` lies in `b`, from where one of `b` lies in `a`, and back."""
    return np.asarray(cv2.invertAffineTransform(placed), np.float32)


# ---------------------------------------------------------------- do they look the same


def _agreement(a: Grey, b: Grey, placed: Floats) -> float:
    """How alike the places look in which they look least alike, 0 to 1; 0 if too few overlap."""
    height, width = a.shape
    laid = cv2.warpAffine(b, placed, (width, height), flags=cv2.INTER_LINEAR)
    cover = cv2.warpAffine(
        np.full(b.shape, 255, np.uint8), placed, (width, height), flags=cv2.INTER_NEAREST
    )
    whole = abs(float(np.linalg.det(placed[:, :2]))) * b.size
    seen = int(np.count_nonzero(cover))
    if seen < OVERLAP * max(a.size, whole):
        return 0.0
    inside = cv2.erode(cover, np.ones((5, 5), np.uint8)) > 0
    return _likeness(a, np.asarray(laid, np.uint8), inside)


def _likeness(a: Grey, b: Grey, mask: NDArray[np.bool_]) -> float:
    """The structure index of the `_WORST` places: 2 cov(a, b) / (var(a) + var(b)), 0 to 1.

    Both are softened first, and brought to one brightness and contrast over all that is seen. What
    is even in both counts as alike; a picture that is even all over is like none.
    """
    left, right = _levelled(a, mask), _levelled(b, mask)
    if left is None or right is None:
        return 0.0
    weight = mask.astype(np.float32)
    number = _summed(weight)

    def mean(values: Floats) -> Floats:
        return np.asarray(_summed(values * weight) / np.maximum(number, 1), np.float32)

    here, there = mean(left), mean(right)
    both = mean(left * right) - here * there
    own = mean(left * left) - here**2 + mean(right * right) - there**2
    index = (2 * both + _EVEN) / (own + _EVEN)
    enough = number >= _CELL * _CELL / 2
    if not enough.any():
        return 0.0
    worst = float(np.quantile(index[enough], _WORST))
    overall = float((2 * both[enough].sum()) / max(own[enough].sum(), 1e-9))
    return max(min(worst, overall), 0.0)


def _levelled(grey: Grey, mask: NDArray[np.bool_]) -> Floats | None:
    """Softened, with mean 0 and variance 1 over the mask; None if it is even there."""
    soft = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.0), np.float32)
    seen = soft[mask]
    if not seen.size or seen.std() < 1:
        return None
    levelled: Floats = (soft - seen.mean()) / seen.std()
    return levelled


def _summed(values: Floats) -> Floats:
    """The sum over each `_CELL` x `_CELL` place, half a place apart."""
    kind = cv2.BORDER_CONSTANT
    sums = cv2.boxFilter(values, -1, (_CELL, _CELL), normalize=False, borderType=kind)
    half = _CELL // 2
    return np.asarray(sums, np.float32)[half::half, half::half]
