"""What adapters of local models share: folders, devices, number formats, and what was loaded."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from isekai.errors import DataError, PluginError
from isekai.files import explained

DType = Literal["auto", "float16", "bfloat16", "float32"]

_READ = (".json", ".txt", ".model", ".safetensors", ".bin", ".pt")
"""Configurations, vocabularies and weights."""


def there(path: Path, what: str) -> Path:
    """The path, if something lies there. DataError with how to get it."""
    with explained(path):
        if not path.exists():
            raise DataError(
                f"{path}: no such file or folder for {what}; get one from the Hub with "
                "`hf download OWNER/NAME --local-dir FOLDER`, and give that"
            )
    return path


def device(name: str, who: str) -> str:
    """The device of that name; `auto` is a GPU if there is one. PluginError if it isn't here."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        here = torch.device(name).type == "cpu" or torch.zeros(1, device=name).is_cuda
    except (RuntimeError, AssertionError, NotImplementedError):
        here = False
    if not here:
        raise PluginError(f"{who}: no device '{name}' here; take auto, or cpu")
    return name


def dtype(name: DType, device: str, on_gpu: DType) -> DType:
    """`auto` is `on_gpu` on a GPU and float32 elsewhere."""
    if name != "auto":
        return name
    return "float32" if device == "cpu" else on_gpu


def refuse_small(device: str, network: nn.Module, dtype: torch.dtype, who: str) -> None:
    """PluginError before a GPU runs out of memory over the weights alone.

    `network` may be on the meta device still.
    """
    if not device.startswith("cuda"):
        return
    needed = sum(one.numel() for one in network.parameters()) * dtype.itemsize
    free, _ = torch.cuda.mem_get_info(device)
    if needed > free:
        raise PluginError(
            f"{who}: its weights take {needed / 1e9:.1f} GB and {device} has {free / 1e9:.1f} GB "
            "free; take another device, device=cpu, or a dtype of half the size"
        )


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 of the files, and of all in the folders that may be read of a model."""
    told = hashlib.sha256()
    for path in paths:
        with explained(path):
            for one in _read(path):
                with one.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                told.update(f"{one.name} {found}\n".encode())
    return told.hexdigest()


def _read(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(one for one in path.iterdir() if one.suffix in _READ and one.is_file())
