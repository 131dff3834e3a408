"""Embedders from the Hub and from folders: the models' own numbers, and one line for what fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from isekai import plugins
from isekai.embedders.transformers import Transformers
from isekai.errors import DataError, IsekaiError
from isekai.protocols import TextEmbedder
from tests import tiny_models
from tests.conftest import PICTURES, picture
from tests.loopback_hub import COMMIT, serve

DINOS = ("dino", "dinov3_vit", "dinov3_convnext")
KINDS = ("clip", "siglip", "siglip2", "siglip2_fixed", *DINOS)
TEXTS = ("a photo of a cactus", "a hedgehog whose back is a ribbed cactus", "a hedgehog " * 90)
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
def folder(tmp_path_factory):
    return lambda kind: tiny_models.built(kind, tmp_path_factory)


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the folder of a kind, without some files and with others."""

    def change(kind: str, *without: str, **besides: str) -> Path:
        copy = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(folder(kind), copy)
        for name in without:
            (copy / name).unlink()
        for name, text in besides.items():
            (copy / f"{name}.json").write_text(text)
        return copy

    return change


def settings(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def unit(rows: torch.Tensor) -> np.ndarray:
    return (rows / rows.norm(dim=-1, keepdim=True)).numpy()


# ---------------------------------------------------------------- the right numbers


@pytest.mark.parametrize("kind", ["clip", "siglip", "siglip2", "siglip2_fixed"])
def test_rows_are_what_the_whole_model_makes_of_a_picture_and_a_text(kind, folder, images):
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    path = folder(kind)
    model = AutoModel.from_pretrained(path)
    see = AutoImageProcessor.from_pretrained(path, backend="pil")
    read = AutoTokenizer.from_pretrained(path)
    longest = 77 if kind == "clip" else 64
    read.padding_side = "right"
    words = read(list(TEXTS), padding="max_length", truncation=True, max_length=longest,
                 return_tensors="pt")  # fmt: skip
    with torch.inference_mode():
        out = model(**words, **see(images, return_tensors="pt"))
    embedder = Transformers(str(path))
    np.testing.assert_allclose(embedder.embed_images(images), unit(out.image_embeds), atol=1e-5)
    np.testing.assert_allclose(embedder.embed_texts(TEXTS), unit(out.text_embeds), atol=1e-5)


def test_a_clip_text_needs_no_filling_to_mean_the_same(folder):
    from transformers import AutoModel, AutoTokenizer

    model, read = (a.from_pretrained(folder("clip")) for a in (AutoModel, AutoTokenizer))
    with torch.inference_mode():
        bare = model.get_text_features(**read([TEXTS[1]], return_tensors="pt")).pooler_output
    rows = Transformers(str(folder("clip"))).embed_texts(TEXTS)
    np.testing.assert_allclose(rows[1:2], unit(bare), atol=1e-5)


@pytest.mark.parametrize("kind", ["siglip2", "siglip2_fixed"])
def test_what_siglip2_was_not_trained_on_makes_no_difference(kind, folder):
    embedder = Transformers(str(folder(kind)))
    rows = embedder.embed_texts(["A Photo of a CACTUS", "a photo of a cactus", "a photo of"])
    assert np.array_equal(rows[0], rows[1])
    assert rows[1] @ rows[2] < 0.999


@pytest.mark.parametrize("kind", DINOS)
def test_dino_gives_its_pooled_features_and_no_texts(kind, folder, images):
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder(kind))
    see = AutoImageProcessor.from_pretrained(folder(kind), backend="pil")
    with torch.inference_mode():
        pooled = model(**see(images, return_tensors="pt")).pooler_output
    embedder = Transformers(str(folder(kind)))
    np.testing.assert_allclose(embedder.embed_images(images), unit(pooled), atol=1e-5)
    assert (unit(pooled) @ unit(pooled).T)[np.triu_indices(5, 1)].max() < 0.9999
    assert not isinstance(embedder, TextEmbedder)
    assert isinstance(Transformers(str(folder("clip"))), TextEmbedder)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_what_else_is_in_the_batch(kind, folder, images):
    embedders = [Transformers(str(folder(kind)), batch=batch) for batch in (1, 2, 32)]
    alone, pairs, together = (embedder.embed_images(images) for embedder in embedders)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    np.testing.assert_allclose(alone, pairs, atol=1e-5)
    backwards = embedders[1].embed_images(images[::-1])
    np.testing.assert_allclose(alone, backwards[::-1], atol=1e-5)
    if isinstance(embedders[0], TextEmbedder):
        alone, pairs, together = (embedder.embed_texts(TEXTS) for embedder in embedders)
        np.testing.assert_allclose(alone, together, atol=1e-5)
        np.testing.assert_allclose(alone, pairs, atol=1e-5)


