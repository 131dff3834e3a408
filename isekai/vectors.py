"""Vectors on disk, in half precision: what an embedder made of a picture or a text, kept once.

A SQLite file, so that a kill leaves whole rows or none and several processes may use it at once.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isekai.errors import DataError
from isekai.files import explained

Vector = NDArray[np.float16]

LIMIT = 2_000_000_000
"""Bytes of rows at which the older half goes: about 700,000 of lite0, 1.8 million of ViT-B-32."""

_TABLE = """
    create table if not exists vectors (
        number integer primary key, key blob not null unique, vector blob not null
    )
"""

_HALVE = """
    delete from vectors where number < (
        select number from vectors order by number limit 1
        offset (select count(*) / 2 from vectors)
    )
"""

_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space and run the same command again to go on",
    sqlite3.SQLITE_BUSY: "another process holds it; run the same command again to go on",
}


class Vectors:
    """The file of this path; it is made when it is first needed.

    Rows that other processes add are seen, and no row ever changes. What is too much goes when the
    file is first opened, never while a run is using it; the room is then used again.
    """

    def __init__(self, path: Path, limit: int = LIMIT) -> None:
        self.path = path
        self._limit = limit
        self._opened = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Vector]:
        """Those of these keys that are kept."""
        with self._disk() as disk:
            asked = ((key, _row(disk, key)) for key in keys)
            return {key: np.frombuffer(row, np.float16) for key, row in asked if row is not None}

    def put(self, rows: Mapping[bytes, Vector]) -> None:
        """All of them or none. A key that is there keeps its row."""
        with self._disk() as disk, disk:
            disk.executemany(
                "insert or ignore into vectors (key, vector) values (?, ?)",
                [(key, vector.tobytes()) for key, vector in rows.items()],
            )

    @contextmanager
    def _disk(self) -> Iterator[sqlite3.Connection]:
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as disk:
                if not self._opened:
                    disk.execute(_TABLE)
                    self._opened = True
                    if _used(disk) > self._limit:
                        with disk:
                            disk.execute(_HALVE)
                yield disk
        except sqlite3.Error as error:
            advice = _ADVICE.get(
                getattr(error, "sqlite_errorcode", 0) & 0xFF,  # without what it says more closely
                "delete this file, or choose another folder with -o cache=… or $ISEKAI_CACHE",
            )
            raise DataError(f"{self.path}: {error}; {advice}") from None


def _row(disk: sqlite3.Connection, key: bytes) -> bytes | None:
    row = disk.execute("select vector from vectors where key = ?", (key,)).fetchone()
    return row[0] if row else None


def _used(disk: sqlite3.Connection) -> int:
    """Bytes of the file that hold something."""
    pages, free, size = (
        disk.execute(f"pragma {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
