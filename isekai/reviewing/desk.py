"""What lies on the desk of a review: the dataset's pictures, what was left out, what was decided.

Any thread may use it. What is decided is in the file before anyone is told that it is.
"""

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Literal

from isekai import decisions, files
from isekai.contact_sheet import kind
from isekai.dataset import Dataset
from isekai.decisions import Row
from isekai.errors import DataError, IsekaiError
from isekai.intake import Rejection
from isekai.reviewing.details import Detail
from isekai.reviewing.pictures import Pictures
from isekai.types import Group


class Refused(IsekaiError):
    """What was asked for can't be: the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the page asks for: a row of decisions, or to take back the last one of all."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    image_id: str | None
    """None with `undo`: whichever picture was decided last."""
    verdict: Literal["keep", "drop", "concept", "note", "undo"]
    concept: str | None = None
    note: str = ""
    since: int = 0
    """What the page knows already; see `Desk.changes`."""


class Desk:
    """Open it with `with`: it holds the folder of the decisions alone."""

    def __init__(
        self,
        dataset: Dataset,
        path: Path,
        *,
        details: Mapping[str, Detail] | None = None,
        left_out: Sequence[Rejection] = (),
        images: Path | None = None,
    ) -> None:
        self.path = path
        self._dataset = dataset
        self._details = details or {}
        self._left_out = left_out
        self._by_place = {_place(told.path): id for id, told in self._details.items() if told.path}
        self._concepts = {c.id for group in dataset.groups for c in group.concepts}
        by_id = {one.image_id: one for one in left_out if one.image_id}
        self.pictures = Pictures(dataset, by_id, images)
        self._decided_as = {  # what a picture is called in the file of decisions
            entry.image_id: self._detail(entry.image_id).original_id or entry.image_id
            for entry in dataset.entries
        } | {id: id for id in by_id}
        self._shown_as = {theirs: ours for ours, theirs in self._decided_as.items()}
        self._lock = threading.Lock()
        self._history = decisions.History()
        self._before: dict[str, decisions.Decision] = {}
        self._changed: list[str] = []
        self._journal: files.Journal | None = None
        self._held = ExitStack()

    def __enter__(self) -> "Desk":
        with ExitStack() as stack:
            stack.enter_context(files.lock(self.path.parent))
            self._history = decisions.history(self.path)
            self._before = self._decided()
            self._journal = stack.enter_context(files.Journal(self.path))
            self._held = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._journal = None
            self._held.close()

    # ------------------------------------------------------------ deciding

    def decide(self, asked: Asked) -> dict[str, Any]:
        """Write it down and answer as `changes`; Refused for what can't be."""
        with self._lock:
            row = self._row(asked)
            if self._journal is None:
                raise DataError("the review has ended; start it again")
            if row.verdict == "undo" and not self._history.of(row.image_id):
                raise Refused("nothing is decided about this picture")
            self._journal.append([row])
            self._history.add(row)
            self._changed.append(row.image_id)
            return {"about": self._shown_as.get(row.image_id), **self._since(asked.since)}

    def changes(self, since: int) -> dict[str, Any]:
        """What has changed after that many rows of this review, and how many there are now."""
        with self._lock:
            return self._since(since)

    def tally(self) -> tuple[int, int]:
        """Pictures decided in all, and those that this review decided otherwise than before."""
        with self._lock:
            now = self._decided()
        other = sum(now.get(id) != self._before.get(id) for id in now.keys() | self._before.keys())
        return len(now), other

    def _row(self, asked: Asked) -> Row:
        if asked.image_id is not None:
            image_id = self._decided_as.get(asked.image_id)
        elif asked.verdict == "undo":
            last = self._history.last()
            image_id = last.image_id if last else None
        else:
            raise Refused("no picture is named")
        if image_id is None:
            raise Refused(
                "no such picture here" if asked.image_id else "nothing is left to take back"
            )
        if asked.concept is not None and asked.concept not in self._concepts:
            raise Refused("no such concept here")
        try:
            return Row(
                image_id=image_id, verdict=asked.verdict, concept=asked.concept, note=asked.note
            )
        except ValueError as error:
            raise Refused(str(error)) from None

    def _decided(self) -> dict[str, decisions.Decision]:
        return {row.image_id: decision for row in self._history if (decision := row.decision)}

    def _since(self, since: int) -> dict[str, Any]:
        changed = dict.fromkeys(self._changed[max(since, 0) :])
        return {"revision": len(self._changed), "states": self._states(changed)}

    def _states(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """What counts about the pictures that are shown; `verdict` is None where nothing does."""
        found = []
        for name in names:
            row = self._history.of(name)
            if name in self._shown_as:
                found.append(
                    {
                        "id": self._shown_as[name],
                        "verdict": row.verdict if row else None,
                        "concept": row.concept if row else None,
                        "note": row.note if row else "",
                    }
                )
        return found

    # ------------------------------------------------------------ showing

    def content(self) -> dict[str, Any]:
        """All that the page shows but the pictures, as what JSON knows."""
        with self._lock:
            states = self._states([row.image_id for row in self._history])
            revision = len(self._changed)
        pictures = list(self._entries())
        return {
            "name": self._dataset.name,
            "file": self.path.name,
            "groups": [_group(group) for group in self._dataset.groups],
            "pictures": pictures,
            "scores": sorted({name for one in pictures for name in one["scores"]}),
            "left_out": [self._rejection(one) for one in self._left_out],
            "states": states,
            "revision": revision,
            "longest_note": decisions.LONGEST_NOTE,
        }

    def _detail(self, image_id: str) -> Detail:
        return self._details.get(image_id, Detail())

    def _entries(self) -> Iterable[dict[str, Any]]:
        for entry in self._dataset.entries:
            told = self._detail(entry.image_id)
            yield {
                "id": entry.image_id,
                "concept": entry.concept,
                "split": entry.split,
                "index": entry.index,
                "prompt": told.prompt,
                "scores": dict(told.scores),
            }

    def _rejection(self, one: Rejection) -> dict[str, Any]:
        return {
            "id": one.image_id,
            "path": one.path,
            "concept": one.concept,
            "reason": one.reason,
            "other": one.other,
            "shown": one.image_id is not None and one.image_id in self.pictures,
            "other_id": self._by_place.get(_place(one.other)) if one.other else None,
        }


def _place(path: str) -> str:
    """A picture's concept and number: one that is stored smaller has another suffix."""
    return path.rpartition(".")[0]


def _group(group: Group) -> dict[str, Any]:
    return {
        "id": group.id,
        "title": group.title,
        "parent": group.parent,
        "concepts": [
            {
                "id": concept.id,
                "name": concept.name,
                "kind": kind(concept),
                "role": concept.role,
                "parents": list(concept.parents),
                "definition": concept.definition,
            }
            for concept in group.concepts
        ],
    }
