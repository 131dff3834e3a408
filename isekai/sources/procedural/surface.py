"""What a surface looks like: lattice noise, patterns, materials, and palettes in OKLCH."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from isekai.sources.procedural.sdf import Array, clamp, length

_F = np.float32


# ---------------------------------------------------------------- noise


_PRIMES = (np.uint32(0x8DA6B343), np.uint32(0xD8163841), np.uint32(0xCB1AB31F))


def _hash(cells: Sequence[NDArray[np.int32]]) -> NDArray[np.uint32]:
    """Well-mixed 32 bits for each lattice point; integers only, so equal on every machine."""
    h = cells[0].astype(np.uint32) * _PRIMES[0]
    for cell, prime in zip(cells[1:], _PRIMES[1:], strict=False):
        h ^= cell.astype(np.uint32) * prime
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x2C1B3C6D)
    h ^= h >> np.uint32(12)
    h *= np.uint32(0x297A2D39)
    h ^= h >> np.uint32(15)
    return h


def _unit(h: NDArray[np.uint32]) -> Array:
    return (h >> np.uint32(8)).astype(np.float32) * _F(1 / (1 << 24))


def noise(p: Array) -> Array:
    """Smooth value noise in 0..1 with a period of about one unit; p is [2, n] or [3, n]."""
    cell = np.floor(p)
    f = p - cell
    f = f * f * (_F(3) - _F(2) * f)
    weights = [(_F(1) - share, share) for share in f]
    lattice = [(low, low + np.int32(1)) for low in cell.astype(np.int32)]
    total = np.zeros(p.shape[1], dtype=np.float32)
    for corner in product((0, 1), repeat=len(p)):
        value = _unit(_hash([low_high[k] for low_high, k in zip(lattice, corner, strict=True)]))
        for weight, k in zip(weights, corner, strict=True):
            value *= weight[k]
        total += value
    return total


def cloud(p: Array, octaves: int = 3) -> Array:
    """Noise over several scales, 0..1."""
    total = np.zeros(p.shape[1], dtype=np.float32)
    weight, whole = 1.0, 0.0
    for octave in range(octaves):
        total += _F(weight) * noise(p * _F(2**octave) + _F(17.3 * octave))
        whole += weight
        weight *= 0.5
    return total / _F(whole)


def _cells(p: Array) -> tuple[Array, Array, Array]:
    """Distances to the nearest and second nearest of a jittered lattice, and a number a cell."""
    base = np.floor(p - _F(0.5)).astype(np.int32)
    first = np.full(p.shape[1], 81.0, dtype=np.float32)
    second = first.copy()
    name = np.zeros(p.shape[1], dtype=np.float32)
    for corner in product((0, 1), repeat=len(p)):
        cells = [low + np.int32(k) for low, k in zip(base, corner, strict=True)]
        h = _hash(cells)
        near = np.zeros(p.shape[1], dtype=np.float32)
        for axis, (cell, place) in enumerate(zip(cells, p, strict=True)):
            jitter = ((h >> np.uint32(8 * axis)) & np.uint32(255)).astype(np.float32)
            away = cell.astype(np.float32) + (_F(0.15) + jitter * _F(0.7 / 255)) - place
            near += away * away
        closer = near < first
        second = np.where(closer, first, np.minimum(second, near))
        name = np.where(closer, _unit(h), name)
        first = np.where(closer, near, first)
    return np.sqrt(first), np.sqrt(second), name


# ---------------------------------------------------------------- patterns


def _wave(x: Array) -> Array:
    """A soft-edged square wave of period 1, 0..1."""
    triangle = np.abs(x - np.floor(x) - _F(0.5)) * _F(4) - _F(1)
    return clamp(triangle * _F(2) + _F(0.5), 0, 1)


def _around(p: Array) -> Array:
    return np.arctan2(p[0], p[2]) * _F(1 / (2 * math.pi))


def _deep(p: Array) -> Array:
    return p[2] if len(p) == 3 else np.zeros_like(p[0])


def _stripes(p: Array) -> Array:
    return _wave(p[1])


def _rings(p: Array) -> Array:
    wobble = noise(p * _F(0.35)) * _F(1.2)
    return _wave(np.sqrt(p[0] * p[0] + p[2] * p[2]) + wobble)


def _ribs(p: Array, scale: float) -> Array:
    count = max(4, round(scale * 1.5))
    turn = _around(p) * _F(count)
    return _F(0.5) - _F(0.5) * np.cos(turn * _F(2 * math.pi))


def _checks(p: Array) -> Array:
    cell = np.floor(p + _F(0.01)).astype(np.int32)
    return (cell.sum(axis=0, dtype=np.int32) & 1).astype(np.float32)


def _dots(p: Array) -> Array:
    cell = np.floor(p)
    away = p - cell - _F(0.5)
    far = length(*away)
    return clamp((_F(0.42) - far) * _F(8), 0, 1)


def _speckle(p: Array) -> Array:
    return clamp((noise(p * _F(2.2)) - _F(0.62)) * _F(7), 0, 1)


def _marble(p: Array) -> Array:
    wave = np.sin((p[0] + p[1] * _F(0.6) + cloud(p * _F(0.5)) * _F(7)) * _F(1.3))
    return (_F(1) - np.abs(wave)) ** 3


def _cell_pattern(p: Array) -> Array:
    first, second, name = _cells(p)
    seam = clamp((second - first) * _F(5), 0, 1)
    return _F(1) - seam * (_F(0.55) + _F(0.45) * name)


def _cracks(p: Array) -> Array:
    warp = noise(p * _F(2.5)) * _F(0.35)
    first, second, _ = _cells(p + warp)
    return clamp(_F(1.15) - (second - first) * _F(7), 0, 1)


def _bricks(p: Array) -> Array:
    row = np.floor(p[1])
    y = p[1] - row
    x = (p[0] + _deep(p)) * _F(0.5) + _F(0.5) * (row % _F(2))
    x = x - np.floor(x)
    edge = np.minimum(np.minimum(x, 1 - x) * _F(2), np.minimum(y, 1 - y))
    return clamp(_F(1.2) - edge * _F(9), 0, 1)


def _knit(p: Array) -> Array:
    x = _around(p) * _F(14)
    lean = np.abs(x - np.floor(x) - _F(0.5))
    return _F(0.5) - _F(0.5) * np.cos((p[1] * _F(1.6) + lean * _F(1.6)) * _F(2 * math.pi))


def _mesh(p: Array) -> Array:
    across = np.abs(np.sin(p[0] * _F(math.pi)))
    up = np.abs(np.sin(p[1] * _F(math.pi)))
    deep = np.abs(np.sin(p[2] * _F(math.pi)))
    least = np.minimum(np.minimum(across, up), deep)
    return clamp(_F(1.4) - least * _F(4), 0, 1)


def _planks(p: Array) -> Array:
    deep = _deep(p)
    x = p[0] + _F(0.3) * np.floor(deep * _F(0.25))
    edge = np.minimum(x - np.floor(x), np.ceil(x) - x)
    grain = noise(np.stack([p[0] * _F(6), p[1] * _F(0.7), deep * _F(0.7)]))
    return clamp(_F(1.1) - edge * _F(14), 0, 1) + _F(0.25) * grain


def _fuzz(p: Array) -> Array:
    return noise(p * _F(2.5)) * _F(0.6) + noise(p * _F(6.0)) * _F(0.4)


_PATTERNS: dict[str, Callable[[Array], Array]] = {
    "stripes": _stripes,
    "rings": _rings,
    "checks": _checks,
    "dots": _dots,
    "speckle": _speckle,
    "marble": _marble,
    "cells": _cell_pattern,
    "cracks": _cracks,
    "bricks": _bricks,
    "knit": _knit,
    "mesh": _mesh,
    "planks": _planks,
    "fuzz": _fuzz,
}


def pattern(name: str, p: Array, scale: float) -> Array:
    """How much of the second paint lies at each place, 0..1, also read as a height.

    `p` is [3, n] on a part; on a floor or a wall [2, n] serves all but `rings`, `ribs`, `knit` and
    `mesh`, at half the cost.
    """
    if name == "ribs":
        return _ribs(p, scale)
    if name == "knit":
        return _knit(np.stack([p[0], p[1] * _F(scale), p[2]]))
    return _PATTERNS[name](p * _F(scale))


def relief(name: str, p: Array, scale: float, depth: float, normal: Array) -> Array:
    """The normal tilted as if the pattern stood out by `depth`; all [3, n] in the part's frame."""
    reach = _F(0.18 / scale)
    here = pattern(name, p, scale)
    slope = np.stack(
        [
            pattern(name, p + np.eye(3, dtype=np.float32)[:, k : k + 1] * reach, scale) - here
            for k in range(3)
        ]
    )
    along = slope[0] * normal[0] + slope[1] * normal[1] + slope[2] * normal[2]
    tilted = normal - _F(depth * 1.8) * (slope - along * normal)
    size = np.sqrt(tilted[0] ** 2 + tilted[1] ** 2 + tilted[2] ** 2)
    return tilted / np.maximum(size, _F(1e-6))


