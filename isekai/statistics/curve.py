"""The n-shot curve as a whole: the area under it, and from where on more shots bring nothing."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from isekai.statistics import metrics, paired
from isekai.statistics.metrics import Clustered
from isekai.types import Difference, Estimate

Points = Mapping[int, Sequence[tuple[str, bool]]]
"""Shots -> the (cluster, hit) of every answer."""

LEVEL = 0.05
MARGIN = 0.02


def place(shots: int) -> float:
    """Where a shot count stands on the x axis: doublings apart, and 0 a step before 1."""
    return math.log2(shots) + 1 if shots else 0.0


# ---------------------------------------------------------------- area


def area(points: Points) -> Estimate | None:
    """The mean height of the curve, 0 to 1; None where fewer than two shot counts have answers.

    The trapezoid rule over `place`, divided by the length of the axis: a doubling counts the same
    wherever it stands. So it is a weighted mean of the accuracies, and its error in each cluster
    the weighted mean of theirs (delta method): the interval is that of `metrics.interval`.
    Areas are only comparable over the same shot counts. `n` counts the answers at all of them.
    """
    heights = _heights([points])
    if len(heights) < 2:
        return None
    factors = _factors(list(heights))
    shares = [share for (share,) in heights.values()]
    return metrics.estimate(
        Clustered(
            value=sum(f * share.value for f, share in zip(factors, shares, strict=True)),
            errors=np.sum([f * s.errors for f, s in zip(factors, shares, strict=True)], axis=0),
            weights=np.sum([f * s.weights for f, s in zip(factors, shares, strict=True)], axis=0),
            n=sum(share.n for share in shares),
        )
    )


def difference(a: Points, b: Points) -> Difference | None:
    """The area under `a` less that under `b`, paired, over the shot counts that both have."""
    heights = _heights([a, b])
    if len(heights) < 2:
        return None
    factors = _factors(list(heights))
    return paired.measured(
        [(f, left, right) for f, (left, right) in zip(factors, heights.values(), strict=True)]
    )


def _heights(curves: Sequence[Points]) -> dict[int, list[Clustered]]:
    """Shots -> the share of each curve over the same clusters, where all have answers."""
    shots = sorted(k for k in curves[0] if all(curve.get(k) for curve in curves))
    found = {k: [metrics.totals(curve[k]) for curve in curves] for k in shots}
    names = sorted({name for sides in found.values() for side in sides for name in side})
    return {k: [metrics.clustered(side, names) for side in sides] for k, sides in found.items()}


def _factors(shots: Sequence[int]) -> list[float]:
    """How much each shot count weighs in the area; they sum to 1."""
    at = [place(k) for k in shots]
    steps = [0.0, *(b - a for a, b in pairwise(at)), 0.0]
    return [(before + after) / 2 / (at[-1] - at[0]) for before, after in pairwise(steps)]


# ---------------------------------------------------------------- plateau


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """From which shot count on more shots bring nothing: not seen to, and shown not to."""

    gains_to: int
    """No gain was seen beyond this shot count. With few answers none is seen that is there."""
    flat_from: int | None
    """From here on all gains are shown to be below the margin; None where that isn't shown."""
    margin: float


def plateau(points: Points, *, margin: float = MARGIN) -> Plateau | None:
    """The two ends between which the curve levels off; None for fewer than two shot counts.

    gains_to   Shot counts are walked from the left: are the later ones, taken together with equal
               weight, better than this one (sign-flip test over clusters, p < .05)? The first that
               they don't beat is the answer, the last shot count if each was beaten. One test is
               only reached through the one before, so that a curve which levels off has a later
               answer than that in 5 of 100 runs at most (fixed sequence: Maurer, Hothorn and
               Lehmacher 1995). A gain that is lost again is no gain.
    flat_from  Shot counts are walked from the right, as long as the gain from this one to every
               later one has a 95 % interval whose upper end is below `margin`. All of them have to
               show it, so that none needs a correction (intersection-union test: Berger,
               Technometrics 24, 1982, p. 295). The last shot count alone shows nothing.
    """
    heights = {k: share for k, (share,) in _heights([points]).items()}
    shots = list(heights)
    if len(shots) < 2:
        return None
    gains_to = next((k for k in shots[:-1] if not _beaten(heights, k)), shots[-1])
    steep = [
        early
        for early, late in combinations(shots, 2)
        if paired.measured([(1.0, heights[late], heights[early])]).high >= margin
    ]
    after = [k for k in shots[:-1] if k > max(steep, default=-1)]
    return Plateau(gains_to=gains_to, flat_from=after[0] if after else None, margin=margin)


def _beaten(heights: Mapping[int, Clustered], shots: int) -> bool:
    later = [k for k in heights if k > shots]
    gain = paired.measured([(1 / len(later), heights[k], heights[shots]) for k in later])
    return gain.value > 0 and gain.p < LEVEL


def words(plateau: Plateau, shots: Iterable[int]) -> str:
    """`no gain seen after 4; within .02 from 8`, for a curve over these shot counts."""
    last = max(shots)
    seen = "gains to the end" if plateau.gains_to == last else f"no gain after {plateau.gains_to}"
    if plateau.flat_from is None:
        return seen
    margin = f"{plateau.margin:g}".removeprefix("0")
    return f"{seen}; within {margin} from {plateau.flat_from}"
