"""How one picture lies on another by local features: SIFT's (Lowe, Int. J. Comput. Vis. 60, 2004).

They are compared as RootSIFT (Arandjelovic and Zisserman, CVPR 2012). Each match of two features
says by itself how the whole picture would lie, so every one of them is tried and the one that most
others agree with is taken: no match is drawn at random, and the answer is always the same.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MOST = 200
"""Features of a picture."""

_RATIO = 0.8
"""Lowe's: a match counts if the next best is at least this much farther."""
_TOLERANCE = 2.0
"""Pixels of the grey copy."""
_STRETCH = 1.5
"""How much more one direction may be scaled than another."""

# A mirrored patch has the same gradients in mirrored places: SIFT's 4 x 4 places x 8 directions.
_MIRRORED = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """In an order that depends on nothing but the picture."""

    points: Floats
    """[n, 4]: x, y, size and direction in radians of each feature."""
    descriptors: NDArray[np.uint8]
    """[n, 128]."""

    @classmethod
    def of(cls, grey: NDArray[np.uint8]) -> "Features":
        # Not upscaled precisely, features lie half a pixel to one side, mirrored ones to the other.
        sift = cv2.SIFT.create(
            MOST, contrastThreshold=0.01, edgeThreshold=15, enable_precise_upscale=True
        )
        points, descriptors = sift.detectAndCompute(grey, None)
        if not points:
            none = np.zeros((0, 128), np.uint8)
            return cls(points=np.zeros((0, 4), np.float32), descriptors=none)
        rows = np.array([(*p.pt, p.size, np.deg2rad(p.angle)) for p in points], np.float32)
        order = np.lexsort(rows.T)
        return cls(points=rows[order], descriptors=descriptors[order].astype(np.uint8))

    def mirrored(self, width: int) -> "Features":
        """Those of the mirrored picture of so many pixels."""
        x, y, size, direction = self.points.T
        flipped = np.stack([width - 1 - x, y, size, np.pi - direction], axis=1)
        return Features(points=flipped, descriptors=self.descriptors[:, _MIRRORED])


def placed_by(a: Features, b: Features) -> Floats | None:
    """[2, 3]: where a point of `b` lies in `a`; None where fewer than three matches agree."""
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


def _matches(a: Features, b: Features) -> tuple[Floats, Floats]:
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
    return placed if is_sane(placed) else None


def is_sane(placed: Floats) -> bool:
    """Neither a third as large, nor thrice, nor drawn out."""
    long, short = np.linalg.svd(placed[:, :2], compute_uv=False)
    return bool(short > 1 / 3 and long < 3 and long < _STRETCH * short)
