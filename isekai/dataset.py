"""A dataset as everything else sees it, and the reader of what `isekai build` writes."""

import hashlib
import json
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from isekai import files, plugins
from isekai.errors import DataError, IsekaiError, did_you_mean
from isekai.parquet import SPLITS
from isekai.shards import Place, Shards, of_split, readable, rows
from isekai.types import Concept, EncodedImage, Group, Role, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One picture of a concept, without its pixels.

    A picture has one split. It has an entry for each concept that it shows, which are several only
    in imports whose groups share concepts.
    """

    image_id: str
    concept: str
    """The concept's full id."""
    role: Role
    split: Split
    index: int
    """The picture's number within its concept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One published question: a query, and the pictures of either label in published order."""

    line: int
    """Its number among the published questions, from 0."""
    query: str
    """Image id."""
    concept: str
    """What the query shows, by full id: one of the labels."""
    labels: tuple[str, str]
    """The positive concept and the negative one."""
    positives: tuple[str, ...]
    """Image ids, as are the negatives."""
    negatives: tuple[str, ...]


NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""What a dataset may be called; its folder, and the Hub's config, has the same name."""

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """manifest.json of a finished dataset; it is written last."""

    kind: Literal["dataset"]
    complete: bool
    name: str
    title: str
    fingerprint: str
    images: int
    splits: Mapping[Split, int]
    rejected: int
    """How many pictures were left out."""
    request: Mapping[str, object]
    """What `isekai generate` was asked for."""
    settings: Mapping[str, object]
    """What `isekai build` was asked for."""
    environment: Mapping[str, str]
    checks: Mapping[str, object]
    """What building it measured."""


class Dataset:
    """Groups, entries and pictures, wherever these lie; `load` opens one."""

    def __init__(
        self,
        *,
        path: Path,
        fingerprint: str,
        groups: Sequence[Group],
        entries: Sequence[Entry],
        fetch: Callable[[str], bytes],
        lists: tuple[Listed, ...] = (),
        name: str = "",
    ) -> None:
        """`fetch` gives a picture's file by its id; any thread may call it."""
        self.path = path
        self.name = name or path.resolve().name
        self.fingerprint = fingerprint
        self.groups = tuple(groups)
        self.entries = tuple(entries)
        self.lists = lists
        self._fetch = fetch
        self._concepts = {c.id: c for group in groups for c in group.concepts}
        self._known = {entry.image_id for entry in entries}
        for one in lists:
            self._known.update((one.query, *one.positives, *one.negatives))
        self._ids: dict[tuple[str, Split], list[str]] = {}
        for entry in entries:
            self._ids.setdefault((entry.concept, entry.split), []).append(entry.image_id)

    @classmethod
    def open(cls, path: Path) -> "Dataset":
        """What `isekai build` wrote: all but the pictures; DataError says what is wrong.

        `path` is the dataset's own folder, or one that holds it and no other.
        """
        path = _folder(path)
        told = manifest(path)
        groups = files.read_json(path / "groups.json", tuple[Group, ...])
        entries, places, footers = _entries(path, groups)
        if fingerprint(groups, entries) != told.fingerprint:
            raise DataError(
                f"{path}: its files are not those it was built with; build or download it again"
            )
        return cls(
            path=path,
            name=told.name,
            fingerprint=told.fingerprint,
            groups=groups,
            entries=entries,
            fetch=Shards(places, footers).fetch,
        )

    def ids(self, concept: str, split: Split) -> tuple[str, ...]:
        """The ids of the concept's pictures in the split, by index."""
        self.concept(concept)
        return tuple(self._ids.get((concept, split), ()))

    def concept(self, id: str) -> Concept:
        if id not in self._concepts:
            raise DataError(f"{self.path}: no concept '{id}'{did_you_mean(id, self._concepts)}")
        return self._concepts[id]

    def image(self, image_id: str) -> EncodedImage:
        """The picture's file as it is stored, checked against its id."""
        if image_id not in self._known:
            raise DataError(f"{self.path}: no image has the id '{image_id}'")
        data = self._fetch(image_id)
        if files.sha256(data) != image_id:
            raise DataError(
                f"{self.path}: the bytes of image {image_id[:12]} are damaged; build or download "
                "the dataset again"
            )
        return EncodedImage(id=image_id, data=data)


def manifest(path: Path) -> Manifest:
    """The manifest of the finished dataset in `path`; DataError says what is there instead."""
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise DataError(f"{path}: {problem}; make a dataset with `isekai build`")
    where = path / _MANIFEST
    if not where.exists():
        raise DataError(f"{path}: not a dataset (no {_MANIFEST}); make one with `isekai build`")
    raw = files.read_json(where, dict[str, object])
    kind = raw.get("kind")
    if kind == "images":
        raise DataError(f"{path}: a folder of images; turn it into a dataset with `isekai build`")
    if kind != "dataset":
        raise DataError(f"{where}: kind is {kind!r}, expected 'dataset'")
    if not raw.get("complete"):
        raise DataError(f"{path}: not finished; run the same `isekai build` command again")
    return files.parse(Manifest, raw, str(where))


