"""Numbers with their intervals: shares of answers, clustered by the concepts they are about."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri, stdtrit

from isekai.types import Estimate, Intervals, Outcome

LEVEL = 0.95
NOTHING = 1e-12
"""Standard errors of shares below this are rounding: the smallest true one is near 1 / answers."""

Floats = NDArray[np.float64]


def accuracy(
    outcomes: Iterable[tuple[str, Outcome]], intervals: Intervals = "t"
) -> Estimate | None:
    """The share of correct answers among all that did not fail; None if all failed.

    `outcomes` holds (cluster, outcome). An abstention is not correct. A failure (time-out, crash,
    refused request) says nothing of the model, counts nowhere here and has to be told beside it.
    """
    hits = ((cluster, o == "correct") for cluster, o in outcomes if o != "failed")
    return measure(hits, intervals)


def abstain_share(
    outcomes: Iterable[tuple[str, Outcome]], intervals: Intervals = "t"
) -> Estimate | None:
    """The share of abstentions among all that did not fail; None if all failed."""
    hits = ((cluster, o == "abstain") for cluster, o in outcomes if o != "failed")
    return measure(hits, intervals)


def tally(outcomes: Iterable[tuple[str, Outcome]]) -> Mapping[str, int]:
    """How often each of the four outcomes came."""
    count = Counter(outcome for _, outcome in outcomes)
    return {outcome: count[outcome] for outcome in ("correct", "wrong", "abstain", "failed")}


def measure(hits: Iterable[tuple[str, bool]], intervals: Intervals) -> Estimate | None:
    """The share of hits over (cluster, hit) with an interval of that kind; None without any."""
    return share(hits) if intervals == "t" else bootstrap(hits, seed=0)


def share(hits: Iterable[tuple[str, bool]]) -> Estimate | None:
    """The share of hits over (cluster, hit) with its 95 % interval; None without any.

    Answers of one cluster are about the same concepts and behind the same support sets, so they
    are not independent: what is taken for independent is the cluster. With y hits of n answers in
    each of G clusters, p = sum(y) / sum(n) is a ratio of cluster totals, and `interval` makes a t
    interval of its error (y - p n) / sum(n) in each cluster (ratio-to-size estimate: Cochran,
    Sampling Techniques, 3rd ed. 1977, chapter 9A, without the finite-population factor; "clustered
    standard errors" in Miller, arXiv:2411.00640).
    """
    clusters = totals(hits)
    return estimate(clustered(clusters, list(clusters))) if clusters else None


def estimate(share: "Clustered") -> Estimate:
    """The share with its 95 % interval."""
    low, high = interval(share.value, share.errors, share.weights)
    return Estimate(
        value=share.value,
        low=float(low),
        high=float(high),
        n=share.n,
        clusters=len(share.weights),
    )


def interval(value: ArrayLike, errors: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The 95 % interval of a share from its error in each cluster; of many shares at once, too.

    `errors` [..., clusters] sum to 0: what each cluster adds to the error of `value` [...],
    linearised. `weights` [clusters] sum to 1: the share of the answers that each cluster has. With
    the clustered standard error s and the degrees of freedom of `freedom`, the interval is
        logit(p) +- t * s / (p (1 - p))
    taken back from the log-odds, as survey software does for shares (method "xlogit" of R's
    `svyciprop`; Dean and Pagano, J. Surv. Stat. Methodol. 3, 2015, p. 484, compare the methods).
    p +- t s itself covers too little where the clusters' shares are skewed.

    Where the clusters don't differ (all hits, no hits, equal shares) or there are fewer than two,
    their spread says nothing. Wilson's interval then stands in, of as many answers as there are
    clusters: the answers of one cluster may all hang on one thing, so no more is safe.

    Simulated coverage at ten clusters of 8 to 64 answers, 400,000 runs of beta-binomial answers of
    intra-cluster correlation .05 to .3: .93 to .97 for shares of .5 to .85 (p +- t s: .86 to .95).
    At .95 it is .96 to .97 with a correlation of .05, but .89 to .93 with .3: most concepts are
    then solved wholly, and ten clusters often hold none of those that are not.
    """
    value, error = np.asarray(value), standard_error(errors)
    alike = error < NOTHING
    inner = np.where(alike, 0.5, value)
    half = critical(weights) * error / (inner * (1 - inner))
    low, high = wilson(value * len(weights), len(weights))
    return (
        np.where(alike, low, expit(logit(inner) - half)),
        np.where(alike, high, expit(logit(inner) + half)),
    )


def bootstrap(
    hits: Iterable[tuple[str, bool]], *, seed: int, draws: int = 1_999
) -> Estimate | None:
    """The share of hits with a 95 % cluster bootstrap interval instead; None without any hits.

    Whole clusters are drawn with replacement. The interval is the bootstrap-t one on the scale of
    the angle arcsin(sqrt(p)), which steadies the variance of a share (Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, section 5.2). Percentiles of the drawn shares
    cover .84 to .91 at ten clusters. A draw of clusters that don't differ has no standard error: it
    lies infinitely far out on its side. Where no cluster differs from another there is nothing to
    draw: Wilson's interval stands in as in `interval`.

    Simulated coverage as there: .93 to .97 for shares of .5 to .85, at .95 from .93 to .98. It is
    wider than `share`'s near 0 and 1, and reaches them.
    """
    clusters = totals(hits)
    if not clusters:
        return None
    share, (y, n) = clustered(clusters, list(clusters)), columns(clusters, list(clusters))
    plain = estimate(share)
    if standard_error(share.errors) < NOTHING:
        return plain
    rng = np.random.default_rng(seed)
    count = len(n)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=draws).astype(float)
    low, high = studentised(y, n, drawn)
    return replace(plain, low=float(low), high=float(high))


