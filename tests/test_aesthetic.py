"""The gate that scores how a picture looks: heads of every form, and those that are none."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from isekai import plugins, spec
from isekai.embedders.open_clip import OpenClip
from isekai.errors import DataError, IsekaiError, PluginError
from isekai.gates.aesthetic import EMBEDDER, Aesthetic, read_head
from isekai.protocols import Gate
from isekai.types import ImageRequest
from tests import tiny_models
from tests.conftest import PICTURES, picture

CACTIHOG = spec.load(only="cactihog")[0].concepts[0]
REQUEST = ImageRequest(concept=CACTIHOG, index=0, size=96, seed=1, prompt="a photo")


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with tiny_models.one_thread():
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path_factory):
    return str(tiny_models.built("open_clip", tmp_path_factory))


@pytest.fixture(scope="module")
def drawing() -> Image.Image:
    _, *look = PICTURES["fruit"][0]
    return picture(*look, np.random.default_rng(0))


def linear(file, width=16, bias=5.0):
    weight = torch.linspace(-1, 1, width)[None]
    save_file({"weight": weight, "bias": torch.tensor([bias])}, file)
    return file


# ---------------------------------------------------------------- scores


def test_a_linear_head_scores_the_unit_vector_of_the_picture(folder, drawing, tmp_path):
    gate = Aesthetic(linear(tmp_path / "head.safetensors"), embedder=f"open_clip:{folder}")
    assert isinstance(gate, Gate)
    row = OpenClip(folder).embed_images([drawing])[0].astype(float)
    judged = gate.judge(REQUEST, drawing)
    assert judged.scores["aesthetic.score"] == pytest.approx(
        row @ np.linspace(-1, 1, 16) + 5, abs=1e-4
    )
    assert judged.reason == ""


@pytest.mark.parametrize(
    ("activation", "between"),
    [("none", torch.nn.Identity()), ("relu", torch.nn.ReLU()), ("gelu", torch.nn.GELU())],
)
def test_layers_are_used_by_their_numbers_with_what_stands_between_them(
    activation, between, folder, drawing, tmp_path
):
    head = tiny_models.head(tmp_path / "head.safetensors", 16, 12, 6)
    weights = load_file(head)
    # A name after the tenth sorts before the second: numbers count, not letters.
    last = {f"layers.10.{what}": weights.pop(f"layers.4.{what}") for what in ("weight", "bias")}
    save_file(weights | last, head)
    network = torch.nn.Sequential(
        torch.nn.Linear(16, 12), between, torch.nn.Linear(12, 6), between, torch.nn.Linear(6, 1)
    )
    for place, number in ((0, 0), (2, 2), (4, 10)):
        for what in ("weight", "bias"):
            getattr(network[place], what).data = (weights | last)[f"layers.{number}.{what}"]
    row = torch.from_numpy(OpenClip(folder).embed_images([drawing])[0])
    gate = Aesthetic(head, embedder=f"open_clip:{folder}", activation=activation)
    expected = network(row).item()
    assert gate.judge(REQUEST, drawing).scores["aesthetic.score"] == pytest.approx(
        expected, abs=1e-3
    )
    assert gate.settings["activation"] == activation


@pytest.mark.parametrize("type", [torch.float16, torch.bfloat16, torch.float64])
def test_heads_of_every_precision_are_read(type, tmp_path):
    save_file({"weight": torch.ones(1, 4, dtype=type), "bias": torch.zeros(1, dtype=type)},
              tmp_path / "head.safetensors")  # fmt: skip
    head = read_head(tmp_path / "head.safetensors")
    assert head.score(torch.arange(4).double()) == 6


def test_a_picture_below_the_least_score_is_turned_down_and_told(folder, drawing, tmp_path):
    options = {"embedder": f"open_clip:{folder}"}
    head = linear(tmp_path / "head.safetensors")
    score = Aesthetic(head, **options).judge(REQUEST, drawing).scores["aesthetic.score"]
    assert not Aesthetic(head, least=score, **options).judge(REQUEST, drawing).reason
    told = Aesthetic(head, least=score + 1, **options).judge(REQUEST, drawing)
    assert told.reason == f"looks poor: a score of {score:g}, at least {score + 1:g} is wanted"


def test_it_is_built_by_its_name_and_says_what_its_scores_depend_on(folder, tmp_path):
    head = linear(tmp_path / "head.safetensors")
    options = {"embedder": f"open_clip:{folder}", "least": 4.5, "batch": 2}
    gate = plugins.build("gates", f"aesthetic:{head}", options)
    assert gate.settings["least"] == 4.5
    assert gate.settings["revision"] == OpenClip(folder).revision
    other = linear(tmp_path / "other.safetensors", bias=4.0)
    again = plugins.build("gates", f"aesthetic:{other}", options)
    assert again.settings["head"] != gate.settings["head"]


def test_the_usual_embedder_has_the_weights_that_heads_were_trained_on(tmp_path, monkeypatch):
    head, asked = linear(tmp_path / "head.safetensors"), []

    def built(seam, name, options):
        asked.append((seam, name, dict(options)))

    monkeypatch.setattr(plugins, "build", built)
    Aesthetic(head)
    Aesthetic(head, tag="datacomp_xl_s13b_b90k")
    Aesthetic(head, embedder="lite0")
    assert asked == [
        ("embedders", EMBEDDER, {"tag": "openai"}),
        ("embedders", EMBEDDER, {"tag": "datacomp_xl_s13b_b90k"}),
        ("embedders", "lite0", {}),
    ]


# ---------------------------------------------------------------- what stands between layers


def laion(file, numbers=(0, 2, 4, 6, 7)):
    sizes = (768, 1024, 128, 64, 16, 1)
    tensors = {}
    for number, above, below in zip(numbers, sizes[1:], sizes[:-1], strict=True):
        tensors[f"layers.{number}.weight"] = torch.zeros(above, below)
        tensors[f"layers.{number}.bias"] = torch.zeros(above)
    save_file(tensors, file)
    return file


def test_what_stands_between_layers_is_known_told_or_asked_for(tmp_path):
    file = tmp_path / "head.safetensors"
    assert read_head(laion(file)).activation == "none"
    with pytest.raises(PluginError, match="doesn't say what stands between its 5 layers; give"):
        read_head(laion(file, (0, 2, 4, 6, 8)))
    assert read_head(file, "relu").activation == "relu"
    save_file(load_file(file), file, metadata={"activation": "gelu"})
    assert read_head(file).activation == "gelu"
    with pytest.raises(PluginError, match=r"'gelu' stands between .* given activation=relu"):
        read_head(file, "relu")
    save_file(load_file(file), file, metadata={"activation": "mish"})
    with pytest.raises(PluginError, match="names 'mish' as what stands between its 5 layers"):
        read_head(file)


# ---------------------------------------------------------------- what is none

ONE = {"weight": torch.ones(1, 4), "bias": torch.ones(1)}


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "holds nothing, not a weight and a bias"),
        ({"weight": ONE["weight"]}, "holds weight, not a weight and a bias for each"),
        (ONE | {"scale": torch.ones(1)}, "'scale' is no weight or bias of a layer"),
        (ONE | {"0.weight": torch.ones(1, 4), "0.bias": torch.ones(1)}, "under one name"),
        ({"a.0.weight": torch.ones(1, 4), "b.0.bias": torch.ones(1)}, "under one name"),
        (ONE | {"weight": torch.ones(4)}, "the weight of layer 0 is [4], which doesn't read a vec"),
        (ONE | {"bias": torch.ones(2)}, "the bias of layer 0 is [2], not [1]"),
        ({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, "ends in 3 numbers"),
        (ONE | {"weight": torch.full((1, 4), torch.nan)}, "'weight' is no weight"),
        (ONE | {"weight": torch.ones(1, 4, dtype=torch.int8)}, "'weight' is no weight"),
        (
            {"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3),
             "1.weight": torch.ones(1, 2), "1.bias": torch.ones(1)},
            "the weight of layer 1 is [1, 2], which doesn't read the 3 numbers before it",
        ),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_head_is_refused_in_one_line(tensors, told, tmp_path):
    file = tmp_path / "head.safetensors"
    save_file(tensors, file)
    with pytest.raises(DataError) as caught:
        read_head(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_of_other_forms_are_not_opened(folder, drawing, tmp_path):
    pickled = tmp_path / "head.pth"
    torch.save(ONE, pickled)
    with pytest.raises(DataError, match="no safetensors file"):
        read_head(pickled)
    with pytest.raises(DataError, match="no such file; give the head as safetensors"):
        read_head(tmp_path / "nowhere")
    pickled.write_bytes(b"\xff")
    with pytest.raises(DataError, match="no safetensors file"):
        read_head(pickled)


def test_what_does_not_fit_together_is_told(folder, drawing, tmp_path):
    head = linear(tmp_path / "head.safetensors", width=9)
    gate = Aesthetic(head, embedder=f"open_clip:{folder}")
    with pytest.raises(PluginError, match=r"the head reads 9 numbers and .* gives 16; give the"):
        gate.judge(REQUEST, drawing)
    for options, told in (
        ({"tagg": "openai"}, "gate 'aesthetic' has no option 'tagg'; did you mean 'tag'?"),
        ({"least": float("nan")}, "takes a number for least"),
        ({"activation": "tanh"}, "option activation='tanh'"),
    ):
        with pytest.raises(IsekaiError) as caught:
            plugins.build("gates", f"aesthetic:{head}", options)
        assert told in str(caught.value)
