"""What gates turn down, what they let pass, and what they say of it."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from isekai import plugins, spec
from isekai.dedup import HASH_BITS, distances, perceptual_hash
from isekai.errors import PluginError
from isekai.gates.duplicate import Duplicate
from isekai.gates.flat import Flat
from isekai.types import Concept, ImageRequest
from tests.conftest import PICTURES, picture

CACTIHOG, PRISMOG, HEDGEHOG = spec.load(only="cactihog")[0].concepts


def request(concept: Concept = CACTIHOG, index: int = 0) -> ImageRequest:
    own = spec.seed(concept.id, index, 0)
    return ImageRequest(concept=concept, index=index, size=96, seed=own, prompt="a photo")


def drawn(number: int, tips: int = 5) -> Image.Image:
    _, body, mark, _ = PICTURES["fruit"][0]
    return picture(body, mark, tips, np.random.default_rng(number))


def noise(level: float, deviation: float) -> Image.Image:
    values = np.random.default_rng(0).normal(level, deviation, (96, 96, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def disc(width: int, colour, ground="white", size: int = 128) -> Image.Image:
    image = Image.new("RGB", (size, size), ground)
    left = (size - width) // 2
    ImageDraw.Draw(image).ellipse((left, left, left + width, left + width), fill=colour)
    return image


def stored(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


# ---------------------------------------------------------------- flat


@pytest.mark.parametrize("colour", ["black", "white", "#808080", "#ff0000", "#0a0b0c"])
def test_a_picture_of_one_colour_is_turned_down(colour):
    judged = Flat().judge(request(), Image.new("RGB", (64, 48), colour))
    assert judged.scores == {"flat.deviation": 0, "flat.plain": 1}
    assert judged.reason == "all of one colour: its levels deviate by 0.0, at least 3 are wanted"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_faint_noise_about_one_colour_is_still_one_colour(level):
    assert "all of one colour" in Flat().judge(request(), noise(level, 2)).reason


def test_a_speck_on_a_plain_ground_is_turned_down_however_bright():
    judged = Flat().judge(request(), disc(12, "black"))
    assert judged.scores["flat.deviation"] > 20
    assert judged.reason.startswith("nearly all of one colour: 99.2% of the pixels have it")


@pytest.mark.parametrize(
    "image",
    [disc(32, (240, 240, 240)), disc(24, (120, 60, 30)), disc(48, (40, 40, 40), "black")],
    ids=["pale on white", "small and dark on white", "dark on black"],
)
def test_a_thing_on_a_plain_background_passes(image):
    assert Flat().judge(request(), image).reason == ""


def test_a_picture_whose_colours_are_equally_bright_is_not_flat():
    half = Image.new("RGB", (64, 64), (200, 60, 60))
    half.paste((60, 131, 60), (0, 0, 32, 64))
    assert np.ptp(np.asarray(half.convert("L"))) <= 1
    assert Flat().judge(request(), half).reason == ""


def test_what_the_procedural_source_draws_is_far_from_flat():
    source = plugins.build("sources", "procedural")
    groups = spec.load(only="quorvil,gillstrum,propisk,clogrond")  # the plainest at 128 pixels
    asked = [request(concept) for group in groups for concept in group.concepts]
    for image in source.draw(asked):
        judged = Flat().judge(request(), image)
        assert judged.scores["flat.deviation"] > 15
        assert judged.scores["flat.plain"] < 0.8


def test_limits_of_the_flat_gate_are_options_and_senseless_ones_are_refused():
    gate = plugins.build("gates", "flat:60", {"max_plain": 1})
    assert gate.judge(request(), disc(32, "black")).reason.endswith("at least 60 are wanted")
    assert gate.settings == {"min_deviation": 60, "max_plain": 1, "near": 8}
    for wrong in ({"min_deviation": -1}, {"max_plain": 0}, {"max_plain": float("nan")}):
        with pytest.raises(PluginError, match="gate 'flat' takes min_deviation from 0"):
            Flat(**wrong)


# ---------------------------------------------------------------- duplicate


def test_the_same_picture_stored_otherwise_is_a_repeat_and_other_views_are_not():
    first, second = drawn(1), drawn(2)
    images = [first, second, stored(first, 60), second.resize((70, 70)), drawn(3)]
    found = Duplicate().repeats(images)
    assert list(found) == [2, 3]
    assert found[2].reason.startswith("the same picture as the one at position 0: ")
    assert found[3].reason.startswith("the same picture as the one at position 1: ")
    assert found[2].scores == {
        "duplicate.distance": distances(
            perceptual_hash(first)[None], perceptual_hash(stored(first, 60))[None]
        )[0, 0]
    }


def test_a_single_picture_passes_the_duplicate_gate():
    assert Duplicate().judge(request(), drawn(1)).reason == ""
    assert Duplicate().repeats([]) == Duplicate().repeats([drawn(1)]) == {}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(0, HASH_BITS - 1))
def test_every_repeat_is_near_a_kept_one_before_it_and_no_two_kept_are_near(numbers, distance):
    images = [stored(drawn(number), 20 + 9 * place) for place, number in enumerate(numbers)]
    found = Duplicate(distance).repeats(iter(images))
    hashes = np.array([perceptual_hash(image) for image in images])
    apart = distances(hashes, hashes)
    kept = [place for place in range(len(images)) if place not in found]
    for place, judged in found.items():
        before = [other for other in kept if other < place]
        assert judged.scores["duplicate.distance"] == apart[place, before].min() <= distance
    assert all(apart[a, b] > distance for a in kept for b in kept if a < b)


def test_the_distance_of_the_duplicate_gate_is_an_option():
    gate = plugins.build("gates", "duplicate:255")
    assert json.loads(json.dumps(gate.settings)) == {"distance": 255, "bits": 256}
    assert list(gate.repeats([drawn(1), drawn(2)])) == [1]
    with pytest.raises(PluginError, match="from 0 to 255, given 256"):
        Duplicate(256)
