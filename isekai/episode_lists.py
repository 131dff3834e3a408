"""The episodes of the usual bench as files beside a dataset, so that others ask exactly these.

`episodes/TASK.jsonl` has an episode a line; `episodes/settings.json` says how they were drawn and
which files there are. `isekai bench --task published` asks them.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from isekai import files, plugins
from isekai.dataset import Dataset
from isekai.errors import DataError
from isekai.parquet import SPLITS
from isekai.protocols import Task
from isekai.scoring import spelling
from isekai.setup import Setup, resolve
from isekai.types import Episode, Example, Split

FOLDER = "episodes"
TASKS = ("twin", "foil", "pair")
SETTINGS = "settings.json"

_STRICT: dict[str, object] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One file of episodes."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    episodes: int
    sha256: str
    """Of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the lists of a dataset were drawn: settings.json."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    dataset: str
    """Its fingerprint."""
    shots: tuple[int, ...]
    """Those of the usual bench that the concept with the fewest support pictures has."""
    episodes: int
    """Of each unit of a task."""
    queries: int
    """A label: those of the usual bench, or as many as the scarcest concept has."""
    labels: Literal["fantasy"]
    seed: int
    lists: Mapping[str, Listing]
    """Task -> its file."""
    left_out: Mapping[str, str]
    """Task -> why it has no list."""


def write(config: Path) -> None:
    """Write the lists of the dataset in the folder `config`, in the place of those that are there.

    Drawn is what `isekai bench` would ask by default. A dataset with too few pictures for that gets
    as many shots and queries as its scarcest concept allows, which moves nothing else: a run with
    the default asks the same at the shot counts that both have. A task whose concepts the dataset
    does not have gets no list; the settings say why.
    """
    dataset = Dataset.open(config)
    usual = resolve(Setup())
    room = {split: _scarcest(dataset, split) for split in SPLITS}
    shots = tuple(count for count in usual.shots if count <= room["support"])
    queries = min(usual.queries, room["query"])
    (seed,) = usual.seeds
    lists: dict[str, Listing] = {}
    left_out: dict[str, str] = {}
    folder = config / FOLDER
    (folder / SETTINGS).unlink(missing_ok=True)  # until the last file there are no lists
    for task in TASKS:
        path = folder / f"{task}.jsonl"
        family: Task = plugins.load("tasks", task)
        try:
            drawn = list(
                family(
                    dataset,
                    shots=shots,
                    queries=queries,
                    episodes=usual.episodes,
                    labels="fantasy",
                    seed=seed,
                )
            )
        except DataError:  # nothing else can be refused: shots and queries are there
            path.unlink(missing_ok=True)
            left_out[task] = "no group here has the concepts that it needs"
            continue
        files.write_jsonl(path, drawn)
        lists[task] = Listing(episodes=len(drawn), sha256=files.sha256(path.read_bytes()))
    files.write_json(
        folder / SETTINGS,
        Settings(
            dataset=dataset.fingerprint,
            shots=shots,
            episodes=usual.episodes,
            queries=queries,
            labels="fantasy",
            seed=seed,
            lists=lists,
            left_out=left_out,
        ),
    )


def _scarcest(dataset: Dataset, split: Split) -> int:
    """Pictures of the concept that has the fewest in this split."""
    return min(len(dataset.ids(c.id, split)) for group in dataset.groups for c in group.concepts)


# ---------------------------------------------------------------- reading


def settings(config: Path) -> Settings | None:
    """How the lists in the folder were drawn; None if it has none."""
    path = config / FOLDER / SETTINGS
    return files.read_json(path, Settings) if path.exists() else None


