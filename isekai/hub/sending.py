"""What of a folder of datasets goes to a repository of the Hub, and what there is of it already."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isekai import dataset, digests
from isekai.card import yaml_text
from isekai.errors import DataError
from isekai.hub import File

CARD = "README.md"
BESIDES = (CARD, "croissant.json", "CITATION.cff", "contact_sheet.png", "LICENSE")
"""Files that tell of all datasets of the folder; what else lies beside these stays here."""
_SUFFIXES = (".parquet", ".json", ".jsonl", ".png", ".html")
_PRIVATE = ("review.jsonl",)
"""Files of a dataset that are its maker's own."""
_HEAD = re.compile(r"---\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", re.S)


def contents(root: Path) -> dict[str, Path]:
    """The files that are sent, by their names in the repository."""
    names = dataset.configs(root)
    if not names:
        dataset.manifest(root)  # says what is there instead
        raise DataError(
            f"{root}: is one dataset of a folder; give that folder, which has the card: "
            f"{root.resolve().parent}"
        )
    if not (root / CARD).is_file():
        raise DataError(f"{root / CARD}: no such file; build the dataset again")
    found = [root / name for name in BESIDES if (root / name).is_file()]
    found += [path for folder in names.values() for path in _of_dataset(folder)]
    if links := [path for path in found if path.is_symlink()]:
        raise DataError(f"{links[0]}: a link; it could lead to a file that is no part of this")
    return {path.relative_to(root).as_posix(): path for path in sorted(found)}


def _of_dataset(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if is_sent(path.relative_to(folder)) and (path.is_file() or path.is_symlink()):
            yield path


def is_sent(inside: Path) -> bool:
    """Whether a file of a dataset goes to the Hub, by its path in the dataset's folder."""
    hidden = any(part.startswith(".") for part in inside.parts)
    return inside.suffix in _SUFFIXES and inside.name not in _PRIVATE and not hidden


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What makes the repository hold what the folder holds."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    same: int
    kept: tuple[str, ...]
    """Datasets of the repository that aren't in the folder."""
    sizes: Mapping[str, int]
    """Bytes of what is added or changed; none of a file whose content the repository holds."""

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.changed or self.removed)

    def text(self, shares_chunks: bool) -> str:
        """A line for each file that changes, and the sum."""
        lines = [f"+ {name}  {_bytes(self.sizes[name])}" for name in self.added]
        lines += [f"~ {name}  {_bytes(self.sizes[name])}" for name in self.changed]
        lines += [f"- {name}" for name in self.removed]
        lines += [f"  {name}/ stays, which is not in this folder" for name in self.kept]
        counts = f"{len(self.added)} new, {len(self.changed)} changed, {len(self.removed)} removed"
        total = _bytes(sum(self.sizes.values()))
        less = ", less the chunks that the Hub has already" if shares_chunks else ""
        return "\n".join([*lines, f"{counts}, {self.same} the same; to send: {total}{less}"])


def difference(files: Mapping[str, Path], there: Mapping[str, File]) -> Difference:
    """Compare by hashes. Of the repository only the folder's own datasets are ever removed."""
    owned = {name.split("/")[0] for name in files if "/" in name}
    held = {file.sha256 for file in there.values() if file.sha256}
    added = [name for name in files if name not in there]
    changed = [
        name for name, path in files.items() if name in there and not there[name].is_same(path)
    ]
    removed = [
        name
        for name in there
        if name not in files and (name.split("/")[0] in owned or name in BESIDES[1:4])
    ]
    others = {name.split("/")[0] for name in there if name.endswith("/manifest.json")} - owned
    return Difference(
        added=tuple(added),
        changed=tuple(changed),
        removed=tuple(removed),
        same=len(files) - len(added) - len(changed),
        kept=tuple(sorted(others)),
        sizes={
            name: 0 if held and _sha256(files[name]) in held else files[name].stat().st_size
            for name in (*added, *changed)
        },
    )


def _sha256(path: Path) -> str:
    return digests.sha256([path])[path]


# ---------------------------------------------------------------- the card


def is_own(card: str) -> bool:
    """Whether a card is one that `isekai` writes."""
    tags = _parts(card, "the card on the Hub")[0].get("tags")
    return isinstance(tags, list) and "isekai" in tags


def is_blank(card: str) -> bool:
    """Whether a card has nothing but a head, as that of a repository made on the Hub's pages."""
    return not _parts(card, "the card on the Hub")[1].strip()


def merged(card: str, there: str, kept: Sequence[str]) -> str:
    """The card with those entries of the other whose datasets stay in the repository.

    `kept` has their names. The first dataset of `card` stays the one that is loaded by default.
    """
    head, body = _parts(card, CARD)
    other, _ = _parts(there, "the card on the Hub")
    told = dict(head)
    for key in ("configs", "dataset_info"):
        entries = _entries(other.get(key))
        stay = [
            {name: value for name, value in entry.items() if name != "default"}
            for entry in entries
            if entry.get("config_name") in kept
        ]
        if stay:
            told[key] = [*_entries(head.get(key)), *stay]
    return card if told == head else f"---\n{yaml_text.dump(told)}---\n{body}"


def _entries(value: object) -> list[dict[str, Any]]:
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if isinstance(entry, dict)]


def _parts(card: str, where: str) -> tuple[dict[str, Any], str]:
    """The head, as YAML reads it, and the rest; DataError if the head can't be read."""
    import yaml  # type: ignore[import-untyped]

    found = _HEAD.match(card)
    if not found:
        return {}, card
    try:
        head = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        head = ""
    if head is not None and not isinstance(head, dict):
        raise DataError(f"{where}: its head is no YAML; mend it")
    return head or {}, card[found.end() :]


def _bytes(size: int) -> str:
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= one:
            return f"{size / one:.1f} {unit}"
    return f"{size} bytes"
