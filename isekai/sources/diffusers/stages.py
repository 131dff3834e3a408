"""The two stages: text encoders that come and go, and then a painter that stays loaded."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from isekai import progress
from isekai.errors import IsekaiError
from isekai.sources.diffusers import batching, calling, devices, loading, lora, placing, safety
from isekai.sources.diffusers.encoding import Encoder
from isekai.sources.diffusers.memory import Memory
from isekai.sources.diffusers.painting import Painter, Stage
from isekai.sources.diffusers.reading import Reader
from isekai.sources.diffusers.recipe import Recipe, name
from isekai.sources.diffusers.texts import Asking, Misfit, Pair, Texts


def use(threads: int) -> None:
    """So many of the processor's for each operation; 0 leaves it to torch."""
    if threads:
        torch.set_num_threads(threads)


def encode(recipe: Recipe, texts: Texts, pairs: Sequence[Pair], *, size: int, device: str) -> int:
    """Encode these texts, and let go of the text encoders; how many embeddings were made.

    A pipeline whose texts can't be encoded apart from drawing is noted as such.
    """
    recipe.origin.fetch()
    if not recipe.model.has_text_encoders:
        return _misfit(recipe, texts, pairs, "its text encoder is no component of its own")
    progress.tell(f"{name(recipe.origin)}: encoding the texts of {len(pairs)} prompts")
    pipeline = loading.text_half(recipe.model)
    try:
        with _room(device, "the text encoders"):
            if recipe.lora and recipe.lora.texts:
                lora.apply(recipe.lora, pipeline, texts=True)
            placing.move_texts(pipeline, device)
            begin = partial(_begun, pipeline, recipe, size)
            encoder = Encoder(pipeline, texts, torch.device(device), begin)
            encoder.encode(pairs)
    except Misfit as misfit:
        return _misfit(recipe, texts, pairs, str(misfit))
    finally:
        loading.free(pipeline)
    if encoder.cut:
        progress.tell(
            f"{name(recipe.origin)}: reads only the beginning of {encoder.cut} of the texts"
        )
    return encoder.encoded


def painter(
    recipes: Sequence[Recipe], texts: Sequence[Texts], memory: Memory, *, scored: bool
) -> Painter:
    """The model, and the refiner behind it, ready to draw what is encoded.

    `scored`: with the safety checker, if there is one.
    """
    progress.tell(memory.told())
    device = memory.device
    if device.startswith("cuda"):
        torch.cuda.set_device(device)  # some kernels and quantisers go where no one told them
    with _room(device, "the model"):
        stages = [_stage(recipe, own, memory) for recipe, own in zip(recipes, texts, strict=True)]
    model = recipes[0].model
    checker = safety.Safety(model, device) if scored and safety.has_checker(model) else None
    called = calling.numbers(stages[0].pipeline, recipes[0])
    made = {**_made(device), "called": called}
    return Painter(stages, device, safety=checker, made=made, seeded=not memory.compile)


def _stage(recipe: Recipe, texts: Texts, memory: Memory) -> Stage:
    """A pipeline where it draws: without its text encoders, unless it can't do without them."""
    recipe.origin.fetch()
    load = loading.whole if texts.misfit else loading.image_half
    pipeline = load(recipe.model, placing.quantisation(recipe))
    if texts.misfit:
        told = f"keeps its text encoder loaded while it draws: {texts.misfit}"
        progress.tell(f"{name(recipe.origin)}: {told}")
    if recipe.lora:
        fuse = recipe.quantise == "none"
        lora.apply(recipe.lora, pipeline, texts=bool(texts.misfit), images=True, fuse=fuse)
    placing.place(pipeline, memory, memory.device)
    reader = None if texts.misfit else Reader(pipeline, texts, torch.device(memory.device))
    return Stage(recipe=recipe, pipeline=pipeline, reader=reader)


@contextmanager
def _room(device: str, what: str) -> Iterator[None]:
    """A lack of memory that no smaller batch can mend, as one line."""
    try:
        yield
    except Exception as error:
        if not batching.is_out_of_memory(error):
            raise
        raise IsekaiError(
            f"out of memory on {device} with {what} alone; take a profile for a smaller card "
            "(-o memory=8g), or stop what else needs its memory"
        ) from None


def _misfit(recipe: Recipe, texts: Texts, pairs: Sequence[Pair], why: str) -> int:
    for negative in {pair.negative is not None for pair in pairs}:
        texts.learn(negative, Asking(misfit=why))
    return 0


def _begun(pipeline: Any, recipe: Recipe, size: int, pair: Pair) -> dict[str, Any]:
    """Arguments for an image that is never drawn."""
    arguments = calling.arguments(pipeline, recipe, [pair], size)
    takes = calling.parameters(pipeline)
    if "strength" in takes:  # a refiner goes on with an image
        channels = pipeline.vae.config.latent_channels
        arguments["image"] = torch.zeros(1, channels, 8, 8)
    return arguments


def _made(device: str) -> Mapping[str, object]:
    made: dict[str, object] = {
        "device": device,
        "device_name": devices.called(device),
        "torch": torch.__version__,
    }
    return made | ({"cuda": torch.version.cuda} if device.startswith("cuda") else {})
