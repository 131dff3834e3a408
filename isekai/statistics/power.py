"""How many episodes, or how many clusters, it takes to see a difference of a given size."""

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import nct
from scipy.stats import t as student

from isekai.errors import DataError, IsekaiError
from isekai.statistics.metrics import Floats

POWER = 0.8
LEVEL = 0.05
MOST = 1_000
"""Episodes a unit, or clusters, beyond which no plan goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How much the difference of one episode, a mean over its queries, varies."""

    between: float
    """Variance between clusters."""
    within: float
    """Variance between episodes of a cluster."""
    clusters: int
    episodes: int
    """Of each cluster, as they are now."""
    source: str
    """Where the two variances come from: a clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What it takes to see `difference` in `power` of all runs, two-sided at `level`."""

    difference: float
    power: float
    level: float
    episodes: int | None
    """Of each unit, with the clusters there are; None where no number of them would do."""
    clusters: int | None
    """Where episodes don't do: this many, with the episodes a unit there are; None over MOST."""
    least_clusters: int | None
    """Fewer do not suffice, however many episodes they have; None over MOST."""
    units: int
    """Units of a cluster."""
    spread: Spread


def plan(
    difference: float, spread: Spread, *, units: int = 1, power: float = POWER, level: float = LEVEL
) -> Plan:
    """The plan for a difference of shares, such as .05, with this spread.

    With G clusters of E episodes the difference has the variance (between + within / E) / G. More
    episodes make the second part small; what is left of the first takes more clusters. `units` is
    how many units of its task a cluster has: a plan counts episodes of each. Means over episodes
    are taken to be normal; the power is that of `reached`.
    """
    if not 0 < difference <= 1:
        raise IsekaiError(f"a difference of {difference:g}; it lies above 0 and not above 1: 0.05")

    def enough(clusters: int, episodes: float) -> bool:
        return reached(difference, spread, clusters, episodes, level) >= power

    now = _now(spread, units) * units
    episodes = _first(lambda count: enough(spread.clusters, count * units))
    return Plan(
        difference=difference,
        power=power,
        level=level,
        episodes=episodes,
        clusters=None if episodes else _first(lambda count: enough(count, now)),
        least_clusters=_first(lambda count: enough(count, math.inf)),
        units=units,
        spread=spread,
    )


def _now(spread: Spread, units: int) -> int:
    """Episodes a unit, as they are."""
    return max(1, round(spread.episodes / units))


def reached(
    difference: float, spread: Spread, clusters: int, episodes: float, level: float = LEVEL
) -> float:
    """The chance that a true difference is significant and of the right sign.

    It is that of the paired t test over clusters, by the noncentral t distribution. The sign-flip
    test of `paired` sees all but as much from seven clusters on (simulated: .76 of .80 at seven,
    .79 at ten); with the least number that can be significant at all, six at level .05, all
    differences have to have the same sign; below it there is no power.
    """
    least = math.ceil(1 - math.log2(level))
    variance = spread.between + spread.within / episodes
    if clusters < least:
        return 0.0
    if variance <= 0:
        return 1.0
    signal = difference / math.sqrt(variance)
    freedom = clusters - 1
    seen = float(nct.sf(student.ppf(1 - level / 2, freedom), freedom, signal * math.sqrt(clusters)))
    if clusters > least:
        return seen
    return min(seen, (0.5 * math.erfc(-signal / math.sqrt(2))) ** clusters)


def _first(enough: Callable[[int], bool]) -> int | None:
    """The smallest number up to MOST that is enough, if any; more than enough is enough, too."""
    first = bisect_left(range(1, MOST + 1), True, key=enough) + 1
    return first if first <= MOST else None


# ---------------------------------------------------------------- how much differences vary


