"""Models and outputs made with OpenFlamingo's and Otter's own code on tiny random weights.

`ISEKAI_GOLDEN_FLAMINGO` names another folder of the same layout.
"""

import json
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from model_adapters.flamingo import openflamingo, otter, words
from model_adapters.flamingo.model import Flamingo
from model_adapters.flamingo.sizes import Sizes

ROOT = Path(
    os.environ.get("ISEKAI_GOLDEN_FLAMINGO", Path(__file__).parent / "data" / "golden" / "flamingo")
)
FOLDERS = sorted(path.parent for path in ROOT.glob("*/meta.json"))
CASES = ("single", "episode", "batch")


def named(folder: Path) -> str:
    return folder.name


@cache
def meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text())


def is_otter(folder: Path) -> bool:
    return meta(folder)["family"] == "otter"


def appends(folder: Path) -> bool:
    """Whether upstream's language model appended to the cache that it was given."""
    return not is_otter(folder) and "neox" not in meta(folder)["kind"]


def sizes(folder: Path) -> Sizes:
    told = meta(folder)
    perceiver, crossing = told["perceiver"], told["xattn"]
    assert {key: crossing[key] for key in ("heads", "dim_head", "ff_mult")} == {
        key: perceiver[key] for key in ("heads", "dim_head", "ff_mult")
    }
    vision = told.get("clip_model_cfg", {}).get("vision_cfg", {})
    tower = (
        {
            "tower_layers": vision["layers"],
            "tower_heads": vision["width"] // vision["head_width"],
        }
        if vision
        else {}
    )
    return Sizes(
        depth=perceiver["depth"],
        latents=perceiver["num_latents"],
        heads=perceiver["heads"],
        head_width=perceiver["dim_head"],
        grown=perceiver["ff_mult"],
        **tower,
    )


@cache
def model(folder: Path) -> Flamingo:
    plan, weights = (
        otter.read(folder / "hf", sizes=sizes(folder))
        if is_otter(folder)
        else openflamingo.read(
            folder / "checkpoint.pt",
            language_model=folder / "lm",
            vision_tower=folder / "clip_visual.safetensors",
            sizes=sizes(folder),
        )
    )
    return Flamingo(plan, weights, dtype=torch.float32, device="cpu")


@cache
def tokenizer(folder: Path) -> words.Words:
    family = meta(folder)["family"]
    found = words.read(folder / "tokenizer", family)
    found.refuse_other(model(folder).decoder.config.vocab_size, family, folder.name)
    return found


@cache
def tensors(folder: Path, case: str) -> dict[str, Tensor]:
    return load_file(folder / f"{case}.safetensors")


def roomy(folder: Path, place: Path) -> dict[str, Any]:
    """Options that build the folder's adapter with room for prompts of 4096 tokens.

    No weight depends on the room: MPT's places are slopes, the others' are turns.
    """
    inside = "hf" if is_otter(folder) else "lm"
    shutil.copytree(folder / inside, place / inside, dirs_exist_ok=True)
    path = place / inside / "config.json"
    config = json.loads(path.read_text())
    language = config.get("text_config", config)
    word = "max_seq_len" if "max_seq_len" in language else "max_position_embeddings"
    language[word] = 4096
    path.write_text(json.dumps(config))
    common = {"tokenizer": folder / "tokenizer", "sizes": sizes(folder), "device": "cpu"}
    if is_otter(folder):
        return common | {"checkpoint": place / "hf"}
    return common | {
        "checkpoint": folder / "checkpoint.pt",
        "language_model": place / "lm",
        "vision_tower": folder / "clip_visual.safetensors",
    }
