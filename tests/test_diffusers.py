"""Pictures from diffusion models: what plain diffusers would draw, whatever the batch and order."""

import inspect
import json
import logging
import math
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from isekai import files, plugins
from isekai.errors import DataError, IsekaiError, PluginError
from isekai.protocols import Accelerated, Estimating, ImageSource, Picture, Rejected, Suggesting
from isekai.sources.diffusers import (
    DiffusersSource,
    devices,
    estimating,
    installed,
    loading,
    noise,
    placing,
    presets,
    speeds,
)
from isekai.sources.diffusers.decoding import Decoder
from isekai.types import Concept, ImageRequest
from tests import parts, pipelines

KINDS = {
    "sd15": {},
    "sdxl": {},
    "sd3": {},
    "flux": {},
    "flux2-klein": {"negative_prompts": False},
    "pixart-sigma": {},
    "sana": {},
    "qwen-image": {},
    "z-image": {},
}
"""Kind -> the options that it needs."""

NEGATIVE = "text, watermark"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # of several on busy cores, each waits for the slowest
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


def source(folder: Path | str, **options) -> DiffusersSource:
    given = {"model": str(folder), "steps": 2, "devices": "cpu", **options}
    return plugins.build("sources", "diffusers", given)


def of(kind: str, tmp_path_factory, **options) -> DiffusersSource:
    return source(pipelines.built(kind, tmp_path_factory), **{**KINDS.get(kind, {}), **options})


def requests(count: int, *, size: int = 64, prompt: str = "a snail number", negative=NEGATIVE):
    """Of as many prompts, whose numbers are one token each."""
    concept = Concept(id="shells/snail", name="snail", role="novel", negative_prompt=negative)
    return [
        ImageRequest(
            concept=concept, index=n, size=size, seed=2**62 + n, prompt=f"{prompt} {n % 10}"
        )
        for n in range(count)
    ]


def array(picture: Picture | Rejected) -> np.ndarray:
    assert isinstance(picture, Picture), picture
    return np.asarray(picture.image).astype(int)


def drawn(own: DiffusersSource, wanted: list[ImageRequest]) -> list[np.ndarray]:
    return [array(picture) for picture in own.draw(wanted)]


def plain(own: DiffusersSource, request: ImageRequest, **more) -> np.ndarray:
    """The picture of a plain call of the whole pipeline."""
    pipeline = loading.library().DiffusionPipeline.from_pretrained(own._choice.origin.folder)
    pipeline.set_progress_bar_config(disable=True)
    own_class = type(pipeline).__name__
    given = {"negative_prompt": request.concept.negative_prompt}
    if own_class == "Flux2KleinPipeline":
        given = {}
    if own_class in ("PixArtSigmaPipeline", "SanaPipeline"):
        given["use_resolution_binning"] = False
    image = pipeline(
        prompt=request.prompt,
        height=request.size,
        width=request.size,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(request.seed),
        **given,
        **more,
    ).images[0]
    return np.asarray(image).astype(int)


@pytest.fixture
def first_noise(monkeypatch) -> list[torch.Tensor]:
    """The latents that denoising begins with, one tensor an image, as they come."""
    seen: list[torch.Tensor] = []
    half = loading.image_half

    def watched(model, quantise=None):
        pipeline = half(model, quantise)
        prepare = pipeline.prepare_latents

        def noted(*args, **given):
            made = prepare(*args, **given)
            seen.extend((made[0] if isinstance(made, tuple) else made).clone())
            return made

        pipeline.prepare_latents = noted
        return pipeline

    monkeypatch.setattr(loading, "image_half", watched)
    return seen


# ---------------------------------------------------------------- what is drawn


def test_each_kind_draws_what_its_plain_pipeline_draws(kind, tmp_path_factory):
    own = of(kind, tmp_path_factory, batch=2)
    wanted = requests(3)
    pictures = drawn(own, wanted)
    assert own.encoded == 3 + (kind != "flux2-klein" and (kind != "flux"))
    for request, picture in zip(wanted[::2], pictures[::2], strict=True):
        expected = plain(own, request)
        assert picture.shape == expected.shape == (64, 64, 3)
        assert expected.std() > 10
        assert np.abs(picture - expected).max() <= 2
    assert np.abs(pictures[0] - pictures[1]).mean() > 2


