"""Embedders of open_clip: the models' own numbers, nothing run, and one line for what fails."""

import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from isekai import plugins
from isekai.embedders.open_clip import OpenClip
from isekai.errors import IsekaiError
from isekai.protocols import Embedder, TextEmbedder
from tests import tiny_models, tokens
from tests.conftest import PICTURES, picture
from tests.loopback_hub import COMMIT, serve

TEXTS = ("a photo of a cactus", "A hedgehog whose back is a ribbed cactus", "a hedgehog " * 90, "")
SAFE, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
TOKEN = "hf_SecretThatNobodyMaySee"


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with tiny_models.one_thread():
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    looks = [look for group in PICTURES.values() for _, *look in group]
    return [picture(*look, np.random.default_rng(n), 64 + n) for n, look in enumerate(looks[:5])]


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    return tiny_models.built("open_clip", tmp_path_factory)


@pytest.fixture
def copied(folder, tmp_path):
    """Makes a copy of the folder, with changes to the tables of its configuration."""

    def copy(**changes: dict[str, object]) -> Path:
        made = tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder, made)
        told = json.loads((made / CONFIG).read_text())
        for part, values in changes.items():
            (told if part == "preprocess_cfg" else told["model_cfg"])[part].update(values)
        (made / CONFIG).write_text(json.dumps(told))
        return made

    return copy