def test_weights_in_several_files_are_the_same_weights(folder, images, tmp_path):
    from transformers import CLIPModel

    shards = tmp_path / "shards"
    shutil.copytree(folder("clip"), shards)
    (shards / "model.safetensors").unlink()
    CLIPModel.from_pretrained(folder("clip")).save_pretrained(shards, max_shard_size="50KB")
    assert len(list(shards.glob("model-*.safetensors"))) > 1
    whole, parted = Transformers(str(folder("clip"))), Transformers(str(shards))
    assert np.array_equal(whole.embed_images(images), parted.embed_images(images))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_coarser_weights_give_nearly_the_same_and_say_so(dtype, folder, images):
    fine = Transformers(str(folder("clip")))
    coarse = Transformers(str(folder("clip")), dtype=dtype)
    assert coarse.revision == fine.revision.replace("float32", dtype)
    rows = coarse.embed_images(images)
    assert rows.dtype == np.float32
    assert (rows * fine.embed_images(images)).sum(1).min() > 0.99


@pytest.mark.gpu
def test_a_gpu_sees_what_a_processor_sees(folder, images):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here, there = (Transformers(str(folder("clip")), device=name) for name in ("cpu", "cuda"))
    np.testing.assert_allclose(here.embed_images(images), there.embed_images(images), atol=1e-2)
    np.testing.assert_allclose(here.embed_texts(TEXTS), there.embed_texts(TEXTS), atol=1e-2)
    assert Transformers(str(folder("clip"))).revision == there.revision


# ---------------------------------------------------------------- what it is


def test_the_revision_of_a_folder_follows_what_is_loaded_and_nothing_else(changed, tmp_path):
    first, same = changed("clip"), changed("clip")
    (same / "README.md").write_text("a card")
    (same / "pytorch_model.bin").write_bytes(b"never read")
    assert Transformers(str(first)).revision == Transformers(str(same)).revision
    weights = load_file(same / "model.safetensors")
    save_file(weights | {"logit_scale": weights["logit_scale"] + 1}, same / "model.safetensors")
    assert Transformers(str(first)).revision != Transformers(str(same)).revision
    other = changed("clip")
    settings(other / "processor_config.json", note="one more")
    assert Transformers(str(first)).revision != Transformers(str(other)).revision


def test_weights_are_not_read_before_they_are_needed(changed, images):
    path = changed("clip")
    (path / "model.safetensors").write_bytes(b"no weights at all")
    embedder = Transformers(str(path))
    assert embedder.model == str(path)
    with pytest.raises(DataError, match="its weights can't be loaded") as caught:
        embedder.embed_images(images)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- what can't be had


def _line(**options: object) -> str:
    with pytest.raises(IsekaiError) as caught:
        plugins.build("embedders", "transformers", options).embed_images([Image.new("RGB", (9, 9))])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_model_that_embeds_pictures_is_refused_in_one_line(changed, folder, tmp_path):
    for path, told in (
        (tmp_path / "not/here/at-all", "no such folder here, and no name of a repository"),
        (changed("clip", "config.json"), "no model of transformers (config.json is missing)"),
        (changed("clip", "model.safetensors"), "holds no model.safetensors"),
        (changed("clip", adapter_config="{}"), "holds an adapter for another model"),
        (changed("clip", config="{"), "its configuration can't be loaded"),
        (changed("clip", config='{"model_type": "brand-new"}'), "its configuration can't be load"),
        (folder("texts"), "a model of the kind 'bert' embeds no pictures; give one such as"),
        (folder("classifier"), "it was saved as a model of another kind"),
        (changed("dino", "preprocessor_config.json"), "its image processor can't be loaded"),
    ):
        assert _line(model=str(path)).startswith(f"{path}: ")
        assert told in _line(model=str(path))


