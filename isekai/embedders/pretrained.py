"""A model of the library transformers: found in a folder or on the Hub, and loaded strictly."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import ERROR
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer
from transformers.utils import logging

from isekai import files, hub
from isekai.embedders import running
from isekai.embedders.places import Place, folder, refuse_revision, repository
from isekai.errors import DataError

DType = Literal["float32", "bfloat16", "float16"]

_CONFIG = "config.json"
_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_BESIDES = (".json", ".txt", ".model")
"""Configurations and vocabularies: all that loading reads besides the weights."""


class Pretrained:
    """A model by its repository or folder. Only its configuration is read until it is loaded.

    Nothing of it is run: weights are safetensors, and code that comes with it stays where it is.
    """

    def __init__(self, name: str, revision: str, device: str, dtype: DType) -> None:
        """DataError or PluginError, in one line, for what can't be had."""
        self.name = name
        self._device = running.device(device)
        self._dtype = dtype
        place = _find(name, revision)
        self._commit = place.commit
        self._files = _loaded(name, place.there)
        self._folder = place.file(_CONFIG).parent
        self.revision = f"{place.identity(list(self._files))} {dtype}"
        """The commit, or a digest of the folder's files; and how the weights are held."""
        self.config = self._read("configuration", AutoConfig)
        if getattr(self.config, "transformers_weights", None):
            raise DataError(f"{name}: its {_CONFIG} names weights of its own; take another model")

    def kind(self, mapping: Mapping[Any, Any]) -> type[Any] | None:
        """The class of such models for this one's configuration; None if there is none."""
        found: Any = mapping.get(type(self.config), None)
        kind: type[Any] | None = found[0] if isinstance(found, tuple) else found
        return kind

    def load(self, kind: type[Any]) -> Any:
        """The network, ready to look. DataError if one of its weights would be made up."""
        self._fetch()
        with _explained(self.name, "weights"), _silent():
            network, told = kind.from_pretrained(
                self._folder,
                config=self.config,
                dtype=getattr(torch, self._dtype),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        if missing := sorted(told["missing_keys"]):
            raise DataError(
                f"{self.name}: holds no weights for '{missing[0]}' ({len(missing)} such in all) of "
                f"a {kind.__name__}; it was saved as a model of another kind"
            )
        return network.eval().requires_grad_(False).to(self._device)

    def image_processor(self) -> Any:
        """What makes of a picture what the network takes: by Pillow, the same on all machines, or
        by torch where the library has nothing else, as for DINOv3.
        """
        self._fetch()
        return self._read("image processor", AutoImageProcessor, backend="pil")

    def tokenizer(self) -> Any:
        self._fetch()
        return self._read("tokenizer", AutoTokenizer)

    def _read(self, what: str, auto: Any, **options: object) -> Any:
        with _explained(self.name, what), _silent():
            return auto.from_pretrained(
                self._folder, local_files_only=True, trust_remote_code=False, **options
            )

    def _fetch(self) -> None:
        if self._commit:
            hub.fetch(self.name, self._commit, self._files, self._folder)
        if _INDEX in self._files and _WHOLE not in self._files:
            index = files.read_json(self._folder / _INDEX, dict[str, object])
            named = index.get("weight_map")
            if not isinstance(named, dict) or not set(named.values()) <= set(self._files):
                raise DataError(f"{self.name}: {_INDEX} and its shards don't agree; get all of it")


def _find(name: str, revision: str) -> Place:
    path = Path(name)
    with files.explained(path):
        is_folder = path.is_dir()
    if not is_folder and not hub.is_name(name):
        raise DataError(f"{name}: no such folder here, and no name of a repository: owner/name")
    if is_folder:
        refuse_revision(name, revision)
    place = folder(path) if is_folder else repository(name, revision)
    if _CONFIG not in place.there:
        raise DataError(f"{name}: no model of transformers ({_CONFIG} is missing)")
    return place


def _loaded(name: str, there: Mapping[str, int]) -> dict[str, int]:
    """Of the files that are there, those that are read."""
    if "adapter_config.json" in there:
        raise DataError(f"{name}: holds an adapter for another model; give a model that is whole")
    weights = {_WHOLE} & set(there) or {file for file in there if _SHARD.fullmatch(file)}
    if not weights:
        raise DataError(
            f"{name}: holds no {_WHOLE}, and weights of other forms can run anything; look for a "
            "converted copy, or convert it where you trust it"
        )
    besides = {file for file in there if file.endswith(_BESIDES)}
    return {file: there[file] for file in sorted(weights | besides)}


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # damaged files make the library raise almost any class
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{name}: its {what} can't be loaded ({told})") from error


@contextmanager
def _silent() -> Iterator[None]:
    """No bars and no reports: what of them matters is checked."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
