"""The ledger of an images folder: what a plan finds there, what it adds, and when it is whole."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from isekai import files
from isekai.drawing import Result
from isekai.errors import DataError
from isekai.images import Format
from isekai.protocols import ImageSource, Rejected
from isekai.types import Concept, Group, ImageRecord, ImageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be drawn, and with what."""

    source: ImageSource
    name: str
    """The source's name, as recorded in the ledger."""
    why: str
    groups: tuple[Group, ...]
    requests: tuple[ImageRequest, ...]
    """In the order of the ledger: by concept, then by index."""
    settings: Mapping[str, object]
    """The source's own, the size and the format; as JSON would give them back."""
    format: Format
    request: Mapping[str, object]
    """The whole request as the manifest tells it."""

    def given(self, request: ImageRequest) -> dict[str, Any]:
        """Everything that the pixels of a request depend on, apart from the concept."""
        return {
            "seed": request.seed,
            "prompt": request.prompt,
            "source": self.name,
            "model": self.source.model,
            "revision": self.source.revision,
            "settings": self.settings,
        }

    def path(self, request: ImageRequest) -> str:
        return f"{request.concept.id}/{request.index:04d}.{self.format}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A row of rejected.jsonl: an image that could not be drawn, and what was asked."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    concept: str
    index: int
    reason: str
    given: Mapping[str, Any]


Row = ImageRecord | Refusal
Key = tuple[str, int]
"""A concept's id and an index."""


class Ledger:
    """The rows of an images folder that hold for a plan. Use it with the folder's lock held."""

    def __init__(self, out: Path, plan: Plan, *, force: bool = False) -> None:
        """Read and verify. DataError where `out` holds anything else and `force` is not given."""
        self._out = out
        self._plan = plan
        self._wanted = {(r.concept.id, r.index): r for r in plan.requests}
        self._rows: dict[Key, Row] = {}
        self._dropped: list[ImageRecord] = []
        before = self._concepts_before()
        differences: dict[str, None] = {}
        extra: list[ImageRecord] = []
        for row in self._read():
            request = self._wanted.get((row.concept, row.index))
            found = _differences(plan, request, row, before.get(row.concept)) if request else []
            if request and not found and (isinstance(row, Refusal) or self._is_intact(row)):
                self._rows[row.concept, row.index] = row
            elif isinstance(row, ImageRecord):  # a refusal that no longer holds is no loss
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

    def missing(self) -> list[ImageRequest]:
        return [request for key, request in self._wanted.items() if key not in self._rows]

    def records(self) -> list[ImageRecord]:
        """In the order of the plan, whatever the order of drawing was; so are the refusals."""
        return [row for row in self._ordered() if isinstance(row, ImageRecord)]

    def refusals(self) -> list[Refusal]:
        return [row for row in self._ordered() if isinstance(row, Refusal)]

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
        kept = {row.path for row in self.records()}
        for row in self._dropped:
            if row.path not in kept:
                (self._out / row.path).unlink(missing_ok=True)
        self._write_rows()
        files.write_json(self._out / "groups.json", self._plan.groups)

    @contextmanager
    def growing(self) -> Iterator[Callable[[ImageRequest, Result], None]]:
        """A function that puts an image into the folder, and then its row into the ledger."""
        with ExitStack() as stack:
            ledger = stack.enter_context(files.Journal(self._out / "ledger.jsonl"))
            rejected = stack.enter_context(files.Journal(self._out / "rejected.jsonl"))

            def add(request: ImageRequest, result: Result) -> None:
                row = self._row(request, result)
                self._rows[row.concept, row.index] = row
                if isinstance(row, Refusal):
                    rejected.append([row])
                elif not isinstance(result, Rejected):
                    files.write_bytes(self._out / row.path, result.data)
                    ledger.append([row])

            yield add

    def finish(self) -> None:
        """Put the rows in order and write the manifest: from now on the folder is whole."""
        self._write_rows()
        manifest = {
            "kind": "images",
            "complete": True,
            "images": len(self.records()),
            "rejected": len(self.refusals()),
            "request": self._plan.request,
            "environment": files.environment("numpy", "pillow"),
        }
        files.write_json(self._out / "manifest.json", manifest)

    def _read(self) -> Iterator[Row]:
        yield from files.read_jsonl(self._out / "rejected.jsonl", Refusal)
        path = self._out / "ledger.jsonl"
        for row in files.read_jsonl(path, ImageRecord):
            if not re.fullmatch(r"[\w-]+/[\w-]+/\d+\.(png|webp)", row.path, re.ASCII):
                raise DataError(f"{path}: '{row.path}' is not the path of an image")
            yield row

    def _concepts_before(self) -> dict[str, Concept]:
        path = self._out / "groups.json"
        groups = files.read_json(path, tuple[Group, ...]) if path.exists() else ()
        return {concept.id: concept for group in groups for concept in group.concepts}

    def _is_intact(self, record: ImageRecord) -> bool:
        path = self._out / record.path
        return path.is_file() and files.sha256(path.read_bytes()) == record.id

    def _row(self, request: ImageRequest, result: Result) -> Row:
        concept, index, given = request.concept.id, request.index, self._plan.given(request)
        if isinstance(result, Rejected):
            return Refusal(concept=concept, index=index, reason=result.reason, given=given)
        return ImageRecord(
            id=files.sha256(result.data),
            path=self._plan.path(request),
            concept=concept,
            index=index,
            width=result.width,
            height=result.height,
            drawn_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **given,
        )

    def _ordered(self) -> list[Row]:
        return [self._rows[key] for key in self._wanted if key in self._rows]

    def _write_rows(self) -> None:
        files.write_jsonl(self._out / "ledger.jsonl", self.records())
        if self.refusals():
            files.write_jsonl(self._out / "rejected.jsonl", self.refusals())
        else:
            (self._out / "rejected.jsonl").unlink(missing_ok=True)


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


def _drawn_from(concept: Concept) -> tuple[object, ...]:
    """What of a concept reaches its pictures, apart from the prompt, which the ledger holds."""
    return concept.name, concept.negative_prompt, concept.sketch
