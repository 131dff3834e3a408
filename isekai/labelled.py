"""Pairs of pictures that are known to be the same or not, with what deduplication sees of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import copies, progress
from isekai.alterations import ALTERATIONS, altered, other_thing
from isekai.dedup import HASH_NEARBY, Limits, distances, perceptual_hash
from isekai.drawing import usable_cores
from isekai.episodes import generator
from isekai.errors import DataError

AT_MOST = 240
"""Pictures that are altered, in all and of one concept: some minutes on two cores."""
PER_CONCEPT = 12
RULES = ("hash", "copy", "cosine", "same picture", "any")
NEGATIVES = ("same concept", "other concept", "same background")
"""Kinds of pairs that are not the same; the last has another thing in its middle."""

Embed = Callable[[Sequence[Image.Image]], NDArray[np.float32]]
"""Unit rows of pictures."""

_Row = tuple[str, str, str, int, float, float]
_COLUMNS = ("kind", "concept", "other", "bits", "copy", "cosine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictured:
    """A picture to calibrate on."""

    id: str
    concept: str
    open: Callable[[], Image.Image] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """[P] each: what was measured of labelled pairs. Others are both of one half."""

    kind: NDArray[np.str_]
    concept: NDArray[np.str_]
    """Of the pair's first picture."""
    other: NDArray[np.str_]
    bits: NDArray[np.int64]
    copy: NDArray[np.float64]
    cosine: NDArray[np.float64]

    @property
    def same(self) -> NDArray[np.bool_]:
        return ~np.isin(self.kind, NEGATIVES)

    @property
    def weight(self) -> NDArray[np.float64]:
        """So that each picture has one copy in all."""
        return np.where(self.same, 1 / len(ALTERATIONS), 1.0)

    def at(self, first: NDArray[np.bool_]) -> "Pairs":
        """The pairs of one half; of two concepts only where the other one is of it, too."""
        own = set(self.concept[first])
        where = first & np.array([name in own for name in self.other])
        return replace(self, **{name: getattr(self, name)[where] for name in _COLUMNS})

    def verdicts(self, limits: Limits) -> dict[str, NDArray[np.bool_]]:
        """Rule -> which pairs it takes for the same picture."""
        hashed = self.bits <= limits.hash_distance
        looked = (self.cosine >= limits.candidate) | (self.bits <= HASH_NEARBY)
        copied = looked & (self.copy >= limits.copy)
        near = (self.cosine >= limits.cosine) & (self.concept == self.other)
        rules = (hashed, copied, near, hashed | copied, hashed | copied | near)
        return dict(zip(RULES, rules, strict=True))


def choose(pictures: Sequence[Pictured], seed: int) -> list[Pictured]:
    """As many of each concept, of those with two or more; ordered by concept and id."""
    by_concept: dict[str, dict[str, Pictured]] = {}
    for one in pictures:
        by_concept.setdefault(one.concept, {}).setdefault(one.id, one)
    usable = {concept: ids for concept, ids in by_concept.items() if len(ids) > 1}
    if len(usable) < 2:
        raise DataError(
            f"{len(usable)} concepts with two pictures or more; calibration needs two at least"
        )
    count = min(max(AT_MOST // len(usable), 2), PER_CONCEPT)
    concepts = sorted(usable, key=lambda name: _drawn(name, seed))[: AT_MOST // count]
    chosen = [
        usable[concept][id]
        for concept in concepts
        for id in sorted(usable[concept], key=lambda id: _drawn(id, seed))[:count]
    ]
    return sorted(chosen, key=lambda one: (one.concept, one.id))


def halves(pairs: Pairs, seed: int) -> NDArray[np.bool_]:
    """[P]: whether the pair is of a concept that limits are picked on: every other one."""
    concepts = sorted(set(pairs.concept.tolist()), key=lambda name: _drawn(name, seed))
    return np.isin(pairs.concept, concepts[::2])


def _drawn(text: str, seed: int) -> bytes:
    return blake2b(f"{seed}/{text}".encode()).digest()


@dataclass(frozen=True, slots=True)
class _Seen:
    look: copies.Look
    hash: NDArray[np.uint64]
    row: NDArray[np.float32]


def labelled(chosen: Sequence[Pictured], embed: Embed, seed: int) -> Pairs:
    """Of every picture with its alterations, and of pictures that are not the same.

    In this order: each picture with its copies; the pairs of `others`; each picture with itself,
    but for the thing in its middle. `embed` is given a picture and its copies at a time, at last
    the changed ones, one by one.
    """
    rows: list[_Row] = []
    seen: list[_Seen] = []
    with ThreadPoolExecutor(usable_cores(), "isekai-label") as pool:
        with progress.bar(len(chosen)) as advance:
            for one in chosen:
                own, found = _with_copies(one, embed, seed, pool)
                seen.append(own)
                rows += found
                advance(what="pictures altered")
        pairs = others(chosen, seed)
        told = pool.map(lambda pair: _compared(seen[pair[0]], seen[pair[1]]), pairs)
        for (i, j), compared in zip(pairs, told, strict=True):
            a, b = chosen[i].concept, chosen[j].concept
            rows.append((NEGATIVES[a != b], a, b, *compared))
        for one, own, other in zip(chosen, seen, _elsewhere(chosen, seed), strict=True):
            changed = _seen([other_thing(one.open(), other.open())], embed, pool)[0]
            rows.append((NEGATIVES[2], one.concept, one.concept, *_compared(own, changed)))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return Pairs(**dict(zip(_COLUMNS, columns, strict=True)))


def _with_copies(
    one: Pictured, embed: Embed, seed: int, pool: ThreadPoolExecutor
) -> tuple[_Seen, list[_Row]]:
    picture = one.open().convert("RGB")
    images = pool.map(lambda name: altered(picture, one.id, name, seed), ALTERATIONS)
    own, *copied = _seen([picture, *images], embed, pool)
    told = pool.map(lambda copy: _compared(own, copy), copied)
    rows = [
        (name, one.concept, one.concept, *compared)
        for name, compared in zip(ALTERATIONS, told, strict=True)
    ]
    return own, rows


def _seen(images: Sequence[Image.Image], embed: Embed, pool: ThreadPoolExecutor) -> list[_Seen]:
    looks = pool.map(lambda image: copies.Look(copies.small(image)), images)
    hashes = pool.map(perceptual_hash, images)
    return [_Seen(*told) for told in zip(looks, hashes, embed(images), strict=True)]


def _elsewhere(chosen: Sequence[Pictured], seed: int) -> list[Pictured]:
    """For every picture one of another concept."""
    found = []
    for one in chosen:
        elsewhere = [other for other in chosen if other.concept != one.concept]
        rng = generator(seed, "calibration", "background", one.concept, one.id)
        found.append(elsewhere[rng.integers(len(elsewhere))])
    return found


def _compared(a: _Seen, b: _Seen) -> tuple[int, float, float]:
    bits = int(distances(a.hash[None], b.hash[None])[0, 0])
    return bits, copies.score(a.look, b.look), float(a.row @ b.row)


def others(chosen: Sequence[Pictured], seed: int) -> list[tuple[int, int]]:
    """Every pair of a concept, and as many of different concepts, each once."""
    names = np.array([one.concept for one in chosen])
    i, j = np.triu_indices(len(chosen), 1)
    hard = names[i] == names[j]
    easy = np.flatnonzero(~hard)
    easy = generator(seed, "calibration", "others").permutation(easy)[: 2 * hard.sum()]
    # Half of them fall across the halves and count nowhere.
    return [(int(i[row]), int(j[row])) for row in (*np.flatnonzero(hard), *np.sort(easy))]
