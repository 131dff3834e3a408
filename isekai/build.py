"""The build step: turns a folder of images into a dataset, and says what it left out and why."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from PIL import Image

from isekai import (
    card,
    contact_sheet,
    decisions,
    dedup,
    episode_lists,
    evidence,
    files,
    intake,
    parquet,
    plugins,
    progress,
)
from isekai.dataset import NAME, Dataset, Entry, fingerprint, is_dataset
from isekai.embeddings import Embeddings
from isekai.errors import DataError, IsekaiError
from isekai.gates import closing, gates_of
from isekai.images import decode
from isekai.intake import Images
from isekai.parquet import SPLITS, Row
from isekai.protocols import Comparing, Gate
from isekai.thinning import Rules, Thinned, thin
from isekai.types import ImageRecord, Split

PRECISION = 0.99
"""What calibrated limits keep to if nothing else is asked."""

_STAGING = ".staging"
_MANIFEST = "manifest.json"
_ROOT = ("README.md", "croissant.json", "CITATION.cff", "contact_sheet.png")
"""What `card.write` makes around the datasets of a folder."""
_BESIDES = (*_ROOT, "LICENSE")
_MADE = ("groups.json", "rejected.jsonl", "novelty.json", "episodes", "contact_sheet.html",
         "contact_sheet.png")  # fmt: skip
"""What a dataset's own folder holds beside its Parquet files and its manifest."""


