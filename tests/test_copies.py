"""Copies are told from other views, and from other things before the same background."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFilter

from isekai import copies, features
from isekai.alterations import ALTERATIONS, altered, other_thing
from isekai.dedup import Limits
from isekai.episodes import generator
from isekai.features import Features
from tests.conftest import PICTURES, picture

LOOKS = [look for concepts in PICTURES.values() for _, *look in concepts]


def textured(number: int, size: tuple[int, int] = (224, 160)) -> Image.Image:
    """Something like a photograph: patches of several sizes, laid over each other."""
    rng = np.random.default_rng(number)
    layers = []
    for cells in (3, 7, 17, 43):
        patch = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        layers.append(np.asarray(patch.resize(size, Image.Resampling.BICUBIC), np.float64))
    mixed = np.average(layers, axis=0, weights=(4, 3, 2, 1))
    return Image.fromarray(np.clip((mixed - 128) * 1.6 + 128, 0, 255).astype(np.uint8))


def simple(number: int) -> Image.Image:
    return picture(*LOOKS[number % len(LOOKS)], np.random.default_rng(number), size=192)


def score(a: Image.Image, b: Image.Image) -> float:
    return copies.score(*(copies.Look(copies.small(one)) for one in (a, b)))


@pytest.mark.parametrize("name", ALTERATIONS)
@pytest.mark.parametrize("number", range(3))
def test_an_altered_picture_is_a_copy(name, number):
    first = textured(number)
    assert score(first, altered(first, str(number), name)) >= Limits().copy


@pytest.mark.parametrize("name", ["jpeg", "crop_area", "crop_side", "mirror", "rotate_crop"])
@pytest.mark.parametrize("number", range(3))
def test_a_picture_with_few_features_is_known_too(name, number):
    first = simple(number)
    assert len(copies.Look(copies.small(first)).features.points) < 150
    assert score(first, altered(first, str(number), name)) >= Limits().copy


@pytest.mark.parametrize("name", ["crop_side", "mirror"])
def test_a_picture_without_any_feature_is_slid_into_place(name):
    rng = np.random.default_rng(3)
    patch = Image.fromarray(rng.integers(0, 256, (3, 3, 3), dtype=np.uint8))
    smooth = patch.resize((128, 128), Image.Resampling.BICUBIC)
    smooth = smooth.filter(ImageFilter.GaussianBlur(16))
    look = copies.Look(copies.small(smooth))
    assert len(look.features.points) < 3
    other = copies.Look(copies.small(altered(smooth, "a", name)))
    assert copies.score(look, other) >= Limits().copy


def test_other_pictures_are_none():
    views = [picture(*LOOKS[0], np.random.default_rng(number), size=192) for number in range(6)]
    for pictures in (views, [textured(number) for number in range(6)]):
        for i, one in enumerate(pictures):
            for other in pictures[:i]:
                assert score(one, other) < Limits().copy


@pytest.mark.parametrize("number", range(6))
def test_another_thing_before_the_same_background_is_none(number):
    first = textured(number)
    assert score(first, other_thing(first, textured(number + 50))) < Limits().copy


def test_an_even_picture_is_like_none():
    even = Image.new("RGB", (100, 100), (200, 10, 10))
    assert score(even, even) == 0
    assert score(even, textured(1)) == 0


def test_a_small_part_is_no_copy():
    first = textured(4)
    corner = first.crop((0, 0, 112, 80))
    assert score(first, corner) == 0


def test_the_same_pictures_have_the_same_score_every_time():
    first = textured(5)
    other = altered(first, "5", "mixed")
    looks = [copies.Look(copies.small(one)) for one in (first, other)]
    assert len({copies.score(*looks) for _ in range(5)}) == 1
    again = [copies.Look(copies.small(one)) for one in (first, other)]
    for one, two in zip(looks, again, strict=True):
        assert np.array_equal(one.features.points, two.features.points)
        assert np.array_equal(one.features.descriptors, two.features.descriptors)


def test_mirrored_features_are_nearly_those_of_the_mirrored_picture():
    grey = copies.small(textured(6))
    derived = Features.of(grey).mirrored(grey.shape[1])
    true = Features.of(np.ascontiguousarray(grey[:, ::-1]))
    near = np.linalg.norm(derived.points[:, None, :2] - true.points[None, :, :2], axis=2)
    alike = features._root(derived.descriptors) @ features._root(true.descriptors).T
    pairs = near < 0.5
    assert pairs.any(axis=1).mean() > 0.9
    assert np.median(np.where(pairs, alike, 0).max(axis=1)) > 0.95


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (3, 3), (900, 37)])
def test_pictures_of_any_shape_are_looked_at(size):
    rng = np.random.default_rng(7)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    look = copies.Look(copies.small(image))
    assert max(look.grey.shape) == copies.SIDE
    assert 0 <= copies.score(look, look) <= 1


def test_alterations_depend_on_the_picture_s_id_and_the_seed_alone():
    first = textured(8)
    for name in ALTERATIONS:
        assert altered(first, "a", name).tobytes() == altered(first, "a", name).tobytes()
    assert altered(first, "a", "crop_area").tobytes() != altered(first, "b", "crop_area").tobytes()
    assert (
        altered(first, "a", "crop_area", 0).tobytes()
        != altered(first, "a", "crop_area", 1).tobytes()
    )


@pytest.mark.parametrize("number", range(20))
def test_crops_take_off_what_they_say(number):
    first = Image.new("RGB", (1000, 800))
    rng = generator(number, "test")
    area = ALTERATIONS["crop_area"](first, rng)
    assert 0.795 <= area.width * area.height / (1000 * 800) <= 0.955
    side = ALTERATIONS["crop_side"](first, rng)
    assert 0.8 <= side.width / 1000 <= 0.95
    assert 0.8 <= side.height / 800 <= 0.95


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("size", [(300, 300), (300, 180), (180, 300)])
def test_a_turned_picture_is_cropped_to_what_has_no_empty_corner(number, size):
    white = Image.new("RGB", size, "white")
    turned = ALTERATIONS["rotate_crop"](white, generator(number, "test"))
    assert np.asarray(turned).min() > 200
    assert turned.width / turned.height == pytest.approx(size[0] / size[1], rel=0.03)


def test_scores_are_the_same_from_any_number_of_threads():
    pictures = [one for n in range(3) for one in (textured(n), altered(textured(n), "a", "mixed"))]
    pairs = [(i, j) for i in range(6) for j in range(i)]

    def scores(threads: int) -> list[float]:
        looks = [copies.Look(copies.small(one)) for one in pictures]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda pair: copies.score(looks[pair[0]], looks[pair[1]]), pairs))

    assert scores(1) == scores(4)
