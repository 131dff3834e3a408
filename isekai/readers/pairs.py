"""`pairs:FILE?images=IMAGENET`: ImageNet-100 as Link-Context Learning asks it.

The file has one class a line, with pictures to show and pictures to ask; the classes of lines 2i
and 2i + 1 are a pair and are asked against each other, each as the positive one. No picture of
ImageNet may be passed on, so the folder is the user's own copy (`CLS-LOC`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from isekai.dataset import Dataset
from isekai.errors import DataError
from isekai.readers import questions
from isekai.readers.questions import Question
from isekai.scoring import spelling


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the file: a class."""

    class_id: str
    class_name: str
    context_samples: tuple[str, ...]
    """Pictures to show, relative to the folder of ImageNet, as are those to ask."""
    test_samples: tuple[str, ...]


def read(file: Path, images: Path, per_class: int = 50) -> Dataset:
    """A published question for each of the first `per_class` test pictures of a class; 0: of all.

    The published evaluation takes 50. Names are lower-cased, as there. All classes are novel: what
    a class is called here is what an episode says. Only the pictures that are asked for are read.
    """
    if per_class < 0:
        raise DataError(f"per_class is {per_class}; it takes a number of pictures, or 0 for all")
    if not images.is_dir():
        raise DataError(f"{images}: no such folder; give that of ImageNet with images=…")
    rows = questions.rows(file, Row, _problems)
    questions.refuse([f"{file}: {problem}" for problem in _problems_of_all(rows)])
    asked = _questions(rows, per_class)
    pictures = dict.fromkeys(picture for one in asked for picture in one.pictures)
    return questions.assemble(
        asked,
        {row.class_id: row.class_name.lower() for row in rows},
        {row.class_id: "novel" for row in rows},
        {picture: images / picture for picture in pictures},
        root=images,
        path=file,
        name=file.stem,
    )


def _questions(rows: Sequence[Row], per_class: int) -> list[Question]:
    """Classes in the order of the file, the test pictures of each in theirs, numbered through."""
    found: list[Question] = []
    for place, row in enumerate(rows):
        partner = rows[place ^ 1]
        for picture in row.test_samples[: per_class or None]:
            found.append(
                Question(
                    line=len(found),
                    query=picture,
                    shows=row.class_id,
                    labels=(row.class_id, partner.class_id),
                    positives=row.context_samples,
                    negatives=partner.context_samples,
                )
            )
    return found


def _problems(row: Row) -> list[str]:
    found = questions.outside((*row.context_samples, *row.test_samples))
    if not spelling(row.class_name):
        found.append("class_name is empty")
    return found


def _problems_of_all(rows: Sequence[Row]) -> list[str]:
    found = []
    if len(rows) % 2:
        found.append(f"{len(rows)} classes; two and two make a pair, so their number is even")
    often = Counter(row.class_id for row in rows)
    found += [f"class_id '{id}' is on {count} lines" for id, count in often.items() if count > 1]
    for one, two in zip(rows[::2], rows[1::2], strict=False):
        if spelling(one.class_name) == spelling(two.class_name):
            found.append(f"{one.class_id} and {two.class_id} are a pair of one name")
    if not any(row.test_samples for row in rows):
        found.append("no class has test_samples")
    return found
