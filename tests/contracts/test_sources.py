"""What every source keeps: a stranger's is held to it beside the built-in ones."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isekai import plugins, spec
from isekai.files import plain
from isekai.images import encode
from isekai.protocols import Catalog, ImageSource, Rejected
from isekai.types import Concept, ImageRequest

PLUGIN = Path(__file__).parent.parent / "data" / "plugin"

SPEC = """
title = "Things"
parent = "thing"
concepts = [
  {name = "one", role = "novel", novelty = "form", definition = "x", sketch = ["ball", "cap"]},
  {name = "two", role = "foil", definition = "x", sketch = ["ball"]},
]
parts.ball = {shape = "ball", size = [0.8]}
parts.cap = {shape = "cone", size = [0.4, 0.1, 0.5, 0.05], at = [0, 1, 0], paint = 1}
"""

SIZE = 48


@pytest.fixture(params=["folder", "procedural", "tiny"])
def source(request, tmp_path, monkeypatch) -> ImageSource:
    monkeypatch.syspath_prepend(PLUGIN)
    name = request.param
    if name == "folder":
        rng = np.random.default_rng(0)
        for concept in ("one", "two.foil"):
            folder = tmp_path / "things" / concept
            folder.mkdir(parents=True)
            for index in range(4):
                noise = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
                (folder / f"{index}.png").write_bytes(encode(Image.fromarray(noise)))
        name = f"folder:{tmp_path}"
    return plugins.build("sources", name)


@pytest.fixture
def requests(source, tmp_path) -> list[ImageRequest]:
    (tmp_path / "things.toml").write_text(SPEC)
    group = source.groups()[0] if isinstance(source, Catalog) else spec.load(tmp_path)[0]
    return [request(concept, index) for concept in group.concepts for index in range(4)]


def request(concept: Concept, index: int) -> ImageRequest:
    own = spec.seed(concept.id, index, 0)
    return ImageRequest(concept=concept, index=index, size=SIZE, seed=own, prompt="a thing")


def pictures(source: ImageSource, requests: list[ImageRequest]) -> list[bytes]:
    drawn = list(source.draw(requests))
    assert not [picture for picture in drawn if isinstance(picture, Rejected)]
    return [picture.tobytes() for picture in drawn]


def test_every_installed_source_is_held_to_this_contract():
    assert set(plugins.names("sources")) <= {"diffusers", "folder", "openai", "procedural", "tiny"}


def test_it_says_what_it_is(source):
    assert isinstance(source, ImageSource)
    assert source.model
    assert source.revision == source.revision != ""
    json.dumps(plain(source.settings))


def test_it_gives_one_rgb_picture_of_the_size_for_each_request(source, requests):
    drawn = list(source.draw(requests))
    assert len(drawn) == len(requests)
    for picture in drawn:
        assert picture.mode == "RGB"
        assert max(picture.size) == SIZE
    assert list(source.draw([])) == []


def test_a_picture_depends_on_its_request_alone(source, requests):
    whole = pictures(source, requests)
    assert len(set(whole)) == len(requests)
    assert pictures(source, requests[::-1]) == whole[::-1]
    assert [pictures(source, [request])[0] for request in requests] == whole


def test_a_copy_in_another_process_would_draw_the_same(source, requests):
    assert source.processes
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.model, copy.revision, copy.settings) == (
        source.model,
        source.revision,
        source.settings,
    )
    assert pictures(copy, requests) == pictures(source, requests)
