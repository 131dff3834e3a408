"""SHA-256 of files too large to be read twice: what was found is kept by name, size and time."""

import hashlib
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from isekai import files
from isekai.errors import DataError

_TABLE = "create table if not exists digests (place text primary key, sha256 text) without rowid"

_SETTLED = 2.0
"""Seconds after a change before what is found is kept: the clocks of file systems are coarse."""


def sha256(paths: Iterable[Path]) -> dict[Path, str]:
    """The SHA-256 of each file, in hexadecimal; links are followed."""
    store = files.cache_folder() / "digests.sqlite"
    with files.explained(store):
        store.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(store, timeout=60)) as disk:
            disk.execute(_TABLE)
            return {path: _remembered(disk, path) for path in paths}
    except sqlite3.Error as error:
        raise DataError(
            f"{store}: {error}; delete this file, or choose another folder with $ISEKAI_CACHE"
        ) from None


def _remembered(disk: sqlite3.Connection, path: Path) -> str:
    with files.explained(path), path.open("rb") as file:
        told = os.fstat(file.fileno())
        place = f"{told.st_size} {told.st_mtime_ns} {os.fsencode(path.resolve())!r}"
        row = disk.execute("select sha256 from digests where place = ?", (place,)).fetchone()
        if row:
            return str(row[0])
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time() - told.st_mtime > _SETTLED:
        disk.execute("insert or replace into digests values (?, ?)", (place, digest))
        disk.commit()
    return digest
