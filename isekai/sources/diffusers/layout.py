"""The diffusers layout: which files of a repository or folder make up its pipeline.

Only names are looked at here. A model is strangers' work: what leads out of its folder, runs code
of its own or needs pickle is refused, whether it lies on the Hub or on this disk.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from isekai.errors import DataError

INDEX = "model_index.json"

_WORD = r"[A-Za-z_]\w*"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_BESIDES = (".json", ".txt", ".model", ".jinja", ".tiktoken")
"""Configurations, vocabularies and chat templates: all that loading reads besides the weights."""
_HOLD_WEIGHTS = re.compile(r"(unet|transformer|prior|vae|text_encoder|image_encoder)(_\d+)?")

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")

_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
"""Library -> the name that its models save their weights by."""

_VARIED = re.compile(
    rf"\w+/(?:{'|'.join(_STEMS.values())})\.(\w+)(-\d{{5}}-of-\d{{5}})?\.safetensors"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A folder of the layout: `vae`, `tokenizer`, ..."""

    name: str
    kind: str
    """The name of its class, as the index gives it."""
    weights: tuple[str, ...] = ()
    """The safetensors files that will be loaded, as `folder/file`."""
    besides: tuple[str, ...] = ()
    varied: bool = False
    """Whether the weights are those of the variant that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A pipeline and the files that it is loaded from."""

    pipeline: str
    """The name of its class, as the index gives it."""
    components: tuple[Component, ...]
    code: tuple[str, ...] = ()
    """Files of code that come with the model, where they are trusted."""

    @property
    def files(self) -> tuple[str, ...]:
        own = [name for part in self.components for name in (*part.weights, *part.besides)]
        return tuple(sorted((INDEX, *self.code, *own)))


def read(
    where: str,
    index: Mapping[str, object],
    files: Collection[str],
    *,
    variant: str = "",
    trust_remote_code: bool = False,
) -> Layout:
    """The pipeline that the model's index describes, of the files that are there.

    Weights of the variant are taken where there are such, as diffusers does. DataError in one line.
    """
    pipeline, classes, code = _described(where, index)
    own = {name: [file for file in files if file.startswith(f"{name}/")] for name in classes}
    if out := [file for there in own.values() for file in there if ".." in file.split("/")]:
        raise DataError(f"{where}: holds {out[0]!r}, which leads elsewhere; don't use this model")
    for name, (library, _) in classes.items():
        file = f"{name}/{library}.py"
        if file in own[name] or not _is_known(library):
            code.append(file)
    if code and not trust_remote_code:
        raise DataError(
            f"{where}: runs code of its own ({_listed(code)}); read it, and if you trust it allow "
            "it with trust_remote_code=true"
        )
    if missing := [file for file in code if file not in files]:
        raise DataError(f"{where}: {INDEX} names code that is not there: {_listed(missing)}")
    parts = [_component(name, *found, own[name], variant) for name, found in classes.items()]
    _check(where, parts, own, variant)
    return Layout(pipeline=pipeline, components=tuple(parts), code=tuple(code))


def _described(
    where: str, index: Mapping[str, object]
) -> tuple[str, dict[str, tuple[str, str]], list[str]]:
    """The pipeline's class, component -> library and class, and the file of a class of its own."""
    pipeline = index.get("_class_name")
    code = []
    if isinstance(pipeline, list) and len(pipeline) == 2:
        code, pipeline = [f"{pipeline[0]}.py"], pipeline[1]
    classes = {
        name: (value[0], value[1])
        for name, value in index.items()
        if not name.startswith("_")
        and isinstance(value, list)
        and len(value) == 2
        and all(isinstance(word, str) for word in value)
    }
    if not isinstance(pipeline, str) or not classes:
        raise DataError(f"{where}: {INDEX} names no pipeline with components; it is damaged")
    plain = [pipeline, *classes, *(file.removesuffix(".py") for file in code)]
    plain += [kind for _, kind in classes.values()]
    strange = [word for word in plain if not re.fullmatch(_WORD, word, re.A)]
    dotted = rf"{_WORD}(\.{_WORD})*"
    strange += [word for word, _ in classes.values() if not re.fullmatch(dotted, word, re.A)]
    if strange:
        raise DataError(
            f"{where}: {INDEX} names {strange[0]!r} where only a plain word may stand; don't use "
            "this model"
        )
    return pipeline, classes, code


