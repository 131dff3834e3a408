"""Collects what is wrong with downloaded files, however much that is and whatever it says."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from isekai import files
from isekai.errors import DataError

T = TypeVar("T")

FEW = 20
"""So many problems of one kind are named for each file; the others are counted."""

TEXT_BYTES = 100_000_000
"""A larger text is not read: the files of ten thousand pictures take a tenth of it."""

_LONGEST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file, and what is wrong with it, in one line of printable text."""

    path: str
    what: str


class Findings:
    """Problems, in the order in which they were found."""

    def __init__(self) -> None:
        self._found: dict[tuple[Path, str], list[str]] = {}
        self._counts: Counter[tuple[Path, str]] = Counter()

    def __len__(self) -> int:
        return self._counts.total()

    def add(self, path: Path, what: str, *, kind: str = "") -> None:
        """Of those of one `kind` in a file the first few are kept."""
        key = (path, kind or what)
        self._counts[key] += 1
        if self._counts[key] <= FEW:
            self._found.setdefault(key, []).append(what)

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Take down a DataError, a problem for each of its lines, and go on behind the block."""
        try:
            yield
        except DataError as error:
            for line in str(error).splitlines():
                self.add(path, line.removeprefix(f"{path}: "), kind="refused")

    def json(self, path: Path, kind: type[T]) -> T | None:
        """The file as `kind`; None, and its problems, if it is not one."""
        found: T | None = None
        with self.of(path):
            if self.text(path):
                found = files.read_json(path, kind)
        return found

    def jsonl(self, path: Path, kind: type[T]) -> list[T] | None:
        """All rows as `kind`, in a file whose last line has an end; else None and its problems."""
        found: list[T] | None = None
        with self.of(path):
            if self.text(path):
                if not files.read_text(path).endswith("\n") and path.stat().st_size:
                    raise DataError(f"{path}: its last line has no end")
                found = files.read_jsonl(path, kind)
        return found

    def text(self, path: Path) -> bool:
        """True if the file can be read; else why not is a problem."""
        if what := refusal(path):
            self.add(path, what)
        return not what

    def problems(self) -> tuple[Problem, ...]:
        rows = []
        for key, found in self._found.items():
            path = printable(str(key[0]))
            rows += [Problem(path=path, what=printable(what)) for what in found]
            if more := self._counts[key] - len(found):
                rows.append(Problem(path=path, what=f"and {more:,} more like these"))
        return tuple(rows)


def refusal(path: Path) -> str:
    """Why the text is not to be read; empty if it may be."""
    if not path.is_file():
        return "is no file" if path.exists() else "no such file"
    size = path.stat().st_size
    return f"{size:,} bytes; at most {TEXT_BYTES:,} are read" if size > TEXT_BYTES else ""


def printable(text: str) -> str:
    """In one line that steers no terminal, and not without end."""
    shown = "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:_LONGEST])
    return shown if len(text) <= _LONGEST else shown[:-1] + "…"
