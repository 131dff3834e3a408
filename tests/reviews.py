"""What tests of a review share: datasets to look at, and what was said of them."""

from dataclasses import replace
from pathlib import Path

from PIL import Image

from isekai import decisions, files, parquet
from isekai.dataset import Dataset, Entry, fingerprint
from isekai.images import encode
from isekai.intake import Rejection
from isekai.types import Concept, Group, ImageRecord


def colour(number: int, size: int = 24) -> bytes:
    return encode(Image.new("RGB", (size, size), (number * 37 % 256, number * 91 % 256, number)))


def tiny(path: Path, *, per_concept: int = 4, name: str = "blimel") -> Dataset:
    """A dataset in memory: two groups of three concepts."""
    groups = []
    for group, names in (("fruit", (name, "quorrin", "orange")), ("stone", ("gravvel", "pebble"))):
        concepts = [
            Concept(
                id=f"{group}/{number}",
                name=one,
                role="foil" if one in ("orange", "pebble") else "novel",
                definition=f"What {one} is.",
            )
            for number, one in enumerate(names)
        ]
        groups.append(Group(id=group, title=group, concepts=tuple(concepts)))
    data, entries = {}, []
    for concept in (concept for group in groups for concept in group.concepts):
        for index in range(per_concept):
            picture = colour(len(data))
            data[files.sha256(picture)] = picture
            entries.append(
                Entry(
                    image_id=files.sha256(picture),
                    concept=concept.id,
                    role=concept.role,
                    split="query" if index % 2 else "support",
                    index=index,
                )
            )
    return Dataset(
        path=path,
        fingerprint="0" * 64,
        groups=groups,
        entries=entries,
        fetch=data.__getitem__,
        name="tiny",
    )


def ids(dataset: Dataset) -> list[str]:
    return [entry.image_id for entry in dataset.entries]


def said(file: Path) -> list[tuple[str, str | None]]:
    """Verdict and concept of each row."""
    return [(row.verdict, row.concept) for row in files.read_jsonl(file, decisions.Row)]


def write(folder: Path, tiny_images: Path) -> Path:
    """A dataset of the tiny images, as build writes it: one left out of each concept's twelve."""
    groups = files.read_json(tiny_images / "groups.json", tuple[Group, ...])
    concepts = {concept.id: concept for group in groups for concept in group.concepts}
    records = files.read_jsonl(tiny_images / "ledger.jsonl", ImageRecord)
    scored = [replace(one, scores={"clip.own": (7 * one.index % 12) / 12}) for one in records]
    entries = []
    for split in parquet.SPLITS:
        part = range(6) if split == "support" else range(6, 11)
        rows = [parquet.Row(one, concepts[one.concept]) for one in scored if one.index in part]
        parquet.write(
            folder, split, rows, groups, lambda one: (tiny_images / one.path).read_bytes()
        )
        entries += [
            Entry(
                image_id=row.record.id,
                concept=row.concept.id,
                role=row.concept.role,
                split=split,
                index=row.record.index,
            )
            for row in rows
        ]
    paths = {(one.concept, one.index): one.path for one in records}
    left_out = [
        Rejection.of(one, "near-duplicate", paths[one.concept, 10])
        for one in records
        if one.index == 11
    ]
    files.write_json(folder / "groups.json", groups)
    files.write_jsonl(folder / "rejected.jsonl", left_out)
    manifest = {
        "kind": "dataset",
        "complete": True,
        "name": "tiny",
        "title": "Tiny",
        "fingerprint": fingerprint(groups, entries),
        "images": len(entries),
        "splits": {split: sum(e.split == split for e in entries) for split in parquet.SPLITS},
        "rejected": len(left_out),
        **{key: {} for key in ("request", "settings", "environment", "checks")},
    }
    files.write_json(folder / "manifest.json", manifest)
    return folder
