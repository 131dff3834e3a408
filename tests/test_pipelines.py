"""The tiny pipelines are what they stand for: small, whole, drawn by the prompt and the seed."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from isekai.files import sha256
from tests import tokens
from tests.pipelines import PIPELINES, build, built, library, lora

STEPS = 2
SIZE = 64
SNAIL = "a watercolour of a snail with a cart wheel for a shell, on a mossy log"
CACTUS = "a photograph of a hedgehog that is a cactus, in a clay pot"


@cache
def opened(folder: Path, auto: bool = False):
    diffusers = library()
    opener = diffusers.AutoPipelineForText2Image if auto else diffusers.DiffusionPipeline
    pipeline = opener.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline, prompts: list[str], seeds: list[int], **more) -> np.ndarray:
    """[N, H, W, 3] bytes."""
    images = pipeline(
        prompt=prompts,
        height=SIZE,
        width=SIZE,
        num_inference_steps=STEPS,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        **more,
    ).images
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("kind", PIPELINES)
def test_pictures_follow_the_prompt_and_the_seed(kind, tmp_path_factory):
    pipeline = opened(built(kind, tmp_path_factory))
    first, prompted, seeded = drawn(pipeline, [SNAIL, CACTUS, SNAIL], [5, 5, 6])
    assert first.shape == (SIZE, SIZE, 3)
    assert first.std() > 10
    assert (first != prompted).mean() > 0.5
    assert (first != seeded).mean() > 0.5
    again = drawn(pipeline, [SNAIL, SNAIL], [6, 5])[1]
    assert np.abs(first.astype(int) - again).max() <= 1


@pytest.mark.parametrize("kind", PIPELINES)
def test_auto_pipeline_opens_the_same_class_and_draws(kind, tmp_path_factory):
    folder = built(kind, tmp_path_factory)
    pipeline = opened(folder, auto=True)
    assert type(pipeline) is type(opened(folder))
    assert drawn(pipeline, [SNAIL], [5]).std() > 10


@pytest.mark.parametrize("kind", PIPELINES)
def test_folders_are_small_and_hold_weights_as_safetensors_alone(kind, tmp_path_factory):
    folder = built(kind, tmp_path_factory)
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) < 1_500_000
    assert {path.suffix for path in found} <= {".json", ".safetensors", ".jinja"}
    assert (folder / "model_index.json").is_file()


@pytest.mark.parametrize("kind", PIPELINES)
def test_the_same_bytes_are_built_each_time(kind, tmp_path, tmp_path_factory):
    assert hashes(build(kind, tmp_path)) == hashes(built(kind, tmp_path_factory))


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_broken_decoder_gives_no_number(tmp_path):
    pipeline = opened(build("sd15", tmp_path, nan_vae=True))
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert pipeline.vae.decode(latents).sample.isnan().all()


def test_pickled_weights_are_the_same_and_are_refused_where_safetensors_are_asked(
    tmp_path, tmp_path_factory
):
    pickled, safe = build("sd15", tmp_path, pickle=True), built("sd15", tmp_path_factory)
    assert not list(pickled.rglob("*.safetensors"))
    with pytest.raises(OSError, match="safetensors"):
        opened(pickled)
    loaded = library().DiffusionPipeline.from_pretrained(pickled, use_safetensors=False)
    loaded.set_progress_bar_config(disable=True)
    assert np.array_equal(drawn(loaded, [SNAIL], [5]), drawn(opened(safe), [SNAIL], [5]))


@pytest.mark.parametrize("kind", ["sd15", "flux"])
def test_a_lora_changes_pictures_until_it_is_taken_off(kind, tmp_path, tmp_path_factory):
    file = lora(kind, tmp_path)
    assert file.stat().st_size < 100_000
    pipeline = opened(built(kind, tmp_path_factory))
    plain = drawn(pipeline, [SNAIL], [5])
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    changed = drawn(pipeline, [SNAIL], [5])
    pipeline.unload_lora_weights()
    assert (plain != changed).mean() > 0.3
    assert np.array_equal(plain, drawn(pipeline, [SNAIL], [5]))


def test_a_scale_widens_text_encoder_and_denoiser(tmp_path, tmp_path_factory):
    wide, narrow = opened(build("sd15", tmp_path, scale=4)), opened(built("sd15", tmp_path_factory))
    assert wide.text_encoder.config.hidden_size == 4 * narrow.text_encoder.config.hidden_size
    assert wide.unet.num_parameters() > 8 * narrow.unet.num_parameters()
    assert drawn(wide, [SNAIL], [5]).std() > 10


def test_what_qwen_image_leaves_out_is_what_it_put_before_the_prompt():
    assert len(tokens.qwen()(tokens.QWEN_IMAGE).input_ids) == 34


def test_prompts_come_back_from_every_tokenizer():
    for tokenizer in (tokens.clip(), tokens.t5(), tokens.qwen(), tokens.gemma()):
        read = tokenizer.decode(tokenizer(CACTUS).input_ids, skip_special_tokens=True)
        assert read.replace(" ", "") == CACTUS.replace(" ", "")
