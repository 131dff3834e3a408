"""Where a model is and what it consists of, known without reading or downloading its weights."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from isekai import digests, files, hub
from isekai.errors import DataError
from isekai.sources.diffusers import layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A pipeline in the diffusers layout, on the Hub or in a folder."""

    model: str
    """The repository or the folder, as it was given."""
    commit: str
    """What the repository's revision stands for; empty for a folder."""
    folder: Path
    """Where its files are, or, of a repository, will be."""
    files: Mapping[str, int]
    """Every file that is there, not only those that are loaded -> its size in bytes."""
    layout: layout.Layout
    variant: str = ""
    """The variant whose weights are loaded, if any are."""

    @property
    def pipeline_class(self) -> str:
        return self.layout.pipeline

    @property
    def revision(self) -> str:
        """The commit, or a SHA-256 over the names and contents of what is loaded from a folder.

        A folder is read whole for it, but only once: see `isekai.digests`.
        """
        if self.commit:
            return self.commit
        found = digests.sha256(self.folder / name for name in self.layout.files)
        lines = [f"{digest} {path.relative_to(self.folder)}\n" for path, digest in found.items()]
        return files.sha256("".join(lines).encode())

    def component_bytes(self) -> dict[str, int]:
        """Component -> the bytes of the weights that are loaded for it; those without, left out."""
        return {
            part.name: sum(self.files[name] for name in part.weights)
            for part in self.layout.components
            if part.weights
        }

    def component_widths(self) -> dict[str, float]:
        """Component -> bytes a parameter as stored, such as 4 for float32.

        Of what isn't downloaded yet, the headers are asked for: so the answer is always the same.
        """
        widths = {}
        for part in self.layout.components:
            if part.weights:
                headers = [
                    hub.header(self.model, self.commit, self.folder, name) for name in part.weights
                ]
                parameters, size = map(sum, zip(*headers, strict=True))
                widths[part.name] = size / max(1, parameters)
        return widths

    def fetch(self) -> Path:
        """The folder with all that is loaded; of a repository, exactly that is downloaded."""
        if self.commit:
            wanted = {name: self.files[name] for name in self.layout.files}
            hub.fetch(self.model, self.commit, wanted, self.folder)
        for part in self.layout.components:
            _check_shards(self.folder, part)
        return self.folder


def find(
    model: str, revision: str = "main", *, variant: str = "", trust_remote_code: bool = False
) -> Origin:
    """The model that a folder or a repository (`owner/name`) holds; DataError in one line.

    Of a repository, only the list of its files and its index are fetched.
    """
    root, commit = Path(model), ""
    if os.path.isdir(model):
        there = _in_folder(root)
    else:
        commit, there = hub.listed(model, revision)
    if layout.INDEX not in there:
        raise DataError(f"{model}: {_what_it_is_instead(there)}")
    if commit:
        root = hub.fetch_file(model, commit, layout.INDEX).parent
    index = files.read_json(root / layout.INDEX, dict[str, object])
    found = layout.read(model, index, there, variant=variant, trust_remote_code=trust_remote_code)
    return Origin(
        model=model,
        commit=commit,
        folder=root,
        files=there,
        layout=found,
        variant=variant if any(part.varied for part in found.components) else "",
    )


def _in_folder(root: Path) -> dict[str, int]:
    """Name -> size of the files in the folder and below, hidden ones aside."""
    there = {}
    with files.explained(root):
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                path = Path(folder) / name
                if path.is_file():
                    there[path.relative_to(root).as_posix()] = path.stat().st_size
    return there


def _what_it_is_instead(there: Mapping[str, int]) -> str:
    """Why files without a model_index.json are no pipeline, and what to do."""
    missing = f"no diffusers pipeline ({layout.INDEX} is missing)"
    whole = sorted(name for name in there if "/" not in name and name.endswith(".safetensors"))
    if "modular_model_index.json" in there:
        return f"{missing}; modular pipelines can't be drawn with, take the model's plain one"
    if lora := [name for name in whole if "lora" in name.lower() or name.startswith("adapter_")]:
        return f"{missing}; {lora[0]} looks like a LoRA: give it as lora=… beside its base model"
    if whole:
        return (
            f"{missing}; {whole[0]} is a checkpoint of one file: take the model's copy for "
            "diffusers, or convert it with from_single_file(...).save_pretrained(FOLDER)"
        )
    return f"{missing}; give a text-to-image model in the layout of diffusers"


def _check_shards(folder: Path, part: layout.Component) -> None:
    """DataError if an index of shards names a file that is none of them."""
    own = [Path(name).name for name in part.weights]
    for name in part.besides:
        if ".safetensors.index" in name:
            index = files.read_json(folder / name, dict[str, object])
            named = index.get("weight_map")
            shards = list(named.values()) if isinstance(named, dict) else [named]
            if strange := [shard for shard in shards if shard not in own]:
                raise DataError(
                    f"{folder / name}: names {strange[0]!r} where a shard that lies beside it was "
                    "expected; get the whole model"
                )