def configs(root: Path) -> dict[str, Path]:
    """The datasets in the folder by name, finished or not; folders of other steps are none."""
    found = {}
    for where in sorted(root.glob(f"*/{_MANIFEST}")):
        if NAME.fullmatch(where.parent.name) and is_dataset(where.parent):
            found[where.parent.name] = where.parent
    return found


def is_dataset(folder: Path) -> bool:
    """True as well where a manifest can't be read: whoever opens it says why."""
    try:
        told = files.read_json(folder / _MANIFEST, dict[str, object])
    except DataError:
        return (folder / _MANIFEST).exists()
    return told.get("kind") == "dataset"


def load(spec: str | Path) -> Dataset:
    """A dataset folder by its path, or another data set as `reader:argument?key=value&key=value`.

    A folder of that very name goes before a reader. Values are percent-decoded and read as
    `plugins.options` reads them; a plus sign is one. `hf://owner/name[@revision][/config]` is what
    was pushed to the Hub.
    """
    reader = re.fullmatch(r"([A-Za-z][\w-]+):(.*)", str(spec), re.S)
    if isinstance(spec, Path) or not reader or Path(spec).is_dir():
        return Dataset.open(Path(spec))
    name, rest = reader.groups()
    if name == "hf" and rest.startswith("//"):
        from isekai.hub import published  # which reads manifests through this module

        return published.load(str(spec))
    argument, _, query = rest.partition("?")
    try:
        pairs = urllib.parse.parse_qsl(
            query.replace("+", "%2B"), keep_blank_values=True, strict_parsing=True, errors="strict"
        )
    except ValueError as error:
        raise IsekaiError(
            f"data '{spec}': what follows the ? is not key=value&key=value ({error})"
        ) from None
    options = plugins.options([f"{key}={value}" for key, value in pairs])
    if len(options) < len(pairs):
        raise IsekaiError(f"data '{spec}': an option is given twice")
    found: Dataset = plugins.build("readers", f"{name}:{argument}", options)
    return found


def fingerprint(
    groups: Sequence[Group], entries: Iterable[Entry], lists: Iterable[Listed] = ()
) -> str:
    """A dataset's identity: which pictures show which concept in which split, and what those are.

    It does not depend on the order of entries, on how they are stored or where. Published questions
    count with their order.
    """
    digest = hashlib.sha256(json.dumps(files.plain(groups), sort_keys=True).encode())
    for one in sorted(entries, key=lambda entry: (entry.image_id, entry.concept)):
        digest.update(f"\n{one.image_id} {one.concept} {one.index} {one.split}".encode())
    for asked in lists:
        pictures = [asked.query, *asked.positives, "/", *asked.negatives]
        words = [str(asked.line), asked.concept, *asked.labels, *pictures]
        digest.update(f"\nasked {' '.join(words)}".encode())
    return digest.hexdigest()


# ---------------------------------------------------------------- reading


def _folder(path: Path) -> Path:
    """`path`, or the only dataset in it."""
    if (path / _MANIFEST).exists():
        return path
    inside = configs(path)
    if len(inside) > 1:
        raise DataError(
            f"{path}: holds several datasets; give one: {', '.join(map(str, inside.values()))}"
        )
    return next(iter(inside.values()), path)


def _entries(
    path: Path, groups: Sequence[Group]
) -> tuple[tuple[Entry, ...], dict[str, Place], dict[Path, pq.FileMetaData]]:
    concepts = [concept for group in groups for concept in group.concepts]
    places: dict[str, Place] = {}
    footers: dict[Path, pq.FileMetaData] = {}
    keyed: list[tuple[int, Entry]] = []
    for split in SPLITS:
        for shard in of_split(path, split):
            with readable(shard), pq.ParquetFile(shard) as file:
                footers[shard] = file.metadata
                for place, image_id, label, index in rows(shard, file):
                    if not 0 <= label < len(concepts):
                        raise DataError(f"{shard}: concept {label} is not in groups.json")
                    if image_id in places:
                        raise DataError(f"{shard}: image {image_id} is in the dataset twice")
                    places[image_id] = place
                    concept = concepts[label]
                    entry = Entry(
                        image_id=image_id,
                        concept=concept.id,
                        role=concept.role,
                        split=split,
                        index=index,
                    )
                    keyed.append((label, entry))
    keyed.sort(key=lambda pair: (pair[0], pair[1].index, pair[1].image_id))
    return tuple(entry for _, entry in keyed), places, footers
