"""Intervals hold what they promise, also where clusters are few, unequal or all alike."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from isekai.statistics import metrics

hits = st.lists(st.tuples(st.sampled_from("abcdefg"), st.booleans()), min_size=1, max_size=60)


@given(hits)
def test_the_interval_holds_the_share_and_stays_within_0_and_1(rows):
    estimate = metrics.share(rows)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1
    assert estimate.value == pytest.approx(sum(hit for _, hit in rows) / len(rows))
    assert (estimate.n, estimate.clusters) == (len(rows), len({cluster for cluster, _ in rows}))


@given(hits)
def test_hits_and_misses_mirror_each_other(rows):
    a, b = metrics.share(rows), metrics.share([(cluster, not hit) for cluster, hit in rows])
    assert (a.low, a.high) == pytest.approx((1 - b.high, 1 - b.low))


@given(hits, st.randoms())
def test_the_order_of_answers_does_not_matter(rows, random):
    shuffled = list(rows)
    random.shuffle(shuffled)
    a, b = metrics.share(rows), metrics.share(shuffled)
    assert (a.value, a.low, a.high) == pytest.approx((b.value, b.low, b.high), abs=1e-12)


def test_clusters_of_one_size_give_the_t_interval_of_their_means_on_the_log_odds():
    means = [0.4, 0.5, 0.7, 0.6]
    rows = [(str(g), i < 10 * p) for g, p in enumerate(means) for i in range(10)]
    p = np.mean(means)
    centre, half = special.logit(p), stats.t.ppf(0.975, 3) * stats.sem(means) / (p * (1 - p))
    estimate = metrics.share(rows)
    assert (estimate.low, estimate.high) == pytest.approx(
        (special.expit(centre - half), special.expit(centre + half))
    )


def test_clusters_of_unequal_size_count_as_fewer():
    assert metrics.freedom(np.full(10, 0.1)) == pytest.approx(9)
    assert metrics.freedom(np.array([0.5, 0.5, 1e-9])) == pytest.approx(1)
    assert metrics.freedom(np.array([0.3, 0.3, 0.2, 0.2])) == pytest.approx(0.26**2 / 0.0194 - 1)
    lopsided = metrics.share([("a", True)] * 999 + [("a", False)] + [("b", True)])
    assert lopsided.high - lopsided.low > 0.99  # there is but one cluster to speak of


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # R: prop.test(x, n, correct = FALSE)$conf.int
    [(0, 10, 0.0, 0.2775328), (10, 10, 0.7224672, 1.0), (7, 10, 0.3967781, 0.8922087)],
)
def test_wilson_agrees_with_published_values(right, n, low, high):
    assert metrics.wilson(right, n) == pytest.approx((low, high), abs=1e-6)


def test_clusters_without_spread_fall_to_wilson_over_the_clusters():
    for per_cluster in ([True, True], [False, False], [True, False]):
        rows = [(cluster, hit) for cluster in "abc" for hit in per_cluster]
        estimate = metrics.share(rows)
        assert (estimate.low, estimate.high) == metrics.wilson(estimate.value * 3, 3)
    one = metrics.share([("a", True), ("a", False), ("a", True)])
    assert (one.low, one.high) == metrics.wilson(2 / 3, 1)
    assert one.high - one.low > 0.7  # one cluster tells next to nothing


def test_concepts_that_are_either_solved_or_guessed_are_covered():
    """The hardest case for clusters that agree: all solved looks certain, and is not."""
    rng = np.random.default_rng(1)
    p = np.where(rng.random((4_000, 5)) < 0.8, 1.0, 0.5)
    hits = rng.binomial(16, p)
    assert coverage(hits, np.full(5, 16), 0.9) >= 0.93


# ---------------------------------------------------------------- coverage


SIZES = {
    "equal": np.full(10, 32),
    "unequal": np.array([8, 16, 16, 24, 32, 32, 40, 48, 64, 40]),
}

grid = [
    pytest.param(size, correlation, truth, id=f"{size}-{correlation}-{truth}")
    for size in SIZES
    for correlation in (0.05, 0.3)
    for truth in (0.5, 0.7, 0.85)
]


@pytest.mark.parametrize(("sizes", "correlation", "truth"), grid)
def test_ten_clusters_are_covered_in_93_to_97_of_100_runs(sizes, correlation, truth):
    n = SIZES[sizes]
    hits = beta_binomial(truth, correlation, n, 40_000)
    assert 0.93 <= coverage(hits, n, truth) <= 0.97


@pytest.mark.parametrize(("sizes", "correlation", "truth"), grid)
def test_the_bootstrap_covers_ten_clusters_in_93_to_97_of_100_runs(sizes, correlation, truth):
    n = SIZES[sizes]
    drawn = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), size=999).astype(float)
    low, high = metrics.studentised(beta_binomial(truth, correlation, n, 3_000), n, drawn)
    assert 0.93 <= np.mean((low <= truth) & (truth <= high)) <= 0.97


@pytest.mark.parametrize(("correlation", "least"), [(0.05, 0.95), (0.3, 0.88)])
def test_near_1_the_interval_covers_as_much_as_its_docstring_says(correlation, least):
    n = SIZES["equal"]
    hits = beta_binomial(0.95, correlation, n, 40_000)
    assert least <= coverage(hits, n, 0.95) <= least + 0.02


def coverage(hits, n, truth):
    low, high = interval(hits, n)
    return np.mean((low <= truth) & (truth <= high))


def interval(hits, n):
    """What `share` gives for [..., clusters] hits, without their rows."""
    p, total = hits.sum(-1) / n.sum(), n.sum()
    return metrics.interval(p, (hits - p[..., None] * n) / total, n / total)


def rows_of(y, n):
    return [(str(g), i < right) for g, right in enumerate(y) for i in range(n[g])]


def beta_binomial(truth, correlation, n, runs):
    """[runs, clusters] hits of n answers each, of a mean share and an intra-cluster correlation."""
    rng = np.random.default_rng(int(1000 * truth + 100 * correlation))
    k = (1 - correlation) / correlation
    return rng.binomial(n, rng.beta(truth * k, (1 - truth) * k, (runs, len(n))))


def test_the_shortcuts_of_these_simulations_are_what_share_and_bootstrap_do():
    n = SIZES["unequal"]
    drawn = np.random.default_rng(5).multinomial(10, np.full(10, 0.1), size=999).astype(float)
    for y in beta_binomial(0.7, 0.3, n, 20):
        estimate = metrics.share(rows_of(y, n))
        assert (estimate.low, estimate.high) == pytest.approx(tuple(map(float, interval(y, n))))
        drawn_one = metrics.bootstrap(rows_of(y, n), seed=5, draws=999)
        assert (drawn_one.low, drawn_one.high) == pytest.approx(
            tuple(map(float, metrics.studentised(y, n, drawn)))
        )
        naive = metrics.wilson(y.sum(), n.sum())
        assert estimate.high - estimate.low > 1.2 * (naive[1] - naive[0])


# ---------------------------------------------------------------- bootstrap


@given(hits, st.randoms())
def test_a_bootstrap_is_of_its_seed_alone_and_holds_the_share(rows, random):
    estimate = metrics.bootstrap(rows, seed=1, draws=199)
    assert 0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert metrics.bootstrap(shuffled, seed=1, draws=199) == estimate


def test_another_seed_moves_a_bootstrap_a_little():
    n = SIZES["equal"]
    rows = rows_of(beta_binomial(0.7, 0.3, n, 1)[0], n)
    a, b, t = (*(metrics.bootstrap(rows, seed=seed) for seed in (1, 2)), metrics.share(rows))
    assert a != b
    assert (a.low, a.high) == pytest.approx((b.low, b.high), abs=0.03)
    assert (a.low, a.high) == pytest.approx((t.low, t.high), abs=0.1)
    assert metrics.bootstrap([], seed=1) is None


def test_a_bootstrap_of_clusters_that_agree_falls_to_wilson_over_them():
    estimate = metrics.bootstrap([(c, True) for c in "aabbcc"], seed=1)
    assert (estimate.low, estimate.high) == metrics.wilson(3, 3)


# ---------------------------------------------------------------- outcomes


def test_failures_are_no_answers_and_abstentions_are_not_correct():
    rows = [("a", "correct"), ("a", "failed"), ("b", "abstain"), ("b", "wrong"), ("b", "failed")]
    assert metrics.accuracy(rows).value == pytest.approx(1 / 3)
    assert metrics.accuracy(rows).n == 3
    assert metrics.abstain_share(rows).value == pytest.approx(1 / 3)
    assert metrics.tally(rows) == {"correct": 1, "wrong": 1, "abstain": 1, "failed": 2}


def test_where_all_failed_there_is_no_number():
    assert metrics.accuracy([("a", "failed")]) is None
    assert metrics.share([]) is None
    assert not math.isnan(metrics.share([("a", True)]).value)
