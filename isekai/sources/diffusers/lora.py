"""A LoRA: which file it is, what it changes, and how it gets into a pipeline."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isekai import digests, hub
from isekai.errors import DataError, IsekaiError, did_you_mean
from isekai.files import explained
from isekai.sources.diffusers import presets
from isekai.sources.diffusers.loading import TEXT_ENCODER, quiet

_ADAPTER = "isekai"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lora:
    """A file of low-rank changes to the networks of a model."""

    given: str
    """As it is recorded: `owner/name:file` with the commit, or the name of a file here."""
    path: Path
    sha256: str
    scale: float
    texts: bool
    """Whether it changes a text encoder, too."""

    @property
    def settings(self) -> dict[str, object]:
        return {"name": self.given, "sha256": self.sha256, "scale": self.scale}


def find(text: str) -> Lora:
    """`FILE`, `FOLDER[:FILE]` or `OWNER/NAME[:FILE]`, and `@SCALE` behind it if it isn't 1."""
    place, at, number = text.rpartition("@")
    try:
        scale = float(number) if at else 1.0
    except ValueError:
        raise IsekaiError(
            f"lora '{text}': expected a number behind the '@', not '{number}'"
        ) from None
    name, path = _located(place if at else text)
    return Lora(
        given=name,
        path=path,
        sha256=digests.sha256([path])[path],
        scale=scale,
        texts=any(re.search(r"text_encoder|lora_te\d?_", key) for key in _layers(path)),
    )


def apply(
    lora: Lora, pipeline: Any, *, texts: bool = False, images: bool = False, fuse: bool = True
) -> None:
    """Change the text encoders of the pipeline, or its other networks, or both.

    `fuse` adds the changes to the weights, so that drawing is as fast as without; quantised weights
    can't be added to.
    """
    if not hasattr(pipeline, "load_lora_weights"):
        raise IsekaiError(f"{type(pipeline).__name__} takes no LoRA")
    for name in dir(pipeline):
        if name.startswith("load_lora_into_"):
            here = texts if TEXT_ENCODER in name else images
            if not here:
                setattr(pipeline, name, _leave)
    try:
        with quiet():
            pipeline.load_lora_weights(
                str(lora.path.parent),
                weight_name=lora.path.name,
                adapter_name=_ADAPTER,
                use_safetensors=True,
                local_files_only=True,
            )
            changed = [
                part for part, names in pipeline.get_list_adapters().items() if _ADAPTER in names
            ]
            if not changed and (texts or not lora.texts):
                raise ValueError("none of its layers is in this model")
            if changed and fuse:
                pipeline.fuse_lora(components=changed, lora_scale=lora.scale)
                pipeline.unload_lora_weights()
            elif changed:
                pipeline.set_adapters(_ADAPTER, lora.scale)
    except (ValueError, RuntimeError, KeyError) as error:
        told = " ".join(str(error).split())[:200]
        raise IsekaiError(f"lora '{lora.given}' can't be loaded into this model: {told}") from None


def _leave(*args: Any, **given: Any) -> None:
    return None


def _located(text: str) -> tuple[str, Path]:
    """What is recorded of where the file is from, and the file."""
    if Path(text).is_file():
        return Path(text).name, Path(text)
    place, _, wanted = text.partition(":")
    if (folder := Path(place)).is_dir():
        with explained(folder):
            name = _chosen(text, wanted, [path.name for path in folder.glob("*.safetensors")])
        return name, folder / name
    if not presets.is_repository(place):
        raise DataError(
            f"lora '{text}': no such file or folder here, and not of the form owner/name[:file]"
        )
    commit, there = hub.listed(place, "main")
    name = _chosen(text, wanted, [name for name in there if name.endswith(".safetensors")])
    return f"{place}:{name} at {commit}", hub.fetch_file(place, commit, name)


def _chosen(text: str, wanted: str, there: list[str]) -> str:
    if wanted and wanted not in there:
        raise DataError(f"lora '{text}': no '{wanted}' there{did_you_mean(wanted, there)}")
    if not wanted and len(there) != 1:
        raise DataError(
            f"lora '{text}': {len(there)} safetensors files there; name one behind a ':'"
            + (f", such as {min(there)}" if there else "")
        )
    return wanted or there[0]


def _layers(path: Path) -> list[str]:
    """The names in the head of the file; DataError where it is no safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with explained(path), safe_open(path, "np") as file:
            return list(file.keys())
    except (SafetensorError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: no whole safetensors file ({error}); get it again") from None
