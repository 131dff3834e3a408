"""Differences over the same clusters: of two models, of two ways to ask, and from chance."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from scipy.special import ndtri

from isekai.statistics import metrics
from isekai.statistics.metrics import Clustered, Floats
from isekai.types import Difference

Hits = Iterable[tuple[str, bool]]
Question = TypeVar("Question", bound=Hashable)

EXACT = 24
"""Up to so many clusters all ways to choose the signs are counted; beyond it they are drawn."""

DRAWS = 19_999

LEAST_CLUSTERS = 6
"""With fewer no p is below .05: of 2^G ways to choose the signs, two are as far from 0 as any."""


def difference(a: Hits, b: Hits) -> Difference | None:
    """The share of hits in `a` less that in `b`, both (cluster, hit); None if a side is empty.

    Both are asked the same questions (`matched` leaves out those with an answer on one side only),
    so what is hard about a cluster is hard for both, and cancels. With the shares p and q of y and
    z hits among n and m answers, a cluster's part in the error is (y - p n) / N - (z - q m) / M;
    for n = m the clusters' differences are compared (Miller, arXiv:2411.00640).
    The interval is that of `measured`, `p` that of `sign_flips`; see there why, and when the two
    disagree. `n` is the number of answers on the side that has fewer.
    """
    left, right = metrics.totals(a), metrics.totals(b)
    if not left or not right:
        return None
    names = sorted({*left, *right})
    return measured([(1.0, metrics.clustered(left, names), metrics.clustered(right, names))])


def against(hits: Hits, value: float) -> Difference | None:
    """The share of hits less `value`, such as chance; None without any.

    The interval is that of `metrics.share`. The test is exact where hits and misses are alike
    (`value` 1/2); for others it is right but for skew: guessing among three labels, in ten clusters
    of correlation .3, has a p below .05 in 6 of 100 runs; among ten labels in 15.
    """
    clusters = metrics.totals(hits)
    if not clusters:
        return None
    share = metrics.clustered(clusters, list(clusters))
    known, gap = metrics.estimate(share), share.value - value
    return Difference(
        value=gap,
        low=known.low - value,
        high=known.high - value,
        p=sign_flips(share.errors + gap * share.weights),
        n=known.n,
        clusters=known.clusters,
    )


def matched(
    a: Mapping[Question, tuple[str, bool]], b: Mapping[Question, tuple[str, bool]]
) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """The (cluster, hit) of every question that has an answer on both sides."""
    both = [question for question in a if question in b]
    return [a[question] for question in both], [b[question] for question in both]


def measured(pairs: Sequence[tuple[float, Clustered, Clustered]]) -> Difference:
    """The sum over (factor, a, b) of factor * (a - b); factors sum to 1, clusters are the same.

    The interval is that of `metrics.interval` on the way from -1 to 1, which near 0 is t's and near
    the ends does not leave them (the scale is Fisher's z: log((1 + d) / (1 - d))). Simulated as
    there, it covers .94 to .97 at ten clusters for differences up to .5, .92 to .94 at .9, and more
    where the two seldom differ.
    """
    value = sum(factor * (a.value - b.value) for factor, a, b in pairs)
    errors = np.sum([factor * (a.errors - b.errors) for factor, a, b in pairs], axis=0)
    weights = np.sum([factor * (a.weights + b.weights) / 2 for factor, a, b in pairs], axis=0)
    count = len(errors)
    if metrics.standard_error(errors) < metrics.NOTHING:
        low, high = _unseen(value, count)
    else:
        limits = metrics.interval((value + 1) / 2, errors / 2, weights)
        low, high = (2 * float(limit) - 1 for limit in limits)
    return Difference(
        value=value,
        low=low,
        high=high,
        p=sign_flips(np.sum([factor * _parts(a, b) for factor, a, b in pairs], axis=0)),
        n=sum(min(a.n, b.n) for _, a, b in pairs),
        clusters=count,
    )


def _parts(a: Clustered, b: Clustered) -> Floats:
    """What each cluster adds to a - b: as its errors, but from the share of both sides together."""
    both = (a.value * a.n + b.value * b.n) / (a.n + b.n)
    there = a.errors + (a.value - both) * a.weights
    return there - b.errors - (b.value - both) * b.weights


def sign_flips(parts: Floats) -> float:
    """The two-sided p value of no difference, from what each cluster adds to the difference.

    Were there none, each cluster's part could as well have had the other sign: p is the share of
    the 2^G ways to choose the signs whose sum is as far from 0 as the one seen (Fisher's
    randomisation test; in an intercept it is the wild cluster bootstrap with Rademacher weights and
    the null imposed, which Cameron, Gelbach and Miller, Rev. Econ. Stat. 90, 2008, p. 414, advise
    for few clusters). Where a difference x is as likely as -x its level is exact, whatever the
    clusters' sizes and spreads; and clusters that all agree are no case of their own, as they are
    to a t test. That keeps its level nearly as well (.00 to .06 at five to twenty clusters in the
    simulations of the tests) and sees hardly more: power .80 at ten clusters where this has .79.

    The price is a least p of 2^(1 - G): under six clusters none is below .05, so that an interval
    without 0 may stand beside such a p; so it may where few clusters differ at all. At six clusters
    its power is .63 where the t test has .80, at seven .76.
    Up to EXACT clusters the count is complete; beyond, DRAWS ways are drawn from a fixed seed, and
    the way seen counts as one of them (Davison and Hinkley, Bootstrap Methods and their
    Application, 1997, chapter 4).
    """
    sizes = np.sort(np.abs(parts[np.abs(parts) > metrics.NOTHING]))
    reach = abs(float(parts.sum())) - 1e-9 * float(sizes.sum())
    if not len(sizes) or reach <= 0:
        return 1.0
    if len(sizes) <= EXACT:
        # Sums of one half against the sorted sums of the other: 2^(G / 2) rows instead of 2^G.
        left, right = _sums(sizes[::2]), np.sort(_sums(sizes[1::2]))
        above = len(right) - np.searchsorted(right, reach - left, side="left")
        below = np.searchsorted(right, -reach - left, side="right")
        return float(above.sum() + below.sum()) / (len(left) * len(right))
    rng = np.random.default_rng(0)
    signs = rng.integers(0, 2, size=(DRAWS, len(sizes)), dtype=np.int8)
    far = np.abs(2 * (signs @ sizes) - sizes.sum()) >= reach
    return float(far.sum() + 1) / (DRAWS + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """p values that hold for all of them together (Holm, Scand. J. Stat. 6, 1979, p. 65)."""
    corrected = [0.0] * len(ps)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = highest
    return corrected


def _sums(sizes: Floats) -> Floats:
    """The sum of the sizes under each choice of signs, [2^len(sizes)]."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def _unseen(value: float, clusters: int) -> tuple[float, float]:
    """The interval where all clusters have one and the same difference.

    They may still be lucky: Wilson's upper limit for a share of which none was seen is u =
    z^2 / (G + z^2), and if so many clusters had a difference of 1, or of -1, instead, the whole
    would lie at either end of the interval.
    """
    z = float(ndtri(0.5 + metrics.LEVEL / 2))
    unseen = z * z / (clusters + z * z)
    return value - unseen * (1 + value), value + unseen * (1 - value)
