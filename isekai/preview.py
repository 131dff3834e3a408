"""A few images of each concept on one sheet, to tune prompts by; drawn again as a spec changes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isekai import contact_sheet, files, generate, progress
from isekai import spec as specs
from isekai.choosing import Chosen
from isekai.errors import DataError, IsekaiError
from isekai.images import decode
from isekai.plan import Plan
from isekai.protocols import Accelerated
from isekai.types import ImageRecord

PER_CONCEPT = 4

SHEET = "contact_sheet.png"

DRAWINGS = "drawings"
"""Where the images are: they change with the spec, so this is no folder to build a dataset from."""

PAUSE = 0.5
"""Seconds between two looks at the spec's files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be shown: the arguments of `generate.plan`."""

    chosen: Chosen
    groups: str = "all"
    spec: Path | None = None
    gates: Sequence[str] | None = None
    per_concept: int = PER_CONCEPT
    size: int | None = None
    seed: int = 0

    def plan(self) -> Plan:
        """What gates turn down is only marked, by its absence: nothing is drawn twice."""
        return generate.plan(
            groups=self.groups,
            spec=self.spec,
            source=self.chosen,
            gates=self.gates,
            tries=1,
            per_concept=self.per_concept,
            size=self.size,
            seed=self.seed,
        )


def run(wanted: Wanted, out: Path) -> Path:
    """Draw what has changed and lay it out in `out`/contact_sheet.png and .html; return the PNG."""
    work = wanted.plan()
    _refuse_foreign(out)
    drawings = out / DRAWINGS
    source = work.variants[0].source
    one = 1 if isinstance(source, Accelerated) else None  # in this process models stay loaded
    generate.draw(work, out=drawings, workers=one, force=True)
    rows = files.read_jsonl(drawings / "ledger.jsonl", ImageRecord)
    pictures = {
        concept.id: [
            decode((drawings / row.path).read_bytes()) for row in rows if row.concept == concept.id
        ]
        for group in work.groups
        for concept in group.concepts
    }
    title = f"{source.model}, seed {wanted.seed}"
    contact_sheet.write(work.groups, pictures, out, title, per_concept=wanted.per_concept)
    return out / SHEET


def watch(wanted: Wanted, out: Path) -> Iterator[Path]:
    """The sheet, now and after each change of the spec's files, for ever.

    A spec that can't be read, or a concept that can't be drawn, is told and waited for.
    """
    folder = wanted.spec or specs.folder() / specs.BUILT_IN
    seen: Mapping[str, tuple[int, int]] | None = None
    while True:
        now = _state(folder)
        if now == seen:
            time.sleep(PAUSE)
            continue
        first, seen = seen is None, now
        try:
            yield run(wanted, out)
        except IsekaiError as error:
            if first:
                raise
            progress.tell(f"isekai: {error}")
        progress.tell(f"watching {folder}; Ctrl-C ends it")


def _refuse_foreign(out: Path) -> None:
    """What a spec no longer asks for is removed, so never work in a folder of something else."""
    with files.explained(out):
        there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    ours = (DRAWINGS, SHEET, "contact_sheet.html")
    others = [name for name in there if name not in ours and not name.startswith(".")]
    if others:
        raise DataError(f"{out}: holds '{others[0]}'; give --out a new folder or that of a preview")


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.glob("[!.]*.toml"):
        try:
            about = path.stat()
        except OSError:
            continue  # an editor is just replacing it
        found[path.name] = (about.st_mtime_ns, about.st_size)
    return found
