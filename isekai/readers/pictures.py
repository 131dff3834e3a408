"""Pictures of strangers' data sets: each is looked at once, and what was seen is kept on disk."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from isekai import __version__, files, progress
from isekai.dedup import perceptual_hash, pixels_hash
from isekai.errors import DataError
from isekai.images import UnreadableImage, decode
from isekai.sources.folder import MAX_BYTES

_TABLE = "create table if not exists seen (place text primary key, what text) without rowid"

_CHUNK = 256
"""Pictures between two writes: a killed run looks again at no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A picture that can be used."""

    id: str
    """SHA-256 of its bytes."""
    area: int
    """Pixels."""
    pixels: str
    """SHA-256 of the decoded picture."""
    hash: str
    """`dedup.perceptual_hash`, hexadecimal."""


Looked = Seen | str
"""What was seen, or why the picture can't be used."""


class Shelf:
    """Pictures that lie in files of their own, by id."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths

    def fetch(self, image_id: str) -> bytes:
        path = self._paths[image_id]
        try:
            with files.explained(path):
                return path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path}: was there before and is gone; put it back") from None


def look_at(paths: Iterable[Path], root: Path) -> dict[Path, Looked]:
    """What is seen in each file; none is opened that is no file below `root`, links resolved."""
    root = root.resolve()
    found: dict[Path, Looked] = {}
    places: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        try:
            places[path] = _place(path, root)
        except UnreadableImage as error:
            found[path] = str(error)
    seen = look({place: path.read_bytes for path, place in places.items()})
    return found | {path: seen[place] for path, place in places.items()}


def look(places: Mapping[str, Callable[[], bytes]]) -> dict[str, Looked]:
    """What is seen at each place. A place names its content: it is read only if it is new."""
    keys = {place: f"{__version__} {place}" for place in places}
    with _memory() as disk:
        found = _remembered(disk, keys)
        new = [place for place in places if place not in found]
        pool = ThreadPoolExecutor(os.cpu_count())
        with progress.bar(len(places), len(found)) as advance, pool:
            for start in range(0, len(new), _CHUNK):
                chunk = new[start : start + _CHUNK]
                looked = pool.map(_look, [places[place] for place in chunk])
                for place, (what, stays) in zip(chunk, looked, strict=True):
                    found[place] = what
                    if stays:
                        row = (keys[place], json.dumps(files.plain(what)))
                        disk.execute("insert or replace into seen values (?, ?)", row)
                    advance(what="pictures")
                disk.commit()
    return found


def _look(read: Callable[[], bytes]) -> tuple[Looked, bool]:
    """What is seen, and whether it will be the same the next time."""
    try:
        data = read()
    except UnreadableImage as error:
        return str(error), False
    except OSError as error:
        return error.strerror or type(error).__name__, False
    try:
        picture = decode(data)
    except UnreadableImage as error:
        return str(error), True
    seen = Seen(
        id=files.sha256(data),
        area=picture.width * picture.height,
        pixels=pixels_hash(picture),
        hash=perceptual_hash(picture).tobytes().hex(),
    )
    return seen, True


def _place(path: Path, root: Path) -> str:
    """The file as size, time and full name; UnreadableImage for what must not be opened."""
    try:
        real = path.resolve()
        if not real.is_relative_to(root):
            raise UnreadableImage(f"leads out of {root}")
        if not real.is_file():
            raise UnreadableImage("not a file" if real.exists() else "no such file")
        told = real.stat()
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from None
    except (RuntimeError, ValueError):  # a loop of links before Python 3.13; no name of a file
        raise UnreadableImage("not a file") from None
    if told.st_size > MAX_BYTES:
        raise UnreadableImage(f"{told.st_size:,} bytes; too large")
    return f"{told.st_size} {told.st_mtime_ns} {os.fsencode(real)!r}"


@contextmanager
def _memory() -> Iterator[sqlite3.Connection]:
    """What was seen in earlier runs, by place."""
    file = files.cache_folder() / "pictures.sqlite"
    with files.explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(file, timeout=60)) as disk:
            disk.execute(_TABLE)
            yield disk
    except sqlite3.Error as error:
        raise DataError(
            f"{file}: {error}; delete this file, or choose another folder with $ISEKAI_CACHE"
        ) from None


def _remembered(disk: sqlite3.Connection, keys: Mapping[str, str]) -> dict[str, Looked]:
    found: dict[str, Looked] = {}
    for place, key in keys.items():
        row = disk.execute("select what from seen where place = ?", (key,)).fetchone()
        if row:
            what = json.loads(row[0])
            found[place] = what if isinstance(what, str) else Seen(**what)
    return found