@pytest.fixture
def list_of_one(folder, tmp_path, monkeypatch):
    """open_clip's own list, with the tiny model as a name on it."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [tmp_path / "list"])
    (tmp_path / "list").mkdir()
    model = json.loads((folder / CONFIG).read_text())["model_cfg"]
    (tmp_path / "list" / "Tiny-8.json").write_text(json.dumps(model))
    before = open_clip.factory._MODEL_CONFIGS
    open_clip.factory._rescan_model_configs()
    yield "Tiny-8"
    open_clip.factory._MODEL_CONFIGS = before


def line(**options: object) -> str:
    with pytest.raises(IsekaiError) as caught:
        plugins.build("embedders", "open_clip", options).embed_images([Image.new("RGB", (9, 9))])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unit(rows: torch.Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


# ---------------------------------------------------------------- the right numbers


def test_rows_are_what_open_clip_makes_of_a_picture_and_a_text(folder, images):
    network, _, prepare = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens_of = open_clip.get_tokenizer(f"local-dir:{folder}")
    network.eval()
    with torch.inference_mode():
        seen = network.encode_image(torch.stack([prepare(image) for image in images]))
        read = network.encode_text(tokens_of(list(TEXTS)))
    embedder = OpenClip(str(folder))
    assert isinstance(embedder, Embedder)
    assert isinstance(embedder, TextEmbedder)
    np.testing.assert_allclose(embedder.embed_images(images), unit(seen), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_texts(TEXTS), unit(read), atol=1e-5)
    assert (unit(seen) @ unit(seen).T)[np.triu_indices(5, 1)].max() < 0.999


def test_weights_are_the_same_from_every_form_of_file(folder, images, tmp_path, list_of_one):
    expected = OpenClip(str(folder)).embed_images(images)
    weights = load_file(folder / SAFE)
    for name, content in (
        ("plain.pt", weights),
        ("trained.pth", {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in weights.items()}}),
        ("open_clip_pytorch_model.bin", weights),
    ):
        made = tmp_path / name.partition(".")[0]
        made.mkdir()
        shutil.copy(folder / CONFIG, made)
        torch.save(content, made / name)
        for given in (made, made / name):
            assert np.array_equal(OpenClip(str(given)).embed_images(images), expected), given
    (made / "readme.txt").write_text("a card")
    shutil.copy(folder / SAFE, made)  # goes before the pickle
    assert np.array_equal(OpenClip(str(made)).embed_images(images), expected)
    named = OpenClip(list_of_one, tag=str(folder / SAFE))
    assert named.embed_images(images).shape == expected.shape
    assert (named.embed_texts(TEXTS) == OpenClip(str(folder)).embed_texts(TEXTS)).all()


def test_what_is_said_of_the_preparation_of_pictures_is_done(folder, copied, images):
    squashed = copied(preprocess_cfg={"resize_mode": "squash", "mean": [0, 0, 0]})
    one, other = OpenClip(str(folder)), OpenClip(str(squashed))
    assert "bicubic shortest 32" in one.revision
    assert "bicubic squash 32" in other.revision
    assert abs(one.embed_images(images) - other.embed_images(images)).max() > 1e-3


@pytest.mark.parametrize("size", [1, 2, 32])
def test_a_row_does_not_depend_on_what_else_is_in_the_batch(size, folder, images):
    alone, some = OpenClip(str(folder), batch=1), OpenClip(str(folder), batch=size)
    np.testing.assert_allclose(alone.embed_images(images), some.embed_images(images), atol=1e-5)
    np.testing.assert_allclose(alone.embed_texts(TEXTS), some.embed_texts(TEXTS), atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_coarser_weights_give_nearly_the_same_and_say_so(dtype, folder, images):
    fine, coarse = OpenClip(str(folder)), OpenClip(str(folder), dtype=dtype)
    assert coarse.revision == fine.revision.replace("float32", dtype)
    rows = coarse.embed_images(images)
    assert rows.dtype == np.float32
    assert (rows * fine.embed_images(images)).sum(1).min() > 0.99
    assert (coarse.embed_texts(TEXTS) * fine.embed_texts(TEXTS)).sum(1).min() > 0.99


def test_the_activation_is_the_one_that_weights_were_trained_with():
    """The list has ViT-L-14 with the one, and the weights `openai` were trained with the other."""
    from isekai.embedders.clip_checkpoint import _activation

    for model, tag, quick in (
        ("ViT-L-14", "openai", True),
        ("ViT-L-14", "laion2b_s32b_b82k", False),
        ("ViT-L-14-quickgelu", "openai", True),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", True),
    ):
        told = open_clip.get_pretrained_cfg(model, tag)
        assert _activation(open_clip.get_model_config(model), told)["quick_gelu"] is quick


@pytest.mark.gpu
def test_a_gpu_sees_what_a_processor_sees(folder, images):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here, there = (OpenClip(str(folder), device=name) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(here.embed_images(images), there.embed_images(images), atol=1e-2)
    np.testing.assert_allclose(here.embed_texts(TEXTS), there.embed_texts(TEXTS), atol=1e-2)
    assert here.revision == there.revision


@pytest.mark.hub
def test_the_usual_model_knows_a_uniform_when_it_sees_one():
    from matplotlib import cbook

    try:
        embedder = OpenClip()
    except IsekaiError as error:
        if "can't be reached" not in str(error) and "HF_HUB_OFFLINE" not in str(error):
            raise
        pytest.skip("the Hub can't be reached")
    assert embedder.model == "ViT-B-32 laion2b_s34b_b79k"
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB")
    texts = ["a photo of a woman in a uniform", "a photo of a cactus", "a photo of a bus"]
    cosines = embedder.embed_texts(texts) @ embedder.embed_images([photo])[0]
    assert cosines.argmax() == 0
    assert cosines[0] > 0.2 > cosines[1:].max()


# ---------------------------------------------------------------- what it is


def test_the_revision_follows_what_vectors_depend_on_and_nothing_else(copied):
    first, same, other = copied(), copied(), copied()
    (same / "README.md").write_text("a card")
    (same / "pytorch_model.bin").write_bytes(b"never read")
    assert OpenClip(str(first)).revision == OpenClip(str(same)).revision
    weights = load_file(other / SAFE)
    save_file(weights | {"logit_scale": weights["logit_scale"] + 1}, other / SAFE)
    longer = copied(text_cfg={"context_length": 70})
    revisions = {OpenClip(str(path)).revision for path in (first, other, longer)}
    assert len(revisions) == 3


def test_nobodys_random_numbers_and_logs_are_touched(folder, images):
    handlers = list(logging.getLogger().handlers)
    torch.manual_seed(5)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    OpenClip(str(folder)).embed_images(images)
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads
    assert logging.getLogger().handlers == handlers


# ---------------------------------------------------------------- nothing is run


class Program:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return (os.mkdir, (self.mark,))


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "weights.pt", "weights.pth"])
def test_a_program_among_the_weights_is_refused_and_not_run(name, copied, tmp_path):
    path, mark = copied(), tmp_path / "mark"
    weights = load_file(path / SAFE)
    (path / SAFE).unlink()
    torch.save(weights | {"logit_scale": Program(mark)}, path / name)
    assert f"{name} is damaged or holds more than weights" in line(model=str(path))
    (path / name).write_bytes(pickle.dumps(Program(mark)))
    assert f"{name} is damaged or holds more than weights" in line(model=str(path))
    assert not mark.exists()


def test_a_pickle_that_would_be_tried_again_without_care_never_gets_that_far(
    copied, tmp_path, monkeypatch
):
    """open_clip answers a TypeError of torch.load with a second, unrestricted try."""
    path, load, asked = copied(), torch.load, []
    torch.save(load_file(path / SAFE), path / "weights.pt")
    (path / SAFE).unlink()

    def strict(*given, **options):
        asked.append(options.get("weights_only"))
        raise TypeError

    monkeypatch.setattr(torch, "load", strict)
    assert "weights.pt is damaged or holds more than weights" in line(model=str(path))
    assert asked == [True]
    monkeypatch.setattr(torch, "load", load)
    assert OpenClip(str(path)).embed_images([Image.new("RGB", (9, 9))]).shape == (1, 16)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_torchscript_archive_is_refused(copied):
    path = copied()
    (path / SAFE).unlink()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path / "model.pt")
    assert "model.pt is damaged or holds more than weights" in line(model=str(path))


def test_a_configuration_that_asks_for_more_than_a_model_is_refused(copied):
    for changes, told in (
        ({"text_cfg": {"tokenizer_kwargs": {"trust_remote_code": True}}}, "'trust_remote_code'"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:owner/model"}}, "that lies elsewhere"),
        ({"text_cfg": {"hf_tokenizer_name": "../../elsewhere"}}, "no name of a repository"),
        ({"text_cfg": {"hf_model_name": "/etc"}}, "no name of a repository"),
    ):
        assert told in line(model=str(copied(**changes)))


def test_a_tokenizer_comes_from_the_folder_and_its_code_stays_there(copied, tmp_path):
    path, mark = copied(text_cfg={"hf_tokenizer_name": "owner/elsewhere"}), tmp_path / "mark"
    words = tokens.gemma()
    words.padding_side = "right"
    words.save_pretrained(path)
    rows = OpenClip(str(path)).embed_texts(TEXTS)
    assert (rows @ rows.T)[np.triu_indices(4, 1)].max() < 0.999
    (path / "strange.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\n")
    told = json.loads((path / "tokenizer_config.json").read_text())
    strange = {"tokenizer_class": "Strange", "auto_map": {"AutoTokenizer": ["strange.S", None]}}
    (path / "tokenizer_config.json").write_text(json.dumps(told | strange))
    assert "can't be loaded" in line(model=str(path))
    assert not mark.exists()


# ---------------------------------------------------------------- what can't be had


def test_what_can_not_be_had_is_told_in_one_line(copied, folder, tmp_path, list_of_one):
    damaged = copied()
    (damaged / SAFE).write_bytes((folder / SAFE).read_bytes()[:-100])
    lacking = copied()
    save_file({k: v for k, v in load_file(folder / SAFE).items() if k != "ln_final.bias"},
              lacking / SAFE)  # fmt: skip
    several = copied()
    (several / SAFE).rename(several / "a.safetensors")
    shutil.copy(several / "a.safetensors", several / "b.pt")
    empty, bare = copied(), copied()
    (empty / SAFE).unlink()
    (bare / CONFIG).unlink()
    no_model, no_json = copied(), copied()
    (no_model / CONFIG).write_text('{"embed_dim": 16}')
    (no_json / CONFIG).write_text("{")
    (tmp_path / "numbers.npz").write_bytes(b"")
    shutil.copy(folder / CONFIG, tmp_path)
    for model, told in (
        (damaged, "can't be loaded"),
        (lacking, "can't be loaded (Error(s) in loading state_dict for CLIP: Missing key(s)"),
        (several, "holds several weights (a.safetensors, b.pt)"),
        (empty, "holds no weights"),
        (bare, "no open_clip_config.json beside the weights; give the name of a model"),
        (no_model, "describes no model of pictures and texts"),
        (no_json, "not JSON"),
        (copied(vision_cfg={"layers": "many"}), "can't be loaded"),
        (tmp_path / "numbers.npz", "numbers.npz is of no form that is read: .safetensors"),
        (tmp_path / "nowhere" / "at" / "all", "no such file or folder"),
    ):
        assert told in line(model=str(model)), told
    for options, told in (
        ({"model": "Tiny-9"}, "no model of open_clip; did you mean 'Tiny-8'?"),
        ({"model": "Tiny-9", "tag": "x"}, "no model is called so; did you mean 'Tiny-8'?"),
        ({"model": "Tiny-8", "tag": "nowhere.pt"}, "has no weights with the tag 'nowhere.pt'"),
        ({"model": "Tiny-8"}, "Tiny-8: which weights? give one with tag=FILE"),
        ({"model": str(folder), "revision": "v1"}, "only a repository has revisions, given 'v1'"),
        ({"model": str(folder), "batch": -1}, "open_clip takes batch >= 1, or 0"),
        ({"model": str(folder), "device": "nonsense"}, "no device 'nonsense' here; there are: "),
        ({"model": str(folder), "dtype": "float64"}, "option dtype='float64'"),
    ):
        assert told in line(**options), told


def test_a_model_or_a_tag_that_is_not_on_the_list_is_told_with_what_is_near():
    assert "did you mean 'ViT-B-32'" in line(model="ViT-B-23")
    assert "'ViT-L-14': " not in line(model="ViT-L-14")
    assert line(model="ViT-L-14").startswith("ViT-L-14: which weights? give one with tag=…: openai")
    assert "did you mean 'openai'?" in line(model="ViT-L/14", tag="opnai")


def test_vectors_that_are_no_numbers_are_no_vectors(copied):
    path = copied()
    weights = load_file(path / SAFE)
    weights["visual.proj"][:] = torch.nan
    save_file(weights, path / SAFE)
    assert "its vectors are no numbers" in line(model=str(path))


# ---------------------------------------------------------------- the Hub

# The client reads its settings as it is imported: everything is asked from one process of its own.
PROGRAM = """
import json, sys
from PIL import Image
from open_clip import factory, pretrained
from isekai.errors import IsekaiError
from isekai.embedders.open_clip import OpenClip
factory._MODEL_CONFIGS["ViT-B-32"] = json.load(open(sys.argv[1]))["model_cfg"]  # a smaller one
pretrained._PRETRAINED["ViT-B-32"]["laion2b_s34b_b79k"]["hf_hub"] = "owner/tiny/"
for options in json.loads(sys.argv[2]):
    try:
        embedder = OpenClip(**options)
        told = [embedder.model, embedder.revision]
        told.append(embedder.embed_images([Image.new("RGB", (40, 40), "red")]).tolist())
        told.append(embedder.embed_texts(["a cactus", "a vacuum"]).tolist())
    except IsekaiError as error:
        told = str(error)
    print(json.dumps(told))
