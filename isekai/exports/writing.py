"""Puts an export into its folder: whole files, and only over what an export wrote before."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from isekai import files, progress
from isekai.errors import DataError
from isekai.exports.order import Files

MANIFEST = "export.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What an export wrote. Written first, when nothing is done yet, and last."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    kind: Literal["export"]
    complete: bool
    to: str
    sha256: dict[str, str]
    """Path -> its hash; empty where a killed export may have left anything."""
    environment: dict[str, str]


def write(out: Path, to: str, made: Files) -> None:
    """Write all files into `out`, which is locked; remove those of an export before it."""
    before = _before(out, to)
    _refuse_foreign(out, made, before)
    begun = {**before, **dict.fromkeys(made, "")}
    environment = files.environment("inspect-ai", "huggingface-hub", "pyarrow")

    def tell(complete: bool, hashes: dict[str, str]) -> None:
        told = Manifest(
            kind="export", complete=complete, to=to, sha256=hashes, environment=environment
        )
        files.write_json(out / MANIFEST, told)

    tell(False, dict(sorted(begun.items())))
    hashes = {}
    with progress.bar(len(made)) as advance:
        for name in sorted(made):
            data = made[name]()
            files.write_bytes(out / name, data)
            hashes[name] = files.sha256(data)
            advance(what=name)
    for name in before.keys() - made.keys():
        (out / name).unlink(missing_ok=True)
    tell(True, hashes)


def _before(out: Path, to: str) -> dict[str, str]:
    """What an export wrote here; DataError for a folder of anything else."""
    path = out / MANIFEST
    if path.exists():
        there = files.read_json(path, Manifest)
        if there.to != to:
            raise DataError(f"{out}: holds an export to {there.to}; choose another --out")
        for name in there.sha256:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise DataError(f"{path}: '{name}' lies outside the folder; remove the manifest")
        return there.sha256
    others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
    if others:
        raise DataError(
            f"{out}: holds '{others[0]}' but no {MANIFEST} of an export; give --out a new or empty "
            "folder"
        )
    return {}


def _refuse_foreign(out: Path, made: Files, before: dict[str, str]) -> None:
    """Refuse to overwrite or remove what no export wrote, or what was changed since."""
    for name in sorted({*made, *before}):
        path = out / name
        if not path.exists():
            continue
        if name not in before:
            raise DataError(f"{path}: not written by an export; move it, or choose another --out")
        if before[name] and files.sha256(path.read_bytes()) != before[name]:
            raise DataError(
                f"{path}: changed since it was exported; move it, or choose another --out"
            )
