"""The verify step: holds an images folder to its ledger, and draws some of it again."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from isekai import files, intake, metadata, plugins, progress
from isekai import spec as specs
from isekai.errors import IsekaiError
from isekai.images import FORMATS, UnreadableImage
from isekai.intake import Images
from isekai.ledger import REJECTED, Refusal, is_aside
from isekai.parquet import Row
from isekai.protocols import Releasing
from isekai.redrawing import Redrawn, redraw, sources_of
from isekai.types import ImageRecord

if TYPE_CHECKING:
    from rich.console import RenderableType

_MANIFEST = "manifest.json"
_OURS = (_MANIFEST, "ledger.jsonl", "groups.json", REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file of the folder that is not as the ledger says."""

    path: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found."""

    folder: str
    images: int
    """Rows of the ledger."""
    problems: tuple[Problem, ...]
    redrawn: tuple[Redrawn, ...] = ()
    """In the order of the ledger."""
    bound: float | None = None
    """PSNR in dB that every redrawn picture has to reach."""

    @property
    def is_well(self) -> bool:
        """True if every file is as it should be, and every picture drawn again is near enough."""
        return not self.problems and not any(map(self._falls_short, self.redrawn))

    def summary(self) -> str:
        """A line on the files and, if any were drawn again, one on these."""
        counts = Counter(problem.what for problem in self.problems)
        told = ", ".join(f"{what}: {count}" for what, count in counts.items())
        lines = [f"{self.folder}: {self.images} images; {told or 'all files as the ledger says'}"]
        if self.redrawn:
            outcomes = Counter(row.outcome for row in self.redrawn)
            told = ", ".join(f"{outcome}: {count}" for outcome, count in outcomes.items())
            short = sum(map(self._falls_short, self.redrawn))
            lines.append(
                f"{len(self.redrawn)} drawn again; {told}"
                + (f"; below {self.bound} dB or not drawn: {short}" if short and self.bound else "")
            )
        return "\n".join(lines)

    def _falls_short(self, row: Redrawn) -> bool:
        if row.outcome == "not drawn":
            return True
        return self.bound is not None and row.psnr is not None and not row.psnr >= self.bound


def run(
    folder: Path,
    *,
    regenerate: int = 0,
    seed: int = 0,
    source: str = "",
    options: Mapping[str, object] | None = None,
    embedder: str = "",
    psnr: float | None = None,
    workers: int = 1,
) -> Report:
    """Check every file of `folder`, and draw `regenerate` pictures, chosen by `seed`, again.

    The source is built as the manifest says it was, with `options` on top, unless `source` names
    it; it has to be the same one, else DataError. `embedder` adds how near a network finds old and
    new. Below `psnr` dB a redrawn picture is a failure; without it differences are only reported.
    Gates are not asked again: what they took stands in the ledger.
    """
    if regenerate < 0:
        raise IsekaiError(f"{regenerate} pictures to draw again; 0 or more are possible")
    found = intake.read(folder)
    told = files.read_json(folder / _MANIFEST, dict[str, object])
    problems = (*_of_files(found), *_of_rows(found), *_of_manifest(found, told), *_surplus(found))
    images = len(found.rows) + sum(row.path is not None for row in found.rejected)
    redrawn: list[Redrawn] = []
    if regenerate and found.rows:
        asked = told.get("asked")
        rows = _chosen(found.rows, regenerate, seed)
        drawers = sources_of(
            found, rows, asked if isinstance(asked, dict) else {}, given=source, options=options
        )
        look = plugins.build("embedders", embedder) if embedder else None
        with progress.bar(len(rows)) as advance:
            for drawer, own in drawers:
                for one in redraw(found, own, drawer, embedder=look, workers=workers):
                    redrawn.append(one)
                    advance()
                if isinstance(drawer, Releasing):
                    drawer.release()
        order = {row.record.path: place for place, row in enumerate(rows)}
        redrawn.sort(key=lambda one: order[one.path])
    return Report(
        folder=str(folder),
        images=images,
        problems=problems,
        redrawn=tuple(redrawn),
        bound=psnr,
    )


def summary(report: Report) -> dict[str, object]:
    """What `isekai verify --json` prints."""
    told: dict[str, object] = files.plain(report)
    return {"well": report.is_well, **told}


def table(report: Report) -> "RenderableType":
    """Problems, and the pictures that were drawn again."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def laid_out(*headings: str) -> Table:
        made = Table(box=None, pad_edge=False, header_style="bold")
        for heading in headings:
            made.add_column(heading, overflow="fold")
        return made

    problems = laid_out("file", "problem")
    for problem in report.problems:
        problems.add_row(Text(_printable(problem.path)), Text(_printable(problem.what)))
    redrawn = laid_out("drawn again", "outcome", "PSNR", "largest difference", "cosine")
    for row in report.redrawn:
        cells = (
            row.path,
            f"{row.outcome}: {row.reason}" if row.reason else row.outcome,
            "" if row.psnr is None else f"{row.psnr:.1f} dB",
            "" if row.largest is None else f"{row.largest} of 255",
            "" if row.cosine is None else f"{row.cosine:.4f}",
        )
        redrawn.add_row(*(Text(_printable(cell)) for cell in cells))  # no stranger's markup
    return Group(*(part for part in (problems, redrawn) if part.row_count))


