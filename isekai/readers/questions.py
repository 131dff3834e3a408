"""Published questions as a dataset: groups of two names, entries, and the lists as they stand."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from isekai import files, progress
from isekai.dataset import Dataset, Entry, Listed, fingerprint
from isekai.errors import DataError
from isekai.readers.naming import slugs
from isekai.readers.pictures import Looked, Seen, Shelf, look_at
from isekai.types import Concept, Group, Role, Split

T = TypeVar("T")

_SHOWN = 20
"""Problems told one by one; of the rest only how many there are."""

Ids = Mapping[str, str]
"""A picture's name in the published file -> its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query of a published file; pictures are named as they are there, things by a key."""

    line: int
    query: str
    shows: str
    """The key of what the query shows."""
    labels: tuple[str, str]
    """The keys of the positive thing and of the negative one."""
    positives: tuple[str, ...]
    negatives: tuple[str, ...]

    @property
    def pair(self) -> tuple[str, str]:
        """Both keys in an order of their own: whichever is the positive, it is one pair."""
        a, b = sorted(self.labels)
        return a, b

    @property
    def pictures(self) -> tuple[str, ...]:
        return (self.query, *self.positives, *self.negatives)


def assemble(
    questions: Sequence[Question],
    names: Mapping[str, str],
    roles: Mapping[str, Role],
    paths: Mapping[str, Path],
    *,
    root: Path,
    path: Path,
    name: str,
) -> Dataset:
    """The dataset of these questions; DataError names the pictures that can't be used.

    `names` and `roles` go by key, `paths` by the pictures' names; none leads out of `root`. A
    picture that is in any list is a support image, and stays the query of its published questions.
    One that is listed under both names of a pair is in the published questions alone.
    """
    looked = look_at(paths.values(), root)
    ids, problems = _ids(paths, looked)
    mend = "mend it, or name another folder with images=…"
    refuse([f"{path}: picture {problem}; {mend}" for problem in problems])
    groups, concepts = _groups(questions, names, roles)
    lists = tuple(_listed(one, ids, concepts) for one in questions)
    entries, torn = _entries(lists, groups)
    _tell(path, questions, ids, lists, torn)
    places = {ids[picture]: file for picture, file in paths.items()}
    return Dataset(
        path=path,
        name=name,
        fingerprint=fingerprint(groups, entries, lists),
        groups=groups,
        entries=entries,
        fetch=Shelf(places).fetch,
        lists=lists,
    )


def rows(file: Path, kind: type[T], wrong: Callable[[T], Sequence[str]]) -> list[T]:
    """Every line of the file as `kind`; DataError with all problems, also those `wrong` finds.

    Unlike in a file of our own, the last line may lack its end, and there may be unknown keys.
    """
    found: list[T] = []
    problems: list[str] = []
    lines = files.read_text(file).removeprefix("\ufeff").split("\n")
    for where, line in ((f"{file}: line {n}", line) for n, line in enumerate(lines, start=1)):
        if not line.strip():
            continue
        try:
            row = files.parse(kind, json.loads(line), where)
        except DataError as error:
            problems += str(error).splitlines()
        except (ValueError, RecursionError) as error:
            told = error.msg if isinstance(error, json.JSONDecodeError) else error
            problems.append(f"{where} is not JSON ({told})")
        else:
            found.append(row)
            problems += [f"{where}: {problem}" for problem in wrong(row)]
    if not found and not problems:
        problems.append(f"{file}: holds no questions")
    refuse(problems)
    return found


def outside(pictures: Iterable[str]) -> list[str]:
    """A problem for each name of a picture that leads out of its folder."""
    paths = ((name, PurePosixPath(name)) for name in pictures)
    return [
        f"{name!r} leads out of the folder of pictures"
        for name, path in paths
        if path.is_absolute() or ".." in path.parts
    ]


