"""Draws episodes: a nested support sequence and the queries that share it, from hashed seeds."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isekai.errors import DataError
from isekai.files import plain
from isekai.labels import conflict, fantasy
from isekai.scoring import spelling
from isekai.spec import seed as seeded
from isekai.types import Concept, Episode, Example, Group, LabelWords, Role, Split

if TYPE_CHECKING:
    from isekai.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Concepts that are asked against each other in every episode of one name."""

    name: str
    """Stands in the episode's id between the task and the number."""
    cluster: str
    concepts: tuple[str, ...]


def draw(
    dataset: "Dataset",
    task: str,
    units: Sequence[Unit],
    *,
    shots: Sequence[int],
    queries: int,
    episodes: int,
    labels: LabelWords,
    seed: int,
) -> Iterator[Episode]:
    """`episodes` episodes of each unit; whatever cannot be drawn is refused before the first.

    An episode's images depend on the run's seed, the task, the unit, its number and the images of
    its own concepts, and on nothing else: other shots or more queries only lengthen its sequences.
    Its fantasy words also keep away from every name in the dataset. Its id holds the run's seed, so
    that a run over several seeds holds the episodes of runs over each of them.
    """
    if not units:
        raise DataError(
            f"{dataset.path}: no group here has the concepts that task '{task}' needs; other data "
            "has them for --task pair, or for --task lists"
        )
    concepts = sorted({concept for unit in units for concept in unit.concepts})
    _refuse_too_many(dataset, concepts, "support", max(shots), "--shots")
    _refuse_too_many(dataset, concepts, "query", queries, "--queries")
    if labels == "true":
        for unit in units:
            _refuse_same_names([dataset.concept(concept) for concept in unit.concepts])
    return (
        _episode(dataset, task, unit, number, tuple(shots), queries, labels, seed)
        for unit in units
        for number in range(episodes)
    )


def digest(episode: Episode, shots: int) -> str:
    """SHA-256 of what is asked at one shot count: equal digests, equal questions.

    Neither the other shot counts nor anything else of the run moves it.
    """
    asked = {
        "id": episode.id,
        "labels": list(episode.labels.items()),
        "support": plain(episode.support[: len(episode.labels) * shots]),
        "queries": plain(episode.queries),
    }
    return hashlib.sha256(json.dumps(asked, separators=(",", ":")).encode()).hexdigest()


def having(group: Group, role: Role) -> tuple[str, ...]:
    """The ids of the group's concepts of this role, in an order of their own."""
    return tuple(sorted(concept.id for concept in group.concepts if concept.role == role))


def generator(seed: int, *what: str) -> np.random.Generator:
    """A stream of its own for each purpose, so that drawing more of one thing moves no other."""
    return np.random.default_rng(seeded("/".join(what), 0, seed))


def _episode(
    dataset: "Dataset",
    task: str,
    unit: Unit,
    number: int,
    shots: tuple[int, ...],
    queries: int,
    labels: LabelWords,
    base: int,
) -> Episode:
    seed = seeded(f"{task}/{unit.name}", number, base)
    order = generator(seed, "labels").permutation(len(unit.concepts))
    concepts = tuple(unit.concepts[i] for i in order)
    return Episode(
        id=f"{task}/{unit.name}/{base}-{number:03d}",
        task=task,
        cluster=unit.cluster,
        labels=words(dataset, concepts, labels, seed),
        support=blocks(dataset, concepts, "support", max(shots), seed),
        shots=shots,
        queries=blocks(dataset, concepts, "query", queries, seed),
        seed=seed,
    )


def blocks(
    dataset: "Dataset", concepts: Sequence[str], split: Split, count: int, seed: int
) -> tuple[Example, ...]:
    """`count` blocks, each with one new image of every concept in random order.

    So each prefix of whole blocks is balanced, and a larger count starts with the smaller one.
    Images are ordered by their content hash before they are shuffled: rows don't matter.
    """
    images = {}
    for concept in concepts:
        ids = sorted(dataset.ids(concept, split))
        images[concept] = [ids[i] for i in generator(seed, split, concept).permutation(len(ids))]
    order = generator(seed, split, "order")
    return tuple(
        Example(image_id=images[concepts[i]][block], concept=concepts[i])
        for block in range(count)
        for i in order.permutation(len(concepts))
    )


def words(
    dataset: "Dataset", concepts: Sequence[str], labels: LabelWords, seed: int
) -> Mapping[str, str]:
    """Concept -> the word used for it in the episode of this seed, in the order given."""
    if labels == "true":
        return {concept: dataset.concept(concept).name for concept in concepts}
    known = [concept for group in dataset.groups for concept in group.concepts]
    if labels == "fantasy":
        names = sorted(concept.name for concept in known)
        made = fantasy(len(concepts), names, generator(seed, "words"))
    else:
        told = {text for c in known for text in (c.name, c.definition, *c.parents)}
        made = conflict(len(concepts), _single_words(told), generator(seed, "conflict"))
    return dict(zip(concepts, made, strict=True))


def _single_words(texts: set[str]) -> list[str]:
    return sorted({word for text in texts for word in re.findall(r"\w+", text.casefold())})


def _refuse_too_many(
    dataset: "Dataset", concepts: Sequence[str], split: Split, asked: int, option: str
) -> None:
    there = {concept: len(dataset.ids(concept, split)) for concept in concepts}
    scarcest = min(there, key=lambda concept: there[concept])
    fits = there[scarcest]
    if asked > fits:
        what_fits = f"the largest that fits this dataset is {option} {fits}"
        raise DataError(
            f"{scarcest} has {fits} {split} images and {option} asks for {asked} a label; "
            + (what_fits if fits else "build the dataset with more images of it")
        )


def _refuse_same_names(concepts: Sequence[Concept]) -> None:
    seen: dict[str, str] = {}
    for concept in concepts:
        other = seen.setdefault(spelling(concept.name), concept.id)
        if other != concept.id:
            raise DataError(
                f"{other} and {concept.id} are both called '{concept.name}': true labels can't "
                "tell them apart; take --labels fantasy"
            )
