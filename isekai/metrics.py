"""Numbers with their intervals: shares of answers, clustered by the concepts they are about."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from scipy.special import ndtri, stdtrit

from isekai.types import Estimate, Outcome

LEVEL = 0.95


def accuracy(outcomes: Iterable[tuple[str, Outcome]]) -> Estimate | None:
    """The share of correct answers among all that did not fail; None if all failed.

    `outcomes` holds (cluster, outcome). An abstention is not correct. A failure (time-out, crash,
    refused request) says nothing of the model, counts nowhere here and has to be told beside it.
    """
    return share((cluster, o == "correct") for cluster, o in outcomes if o != "failed")


def abstain_share(outcomes: Iterable[tuple[str, Outcome]]) -> Estimate | None:
    """The share of abstentions among all that did not fail; None if all failed."""
    return share((cluster, o == "abstain") for cluster, o in outcomes if o != "failed")


def tally(outcomes: Iterable[tuple[str, Outcome]]) -> Mapping[str, int]:
    """How often each of the four outcomes came."""
    count = Counter(outcome for _, outcome in outcomes)
    return {outcome: count[outcome] for outcome in ("correct", "wrong", "abstain", "failed")}


def share(hits: Iterable[tuple[str, bool]]) -> Estimate | None:
    """The share of hits over (cluster, hit) with its 95 % interval; None without any.

    Answers of one cluster are about the same concepts and behind the same support sets, so they
    are not independent: what is taken for independent is the cluster. With y hits of n answers in
    each of G clusters, p = sum(y) / sum(n) is a ratio of cluster totals and
        p +- t(G - 1) * sqrt(G / (G - 1) * sum((y - p n)^2)) / sum(n)
    (ratio-to-size estimate: Cochran, Sampling Techniques, 3rd ed. 1977, chapter 9A, without the
    finite-population factor; "clustered standard errors" in Miller, arXiv:2411.00640). For
    clusters of one size this is the t interval of the cluster means. It is cut off at 0 and 1.

    Where the clusters don't differ (all hits, no hits, equal shares) or there are fewer than two,
    their spread says nothing. Wilson's interval then stands in, of as many answers as there are
    clusters: the answers of one cluster may all hang on one thing, so no more is safe.
    """
    clusters: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for cluster, hit in hits:
        clusters[cluster][0] += hit
        clusters[cluster][1] += 1
    total = sum(n for _, n in clusters.values())
    if not total:
        return None
    right = sum(y for y, _ in clusters.values())
    p, count = right / total, len(clusters)
    spread = math.fsum((y - p * n) ** 2 for y, n in clusters.values())
    if count < 2 or spread < 1e-9:
        low, high = wilson(p * count, count)
    else:
        t = float(stdtrit(count - 1, 0.5 + LEVEL / 2))
        half = t * math.sqrt(count / (count - 1) * spread) / total
        low, high = max(0.0, p - half), min(1.0, p + half)
    return Estimate(value=p, low=low, high=high, n=total, clusters=count)


def wilson(hits: float, n: int) -> tuple[float, float]:
    """Wilson's score interval of a share (J. Am. Stat. Assoc. 22, 1927, p. 209): 95 %."""
    z = float(ndtri(0.5 + LEVEL / 2))
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if hits == 0 else centre - half
    high = 1.0 if hits == n else centre + half
    return low, high
