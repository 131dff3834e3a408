"""Small datasets on disk with real pictures, written without the build step."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from isekai import files, parquet
from isekai.dataset import Entry, fingerprint
from isekai.images import encode
from isekai.parquet import SPLITS, Row
from isekai.spec import seed
from isekai.types import Concept, Group, ImageRecord

SIZE = 8


def groups(count: int = 3, text: str = "") -> tuple[Group, ...]:
    """Groups of two novel concepts and a foil; `text` stands where people write."""
    return tuple(
        Group(
            id=f"g{n}",
            title=text or f"Things {n}",
            concepts=tuple(
                Concept(
                    id=f"g{n}/{name}",
                    name=text or f"{name} {n}",
                    role="foil" if name == "foil" else "novel",
                    novelty=None if name == "foil" else "blend",
                    definition=text or f"A {name}, as group {n} has it.",
                )
                for name in ("one", "two", "foil")
            ),
        )
        for n in range(count)
    )


def write(
    folder: Path,
    made: Sequence[Group] | None = None,
    *,
    support: int = 4,
    query: int = 2,
    source: str = "procedural",
    model: str = "noise",
    text: str = "",
    rejected: Mapping[str, int] | None = None,
    **changed: object,
) -> Path:
    """A config folder: pictures, groups, what was left out, and the manifest, with `changed`."""
    made = groups(text=text) if made is None else made
    pictures: dict[str, bytes] = {}
    splits: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for concept in (concept for group in made for concept in group.concepts):
        for index in range(support + query):
            own = seed(concept.id, index, 0)
            pixels = np.random.default_rng(own).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            data = encode(Image.fromarray(pixels), "png")
            id = files.sha256(data)
            pictures[id] = data
            record = ImageRecord(
                id=id,
                path=f"{concept.id}/{index:04d}.png",
                concept=concept.id,
                index=index,
                width=SIZE,
                height=SIZE,
                seed=own,
                prompt=text or f"a photo of {concept.name}",
                source=source,
                model=text or model,
                revision=text or "1",
                settings={},
                drawn_at="",
            )
            splits[SPLITS[index >= support]].append(Row(record, concept))
    for split in SPLITS:
        parquet.write(folder, split, splits[split], made, lambda record: pictures[record.id])
    files.write_json(folder / "groups.json", made)
    reasons = {"same bytes": 2} if rejected is None else rejected
    files.write_jsonl(
        folder / "rejected.jsonl",
        [
            {
                "image_id": None,
                "path": None,
                "concept": made[0].concepts[0].id,
                "reason": reason,
                "other": None,
            }
            for reason, times in reasons.items()
            for _ in range(times)
        ],
    )
    Image.new("RGB", (4, 4), len(made)).save(folder / "contact_sheet.png")
    entries = [
        Entry(
            image_id=row.record.id,
            concept=row.concept.id,
            role=row.concept.role,
            split=split,
            index=row.record.index,
        )
        for split in SPLITS
        for row in splits[split]
    ]
    manifest = {
        "kind": "dataset",
        "complete": True,
        "name": folder.name,
        "title": text or f"Isekai: {2 * len(made)} novel concepts in {len(made)} groups",
        "fingerprint": fingerprint(made, entries),
        "images": len(entries),
        "splits": {split: len(splits[split]) for split in SPLITS},
        "rejected": sum(reasons.values()),
        "request": {"seed": 0, text or "size": SIZE},
        "settings": {
            "embedder": {"name": "lite0", "model": text or "lite0", "revision": "1"},
            "limits": {"hash_distance": 32, "cosine": 0.975},
            "query_share": 0.4,
            "seed": 0,
            "license": "cc0-1.0",
        },
        "environment": {"isekai": "1"},
        "checks": {"closest_cosine_across_splits": 0.9},
    }
    files.write_json(folder / "manifest.json", {**manifest, **changed})
    return folder
