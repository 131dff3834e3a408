"""A checkpoint of open_clip: by its name, in a folder or on the Hub; found, checked, and loaded.

open_clip trusts what it loads more than a stranger's files deserve: a configuration may hand any
option to the tokenizer of another library (one of them runs code), name further repositories, and
of a pickle that the restricted unpickler can't read it may try the unrestricted one. So it is given
a folder that is made for it: a configuration that was looked through, weights that were opened
before, and no name that it would follow.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import open_clip
import torch

from isekai import files, hub
from isekai.embedders.places import Place, folder, refuse_revision, repository
from isekai.errors import DataError, PluginError, did_you_mean

MODEL, TAG = "ViT-B-32", "laion2b_s34b_b79k"

_CONFIG = "open_clip_config.json"
_SAFE, _PICKLE = "open_clip_model.safetensors", "open_clip_pytorch_model.bin"
_FORMS = (".safetensors", ".pt", ".pth", ".bin")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_BESIDES = (".json", ".txt", ".model")
"""Configurations and vocabularies of tokenizers."""

_TOKENIZER_OPTIONS = {"clean", "strip_sep_token"}
"""What open_clip's own models ask of a tokenizer. Others go to `transformers` unseen, among them
`trust_remote_code`."""

_PREPROCESSING = {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}

Config = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Everything that vectors depend on, found but not loaded."""

    name: str
    place: Place
    weights: str
    """The file of the weights."""
    config: Config
    """`model_cfg` and `preprocess_cfg`, as in an open_clip_config.json."""
    tokenizer: Place | None
    """None for the one that is part of open_clip."""
    text_tower: Place | None
    """Of a text model of transformers, where its configuration lies."""

    @property
    def revision(self) -> str:
        """Commit or digest of the weights, how pictures are prepared, and a digest of the rest."""
        made = self.config["preprocess_cfg"]
        rest = [
            self.weights if self.place.commit else "",
            self.config,
            self.tokenizer and self.tokenizer.identity(_besides(self.tokenizer)),
            self.text_tower and self.text_tower.identity(["config.json"]),
        ]
        return " ".join(
            (
                self.place.identity([self.weights]),
                f"{made.get('interpolation', 'bicubic')} {made.get('resize_mode', 'shortest')}",
                f"{self.config['model_cfg']['vision_cfg'].get('image_size', 224)}",
                files.sha256(json.dumps(rest, sort_keys=True).encode())[:12],
            )
        )

    @contextmanager
    def staged(self) -> Iterator[Path]:
        """A folder that open_clip can load; its weights hold nothing but weights."""
        weights = self.place.file(self.weights)
        safe = weights.suffix == ".safetensors"
        if not safe:
            _refuse_programs(self.name, weights)
        with TemporaryDirectory(prefix="isekai-open-clip-") as made:
            stage = Path(made)
            (stage / (_SAFE if safe else _PICKLE)).symlink_to(weights.resolve())
            if self.tokenizer:
                for file in _besides(self.tokenizer):
                    (stage / file).symlink_to(self.tokenizer.file(file).resolve())
            config = json.loads(json.dumps(self.config))
            if self.text_tower:
                told = self.text_tower.json("config.json")
                told.pop("auto_map", None)  # names code
                files.write_json(stage / "text" / "config.json", told)
                config["model_cfg"]["text_cfg"]["hf_model_name"] = str(stage / "text")
            files.write_json(stage / _CONFIG, config)
            yield stage


def find(model: str, tag: str, revision: str) -> Checkpoint:
    """A name of open_clip's with a tag or a file, a file, a folder, or a repository of the Hub."""
    name = model.replace("/", "-")
    if name in open_clip.list_models():
        return _named(name, tag or (TAG if name == MODEL else ""), revision)
    if tag:
        raise PluginError(
            f"{model}: a tag names weights of a model of open_clip, given '{tag}', and no model is "
            f"called so{_near(model)}"
        )
    path = Path(model)
    with files.explained(path):
        is_file, is_folder = path.is_file(), path.is_dir()
    if is_file or is_folder:
        refuse_revision(model, revision)
        place = folder(path.parent if is_file else path)
        return _with_config(model, place, path.name if is_file else _weights(place))
    if not hub.is_name(model):
        raise DataError(f"{model}: no such file or folder, no model of open_clip{_near(model)}")
    place = repository(model, revision)
    return _with_config(model, place, _weights(place))


