"""Whether a sketch is one solid: which copies of its parts touch which."""

import numpy as np
from numpy.typing import NDArray

from isekai.sources.procedural.form import form
from isekai.sources.procedural.sdf import Array, Field
from isekai.types import Sketch

TOUCH = 0.015
"""Copies this close together count as touching, sketch units."""


def loose(sketch: Sketch) -> tuple[str, ...]:
    """Names of the parts with a copy that does not hang together with the first part."""
    names: list[str] = []
    shells: list[Array] = []
    for part in sketch.parts:
        shape = form(part)
        own = _shell(shape.field, shape.centre, shape.radius)
        for turn, place in zip(shape.turns, shape.places, strict=True):
            names.append(part.name)
            shells.append(np.einsum("ij,jn->in", turn, own) + place[:, None])
    touching = _touching(sketch, shells)
    reached, frontier = {0}, [0]
    while frontier:
        here = frontier.pop()
        new = [int(j) for j in np.flatnonzero(touching[here]) if int(j) not in reached]
        reached.update(new)
        frontier += new
    left = (name for i, name in enumerate(names) if i not in reached)
    return tuple(dict.fromkeys(left))


def _shell(field: Field, centre: NDArray[np.float64], radius: float) -> Array:
    """[3, n] places on the surface, carried there along the gradient from all over the ball."""
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(3, 600))
    cloud *= radius * rng.uniform(0.1, 1.0, 600) ** (1 / 3) / np.linalg.norm(cloud, axis=0)
    p: Array = (cloud + centre[:, None]).astype(np.float32)
    reach = np.float32(0.002)
    for _ in range(12):
        here = field(p)
        slope = np.stack(
            [field(p + np.eye(3, dtype=np.float32)[:, [k]] * reach) - here for k in range(3)]
        )
        size = np.maximum(np.sqrt((slope * slope).sum(axis=0)), np.float32(1e-9))
        p = p - slope / size * here
    return p[:, np.abs(field(p)) < 0.01]


def _touching(sketch: Sketch, shells: list[Array]) -> NDArray[np.bool_]:
    """[copies, copies] symmetric: whose surface comes within TOUCH of the other's solid."""
    count = len(shells)
    touching = np.eye(count, dtype=bool)
    sizes = [shell.shape[1] for shell in shells]
    every = np.concatenate(shells, axis=1)
    owner = np.repeat(np.arange(count), sizes)
    row = 0
    for part in sketch.parts:
        shape = form(part)
        for turn, place, centre in zip(shape.turns, shape.places, shape.centres, strict=True):
            away = every - centre[:, None]
            close = np.flatnonzero((away * away).sum(axis=0) < (shape.radius + TOUCH) ** 2)
            own = np.einsum("ji,jn->in", turn, every[:, close] - place[:, None])
            inside = close[shape.field(own) < TOUCH + part.melt * 0.25]
            touching[row, owner[inside]] = True
            row += 1
    return touching | touching.T
