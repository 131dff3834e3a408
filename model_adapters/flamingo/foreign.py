"""Tells checkpoints of other families, and which adapter wants them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from isekai.errors import DataError

_MARKS = (
    ("otter", r"perceiver\.layers\.\d+\.(norm_media|norm_latents|to_q|feed_forward)\..*"),
    ("openflamingo", r"(module\.)?perceiver\.layers\.\d+\.[01]\..*"),
    ("lcl-shikra", r"(model\.)?mm_projector\..*"),
)
"""Adapter -> keys that its checkpoints alone hold."""

_TYPES = {"otter": "otter", "llava": "lcl-shikra", "shikra": "lcl-shikra"}
"""What config.json calls a model -> the adapter for it."""


def refuse(keys: Iterable[str], config: Mapping[str, Any], own: str, where: str) -> None:
    """DataError for a checkpoint that belongs to another adapter than `own`."""
    kind = str(config.get("model_type", ""))
    wants = _TYPES.get(kind, "hf" if kind else "")
    if not wants:
        wants = next((name for name, mark in _MARKS if _any(mark, keys)), "")
    if wants and wants != own:
        told = f"of the kind '{kind}'" if kind else f"with the weights of another family ({wants})"
        raise DataError(f"{where}: a checkpoint {told}; the adapter '{wants}' wants it, not {own}")


def _any(pattern: str, keys: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, key) for key in keys)
