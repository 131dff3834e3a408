"""Composes a picture: the concept's parts, a view that shows what matters, light, stage, clutter.

Everything here is drawn from distributions that know nothing of the concept, so that neither
colour nor place nor background can give a label away.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isekai.sources.procedural.march import Rays, cast
from isekai.sources.procedural.sdf import Array, length
from isekai.sources.procedural.surface import oklch, palette
from isekai.types import Part, Sketch

_F = np.float32

VISIBLE = 0.02
"""Each diagnostic part covers at least this share of the concept's pixels."""
VIEWS = 24
"""Views tried before a concept is given up."""
_LOOK = 48
"""Side of the small picture in which a view is judged, pixels."""

_FLOORS = ("planks", "checks", "marble", "cells", "speckle", "fuzz", "stripes", "dots", "")
_WALLS = ("stripes", "bricks", "marble", "dots", "planks", "cells", "", "", "")


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a sketch is: a box, and how far its underside is above the ground."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    underside: Array
    """[64, 64] height of the lowest surface over a grid of x and z in -1.6..1.6, inf for none."""

    @property
    def centre(self) -> NDArray[np.float64]:
        return (self.low + self.high) / 2

    @property
    def radius(self) -> float:
        return float(np.linalg.norm(self.high - self.low) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """A floor or a wall: a pattern in two paints."""

    pattern: str
    scale: float
    paints: Array
    """[2, 3] linear."""


@dataclass(frozen=True, slots=True)
class Grade:
    """How the picture is developed: wide enough that overall colour tells nothing."""

    saturation: float
    curves: tuple[tuple[float, float, float], ...]
    """Gamma, black and white level of red, green and blue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One picture, ready to be rendered. Frame: y up, the concept around the origin."""

    parts: tuple[Part, ...]
    clutter: tuple[Part, ...]
    bounds: Bounds
    ground: float
    paints: Array
    """[5, 3] of the concept."""
    clutter_paints: Array
    eye: Array
    axes: Array
    """[3, 3] rows: right, up, forward of the camera."""
    lens: float
    """Half the picture's width one unit ahead of the eye."""
    shift: tuple[float, float]
    """Where the concept's centre lies in the picture, in half-widths."""
    light: Array
    """[3] unit, towards the light."""
    sun: Array
    """[3] linear colour of the light."""
    ambient: float
    softness: float
    floor: Surface
    wall: Surface
    wall_at: float
    """Distance of the wall behind the concept, along the camera's level heading."""
    horizon: Array
    """[2, 3] colours of what mirrors see: above and below."""
    grade: Grade


class HiddenPart(Exception):
    """No view shows every diagnostic part."""


@lru_cache(maxsize=256)
def bounds(sketch: Sketch) -> Bounds:
    """Measured with rays from below and from the front: heights exactly, widths to 0.03 units."""
    n = 64
    cell = 3.2 / n
    grid = ((np.arange(n, dtype=np.float32) + _F(0.5)) * _F(cell)) - _F(1.6)
    first, second = (m.ravel() for m in np.meshgrid(grid, grid, indexing="ij"))
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    underside = np.full((n, n), np.inf, dtype=np.float32)
    for ahead, across, along in ((1, 0, 2), (2, 0, 1)):
        origin, direction = np.empty((3, n * n), dtype=np.float32), np.zeros((3, n * n), np.float32)
        origin[ahead], origin[across], origin[along] = -4, first, second
        direction[ahead] = 1
        height = cast(sketch.parts, Rays(origin=origin, direction=direction), normals=False).t - 4
        found = np.isfinite(height)
        if not found.any():
            raise ValueError("the sketch has nothing that a ray can hit")
        for axis, places in ((across, first), (along, second)):
            low[axis] = min(low[axis], places[found].min() - cell / 2)
            high[axis] = max(high[axis], places[found].max() + cell / 2)
        if ahead == 1:
            underside, lowest = height.reshape(n, n), float(height.min())
    low[1] = lowest
    return Bounds(low, high, underside)


def compose(sketch: Sketch, rng: np.random.Generator) -> Scene:
    """A picture of the sketch; HiddenPart if no view shows all of its diagnostic parts."""
    box = bounds(sketch)
    ground = float(box.low[1]) - sketch.lift
    paints = palette(rng)
    share = float(rng.uniform(0.13, 0.3))
    for _ in range(VIEWS):
        eye, axes, lens = _camera(box, ground, rng)
        zoom = _framed(sketch, eye, axes, lens, share)
        if zoom is not None:
            break
    else:
        names = ", ".join(sketch.diagnostic)
        raise HiddenPart(f"{VIEWS} views did not show all of: {names}")
    lens, centre, half = zoom
    spare = np.maximum(0.98 - half, 0) * rng.uniform(-1, 1, 2) * 0.7
    shift = (float(spare[0] - centre[0]), float(spare[1] - centre[1]))
    heading = math.atan2(axes[2][0], axes[2][2])
    side = float(rng.choice([-1, 1])) * float(rng.uniform(25, 80))
    light = _direction(heading + math.pi + math.radians(side), math.radians(rng.uniform(32, 62)))
    hue = float(rng.uniform(0, 360))
    floor, wall = _surface(_FLOORS, hue, rng), _surface(_WALLS, hue + 150, rng)
    warmth = float(rng.uniform(-1, 1))
    return Scene(
        parts=sketch.parts,
        clutter=_clutter(box, ground, heading, rng),
        bounds=box,
        ground=ground,
        paints=paints,
        clutter_paints=palette(rng),
        eye=eye,
        axes=axes,
        lens=lens,
        shift=shift,
        light=light,
        sun=np.array([1 + 0.1 * warmth, 1.0, 1 - 0.12 * warmth], dtype=np.float32)
        * _F(rng.uniform(1.9, 2.5)),
        ambient=float(rng.uniform(0.42, 0.6)),
        softness=float(rng.uniform(0.03, 0.09)),
        floor=floor,
        wall=wall,
        wall_at=float(rng.uniform(1.9, 3.6)),
        horizon=np.stack([wall.paints.mean(axis=0), floor.paints.mean(axis=0)]),
        grade=_grade(rng),
    )


def _camera(box: Bounds, ground: float, rng: np.random.Generator) -> tuple[Array, Array, float]:
    azimuth = math.radians(float(rng.uniform(-65, 65)))
    elevation = math.radians(float(rng.uniform(6, 36)))
    lens = math.tan(math.radians(float(rng.uniform(24, 38)) / 2))
    centre = box.centre
    distance = box.radius / math.sin(math.atan(lens))
    back = _direction(azimuth, elevation)
    eye = centre + back.astype(np.float64) * distance
    eye[1] = max(eye[1], ground + 0.15)
    forward = centre - eye
    forward /= np.linalg.norm(forward)
    roll = math.radians(float(rng.normal(0, 2.5)))
    right = np.cross(forward, (0, 1, 0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    right, up = (
        right * math.cos(roll) + up * math.sin(roll),
        up * math.cos(roll) - right * math.sin(roll),
    )
    return eye.astype(np.float32), np.stack([right, up, forward]).astype(np.float32), lens


def _direction(azimuth: float, elevation: float) -> Array:
    level = math.cos(elevation)
    return np.array(
        [math.sin(azimuth) * level, math.sin(elevation), math.cos(azimuth) * level],
        dtype=np.float32,
    )


def rays(eye: Array, axes: Array, lens: float, u: Array, v: Array) -> tuple[Array, Array]:
    """Origin [3, 1] and unit directions [3, n] of picture places u, v (-1..1, v upwards)."""
    right, up, forward = axes
    direction = forward[:, None] + right[:, None] * (u * _F(lens)) + up[:, None] * (v * _F(lens))
    return eye[:, None], direction / length(*direction)


def _framed(
    sketch: Sketch, eye: Array, axes: Array, lens: float, share: float
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]] | None:
    """The lens with which the concept covers `share` of the picture, or fills it if that is less.

    Also its centre and half extent in that picture; None where a diagnostic part is hidden.
    """
    step = (np.arange(_LOOK, dtype=np.float32) + _F(0.5)) / _F(_LOOK) * 2 - 1
    u, v = (m.ravel() for m in np.meshgrid(step, step))
    origin, direction = rays(eye, axes, lens, u, v)
    sight = Rays(origin=origin, direction=direction, near=0.006)
    part = cast(sketch.parts, sight, normals=False).part
    seen = np.flatnonzero(part >= 0)
    if not seen.size or any(
        (part == i).sum() < VISIBLE * seen.size
        for i, one in enumerate(sketch.parts)
        if one.name in sketch.diagnostic
    ):
        return None
    low = np.array([u[seen].min(), v[seen].min()], dtype=np.float64) - 1 / _LOOK
    high = np.array([u[seen].max(), v[seen].max()], dtype=np.float64) + 1 / _LOOK
    zoom = max(math.sqrt(seen.size / u.size / share), float((high - low).max()) / 2 / 0.94)
    return lens * zoom, (low + high) / 2 / zoom, (high - low) / 2 / zoom


def _grade(rng: np.random.Generator) -> Grade:
    gamma = math.exp(float(rng.normal(0, 0.33)))
    black, white = float(rng.uniform(0, 0.14)), float(rng.uniform(0.84, 1.0))
    return Grade(
        saturation=float(rng.uniform(0.5, 1.15)),
        curves=tuple((gamma * math.exp(float(rng.normal(0, 0.1))), black, white) for _ in range(3)),
    )


def _surface(patterns: tuple[str, ...], hue: float, rng: np.random.Generator) -> Surface:
    lightness = float(rng.uniform(0.36, 0.86))
    chroma = float(rng.uniform(0.01, 0.085))
    contrast = float(rng.uniform(0.05, 0.2)) * float(rng.choice([-1, 1]))
    return Surface(
        pattern=str(rng.choice(patterns)),
        scale=float(rng.uniform(1.4, 3.6)),
        paints=np.stack(
            [
                oklch(lightness, chroma, hue),
                oklch(float(np.clip(lightness + contrast, 0.2, 0.95)), chroma, hue + 25),
            ]
        ),
    )


_CLUTTER = {
    "ball": ((1.0,), 1.0),
    "box": ((1.0, 1.0, 1.0, 0.2), 1.0),
    "cylinder": ((0.8, 1.0, 0.15), 1.0),
    "cone": ((1.0, 0.1, 1.0, 0.05), 1.0),
    "torus": ((1.0, 0.35), 0.35),
    "dome": ((1.0, 0.0), 0.0),
    "diamond": ((1.0, 1.2), 1.2),
    "egg": ((1.0, 0.6, 0.8), 1.4),
}
"""Shape -> its size and the height of its centre over the ground, both for a thing of size 1."""


def _clutter(
    box: Bounds, ground: float, heading: float, rng: np.random.Generator
) -> tuple[Part, ...]:
    """A few plain solids on the ground, beside and behind the concept, never before it."""
    placed = []
    for number in range(int(rng.integers(2, 9))):
        shape = str(rng.choice(list(_CLUTTER)))
        proportions, rise = _CLUTTER[shape]
        size = float(rng.uniform(0.07, 0.3)) * max(box.radius, 0.5)
        away = box.radius * float(rng.uniform(1.2, 2.4)) + size
        angle = heading + math.radians(float(rng.uniform(-105, 105)))
        placed.append(
            Part(
                name=f"clutter {number}",
                shape=shape,
                size=tuple(size * share for share in proportions),
                at=(
                    math.sin(angle) * away,
                    ground + size * rise,
                    math.cos(angle) * away,
                ),
                turn=(0.0, float(rng.uniform(0, 360)), 0.0),
                paint=int(rng.integers(0, 5)),
                paint2=int(rng.integers(0, 5)),
                pattern=str(rng.choice(["", "", "stripes", "dots", "checks"])),
                scale=float(rng.uniform(6, 12)),
                material=str(rng.choice(["matte", "satin", "glossy", "metal"])),
            )
        )
    return tuple(placed)
