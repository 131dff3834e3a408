"""Reads Otter's checkpoints: a folder with everything in it, in shards."""

import re
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from isekai.errors import DataError
from model_adapters.flamingo import decoders, foreign, tower, weights
from model_adapters.flamingo.decoders import Family
from model_adapters.flamingo.keys import Checkpoint, Piece, close
from model_adapters.flamingo.model import Plan, Weights
from model_adapters.flamingo.sizes import Sizes

_BUFFERS = (
    rf"vision_encoder\.{tower.POSITION_IDS}",
    r"lang_encoder\..*\.rotary_emb\.(inv_freq|cos_cached|sin_cached)",
)
"""Tables that older versions of transformers kept among the weights."""

_FRAMES = "perceiver.frame_embs"
_SEES = "vision_encoder.vision_model."


def read(folder: Path, *, sizes: Sizes) -> tuple[Plan, Weights]:
    """What an Otter's folder holds. DataError with every problem."""
    where = str(folder)
    told = weights.configuration(folder)
    foreign.refuse((), told, "otter", where)
    language, vision = _part(told, "text_config", where), _part(told, "vision_config", where)
    held = weights.of_folder(folder)
    foreign.refuse(held, {}, "otter", where)
    family = decoders.family(language, where)
    plan = Plan(
        family=family,
        language=decoders.configuration(family, language, _rows(held, family, where), where),
        vision=tower.configuration(vision, where),
        every=_every(told, where),
        sizes=sizes,
    )
    checkpoint = Checkpoint(where=where, held=held)
    checkpoint.ignore(*_BUFFERS)
    _frames(checkpoint, told)
    found = Weights(
        decoder=checkpoint.take(
            plan.decoder, lambda name: _spoken(family, name), without=plan.tied
        ),
        tower=checkpoint.take(plan.tower, lambda name: Piece(key=_SEES + name)),
        resampler=checkpoint.take(plan.resampler, _resampling),
        crossings={
            number: checkpoint.take(one, partial(_crossing, family, number))
            for number, one in plan.crossings.items()
        },
    )
    close(checkpoint)
    return plan, found


def _part(told: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    part = told.get(key)
    if not isinstance(part, Mapping):
        raise DataError(f"{where}: config.json has no {key}; an Otter's describes all its parts")
    return part


def _every(told: Mapping[str, Any], where: str) -> int:
    every = told.get("cross_attn_every_n_layers")
    if not isinstance(every, int) or every < 1:
        raise DataError(
            f"{where}: config.json's cross_attn_every_n_layers is {every!r}; expected a number "
            "of layers, such as 4"
        )
    return every


def _rows(held: Mapping[str, Tensor], family: Family, where: str) -> int:
    table = held.get(f"lang_encoder.{family.embedding}")
    if table is None:
        raise DataError(
            f"{where}: 'lang_encoder.{family.embedding}', the table of tokens, is missing"
        )
    return len(table)


def _frames(checkpoint: Checkpoint, told: Mapping[str, Any]) -> None:
    """Otters for films have a vector for each frame; some for pictures hold it and never use it."""
    if _FRAMES not in checkpoint.held:
        return
    if told.get("max_num_frames"):
        raise DataError(f"{checkpoint.where}: an Otter for films; give one for pictures")
    checkpoint.ignore(re.escape(_FRAMES))
    warnings.warn(
        f"{checkpoint.where}: holds '{_FRAMES}', which its config.json doesn't use; neither does "
        "this",
        stacklevel=2,
    )


def _spoken(family: Family, name: str) -> Piece:
    layers = re.escape(family.layers)
    inside = re.sub(rf"^({layers}\.\d+)\.", r"\1.decoder_layer.", family.key(name))
    return Piece(key=f"lang_encoder.{inside}")


def _resampling(name: str) -> Piece:
    name = re.sub(r"^(layers\.\d+)\.1\.", r"\1.feed_forward.", name)
    return Piece(key="perceiver." + re.sub(r"^(layers\.\d+)\.0\.", r"\1.", name))


def _crossing(family: Family, number: int, name: str) -> Piece:
    name = re.sub(r"^ff\.", "feed_forward.", name)
    return Piece(key=f"lang_encoder.{family.layers}.{number}.gated_cross_attn_layer.{name}")
