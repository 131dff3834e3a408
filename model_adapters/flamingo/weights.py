"""Weights in files: plain tensors from safetensors or torch's own files, in shards or whole."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from isekai import files
from isekai.errors import DataError

_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def of_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model's folder, as `save_pretrained` writes it. DataError in one line."""
    for name in _INDEX:
        if (folder / name).is_file():
            return _shards(folder, name)
    for name in _WHOLE:
        if (folder / name).is_file():
            return of_file(folder / name)
    raise DataError(f"{folder}: no weights here; expected {' or '.join((*_WHOLE, *_INDEX))}")


def of_file(path: Path) -> dict[str, Tensor]:
    """The tensors of one file. DataError for all that holds anything but tensors with names."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    held = _safetensors(path) if path.suffix == ".safetensors" else _pickled(path)
    strange = [key for key, value in held.items() if not isinstance(value, Tensor)]
    if strange:
        raise DataError(f"{path}: '{strange[0]}' is no tensor; expected weights and nothing else")
    return held


def _safetensors(path: Path) -> dict[str, Any]:
    try:
        with files.explained(path):
            return load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path}: no safetensors file, or damaged ({_line(error)})") from None


def _pickled(path: Path) -> dict[str, Any]:
    """A file of `torch.save`: read without running anything of it.

    A training state is taken apart: its weights are under `model_state_dict`.
    """
    try:
        with files.explained(path), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated storage classes, which are read well
            # Only files of the newer form, which are ZIP archives, can be left on the disk.
            mapped = zipfile.is_zipfile(path)
            held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path}: holds more than plain tensors, which could run anything ({_line(error)}); "
            "convert it to safetensors where you trust it"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:  # damaged files give any
        raise DataError(f"{path}: no file of weights, or damaged ({_line(error)})") from None
    if isinstance(held, Mapping) and isinstance(held.get("model_state_dict"), Mapping):
        held = held["model_state_dict"]
    if not isinstance(held, Mapping) or not all(isinstance(key, str) for key in held):
        raise DataError(f"{path}: holds no tensors by name")
    return dict(held)


def _shards(folder: Path, index: str) -> dict[str, Tensor]:
    told = files.read_json(folder / index, dict[str, Any]).get("weight_map")
    if not isinstance(told, dict) or not all(isinstance(name, str) for name in told.values()):
        raise DataError(f"{folder / index}: names no shards (weight_map: name -> file)")
    names = sorted(set(told.values()))
    foreign = [name for name in names if Path(name).name != name]
    missing = [name for name in names if not (folder / name).is_file()]
    if foreign or missing:
        raise DataError(
            f"{folder / index}: names {', '.join(foreign or missing)}, which "
            f"{'is no file beside it' if foreign else 'is not there: fetch it'}"
        )
    held: dict[str, Tensor] = {}
    for name in names:
        shard = of_file(folder / name)
        if twice := sorted(held.keys() & shard.keys()):
            raise DataError(f"{folder / name}: holds '{twice[0]}', which another shard holds too")
        held |= shard
    if lacking := sorted(told.keys() - held.keys()):
        raise DataError(
            f"{folder}: its shards lack '{lacking[0]}' ({len(lacking)} such in all), which "
            f"{index} names; fetch them again"
        )
    return held


def configuration(folder: Path) -> dict[str, Any]:
    """What config.json says."""
    found: dict[str, Any] = files.read_json(folder / "config.json", dict[str, Any])
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
