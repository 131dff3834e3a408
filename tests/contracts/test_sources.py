"""What every source keeps: a stranger's is held to it beside the built-in ones."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isekai import plugins, spec
from isekai.files import plain
from isekai.images import encode
from isekai.protocols import Accelerated, Catalog, ImageSource, Picture, Rejected
from isekai.types import Concept, ImageRequest
from tests import pipelines
from tests.loopback import serve

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


NAMES = ("diffusers", "folder", "openai", "procedural", "tiny")


@pytest.fixture(params=NAMES)
def source(request, tmp_path, tmp_path_factory, monkeypatch) -> Iterator[ImageSource]:
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    name = request.param
    if name == "diffusers":
        options = {"steps": 2, "devices": "cpu", "batch": 1}
        folder = pipelines.built("sd15", tmp_path_factory)
        yield plugins.build("sources", f"diffusers:{folder}", options)
        return
    if name == "openai":
        with serve() as server:
            built = plugins.build("sources", "openai:tiny", {"base_url": server.url})
            yield built
            built.close()
        return
    if name == "folder":
        rng = np.random.default_rng(0)
        for concept in ("one", "two.foil"):
            folder = tmp_path / "things" / concept
            folder.mkdir(parents=True)
            for index in range(4):
                noise = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
                (folder / f"{index}.png").write_bytes(encode(Image.fromarray(noise)))
        name = f"folder:{tmp_path}"
    yield plugins.build("sources", name)


@pytest.fixture
def requests(source, tmp_path) -> list[ImageRequest]:
    (tmp_path / "things.toml").write_text(SPEC)
    group = source.groups()[0] if isinstance(source, Catalog) else spec.load(tmp_path)[0]
    return [request(concept, index) for concept in group.concepts for index in range(4)]


def request(concept: Concept, index: int) -> ImageRequest:
    own = spec.seed(concept.id, index, 0)
    return ImageRequest(concept=concept, index=index, size=SIZE, seed=own, prompt="a thing")


def pictures(source: ImageSource, requests: list[ImageRequest]) -> list[bytes]:
    drawn = [bare(picture) for picture in source.draw(requests)]
    return [picture.tobytes() for picture in drawn]


def bare(picture: Image.Image | Picture | Rejected) -> Image.Image:
    assert not isinstance(picture, Rejected), picture.reason
    return picture.image if isinstance(picture, Picture) else picture


def test_every_installed_source_is_held_to_this_contract():
    assert set(plugins.names("sources")) <= set(NAMES)


def test_it_says_what_it_is(source):
    assert isinstance(source, ImageSource)
    assert source.model
    assert source.revision == source.revision != ""
    json.dumps(plain(source.settings))


def test_it_gives_one_rgb_picture_of_the_size_for_each_request(source, requests):
    drawn = list(source.draw(requests))
    assert len(drawn) == len(requests)
    for picture in map(bare, drawn):
        assert picture.mode == "RGB"
        assert max(picture.size) == SIZE
    assert list(source.draw([])) == []


def test_on_devices_it_keeps_what_goes_together_side_by_side_and_draws_the_same(source, requests):
    if not isinstance(source, Accelerated):
        pytest.skip("it does not draw on devices")
    assert source.chunk >= 1
    source.prepare(requests)
    arranged = source.arrange(requests)
    assert sorted(r.seed for r in arranged) == sorted(r.seed for r in requests)
    here = source.on(source.devices[0])
    assert isinstance(here, Accelerated)
    assert pictures(here, requests) == pictures(source, requests)


def test_a_picture_depends_on_its_request_alone(source, requests):
    whole = pictures(source, requests)
    assert len(set(whole)) == len(requests)
    assert pictures(source, requests[::-1]) == whole[::-1]
    assert [pictures(source, [request])[0] for request in requests] == whole


def test_a_copy_in_another_process_would_draw_the_same(source, requests):
    if not source.processes:
        pytest.skip("it draws in one process")
    copy = pickle.loads(pickle.dumps(source))
    assert (copy.model, copy.revision, copy.settings) == (
        source.model,
        source.revision,
        source.settings,
    )
    assert pictures(copy, requests) == pictures(source, requests)