"""


def ask(endpoint: str, home: Path, config: Path, *asked: dict[str, str]) -> list[object]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(config), json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_repository_is_fetched_at_one_commit_and_only_what_is_loaded(tmp_path):
    path = tiny_models.open_clip_tower(tmp_path / "tiny")
    (path / "strange.py").write_text("raise SystemExit('code of a stranger is run')")
    told = json.loads((path / "config.json").read_text())
    strange = {"auto_map": {"AutoConfig": "strange.S", "AutoModel": "strange.S"}}
    (path / "config.json").write_text(json.dumps(told | strange))
    loaded = {entry.name for entry in path.iterdir()} - {"strange.py"}
    (path / "open_clip_pytorch_model.bin").write_bytes(b"never fetched")
    (path / "README.md").write_text("a card")
    with serve("owner/tiny", path, kind="models") as hub:
        tiny, named, nowhere, missing = ask(
            hub.endpoint,
            tmp_path / "hf",
            path / CONFIG,
            {"model": "owner/tiny"},
            {},
            {"model": "owner/tiny", "revision": "v9"},
            {"model": "owner/absent"},
        )
        assert set(hub.sent) == loaded
    for found, name in ((tiny, "owner/tiny"), (named, "ViT-B-32 laion2b_s34b_b79k")):
        assert found[0] == name
        assert found[1].startswith(f"{COMMIT} bicubic shortest 32 ")
    assert tiny[2:] == named[2:]
    assert np.array(tiny[2]).shape == (1, 16)
    assert abs(np.subtract(*tiny[3])).max() > 1e-3
    assert "owner/tiny: has no branch, tag or commit 'v9'" in nowhere
    assert "owner/absent: no such folder here, and no such model on the Hub" in missing
