"""Reads OpenFlamingo's checkpoints: what was trained, put upon a language model and a tower."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from isekai.errors import DataError
from model_adapters.flamingo import decoders, foreign, tower, weights
from model_adapters.flamingo.decoders import Family
from model_adapters.flamingo.keys import Checkpoint, Piece, close
from model_adapters.flamingo.model import Plan, Weights
from model_adapters.flamingo.sizes import Sizes

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
    where = str(checkpoint)
    told = weights.configuration(language_model)
    family = decoders.family(told, str(language_model))
    tensors = weights.of_file(checkpoint)
    foreign.refuse(tensors, {}, "openflamingo", where)
    held = _parts(tensors, family, where)
    sees = (
        tower.of_open_clip(held.vision, sizes, where)
        if held.vision
        else tower.read(vision_tower, sizes)
    )
    rows = _rows(held, family, decoders.tied(family, told), where)
    plan = Plan(
        family=family,
        language=decoders.configuration(family, told, rows, str(language_model)),
        vision=sees.config,
        every=_every(held, family, where),
        sizes=sizes,
    )
    trained = Checkpoint(where=where, held=held.trained)
    speaks = Checkpoint(
        where=f"{language_model} with {checkpoint.name}",
        held=weights.of_folder(language_model) | dict(held.language),
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
    return plan, found


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


def _rows(parts: _Parts, family: Family, tied: bool, where: str) -> int:
    """How many tokens the model knows.

    The tables must be the checkpoint's: the base model's lack the tokens that were added.
    """
    tables = [family.embedding, *([] if tied else [family.key("lm_head.weight")])]
    for table in tables:
        if table not in parts.language:
            raise DataError(
                f"{where}: 'lang_encoder.{table}' is missing; is this a checkpoint for another "
                f"language model than {family.name}?"
            )
    return len(parts.language[family.embedding])


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
