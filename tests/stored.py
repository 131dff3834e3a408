"""A small dataset's folder, written without a build: pictures drawn in the tests, and a card."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from isekai import files, intake, parquet
from isekai.dataset import Entry, fingerprint
from isekai.intake import Rejection
from isekai.parquet import SPLITS, Row


def write(config: Path, images: Path) -> Path:
    """The images as a dataset: odd ones to support, even ones to query, the last one left out."""
    found = intake.read(images)
    *kept, last = found.rows
    rows = {
        "support": [told(row) for row in kept if row.record.index % 2],
        "query": [told(row) for row in kept if not row.record.index % 2],
    }
    for split in SPLITS:
        parquet.write(config, split, rows[split], found.groups, found.read)
    files.write_json(config / "groups.json", found.groups)
    files.write_jsonl(config / "rejected.jsonl", [Rejection.of(last.record, "too plain")])
    write_manifest(config, rows)
    return config


def told(row: Row) -> Row:
    """The row with something in every column."""
    record = replace(
        row.record,
        negative_prompt="text, frame",
        settings={"steps": 4, "sampler": "a, b"},
        scores={"clip.own": 0.25},
    )
    return Row(record, row.concept)


def write_manifest(config: Path, rows: dict[str, Sequence[Row]]) -> None:
    entries = [
        Entry(
            image_id=row.record.id,
            concept=row.concept.id,
            role=row.concept.role,
            split=split,
            index=row.record.index,
        )
        for split in SPLITS
        for row in rows[split]
    ]
    groups = files.read_json(config / "groups.json", tuple[intake.Group, ...])
    files.write_json(
        config / "manifest.json",
        {
            "kind": "dataset",
            "complete": True,
            "name": config.name,
            "title": "Tiny things",
            "fingerprint": fingerprint(groups, entries),
            "images": len(entries),
            "splits": {split: len(rows[split]) for split in SPLITS},
            "rejected": 1,
            "request": {"seed": 0},
            "settings": {"license": "cc0-1.0"},
            "environment": files.environment(),
            "checks": {},
        },
    )


def write_card(root: Path, *names: str) -> Path:
    """A README.md whose head lists the configs, as JSON, which YAML reads."""
    configs = [
        {
            "config_name": name,
            "data_files": [{"split": s, "path": f"{name}/{s}-*.parquet"} for s in SPLITS],
        }
        for name in names
    ]
    infos = [
        {"config_name": name, "splits": [_size(root / name, split) for split in SPLITS]}
        for name in names
    ]
    head = {"configs": configs, "dataset_info": infos}
    files.write_text(root / "README.md", f"---\n{json.dumps(head, indent=1)}\n---\n\n# Tiny\n")
    return root


def _size(config: Path, split: str) -> dict[str, object]:
    paths = sorted(config.glob(f"{split}-*.parquet"))
    rows = sum(pq.read_metadata(path).num_rows for path in paths)
    return {"name": split, "num_examples": rows, "num_bytes": 1}


def change_json(path: Path, **changes: object) -> None:
    files.write_json(path, {**json.loads(path.read_text()), **changes})
