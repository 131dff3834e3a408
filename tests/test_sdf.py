"""Distances that rays may trust: never much too long, negative inside, honest about copies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import sketch
from isekai.sources.procedural.form import copies, form, rotation
from isekai.sources.procedural.sdf import smooth_min
from isekai.types import Part

SIZES = {
    "ball": (0.6,),
    "ellipsoid": (0.7, 0.4, 0.5),
    "egg": (0.5, 0.2, 0.6),
    "box": (0.5, 0.6, 0.4, 0.1),
    "cylinder": (0.5, 0.6, 0.08),
    "tube": (0.5, 0.12, 0.5),
    "cone": (0.6, 0.1, 0.6, 0.05),
    "capsule": (0.3, 0.5),
    "torus": (0.5, 0.2),
    "arc": (0.6, 0.2, 0.04, 200.0),
    "path": (),
    "helix": (0.4, 0.1, 0.3, 3.0),
    "prism": (6.0, 0.6, 0.4, 0.05),
    "star": (5.0, 0.7, 0.3, 0.2),
    "gear": (10.0, 0.6, 0.2, 0.2),
    "diamond": (0.5, 0.8),
    "dome": (0.7, -0.1),
    "bowl": (0.7, 0.08, 0.1),
    "leaf": (0.8, 0.4, 0.1),
}
ROPE = ((-0.5, -0.5, 0.0, 0.2), (0.0, 0.0, 0.3, 0.15), (0.1, 0.5, 0.0, 0.1), (0.6, 0.6, 0.0, 0.05))


def part(shape: str, **more: object) -> Part:
    points = ROPE if shape == "path" else ()
    return Part(name=shape, shape=shape, size=SIZES[shape], points=points, **more)  # type: ignore[arg-type]


def places(n: int, reach: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-reach, reach, (3, n)).astype(np.float32)


def test_the_grammar_and_the_renderer_know_the_same_shapes():
    assert set(SIZES) == set(sketch.SHAPES)
    for shape, meanings in sketch.SHAPES.items():
        assert len(SIZES[shape]) == len(meanings)


SLENDER = ("ball", "ellipsoid", "egg", "cylinder", "tube", "cone", "capsule", "diamond", "leaf")
CHANGES = [
    *(
        (shape, change)
        for shape in sketch.SHAPES
        for change in ({}, {"taper": 0.6}, {"twist": 70.0})
    ),
    *((shape, {"bend": 60.0}) for shape in SLENDER),
]


@pytest.mark.parametrize(("shape", "change"), CHANGES)
def test_a_ray_never_steps_through_a_surface(shape: str, change: dict[str, float]):
    """From outside, a ball as wide as the distance holds no place inside the solid."""
    field = form(part(shape, **change)).field
    start = places(3000, 1.3)
    free = field(start)
    start, free = start[:, free > 0.02], free[free > 0.02]
    rng = np.random.default_rng(1)
    way = rng.normal(size=start.shape)
    way /= np.linalg.norm(way, axis=0)
    for share in (0.5, 0.8, 0.95):
        end = start + (way * free * share).astype(np.float32)
        assert (field(end) > -0.004).all()


@pytest.mark.parametrize("shape", sketch.SHAPES)
def test_the_ball_around_a_shape_holds_all_of_it(shape: str):
    shape_form = form(part(shape))
    p = places(20000, 1.6)
    inside = p[:, shape_form.field(p) < 0]
    assert inside.shape[1] > 20
    away = np.linalg.norm(inside - shape_form.centre[:, None], axis=0)
    assert away.max() <= shape_form.radius + 1e-3


@pytest.mark.parametrize("shape", sketch.SHAPES)
def test_surfaces_are_where_distances_say(shape: str):
    """Close to the surface the distance falls by about as much as one walks towards it."""
    field = form(part(shape)).field
    p = places(20000, 1.2)
    near = p[:, np.abs(field(p)) < 0.03]
    step = 1e-3
    slope = np.stack(
        [
            (field(near + np.eye(3, dtype=np.float32)[:, [k]] * np.float32(step)) - field(near))
            / step
            for k in range(3)
        ]
    )
    steep = np.linalg.norm(slope, axis=0)
    assert np.median(steep) > 0.55
    assert np.quantile(steep, 0.99) < 1.25


@given(
    ring=st.integers(1, 7),
    cover=st.integers(1, 9),
    line=st.integers(1, 4),
    mirror=st.booleans(),
)
def test_copies_multiply_and_keep_their_shape(ring: int, cover: int, line: int, mirror: bool):
    one = part("ball", ring=ring, cover=cover, line=line, mirror=mirror, at=(0.3, 0.5, 0.1))
    turns, where = copies(one)
    assert len(turns) == len(where) == ring * cover * line * (2 if mirror else 1)
    np.testing.assert_allclose(
        turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (len(turns), 1, 1)), atol=1e-9
    )
    signs = np.linalg.det(turns)
    assert (signs < 0).sum() == (len(turns) // 2 if mirror else 0)
    np.testing.assert_allclose(np.abs(signs), 1, atol=1e-9)


def test_a_mirrored_copy_is_the_reflection():
    """Places that are each other's reflection are equally far from a part and its mirror copy."""
    shape = form(part("arc", mirror=True, at=(0.3, 0.1, 0.2), turn=(20, 50, 70)))
    p = places(500, 1.0)
    both = [
        shape.field((turn.T @ (p - place[:, None])).astype(np.float32))
        for turn, place in zip(shape.turns, shape.places, strict=True)
    ]
    flipped = p * np.float32([[-1], [1], [1]])
    again = shape.field(shape.turns[1].T @ (flipped - shape.places[1][:, None]))
    np.testing.assert_allclose(both[0], again, atol=1e-5)


def test_a_ring_stands_evenly_around_the_axis():
    _, where = copies(part("ball", at=(0.5, 0.2, 0.0), ring=5))
    np.testing.assert_allclose(where.sum(axis=0), [0, 1.0, 0], atol=1e-9)
    np.testing.assert_allclose(np.hypot(where[:, 0], where[:, 2]), 0.5)


def test_rotations_go_about_x_then_y_then_z():
    np.testing.assert_allclose(rotation((90, 0, 0)) @ [0, 1, 0], [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(rotation((90, 90, 0)) @ [0, 1, 0], [1, 0, 0], atol=1e-9)


@given(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32), st.floats(0.015625, 0.5, width=32))
@settings(max_examples=200)
def test_smooth_union_adds_at_most_a_quarter_of_its_radius(a: float, b: float, radius: float):
    x, y = np.float32([a]), np.float32([b])
    joined = smooth_min(x, y, radius)[0]
    assert min(a, b) - radius / 4 - 1e-5 <= joined <= min(a, b) + 1e-6
    if abs(a - b) >= radius:
        assert joined == min(np.float32(a), np.float32(b))
    assert joined == smooth_min(y, x, radius)[0]
