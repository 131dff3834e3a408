"""Text in pictures: how wide it is, where it meets no other, in which colour it can be read."""

import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

SIZE = 8
"""Points of common text."""
POINT = 1 / 72
"""Inches."""


@lru_cache(maxsize=4096)
def wide(text: str, size: float = SIZE, *, bold: bool = False) -> float:
    """Inches that the text takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) * POINT


def spread(heights: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """The heights moved apart as little as can be, so that things of these sizes don't meet.

    In the least squares sense, within 0 and 1 as far as they fit: what may not decrease is each
    height less the sizes that have to be below it (isotonic regression).
    """
    order = sorted(range(len(heights)), key=lambda i: (heights[i], i))
    steps = [(sizes[a] + sizes[b]) / 2 for a, b in itertools.pairwise(order)]
    below = np.concatenate([[0.0], np.cumsum(steps)])
    free = isotonic_regression(np.array([heights[i] for i in order]) - below).x
    placed = np.clip(free, 0, max(1 - below[-1], 0)) + below
    found = dict(zip(order, placed.tolist(), strict=True))
    return [found[i] for i in range(len(heights))]


def readable(colour: str) -> str:
    """The colour, darkened until text in it stands out from white by 4.5 to 1 (WCAG 2.2, 1.4.3)."""
    from matplotlib.colors import to_hex, to_rgb

    rgb = np.array(to_rgb(colour))
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = rgb * 0.97
    return to_hex(tuple(rgb.tolist()))


def _luminance(rgb: NDArray[np.float64]) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
