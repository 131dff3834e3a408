"""The vision tower: CLIP's patches as Flamingos read them, from either spelling of its weights."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig

from isekai.errors import DataError
from model_adapters.flamingo import weights
from model_adapters.flamingo.keys import Checkpoint, Piece
from model_adapters.flamingo.sizes import Sizes

_OPEN_CLIP = (
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.patch_embedding\.", "conv1."),
    (r"^embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^pre_layrnorm\.", "ln_pre."),
    (r"^post_layernorm\.", "ln_post."),
    (r"^encoder\.layers\.", "transformer.resblocks."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
)
"""transformers' names -> open_clip's, in this order."""

POSITION_IDS = r"(.*\.)?embeddings\.position_ids"
"""A buffer that older versions of transformers kept among the weights."""
_THIRDS = {"q": 0, "k": 1, "v": 2}


def open_clip(name: str) -> Piece:
    """Where open_clip's visual part holds a parameter of transformers' `CLIPVisionModel`."""
    for ours, theirs in _OPEN_CLIP:
        name = re.sub(ours, theirs, name)
    part = re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name)
    if part:
        return Piece(key=f"{part[1]}.attn.in_proj_{part[3]}", third=_THIRDS[part[2]])
    return Piece(key=name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """A vision tower that was found, and how to take its weights."""

    config: CLIPVisionConfig
    checkpoint: Checkpoint
    spelled: Callable[[str], Piece]


def read(path: Path, sizes: Sizes) -> Tower:
    """A folder of transformers (a CLIP, whole or its vision part), or a file of open_clip.

    DataError for what is no tower of OpenAI's kind.
    """
    where = str(path)
    if not path.is_dir():
        return of_open_clip(_bared(weights.of_file(path), "visual."), sizes, where)
    told = weights.configuration(path)
    checkpoint = Checkpoint(where=where, held=_bared(weights.of_folder(path), "vision_model."))
    checkpoint.ignore(POSITION_IDS)
    return Tower(
        config=configuration(told.get("vision_config", told), where),
        checkpoint=checkpoint,
        spelled=lambda name: Piece(key=name),
    )


def of_open_clip(held: Mapping[str, Tensor], sizes: Sizes, where: str) -> Tower:
    """Of the tensors of open_clip's visual part."""
    checkpoint = Checkpoint(where=where, held=held)
    checkpoint.ignore("proj")  # of CLIP's own space, in which Flamingos don't look
    return Tower(config=_measured(held, sizes, where), checkpoint=checkpoint, spelled=open_clip)


def _bared(held: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The vision part of a whole CLIP, without what it is called there."""
    found = {key.removeprefix(prefix): held[key] for key in held if key.startswith(prefix)}
    return found or held


def _measured(held: Mapping[str, Tensor], sizes: Sizes, where: str) -> CLIPVisionConfig:
    """The configuration of open_clip's tensors, which come without one. DataError for no CLIP."""
    conv, places = held.get("conv1.weight"), held.get("positional_embedding")
    inside = held.get("transformer.resblocks.0.mlp.c_fc.weight")
    if conv is None or places is None or inside is None or conv.ndim != 4:
        raise DataError(
            f"{where}: no vision tower of open_clip (conv1, positional_embedding and resblocks are "
            "not there); give the file of ViT-L-14, or a folder of openai/clip-vit-large-patch14"
        )
    side = math.isqrt(len(places) - 1)
    return _clip(
        where,
        hidden_size=conv.shape[0],
        intermediate_size=inside.shape[0],
        num_hidden_layers=sizes.tower_layers,
        num_attention_heads=sizes.tower_heads,
        patch_size=conv.shape[-1],
        image_size=side * conv.shape[-1],
        hidden_act="quick_gelu",  # OpenAI's weights, which say nothing of it, were trained so
    )


_WORDS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"),
)


def configuration(told: Mapping[str, Any], where: str) -> CLIPVisionConfig:
    """Of a configuration in transformers' words. DataError for a tower of another kind."""
    kind, act = told.get("model_type", "clip_vision_model"), told.get("hidden_act", "quick_gelu")
    if kind not in ("clip", "clip_vision_model"):
        raise DataError(
            f"{where}: a tower of the kind '{kind}'; this model looks with OpenAI's CLIP"
        )
    if act != "quick_gelu":
        raise DataError(
            f"{where}: a tower with '{act}'; this model was trained on OpenAI's CLIP, whose "
            "activation is quick_gelu"
        )
    return _clip(where, **{word: told[word] for word in _WORDS if told.get(word) is not None})


def _clip(where: str, **words: Any) -> CLIPVisionConfig:
    try:
        return CLIPVisionConfig(**words)
    except Exception as error:  # the library checks what it is given, by errors of any class
        told = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: describes no CLIP that can be run ({told})") from error
