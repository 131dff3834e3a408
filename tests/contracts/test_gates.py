"""What every gate keeps: a stranger's is held to it beside the built-in ones.

A new gate is in as soon as it is installed; one that needs something to be built says so here.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isekai import plugins, spec
from isekai.files import plain
from isekai.protocols import Comparing, Gate, Judgement, Knowing
from isekai.types import ImageRequest
from tests import tiny_models
from tests.conftest import PICTURES, picture

PLUGIN = Path(__file__).parent.parent / "data" / "plugin"
GROUPS = spec.load(only="cactihog,airstone")
STRANGERS = ("apart", "even")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with tiny_models.one_thread():
        yield


@pytest.fixture(params=[*plugins.names("gates"), *STRANGERS])
def build(request, tmp_path, tmp_path_factory, monkeypatch):
    """Builds the gate anew at every call, ready to judge."""
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    name = request.param
    needs = {
        "clip": lambda: tiny_models.built("clip", tmp_path_factory),
        "vqa": lambda: "chance",
        "classify": lambda: tiny_models.built("classifier", tmp_path_factory),
        "aesthetic": lambda: tiny_models.head(tmp_path / "head.safetensors", 1280),
    }
    options = {"embedder": "lite0"} if name == "aesthetic" else {}

    def made() -> Gate:
        gate = plugins.build("gates", f"{name}:{needs[name]()}" if name in needs else name, options)
        if isinstance(gate, Knowing):
            gate.inform(GROUPS)
        return gate

    made.name = name
    return made


@pytest.fixture(scope="module")
def drawings() -> list[tuple[ImageRequest, Image.Image]]:
    """Two drawings of each concept, and one that shows nothing."""
    looks = [look for group in PICTURES.values() for _, *look in group]
    found = []
    for number, concept in enumerate(c for group in GROUPS for c in group.concepts):
        for index in range(2):
            own = spec.seed(concept.id, index, 0)
            asked = ImageRequest(
                concept=concept,
                index=index,
                size=96,
                seed=own,
                prompt=spec.expand(concept, index),
            )
            found.append((asked, picture(*looks[number], np.random.default_rng(own))))
    return [*found, (found[0][0], Image.new("RGB", (96, 96)))]


def judged(gate: Gate, drawings: list[tuple[ImageRequest, Image.Image]]) -> list[Judgement]:
    return [gate.judge(request, image) for request, image in drawings]


def test_it_is_a_gate_and_says_what_its_judgements_depend_on(build):
    gate = build()
    assert isinstance(gate, Gate)
    assert type(gate).__doc__
    told = json.loads(json.dumps(plain(gate.settings), allow_nan=False))
    assert told == plain(build().settings)


def test_settings_tell_other_settings_apart(build, tmp_path):
    others = {
        "clip": {"margin": 0.5},
        "vqa": {"minimum": 0.9},
        "classify": {"limits": "nsfw<0.5"},
        "flat": {"min_deviation": 9},
        "duplicate": {"distance": 9},
        "aesthetic": {"least": 5, "embedder": "lite0"},
    }
    if build.name not in others:
        pytest.skip("none is known")
    head = tmp_path / "head.safetensors"  # made by `build`
    argument = {"vqa": "vqa:chance", "aesthetic": f"aesthetic:{head}"}.get(build.name, build.name)
    if build.name in ("clip", "classify"):
        argument = f"{build.name}:{build().settings['model']}"
    usual = plain(build().settings)
    other = plugins.build("gates", argument, others[build.name])
    assert plain(other.settings) != usual


def test_scores_are_numbers_under_its_own_name_and_reasons_are_one_line(build, drawings):
    for judgement in judged(build(), drawings):
        assert all(name.startswith(f"{build.name}.") for name in judgement.scores)
        assert json.loads(json.dumps(dict(judgement.scores), allow_nan=False)) == judgement.scores
        assert "\n" not in judgement.reason
        assert judgement.reason == judgement.reason.strip()


def test_a_judgement_depends_on_its_picture_alone_whatever_the_order_and_the_threads(
    build, drawings
):
    expected = judged(build(), drawings)
    gate = build()
    assert judged(gate, drawings[::-1]) == expected[::-1]
    assert judged(gate, drawings) == expected
    with ThreadPoolExecutor(4) as pool:
        fresh = build()
        assert list(pool.map(lambda drawing: fresh.judge(*drawing), drawings)) == expected


def test_judging_leaves_the_picture_as_it_was(build, drawings):
    request, image = drawings[0]
    before = image.tobytes()
    build().judge(request, image)
    assert image.tobytes() == before


def test_of_pictures_that_are_alike_the_first_stays_and_the_others_are_told(build, drawings):
    gate = build()
    if not isinstance(gate, Comparing):
        pytest.skip("it compares no pictures")
    images = [image for _, image in drawings[:3]]
    first, again = (list(zip(names, images, strict=True)) for names in ("abc", "def"))
    once = gate.repeats(first)
    assert "a" not in once
    twice = gate.repeats(iter([*first, *again]))
    assert {name: twice[name] for name in twice if name in "abc"} == once
    assert {*"def"} <= set(twice) <= {*"bcdef"}
    assert all(judgement.reason and "\n" not in judgement.reason for judgement in twice.values())
    assert gate.repeats(iter([*first, *again])) == twice
    assert gate.repeats([]) == {}
