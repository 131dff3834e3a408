"""Pictures and rows of a dataset's Parquet files, read when they are asked for."""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from isekai import files
from isekai.errors import DataError
from isekai.parquet import COLUMNS, MOST, file
from isekai.types import Split

_CACHE_BYTES = 256_000_000
"""Pictures of the row groups read last are kept up to this many bytes."""


class Place(NamedTuple):
    """Where a picture lies."""

    path: Path
    row_group: int
    row: int


class Shards:
    """The pictures in a dataset's Parquet files. The row groups read last stay in memory."""

    def __init__(
        self, places: Mapping[str, Place], footers: Mapping[Path, pq.FileMetaData]
    ) -> None:
        self._places = places
        self._footers = footers
        self._cache: OrderedDict[tuple[Path, int], pa.Array] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, image_id: str) -> bytes:
        place = self._places[image_id]
        with self._lock:
            pictures = self._row_group(place.path, place.row_group)
        return pictures[place.row].as_py() or b""

    def _row_group(self, path: Path, number: int) -> pa.Array:
        """[rows]: the pictures' bytes."""
        key = (path, number)
        if key not in self._cache:
            with readable(path), pq.ParquetFile(path, metadata=self._footers[path]) as opened:
                table = opened.read_row_group(number, columns=["image.bytes"])
            self._cache[key] = table["image"].combine_chunks().field("bytes")
            while len(self._cache) > 1 and _size(self._cache.values()) > _CACHE_BYTES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


class Listing(NamedTuple):
    """A split's files by their names, none of which is opened."""

    found: list[Path]
    missing: list[str]
    odd: list[str]
    """Names that don't go with the others."""


def listing(folder: Path, split: Split) -> Listing:
    """What is there of the split's files; their names tell how many there are to be."""
    found = {path.name: path for path in sorted(folder.glob(f"{split}-*.parquet"))}
    last = re.search(r"-of-([0-9]{5})\.parquet$", max(found, default=""))
    wanted = [file(split, number, int(last[1])) for number in range(int(last[1]))] if last else []
    return Listing(
        [found[name] for name in wanted if name in found],
        [name for name in wanted if name not in found] or ([] if found else [file(split)]),
        sorted(found.keys() - set(wanted)),
    )


def of_split(folder: Path, split: Split) -> list[Path]:
    """The split's files, all of them and in order, else DataError."""
    found, missing, odd = listing(folder, split)
    if missing:
        name = missing[0] if found else f"{split}-*.parquet"
        raise DataError(f"{folder}: {name} is missing; build or download it again")
    if odd:
        raise DataError(f"{folder}: {odd[0]} is none of its files; build or download it again")
    return found


def rows(shard: Path, opened: pq.ParquetFile) -> Iterator[tuple[Place, str, int, int]]:
    """Place, image id, concept label and index of every row."""
    found = opened.schema_arrow
    for name in ("image", "image_id", "concept", "index"):
        expected = COLUMNS[name][0]
        if name not in found.names:
            raise DataError(f"{shard}: has no column '{name}'; build the dataset again")
        if found.field(name).type != expected:
            raise DataError(
                f"{shard}: column '{name}' is {found.field(name).type}, expected {expected}"
            )
    for number in range(opened.metadata.num_row_groups):
        row = 0
        for batch in opened.iter_batches(
            MOST, row_groups=[number], columns=["image_id", "concept", "index"]
        ):
            columns = (batch[name].to_pylist() for name in ("image_id", "concept", "index"))
            for image_id, label, index in zip(*columns, strict=True):
                if image_id is None or label is None or index is None:
                    raise DataError(
                        f"{shard}: row {row} of row group {number} has no id or concept"
                    )
                yield Place(shard, number, row), image_id, label, index
                row += 1


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say of a damaged Parquet file that it is damaged."""
    try:
        with files.explained(path):
            yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; build or download the dataset again") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path}: damaged ({reason}); build or download the dataset again"
        ) from error


def _size(arrays: Iterable[pa.Array]) -> int:
    return sum(array.nbytes for array in arrays)
