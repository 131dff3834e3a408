"""What the released code of Link-Context Learning was recorded to do, in $ISEKAI_GOLDEN_LCL."""

import json
import os
import re
from pathlib import Path

from safetensors.numpy import load_file

FOLDER = Path(
    os.environ.get("ISEKAI_GOLDEN_LCL") or Path(__file__).parent / "data" / "golden" / "lcl"
)


def read(name):
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def lines(name):
    return [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").splitlines()]


def text(recorded):
    """A recorded text with its `<im_patch>*N` spelled out."""
    return re.sub(r"<im_patch>\*(\d+)", lambda found: "<im_patch>" * int(found[1]), recorded)


def forward(name):
    """Name -> array, of a recorded forward pass."""
    return load_file(FOLDER / "forward" / f"{name}.safetensors")


META = read("meta.json")
EPISODES = read("tokenization/eval_episodes.json")
TRAINING = read("tokenization/train_episodes.json")
TEMPLATES = read("tokenization/templates.json")
STRINGS = read("tokenization/raw_strings.json")
