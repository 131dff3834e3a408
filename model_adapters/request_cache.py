"""Answers of servers on disk, so that no request is paid for twice."""

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from isekai.errors import DataError
from isekai.files import cache_folder, explained, parse, plain
from model_adapters.spending import Tokens

_TABLE = """
    create table if not exists answers (request text primary key, answer text not null)
    without rowid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server said to one request."""

    text: str
    finish: str | None
    tokens: Tokens | None


class RequestCache:
    """Request -> answer, by the SHA-256 of where a request goes and of all its bytes.

    A request's bytes hold the model, every parameter, every message and every image, but no key:
    that travels in a header. Only answers are kept, failures never. Many threads and processes may
    use one file.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.file = (folder or cache_folder()) / "requests.sqlite"
        self._lock = threading.Lock()
        self._disk: sqlite3.Connection | None = None

    def get(self, request: str) -> Answer | None:
        with self._open() as disk:
            found = disk.execute(
                "select answer from answers where request = ?", (request,)
            ).fetchone()
        return parse(Answer, json.loads(found[0]), f"{self.file}: {request}") if found else None

    def put(self, request: str, answer: Answer) -> None:
        with self._open() as disk, disk:
            disk.execute(
                "insert or ignore into answers values (?, ?)",
                (request, json.dumps(plain(answer))),
            )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                self._disk = self._disk or self._connect()
                yield self._disk
        except sqlite3.Error as error:
            raise DataError(
                f"{self.file}: {error}; delete this file, choose another folder with -o cache=…, "
                "or do without: -o cache=false"
            ) from None

    def _connect(self) -> sqlite3.Connection:
        with explained(self.file):
            self.file.parent.mkdir(parents=True, exist_ok=True)
        disk = sqlite3.connect(self.file, timeout=60, check_same_thread=False)
        weakref.finalize(self, disk.close)
        # A reader never waits for a writer, and a commit for the disk only when the log is full:
        # losing power may lose the last answers, never the file.
        disk.execute("pragma journal_mode = wal")
        disk.execute("pragma synchronous = normal")
        disk.execute(_TABLE)
        return disk
