"""Tells ahead what pictures take: texts to encode, downloads, hours."""

import math
from collections.abc import Sequence

from isekai.sources.diffusers import devices, memory, sizes, speeds
from isekai.sources.diffusers.loading import reads
from isekai.sources.diffusers.origin import Origin
from isekai.sources.diffusers.recipe import Recipe, guided, name
from isekai.sources.diffusers.texts import Pair, Texts
from isekai.types import ImageRequest

USED = 0.4
"""The share of its peak that a card is taken to reach: a guess, until something was drawn on it."""

STEPS = 50
"""Where nothing says how many; most pipelines then take so many."""


def lines(
    recipes: Sequence[Recipe],
    texts: Sequence[Texts],
    requests: Sequence[ImageRequest],
    where: Sequence[str],
) -> list[str]:
    """A line for each thing that is spent; `where` are the devices."""
    told = [line for pair in zip(recipes, texts, strict=True) for line in _texts(*pair, requests)]
    told += [line for recipe in recipes for line in _download(recipe.origin)]
    for size in dict.fromkeys(request.size for request in requests):
        count = sum(request.size == size for request in requests)
        told.append(_hours(recipes[0], size, count, where))
    return told


def _texts(recipe: Recipe, texts: Texts, requests: Sequence[ImageRequest]) -> list[str]:
    pairs = list(dict.fromkeys(recipe.pair(request) for request in requests if request.prompt))
    missing = len(texts.missing(pairs))
    prompts, negatives = len({p.prompt for p in pairs}), len({p.negative for p in pairs} - {None})
    size = max((_bytes(recipe, texts, pair) for pair in pairs[:1]), default=0)
    return [
        f"{name(recipe.origin)}: {prompts} distinct prompts and {negatives} negative ones; "
        f"{missing} of {len(pairs)} pairs to encode, about {size * missing / 1e6:.0f} MB"
    ]


def _bytes(recipe: Recipe, texts: Texts, pair: Pair) -> float:
    """Of an embedding: as of one that is there, or as wide as the text encoders together."""
    shapes = texts.shape(pair)
    if shapes:
        return sum(math.prod(size) for _, _, size in shapes[0]) * memory.ITEM[recipe.dtype]
    parts = [part.name for part in recipe.origin.layout.components]
    widths = [_width(recipe.origin, part) for part in parts if reads(part)]
    return sum(widths) * (recipe.preset.tokens or 77) * memory.ITEM[recipe.dtype]


def _width(origin: Origin, component: str) -> int:
    config = sizes.config(origin, component)
    config = config.get("text_config") or config
    return int(config.get("hidden_size") or config.get("d_model") or 0)


def _download(origin: Origin) -> list[str]:
    if not origin.commit:
        return []
    missing = [file for file in origin.layout.files if not (origin.folder / file).exists()]
    size = sum(origin.files[file] for file in missing) / 1e9
    return [f"{origin.model}: {size:.1f} GB to download" if missing else f"{origin.model}: is here"]


def _hours(recipe: Recipe, size: int, count: int, where: Sequence[str]) -> str:
    card = devices.called(where[0])
    on = f"{len(where)} x {card}" if len(where) > 1 else card
    each = speeds.known(recipe.origin.revision, card, size, recipe.preset.steps)
    how = "as fast as the last time"
    if each is None:
        peak = speeds.peak(card)
        if peak is None:
            return f"hours: not known for {on} before something was drawn there"
        each = _operations(recipe, size) / (peak * USED)
        how = f"reckoned from its parameters and {USED:.0%} of {peak / 1e12:.0f} TFLOP/s"
    hours = each * count / len(where) / 3600
    return f"about {hours:.1f} hours on {on} for {count} images of {size} pixels ({how})"


def _operations(recipe: Recipe, size: int) -> float:
    """Of an image: each parameter is multiplied and added once a position and step.

    A UNet has most of its parameters where a picture is a quarter as wide as its latents.
    """
    origin = recipe.origin
    stored = origin.component_bytes()
    denoiser = sum(stored.get(part, 0) for part in ("unet", "transformer"))
    side = size / (sizes.patch(origin) * (4 if "unet" in stored else 1))
    passes = 2 if guided(recipe.preset, origin) else 1
    return 2 * denoiser / 2 * side**2 * (recipe.preset.steps or STEPS) * passes