def refuse(problems: Sequence[str]) -> None:
    """DataError with all of the problems, if there are any; a long list is cut short."""
    if problems:
        more = len(problems) - _SHOWN
        rest = [f"and {more} more problems like these"] if more > 0 else []
        raise DataError("\n".join([*problems[:_SHOWN], *rest]))


def _ids(paths: Mapping[str, Path], looked: Mapping[Path, Looked]) -> tuple[Ids, list[str]]:
    ids: dict[str, str] = {}
    problems = []
    for picture, path in paths.items():
        what = looked[path]
        if isinstance(what, Seen):
            ids[picture] = what.id
        else:
            problems.append(f"{picture!r}: {what}")
    return ids, problems


def _groups(
    questions: Sequence[Question], names: Mapping[str, str], roles: Mapping[str, Role]
) -> tuple[tuple[Group, ...], Mapping[tuple[str, str], Mapping[str, str]]]:
    """A group for each pair, in the order in which pairs come up; pair -> key -> concept id."""
    slug = slugs(names)
    groups: list[Group] = []
    concepts: dict[tuple[str, str], dict[str, str]] = {}
    for one in questions:
        if one.pair in concepts:
            continue
        id = "_".join(sorted(slug[key] for key in one.pair))  # no slug holds an underscore
        concepts[one.pair] = {key: f"{id}/{slug[key]}" for key in one.pair}
        made = tuple(
            Concept(id=concepts[one.pair][key], name=names[key], role=roles[key])
            for key in one.labels
        )
        groups.append(
            Group(id=id, title=" and ".join(concept.name for concept in made), concepts=made)
        )
    return tuple(groups), concepts


def _listed(
    one: Question, ids: Ids, concepts: Mapping[tuple[str, str], Mapping[str, str]]
) -> Listed:
    of = concepts[one.pair]
    positive, negative = one.labels
    return Listed(
        line=one.line,
        query=ids[one.query],
        concept=of[one.shows],
        labels=(of[positive], of[negative]),
        positives=tuple(ids[picture] for picture in one.positives),
        negatives=tuple(ids[picture] for picture in one.negatives),
    )


def _entries(lists: Sequence[Listed], groups: Sequence[Group]) -> tuple[list[Entry], int]:
    """An entry for each picture of a concept, and how many pictures both of a pair claim."""
    support = {id for one in lists for id in (*one.positives, *one.negatives)}
    claims: dict[str, dict[str, set[str]]] = {group.id: {} for group in groups}
    for one in lists:
        claimed = claims[one.concept.split("/", 1)[0]]  # picture -> concepts
        for label, ids in zip(one.labels, (one.positives, one.negatives), strict=True):
            for id in ids:
                claimed.setdefault(id, set()).add(label)
        claimed.setdefault(one.query, set()).add(one.concept)
    entries = []
    torn = 0
    for concept in (concept for group in groups for concept in group.concepts):
        claimed = claims[concept.group]
        own = [id for id, by in claimed.items() if by == {concept.id}]
        torn += sum(concept.id in by and len(by) > 1 for by in claimed.values())
        for index, id in enumerate(own):
            split: Split = "support" if id in support else "query"
            entries.append(
                Entry(image_id=id, concept=concept.id, role=concept.role, split=split, index=index)
            )
    return entries, torn // 2


def _tell(
    path: Path, questions: Sequence[Question], ids: Ids, lists: Sequence[Listed], torn: int
) -> None:
    pictures = Counter(ids.values())
    shown = sum(one.query in (*one.positives, *one.negatives) for one in lists)
    told = f"{path}: {len(lists)} published questions over {len(pictures)} pictures"
    for count, what in (
        (len(ids) - len(pictures), "files hold the same bytes as another"),
        (shown, "questions show their query in their own lists"),
        (torn, "pictures belong to both names of a pair: they serve the task 'lists' alone"),
    ):
        told += f"; {count} {what}" if count else ""
    progress.tell(told)
