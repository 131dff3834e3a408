"""Models by short names: reads prompts/models.toml, and any other repository or folder."""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from isekai import spec
from isekai.errors import IsekaiError, PluginError, SpecError, did_you_mean
from isekai.files import parse, plain, read_text

Dtype = Literal["bfloat16", "float16", "float32"]
GuidanceArgument = Literal["guidance_scale", "true_cfg_scale"]

_FINITE: dict[str, object] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A model and how it is run. None stands for what the pipeline does if it isn't told."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FINITE

    repo: str
    """`owner/name` on the Hub, or the path of a folder."""
    revision: str = "main"
    """A branch, tag or commit of the repository; what it stood for is recorded by the run."""
    licence: str = ""
    """As the model's page names it; empty if that isn't known here."""
    size: int | None = None
    """Pixels of a side."""
    steps: int | None = None
    guidance: float | None = None
    guidance_argument: GuidanceArgument | None = None
    """Which parameter of the pipeline takes the guidance; None: `guidance_scale`, if it has it."""
    dtype: Dtype | None = None
    """Of the weights on a GPU."""
    variant: str = ""
    """Weight files with this word in their names are loaded where there are such."""
    scheduler: str = ""
    """A scheduler class of diffusers; empty for the model's own."""
    negative_prompts: bool | None = None
    """Whether the model heeds them; None: if the pipeline takes them."""
    blank: str = ""
    """What is passed as the negative prompt of a concept that has none."""
    tokens: int | None = None
    """How many tokens of a prompt are read."""
    refiner: str = ""
    """The repository of a second model that draws the last steps."""
    switch: float | None = None
    """The share of the steps after which the refiner goes on."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """models.toml as written."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FINITE

    default: str
    models: dict[str, Preset] = field(default_factory=dict)


def load(path: Path | None = None) -> dict[str, Preset]:
    """Every preset by its name, in the order of the file; SpecError with all its problems."""
    return dict(_read(path).models)


def default(path: Path | None = None) -> str:
    """The name of the preset that draws if none is named."""
    return _read(path).default


def resolve(model: str = "", **overrides: object) -> Preset:
    """What `model` names, with every override that isn't None put in its place.

    `model` is a preset's name, a folder, or `owner/name` or `owner/name@revision` on the Hub; empty
    for the default preset. As everywhere, a folder of that name goes before the Hub. A repository
    that a preset names is run as that preset says (the first of the file).
    """
    file = _read(None)
    preset = _named(model or file.default, file.models)
    given = {key: value for key, value in overrides.items() if value is not None}
    known = [f.name for f in fields(Preset) if f.name not in ("repo", "licence", "note")]
    for key in given:
        if key not in known:
            raise PluginError(f"a model has no setting '{key}'{did_you_mean(key, known)}")
    where = f"model '{model or file.default}'"
    merged: Preset = parse(Preset, {**plain(preset), **given}, where, problem=SpecError)
    if problems := [f"{where}: {problem}" for problem in _problems(merged)]:
        raise IsekaiError("\n".join(problems))
    return merged


def is_repository(text: str) -> bool:
    """`owner/name`, as the Hub writes it."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.A)) and ".." not in text


def _named(model: str, presets: Mapping[str, Preset]) -> Preset:
    if model in presets:
        return presets[model]
    folder = os.path.expanduser(model)
    if os.path.isdir(folder):
        return Preset(repo=folder, revision="")
    repo, at, revision = model.partition("@")
    if not is_repository(repo) or not re.fullmatch(r"[\w./-]+", revision or "main", re.A):
        raise PluginError(
            f"model {model!r}: no preset, no folder here, and not of the form owner/name"
            + did_you_mean(model, presets)
        )
    if at and not revision:
        raise PluginError(f"model '{model}': name a branch, tag or commit after the '@'")
    own = next((preset for preset in presets.values() if preset.repo == repo), Preset(repo=repo))
    return replace(own, revision=revision) if revision else own


def _read(path: Path | None) -> _File:
    path = path or spec.folder() / "models.toml"
    try:
        raw: dict[str, Any] = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SpecError([f"{path.name}: not TOML: {error}"]) from None
    file: _File = parse(_File, raw, path.name, problem=SpecError)
    problems = []
    for name, preset in file.models.items():
        here = f"{path.name}: models.{name}"
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name):
            problems.append(f"{here}: a name is lower-case letters, digits, '.' and '-'")
        if not is_repository(preset.repo):
            problems.append(f"{here}.repo is '{preset.repo}': expected owner/name")
        problems += [f"{here}.{problem}" for problem in _problems(preset)]
    if file.default not in file.models:
        near = did_you_mean(file.default, file.models)
        problems.append(f"{path.name}: default is '{file.default}', which is no model here{near}")
    if problems:
        raise SpecError(problems)
    return file


def _problems(preset: Preset) -> list[str]:
    """What can't be meant, one line each, beginning with the field."""
    problems = []
    for key, least in (("size", 8), ("steps", 1), ("tokens", 1)):
        value = getattr(preset, key)
        if value is not None and value < least:
            problems.append(f"{key} is {value}: expected a whole number from {least}")
    if preset.guidance is not None and preset.guidance < 0:
        problems.append(f"guidance is {preset.guidance}: expected 0 or more")
    if preset.scheduler and not preset.scheduler.isidentifier():
        problems.append(f"scheduler is '{preset.scheduler}': expected the name of a class")
    if preset.variant and not re.fullmatch(r"\w+", preset.variant, re.A):
        problems.append(f"variant is '{preset.variant}': expected a word such as fp16")
    if preset.switch is not None and not 0 < preset.switch < 1:
        problems.append(f"switch is {preset.switch}: expected a share between 0 and 1")
    if preset.refiner and preset.switch is None:
        problems.append("switch is missing: a refiner needs to know when to go on, such as 0.8")
    if preset.switch is not None and not preset.refiner:
        problems.append(f"switch is {preset.switch}, but no refiner is named to go on with")
    return problems