def studentised(y: Floats, n: Floats, drawn: Floats) -> tuple[Floats, Floats]:
    """Bootstrap-t limits of sum(y) / sum(n), for one `y` [clusters] or many [..., clusters].

    `drawn` [draws, clusters] says how often each cluster was drawn.
    """
    share, error = _with_errors(y, n, np.ones((1, len(n))))
    shares, errors = _with_errors(y, n, drawn)
    off = _angle(shares) - _angle(share)
    t = np.where(off == 0, 0.0, np.copysign(np.inf, off))
    np.divide(off, _angle_error(shares, errors), out=t, where=errors > 1e-9)
    limits = np.quantile(t, [0.5 + LEVEL / 2, 0.5 - LEVEL / 2], axis=-1, method="inverted_cdf")
    reach = _angle(share)[..., 0] - limits * _angle_error(share, error)[..., 0]
    low, high = np.sin(np.clip(reach, 0, np.pi / 2)) ** 2
    return low, high


def _angle(share: Floats) -> Floats:
    angle: Floats = np.arcsin(np.sqrt(share))
    return angle


def _angle_error(share: Floats, error: Floats) -> Floats:
    """Of the angle, from that of the share (delta method); 1 where the share is 0 or 1."""
    slope = 2 * np.sqrt(share * (1 - share))
    scaled: Floats = np.divide(error, slope, out=np.ones_like(error), where=slope > 0)
    return scaled


def _with_errors(y: Floats, n: Floats, drawn: Floats) -> tuple[Floats, Floats]:
    """Shares and their clustered standard errors, [..., draws]."""
    answers = drawn @ n
    shares = (y @ drawn.T) / answers
    squares = y**2 @ drawn.T - 2 * shares * ((y * n) @ drawn.T) + shares**2 * (drawn @ n**2)
    scale = len(n) / (len(n) - 1)
    return shares, np.sqrt(np.maximum(squares, 0) * scale) / answers


# ---------------------------------------------------------------- clusters


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustered:
    """A share and what each cluster has in it, [clusters] each."""

    value: float
    errors: Floats
    """(hits - value * answers) / all answers; they sum to 0."""
    weights: Floats
    """answers / all answers; they sum to 1."""
    n: int
    """All answers."""


Totals = Mapping[str, tuple[int, int]]
"""Cluster -> its hits and its answers."""


def totals(hits: Iterable[tuple[str, bool]]) -> Totals:
    """In the order of the clusters' names."""
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for cluster, hit in hits:
        found[cluster][0] += hit
        found[cluster][1] += 1
    return {cluster: (found[cluster][0], found[cluster][1]) for cluster in sorted(found)}


def columns(clusters: Totals, names: Sequence[str]) -> tuple[Floats, Floats]:
    """The hits and the answers of each of these clusters; 0 of those that aren't there."""
    hits, answers = np.array([clusters.get(name, (0, 0)) for name in names], dtype=np.float64).T
    return hits, answers


def clustered(clusters: Totals, names: Sequence[str]) -> Clustered:
    """The share of hits over these clusters; at least one has an answer."""
    y, n = columns(clusters, names)
    p, weights = y.sum() / n.sum(), n / n.sum()
    return Clustered(
        value=float(p), errors=y / n.sum() - p * weights, weights=weights, n=int(n.sum())
    )


def standard_error(errors: Floats) -> Floats:
    """Of numbers with these errors, [..., G]: sqrt(G / (G - 1) * sum(errors^2)); 0 if G < 2."""
    count = errors.shape[-1]
    error: Floats = np.sqrt(count / max(count - 1, 1) * np.sum(errors**2, axis=-1))
    return error if count > 1 else np.zeros_like(error)


def freedom(weights: Floats) -> float:
    """Degrees of freedom of a clustered standard error: as many clusters as count, less one.

    A few clusters that hold most of the answers are what the error is measured by: G clusters of
    these weights count as sum(w^2)^2 / sum(w^4), which is G for equal ones (effective number of
    clusters: Carter, Schnepel and Steigerwald, Rev. Econ. Stat. 99, 2017, p. 698, where all answers
    of a cluster hang together).
    """
    return float(np.sum(weights**2) ** 2 / np.sum(weights**4)) - 1


def critical(weights: Floats) -> float:
    """How many standard errors a 95 % interval reaches to each side; beyond all bounds at .1."""
    return float(stdtrit(max(freedom(weights), 0.1), 0.5 + LEVEL / 2))


def wilson(hits: ArrayLike, n: int) -> tuple[Floats, Floats]:
    """Wilson's score interval of a share (J. Am. Stat. Assoc. 22, 1927, p. 209): 95 %."""
    z = ndtri(0.5 + LEVEL / 2)
    p = np.asarray(hits) / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)
