"""The tiny pipelines are what they stand for: small, whole, drawn by the prompt and the seed."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from isekai.files import sha256
from tests import tokens
from tests.pipelines import PIPELINES, build, built, library, lora

pytestmark = pytest.mark.filterwarnings(
    # some schedulers of diffusers 0.42 put a tensor into numpy as numpy 1 had it
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

STEPS = 2
SIZE = 64
SNAIL = "a watercolour of a snail with a cart wheel for a shell, on a mossy log"
CACTUS = "a photograph of a hedgehog that is a cactus, in a clay pot"


REFINER = "sdxl-refiner"
DRAWING = [kind for kind in PIPELINES if kind != REFINER]


@cache
def opened(folder: Path, by: str = "DiffusionPipeline"):
    pipeline = getattr(library(), by).from_pretrained(
        folder, use_safetensors=True, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def drawn(pipeline, prompts: list[str], seeds: list[int], **more) -> np.ndarray:
    """[N, H, W, 3] bytes."""
    size = {} if "image" in more else {"height": SIZE, "width": SIZE}
    images = pipeline(
        prompt=prompts,
        **size,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
        **{"num_inference_steps": STEPS, **more},
    ).images
    return np.stack([np.asarray(image) for image in images])


def follows_prompt_and_seed(pipeline, **more) -> None:
    first, prompted, seeded = drawn(pipeline, [SNAIL, CACTUS, SNAIL], [5, 5, 6], **more)
    assert first.shape == (SIZE, SIZE, 3)
    assert first.std() > 10
    assert (first != prompted).mean() > 0.5
    assert (first != seeded).mean() > 0.5
    again = drawn(pipeline, [SNAIL, SNAIL], [6, 5], **more)[1]
    assert np.abs(first.astype(int) - again).max() <= 1


@pytest.mark.parametrize("kind", sorted(set(DRAWING) - {"sd15-checked"}))
def test_pictures_follow_the_prompt_and_the_seed(kind, tmp_path_factory):
    follows_prompt_and_seed(opened(built(kind, tmp_path_factory)))


@pytest.mark.parametrize("kind", DRAWING)
def test_auto_pipeline_opens_the_same_class_and_draws_the_same(kind, tmp_path_factory):
    folder = built(kind, tmp_path_factory)
    plain, auto = opened(folder), opened(folder, "AutoPipelineForText2Image")
    assert type(auto) is type(plain)
    assert np.array_equal(drawn(auto, [SNAIL], [5]), drawn(plain, [SNAIL], [5]))


def test_a_refiner_changes_a_picture_by_the_prompt_and_the_seed(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    for by in ("DiffusionPipeline", "AutoPipelineForImage2Image"):
        pipeline = opened(built(REFINER, tmp_path_factory), by)
        assert pipeline.config.requires_aesthetics_score
        assert pipeline.text_encoder is None
        follows_prompt_and_seed(pipeline, image=image, strength=1.0)


def test_a_refiner_goes_on_where_the_base_left_off(tmp_path_factory):
    base, refiner = (opened(built(kind, tmp_path_factory)) for kind in ("sdxl", REFINER))
    latents = base(
        prompt=[SNAIL],
        height=SIZE,
        width=SIZE,
        num_inference_steps=4,
        denoising_end=0.4,
        output_type="latent",
        generator=[torch.Generator().manual_seed(5)],
    ).images
    refined = drawn(
        refiner, [SNAIL], [5], image=latents, num_inference_steps=4, denoising_start=0.4
    )
    alone = drawn(base, [SNAIL], [5], num_inference_steps=4)
    assert refined.shape == alone.shape
    assert (refined != alone).mean() > 0.3


def test_a_safety_checker_blackens_some_pictures_and_leaves_the_others(tmp_path_factory):
    checked, plain = (opened(built(kind, tmp_path_factory)) for kind in ("sd15-checked", "sd15"))
    prompts, seeds = [SNAIL] * 12, list(range(12))
    wished = drawn(plain, prompts, seeds)
    shown = drawn(checked, prompts, seeds)
    black = (shown == 0).all(axis=(1, 2, 3))
    assert 2 <= black.sum() <= 10
    assert np.array_equal(shown[~black], wished[~black])
    assert (wished.std(axis=(1, 2, 3)) > 10).all()


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


@pytest.mark.parametrize("kind", ["sd15", "flux2-klein", "sana", "qwen-image"])
def test_a_broken_decoder_gives_no_number(kind, tmp_path):
    pipeline = opened(build(kind, tmp_path, nan_vae=True))
    image = pipeline(
        prompt=SNAIL, height=SIZE, width=SIZE, num_inference_steps=STEPS, output_type="pt"
    ).images
    assert image.isnan().all()


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
