"""Models from strangers: damaged ones and those with code or adapters, from folders and the Hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from isekai import files, plugins
from isekai.errors import DataError, IsekaiError
from isekai.protocols import Picture
from isekai.sources.diffusers import DiffusersSource, loading, lora
from isekai.types import Concept, ImageRequest
from tests import parts, pipelines, tokens
from tests.loopback_hub import COMMIT, serve

UNET = "unet/diffusion_pytorch_model.safetensors"
READER = "text_encoder/model.safetensors"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path, tmp_path_factory) -> Path:
    """A Stable Diffusion that may be changed."""
    return shutil.copytree(pipelines.built("sd15", tmp_path_factory), tmp_path / "model")


def source(model: Path | str, **options) -> DiffusersSource:
    given = {"model": str(model), "steps": 1, "devices": "cpu", "threads": 1, **options}
    return plugins.build("sources", "diffusers", given)


def request(prompt: str = "a snail") -> ImageRequest:
    concept = Concept(id="shells/snail", name="snail", role="novel")
    return ImageRequest(concept=concept, index=0, size=64, seed=7, prompt=prompt)


def drawn(own: DiffusersSource) -> np.ndarray:
    (picture,) = own.draw([request()])
    assert isinstance(picture, Picture), picture
    return np.asarray(picture.image).astype(int)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def changed(path: Path, change) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def without_first(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[min(tensors)]


def with_other_sizes(tensors: dict[str, torch.Tensor]) -> None:
    key = next(key for key, value in sorted(tensors.items()) if value.ndim == 2)
    tensors[key] = tensors[key].repeat(2, 1)


DAMAGES = {
    "the denoiser is cut off": lambda folder: cut(folder / UNET),
    "the text encoder is cut off": lambda folder: cut(folder / READER),
    "the denoiser lacks a tensor": lambda folder: changed(folder / UNET, without_first),
    "the text encoder lacks a tensor": lambda folder: changed(folder / READER, without_first),
    "the denoiser has another width": lambda folder: changed(folder / UNET, with_other_sizes),
    "the text encoder has another width": lambda folder: changed(folder / READER, with_other_sizes),
    "a configuration is no JSON": lambda folder: (
        folder / "scheduler/scheduler_config.json"
    ).write_text("{"),
    "a tokenizer is no JSON": lambda folder: (folder / "tokenizer/tokenizer.json").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_told_in_one_line_and_never_drawn_with(damage, folder):
    DAMAGES[damage](folder)
    with pytest.raises(DataError) as caught:
        drawn(source(folder))
    told = str(caught.value)
    assert "\n" not in told
    assert "get" in told


def test_a_pipeline_or_a_network_that_diffusers_lacks_is_told(folder):
    index = files.read_json(folder / "model_index.json", dict[str, object])
    for change, told in (
        ({"_class_name": "StableDiffusion9Pipeline"}, "needs the pipeline 'StableDiffusion9"),
        ({"unet": ["diffusers", "UNet9"]}, "UNet9"),
    ):
        files.write_json(folder / "model_index.json", {**index, **change})
        with pytest.raises(IsekaiError, match=told):
            drawn(source(folder))


CODE = """
from functools import wraps

from diffusers import StableDiffusionPipeline

class Inverted(StableDiffusionPipeline):
    @wraps(StableDiffusionPipeline.__call__)
    def __call__(self, *args, **given):
        drawn = super().__call__(*args, **given)
        drawn.images = 1 - drawn.images
        return drawn
"""


def test_code_of_a_model_runs_only_if_it_is_trusted(folder):
    plain = drawn(source(folder))
    index = files.read_json(folder / "model_index.json", dict[str, object])
    index["_class_name"] = ["inverted", "Inverted"]
    files.write_json(folder / "model_index.json", index)
    (folder / "inverted.py").write_text(CODE)
    with pytest.raises(DataError, match=r"inverted\.py.*trust_remote_code=true"):
        drawn(source(folder))
    inverted = drawn(source(folder, trust_remote_code=True))
    assert np.abs(255 - plain - inverted).max() <= 1


# ---------------------------------------------------------------- LoRAs


@pytest.fixture
def reading_lora(tmp_path) -> Path:
    """A LoRA that changes how texts are read, and nothing else."""
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    reader = parts.clip(tokens.clip())
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj", "v_proj"]), reader)
    layers = get_peft_model_state_dict(parts.filled(reader, seed=1))
    pipeline = loading.library().StableDiffusionPipeline
    pipeline.save_lora_weights(tmp_path / "lora", text_encoder_lora_layers=layers)
    return next((tmp_path / "lora").glob("*.safetensors"))


@pytest.fixture
def any_peft(monkeypatch) -> None:
    """transformers 5.24 asks for a release of peft that is not out yet; those that are out do."""
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "0.18")


@pytest.mark.usefixtures("any_peft")
def test_a_lora_that_changes_how_texts_are_read_has_them_encoded_anew(folder, reading_lora):
    plain, changed = source(folder), source(folder, lora=f"{reading_lora}@3")
    assert lora.find(str(reading_lora)).texts
    before = drawn(plain)
    after = drawn(changed)
    assert plain.encoded == changed.encoded == 2
    assert np.abs(before - after).mean() > 0.5
    pipeline = loading.library().DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(reading_lora.parent), adapter_name="own")
    pipeline.set_adapters("own", 3.0)
    generator = torch.Generator().manual_seed(7)
    given = {"height": 64, "width": 64, "num_inference_steps": 1, "generator": generator}
    expected = np.asarray(pipeline("a snail", **given).images[0]).astype(int)
    assert np.abs(after - expected).max() <= 2


def test_a_lora_of_the_denoiser_leaves_embeddings_as_they_are(folder, tmp_path):
    drawn(source(folder))
    own = source(folder, lora=str(pipelines.lora("sd15", tmp_path / "lora")))
    drawn(own)
    assert own.encoded == 0


def test_a_file_that_is_no_lora_is_told(folder, tmp_path):
    path = tmp_path / "lora.safetensors"
    path.write_bytes(b"\x80\x04 pickled")
    with pytest.raises(DataError, match="no whole safetensors file"):
        _ = source(folder, lora=str(path)).settings
    shutil.copy(folder / UNET, path)
    with pytest.raises(IsekaiError, match="can't be loaded into this model"):
        drawn(source(folder, lora=str(path)))


# ---------------------------------------------------------------- the Hub


DRY_RUN = """
import json, sys
from isekai import plugins
from isekai.types import Concept, ImageRequest
own = plugins.build("sources", "diffusers:someone/model", {"devices": "cpu", "steps": 1})
one = ImageRequest(concept=Concept(id="a/b", name="b", role="novel"), index=0, size=64, seed=1,
                   prompt="b")
told = [own.model, own.revision, own.size, own.settings["scheduler"], list(own.estimate([one]))]
print(json.dumps([*told, sorted({"torch", "diffusers"} & set(sys.modules))]))
"""


def test_a_repository_is_planned_from_its_small_files_alone(folder, tmp_path):
    with serve("someone/model", folder, kind="models") as hub:
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(
            [sys.executable, "-c", DRY_RUN], env={**os.environ, **own}, capture_output=True
        )
    assert done.returncode == 0, done.stderr.decode()
    model, revision, size, scheduler, lines, heavy = json.loads(done.stdout)
    assert (model, revision, size) == ("someone/model", COMMIT, 64)
    assert scheduler == "PNDMScheduler"
    assert [line for line in lines if line.startswith("someone/model: 0.0 GB to download")]
    assert hub.sent
    assert not [name for name in hub.sent if name.endswith(".safetensors")]
    assert heavy == []
