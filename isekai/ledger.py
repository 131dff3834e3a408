"""The ledger of an images folder: what a plan finds there, what it adds, and when it is whole."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from isekai import files
from isekai.errors import DataError
from isekai.finishing import Finished
from isekai.plan import Plan
from isekai.protocols import Judgement, Knowing
from isekai.types import Concept, Group, ImageRecord, ImageRequest

REJECTED = "rejected.jsonl"

_PATH = re.compile(r"[\w-]+/[\w-]+/\d+\.(png|webp)", re.ASCII)
_ASIDE = re.compile(r"rejected/[\w-]+/[\w-]+/\d+-\d+\.(png|webp)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A row of rejected.jsonl: a drawing that was turned down or failed, and what was asked."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    concept: str
    index: int
    reason: str
    given: Mapping[str, Any]
    attempt: int = 0
    again: bool = False
    """True where another seed may do better."""
    path: str | None = None
    """Where the drawing was put aside, relative to the images folder."""
    scores: Mapping[str, float] = field(default_factory=dict)


def is_aside(path: str) -> bool:
    """Whether a drawing that was turned down may be kept there."""
    return bool(_ASIDE.fullmatch(path))


Row = ImageRecord | Refusal
Key = tuple[str, int]
"""A concept's id and an index."""


class Ledger:
    """The rows of an images folder that hold for a plan. Use it with the folder's lock held."""

    def __init__(self, out: Path, plan: Plan, *, force: bool = False) -> None:
        """Read and verify. DataError where `out` holds anything else and `force` is not given."""
        self._out = out
        self._plan = plan
        self._adding = threading.Lock()
        self._wanted = {(r.concept.id, r.index): r for r in plan.requests}
        self._records: dict[Key, ImageRecord] = {}
        self._refused: dict[Key, dict[int, Refusal]] = {}
        self._dropped: list[Row] = []
        before, changed = self._before()
        differences: dict[str, None] = {}
        extra: list[ImageRecord] = []
        for row in self._read():
            key = row.concept, row.index
            request = self._wanted.get(key)
            if request:
                request = plan.again(request, row.attempt)
            found = _differences(plan, request, row, before.get(row.concept)) if request else []
            if request and request.concept.group in changed:
                found.append(f"what its gates know of {request.concept.group} has changed")
            if isinstance(row, Refusal):  # one that no longer holds is no loss
                if request and not found:
                    self._refused.setdefault(key, {})[row.attempt] = row
                else:
                    self._dropped.append(row)
            elif request and not found and self._is_intact(row):
                self._records[key] = row
            else:
                self._dropped.append(row)
                differences.update(dict.fromkeys(found))
                if request is None:
                    extra.append(row)
        if extra and not force:
            raise DataError(
                f"{out}: holds {len(extra)} images that this command does not ask for, such as "
                f"{extra[0].concept} {extra[0].index}; give --force to remove them or another --out"
            )
        if differences and not force:
            raise DataError(
                f"{out}: was drawn otherwise ({'; '.join(list(differences)[:4])}); "
                "give --force to draw again, or another --out"
            )

    def missing(self, concepts: Collection[str] | None = None) -> list[ImageRequest]:
        """What is still to be drawn, of all concepts or of these.

        That is what was never drawn, or was turned down and is not yet given up.
        """
        left = []
        for key, request in self._wanted.items():
            if concepts is not None and key[0] not in concepts:
                continue
            last = self._last_refusal(key)
            if key in self._records or (last and self._is_given_up(last)):
                continue
            left.append(self._plan.again(request, last.attempt + 1) if last else request)
        return left

    def records(self) -> list[ImageRecord]:
        """In the order of the plan, whatever the order of drawing was; so are the refusals."""
        return [self._records[key] for key in self._wanted if key in self._records]

    def refusals(self) -> list[Refusal]:
        """The last refusal of everything that was given up."""
        last = [self._last_refusal(key) for key in self._wanted if key not in self._records]
        return [row for row in last if row and self._is_given_up(row)]

    def acceptance(self) -> dict[str, tuple[int, int]]:
        """Concept -> drawings that were taken, and drawings in all."""
        taken = Counter(row.concept for row in self._records.values())
        turned = Counter(row.concept for row in self._turned_down())
        concepts = dict.fromkeys(concept for concept, _ in self._wanted)
        return {id: (taken[id], taken[id] + turned[id]) for id in concepts}

    def is_complete(self) -> bool:
        """True if the folder is whole as it is, down to its manifest."""
        manifest, groups = self._out / "manifest.json", self._out / "groups.json"
        if self.missing() or self._dropped or not manifest.exists() or not groups.exists():
            return False
        told = files.read_json(manifest, dict[str, object])
        return told.get("request") == self._plan.request and files.read_json(
            groups, list[object]
        ) == files.plain(self._plan.groups)

    def settle(self) -> None:
        """Make the folder hold the rows that stay, and nothing that says otherwise."""
        (self._out / "manifest.json").unlink(missing_ok=True)
        self._write_rows()
        self._sweep()
        files.write_json(self._out / "groups.json", self._plan.groups)

    @contextmanager
    def growing(self) -> Iterator[Callable[[Finished], None]]:
        """A function that puts a drawing into the folder, and then its row into the ledger.

        It may be called from several threads.
        """
        with ExitStack() as stack:
            ledger = stack.enter_context(files.Journal(self._out / "ledger.jsonl"))
            rejected = stack.enter_context(files.Journal(self._out / REJECTED))

            def add(drawing: Finished) -> None:
                row = self._row(drawing)
                if row.path:
                    files.write_bytes(self._out / row.path, drawing.data)
                with self._adding:
                    (rejected if isinstance(row, Refusal) else ledger).append([row])
                    self._keep(row)

            yield add

    def turn_down(self, judged: Sequence[tuple[ImageRecord, Judgement]]) -> None:
        """Take images back that were in the ledger; a kill between any two steps loses nothing."""
        for record, judgement in judged:
            request = self._plan.again(self._wanted[record.concept, record.index], record.attempt)
            aside = self._plan.aside(request)
            files.write_bytes(self._out / aside, (self._out / record.path).read_bytes())
            self._keep(
                Refusal(
                    concept=record.concept,
                    index=record.index,
                    reason=judgement.reason,
                    given=self._plan.given(request),
                    attempt=record.attempt,
                    again=True,
                    path=aside,
                    scores={**record.scores, **judgement.scores},
                )
            )
        self._write_rows()
        for record, _ in judged:
            (self._out / record.path).unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the rows in order and write the manifest: from now on the folder is whole."""
        self._write_rows()
        self._sweep()
        manifest = {
            "kind": "images",
            "complete": True,
            "images": len(self.records()),
            "rejected": len(self.refusals()),
            "request": self._plan.request,
            "asked": self._plan.asked,
            "environment": files.environment("numpy", "pillow"),
        }
        if any(taken < drawn for taken, drawn in self.acceptance().values()):
            manifest["acceptance"] = self.acceptance()
        files.write_json(self._out / "manifest.json", manifest)

    def _keep(self, row: Row) -> None:
        """A refusal speaks against the record of the same attempt: it was written later."""
        key = row.concept, row.index
        if isinstance(row, ImageRecord):
            self._records[key] = row
            return
        self._refused.setdefault(key, {})[row.attempt] = row
        record = self._records.get(key)
        if record and record.attempt <= row.attempt:
            del self._records[key]

    def _last_refusal(self, key: Key) -> Refusal | None:
        rows = self._refused.get(key)
        return rows[max(rows)] if rows else None

    def _is_given_up(self, row: Refusal) -> bool:
        return not row.again or row.attempt + 1 >= self._plan.tries

    def _turned_down(self) -> list[Refusal]:
        """All refusals, in the order of the plan and of the attempts."""
        found = [self._refused[key] for key in self._wanted if key in self._refused]
        return [rows[attempt] for rows in found for attempt in sorted(rows)]

    def _read(self) -> Iterator[Row]:
        """Rows as they are; of an attempt that is in both files, the refusal was written last."""
        path = self._out / REJECTED
        refused = files.read_jsonl(path, Refusal)
        for row in refused:
            if row.path is not None and not is_aside(row.path):
                raise DataError(f"{path}: '{row.path}' is not the path of a rejected drawing")
        yield from refused
        taken_back = {(row.concept, row.index, row.attempt) for row in refused}
        path = self._out / "ledger.jsonl"
        for record in files.read_jsonl(path, ImageRecord):
            if not _PATH.fullmatch(record.path):
                raise DataError(f"{path}: '{record.path}' is not the path of an image")
            if (record.concept, record.index, record.attempt) in taken_back:
                self._dropped.append(record)
            else:
                yield record

    def _before(self) -> tuple[dict[str, Concept], set[str]]:
        """Concepts of the rows that are there, and groups that a gate would now see otherwise."""
        path = self._out / "groups.json"
        groups = files.read_json(path, tuple[Group, ...]) if path.exists() else ()
        then = {group.id: _known(group) for group in groups}
        knowing = any(isinstance(gate, Knowing) for gate in self._plan.gates.values())
        now = {group.id: _known(group) for group in self._plan.groups} if knowing else {}
        changed = {id for id, known in now.items() if id in then and known != then[id]}
        return {concept.id: concept for group in groups for concept in group.concepts}, changed

    def _is_intact(self, record: ImageRecord) -> bool:
        path = self._out / record.path
        return path.is_file() and files.sha256(path.read_bytes()) == record.id

    def _row(self, drawing: Finished) -> Row:
        request = drawing.request
        concept, index, given = request.concept.id, request.index, self._plan.given(request)
        if drawing.reason:
            return Refusal(
                concept=concept,
                index=index,
                reason=drawing.reason,
                given=given,
                attempt=request.attempt,
                again=drawing.again,
                path=self._plan.aside(request) if drawing.data else None,
                scores=drawing.scores,
            )
        return ImageRecord(
            id=files.sha256(drawing.data),
            path=self._plan.path(request),
            concept=concept,
            index=index,
            width=drawing.width,
            height=drawing.height,
            drawn_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            negative_prompt=request.concept.negative_prompt,
            attempt=request.attempt,
            scores=drawing.scores,
            made=drawing.made,
            **given,
        )

    def _sweep(self) -> None:
        """Remove images that no row speaks of: what was dropped, or left behind by a kill."""
        known = {row.path for row in self._records.values()}
        known |= {row.path for row in self._turned_down() if row.path}
        for pattern, ours in (("*/*/*.*", _PATH), ("rejected/*/*/*.*", _ASIDE)):
            for path in self._out.glob(pattern):
                name = path.relative_to(self._out).as_posix()
                if ours.fullmatch(name) and name not in known:
                    path.unlink()

    def _write_rows(self) -> None:
        """The refusals first: an image that was taken back must not come up again."""
        if self._turned_down():
            files.write_jsonl(self._out / REJECTED, self._turned_down())
        else:
            (self._out / REJECTED).unlink(missing_ok=True)
        files.write_jsonl(self._out / "ledger.jsonl", self.records())


def _differences(plan: Plan, request: ImageRequest, row: Row, before: Concept | None) -> list[str]:
    """In what the row's request was another one, in words."""
    found = []
    if before is None or _drawn_from(before) != _drawn_from(request.concept):
        found.append(f"the spec of {request.concept.id} has changed")
    now = plan.given(request)
    then = row.given if isinstance(row, Refusal) else {key: getattr(row, key) for key in now}
    found += [f"another {key}" for key in ("seed", "prompt") if then.get(key) != now[key]]
    old, new = {**then, **then.get("settings", {})}, {**now, **now["settings"]}
    for key in sorted({*old, *new} - {"seed", "prompt", "settings"}):
        if old.get(key) != new.get(key):
            found.append(f"{key} {old.get(key)}, now {new.get(key)}")
    return found


def _known(group: Group) -> list[tuple[object, ...]]:
    """What a gate can know of a group."""
    return [(c.id, c.name, c.role, c.definition, c.parents) for c in group.concepts]


def _drawn_from(concept: Concept) -> tuple[object, ...]:
    """What of a concept reaches its pictures, apart from the prompt, which the ledger holds."""
    return concept.name, concept.negative_prompt, concept.sketch
