"""How long an image took here before, for estimates."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from isekai.errors import DataError
from isekai.files import cache_folder, read_json, sha256, write_json

_CARDS = {
    "H100": 989,
    "H200": 989,
    "A100": 312,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "A10": 125,
    "RTX 5090": 209,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "T4": 65,
    "V100": 125,
}
"""What a card's name holds -> TFLOP/s in 16 bits without sparsity, from its maker's data sheet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """The fastest batch of a model on a device."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    model: str
    """The revision."""
    device: str
    """What the device is called."""
    size: int
    steps: int | None
    seconds: float
    """An image."""


def keep(speed: Speed) -> None:
    write_json(_path(speed.model, speed.device, speed.size, speed.steps), speed)


def known(model: str, device: str, size: int, steps: int | None) -> float | None:
    """Seconds an image; None where the model was never drawn with so here."""
    path = _path(model, device, size, steps)
    if not path.exists():
        return None
    try:
        return read_json(path, Speed).seconds
    except DataError:  # only an estimate hangs on it
        return None


def peak(device: str) -> float | None:
    """Floating-point operations a second in 16 bits at most; None for an unknown card."""
    found = [peak for card, peak in _CARDS.items() if re.search(rf"\b{card}\b", device)]
    return found[0] * 1e12 if found else None


def _path(model: str, device: str, size: int, steps: int | None) -> Path:
    name = sha256(f"{model}/{device}/{size}/{steps}".encode())
    return cache_folder() / "speeds" / f"{name}.json"