def test_weights_named_by_the_configuration_are_not_followed(changed):
    path = changed("clip")
    settings(path / "config.json", transformers_weights="adapter_model.bin")
    assert "its config.json names weights of its own" in _line(model=str(path))


def test_shards_that_lead_elsewhere_are_not_followed(changed):
    path = changed("clip")
    (path / "model.safetensors").rename(path / "model-00001-of-00001.safetensors")
    index = {"metadata": {}, "weight_map": {"logit_scale": "../elsewhere.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.safetensors.index.json and its shards don't agree" in _line(model=str(path))


def test_code_of_strangers_is_not_run(changed):
    path, mark = changed("dino"), changed("dino") / "mark"
    code = f"from pathlib import Path\nPath({str(mark)!r}).touch()\n"
    (path / "strange.py").write_text(code)
    for auto in ("AutoConfig", "AutoModel", "AutoImageProcessor"):
        settings(path / "config.json", auto_map={auto: "strange.Strange"})
        Transformers(str(path)).embed_images([Image.new("RGB", (9, 9))])  # the library's own class
    settings(path / "config.json", auto_map={"AutoConfig": "strange.S"}, model_type="strange")
    assert "its configuration can't be loaded" in _line(model=str(path))
    assert not mark.exists()


def test_vectors_that_are_no_numbers_are_no_vectors(changed, images):
    path = changed("clip")
    weights = load_file(path / "model.safetensors")
    weights["visual_projection.weight"][:] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    assert "its vectors are no numbers" in _line(model=str(path))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch": -1}, "transformers takes batch >= 1, or 0 for what is usual, given -1"),
        ({"device": "cuda:77" if not torch.cuda.is_available() else "tpu9"}, "no device '"),
        ({"device": "nonsense"}, "no device 'nonsense' here; there are: "),
        ({"dtype": "float64"}, "option dtype='float64'"),
        ({"revision": "v1"}, "only a repository has revisions, given 'v1'"),
    ],
)
def test_senseless_options_are_refused(options, told, folder):
    assert told in _line(model=str(folder("clip")), **options)


# ---------------------------------------------------------------- the Hub

# The client reads its settings as it is imported: everything is asked from one process of its own.
PROGRAM = """
import json, sys
from PIL import Image
from isekai.errors import IsekaiError
from isekai.embedders.transformers import Transformers
for model, revision in json.loads(sys.argv[1]):
    try:
        embedder = Transformers(model, revision)
        rows = embedder.embed_images([Image.new("RGB", (40, 40), "red")])
        told = [embedder.model, embedder.revision, rows.tolist()]
    except IsekaiError as error:
        told = str(error)
    print(json.dumps(told))
"""


def _ask(endpoint: str, home: Path, *asked: tuple[str, str]) -> list[object]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(asked)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_repository_is_fetched_at_one_commit_and_only_what_is_loaded(changed, tmp_path):
    path = changed("clip")
    (path / "pytorch_model.bin").write_bytes(b"never fetched")
    (path / "README.md").write_text("a card")
    (path / "onnx").mkdir()
    (path / "onnx" / "config.json").write_text("{}")
    with serve("owner/tiny", path, kind="models") as hub:
        main, nowhere, missing = _ask(
            hub.endpoint,
            tmp_path / "hf",
            ("owner/tiny", ""),
            ("owner/tiny", "v9"),
            ("owner/absent", ""),
        )
        assert main[:2] == ["owner/tiny", f"{COMMIT} float32"]
        own = Transformers(str(path)).embed_images([Image.new("RGB", (40, 40), "red")])
        np.testing.assert_allclose(main[2], own, atol=1e-6)
        loaded = {p.name for p in path.iterdir() if p.suffix in (".json", ".txt", ".safetensors")}
        assert set(hub.sent) == loaded
        assert "owner/tiny: has no branch, tag or commit 'v9'" in nowhere
        assert "owner/absent: no such folder here, and no such model on the Hub" in missing
