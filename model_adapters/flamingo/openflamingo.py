"""Reads OpenFlamingo's checkpoints: what was trained, put upon a language model and a tower."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isekai.errors import DataError
from model_adapters.flamingo import decoders, foreign, tower, weights
from model_adapters.flamingo.decoders import Family
from model_adapters.flamingo.keys import Checkpoint, Piece, close
from model_adapters.flamingo.model import Plan, Weights
from model_adapters.flamingo.sizes import Sizes

_NAME = "checkpoint.pt"
_BUFFERS = (
    r".*\.attention\.(bias|masked_bias)",
    r".*\.rotary_emb\.(inv_freq|cos_cached|sin_cached)",
)
"""Tables that older versions of transformers kept among the weights of a language model."""


def read(
    checkpoint: Path, *, language_model: Path, vision_tower: Path, sizes: Sizes
) -> tuple[Plan, Weights]:
    """What a `checkpoint.pt` makes of a language model's folder and a vision tower.

    What the checkpoint holds goes before the other two's, as upstream loads it: the tables of
    tokens always, and frozen parts if they are there. DataError with every problem.
    """
    checkpoint = _file(checkpoint)
    told = weights.configuration(language_model)
    family = decoders.family(told, str(language_model))
    tensors = weights.of_file(checkpoint)
    foreign.refuse(tensors, {}, "openflamingo", str(checkpoint))
    held = _parts(tensors, family, str(checkpoint))
    sees = (
        tower.of_open_clip(held.vision, sizes, str(checkpoint))
        if held.vision
        else tower.read(vision_tower, sizes)
    )
    plan = _plan(held, told, family, sees, sizes, (checkpoint, language_model))
    return plan, _taken(plan, held, sees, (checkpoint, language_model))


def _file(checkpoint: Path) -> Path:
    """A folder stands for the checkpoint.pt in it. DataError for another model's folder."""
    if not checkpoint.is_dir():
        return checkpoint
    if not (checkpoint / _NAME).is_file() and (checkpoint / "config.json").is_file():
        config = weights.configuration(checkpoint)
        foreign.refuse((), config, "openflamingo", str(checkpoint))
    return checkpoint / _NAME


def _plan(
    held: "_Parts",
    told: Mapping[str, Any],
    family: Family,
    sees: tower.Tower,
    sizes: Sizes,
    paths: tuple[Path, Path],
) -> Plan:
    """DataError where language model or tower aren't those that the checkpoint was trained on."""
    where, base = (str(path) for path in paths)
    rows, width = _table(held, family, decoders.tied(family, told), where)
    plan = Plan(
        family=family,
        language=decoders.configuration(family, told, rows, base),
        vision=sees.config,
        every=_every(held, family, where),
        sizes=sizes,
    )
    if width != plan.language.hidden_size:
        raise DataError(
            f"{base}: its tokens are {plan.language.hidden_size} numbers wide, those of {where} "
            f"{width}; give the language model that the checkpoint was trained on"
        )
    latents = held.trained.get("perceiver.latents")
    if latents is not None and latents.shape[-1] != plan.vision.hidden_size:
        raise DataError(
            f"{sees.checkpoint.where}: its features are {plan.vision.hidden_size} numbers wide, "
            f"and {where} was trained on {latents.shape[-1]}; give openai/clip-vit-large-patch14 "
            "for the published ones"
        )
    return plan


def _taken(plan: Plan, held: "_Parts", sees: tower.Tower, paths: tuple[Path, Path]) -> Weights:
    checkpoint, base = paths
    family = plan.family
    trained = Checkpoint(where=str(checkpoint), held=held.trained)
    speaks = Checkpoint(
        where=f"{base} with {checkpoint.name}", held=weights.of_folder(base) | dict(held.language)
    )
    speaks.ignore(*_BUFFERS)
    found = Weights(
        decoder=speaks.take(
            plan.decoder, lambda name: Piece(key=family.key(name)), without=plan.tied
        ),
        tower=sees.checkpoint.take(plan.tower, sees.spelled),
        resampler=trained.take(plan.resampler, lambda name: Piece(key=f"perceiver.{name}")),
        crossings={
            number: trained.take(one, partial(_crossing, family, number))
            for number, one in plan.crossings.items()
        },
    )
    close(trained, speaks, sees.checkpoint)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """A checkpoint's tensors by what they belong to."""

    trained: Mapping[str, Tensor]
    """Resampler and crossings, under the names of a whole model; and what isn't known."""
    language: Mapping[str, Tensor]
    """Under the names of the language model by itself."""
    vision: Mapping[str, Tensor]
    """Under open_clip's names."""


def _parts(held: Mapping[str, Tensor], family: Family, where: str) -> _Parts:
    """DataError where one thing is there under two names and they differ."""
    trained: dict[str, Tensor] = {}
    language: dict[str, Tensor] = {}
    vision: dict[str, Tensor] = {}
    for given, value in held.items():
        key = _one_spelling(given, family)
        if key.startswith("vision_encoder."):
            part, key = vision, key.removeprefix("vision_encoder.")
        elif key.startswith("lang_encoder.") and ".gated_cross_attn_layer." not in key:
            part, key = language, key.removeprefix("lang_encoder.").replace(".decoder_layer.", ".")
        else:
            part = trained
        if key in part and not torch.equal(part[key], value):
            raise DataError(f"{where}: '{given}' is there under another name, too, and differs")
        part[key] = value
    return _Parts(trained=trained, language=language, vision=vision)


def _one_spelling(key: str, family: Family) -> str:
    """A key as most checkpoints have it.

    Distributed training puts a prefix before all; crossings and frozen layers may stand in lists
    of their own besides those of the decoder, which they are shared with.
    """
    key = key.removeprefix("module.")
    for theirs, ours in (
        (r"gated_cross_attn_layers\.(\d+)\.", rf"{family.layers}.\1.gated_cross_attn_layer."),
        (r"old_decoder_blocks\.(\d+)\.", rf"{family.layers}.\1.decoder_layer."),
    ):
        key = re.sub(rf"^lang_encoder\.{theirs}", f"lang_encoder.{ours}", key)
    return key


def _crossing(family: Family, number: int, name: str) -> Piece:
    return Piece(key=f"lang_encoder.{family.layers}.{number}.gated_cross_attn_layer.{name}")


def _table(parts: _Parts, family: Family, tied: bool, where: str) -> tuple[int, int]:
    """How many tokens the model knows, and how wide each is.

    The tables must be the checkpoint's: the base model's lack the tokens that were added.
    """
    tables = [family.embedding, *([] if tied else [family.key("lm_head.weight")])]
    for table in tables:
        found = parts.language.get(table)
        if found is None or found.ndim != 2:
            raise DataError(
                f"{where}: no table of tokens 'lang_encoder.{table}'; is this a checkpoint for "
                f"another language model than {family.name}?"
            )
    rows, width = parts.language[family.embedding].shape
    return rows, width


def _every(parts: _Parts, family: Family, where: str) -> int:
    """Every how many layers there is a crossing: the first one's number tells."""
    pattern = rf"lang_encoder\.{re.escape(family.layers)}\.(\d+)\.gated_cross_attn_layer\."
    numbers = [int(found[1]) for key in parts.trained if (found := re.match(pattern, key))]
    if not numbers:
        raise DataError(
            f"{where}: no gated cross-attention under 'lang_encoder.{family.layers}'; is this a "
            f"checkpoint for another language model than {family.name}?"
        )
    return min(numbers) + 1
