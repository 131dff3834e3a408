"""Reads a dataset folder: its groups and entries at once, its pictures when asked."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from isekai import files
from isekai.errors import DataError, did_you_mean
from isekai.parquet import COLUMNS, SPLITS
from isekai.types import Concept, EncodedImage, Group, Role, Split

_CACHE_BYTES = 256_000_000
"""Pictures of the row groups read last are kept up to this many bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One picture of a dataset, without its pixels."""

    image_id: str
    concept: str
    """The concept's full id."""
    role: Role
    split: Split
    index: int
    """The picture's number within its concept."""


class _Place(NamedTuple):
    path: Path
    row_group: int
    row: int


class Dataset:
    """A dataset folder as `isekai build` writes it; make one with `Dataset.open`."""

    def __init__(
        self,
        *,
        path: Path,
        fingerprint: str,
        groups: tuple[Group, ...],
        entries: tuple[Entry, ...],
        places: dict[str, _Place],
        footers: dict[Path, pq.FileMetaData],
    ) -> None:
        self.path = path
        self.name = path.resolve().name
        self.fingerprint = fingerprint
        self.groups = groups
        self.entries = entries
        self._concepts = {c.id: c for group in groups for c in group.concepts}
        self._places = places
        self._footers = footers
        self._cache: OrderedDict[tuple[Path, int], pa.Array] = OrderedDict()
        self._ids: dict[tuple[str, Split], list[str]] = {}
        for entry in entries:
            self._ids.setdefault((entry.concept, entry.split), []).append(entry.image_id)

    @classmethod
    def open(cls, path: Path) -> "Dataset":
        """Read everything but the pictures; DataError with what is wrong and what to do."""
        manifest = _manifest(path)
        groups = files.read_json(path / "groups.json", tuple[Group, ...])
        entries, places, footers = _entries(path, groups)
        if fingerprint(groups, entries) != manifest.fingerprint:
            raise DataError(
                f"{path}: its files are not those it was built with; build or download it again"
            )
        return cls(
            path=path,
            fingerprint=manifest.fingerprint,
            groups=groups,
            entries=entries,
            places=places,
            footers=footers,
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
        place = self._places.get(image_id)
        if place is None:
            raise DataError(f"{self.path}: no image has the id '{image_id}'")
        data: bytes | None = self._row_group(place.path, place.row_group)[place.row].as_py()
        if data is None or files.sha256(data) != image_id:
            raise DataError(
                f"{place.path}: the bytes of image {image_id[:12]} are damaged; build or download "
                "the dataset again"
            )
        return EncodedImage(id=image_id, data=data)

    def _row_group(self, path: Path, number: int) -> pa.Array:
        """[rows]: the pictures' bytes. The groups read last stay in memory."""
        key = (path, number)
        if key not in self._cache:
            with _readable(path), pq.ParquetFile(path, metadata=self._footers[path]) as file:
                table = file.read_row_group(number, columns=["image.bytes"])
            self._cache[key] = table["image"].combine_chunks().field("bytes")
            while len(self._cache) > 1 and _size(self._cache.values()) > _CACHE_BYTES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


def fingerprint(groups: Sequence[Group], entries: Iterable[Entry]) -> str:
    """A dataset's identity: which pictures show which concept in which split, and what those are.

    It does not depend on the order of entries or on how they are stored.
    """
    digest = hashlib.sha256(json.dumps(files.plain(groups), sort_keys=True).encode())
    for one in sorted(entries, key=lambda entry: entry.image_id):
        digest.update(f"\n{one.image_id} {one.concept} {one.index} {one.split}".encode())
    return digest.hexdigest()


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manifest:
    kind: Literal["dataset"]
    complete: bool
    fingerprint: str
    images: int
    splits: dict[Split, int]
    rejected: int
    settings: dict[str, object]
    environment: dict[str, str]
    checks: dict[str, object]


def _manifest(path: Path) -> _Manifest:
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "no such folder"
        raise DataError(f"{path}: {problem}; make a dataset with `isekai build`")
    where = path / "manifest.json"
    if not where.exists():
        raise DataError(f"{path}: not a dataset (no manifest.json); make one with `isekai build`")
    raw = files.read_json(where, dict[str, object])
    kind = raw.get("kind")
    if kind == "images":
        raise DataError(f"{path}: a folder of images; turn it into a dataset with `isekai build`")
    if kind != "dataset":
        raise DataError(f"{where}: kind is {kind!r}, expected 'dataset'")
    if not raw.get("complete"):
        raise DataError(f"{path}: not finished; run the same `isekai build` command again")
    return files.parse(_Manifest, raw, str(where))


def _entries(
    path: Path, groups: Sequence[Group]
) -> tuple[tuple[Entry, ...], dict[str, _Place], dict[Path, pq.FileMetaData]]:
    concepts = [concept for group in groups for concept in group.concepts]
    places: dict[str, _Place] = {}
    footers: dict[Path, pq.FileMetaData] = {}
    keyed: list[tuple[int, Entry]] = []
    for split in SPLITS:
        shards = sorted((path / "data").glob(f"{split}-*.parquet"))
        if not shards:
            raise DataError(f"{path}: data/{split}-*.parquet is missing; build it again")
        for shard in shards:
            with _readable(shard), pq.ParquetFile(shard) as file:
                footers[shard] = file.metadata
                for place, image_id, label, index in _rows(shard, file):
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


def _rows(shard: Path, file: pq.ParquetFile) -> Iterator[tuple[_Place, str, int, int]]:
    """Place, image id, concept label and index of every row."""
    found = file.schema_arrow
    for name in ("image", "image_id", "concept", "index"):
        expected = COLUMNS[name][0]
        if name not in found.names:
            raise DataError(f"{shard}: has no column '{name}'; build the dataset again")
        if found.field(name).type != expected:
            raise DataError(
                f"{shard}: column '{name}' is {found.field(name).type}, expected {expected}"
            )
    for number in range(file.metadata.num_row_groups):
        table = file.read_row_group(number, columns=["image_id", "concept", "index"])
        columns = (table[name].to_pylist() for name in ("image_id", "concept", "index"))
        for row, (image_id, label, index) in enumerate(zip(*columns, strict=True)):
            if image_id is None or label is None or index is None:
                raise DataError(f"{shard}: row {row} of row group {number} has no id or concept")
            yield _Place(shard, number, row), image_id, label, index


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Say of a damaged Parquet file that it is damaged."""
    try:
        with files.explained(path):
            yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; build or download the dataset again") from None
    except (pa.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"{path}: damaged ({reason}); build or download the dataset again"
        ) from error


def _size(arrays: Iterable[pa.Array]) -> int:
    return sum(array.nbytes for array in arrays)
