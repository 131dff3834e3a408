"""The report step: one run, or several side by side, as tables, plots and a page."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from isekai import files, runs
from isekai.errors import DataError, IsekaiError, did_you_mean
from isekai.reports import tables, typeset
from isekai.reports.together import Together, together
from isekai.runs import Run

if TYPE_CHECKING:
    from rich.console import Group

    from isekai.dataset import Dataset

Format = Literal["md", "tex", "csv", "png", "svg", "html"]

FILES: Mapping[str, tuple[str, ...]] = {
    "md": ("table.md",),
    "tex": ("table.tex",),
    "csv": ("results.csv",),
    "png": ("curve.png", "controls.png"),
    "svg": ("curve.svg", "controls.svg"),
    "html": ("report.html",),
}
"""Format -> the files it may write."""


def run(
    folders: Sequence[Path],
    *,
    formats: Sequence[str],
    out: Path | None = None,
    data: Sequence[str] = (),
    most: int | None = None,
) -> list[Path]:
    """Write the report on the runs in `folders` in these formats; return the files.

    `out` is the folder for them: `report` in the run's own, if it is one run. The page shows
    pictures: these come from `data` (dataset folders, or `reader:argument`), else from where each
    run found them. `most` is how many questions with a wrong answer it shows at most.
    """
    wanted = _known(formats)
    found = read(folders)
    if out is None:
        if len(found.origins) > 1:
            raise IsekaiError("a report on several runs: say with --out which folder it goes to")
        out = found.run.folder / "report"
    with files.lock(out), files.explained(out):
        _refuse_foreign(out)
        files.sweep_temporaries(out)
        made = dict(_files(found, wanted, data, most))  # all of it before any of it is written
        for name in {name for one in wanted for name in FILES[one]} - set(made):
            (out / name).unlink(missing_ok=True)  # of an earlier report: nothing of that kind now
        for name, content in made.items():
            files.write_bytes(out / name, content)
    return [out / name for name in made]


def read(folders: Sequence[Path]) -> Together:
    """The runs in the folders as one; a folder given twice counts once."""
    if not folders:
        raise IsekaiError("a report takes at least one folder of a run")
    unique: dict[Path, Path] = {}
    for folder in folders:
        unique.setdefault(folder.resolve(), folder)
    return together([runs.read(folder) for folder in unique.values()])


def table(folders: Sequence[Path]) -> "Group":
    """The report for the terminal."""
    from rich.console import Group
    from rich.text import Text

    found = read(folders)
    notes = [Text(f"{note}\n", style="bold") for note in found.notes]
    shown = tables.table(found.run.results, tables.verdicts_of(found.run.told))
    return Group(*notes, shown)


def _known(formats: Sequence[str]) -> list[str]:
    for name in formats:
        if name not in FILES:
            raise IsekaiError(f"--format '{name}' is not known{did_you_mean(name, FILES)}")
    if not formats:
        raise IsekaiError(f"say with --format what to write: {', '.join(get_args(Format))}")
    return list(dict.fromkeys(formats))


def _refuse_foreign(out: Path) -> None:
    """Never write among files that are not a report's."""
    own = {name for names in FILES.values() for name in names}
    there = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    if others := there - own:
        raise DataError(
            f"{out}: holds '{min(others)}', no file of a report; give --out a new folder"
        )


def _files(
    found: Together, formats: Sequence[str], data: Sequence[str], most: int | None
) -> Iterator[tuple[str, bytes]]:
    results, verdicts = found.run.results, tables.verdicts_of(found.run.told)
    if "md" in formats:
        yield "table.md", tables.markdown(results, verdicts, found.notes).encode()
    if "tex" in formats:
        yield "table.tex", typeset.latex(results, verdicts, found.notes).encode()
    if "csv" in formats:
        yield "results.csv", typeset.csv(results).encode()
    if drawn := [name for name in ("png", "svg") if name in formats]:
        from isekai.reports import plots

        for kind, draw in (("curve", plots.curves), ("controls", plots.controls)):
            for name, picture in draw(results, drawn).items():
                yield f"{kind}.{name}", picture
    if "html" in formats:
        from isekai.reports import page

        text = page.html(
            found.run,
            _pictures(found.origins, data),
            most=page.MOST if most is None else most,
            origins=found.origins,
            warnings=found.notes,
        )
        yield "report.html", text.encode()


def _pictures(origins: Sequence[Run], data: Sequence[str]) -> Callable[[str], bytes]:
    """Image id -> the picture's file, from whichever run's dataset has it."""
    opened: dict[str, Dataset] = {}
    of_image: dict[str, Dataset] = {}
    for origin in origins:
        dataset = _dataset(origin, data, opened)
        for episode in origin.episodes:
            for example in (*episode.support, *episode.queries):
                of_image.setdefault(example.image_id, dataset)
    return lambda image_id: of_image[image_id].image(image_id).data


def _dataset(origin: Run, data: Sequence[str], opened: dict[str, "Dataset"]) -> "Dataset":
    """The dataset of a run: the one with its fingerprint among `data`, or where it was."""
    from isekai import dataset

    provenance = origin.told.get("provenance")
    there = provenance.get("dataset") if isinstance(provenance, Mapping) else None
    path = there.get("path") if isinstance(there, Mapping) else None
    for spec in data or ([str(path)] if path else []):
        try:
            opened[spec] = opened.get(spec) or dataset.load(spec)
        except IsekaiError as error:
            raise DataError(
                f"{origin.folder}: the page shows pictures, and its dataset can't be opened "
                f"({error}); say with --data where it lies"
            ) from None
        if opened[spec].fingerprint == origin.config.dataset:
            return opened[spec]
    where = ", ".join(data) or path or "nowhere"
    raise DataError(
        f"{origin.folder}: the page shows pictures, and {where} is not the dataset of this run "
        f"(fingerprint {origin.config.dataset[:12]}); say with --data where it lies"
    )