def run(
    *,
    images: Path,
    out: Path,
    name: str = "",
    embedder: str = "lite0",
    options: Mapping[str, object] | None = None,
    gates: Sequence[str] = (),
    calibrate: bool = False,
    precision: float | None = None,
    originals: bool = False,
    review: Path | None = None,
    query_share: float = 0.4,
    seed: int = 0,
    license: str = "unknown",
    authors: Sequence[str] = (),
    force: bool = False,
) -> Path:
    """Build the dataset `out`/`name` from the folder `images`, and return its folder.

    `name` is that of the spec's folder if it isn't given. `embedder`, built with `options`, finds
    near-duplicates; its limits are those that are known of it or, with `calibrate`, picked on
    copies made of these pictures for a `precision`. `gates` leave pictures out as they do while
    drawing; decisions of `review`, or of the review.jsonl that is in the dataset's folder, go
    before them. Pictures of over a megabyte are stored smaller, unless `originals`. `query_share`
    of each concept's pictures go to the split `query`, the others to `support`, drawn by `seed`: by
    default more to `support`, so that 32 pictures less a few duplicates still give 16 shots.
    `license` is one of the Hub's identifiers; it and the `authors` go into the card. A dataset that
    is there with the same pictures, settings and decisions stays as it is; other decisions replace
    it, other pictures or settings do with `force`, once the new one is ready.
    """
    known = embedder == "lite0" and not calibrate
    if known and precision is not None:
        raise IsekaiError("a precision is what limits are picked for: give --calibrate, too")
    precision = PRECISION if precision is None else precision
    _check(query_share, license, precision)
    found = intake.read(images)
    name = name or _named(found)
    if not NAME.fullmatch(name):
        raise IsekaiError(
            f"'{name}' is no name for a dataset; give a --name of lower-case letters, digits, '.', "
            "'_' and '-' that begins with a letter or digit"
        )
    home = out / name
    with files.lock(out), files.explained(out):
        _refuse_foreign(out)
        before = _settings_before(home)
        shutil.rmtree(out / _STAGING, ignore_errors=True)
        for folder in (out, home):
            files.sweep_temporaries(folder)
        look = Embeddings(plugins.build("embedders", embedder, options))
        if review and not review.is_file():
            raise DataError(f"{review}: no such file of decisions; 'isekai review' writes one")
        decided = decisions.read(review or home / decisions.FILE)
        judges = _judges(gates)
        settings: dict[str, object] = files.plain({
            "images": found.digest,
            "embedder": look.told,
            "gates": {key: gate.settings for key, gate in judges.items()},
            "precision": None if known else precision,
            "originals": originals,
            "review": decisions.digest(decided) if decided else "",
            "query_share": query_share,
            "seed": seed,
            "license": license,
            "authors": list(authors),
        })  # fmt: skip
        if before and _same(before, settings) and _is_whole(home):
            if not all((out / part).exists() for part in _ROOT):
                card.write(out)
            progress.tell(f"{home}: built from these images with these settings, nothing to do")
            return home
        changed = [key for key in settings if before and before.get(key) != settings[key]]
        if set(changed) - {"review"} and not force:
            raise DataError(
                f"{home}: holds a dataset built otherwise (other {', '.join(changed)}); give "
                "--force to replace it, or another --name or --out"
            )
        rules = Rules(
            limits=dedup.Limits() if known else None,
            precision=precision,
            gates=judges,
            decided=decided,
            originals=originals,
            seed=seed,
        )
        staging = out / _STAGING
        try:
            with closing(judges.values()):
                made = thin(found, look, rules, staging / "smaller")
            if made.calibration:
                progress.tell(made.calibration.text())
            splits = split(made.rows, query_share, seed)
            _write(staging / name, found, made, splits, settings, look)
            _put_in_place(staging / name, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        card.write(out)
    told = ", ".join(f"{len(splits[split])} {split}" for split in SPLITS)
    progress.tell(f"{home}: {told}, {len(made.rejected)} left out (see {home / 'rejected.jsonl'})")
    return home


def summary(home: Path) -> dict[str, object]:
    """What `isekai build --json` prints."""
    told = files.read_json(home / _MANIFEST, dict[str, object])
    return {
        "path": str(home),
        **{key: told[key] for key in ("fingerprint", "images", "splits", "rejected", "checks")},
    }


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


# ---------------------------------------------------------------- what is asked for


def _check(query_share: float, license: str, precision: float) -> None:
    if not 0 < query_share < 1:
        raise IsekaiError(f"a query share of {query_share}; it lies between 0 and 1")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise IsekaiError(f"'{license}' is no license identifier; such are apache-2.0, cc0-1.0")
    if not 0.5 <= precision < 1:
        raise IsekaiError(f"a precision of {precision:g}; it lies between 0.5 and 1, 1 left out")


def _named(found: Images) -> str:
    """The name of the spec, or of the folder of images where there was none."""
    text = (found.spec or found.folder.resolve().name).lower()
    return re.sub(r"[^a-z0-9._-]+", "-", text).strip("-._") or "default"


def _judges(texts: Sequence[str]) -> dict[str, Gate]:
    judges = gates_of(texts)
    if comparing := [name for name, gate in judges.items() if isinstance(gate, Comparing)]:
        raise IsekaiError(
            f"the gate '{comparing[0]}' compares pictures with each other, which building does "
            "anyway; leave it out"
        )
    return judges


def _same(before: Mapping[str, object], settings: Mapping[str, object]) -> bool:
    """What was found out while building stands beside what was asked for."""
    return all(before.get(key) == value for key, value in settings.items())


# ---------------------------------------------------------------- the dataset folder


def _refuse_foreign(out: Path) -> None:
    """Never write among files that are not ours."""
    if (out / _MANIFEST).exists():
        told = files.read_json(out / _MANIFEST, dict[str, object])
        if told.get("kind") == "dataset":
            raise DataError(f"{out}: is a dataset itself; give --out the folder around it")
        raise DataError(
            f"{out}: holds {told.get('kind')!r}, not a dataset; give --out a new or empty folder"
        )
    for entry in sorted(out.iterdir()):
        if entry.name.startswith(".") or entry.name in _BESIDES or is_dataset(entry):
            continue
        if entry.is_dir() and all(path.name.startswith(".") for path in entry.iterdir()):
            continue  # a build was killed over it
        raise DataError(
            f"{out}: holds '{entry.name}', which is no dataset; give --out a folder of datasets or "
            "an empty one"
        )


def _settings_before(home: Path) -> Mapping[str, object] | None:
    """Settings of the finished dataset in `home`; None if there is none or only a part of one."""
    path = home / _MANIFEST
    if not path.exists():
        return None
    told = files.read_json(path, dict[str, object])
    settings = told.get("settings")
    return settings if told.get("complete") and isinstance(settings, dict) else None


def _is_whole(home: Path) -> bool:
    if not all((home / name).exists() for name in _MADE):
        return False
    try:
        return evidence.read(home).dataset == Dataset.open(home).fingerprint
    except DataError:
        return False


def _write(
    staging: Path,
    found: Images,
    made: Thinned,
    splits: Mapping[Split, Sequence[Row]],
    settings: Mapping[str, object],
    look: Embeddings,
) -> None:
    for part in SPLITS:
        parquet.write(
            staging, part, splits[part], found.groups, made.read, originals=made.originals
        )
    files.write_json(staging / "groups.json", found.groups)
    files.write_jsonl(staging / "rejected.jsonl", made.rejected)
    novel = sum(c.role == "novel" for group in found.groups for c in group.concepts)
    title = f"Isekai: {novel} novel concepts in {len(found.groups)} groups"
    _draw_sheets(staging, found, made, title)
    entries = [
        Entry(
            image_id=row.record.id,
            concept=row.concept.id,
            role=row.concept.role,
            split=part,
            index=row.record.index,
        )
        for part in SPLITS
        for row in splits[part]
    ]
    told = {"limits": files.plain(made.limits)}
    if made.calibration:
        told["calibration"] = files.plain(made.calibration)
    manifest = {
        "kind": "dataset",
        "complete": True,
        "name": staging.name,
        "title": title,
        "fingerprint": fingerprint(found.groups, entries),
        "images": len(entries),
        "splits": {part: len(splits[part]) for part in SPLITS},
        "rejected": len(made.rejected),
        "request": found.request,
        "settings": {**settings, **told},
        "environment": files.environment(
            "imagehash", "numpy", "opencv-python-headless", "pillow", "pyarrow", "timm", "torch"
        ),
        "checks": _checks(made, splits),
    }
    files.write_json(staging / _MANIFEST, manifest)
    episode_lists.write(staging)
    evidence.write(staging, evidence.measure(Dataset.open(staging), look, styles=made.styles))


def _checks(made: Thinned, splits: Mapping[Split, Sequence[Row]]) -> dict[str, object]:
    """How near pictures come to each other across splits and concepts."""
    asked = {row.record.id for row in splits["query"]}
    told = dedup.leaks(
        made.vectors,
        ["query" if row.record.id in asked else "support" for row in made.rows],
        [row.concept.id for row in made.rows],
        made.limits,
        most=10,
    )
    paths = [row.record.path for row in made.rows]
    checks: dict[str, object] = {
        "near_pairs_across_splits": told.across_splits,
        "near_pairs_across_concepts": told.across_concepts,
        "nearest_of_them": [[paths[i], paths[j], round(near, 4)] for i, j, near in told.worst],
    }
    for where, pair in (
        ("splits", told.closest_across_splits),
        ("concepts", told.closest_across_concepts),
    ):
        if pair:
            checks[f"closest_cosine_across_{where}"] = round(pair.cosine, 4)
            checks[f"closest_pair_across_{where}"] = [paths[pair.i], paths[pair.j]]
    if told.recall:
        checks["recall_of_the_search"] = files.plain(told.recall)
    if told.across_splits:
        progress.tell(
            f"{told.across_splits} pairs of pictures are near across splits or concepts, such as "
            f"{paths[told.worst[0].i]} and {paths[told.worst[0].j]}; see the card"
        )
    return checks


def _draw_sheets(staging: Path, found: Images, made: Thinned, title: str) -> None:
    by_concept: dict[str, list[ImageRecord]] = {}
    for row in sorted(made.rows, key=lambda row: row.record.index):
        by_concept.setdefault(row.concept.id, []).append(row.record)
    pictures: dict[str, list[Image.Image]] = {}
    for concept, records in by_concept.items():
        for record in records[: contact_sheet.PER_CONCEPT]:
            picture = decode(made.read(record))
            picture.thumbnail((256, 256), Image.Resampling.LANCZOS)
            pictures.setdefault(concept, []).append(picture)
    contact_sheet.write(found.groups, pictures, staging, title)


def _put_in_place(staging: Path, out: Path) -> None:
    """Swap the finished files in. Until the last rename the dataset says that it is unfinished.

    Evidence of naming and of reference folders, which only `isekai novelty` can make, stays where
    it is about the same pictures.
    """
    home = out / staging.name
    with suppress(DataError):  # none, or a damaged one
        evidence.write(staging, evidence.merged(evidence.read(home), evidence.read(staging)))
    card.withdraw(out)
    files.write_json(home / _MANIFEST, {"kind": "dataset", "complete": False})
    for name in {*_shards(home), *_MADE} - {*_shards(staging), *_MADE}:
        (home / name).unlink(missing_ok=True)
    for name in (*_shards(staging), *_MADE):
        if (home / name).is_dir():
            shutil.rmtree(home / name)
        os.replace(staging / name, home / name)
    os.replace(staging / _MANIFEST, home / _MANIFEST)


def _shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))
