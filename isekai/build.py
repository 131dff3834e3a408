"""The build step: turns a folder of images into a dataset, and says what it left out and why."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import card, contact_sheet, dedup, files, intake, parquet, plugins, progress
from isekai.dataset import Dataset, Entry, fingerprint
from isekai.errors import DataError, IsekaiError
from isekai.images import UnreadableImage, decode
from isekai.intake import Images, Rejection
from isekai.parquet import SPLITS, Row
from isekai.protocols import Embedder
from isekai.types import ImageRecord, Split

_BATCH = 64
_STAGING = ".staging"
_MANIFEST = "manifest.json"
_MADE = (
    "data",
    "groups.json",
    "rejected.jsonl",
    "README.md",
    "contact_sheet.html",
    "contact_sheet.png",
)


def run(
    *,
    images: Path,
    out: Path,
    embedder: str = "lite0",
    options: Mapping[str, object] | None = None,
    query_share: float = 0.4,
    seed: int = 0,
    license: str = "unknown",
    force: bool = False,
) -> Path:
    """Build the dataset `out` from the folder `images`, and return it.

    `embedder`, built with `options`, finds near-duplicates. `query_share` of each concept's
    pictures go to the split `query`, the others to `support`, drawn by `seed`: by default more to
    `support`, so that 32 pictures less a few duplicates still give 16 shots. `license` is one of
    the Hub's identifiers and goes into the card. A dataset that is there with the same pictures and
    settings stays as it is; another one is refused, unless `force` replaces it once the new one is
    ready.
    """
    if not 0 < query_share < 1:
        raise IsekaiError(f"a query share of {query_share}; it lies between 0 and 1")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise IsekaiError(f"'{license}' is no license identifier; such are apache-2.0, cc0-1.0")
    found = intake.read(images)
    with files.lock(out), files.explained(out):
        before = _settings_before(out)
        shutil.rmtree(out / _STAGING, ignore_errors=True)
        files.sweep_temporaries(out)
        look: Embedder = plugins.build("embedders", embedder, options)
        limits = dedup.Limits()
        settings: dict[str, object] = {
            "images": found.digest,
            "embedder": {"name": embedder, "model": look.model, "revision": look.revision},
            "limits": files.plain(limits),
            "query_share": query_share,
            "seed": seed,
            "license": license,
        }
        if before == settings and _is_whole(out):
            progress.tell(f"{out}: built from these images with these settings, nothing to do")
            return out
        if before not in (None, settings) and not force:
            changed = ", ".join(key for key in settings if before.get(key) != settings[key])
            raise DataError(
                f"{out}: holds a dataset built otherwise (other {changed}); give --force to "
                "replace it or another --out"
            )
        rows, features, rejected = _thin(found, look, limits)
        splits = split(rows, query_share, seed)
        staging = out / _STAGING
        try:
            _write(staging, found, splits, rejected, settings, _nearest(rows, features, splits))
            _put_in_place(staging, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    told = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    progress.tell(f"{out}: {told}, {len(rejected)} left out (see {out / 'rejected.jsonl'})")
    return out


def summary(out: Path) -> dict[str, object]:
    """What `isekai build --json` prints."""
    told = files.read_json(out / _MANIFEST, dict[str, object])
    return {
        "path": str(out),
        **{key: told[key] for key in ("fingerprint", "images", "splits", "rejected", "checks")},
    }


# ---------------------------------------------------------------- what goes into the dataset


def _thin(
    found: Images, look: Embedder, limits: dedup.Limits
) -> tuple[list[Row], NDArray[np.float32], list[Rejection]]:
    """The rows that stay, their features, and everything left out."""
    rows: list[Row] = []
    prints: list[dedup.Print] = []
    features: list[NDArray[np.float32]] = []
    rejected = list(found.rejected)
    _refuse_small(found, found.rows, rejected)
    with progress.bar(len(found.rows)) as advance:
        for start in range(0, len(found.rows), _BATCH):
            pictures = []
            for record, concept in found.rows[start : start + _BATCH]:
                try:
                    picture = decode(found.read(record))
                except UnreadableImage as error:
                    rejected.append(Rejection.of(record, f"unreadable: {error}"))
                    continue
                width, height = picture.size
                rows.append(Row(replace(record, width=width, height=height), concept))
                prints.append(dedup.Print.of(picture, record))
                pictures.append(picture)
            features.append(look.embed_images(pictures))
            advance(min(_BATCH, len(found.rows) - start))
    vectors = np.concatenate(features)
    duplicates = dedup.find(prints, vectors, limits)
    for one in duplicates:
        kept = rows[one.kept].record.path
        rejected.append(Rejection.of(rows[one.position].record, one.reason, kept))
    gone = {one.position for one in duplicates}
    stay = [position for position in range(len(rows)) if position not in gone]
    rows = [rows[position] for position in stay]
    _refuse_small(found, rows, rejected)
    return rows, vectors[stay], rejected


def _refuse_small(found: Images, rows: Sequence[Row], rejected: Sequence[Rejection]) -> None:
    """Every concept needs a picture for each split; DataError names those that lack one."""
    left = Counter(row.concept.id for row in rows)
    problems = []
    for concept in (concept for group in found.groups for concept in group.concepts):
        if left[concept.id] >= len(SPLITS):
            continue
        why = Counter(one.reason for one in rejected if one.concept == concept.id)
        told = "".join(f"; {number} left out: {reason}" for reason, number in sorted(why.items()))
        problems.append(
            f"{found.folder}: {concept.id} has {left[concept.id]} usable images and needs at "
            f"least {len(SPLITS)}{told}"
        )
    if problems:
        raise DataError("\n".join(problems))


def split(rows: Sequence[Row], query_share: float, seed: int) -> dict[Split, list[Row]]:
    """Rows of each split, in the order given.

    Within a concept pictures are ranked by a hash of the seed and their id, and the first go to
    `query`: each picture that is added or lost moves at most one other to the other split.
    """
    by_concept: dict[str, list[str]] = {}
    for row in rows:
        by_concept.setdefault(row.concept.id, []).append(row.record.id)
    asked: set[str] = set()
    for ids in by_concept.values():
        ids.sort(key=lambda id: blake2b(f"{seed}/{id}".encode()).digest())
        count = min(max(round(len(ids) * query_share), 1), len(ids) - 1)
        asked.update(ids[:count])
    return {
        "support": [row for row in rows if row.record.id not in asked],
        "query": [row for row in rows if row.record.id in asked],
    }


def _nearest(
    rows: Sequence[Row], features: NDArray[np.float32], splits: Mapping[Split, Sequence[Row]]
) -> dict[str, object]:
    """How near the splits come to each other."""
    asked = {row.record.id for row in splits["query"]}
    query = [place for place, row in enumerate(rows) if row.record.id in asked]
    support = [place for place, row in enumerate(rows) if row.record.id not in asked]
    cosine, i, j = dedup.closest(features[support], features[query])
    return {
        "closest_cosine_across_splits": round(cosine, 4),
        "closest_pair": [rows[support[i]].record.path, rows[query[j]].record.path],
    }


# ---------------------------------------------------------------- the dataset folder


def _settings_before(out: Path) -> Mapping[str, object] | None:
    """Settings of the finished dataset in `out`; None if there is none or only a part of one."""
    path = out / _MANIFEST
    if not path.exists():
        others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
        if others:
            raise DataError(
                f"{out}: holds '{others[0]}' but no dataset; give --out a new or empty folder"
            )
        return None
    told = files.read_json(path, dict[str, object])
    if told.get("kind") != "dataset":
        raise DataError(
            f"{out}: holds {told.get('kind')!r}, not a dataset; give --out a new or empty folder"
        )
    settings = told.get("settings")
    return settings if told.get("complete") and isinstance(settings, dict) else None


def _is_whole(out: Path) -> bool:
    if not all((out / name).exists() for name in _MADE):
        return False
    try:
        Dataset.open(out)
    except DataError:
        return False
    return True


def _write(
    staging: Path,
    found: Images,
    splits: Mapping[Split, Sequence[Row]],
    rejected: Sequence[Rejection],
    settings: Mapping[str, object],
    checks: Mapping[str, object],
) -> None:
    for split in SPLITS:
        parquet.write(staging / parquet.file(split), splits[split], found.groups, found.read)
    files.write_json(staging / "groups.json", found.groups)
    files.write_jsonl(staging / "rejected.jsonl", rejected)
    novel = sum(c.role == "novel" for group in found.groups for c in group.concepts)
    environment = files.environment("imagehash", "numpy", "pillow", "pyarrow", "timm", "torch")
    facts = card.Facts(
        title=f"Isekai: {novel} novel concepts in {len(found.groups)} groups",
        license=str(settings["license"]),
        groups=found.groups,
        rows=splits,
        left_out=Counter(one.reason for one in rejected),
        request=found.request,
        settings=settings,
        checks=checks,
        environment=environment,
    )
    files.write_text(staging / "README.md", card.markdown(facts))
    _draw_sheets(staging, found, splits, facts.title)
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
        "fingerprint": fingerprint(found.groups, entries),
        "images": len(entries),
        "splits": {split: len(splits[split]) for split in SPLITS},
        "rejected": len(rejected),
        "settings": settings,
        "checks": checks,
        "environment": environment,
    }
    files.write_json(staging / _MANIFEST, manifest)


def _draw_sheets(
    staging: Path, found: Images, splits: Mapping[Split, Sequence[Row]], title: str
) -> None:
    by_concept: dict[str, list[ImageRecord]] = {}
    for row in sorted((row for rows in splits.values() for row in rows), key=_index):
        by_concept.setdefault(row.concept.id, []).append(row.record)
    pictures: dict[str, list[Image.Image]] = {}
    for concept, records in by_concept.items():
        for record in records[: contact_sheet.PER_CONCEPT]:
            picture = decode(found.read(record))
            picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
            pictures.setdefault(concept, []).append(picture)
    contact_sheet.write(found.groups, pictures, staging, title)


def _index(row: Row) -> int:
    return row.record.index


def _put_in_place(staging: Path, out: Path) -> None:
    """Swap the finished files in. Until the last rename the folder says that it is unfinished."""
    files.write_json(out / _MANIFEST, {"kind": "dataset", "complete": False})
    for name in _MADE:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        os.replace(staging / name, out / name)
    os.replace(staging / _MANIFEST, out / _MANIFEST)
