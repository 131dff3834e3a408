"""Whether one picture is a copy of another: stored anew, resized, cropped, mirrored or turned.

Local features propose how the one lies on the other, pixels decide. Features are SIFT's (Lowe, Int.
J. Comput. Vis. 60, 2004) on a small grey copy, compared as RootSIFT (Arandjelovic and Zisserman,
CVPR 2012). Each match of two features says by itself how the whole picture would lie, so every one
of them is tried and the one that most others agree with is taken: no match is drawn at random, and
the answer is always the same. A picture with few features is slid over the other one instead.

What lies on each other has to look the same everywhere: other views of a thing, or two things
before one background, agree in some places and not in others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 128
"""Pixels of the longer side of the grey copy that is compared: 16 kB at most."""
FEATURES = 200
OVERLAP = 0.5
"""Each picture has to show this share of its area in the other one."""
PLAIN = 40
"""Pictures with fewer features are slid over each other, too."""

_RATIO = 0.8
"""Lowe's: a match counts if the next best is at least this much farther."""
_TOLERANCE = 2.0
"""Pixels of the grey copy."""
_STRETCH = 1.5
"""How much more one direction may be scaled than another."""
_SCALES = 0.6, 1.0, 12
"""Sizes at which a picture is slid over the other: from, to, number."""
_CELL = 16
"""Pixels: a side of the places that are compared one by one."""
_WORST = 0.1
"""The place that counts: this share of all look no more alike."""
_SURE = 0.9
"""A score at which nothing else is tried."""
_EVEN = 0.01
"""Variance, of 1 over the whole picture, below which a place is even."""

# A mirrored patch has the same gradients in mirrored places: SIFT's 4 x 4 places x 8 directions.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()

Grey = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is compared of a picture."""

    grey: Grey
    points: Floats
    """[n, 4]: x, y, size and direction in radians of each feature."""
    descriptors: NDArray[np.uint8]
    """[n, 128]."""

    def mirrored(self) -> "Look":
        x, y, size, direction = self.points.T
        flipped = np.stack([self.grey.shape[1] - 1 - x, y, size, np.pi - direction], axis=1)
        return Look(
            grey=np.ascontiguousarray(self.grey[:, ::-1]),
            points=flipped,
            descriptors=self.descriptors[:, _MIRRORED],
        )


def small(picture: Image.Image) -> Grey:
    """[h, w]: a grey copy whose longer side has `SIDE` pixels."""
    factor = SIDE / max(picture.size)
    size = (max(round(picture.width * factor), 8), max(round(picture.height * factor), 8))
    grey = picture.convert("L").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(grey)


def look(grey: Grey) -> Look:
    """The features of a grey copy, in an order that depends on nothing else."""
    # Not upscaled precisely, features lie half a pixel to one side, mirrored ones to the other.
    sift = cv2.SIFT.create(
        FEATURES, contrastThreshold=0.01, edgeThreshold=15, enable_precise_upscale=True
    )
    points, descriptors = sift.detectAndCompute(grey, None)
    if not points:
        none = np.zeros((0, 128), np.uint8)
        return Look(grey=grey, points=np.zeros((0, 4), np.float32), descriptors=none)
    rows = np.array([(*p.pt, p.size, np.deg2rad(p.angle)) for p in points], np.float32)
    order = np.lexsort(rows.T)
    return Look(grey=grey, points=rows[order], descriptors=descriptors[order].astype(np.uint8))


def score(a: Look, b: Look) -> float:
    """How sure it is that one is a copy of the other: 0 (not at all) to 1 (pixel by pixel).

    0 where neither features nor sliding find a way to lay one on the other that overlaps enough.
    """
    best = 0.0
    for other in (b, b.mirrored()):
        for placed in _placements(a, other):
            best = max(best, _agreement(a.grey, other.grey, placed))
            if best > _SURE:
                return best
    return best


# ---------------------------------------------------------------- how one lies on the other


def _placements(a: Look, b: Look) -> Iterator[Floats]:
    """[2, 3] each: where a point of `b` lies in `a`."""
    found = _by_features(a, b)
    if found is not None:
        yield found
    if min(len(a.points), len(b.points)) < PLAIN:
        found = _by_sliding(a.grey, b.grey)
        if found is not None:
            yield found


def _by_features(a: Look, b: Look) -> Floats | None:
    mine, theirs = _matches(a, b)
    if len(mine) < 3:
        return None
    here, there = _complex(mine), _complex(theirs)
    # A match alone gives scale, turn and shift: there -> grow * there + shift.
    grow = mine[:, 2] / theirs[:, 2] * np.exp(1j * (mine[:, 3] - theirs[:, 3]))
    shift = here - grow * there
    errors = np.abs(grow[:, None] * there + shift[:, None] - here)
    agreeing = errors < 3 * _TOLERANCE
    chosen = agreeing[int(agreeing.sum(axis=1).argmax())]
    for tolerance in (3, 2, 2, 1, 1):
        placed = _fitted(mine[chosen, :2], theirs[chosen, :2])
        if placed is None:
            return None
        laid = theirs[:, :2] @ placed[:, :2].T + placed[:, 2]
        chosen = np.linalg.norm(laid - mine[:, :2], axis=1) < tolerance * _TOLERANCE
    return placed if chosen.sum() >= 3 else None


def _matches(a: Look, b: Look) -> tuple[Floats, Floats]:
    """[m, 4] twice: features that are each other's nearest, clearly nearer than the next."""
    if len(a.points) < 2 or len(b.points) < 2:
        return a.points[:0], b.points[:0]
    alike = _root(a.descriptors) @ _root(b.descriptors).T
    rows = np.arange(len(alike))
    best = alike.argmax(axis=1)
    first = alike[rows, best]
    mutual = alike.argmax(axis=0)[best] == rows
    alike[rows, best] = -1
    clear = 1 - first < _RATIO**2 * (1 - alike.max(axis=1))
    return a.points[mutual & clear], b.points[best[mutual & clear]]


