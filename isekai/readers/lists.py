"""`lists:FOLDER` or `lists:OWNER/NAME`: ISEKAI-10 and ISEKAI-pair as they were published.

A folder of pictures and a file of JSON Lines, one question a line, with the fields of the released
code of Link-Context Learning (arXiv:2308.07891).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isekai import hub, progress
from isekai.dataset import Dataset
from isekai.errors import DataError, did_you_mean
from isekai.readers import questions
from isekai.readers.questions import Question
from isekai.scoring import spelling
from isekai.sources.folder import SUFFIXES
from isekai.types import Role

_ENDINGS = (".json", ".jsonl")
PATTERNS = tuple(
    f"*{ending}" for lower in (*SUFFIXES, *_ENDINGS) for ending in (lower, lower.upper())
)
"""What is downloaded of a repository: pictures and annotations, nothing that could be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the file; the misspelling is the format's."""

    image_name: str
    positive_list: tuple[str, ...]
    negative_list: tuple[str, ...]
    positive_promt: str
    negative_promt: str
    label_name: str


def read(
    path: str, annotations: str = "", images: str = "", revision: str | None = None
) -> Dataset:
    """The published questions of a folder, of an annotation file, or of a data set on the Hub.

    `annotations` and `images` are the file and the folder of pictures, relative to `path`; without
    them they are found, if only one will do. `revision` is the Hub's: a branch, tag or commit.

    A name that is ever the positive one is novel, one that is only ever negative is a foil. A line
    whose `label_name` is neither of its names is left out, and told.
    """
    given = Path(path)
    if given.exists():
        if revision is not None:
            raise DataError(f"{path}: lies here, so it has no revision; leave the option out")
        folder = given if given.is_dir() else given.parent
    elif hub.is_name(path):
        folder = hub.download(path, revision, PATTERNS, "dataset")
    else:
        raise DataError(f"{path}: no such folder or file, and no name of the form owner/name")
    file = given if given.is_file() else _annotations(folder, annotations)
    asked, names = _questions(file, questions.rows(file, Row, _problems))
    pictures = list(dict.fromkeys(picture for one in asked for picture in one.pictures))
    base = _base(folder, file, images, pictures)
    root = base if images else folder  # whoever names a folder opens it
    return questions.assemble(
        asked,
        names,
        _roles(asked),
        {picture: base / picture for picture in pictures},
        # What is downloaded are links to where the Hub's client stores files.
        root=root if given.exists() else hub.cache_folder(),
        path=given,
        name=path if not given.exists() else "",
    )


# ---------------------------------------------------------------- the annotations


def _annotations(folder: Path, name: str) -> Path:
    """The file that is named, or the only one whose first line has the fields."""
    there = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _ENDINGS and path.is_file() and not _hidden(path, folder)
    )
    known = [str(path.relative_to(folder)) for path in there]
    if name:
        if name not in known:
            raise DataError(f"{folder}: no annotations '{name}'{did_you_mean(name, known)}")
        return folder / name
    fitting = [path for path in there if _fits(path)]
    if not fitting:
        raise DataError(
            f"{folder}: no JSON Lines file with the fields of ISEKAI-10 (image_name, "
            "positive_list, positive_promt, …) here"
        )
    if len(fitting) > 1:
        which = ", ".join(str(path.relative_to(folder)) for path in fitting)
        raise DataError(f"{folder}: several files of questions: {which}; add ?annotations=NAME")
    return fitting[0]


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _fits(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(10_000_000))
    except (ValueError, RecursionError, OSError):
        return False
    return isinstance(first, dict) and {"image_name", "positive_promt"} <= first.keys()


def _problems(row: Row) -> list[str]:
    pictures = (row.image_name, *row.positive_list, *row.negative_list)
    found = questions.outside(pictures)
    names = (row.positive_promt, row.negative_promt)
    if not all(spelling(name) for name in names):
        found.append("positive_promt or negative_promt is empty")
    elif spelling(names[0]) == spelling(names[1]):
        found.append(f"both names are {names[0]!r}")
    return found


def _questions(file: Path, rows: Sequence[Row]) -> tuple[list[Question], Mapping[str, str]]:
    """The questions that have an answer, and the names by how they are spelt: the first way."""
    names: dict[str, str] = {}
    asked: list[Question] = []
    lost: Counter[str] = Counter()
    respelt: set[str] = set()
    for line, row in enumerate(rows):
        positive, negative = spelling(row.positive_promt), spelling(row.negative_promt)
        shows = spelling(row.label_name)
        if shows not in (positive, negative):
            lost[f"{row.label_name!r} for {row.positive_promt!r} or {row.negative_promt!r}"] += 1
            continue
        for key, name in ((positive, row.positive_promt), (negative, row.negative_promt)):
            if names.setdefault(key, name) != name:
                respelt.add(name)
        asked.append(
            Question(
                line=line,
                query=row.image_name,
                shows=shows,
                labels=(positive, negative),
                positives=row.positive_list,
                negatives=row.negative_list,
            )
        )
    if respelt:
        progress.tell(f"{file}: written in the way that came first: {', '.join(sorted(respelt))}")
    if lost:
        told = ", ".join(f"{name} ({count})" for name, count in lost.most_common(5))
        progress.tell(
            f"{file}: {lost.total()} of {len(rows)} questions left out, since label_name is "
            f"neither of the names: {told}{', …' if len(lost) > 5 else ''}"
        )
    if not asked:
        raise DataError(f"{file}: no question is left: label_name is never one of the two names")
    return asked, names


def _roles(asked: Sequence[Question]) -> Mapping[str, Role]:
    novel = {one.labels[0] for one in asked}
    return {key: "novel" if key in novel else "foil" for one in asked for key in one.labels}


# ---------------------------------------------------------------- the pictures


def _base(folder: Path, file: Path, images: str, pictures: Sequence[str]) -> Path:
    """The folder that the pictures' names are relative to."""
    if images:
        if not (folder / images).is_dir():
            raise DataError(f"{folder / images}: no such folder of images")
        return folder / images
    below = (path for path in sorted(folder.rglob("*")) if path.is_dir())
    places = [file.parent, folder, *(path for path in below if not _hidden(path, folder))]
    found = {place: sum(_exists(place / picture) for picture in pictures) for place in places}
    best = max(found, key=lambda place: found[place])  # the first of several
    whole = [place for place, count in found.items() if count == len(pictures)]
    if len(whole) > 1 and best != file.parent:
        which = ", ".join(str(path.relative_to(folder)) for path in whole)
        raise DataError(f"{folder}: the pictures lie in several folders: {which}; add ?images=NAME")
    return best  # what is missing there is told


def _exists(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False
