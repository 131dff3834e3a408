"""Pictures sorted into classes as a dataset: without duplicates, split, and put into groups."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np

from isekai import dedup, progress
from isekai.dataset import Dataset, Entry, fingerprint
from isekai.errors import DataError, IsekaiError
from isekai.readers.naming import printable, slugs, words
from isekai.readers.pictures import Looked, Seen
from isekai.types import Concept, Group, Split

Grouping = Literal["single", "adjacent"]
"""Each class a group of its own, for the task `pair`; or two and two in their order, for `twin`."""

_REASONS = 8
"""Reasons told for pictures that were left out: the commonest."""

Pictures = Mapping[str, Looked]
"""A picture's name within its class -> what was seen of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which pictures and classes are taken, and what they serve for."""

    per_class: int
    """Pictures of a class at most; 0 for all."""
    at_least: int
    """Classes with fewer pictures in one of the splits are left out."""
    query_share: float
    group: Grouping

    def __post_init__(self) -> None:
        if self.per_class < 0:
            raise IsekaiError(f"per_class is {self.per_class}; it takes a number, or 0 for all")
        if self.at_least < 1:
            raise IsekaiError(f"at_least is {self.at_least}; a class needs at least 1 each split")
        if not 0 < self.query_share < 1:
            raise IsekaiError(f"query_share is {self.query_share}; expected between 0 and 1")

    def take(self, names: Iterable[str]) -> list[str]:
        """`per_class` of the names, by their hash: which, depends neither on order nor on number.

        One name more moves out one other at most.
        """
        return sorted(names, key=_rank)[: self.per_class or None]


def assemble(
    classes: Mapping[str, Pictures],
    names: Mapping[str, str],
    choice: Choice,
    *,
    path: Path,
    fetch: Callable[[str], bytes],
    name: str = "",
) -> Dataset:
    """The dataset of these classes, whose order is kept; `names` are the words to show for them.

    Left out are pictures that can't be used, all but one of those in a class that are alike, those
    that two classes hold, and classes that are then too small; how many is told.
    """
    lost: Counter[str] = Counter()
    kept = {key: _distinct(key, pictures, lost) for key, pictures in classes.items()}
    holders = Counter(one.pixels for pictures in kept.values() for one in pictures)
    splits: dict[str, Mapping[str, Split]] = {}
    for key, pictures in kept.items():
        own = [one.id for one in pictures if holders[one.pixels] == 1]
        lost["in two classes"] += len(pictures) - len(own)
        splits[key] = _split(own, choice.query_share)
    large = [key for key, split in splits.items() if _smaller(split) >= choice.at_least]
    groups, concepts = _groups(large, names, choice.group)
    entries = [
        Entry(image_id=id, concept=concept, role="novel", split=split, index=index)
        for key, concept in concepts.items()
        for index, (id, split) in enumerate(splits[key].items())
    ]
    told = _told(classes, concepts, entries, lost)
    if len(concepts) < 2:
        raise DataError(f"{path}: two classes at least are asked against each other; {told}")
    progress.tell(f"{path}: {told}")
    return Dataset(
        path=path,
        name=name,
        fingerprint=fingerprint(groups, entries),
        groups=groups,
        entries=entries,
        fetch=fetch,
    )


def _rank(text: str) -> bytes:
    return blake2b(printable(text).encode()).digest()


def _distinct(key: str, pictures: Pictures, lost: Counter[str]) -> list[Seen]:
    """The pictures of a class that can be used, in the order of their names and each but once.

    They are thinned as `build` does it, but for embeddings, since these take a network to make.
    """
    usable: list[Seen] = []
    prints: list[dedup.Print] = []
    for index, (name, what) in enumerate(sorted(pictures.items())):
        if isinstance(what, str):
            lost[what] += 1
            continue
        usable.append(what)
        prints.append(
            dedup.Print(
                path=name,
                concept=key,
                index=index,
                area=what.area,
                data=what.id,
                pixels=what.pixels,
                hash=np.frombuffer(bytes.fromhex(what.hash), np.uint64),
            )
        )
    found = dedup.find(prints, np.zeros((len(prints), 1), np.float32))
    lost.update(one.reason for one in found)
    gone = {one.position for one in found}
    return [one for position, one in enumerate(usable) if position not in gone]


def _split(ids: Sequence[str], query_share: float) -> dict[str, Split]:
    """Id -> its split: by a hash, so that each picture more or less moves one other at most."""
    count = min(max(round(len(ids) * query_share), 1), len(ids) - 1)
    asked = set(sorted(ids, key=_rank)[: max(count, 0)])
    return {id: "query" if id in asked else "support" for id in ids}


def _smaller(splits: Mapping[str, Split]) -> int:
    """Pictures of the smaller split."""
    count = Counter(splits.values())
    return min(count["support"], count["query"])


def _groups(
    keys: Sequence[str], names: Mapping[str, str], grouping: Grouping
) -> tuple[tuple[Group, ...], Mapping[str, str]]:
    """The groups, and key -> concept id for the classes that are in one."""
    shown = {key: words(names[key]) for key in keys}
    slug = slugs(shown)
    groups = []
    concepts: dict[str, str] = {}
    for members in _members(keys, grouping):
        id = "_".join(slug[key] for key in members)  # no slug holds an underscore
        made = tuple(
            Concept(id=f"{id}/{slug[key]}", name=shown[key], role="novel") for key in members
        )
        concepts.update(zip(members, (concept.id for concept in made), strict=True))
        title = " and ".join(concept.name for concept in made)
        groups.append(Group(id=id, title=title, concepts=made))
    return tuple(groups), concepts


def _members(keys: Sequence[str], grouping: Grouping) -> Iterator[tuple[str, ...]]:
    if grouping == "single":
        return ((key,) for key in keys)
    return zip(keys[::2], keys[1::2], strict=False)  # the last of an odd number has no partner


def _told(
    classes: Mapping[str, Pictures],
    concepts: Mapping[str, str],
    entries: Sequence[Entry],
    lost: Counter[str],
) -> str:
    count = Counter(entry.split for entry in entries)
    told = f"{len(concepts)} classes, {count['support']} support and {count['query']} query images"
    if len(concepts) < len(classes):
        told += f"; {len(classes) - len(concepts)} classes too small or without a partner"
    reasons = [f"{number} {reason}" for reason, number in lost.most_common() if number]
    if reasons:
        more = ", and for other reasons" if len(reasons) > _REASONS else ""
        told += f"; images left out: {', '.join(reasons[:_REASONS])}{more}"
    return told