# ---------------------------------------------------------------- materials


@dataclass(frozen=True, slots=True)
class Material:
    """How light leaves a surface; shares of 1."""

    diffuse: float
    shine: float
    """Strength of the highlight."""
    sharp: float
    """Exponent of the highlight."""
    mirror: float
    """Share of the surroundings reflected head-on; more at grazing angles."""
    tinted: bool = False
    """Highlights take the paint's colour, as on metals."""
    wrap: float = 0.0
    """How far light creeps round into the shade, as in wax."""
    glow: float = 0.0
    """Light given off, in the second paint where there is a pattern."""


MATERIALS: dict[str, Material] = {
    "matte": Material(diffuse=1.0, shine=0.04, sharp=8, mirror=0.0),
    "satin": Material(diffuse=0.95, shine=0.22, sharp=22, mirror=0.02),
    "glossy": Material(diffuse=0.9, shine=0.75, sharp=90, mirror=0.05),
    "metal": Material(diffuse=0.32, shine=1.1, sharp=55, mirror=0.6, tinted=True),
    "glass": Material(diffuse=0.42, shine=1.3, sharp=160, mirror=0.16, wrap=0.7),
    "wax": Material(diffuse=1.0, shine=0.3, sharp=30, mirror=0.03, wrap=0.5),
    "glow": Material(diffuse=0.75, shine=0.1, sharp=10, mirror=0.0, glow=1.0),
}


