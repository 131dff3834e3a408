"""A glance lets every copy through, few others, and says about how a copy lies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isekai import copies, glances
from isekai.alterations import ALTERATIONS, altered
from tests.test_copies import simple, textured


def glance(picture: Image.Image) -> glances.Glance:
    return glances.glance(copies.small(picture))


def likeness(a: Image.Image, b: Image.Image) -> float:
    return max(value for value, _ in glances.likeness(glance(a), glance(b)))


@pytest.mark.parametrize("make", [textured, simple])
def test_every_altered_picture_is_let_through(make):
    for number in range(6):
        first = make(number)
        for name in ALTERATIONS:
            assert likeness(first, altered(first, str(number), name)) >= glances.LEAST


@pytest.mark.parametrize("make", [textured, simple])
def test_two_altered_ones_are_let_through_as_well(make):
    first = make(1)
    made = [altered(first, "1", name) for name in ALTERATIONS]
    assert min(likeness(one, other) for one in made for other in made) >= glances.LEAST


@pytest.mark.parametrize("make", [textured, simple])
def test_of_other_pictures_few_are_let_through(make):
    seen = [glance(make(number)) for number in range(16)]
    values = [
        max(value for value, _ in glances.likeness(one, other))
        for number, one in enumerate(seen)
        for other in seen[:number]
    ]
    assert np.mean(np.array(values) >= glances.LEAST) <= 0.05


@settings(max_examples=30, deadline=None)
@given(
    number=st.integers(0, 5),
    side=st.floats(0.8, 1),
    left=st.floats(0, 1),
    top=st.floats(0, 1),
    mirrored=st.booleans(),
)
def test_it_says_where_a_part_was_cut_out(number, side, left, top, mirrored):
    first = textured(number)
    width, height = first.size
    x, y = left * (1 - side) * width, top * (1 - side) * height
    part = first.crop((round(x), round(y), round(x + side * width), round(y + side * height)))
    wanted = np.array([[x / width, y / height], [x / width + side, y / height + side]])
    if mirrored:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    corners = np.array([[0, 1], [0, 1], [1, 1]])
    value, placing = glances.likeness(glance(first), glance(part))[mirrored]
    assert value >= glances.LEAST
    assert np.abs((placing @ corners)[:2].T - wanted).max() < 0.07
    value, back = glances.likeness(glance(part), glance(first))[mirrored]
    if mirrored:  # from the mirrored whole into the mirrored part
        wanted = np.stack([1 - wanted[::-1, 0], wanted[:, 1]], axis=1)
    told = np.linalg.inv(back) @ corners
    assert np.abs(told[:2].T - wanted).max() < 0.08


def test_which_picture_comes_first_changes_no_likeness():
    seen = [glance(textured(number)) for number in range(5)]
    for one in seen:
        for other in seen:
            ways = zip(glances.likeness(one, other), glances.likeness(other, one), strict=True)
            for here, there in ways:
                assert here[0] == pytest.approx(there[0], abs=1e-5)


def test_an_even_picture_is_like_none():
    even = Image.new("RGB", (100, 100), (200, 10, 10))
    assert likeness(even, even) < 0.5
    assert likeness(even, textured(1)) < 0.5


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (3, 3), (900, 37)])
def test_pictures_of_any_shape_are_like_themselves(size):
    rng = np.random.default_rng(7)
    picture = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    assert likeness(picture, picture) == pytest.approx(1, abs=1e-5)