def _root(descriptors: NDArray[np.uint8]) -> Floats:
    """Unit rows whose products are Hellinger's kernel."""
    rows = descriptors.astype(np.float32)
    rooted: Floats = np.sqrt(rows / np.maximum(rows.sum(axis=1, keepdims=True), 1))
    return rooted


def _complex(points: Floats) -> NDArray[np.complex64]:
    return points[:, 0] + 1j * points[:, 1]


def _fitted(here: Floats, there: Floats) -> Floats | None:
    """By least squares: with stretching from six points on, without for fewer; None if absurd."""
    if len(here) < 2:
        return None
    if len(here) < 6:
        x, y = there.T
        none, one = np.zeros_like(x), np.ones_like(x)
        rows = np.concatenate(
            [np.stack([x, -y, one, none], axis=1), np.stack([y, x, none, one], axis=1)]
        )
        c, s, right, down = np.linalg.lstsq(rows, here.T.ravel(), rcond=None)[0]
        placed = np.array([[c, -s, right], [s, c, down]], np.float32)
    else:
        rows = np.column_stack([there, np.ones(len(there), np.float32)])
        placed = np.linalg.lstsq(rows, here, rcond=None)[0].T.astype(np.float32)
    return placed if _is_sane(placed) else None


def _by_sliding(a: Grey, b: Grey) -> Floats | None:
    """The smaller at several sizes at every place of the larger, then turned and moved to fit.

    Sliding is done at half the size; None if nowhere the two correlate by half.
    """
    near, far = _halved(a), _halved(b)
    found = []
    for scale in np.linspace(*_SCALES):
        found.append(_slid(near, far, float(scale)))
        value, placed = _slid(far, near, float(scale))
        found.append((value, _turned_round(placed)))
    value, placed = max(found, key=lambda one: one[0])
    if value < 0.5:
        return None
    placed[:, 2] = 2 * placed[:, 2] + 0.5 - placed[:, :2].sum(axis=1) / 2  # pixels have centres
    return _refined(a, b, placed)


def _halved(grey: Grey) -> Grey:
    halved = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return halved.astype(np.uint8, copy=False)


def _slid(outer: Grey, inner: Grey, scale: float) -> tuple[float, Floats]:
    """Correlation and place of `inner`, which is `scale` times as large as would fit `outer`."""
    factor = scale * min(outer.shape[0] / inner.shape[0], outer.shape[1] / inner.shape[1])
    size = (max(round(inner.shape[1] * factor), 1), max(round(inner.shape[0] * factor), 1))
    patch = cv2.resize(inner, size, interpolation=cv2.INTER_AREA)
    if patch.std() < 1:
        return -1.0, np.eye(2, 3, dtype=np.float32)
    _, value, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(outer, patch, cv2.TM_CCOEFF_NORMED))
    across, down = size[0] / inner.shape[1], size[1] / inner.shape[0]
    placed = [[across, 0, x + (across - 1) / 2], [0, down, y + (down - 1) / 2]]
    return value, np.array(placed, np.float32)


def _refined(a: Grey, b: Grey, placed: Floats) -> Floats:
    """Turned, moved and stretched to the highest correlation nearby (cv2's ECC)."""
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-5)
    everywhere = np.full(b.shape, 255, np.uint8)
    start = _turned_round(placed)
    try:
        _, found = cv2.findTransformECC(a, b, start, cv2.MOTION_AFFINE, until, everywhere, 5)
    except cv2.error:  # it drifted off or saw nothing to follow: the start is the best there is
        return placed
    turned = np.asarray(found, np.float32)
    return _turned_round(turned) if _is_sane(turned) else placed


def _turned_round(placed: Floats) -> Floats:
    """Where a point of `a` lies in `b`, from where one of `b` lies in `a`, and back."""
    return np.asarray(cv2.invertAffineTransform(placed), np.float32)


def _is_sane(placed: Floats) -> bool:
    """Neither a third as large, nor thrice, nor drawn out."""
    long, short = np.linalg.svd(placed[:, :2], compute_uv=False)
    return bool(short > 1 / 3 and long < 3 and long < _STRETCH * short)


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
