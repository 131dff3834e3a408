"""Pictures and rows of a dataset's Parquet files, read when they are asked for."""

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
from isekai.parquet import COLUMNS

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
            with readable(path), pq.ParquetFile(path, metadata=self._footers[path]) as file:
                table = file.read_row_group(number, columns=["image.bytes"])
            self._cache[key] = table["image"].combine_chunks().field("bytes")
            while len(self._cache) > 1 and _size(self._cache.values()) > _CACHE_BYTES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key]


def rows(shard: Path, file: pq.ParquetFile) -> Iterator[tuple[Place, str, int, int]]:
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
            yield Place(shard, number, row), image_id, label, index


@contextmanager
def readable(path: Path) -> Iterator[None]:
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
