"""Reads a folder of images for the build step, with every file checked against the ledger."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from isekai import files
from isekai.errors import DataError
from isekai.ledger import REJECTED, Refusal
from isekai.parquet import Row
from isekai.types import Concept, Group, ImageRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A row of rejected.jsonl: a picture that is not in the dataset."""

    image_id: str | None
    path: str | None
    concept: str
    reason: str
    other: str | None = None
    """Path of the picture that stays in its place."""

    @classmethod
    def of(cls, record: ImageRecord, reason: str, other: str | None = None) -> "Rejection":
        return cls(
            image_id=record.id, path=record.path, concept=record.concept, reason=reason, other=other
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """What an images folder holds, with every file's bytes checked against the ledger."""

    folder: Path
    groups: tuple[Group, ...]
    rows: list[Row]
    """By concept in the order of the groups, then by index."""
    rejected: list[Rejection]
    request: Mapping[str, object]
    spec: str
    """What the folder of its group files was called; empty if there was none."""
    digest: str
    """Changes with whatever of the folder reaches the dataset."""

    def read(self, record: ImageRecord) -> bytes:
        """The picture's file; DataError if it has changed since the folder was read."""
        path = self.folder / record.path
        data = path.read_bytes()
        if files.sha256(data) != record.id:
            raise DataError(f"{path}: changed while the dataset was built; build again")
        return data


def read(folder: Path) -> Images:
    """The images folder; DataError if it is none, is unfinished, or contradicts itself."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of images; draw some with `isekai generate`")
    manifest = folder / "manifest.json"
    if not manifest.exists():
        if (folder / "ledger.jsonl").exists():
            raise DataError(
                f"{folder}: not finished (no manifest.json); run the same `isekai generate` "
                "command again, it draws only what is missing"
            )
        raise DataError(
            f"{folder}: not a folder of drawn images (no manifest.json); draw some with `isekai "
            "generate`, or bring your own with `isekai generate --source folder:PATH`"
        )
    told = files.read_json(manifest, dict[str, object])
    if told.get("kind") == "dataset":
        raise DataError(f"{folder}: a dataset already; measure on it with `isekai bench --data`")
    if told.get("kind") != "images" or not told.get("complete"):
        raise DataError(f"{folder}: its manifest.json is not that of finished images")
    request, asked = told.get("request"), told.get("asked")
    groups = files.read_json(folder / "groups.json", tuple[Group, ...])
    concepts = _concepts(folder / "groups.json", groups)
    order = {id: place for place, id in enumerate(concepts)}
    records = _records(folder / "ledger.jsonl", concepts)
    records.sort(key=lambda record: (order[record.concept], record.index))
    rejected = _not_drawn(folder, records)
    rows = []
    for record in records:
        path = folder / record.path
        if not path.is_file():
            rejected.append(Rejection.of(record, "file is missing"))
        elif files.sha256(path.read_bytes()) != record.id:
            rejected.append(Rejection.of(record, "file is not the one in the ledger"))
        else:
            rows.append(Row(record, concepts[record.concept]))
    identity = [
        groups,
        request,
        rejected,
        [replace(row.record, drawn_at="", made={}) for row in rows],
    ]
    return Images(
        folder=folder,
        groups=groups,
        rows=rows,
        rejected=rejected,
        request=request if isinstance(request, dict) else {},
        spec=str(asked.get("spec", "")) if isinstance(asked, dict) else "",
        digest=files.sha256(json.dumps(files.plain(identity), sort_keys=True).encode()),
    )


def _not_drawn(folder: Path, records: Sequence[ImageRecord]) -> list[Rejection]:
    """What was given up: the last refusal of each place that has no picture."""
    drawn = {(record.concept, record.index) for record in records}
    refused = files.read_jsonl(folder / REJECTED, Refusal)
    last = {(row.concept, row.index): row for row in sorted(refused, key=lambda row: row.attempt)}
    return [
        Rejection(image_id=None, path=None, concept=row.concept, reason=f"not drawn: {row.reason}")
        for key, row in sorted(last.items())
        if key not in drawn
    ]


def _concepts(path: Path, groups: tuple[Group, ...]) -> dict[str, Concept]:
    concepts: dict[str, Concept] = {}
    for group in groups:
        for concept in group.concepts:
            if concept.id in concepts:
                raise DataError(f"{path}: the concept '{concept.id}' is there twice")
            if concept.group != group.id:
                raise DataError(f"{path}: the concept '{concept.id}' is in the group '{group.id}'")
            concepts[concept.id] = concept
    return concepts


def _records(ledger: Path, concepts: Mapping[str, Concept]) -> list[ImageRecord]:
    records = files.read_jsonl(ledger, ImageRecord)
    seen: set[tuple[str, int]] = set()
    for record in records:
        path = PurePosixPath(record.path)
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"{ledger}: the path '{record.path}' leads out of the folder")
        if record.concept not in concepts:
            raise DataError(f"{ledger}: {record.path} shows '{record.concept}', not in groups.json")
        if (record.concept, record.index) in seen:
            raise DataError(f"{ledger}: {record.concept} has two images {record.index}")
        seen.add((record.concept, record.index))
    if not records:
        raise DataError(f"{ledger}: no images; draw some with `isekai generate`")
    return records