def _of_files(found: Images) -> Iterator[Problem]:
    """Files of the ledger that are missing or others, and drawings put aside that are gone."""
    for row in found.rejected:
        if row.path is not None:
            yield Problem(path=row.path, what=row.reason)
    for path in _aside(found):
        if not is_aside(path):  # before anything is looked for: a row may be a stranger's
            yield Problem(path=path, what="not where a rejected drawing is kept")
        elif not (found.folder / path).is_file():
            yield Problem(path=path, what="file is missing")


def _of_rows(found: Images) -> Iterator[Problem]:
    """Rows that contradict what their own file tells, the manifest, or the spec."""
    with progress.bar(len(found.rows)) as advance:
        for row in found.rows:
            yield from _of_row(found, row)
            advance()


def _of_row(found: Images, row: Row) -> Iterator[Problem]:
    record, path = row.record, row.record.path
    try:
        for what in _of_picture(record, found.read(record)):
            yield Problem(path=path, what=what)
    except UnreadableImage as error:
        yield Problem(path=path, what=str(error))
    base = found.request.get("seed")
    settings = found.request.get("settings")
    format = settings.get("format") if isinstance(settings, dict) else None
    expected: dict[str, object] = {
        "path": f"{record.concept}/{record.index:04d}.{format}",
        "prompt": specs.expand(row.concept, record.index),
        "negative_prompt": row.concept.negative_prompt,
        **{key: found.request.get(key) for key in ("source", "model", "revision", "settings")},
    }
    if isinstance(base, int):
        expected["seed"] = specs.seed(record.concept, record.index, base, record.attempt)
    others = [name for name, value in expected.items() if getattr(record, name) != value]
    if others:
        yield Problem(path=path, what=f"the ledger tells another {', '.join(others)}")


def _of_picture(record: ImageRecord, data: bytes) -> Iterator[str]:
    """In what a file is another one than its row says, whatever its hash."""
    told, facts = metadata.read(data), metadata.of(record)
    lacking = [name for name in facts if name not in told]
    others = [name for name, value in told.items() if value != facts[name]]
    if not told:
        yield "its file does not tell how it came to be"
    elif lacking:
        yield f"its file does not tell its {', '.join(lacking)}"
    if others:
        yield f"the file tells another {', '.join(others)}"
    format = PurePosixPath(record.path).suffix.removeprefix(".")
    expected = {"format": format, "width": record.width, "height": record.height}
    seen = _header(data)
    others = [name for name, value in expected.items() if seen[name] != value]
    if others:
        yield f"the file has another {', '.join(others)}"


def _header(data: bytes) -> dict[str, object]:
    """Format, width and height, without decoding; UnreadableImage where that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no picture that was drawn makes Pillow warn
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                format = str(picture.format).lower()
                return {"format": format, "width": picture.width, "height": picture.height}
        except UnidentifiedImageError:
            raise UnreadableImage("its header can't be read: damaged, or no picture") from None
        except Exception as error:  # damaged files make Pillow raise almost any class
            raise UnreadableImage(f"its header can't be read: {error}") from None


def _of_manifest(found: Images, told: Mapping[str, object]) -> Iterator[Problem]:
    rows = [row for row in found.rejected if row.path is not None]
    counts = {
        "images": len(found.rows) + len(rows),
        "rejected": len(found.rejected) - len(rows),
    }
    for key, count in counts.items():
        if told.get(key) != count:
            yield Problem(path=_MANIFEST, what=f"tells of {told.get(key)} {key}, not {count}")


def _surplus(found: Images) -> Iterator[Problem]:
    """Files that no row speaks of, names with a dot in front aside: locks and other tools'."""
    known = {*_OURS, *filter(is_aside, _aside(found)), *(row.record.path for row in found.rows)}
    known |= {row.path for row in found.rejected if row.path is not None}
    for path in sorted(found.folder.rglob("*")):
        name = path.relative_to(found.folder)
        if any(part.startswith(".") for part in name.parts) or name.as_posix() in known:
            continue
        if path.is_symlink() or not path.is_dir():
            yield Problem(path=name.as_posix(), what="no row of the ledger speaks of it")


def _aside(found: Images) -> list[str]:
    """Paths of drawings that were turned down and kept, as the rows have them."""
    rows = files.read_jsonl(found.folder / REJECTED, Refusal)
    return [row.path for row in rows if row.path is not None]


def _chosen(rows: list[Row], count: int, seed: int) -> list[Row]:
    """So many of the rows, at random, in the order of the ledger."""
    places = np.random.default_rng(seed).permutation(len(rows))[:count]
    return [rows[place] for place in sorted(places)]


def _printable(text: str) -> str:
    """The text with whatever could steer a terminal spelt out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
