"""What a part is made of: its shape bent, a ball around it, and the poses of its copies."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isekai.sources.procedural.sdf import SHAPES, Array, Field, clamp, length, rope, spline
from isekai.types import Part

_F = np.float32


def _extent(part: Part) -> tuple[NDArray[np.float64], float, float]:
    """Centre and radius of a ball around the part's own shape, and its half height."""
    origin = np.zeros(3)
    s = part.size
    match part.shape:
        case "ball":
            return origin, s[0], s[0]
        case "ellipsoid":
            return origin, max(s), s[1]
        case "egg":
            return origin, s[2] / 2 + max(s[0], s[1]), s[2] / 2 + max(s[0], s[1])
        case "box":
            return origin, math.hypot(*s[:3]), s[1]
        case "cylinder":
            return origin, math.hypot(s[0], s[1]), s[1]
        case "tube":
            return origin, math.hypot(s[0], s[2]), s[2]
        case "cone":
            return origin, math.hypot(max(s[0], s[1]), s[2]), s[2]
        case "capsule":
            return origin, s[0] + s[1], s[0] + s[1]
        case "torus":
            return origin, s[0] + s[1], s[1]
        case "arc":
            return _arc_extent(*s)
        case "helix":
            tall = s[2] * s[3] / 2 + s[1]
            return origin, math.hypot(s[0] + s[1], tall), tall
        case "prism":
            return origin, math.hypot(s[1], s[2]), s[2]
        case "star":
            return origin, math.hypot(max(s[1], s[2]), s[3]), s[3]
        case "gear":
            return origin, math.hypot(s[1] + s[2] / 2, s[3]), s[3]
        case "diamond":
            return origin, max(s[0], s[1]), s[1]
        case "dome" | "bowl":
            return origin, s[0], s[0]
        case "leaf":
            return origin, max(s[0], s[1], s[2]), s[0]
        case "path":
            fine = spline(np.array(part.points, dtype=np.float64))
            low = (fine[:, :3] - fine[:, 3:]).min(axis=0)
            high = (fine[:, :3] + fine[:, 3:]).max(axis=0)
            centre = (low + high) / 2
            away = np.linalg.norm(fine[:, :3] - centre, axis=1) + fine[:, 3]
            return centre, float(away.max()), float((high - low)[1] / 2)
    raise ValueError(f"no shape is called {part.shape}")


def _arc_extent(
    ring: float, r1: float, r2: float, degrees: float
) -> tuple[NDArray[np.float64], float, float]:
    angles = np.radians(np.linspace(0, degrees, 24))
    points = np.stack([ring * np.cos(angles), ring * np.sin(angles), 0 * angles], axis=1)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    away = float(np.linalg.norm(points - centre, axis=1).max())
    wide = max(r1, r2)
    return centre, away + wide + 0.003 * ring, ring + wide


@dataclass(frozen=True, slots=True)
class Form:
    """A part's distance in its own frame, a ball around it, and the poses of its copies."""

    field: Field
    centre: NDArray[np.float64]
    radius: float
    turns: NDArray[np.float32]
    """[copies, 3, 3], from the part's frame to the sketch's."""
    places: NDArray[np.float32]
    """[copies, 3]."""

    centres: Array
    """[copies, 3] centres of the balls around the copies."""


@lru_cache(maxsize=512)
def form(part: Part) -> Form:
    """What a part is made of; the same object for the same part."""
    centre, radius, half = _extent(part)
    if part.shape == "path":
        field = rope(np.array(part.points, dtype=np.float64))
    else:
        shape, size = SHAPES[part.shape], part.size

        def field(p: Array) -> Array:
            return shape(p, *size)

    if part.taper:
        field = _tapered(field, part.taper, half)
    if part.twist:
        field = _twisted(field, part.twist)
    if part.bend:
        field, radius = _bent(field, part.bend), radius * 1.15
    turns, places = copies(part)
    centres = places + turns @ centre
    return Form(
        field,
        centre,
        radius,
        turns.astype(np.float32),
        places.astype(np.float32),
        centres.astype(np.float32),
    )


def _tapered(field: Field, taper: float, half: float) -> Field:
    rate = taper / (2 * half)

    def distance(p: Array) -> Array:
        share = np.clip((p[1] + _F(half)) * _F(0.5 / half), _F(0), _F(1))
        width = np.maximum(_F(1) - _F(taper) * share, _F(0.08))
        lean = length(p[0], p[2]) * (_F(rate) / width)
        away = field(np.stack([p[0] / width, p[1], p[2] / width]))
        return away * width / np.sqrt(_F(1) + lean * lean)

    return distance


def _twisted(field: Field, degrees: float) -> Field:
    rate = math.radians(degrees)

    def distance(p: Array) -> Array:
        c, s = np.cos(p[1] * _F(rate)), np.sin(p[1] * _F(rate))
        away = field(np.stack([c * p[0] - s * p[2], p[1], s * p[0] + c * p[2]]))
        # At distance r from the axis the twist stretches space by sqrt(1 + (rate * r)^2).
        lean = length(p[0], p[2]) * _F(rate)
        longer: Array = np.sqrt(lean * lean + _F(1.05))
        return away / longer

    return distance


def _bent(field: Field, degrees: float) -> Field:
    radius = 1 / math.radians(degrees)
    sign = math.copysign(1.0, radius)

    def distance(p: Array) -> Array:
        x = _F(abs(radius)) - _F(sign) * p[0]
        away = length(x, p[1])
        angle = np.arctan2(p[1], x)
        own = np.stack([_F(radius) - _F(sign) * away, angle * _F(abs(radius)), p[2]])
        # Nearer to the centre of the bend, space is stretched by radius / away; and a chord is
        # down to 2 / pi of the arc along which the straight part measures.
        return field(own) * clamp(away * _F(0.62 / abs(radius)), 0.02, 0.62)

    return distance


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    """About x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return z @ y @ x


def copies(part: Part) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Poses of all copies: `[k, 3, 3]` turns and `[k, 3]` places; line, then cover, ring, mirror.

    A mirrored copy is the true reflection: its turn has determinant -1.
    """
    turn, place = rotation(part.turn), np.array(part.at, dtype=np.float64)
    step = np.array(part.step, dtype=np.float64)
    poses = [(turn, place + i * step) for i in range(part.line)]
    if part.cover > 1:
        poses = [(r @ t, r @ p) for t, p in poses for r in _covering(part.cover)]
    if part.ring > 1:
        spins = [rotation((0, 360 * i / part.ring, 0)) for i in range(part.ring)]
        poses = [(r @ t, r @ p) for t, p in poses for r in spins]
    if part.mirror:
        flip = np.diag([-1.0, 1.0, 1.0])
        poses += [(flip @ t, flip @ p) for t, p in poses]
    return np.stack([t for t, _ in poses]), np.stack([p for _, p in poses])


def _covering(count: int) -> list[NDArray[np.float64]]:
    """Turns that carry +y over the upper half of a ball, in a sunflower spiral."""
    golden = math.degrees(math.pi * (3 - math.sqrt(5)))
    return [
        rotation((0, golden * i, 0))
        @ rotation((0, 0, -math.degrees(math.acos(1 - (i + 0.5) / count))))
        for i in range(count)
    ]
