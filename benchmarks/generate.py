"""Draws the same images with `isekai generate` and with plain loops over diffusers, turn about.

    python -m benchmarks.generate [--images 48] [--rounds 5] [--size 512] [--steps 2]

A small Stable Diffusion with random weights is built first. One thread stands for the device and
the other cores for its host, in all three ways of drawing. The shares of a picture's time are those
of few-step models on fast cards: Z-Image-Turbo takes 0.75 to 1 s on an H800 for 1024 pixels, by its
makers' word and others', and pillow 0.38 s to save it as PNG here; its text encoder does 1 % of the
arithmetic, that of PixArt or FLUX at 512 pixels 3 to 10 %. Everything counts from the call to the
last file: loading, encoding texts, drawing, PNG. The loops draw with batches of 1 and of 8; same
model, prompts, negative prompts, seeds and steps. Exit status 1 if ours isn't 1.3 times as fast as
the better of the two, if the device idles more than 5 % of the time, if a text was encoded twice,
or if pictures differ by more than batching makes them.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from isekai import choosing, files, generate
from isekai.types import ImageRecord, ImageRequest
from tests import parts, pipelines, tokens

WORTH = 1.3
IDLE = 0.05
TOLERANCE = 2.0
"""Of 255, the mean over a picture: what another batch size may change."""


def plain(model: Path, requests: Sequence[ImageRequest], out: Path, batch: int, steps: int) -> None:
    """What a user would write."""
    out.mkdir(parents=True)
    pipe = pipelines.library().StableDiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    for start in range(0, len(requests), batch):
        some = requests[start : start + batch]
        images = pipe(
            prompt=[request.prompt for request in some],
            negative_prompt=[request.concept.negative_prompt for request in some],
            generator=[torch.Generator("cpu").manual_seed(request.seed) for request in some],
            num_inference_steps=steps,
            height=some[0].size,
            width=some[0].size,
        ).images
        for request, image in zip(some, images, strict=True):
            image.save(out / f"{request.concept.id.replace('/', '-')}-{request.index}.png")


def ours(model: Path, given: argparse.Namespace, out: Path) -> "Busy":
    """The command on an empty cache; the source afterwards."""
    os.environ["ISEKAI_CACHE"] = str(out.parent / f"cache-{out.name}")
    options = {"model": str(model), "steps": given.steps, "devices": "cpu", "threads": 1}
    chosen = choosing.choose("diffusers", options)
    busy = Busy(chosen.source)
    asked = plan(chosen._replace(source=busy), given)
    generate.draw(asked, out=out, workers=1)
    return busy


def plan(chosen: Any, given: argparse.Namespace) -> Any:
    return generate.plan(
        source=chosen,
        groups="cactihog,airstone",
        per_concept=given.images // 6,
        size=given.size,
        gates=(),
    )


class Busy:
    """A source, and how long it was at work from its first picture to its last."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.seconds = 0.0
        self.drawing = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def draw(self, requests: Sequence[ImageRequest]) -> Any:
        drawn = self.source.draw(requests)
        yield next(drawn)  # the model is loaded by now
        begun = time.perf_counter()
        for picture in drawn:
            self.drawing += picture.made["seconds"]
            yield picture
        self.seconds += time.perf_counter() - begun


def build(folder: Path) -> Path:
    """Stable Diffusion with little to compute for each pixel, so that pictures can be large."""
    from transformers import CLIPTextConfig, CLIPTextModel

    library, tokenizer = pipelines.library(), tokens.clip()
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    unet = library.UNet2DConditionModel(
        sample_size=64,
        layers_per_block=1,
        block_out_channels=(16, 32, 64),
        down_block_types=("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=128,
        attention_head_dim=8,
    )
    vae = library.AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )
    pipeline = library.StableDiffusionPipeline(
        vae=parts.filled(vae),
        text_encoder=parts.filled(CLIPTextModel(text)),
        tokenizer=tokenizer,
        unet=parts.filled(unet),
        scheduler=library.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def shares(model: Path, given: argparse.Namespace) -> tuple[float, float]:
    """What encoding two texts and saving a PNG take beside a call with one image."""
    pipe = pipelines.library().StableDiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    texts, calls, saves = [], [], []
    for _ in range(4):
        begun = time.perf_counter()
        with torch.no_grad():
            pipe.encode_prompt("a cactihog", "cpu", 1, True, negative_prompt="a cactus")
        texts.append(time.perf_counter() - begun)
        begun, size = time.perf_counter(), given.size
        image = pipe("x", num_inference_steps=given.steps, height=size, width=size).images[0]
        calls.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        image.save(io.BytesIO(), "PNG")
        saves.append(time.perf_counter() - begun)
    return min(texts) / min(calls), min(saves) / min(calls)


def difference(ledger: Path, plain_out: Path) -> float:
    """The largest mean difference of a picture from that of the loop, of 255."""
    worst = 0.0
    for row in files.read_jsonl(ledger / "ledger.jsonl", ImageRecord):
        name = f"{row.concept.replace('/', '-')}-{row.index}.png"
        one, other = (
            np.asarray(Image.open(path).convert("RGB"), dtype=np.int16)
            for path in (ledger / row.path, plain_out / name)
        )
        worst = max(worst, float(np.abs(one - other).mean()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pipelines.library().utils.logging.set_verbosity_error()
    pipelines.library().utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["ISEKAI_CACHE"] = str(work / "cache")
        model = build(work / "model")
        chosen = choosing.choose("diffusers", {"model": str(model), "devices": "cpu"})
        requests = plan(chosen, given).requests
        texts = len({r.prompt for r in requests})
        texts += len({r.concept.negative_prompt for r in requests})
        print(f"{len(requests)} images of {given.size} px, {given.steps} steps, {texts} texts")
        text, png = shares(model, given)
        print(f"beside a call of one image, encoding two texts takes {text:.1%}, PNG {png:.0%}")
        times: dict[str, list[float]] = {"batch 1": [], "batch 8": [], "isekai": []}
        idle, encoded = [], []
        for turn in range(given.rounds):
            for way, batch in (("batch 1", 1), ("batch 8", 8)):
                begun = time.perf_counter()
                plain(model, requests, work / f"{way}-{turn}", batch, given.steps)
                times[way].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            source = ours(model, given, work / f"isekai-{turn}")
            times["isekai"].append(time.perf_counter() - begun)
            idle.append(max(0.0, 1 - source.drawing / source.seconds))
            encoded.append(source.encoded)
        for way, seconds in times.items():
            each = ", ".join(f"{len(requests) / one:.2f}" for one in seconds)
            print(f"  {way:8} {each} images/s")
        better = [min(a, b) for a, b in zip(times["batch 1"], times["batch 8"], strict=True)]
        ratios = [a / b for a, b in zip(better, times["isekai"], strict=True)]
        apart = difference(work / "isekai-0", work / "batch 1-0")
        ratio = statistics.median(ratios)
        print(f"ratio to the better loop: {ratio:.2f} (each round: "
              f"{', '.join(f'{one:.2f}' for one in ratios)})")  # fmt: skip
        print(f"the pipeline did not run {max(idle):.1%} of the time at most")
        print(f"texts encoded: {encoded}, distinct: {texts}")
        print(f"largest mean difference of a picture: {apart:.3f} of 255")
        if ratio < WORTH or max(idle) > IDLE or set(encoded) != {texts} or apart > TOLERANCE:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
