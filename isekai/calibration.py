"""How near is too near, for these pictures and this embedder: measured on copies made of them.

Each picture and each of its alterations (`isekai.alterations`) are a pair that is the same; two
pictures of a concept are one that is not, and hard to tell, and so are two things before one
background; two of different concepts are easy. Limits are picked on half of the concepts, and what
they do is measured on the other half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isekai.alterations import ALTERATIONS
from isekai.dedup import HASH_BITS, HASH_NEARBY, Limits
from isekai.errors import DataError
from isekai.labelled import NEGATIVES, Embed, Pairs, choose, halves, labelled
from isekai.labelled import RULES as RULES
from isekai.labelled import Pictured as Pictured
from isekai.statistics import metrics
from isekai.types import Estimate

CANDIDATES = 0.995
"""Share of copies that the cosine for candidates lets through."""
STORED = ("exact", "jpeg", "resize", "stretch")
"""What hash and cosine are for: the whole picture, stored otherwise. Cut and turned ones are found
as copies; looser limits would find some of them, too, and then other views of a concept."""
_OWN = 0.99
"""Share of its own kinds that a limit lets through with room to spare, if precision allows it."""


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
    chosen = choose(pictures, seed)
    return run_on(labelled(chosen, embed, seed), precision, seed, chosen)


def run_on(pairs: Pairs, precision: float, seed: int, chosen: Sequence[Pictured]) -> Calibration:
    """The same, of pairs that are labelled already: those of the pictures `chosen`."""
    first = halves(pairs, seed)
    limits = _limits(pairs.at(first), precision)
    return _measured(pairs.at(~first), limits, precision, seed, chosen)


# ---------------------------------------------------------------- limits


def _limits(pairs: Pairs, precision: float) -> Limits:
    stored = np.isin(pairs.kind, STORED)
    candidate = float(np.quantile(pairs.cosine[pairs.same], 1 - CANDIDATES))
    looked = (pairs.cosine >= candidate) | (pairs.bits <= HASH_NEARBY)
    bits = -limit(-pairs.bits.astype(float), stored, pairs, precision)
    copy = limit(np.where(looked, pairs.copy, 0.0), pairs.same, pairs, precision)
    return Limits(
        hash_distance=int(np.clip(np.floor(bits), 0, HASH_BITS - 1)),
        copy=round(copy, 3),
        candidate=float(np.floor(candidate * 1000) / 1000),
        cosine=round(min(limit(pairs.cosine, stored, pairs, precision), 1.0), 4),
    )


def limit(
    values: NDArray[np.float64], own: NDArray[np.bool_], pairs: Pairs, precision: float
) -> float:
    """Midway between what a rule's own kinds need and the most alike of the others.

    Where these overlap, the lowest limit that keeps the precision.
    """
    needed = float(np.quantile(values[own], 1 - _OWN))
    worst = float(values[~pairs.same].max())
    return (needed + worst) / 2 if needed > worst else _threshold(values, pairs, precision)


def _threshold(values: NDArray[np.float64], pairs: Pairs, precision: float) -> float:
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
    pairs: Pairs,
    limits: Limits,
    precision: float,
    seed: int,
    chosen: Sequence[Pictured],
) -> Calibration:
    verdicts = pairs.verdicts(limits)
    lines = []
    for kind in (*ALTERATIONS, *NEGATIVES):
        where = pairs.kind == kind
        if where.any():
            found = {rule: share(taken[where]) for rule, taken in verdicts.items()}
            same = kind not in NEGATIVES
            lines.append(Line(pairs=kind, same=same, n=int(where.sum()), found=found))
    return Calibration(
        limits=limits,
        asked=precision,
        seed=seed,
        pictures=len(chosen),
        concepts=len({one.concept for one in chosen}),
        measured=int((pairs.kind == "exact").sum()),
        lines=lines,
        recall={rule: share(taken[pairs.same]) for rule, taken in verdicts.items()},
        precision={rule: precise(pairs, taken) for rule, taken in verdicts.items()},
    )


def share(hits: NDArray[np.bool_]) -> Estimate:
    """The share of hits with Wilson's interval."""
    return _estimate(float(hits.sum()), len(hits))


def precise(pairs: Pairs, taken: NDArray[np.bool_]) -> Estimate | None:
    """Which share of the pairs taken for the same is the same, each by its weight."""
    total = float(pairs.weight[taken].sum())
    return _estimate(float(pairs.weight[taken & pairs.same].sum()), total) if total else None


def _estimate(hits: float, n: float) -> Estimate:
    low, high = metrics.wilson(hits, n)  # type: ignore[arg-type]
    return Estimate(value=hits / n, low=float(low), high=float(high), n=round(n), clusters=round(n))


def _told(one: Estimate | None) -> str:
    return f"{one.value:.3f} [{one.low:.3f}, {one.high:.3f}]" if one else "-"