# ---------------------------------------------------------------- colour


def oklch(lightness: float, chroma: float, hue: float) -> Array:
    """Linear sRGB of an OKLCH colour (B. Ottosson, 2020), its chroma lowered until it fits."""
    a, b = math.cos(math.radians(hue)), math.sin(math.radians(hue))
    while True:
        roots = (
            lightness + chroma * (0.3963377774 * a + 0.2158037573 * b),
            lightness + chroma * (-0.1055613458 * a - 0.0638541728 * b),
            lightness + chroma * (-0.0894841775 * a - 1.2914855480 * b),
        )
        long, medium, short = (root**3 for root in roots)
        rgb = (
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        )
        if chroma < 0.004 or (min(rgb) >= -1e-4 and max(rgb) <= 1.0001):
            return np.clip(np.array(rgb, dtype=np.float32), 0, 1)
        chroma *= 0.93


def palette(rng: np.random.Generator) -> Array:
    """Five paints of one image, [5, 3] linear: body, second, accent, dark, light.

    Every concept draws from the same distribution, so that no colour belongs to a concept.
    """
    hue = float(rng.uniform(0, 360))
    spread = float(rng.choice([35.0, 60.0, 120.0, 150.0, 180.0])) * float(rng.choice([-1, 1]))
    lightness = rng.permutation([rng.uniform(0.4, 0.55), rng.uniform(0.56, 0.68), 0.8])
    chroma = rng.uniform(0.05, 0.18, 3)
    hues = (hue, hue + spread, hue + 180 + float(rng.uniform(-40, 40)))
    coloured = [
        oklch(float(level) + float(rng.uniform(-0.04, 0.04)), float(strength), angle)
        for level, strength, angle in zip(lightness, chroma, hues, strict=True)
    ]
    dark = oklch(float(rng.uniform(0.18, 0.34)), 0.03, hue + float(rng.uniform(-60, 60)))
    light = oklch(float(rng.uniform(0.86, 0.96)), 0.025, hue + spread)
    return np.stack([*coloured, dark, light])