def _is_known(library: str) -> bool:
    """Whether diffusers itself loads from it: other names stand for code of the repository."""
    return library in _STEMS or library in _pipeline_packages()


@cache
def _pipeline_packages() -> frozenset[str]:
    """The packages of diffusers' pipelines, by their folders: importing them takes seconds."""
    package = find_spec("diffusers")
    if package is None or not package.origin:
        raise ModuleNotFoundError("No module named 'diffusers'", name="diffusers")
    folders = (Path(package.origin).parent / "pipelines").glob("*/__init__.py")
    return frozenset(path.parent.name for path in folders)


def _component(name: str, library: str, kind: str, own: Collection[str], variant: str) -> Component:
    varied = _weights(name, library, own, variant) if variant else ()
    weights = varied or _weights(name, library, own, "")
    besides = [
        file
        for file in own
        if file.endswith(_BESIDES) and not re.search(r"\.index(\.\w+)?\.json$", file)
    ]
    indices = {_index(file) for file in weights if _SHARD.search(file)}
    return Component(
        name=name,
        kind=kind,
        weights=tuple(sorted(weights)),
        besides=tuple(sorted({*besides, *indices})),
        varied=bool(varied),
    )


def _weights(name: str, library: str, own: Collection[str], variant: str) -> tuple[str, ...]:
    """Of one file and of shards with their index, diffusers loads the shards, transformers not."""
    stems = (_STEMS[library],) if library in _STEMS else tuple(_STEMS.values())
    form = rf"{name}/(?:{'|'.join(stems)}){rf'[.]{re.escape(variant)}' if variant else ''}"
    whole = tuple(file for file in own if re.fullmatch(rf"{form}\.safetensors", file))
    shards = tuple(file for file in own if re.fullmatch(form + _SHARD.pattern, file))
    prefers_shards = library == "diffusers" and any(_index(file) in own for file in shards)
    return shards if prefers_shards else whole or shards


def _index(shard: str) -> str:
    """The file that says which tensor is in which shard."""
    folder, _, file = _SHARD.sub("", shard).partition("/")
    stem, *variant = file.split(".")
    return f"{folder}/" + ".".join((stem, "safetensors", "index", *variant, "json"))


def _check(
    where: str, parts: Collection[Component], own: Mapping[str, Collection[str]], variant: str
) -> None:
    """DataError for the first kind of thing that is amiss, with all that it is amiss with."""
    bare = [part.name for part in parts if not part.weights]
    left = [file for name in bare for file in own[name]]
    varied = {found[1] for file in left if (found := _VARIED.fullmatch(file))}
    pickles = [file for file in left if file.endswith(_PICKLES)]
    hollow = [name for name in bare if _HOLD_WEIGHTS.fullmatch(name)]
    torn = [file for part in parts for file in _torn(part, own[part.name])]
    if empty := [name for name, there in own.items() if not there]:
        problem = f"{INDEX} names {_listed(empty)}, of which no file is there; get the whole model"
    elif varied:
        told = ", ".join(sorted(varied))
        problem = f"weights are there only as the variant {told}; give variant={min(varied)}"
    elif pickles:
        problem = (
            f"only safetensors are loaded, and {_listed(pickles)} "
            f"{'is' if len(pickles) == 1 else 'are'} pickle, which can run anything; look for a "
            "converted copy, or convert it where you trust it, with "
            "DiffusionPipeline.from_pretrained(...).save_pretrained(FOLDER), and give the folder"
        )
    elif hollow:
        problem = f"no weights of {_listed(hollow)} are there (*.safetensors); get the whole model"
    elif torn:
        verb = "is" if len(torn) == 1 else "are"
        problem = f"{_listed(torn)} {verb} missing; get the whole model"
    elif variant and not any(part.varied for part in parts):
        problem = f"no weights of the variant '{variant}' are there; leave variant out"
    else:
        return
    raise DataError(f"{where}: {problem}")


def _torn(part: Component, own: Collection[str]) -> list[str]:
    """What the names of the shards promise and isn't there."""
    wanted = {file for file in part.besides if file not in own}
    for file in part.weights:
        if shard := _SHARD.search(file):
            stem, count = file[: shard.start()], int(shard[2])
            wanted |= {f"{stem}-{n:05}-of-{shard[2]}.safetensors" for n in range(1, count + 1)}
    return sorted(wanted.difference(own))


def _listed(names: Collection[str]) -> str:
    """The names, or the first three and how many more."""
    shown = ", ".join(list(names)[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
