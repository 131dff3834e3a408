"""How near is too near, for these pictures and this embedder: measured on copies made of them.

Each picture and each of its alterations (`isekai.alterations`) are a pair that is the same; two
pictures of a concept are one that is not, and hard to tell, and so are two things before one
background; two of different concepts are easy. Limits are picked on half of the concepts, and what
they do is measured on the other half.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import copies, progress
from isekai.alterations import ALTERATIONS, altered, other_thing
from isekai.dedup import HASH_BITS, HASH_NEARBY, Limits, distances, perceptual_hash
from isekai.episodes import generator
from isekai.errors import DataError
from isekai.statistics import metrics
from isekai.types import Estimate

AT_MOST = 240
PER_CONCEPT = 12
CANDIDATES = 0.995
"""Share of copies that the cosine for candidates lets through."""
STORED = ("exact", "jpeg", "resize", "stretch")
"""What hash and cosine are for: the whole picture, stored otherwise. Cut and turned ones are found
as copies; looser limits would find some of them, too, and then other views of a concept."""
_OWN = 0.99
"""Share of its own kinds that a limit lets through with room to spare, if precision allows it."""
RULES = ("hash", "copy", "cosine", "same picture", "any")
NEGATIVES = ("same concept", "other concept", "same background")

Embed = Callable[[Sequence[Image.Image]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictured:
    """A picture to calibrate on."""

    id: str
    concept: str
    open: Callable[[], Image.Image] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How many pairs of one kind each rule takes for the same picture."""

    pairs: str
    """An alteration, or one of `NEGATIVES`."""
    same: bool
    n: int
    found: Mapping[str, Estimate]
    """Rule -> share: recall of the same, false alarms of others; Wilson's 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Limits that were picked for a precision, and what they do on concepts not used for it."""

    limits: Limits
    asked: float
    """The precision that the limits were picked for."""
    seed: int
    pictures: int
    concepts: int
    measured: int
    """Pictures of the half that the figures come from."""
    lines: Sequence[Line]
    recall: Mapping[str, Estimate]
    """Rule -> share of all altered copies that it finds."""
    precision: Mapping[str, Estimate | None]
    """Rule -> share of what it finds that is right, where every picture has one copy; None if it
    finds nothing. Alterations count equally, every pair of others counts in full."""

    def text(self) -> str:
        """A table to print."""
        limits = self.limits
        head = ["pairs", "n", *RULES]
        rows = [[one.pairs, str(one.n), *map(_told, one.found.values())] for one in self.lines]
        sums = [
            ["recall", "", *(_told(self.recall[rule]) for rule in RULES)],
            ["precision", "", *(_told(self.precision[rule]) for rule in RULES)],
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, *sums, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows, *sums)
        ]
        return "\n".join(
            [
                f"picked for a precision of {self.asked:g}: hash_distance={limits.hash_distance} "
                f"copy={limits.copy:g} candidate={limits.candidate:g} cosine={limits.cosine:g}",
                f"measured on {self.measured} pictures of concepts that nothing was picked on "
                f"({self.pictures} pictures of {self.concepts} concepts in all, seed {self.seed})",
                *lines,
            ]
        )


def run(
    pictures: Sequence[Pictured], embed: Embed, precision: float = 0.99, seed: int = 0
) -> Calibration:
    """Alter at most `AT_MOST` of the pictures, pick limits for the precision, and measure them.

    `embed` gives unit rows. The pictures are drawn by `seed` and alterations by the pictures' ids,
    so that order changes nothing. DataError for fewer than two concepts with two pictures each.
    """
    if not 0.5 <= precision < 1:
        raise DataError(f"a precision of {precision:g}; it lies between 0.5 and 1, 1 left out")
    chosen = _chosen(pictures, seed)
    pairs = _pairs(chosen, embed, seed)
    concepts = sorted({one.concept for one in chosen}, key=lambda name: _drawn(name, seed))
    picked_on = set(concepts[::2])
    first = np.array([one in picked_on for one in pairs.concept])
    limits = _limits(pairs.at(first), precision)
    return _measured(pairs.at(~first), limits, precision, seed, chosen, len(concepts))


def _drawn(text: str, seed: int) -> bytes:
    return blake2b(f"{seed}/{text}".encode()).digest()


def _chosen(pictures: Sequence[Pictured], seed: int) -> list[Pictured]:
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


# ---------------------------------------------------------------- labelled pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pairs:
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

    def at(self, first: NDArray[np.bool_]) -> "_Pairs":
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


_COLUMNS = ("kind", "concept", "other", "bits", "copy", "cosine")


@dataclass(frozen=True, slots=True)
class _Seen:
    look: copies.Look
    hash: NDArray[np.uint64]
    row: NDArray[np.float32]


def _pairs(chosen: Sequence[Pictured], embed: Embed, seed: int) -> _Pairs:
    """Of every picture with its alterations, all of a concept, and as many of two concepts."""
    rows: list[tuple[str, str, str, int, float, float]] = []
    seen: list[_Seen] = []
    with progress.bar(len(chosen)) as advance:
        for one in chosen:
            picture = one.open().convert("RGB")
            images = [picture, *(altered(picture, one.id, name, seed) for name in ALTERATIONS)]
            own, *others = _seen(images, embed)
            seen.append(own)
            rows += [
                (name, one.concept, one.concept, *_compared(own, other))
                for name, other in zip(ALTERATIONS, others, strict=True)
            ]
            advance(what="pictures altered")
    for i, j in _others(chosen, seed):
        a, b = chosen[i].concept, chosen[j].concept
        rows.append((NEGATIVES[a != b], a, b, *_compared(seen[i], seen[j])))
    for one, own, other in zip(chosen, seen, _elsewhere(chosen, seed), strict=True):
        changed = other_thing(one.open(), other.open())
        compared = _compared(own, _seen([changed], embed)[0])
        rows.append((NEGATIVES[2], one.concept, one.concept, *compared))
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return _Pairs(**dict(zip(_COLUMNS, columns, strict=True)))