def read(dataset: Dataset) -> tuple[Settings, tuple[Episode, ...]]:
    """The lists that lie beside a dataset, by task in the order of `TASKS`, then as written.

    Nothing in them is taken on trust: DataError, in one line, for lists of another dataset, for a
    file that is not whole, and for the first episode that could not have been drawn from this
    dataset.
    """
    folder = dataset.path / FOLDER
    told = settings(dataset.path)
    if told is None:
        raise DataError(
            f"{dataset.path}: has no published episodes (no {FOLDER}/{SETTINGS}), which task "
            "'published' asks; build the dataset again, or take another --task"
        )
    _check_settings(told, dataset, folder / SETTINGS)
    found: list[Episode] = []
    for task in (task for task in TASKS if task in told.lists):
        path = folder / f"{task}.jsonl"
        listing = told.lists[task]
        if not path.is_file() or files.sha256(path.read_bytes()) != listing.sha256:
            raise DataError(
                f"{path}: not the file that {SETTINGS} tells of; build or download the dataset "
                "again"
            )
        rows = files.read_jsonl(path, Episode)
        if len(rows) != listing.episodes:
            raise DataError(
                f"{path}: {len(rows)} episodes where {SETTINGS} says {listing.episodes}"
            )
        for line, episode in enumerate(rows, start=1):
            if problem := _problem(episode, task, told, dataset):
                raise DataError(f"{path}: line {line} {problem}; download the dataset again")
        found += rows
    if twice := [id for id, count in Counter(one.id for one in found).items() if count > 1]:
        raise DataError(f"{folder}: the episode {twice[0]!r} is there twice")
    return told, tuple(found)


def _check_settings(told: Settings, dataset: Dataset, path: Path) -> None:
    if told.dataset != dataset.fingerprint:
        raise DataError(
            f"{path}: its episodes are those of another dataset ({told.dataset[:12]}, not "
            f"{dataset.fingerprint[:12]}); build or download the dataset again"
        )
    if unknown := sorted({*told.lists} - {*TASKS}):
        raise DataError(
            f"{path}: a list for the task {unknown[0]!r}, where {', '.join(TASKS)} have one"
        )
    if not told.shots or list(told.shots) != sorted(set(told.shots)) or told.shots[0] < 0:
        raise DataError(f"{path}: shots are {list(told.shots)}, expected numbers that grow from 0")
    if told.queries < 1:
        raise DataError(f"{path}: {told.queries} queries a label, expected at least 1")


def _problem(episode: Episode, task: str, told: Settings, dataset: Dataset) -> str:
    """Why the episode is none of this list; empty if it is one."""
    return next(_problems(episode, task, told, dataset), "")


def _problems(episode: Episode, task: str, told: Settings, dataset: Dataset) -> Iterator[str]:
    if episode.task != task or episode.control != "none" or episode.take:
        yield f"is no plain episode of the task '{task}'"
    if not re.fullmatch(rf"{task}/[^\s/]\S*/{told.seed}-\d+", episode.id):
        yield f"has the id {episode.id[:60]!r}, expected {task}/UNIT/{told.seed}-NUMBER"
    if not re.fullmatch(r"\S+", episode.cluster):
        yield f"has the cluster {episode.cluster[:60]!r}, expected a word"
    if episode.shots != told.shots:
        yield f"has shots of its own, {list(episode.shots)}"
    known = {concept.id for group in dataset.groups for concept in group.concepts}
    if len(episode.labels) < 2 or not known.issuperset(episode.labels):
        yield "asks for concepts that the dataset does not have"
        return
    words = list(episode.labels.values())
    if len({spelling(word) for word in words}) < len(words):
        yield "calls two concepts by one word"
    if not all(re.fullmatch(r"[a-z]+", word) for word in words):
        yield "has labels that are no made-up words"
    yield from _unfit(episode, episode.support, max(told.shots), "support", dataset)
    yield from _unfit(episode, episode.queries, told.queries, "query", dataset)


def _unfit(
    episode: Episode, examples: Sequence[Example], count: int, split: Split, dataset: Dataset
) -> Iterator[str]:
    """What is wrong with the support set or the queries."""
    way = len(episode.labels)
    blocks = [examples[start : start + way] for start in range(0, len(examples), way)]
    if len(blocks) != count or any({e.concept for e in b} != {*episode.labels} for b in blocks):
        yield f"does not show each label {count} times, in turn, in its {split} pictures"
        return
    shown = {concept: set(dataset.ids(concept, split)) for concept in episode.labels}
    for one in examples:
        if one.image_id not in shown[one.concept]:
            yield f"names an unknown {split} picture of {one.concept}, {one.image_id[:12]!r}"
    if len({one.image_id for one in examples}) < len(examples):
        yield f"shows a {split} picture twice"
    if any(one.word is not None or one.shown != "picture" for one in examples):
        yield "hides or renames a picture, as only a control does"
