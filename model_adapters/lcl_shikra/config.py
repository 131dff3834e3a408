"""Reads a checkpoint's config.json: the sizes of LCL-Shikra, or which model it is of instead."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from transformers import LlamaConfig

from isekai.errors import DataError
from isekai.files import parse, read_json
from model_adapters.flamingo.foreign import refuse

NAME = "lcl-shikra"
FILE = "config.json"

_Size = Annotated[int, Field(ge=1, le=2**20)]
_Few = Annotated[int, Field(ge=1, le=1024)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the numbers depend on. `mm_vision_tower` isn't read: it is a path of those who trained.

    All that is missing here, such as `rope_theta`, was a constant of the released code.
    """

    hidden_size: _Size
    intermediate_size: _Size
    num_hidden_layers: _Few
    num_attention_heads: _Few
    vocab_size: _Size
    max_position_embeddings: _Size
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)]
    mm_hidden_size: _Size
    mm_vision_select_layer: Annotated[int, Field(ge=-1024, le=1024)]
    mm_use_im_start_end: Literal[True]
    use_mm_proj: Literal[True]
    hidden_act: Literal["silu"] = "silu"
    tie_word_embeddings: Literal[False] = False

    @property
    def decoder(self) -> LlamaConfig:
        """That of the language model underneath."""
        return LlamaConfig(
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            rms_norm_eps=self.rms_norm_eps,
            tie_word_embeddings=False,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )


def read(folder: Path) -> Config:
    """DataError for a folder without one, and for the checkpoint of another family."""
    told = _told(folder)
    refuse((), told, NAME, str(folder))
    if other := _other_llava(told):
        raise DataError(f"{folder}: a checkpoint of another LLaVA, {other}")
    known = {field.name for field in fields(Config)}
    where = folder / FILE
    config = parse(Config, {key: told[key] for key in told if key in known}, str(where))
    if config.hidden_size % (2 * config.num_attention_heads):
        raise DataError(
            f"{where}: hidden_size {config.hidden_size} is no even multiple of "
            f"num_attention_heads {config.num_attention_heads}; get it again"
        )
    return config


def _told(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one that holds a checkpoint of LCL-Shikra")
    if (folder / FILE).is_file():
        return read_json(folder / FILE, dict[str, Any])
    alone = (folder / "checkpoint.pt").is_file()
    other = "; a checkpoint.pt is what the adapter 'openflamingo' wants" if alone else ""
    raise DataError(f"{folder}: no checkpoint of LCL-Shikra ({FILE} is missing){other}")


def _other_llava(told: Mapping[str, Any]) -> str:
    """Which other LLaVA a configuration is of: they share the word `llava` in `model_type`."""
    if "vision_config" in told or "text_config" in told:
        return "in the form of transformers; the adapter 'hf' wants it"
    if "mm_projector_type" in told or told.get("mm_use_im_start_end") is False:
        return "newer than LCL-Shikra; look for its copy in the form of transformers, for 'hf'"
    return ""
