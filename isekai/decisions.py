"""What a person decided about pictures: the file that `isekai review` writes and build obeys.

A row is about one picture, named by the SHA-256 of its file. Rows are only ever added: the last one
about a picture counts, and `undo` takes back the last one that is not taken back yet.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from isekai import files
from isekai.errors import DataError

FILE = "review.jsonl"
"""Beside the manifest of the dataset that was looked at."""

LONGEST_NOTE = 2000
"""Characters."""

Verdict = Literal["keep", "drop", "concept"]
"""It belongs here, it belongs nowhere, or it shows another concept than it should."""

_ID = re.compile(r"[0-9a-f]{64}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is to be done with a picture."""

    image_id: str
    """SHA-256 of its file in the folder of images, also where the dataset stores a smaller one."""
    verdict: Verdict
    concept: str | None = None
    """For `concept`: the full id of what it shows; None if that is none of them: leave it out."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the file: a decision, a note without one (`note`), or a step back (`undo`)."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    image_id: str
    verdict: Literal["keep", "drop", "concept", "note", "undo"]
    concept: str | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.image_id):
            raise ValueError("image_id is not a SHA-256 in hexadecimal")
        if self.concept is not None and self.verdict != "concept":
            raise ValueError(f"'{self.verdict}' names no concept")
        if self.note and self.verdict == "undo":
            raise ValueError("'undo' has no note")
        if len(self.note) > LONGEST_NOTE:
            raise ValueError(f"a note has at most {LONGEST_NOTE} characters")
        for text in (self.note, self.concept or ""):
            if _CONTROL.search(text) or not _is_text(text):
                raise ValueError("there are characters in it that are no text")

    @property
    def decision(self) -> Decision | None:
        """None for a note alone and for a step back."""
        if self.verdict in ("note", "undo"):
            return None
        return Decision(
            image_id=self.image_id,
            verdict=self.verdict,  # type: ignore[arg-type]
            concept=self.concept,
            note=self.note,
        )


class History:
    """All rows so far, and what they come to."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._standing: list[Row] = []
        self._of: dict[str, list[Row]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> None:
        """ValueError for an `undo` of a picture of which nothing stands."""
        mine = self._of.setdefault(row.image_id, [])
        if row.verdict != "undo":
            mine.append(row)
            self._standing.append(row)
        elif mine:
            self._take_off(mine.pop())
        else:
            raise ValueError(f"nothing to undo about image {row.image_id[:12]}")

    def of(self, image_id: str) -> Row | None:
        """What counts about the picture."""
        mine = self._of.get(image_id)
        return mine[-1] if mine else None

    def last(self) -> Row | None:
        """The latest row that is not taken back: what an undo of no picture in particular means."""
        return self._standing[-1] if self._standing else None

    def __iter__(self) -> Iterator[Row]:
        """What counts, a row a picture, in the order in which pictures first came up."""
        return (mine[-1] for mine in self._of.values() if mine)

    def _take_off(self, row: Row) -> None:
        place = next(i for i in reversed(range(len(self._standing))) if self._standing[i] is row)
        del self._standing[place]


def history(path: Path) -> History:
    """The file's rows; none if there is no file. A torn last line, left by a kill, is dropped."""
    found = History()
    for number, row in enumerate(files.read_jsonl(path, Row), start=1):
        try:
            found.add(row)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: {error}; take the line out") from None
    return found


def read(path: Path) -> dict[str, Decision]:
    """Image id -> what counts about it, without pictures that only have a note."""
    return {row.image_id: decision for row in history(path) if (decision := row.decision)}


def digest(decided: Mapping[str, Decision]) -> str:
    """Changes with whatever was decided, not with the order; empty where nothing was decided."""
    if not decided:
        return ""
    rows = [files.plain(decided[image_id]) for image_id in sorted(decided)]
    return files.sha256(json.dumps(rows, sort_keys=True).encode())


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can spell it, no file can hold it
        return False
    return True