def measured(levels: Sequence[Iterable[tuple[str, object, float]]]) -> Spread:
    """The spread in a pilot run: (cluster, episode, difference) of every answer, by shot count.

    The difference is hit less chance for one run, or hit less hit for two: each episode's mean is
    one observation, whatever its queries. Variances are the one-way analysis of variance's
    estimates for unequal numbers (Searle, Casella and McCulloch, Variance Components, 1992, chapter
    3), averaged over shot counts and then cut off at 0. They are rough where clusters are few.
    Where no cluster has a second episode nothing tells the two from each other: then all variance
    counts as one between clusters, which no episode makes smaller. DataError for fewer than two
    clusters.
    """
    grouped = [list(_means(rows).values()) for rows in levels]
    fewest = min((len(clusters) for clusters in grouped), default=0)
    if fewest < 2:
        raise DataError(
            f"{fewest} cluster to plan from; 2 are the least: bench a dataset with more groups"
        )
    between, within = np.mean([_components(clusters) for clusters in grouped], axis=0)
    counts = np.array([len(own) for own in max(grouped, key=len)])
    told = f"a rough estimate from {counts.sum()} episodes of {len(counts)} clusters"
    if len(grouped) > 1:
        told += f" at {len(grouped)} shot counts"
    if counts.max() == 1:
        told += " (one episode each, so all of it counts as between clusters)"
    return Spread(
        between=max(0.0, float(between)),
        within=float(within),
        clusters=len(counts),
        episodes=round(float(counts.mean())),
        source=told,
    )


def _means(rows: Iterable[tuple[str, object, float]]) -> dict[str, Floats]:
    """Cluster -> the mean of each of its episodes."""
    answers: dict[str, dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cluster, episode, value in rows:
        answers[cluster][episode].append(value)
    return {name: np.array([np.mean(of) for of in own.values()]) for name, own in answers.items()}


def _components(clusters: Sequence[Floats]) -> tuple[float, float]:
    """Variances between clusters, which may come out below 0, and within."""
    counts = np.array([len(own) for own in clusters])
    means = np.array([own.mean() for own in clusters])
    total, groups = counts.sum(), len(clusters)
    overall = float((counts * means).sum() / total)
    above = float((counts * (means - overall) ** 2).sum() / (groups - 1))
    if total == groups:
        return above, 0.0
    within = sum(float(((own - own.mean()) ** 2).sum()) for own in clusters) / (total - groups)
    typical = (total - (counts**2).sum() / total) / (groups - 1)
    return (above - within) / typical, float(within)


def assumed(clusters: int, episodes: int, *, runs: int = 2, correlation: float = 0.5) -> Spread:
    """The spread without a pilot: the largest that answers can have, but for `correlation`.

    Every answer is right half of the time, all answers of an episode are right or wrong together,
    and two runs know nothing of each other: an episode's variance is 1/4 for each run.
    `correlation` is the share of it that lies between clusters: the baselines had .45 to .52 on
    `twin` and .15 to .22 on `foil`, in eight groups with 4 episodes a unit of 8 queries. A pilot
    knows better.
    """
    variance = runs / 4
    return Spread(
        between=correlation * variance,
        within=(1 - correlation) * variance,
        clusters=clusters,
        episodes=episodes,
        source=(
            "assumed at its worst, with no pilot: half of the answers right, those of an episode "
            f"all alike, a correlation of {correlation:g} within clusters"
        ),
    )


# ---------------------------------------------------------------- words


def words(plan: Plan) -> str:
    """The plan in two or three sentences, with what it assumes."""
    spread, there = plan.spread, _now(plan.spread, plan.units)
    aim = (
        f"a difference of {_share(plan.difference)} (power {_share(plan.power)}, two-sided, level "
        f"{_share(plan.level)})"
    )
    if plan.episodes:
        takes = f"To see {aim} takes {_many(plan.episodes, 'episode')} a unit with these "
        takes += f"{spread.clusters} clusters; there {'is' if there == 1 else 'are'} {there} now."
    else:
        takes = f"With these {spread.clusters} clusters no number of episodes suffices to see {aim}"
        takes += _more_clusters(plan, there)
    return (
        f"{takes} Planned for a paired t test over clusters: the difference in one episode has a "
        f"standard deviation of {_share(math.sqrt(spread.between))} between clusters and "
        f"{_share(math.sqrt(spread.within))} within, {spread.source}."
    )


def _more_clusters(plan: Plan, there: int) -> str:
    if plan.least_clusters is None:
        return f", and no {MOST:,} clusters do: the spread is too large."
    least = f"{plan.least_clusters} clusters, however many episodes they have"
    if plan.clusters is None:
        return f". It takes at least {least}."
    enough = f"{plan.clusters} clusters with {_many(there, 'episode')} a unit"
    return f". It takes {enough}, and at least {least}."


def _share(value: float) -> str:
    return f"{value:.3g}".removeprefix("0") or "0"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