def _named(name: str, tag: str, revision: str) -> Checkpoint:
    """A model of open_clip's list. What its tag says of it goes before what the list says."""
    tags = open_clip.list_pretrained_tags_by_model(name)
    told: Mapping[str, Any] = open_clip.get_pretrained_cfg(name, tag)
    path = Path(tag)
    if told:
        repo, _, file = told["hf_hub"].rpartition("/")
        place = repository(repo, revision)
        weights = _safe_of(file, place) if file else _weights(place)
    elif tag and path.suffix in _FORMS and path.is_file():
        refuse_revision(tag, revision)
        place, weights = folder(path.parent), path.name
    elif tag:
        raise PluginError(f"{name}: has no weights with the tag '{tag}'{did_you_mean(tag, tags)}")
    else:
        known = f"tag=…: {', '.join(tags)}" if tags else "tag=FILE"
        raise PluginError(f"{name}: which weights? give one with {known}")
    config = _activation(open_clip.get_model_config(name), told)
    return _checked(f"{name} {tag}", place, weights, {"model_cfg": config, "preprocess_cfg": told})


def _activation(config: Config, told: Mapping[str, Any]) -> Config:
    """Many weights were trained with another activation than their model has in the list."""
    return config | {"quick_gelu": bool(config.get("quick_gelu") or told.get("quick_gelu"))}


def _with_config(name: str, place: Place, weights: str) -> Checkpoint:
    if _CONFIG not in place.there:
        raise DataError(
            f"{name}: no {_CONFIG} beside the weights; give the name of a model of open_clip and "
            "the file as its tag: open_clip:ViT-B-32 with tag=FILE"
        )
    return _checked(name, place, weights, place.json(_CONFIG))


def _checked(name: str, place: Place, weights: str, config: Mapping[str, Any]) -> Checkpoint:
    """DataError for a configuration that no model can be made from, or that asks for more."""
    if Path(weights).suffix not in _FORMS:
        raise DataError(f"{name}: {weights} is of no form that is read: {', '.join(_FORMS)}")
    model, preparing = config.get("model_cfg") or {}, config.get("preprocess_cfg") or {}
    vision, text = (_table(_table(model).get(part)) for part in ("vision_cfg", "text_cfg"))
    if not vision or not text or not isinstance(preparing, dict):
        raise DataError(f"{name}: its {_CONFIG} describes no model of pictures and texts")
    strange = set(_table(text.get("tokenizer_kwargs"))) - _TOKENIZER_OPTIONS
    if strange:
        raise DataError(f"{name}: its {_CONFIG} asks for '{min(strange)}', which is not given")
    if not re.fullmatch(r"[\w.-]*", str(vision.get("timm_model_name") or ""), re.A):
        raise DataError(f"{name}: its {_CONFIG} names a picture model that lies elsewhere")
    tower = text.get("hf_model_name")
    words = text.get("hf_tokenizer_name")
    own = any(file in place.there for file in _TOKENIZER)
    return Checkpoint(
        name=name,
        place=place,
        weights=weights,
        config={
            "model_cfg": model,
            "preprocess_cfg": {key: preparing[key] for key in _PREPROCESSING & set(preparing)},
        },
        tokenizer=(place if own else repository(str(words))) if words else None,
        text_tower=repository(str(tower)) if tower else None,
    )


def _weights(place: Place) -> str:
    """The one file of weights; of several the one that open_clip writes."""
    found = [file for file in sorted(place.there) if file.endswith(_FORMS)]
    for usual in (_SAFE, _PICKLE):
        if usual in found:
            return usual
    if len(found) != 1:
        what = f"several weights ({', '.join(found)})" if found else "no weights"
        raise DataError(f"{place.name}: holds {what}; {_SAFE} is looked for")
    return found[0]


def _safe_of(file: str, place: Place) -> str:
    safe = str(Path(file).with_suffix(".safetensors"))
    return safe if safe in place.there else file


def _refuse_programs(name: str, path: Path) -> None:
    """DataError for a pickle that holds more than tensors in dicts and lists.

    open_clip does the same afterwards, but where torch raises a TypeError it tries again without
    `weights_only`, which before torch 2.6 runs what the file says.
    """
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files make the library raise almost any class
        raise DataError(
            f"{name}: {path.name} is damaged or holds more than weights, which could run anything; "
            "look for a safetensors file, or convert it where you trust it"
        ) from error


def _besides(place: Place) -> list[str]:
    return sorted(file for file in place.there if file.endswith(_BESIDES) and file != _CONFIG)


def _table(value: object) -> Config:
    return value if isinstance(value, dict) else {}


def _near(model: str) -> str:
    told = did_you_mean(model, open_clip.list_models())
    return told if "did you mean" in told else "; open_clip.list_models() has their names"


@contextmanager
def quiet() -> Iterator[None]:
    """open_clip tells the root logger, which then would write to the screen ever after."""
    root, nowhere = logging.getLogger(), logging.NullHandler()
    root.addHandler(nowhere)
    try:
        yield
    finally:
        root.removeHandler(nowhere)