def test_the_first_noise_is_the_seed_s_to_the_bit_whatever_batch_and_order(
    kind, tmp_path_factory, first_noise
):
    wanted = requests(4)
    list(of(kind, tmp_path_factory, batch=4).draw(wanted))
    together = list(first_noise)
    first_noise.clear()
    list(of(kind, tmp_path_factory, batch=1).draw(wanted[::-1]))
    assert len(together) == len(first_noise) == 4
    for a, b in zip(together, reversed(first_noise), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(together[0], together[1])


def test_one_at_a_time_the_order_changes_no_bit(tmp_path_factory):
    wanted = requests(3)
    one = of("sd15", tmp_path_factory, batch=1)
    forth, back = drawn(one, wanted), drawn(one, wanted[::-1])
    for a, b in zip(forth, reversed(back), strict=True):
        assert (a == b).all()


def test_together_pictures_differ_from_alone_in_the_last_bit_at_most(tmp_path_factory):
    wanted = requests(4)
    alone = drawn(of("sd15", tmp_path_factory, batch=1), wanted)
    together = drawn(of("sd15", tmp_path_factory, batch=4), wanted)
    for a, b in zip(alone, together, strict=True):
        assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize("negative", ["", "text, watermark"])
def test_a_picture_never_depends_on_whether_its_neighbours_have_a_negative_prompt(
    negative, tmp_path_factory
):
    own = of("sdxl", tmp_path_factory, batch=4)
    one = requests(1, negative=negative)
    mixed = [*one, *requests(3, negative="blurred")]
    assert np.abs(drawn(own, mixed)[0] - drawn(own, one)[0]).max() <= 1


def test_noise_that_is_added_at_each_step_is_the_image_s_own_too(tmp_path_factory):
    wanted = requests(3)
    options = {"scheduler": "EulerAncestralDiscreteScheduler", "steps": 3}
    alone = drawn(of("sd15", tmp_path_factory, batch=1, **options), wanted)
    together = drawn(of("sd15", tmp_path_factory, batch=3, **options), wanted[::-1])
    for a, b in zip(alone, reversed(together), strict=True):
        assert np.abs(a - b).max() <= 1


def test_a_pipeline_that_hands_no_generator_to_its_scheduler_draws_seeded_noise_all_the_same(
    tmp_path_factory, tmp_path
):
    folder = shutil.copytree(pipelines.built("flux", tmp_path_factory), tmp_path / "flux")
    path = folder / "scheduler" / "scheduler_config.json"
    config = files.read_json(path, dict[str, object])
    files.write_json(path, {**config, "stochastic_sampling": True})
    alone = drawn(source(folder, batch=1), requests(2))
    together = drawn(source(folder, batch=2), requests(2))
    for a, b in zip(alone, together, strict=True):
        assert np.abs(a - b).max() <= 1


def test_numbers_that_no_seed_decides_are_refused():
    with noise.nothing_unseeded("cpu", "Euler"):
        torch.randn(3, generator=noise.generators([1])[0])
    with (
        pytest.raises(IsekaiError, match="Euler draws noise that no image's seed decides"),
        noise.nothing_unseeded("cpu", "Euler"),
    ):
        torch.randn(3)


def test_texts_of_unequal_length_are_drawn_apart_and_arranged_side_by_side(tmp_path_factory):
    own = of("qwen-image", tmp_path_factory, batch=8)
    short, long = requests(3), requests(3, prompt="a snail, a snail, a snail number")
    mixed = [request for both in zip(short, long, strict=True) for request in both]
    own.prepare(mixed)
    assert own.arrange(mixed) == [*short, *long]
    pictures = list(own.draw(own.arrange(mixed)))
    assert [picture.made["batch"] for picture in pictures] == [3] * 6
    for request, picture in zip(own.arrange(mixed), pictures, strict=True):
        assert np.abs(array(picture) - plain(own, request)).max() <= 2


def test_a_refiner_draws_the_last_steps(tmp_path_factory):
    refiner = pipelines.built("sdxl-refiner", tmp_path_factory)
    how = {"steps": 4, "refiner": str(refiner), "switch": 0.5, "guidance": 5.0}
    own = of("sdxl", tmp_path_factory, batch=2, **how)
    wanted = requests(2)
    pictures = drawn(own, wanted)
    assert own.settings["refiner"]["switch"] == 0.5
    assert own.settings["refiner"]["model"].startswith("StableDiffusionXLImg2ImgPipeline-")
    diffusers = loading.library()
    base = diffusers.DiffusionPipeline.from_pretrained(own._choice.origin.folder)
    second = diffusers.DiffusionPipeline.from_pretrained(refiner)
    for pipeline in (base, second):
        pipeline.set_progress_bar_config(disable=True)
    for request, picture in zip(wanted, pictures, strict=True):
        generator = torch.Generator().manual_seed(request.seed)
        given = {
            "prompt": request.prompt,
            "negative_prompt": NEGATIVE,
            "num_inference_steps": 4,
            "guidance_scale": 5.0,
            "generator": generator,
        }
        latents = base(height=64, width=64, denoising_end=0.5, output_type="latent", **given).images
        expected = second(image=latents, denoising_start=0.5, **given).images[0]
        assert np.abs(picture - np.asarray(expected).astype(int)).max() <= 2
    unrefined = drawn(of("sdxl", tmp_path_factory, steps=4), wanted)
    assert np.abs(unrefined[0] - pictures[0]).mean() > 1


def test_a_lora_changes_pictures_and_is_recorded(tmp_path_factory, tmp_path):
    file = pipelines.lora("sd15", tmp_path / "lora")
    wanted = requests(1)
    without = of("sd15", tmp_path_factory)
    full, none = (of("sd15", tmp_path_factory, lora=f"{file}@{n}") for n in ("1.5", "0"))
    assert "lora" not in without.settings
    assert full.settings["lora"] == {
        "name": file.name,
        "sha256": files.sha256(file.read_bytes()),
        "scale": 1.5,
    }
    base = drawn(without, wanted)[0]
    assert np.abs(drawn(full, wanted)[0] - base).mean() > 1
    assert np.abs(drawn(none, wanted)[0] - base).max() <= 1


def test_a_lora_is_taken_from_a_folder_and_must_go_with_the_model(tmp_path_factory, tmp_path):
    file = pipelines.lora("flux", tmp_path / "lora")
    own = of("flux", tmp_path_factory, lora=str(file.parent))
    assert own.settings["lora"]["name"] == file.name
    assert np.abs(drawn(own, requests(1))[0] - plain(own, requests(1)[0])).mean() > 1
    with pytest.raises(IsekaiError, match=r"lora '.*' can't be loaded into this model"):
        list(of("sd15", tmp_path_factory, lora=str(file)).draw(requests(1)))
    for given, told in (
        ("missing.safetensors", "no such file"),
        (f"{file.parent}:other", "no 'other' there"),
        (f"{file.parent}@much", "expected a number"),
    ):
        with pytest.raises(IsekaiError, match=told):
            _ = of("flux", tmp_path_factory, lora=given).settings


def test_another_scheduler_is_taken_by_name_and_an_unknown_one_told(tmp_path_factory):
    wanted = requests(1)
    own = of("sd15", tmp_path_factory, steps=4)
    other = of("sd15", tmp_path_factory, steps=4, scheduler="DDIMScheduler")
    assert (own.settings["scheduler"], other.settings["scheduler"]) == (
        "PNDMScheduler",
        "DDIMScheduler",
    )
    assert np.abs(drawn(own, wanted)[0] - drawn(other, wanted)[0]).mean() > 0.5
    wrong = of("sd15", tmp_path_factory, scheduler="FlowMatchEulerDiscreteScheduler")
    with pytest.raises(IsekaiError, match=r"'FlowMatchEulerDiscreteScheduler' does not go with"):
        list(wrong.draw(wanted))
    with pytest.raises(IsekaiError, match=r"no scheduler .*; did you mean 'DDIMScheduler'"):
        of("sd15", tmp_path_factory, scheduler="DIMScheduler").estimate(wanted)


def test_a_safety_checker_gives_scores_and_blackens_nothing(tmp_path_factory):
    own = of("sd15-checked", tmp_path_factory, batch=2)
    wanted = requests(2)
    pictures = list(own.draw(wanted))
    for request, picture in zip(wanted, pictures, strict=True):
        assert picture.scores["safety.flagged"] in (0.0, 1.0)
        assert (picture.scores["safety.margin"] > 0) == bool(picture.scores["safety.flagged"])
        blackened = not plain(own, request).any()
        assert blackened == bool(picture.scores["safety.flagged"])
        assert array(picture).std() > 10
    off = of("sd15-checked", tmp_path_factory, safety="off")
    assert [picture.scores for picture in off.draw(wanted[:1])] == [{}]


# ---------------------------------------------------------------- what can go wrong


@pytest.fixture
def too_large(monkeypatch) -> list[int]:
    """A device whose memory holds as many images as the list says; `sd15` denoises each twice."""
    holds = [4]
    half = loading.image_half

    def small(model, quantise=None):
        pipeline = half(model, quantise)
        forward = pipeline.unet.forward

        def limited(sample, *args, **given):
            if len(sample) > 2 * holds[0]:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.")
            return forward(sample, *args, **given)

        pipeline.unet.forward = limited
        return pipeline

    monkeypatch.setattr(loading, "image_half", small)
    return holds


def test_out_of_memory_at_eight_goes_on_with_four_and_loses_nothing(
    tmp_path_factory, too_large, capsys
):
    own = of("sd15", tmp_path_factory, batch=8)
    wanted = requests(10)
    pictures = list(own.draw(wanted))
    assert capsys.readouterr().err.count("out of memory at 8 images; going on with 4") == 1
    assert [picture.made["batch"] for picture in pictures] == [4] * 8 + [2] * 2
    too_large[0] = 100
    expected = drawn(of("sd15", tmp_path_factory, batch=4), wanted)
    for picture, other in zip(pictures, expected, strict=True):
        assert np.abs(array(picture) - other).max() <= 1


def test_out_of_memory_at_one_image_says_what_to_change(tmp_path_factory, too_large):
    too_large[0] = 0
    with pytest.raises(IsekaiError, match="out of memory at a single image"):
        list(of("sd15", tmp_path_factory, batch=2).draw(requests(2)))


def test_the_batch_grows_on_the_work_itself(tmp_path_factory, monkeypatch):
    own = of("sd15", tmp_path_factory)
    sizes = [picture.made["batch"] for picture in own.draw(requests(12))]
    assert sizes[:2] == [1, 1]
    assert set(sizes) > {1}


def test_pictures_that_are_not_finite_are_rejected_and_then_end_the_run(tmp_path_factory):
    own = source(pipelines.built("sd15", tmp_path_factory, nan_vae=True), batch=2)
    pictures = own.draw(requests(6))
    for _ in range(2):
        picture = next(pictures)
        assert isinstance(picture, Rejected)
        assert picture.again
        assert "not finite" in picture.reason
    with pytest.raises(IsekaiError, match=r"so far is finite in float32: fetch the model anew$"):
        next(pictures)
    folder = pipelines.built("sd15", tmp_path_factory, nan_vae=True)
    pictures = source(folder, batch=1, dtype="bfloat16").draw(requests(2))
    assert isinstance(next(pictures), Rejected)
    with pytest.raises(IsekaiError, match=r"in bfloat16: try -o dtype=float32, or fetch the model"):
        next(pictures)


def overflowing():
    """A VAE whose first layer leaves float16's range, which its norms would bring back."""
    vae = parts.vae()
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(6e4 / vae.decoder.conv_in.weight.abs().max())
    return vae


def test_an_image_that_float16_loses_is_decoded_in_float32():
    whole, half = overflowing().eval(), overflowing().to(torch.float16).eval()
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    decoder = Decoder(half)
    decoder.begin()
    with torch.no_grad():
        pixels = half.decode(latents.half(), return_dict=False)[0]
        expected = whole.decode(latents.half().float(), return_dict=False)[0]
    assert decoder.finite == decoder.again == [True] * 3
    assert half.dtype == torch.float16
    assert torch.allclose(pixels.float(), expected, atol=0.05)


def test_cards_are_listed_by_size_and_what_is_not_drawn_in_is_told(tmp_path_factory):
    with pytest.raises(IsekaiError, match="known: 8g, 16g, 24g, 80g, auto"):
        _ = of("sd15", tmp_path_factory, memory="huge").settings
    with pytest.raises(IsekaiError, match="dtype=float16: not supported here on a CPU"):
        _ = of("sd15", tmp_path_factory, dtype="float16").settings


def test_what_float16_can_decode_is_left_as_it_is_and_broken_latents_stay_broken():
    half = parts.vae().to(torch.float16).eval()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    with torch.no_grad():
        expected = half.decode(latents, return_dict=False)[0]
    decoder = Decoder(half)
    decoder.begin()
    latents = torch.cat([latents, torch.full_like(latents[:1], math.nan)])
    with torch.no_grad():
        pixels = half.decode(latents, return_dict=False)[0]
    assert decoder.again == [False] * 3
    assert decoder.finite == [True, True, False]
    assert torch.allclose(pixels[:2], expected, atol=1e-2)


def test_weights_as_pickle_are_never_loaded(tmp_path_factory):
    own = source(pipelines.built("sd15", tmp_path_factory, pickle=True))
    with pytest.raises(DataError, match="only safetensors are loaded"):
        list(own.draw(requests(1)))


def test_a_size_that_the_model_cannot_draw_is_told_before_anything_is_loaded(tmp_path_factory):
    own = of("flux", tmp_path_factory)
    for ask in (own.prepare, own.estimate, lambda wanted: list(own.draw(wanted))):
        with pytest.raises(
            IsekaiError, match=r"72 pixels; .* multiples of 16: give --size 64 or 80"
        ):
            ask(requests(1, size=72))


def test_a_pipeline_that_starts_from_an_image_is_refused_before_anything_is_loaded(
    tmp_path_factory,
):
    own = of("sdxl-refiner", tmp_path_factory)
    for ask in (lambda: own.settings, lambda: own.size, lambda: own.estimate(requests(1))):
        with pytest.raises(IsekaiError, match=r"Img2ImgPipeline .*-o refiner=.* -o switch="):
            ask()


@pytest.mark.parametrize(
    ("pipeline", "starts"),
    [
        ("StableDiffusionXLInpaintPipeline", True),
        ("FluxControlNetPipeline", True),
        ("QwenImageEditPlusPipeline", True),
        ("HunyuanVideoPipeline", True),
        ("Kandinsky5I2VPipeline", True),
        ("StableDiffusionModelEditingPipeline", False),
        ("LDMTextToImagePipeline", False),
        *((kind, False) for kind in ("SanaPipeline", "FluxPipeline", "Cosmos2TextToImagePipeline")),
    ],
)
def test_what_a_pipeline_takes_besides_a_text_is_known_from_its_name(pipeline, starts):
    assert bool(installed.instead_of_pictures(pipeline)) == starts


def test_the_schedulers_that_are_told_are_those_of_the_library():
    diffusers = loading.library()
    named = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    assert installed.schedulers() >= named - {"LMSDiscreteScheduler", "DPMSolverSDEScheduler"}
    assert {"DDIMScheduler", "FlowMatchEulerDiscreteScheduler"} <= installed.schedulers()


def test_guidance_that_is_an_input_of_the_network_takes_no_second_pass(tmp_path_factory, tmp_path):
    folder = shutil.copytree(pipelines.built("flux", tmp_path_factory), tmp_path / "flux")
    assert source(folder, guidance=3.5)._choice.guided
    path = folder / "transformer" / "config.json"
    config = files.read_json(path, dict[str, object])
    files.write_json(path, {**config, "guidance_embeds": True})
    assert not source(folder, guidance=3.5)._choice.guided
    assert of("sd15", tmp_path_factory, negative_prompts=False)._choice.guided


def test_a_concept_without_a_prompt_is_rejected_and_the_others_drawn(tmp_path_factory):
    wanted = requests(3)
    silent = ImageRequest(concept=wanted[0].concept, index=9, size=64, seed=9)
    pictures = list(of("sd15", tmp_path_factory, batch=4).draw([wanted[0], silent, wanted[1]]))
    assert [type(picture) for picture in pictures] == [Picture, Rejected, Picture]
    assert "no prompt" in pictures[1].reason
    assert not pictures[1].again


def test_an_option_that_the_pipeline_has_no_use_for_is_told(tmp_path_factory):
    with pytest.raises(IsekaiError, match="StableDiffusionPipeline has no use for tokens"):
        list(of("sd15", tmp_path_factory, tokens=50).draw(requests(1)))
    with pytest.raises(IsekaiError, match="takes no negative prompts"):
        list(of("flux2-klein", tmp_path_factory, negative_prompts=True).draw(requests(1)))
    with pytest.raises(IsekaiError, match=r"FluxPipeline: .*max_sequence_length"):
        list(of("flux", tmp_path_factory, tokens=5000).draw(requests(1)))
    with pytest.raises(PluginError, match="no option 'step'; did you mean"):
        of("sd15", tmp_path_factory, step=3)


def test_an_embedding_that_is_damaged_while_drawing_is_made_again(tmp_path_factory, tmp_path):
    own = of("sd15", tmp_path_factory, batch=1, cache=str(tmp_path / "kept"))
    wanted = requests(2)
    expected = drawn(own, wanted)
    own = of("sd15", tmp_path_factory, batch=1, cache=str(tmp_path / "kept"))
    own.prepare(wanted)
    assert own.encoded == 0
    for path in (tmp_path / "kept").rglob("*.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    for a, b in zip(drawn(own, wanted), expected, strict=True):
        assert (a == b).all()
    assert own.encoded == 3


# ---------------------------------------------------------------- pipelines that don't fit


def odd(kind: str, tmp_path: Path, tmp_path_factory, monkeypatch, **members) -> Path:
    """A model whose pipeline is that of `sd15` with other members."""
    diffusers = loading.library()
    own = type(kind, (diffusers.StableDiffusionPipeline,), members)
    monkeypatch.setattr(diffusers, kind, own, raising=False)
    folder = shutil.copytree(pipelines.built("sd15", tmp_path_factory), tmp_path / kind)
    index = files.read_json(folder / "model_index.json", dict[str, object])
    files.write_json(folder / "model_index.json", {**index, "_class_name": kind})
    return folder


def rewrites(self, prompt=None, negative_prompt=None, **given):
    """A pipeline that puts words of its own before each prompt."""
    own = loading.library().StableDiffusionPipeline.__call__
    return own(self, [f"photo of {text}" for text in prompt], **given)


def test_a_pipeline_whose_texts_cannot_be_encoded_apart_keeps_its_text_encoder_and_says_so(
    tmp_path, tmp_path_factory, monkeypatch, capsys
):
    base = loading.library().StableDiffusionPipeline
    rewrites.__signature__ = inspect.signature(base.__call__)
    folder = odd("Rewriting", tmp_path, tmp_path_factory, monkeypatch, __call__=rewrites)
    wanted = requests(2, negative="")
    pictures = drawn(source(folder, batch=2), wanted)
    told = capsys.readouterr().err
    assert "Rewriting: keeps its text encoder loaded while it draws: it rewrites prompts" in told
    expected = drawn(
        of("sd15", tmp_path_factory, batch=2),
        requests(2, negative="", prompt="photo of a snail number"),
    )
    for a, b in zip(pictures, expected, strict=True):
        assert np.abs(a - b).max() <= 1


def test_a_pipeline_that_gives_its_embeddings_in_another_form_keeps_its_text_encoder_too(
    tmp_path, tmp_path_factory, monkeypatch, capsys
):
    base = loading.library().StableDiffusionPipeline

    class Answer(tuple):
        """Unpacks as it should, but holds what no one can keep."""

        def __iter__(self):
            return iter(self[0].values())

    def encode_prompt(self, *args, **given):
        made = base.encode_prompt(self, *args, **given)
        return Answer([dict(enumerate(made))])

    members = {"encode_prompt": encode_prompt}
    folder = odd("Wrapping", tmp_path, tmp_path_factory, monkeypatch, **members)
    pictures = drawn(source(folder, batch=2), requests(2))
    assert "Wrapping: keeps its text encoder loaded" in capsys.readouterr().err
    for a, b in zip(pictures, drawn(of("sd15", tmp_path_factory), requests(2)), strict=True):
        assert np.abs(a - b).max() <= 1


def test_a_pipeline_that_only_gives_finished_pictures_is_taken_at_its_word(
    tmp_path, tmp_path_factory, monkeypatch
):
    base = loading.library().StableDiffusionPipeline

    def call(self, *args, output_type="pil", **given):
        return base.__call__(self, *args, output_type="pil", **given)

    plain = inspect.signature(base.__call__)
    kept = [value for name, value in plain.parameters.items() if name != "output_type"]
    call.__signature__ = plain.replace(parameters=kept)
    folder = odd("Finished", tmp_path, tmp_path_factory, monkeypatch, __call__=call)
    pictures = drawn(source(folder, batch=2), requests(2))
    for a, b in zip(pictures, drawn(of("sd15", tmp_path_factory), requests(2)), strict=True):
        assert np.abs(a - b).max() <= 1


# ---------------------------------------------------------------- what takes other machines


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "options",
    [{}, {"offload": "model"}, {"offload": "group"}, {"dtype": "float16"}, {"compile": True}],
)
def test_a_gpu_draws_the_same_picture_from_the_same_noise(options, tmp_path_factory, first_noise):
    wanted = requests(2)
    given = {"dtype": "float32", "batch": 2, **options}
    there = drawn(of("flux", tmp_path_factory, devices="cuda:0", **given), wanted)
    noise_there = [latents.float().cpu() for latents in first_noise]
    first_noise.clear()
    here = drawn(of("flux", tmp_path_factory, batch=2), wanted)
    half = options.get("dtype") == "float16"
    for a, b, p, q in zip(noise_there, first_noise, there, here, strict=True):
        assert torch.equal(a, b) or half
        assert np.abs(p - q).mean() <= (4 if half else 1)


def test_compiling_is_silent_where_there_is_no_gpu(caplog):
    logger = logging.getLogger("torch.utils.cpp_extension")
    placing._compile(parts.unet(cross_attention_dim=parts.WIDTH))
    logger.warning("No CUDA runtime is found")
    assert not caplog.records


@pytest.mark.slow
def test_a_compiled_denoiser_draws_the_same_picture(tmp_path_factory, request):
    if "slow" not in request.config.getoption("markexpr"):
        pytest.skip("compiles for a minute; run with -m slow")
    wanted = requests(2)
    plain = drawn(of("sd15", tmp_path_factory, batch=2), wanted)
    compiled = drawn(of("sd15", tmp_path_factory, batch=2, compile=True), wanted)
    for a, b in zip(compiled, plain, strict=True):
        assert np.abs(a - b).max() <= 2


# ---------------------------------------------------------------- what it is


def test_it_has_the_abilities_of_a_source_on_devices(tmp_path_factory):
    own = of("sd15", tmp_path_factory)
    for ability in (ImageSource, Accelerated, Suggesting, Estimating):
        assert isinstance(own, ability)
    assert own.model == f"StableDiffusionPipeline-{own.revision[:12]}"
    assert re.fullmatch(r"[0-9a-f]{64}", own.revision)
    assert own.size == 64
    assert own.devices == ["cpu"]
    assert own.chunk >= 16
    settings = json.loads(json.dumps(files.plain(own.settings)))
    assert settings["pipeline"] == "StableDiffusionPipeline"
    assert settings["packages"].keys() == {"diffusers", "torch", "transformers"}
    assert "batch" not in settings
    assert "device" not in settings


def test_a_copy_on_a_device_draws_the_same_after_it_was_pickled(tmp_path_factory):
    own = of("sd15", tmp_path_factory, batch=2)
    wanted = requests(2)
    expected = drawn(own, wanted)
    copy = pickle.loads(pickle.dumps(own.on("cpu")))
    assert isinstance(copy, Accelerated)
    assert (copy.model, copy.revision, copy.settings) == (own.model, own.revision, own.settings)
    for a, b in zip(drawn(copy, wanted), expected, strict=True):
        assert (a == b).all()
    assert copy.encoded == 0


def test_without_a_cache_embeddings_last_as_long_as_the_source_and_are_shared_by_copies(
    tmp_path_factory, tmp_path
):
    own = of("sd15", tmp_path_factory, cache=False)
    wanted = requests(2)
    own.prepare(wanted)
    assert own.encoded == 3
    copy = pickle.loads(pickle.dumps(own.on("cpu")))
    drawn(copy, wanted)
    assert copy.encoded == 0
    assert not (tmp_path / "cache" / "embeddings").exists()
    kept = own._shelf.folder
    assert kept.exists()
    del own
    assert not kept.exists()


def test_the_revision_tells_every_change_of_the_model(tmp_path_factory, tmp_path):
    folder = shutil.copytree(pipelines.built("sd15", tmp_path_factory), tmp_path / "other")
    before = source(folder).revision
    assert before == of("sd15", tmp_path_factory).revision
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert source(folder).revision != before


def test_a_folder_under_another_name_is_the_same_model(tmp_path_factory, tmp_path):
    own = of("sd15", tmp_path_factory)
    moved = source(shutil.copytree(own._choice.origin.folder, tmp_path / "moved"))
    assert (moved.model, moved.revision, moved.settings) == (own.model, own.revision, own.settings)
    assert moved.estimate(requests(1))[0].startswith("moved: ")


@pytest.mark.parametrize(
    "options",
    [{"steps": 3}, {"guidance": 2.0}, {"scheduler": "DDIMScheduler"}, {"dtype": "bfloat16"},
     {"negative_prompts": False}, {"tokens": 70}, {"tiling": True}],
)  # fmt: skip
def test_settings_tell_everything_that_pixels_depend_on(options, tmp_path_factory):
    assert of("sd15", tmp_path_factory, **options).settings != of("sd15", tmp_path_factory).settings


@pytest.mark.parametrize(
    "options", [{"batch": 4}, {"threads": 1}, {"safety": "off"}, {"cache": False}]
)
def test_settings_leave_out_what_they_do_not(options, tmp_path_factory):
    assert of("sd15", tmp_path_factory, **options).settings == of("sd15", tmp_path_factory).settings


def test_an_estimate_tells_texts_and_hours_and_knows_how_fast_it_was(tmp_path_factory):
    own = of("sd15", tmp_path_factory, batch=2)
    wanted = requests(6)
    lines = own.estimate(wanted)
    assert re.search(r"sd15: 6 distinct prompts and 1 negative ones; 6 of 6 pairs", lines[0])
    assert "not known" in lines[-1]
    list(own.draw(wanted))
    lines = own.estimate(wanted)
    assert "0 of 6 pairs" in lines[0]
    assert re.search(r"about 0.0 hours on .* for 6 images of 64 pixels \(as fast as", lines[-1])


def test_hours_on_a_known_card_are_reckoned_until_it_has_drawn(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(devices, "called", lambda device: "NVIDIA H100 80GB HBM3")
    own = of("flux", tmp_path_factory, steps=10, guidance=3.5)
    line = own.estimate(requests(6))[-1]
    assert re.search(r"about 0\.0 hours on NVIDIA H100 .* 40% of 989 TFLOP/s", line)
    stored = own._choice.origin.component_bytes()["transformer"]
    once = 2 * (stored / 2) * (64 / 16) ** 2
    assert estimating._operations(own._choice.recipe, 64) == once * 10 * 2


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", None),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA RTX A1000", None),
        ("AMD EPYC", None),
    ],
)
def test_cards_are_told_apart_by_whole_words(name, teraflops):
    assert speeds.peak(name) == (teraflops and teraflops * 1e12)


def test_a_dry_run_loads_no_torch(tmp_path_factory):
    folder = pipelines.built("sd15", tmp_path_factory)
    code = (
        "import sys\n"
        "from isekai import plugins\n"
        "from isekai.types import Concept, ImageRequest\n"
        "own = plugins.build('sources', 'diffusers:' + sys.argv[1], {'devices': 'cpu'})\n"
        "one = ImageRequest(concept=Concept(id='a/b', name='b', role='novel'), index=0,\n"
        "                   size=64, seed=1, prompt='b')\n"
        "print(own.model, own.revision, own.settings, own.size, own.estimate([one]))\n"
        "print('heavy:', sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.stdout.endswith("heavy: []\n"), done.stderr


def test_the_presets_are_names_of_models():
    assert DiffusersSource().size == presets.resolve().size
    with pytest.raises(PluginError, match="did you mean 'sdxl'"):
        source("sdx")
