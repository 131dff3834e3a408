"""Where the files of a model lie: a folder here, or a repository of the Hub at one commit."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isekai import digests, files, hub
from isekai.errors import DataError, PluginError

_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*", re.A)
"""`owner/name`, and the few old names without an owner, such as `roberta-base`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Files are downloaded when they are asked for, not before."""

    name: str
    commit: str
    """Empty for a folder."""
    there: Mapping[str, int]
    """The files at the top and their bytes."""

    def file(self, name: str) -> Path:
        if self.commit:
            return hub.fetch_file(self.name, self.commit, name)
        return Path(self.name) / name

    def json(self, name: str) -> dict[str, object]:
        return files.read_json(self.file(name), dict[str, object])

    def identity(self, names: Sequence[str]) -> str:
        """The commit or, of a folder, a digest of these files."""
        if self.commit:
            return self.commit
        found = digests.sha256(self.file(name) for name in sorted(names))
        told = [(path.name, digest) for path, digest in found.items()]
        return files.sha256(json.dumps(told).encode())


def folder(path: Path) -> Place:
    with files.explained(path):
        there = {entry.name: entry.stat().st_size for entry in path.iterdir() if entry.is_file()}
    return Place(name=str(path), commit="", there=there)


def repository(name: str, revision: str = "") -> Place:
    if not _NAME.fullmatch(name):
        raise DataError(f"{name!r}: no name of a repository: owner/name")
    commit, there = hub.listed(name, revision or "main")
    top = {file: size for file, size in there.items() if "/" not in file}
    return Place(name=name, commit=commit, there=top)


def refuse_revision(name: str, revision: str) -> None:
    if revision:
        raise PluginError(
            f"{name}: only a repository has revisions, given '{revision}'; leave it out"
        )