def _seen(images: Sequence[Image.Image], embed: Embed) -> list[_Seen]:
    return [
        _Seen(copies.look(copies.small(image)), perceptual_hash(image), row)
        for image, row in zip(images, embed(images), strict=True)
    ]


def _elsewhere(chosen: Sequence[Pictured], seed: int) -> list[Pictured]:
    """For every picture one of another concept."""
    found = []
    for one in chosen:
        others = [other for other in chosen if other.concept != one.concept]
        rng = generator(seed, "calibration", "background", one.concept, one.id)
        found.append(others[rng.integers(len(others))])
    return found


def _compared(a: _Seen, b: _Seen) -> tuple[int, float, float]:
    bits = int(distances(a.hash[None], b.hash[None])[0, 0])
    return bits, copies.score(a.look, b.look), float(a.row @ b.row)


def _others(chosen: Sequence[Pictured], seed: int) -> list[tuple[int, int]]:
    """Every pair of a concept, and as many of different concepts, each once."""
    names = np.array([one.concept for one in chosen])
    i, j = np.triu_indices(len(chosen), 1)
    hard = names[i] == names[j]
    easy = np.flatnonzero(~hard)
    easy = generator(seed, "calibration", "others").permutation(easy)[: 2 * hard.sum()]
    # Half of them fall across the halves and count nowhere.
    return [(int(i[row]), int(j[row])) for row in (*np.flatnonzero(hard), *np.sort(easy))]


# ---------------------------------------------------------------- limits


def _limits(pairs: _Pairs, precision: float) -> Limits:
    stored = np.isin(pairs.kind, STORED)
    candidate = float(np.quantile(pairs.cosine[pairs.same], 1 - CANDIDATES))
    looked = (pairs.cosine >= candidate) | (pairs.bits <= HASH_NEARBY)
    bits = -_limit(-pairs.bits.astype(float), stored, pairs, precision)
    copy = _limit(np.where(looked, pairs.copy, 0.0), pairs.same, pairs, precision)
    return Limits(
        hash_distance=int(np.clip(np.floor(bits), 0, HASH_BITS - 1)),
        copy=round(copy, 3),
        candidate=float(np.floor(candidate * 1000) / 1000),
        cosine=round(min(_limit(pairs.cosine, stored, pairs, precision), 1.0), 4),
    )


def _limit(
    values: NDArray[np.float64], own: NDArray[np.bool_], pairs: _Pairs, precision: float
) -> float:
    """Midway between what a rule's own kinds need and the most alike of the others.

    Where these overlap, the lowest limit that keeps the precision.
    """
    needed = float(np.quantile(values[own], 1 - _OWN))
    worst = float(values[~pairs.same].max())
    return (needed + worst) / 2 if needed > worst else _threshold(values, pairs, precision)


def _threshold(values: NDArray[np.float64], pairs: _Pairs, precision: float) -> float:
    """The lowest value of a copy down to which the precision holds, less half the gap below it.

    Where even the highest value is not precise enough, one that only equal pictures reach.
    """
    order = np.lexsort((pairs.same, -values))  # of equal values the others first
    same, weight, down = pairs.same[order], pairs.weight[order], values[order]
    right = np.cumsum(np.where(same, weight, 0))
    precise = right >= precision * np.cumsum(weight)
    last_of_equal = np.append(down[1:] < down[:-1], True)
    fine = np.flatnonzero(precise & same & last_of_equal)
    if not len(fine):
        return float(down[0])
    below = down[fine[-1] + 1] if fine[-1] + 1 < len(down) else down[fine[-1]]
    return float((down[fine[-1]] + below) / 2)


# ---------------------------------------------------------------- figures


def _measured(
    pairs: _Pairs,
    limits: Limits,
    precision: float,
    seed: int,
    chosen: Sequence[Pictured],
    concepts: int,
) -> Calibration:
    verdicts = pairs.verdicts(limits)
    lines = []
    for kind in (*ALTERATIONS, *NEGATIVES):
        where = pairs.kind == kind
        if where.any():
            found = {rule: _share(taken[where]) for rule, taken in verdicts.items()}
            same = kind not in NEGATIVES
            lines.append(Line(pairs=kind, same=same, n=int(where.sum()), found=found))
    return Calibration(
        limits=limits,
        asked=precision,
        seed=seed,
        pictures=len(chosen),
        concepts=concepts,
        measured=int((pairs.kind == "exact").sum()),
        lines=lines,
        recall={rule: _share(taken[pairs.same]) for rule, taken in verdicts.items()},
        precision={rule: _precision(pairs, taken) for rule, taken in verdicts.items()},
    )


def _share(hits: NDArray[np.bool_]) -> Estimate:
    return _estimate(float(hits.sum()), len(hits))


def _precision(pairs: _Pairs, taken: NDArray[np.bool_]) -> Estimate | None:
    total = float(pairs.weight[taken].sum())
    return _estimate(float(pairs.weight[taken & pairs.same].sum()), total) if total else None


def _estimate(hits: float, n: float) -> Estimate:
    low, high = metrics.wilson(hits, n)  # type: ignore[arg-type]
    return Estimate(value=hits / n, low=float(low), high=float(high), n=round(n), clusters=round(n))


def _told(one: Estimate | None) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" if one else "-"
