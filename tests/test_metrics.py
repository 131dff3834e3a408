"""Intervals hold what they promise, also where clusters are few, unequal or all alike."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isekai import metrics

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


def test_clusters_of_one_size_give_the_t_interval_of_their_means():
    means = [0.4, 0.5, 0.7, 0.6]
    rows = [(str(g), i < 10 * p) for g, p in enumerate(means) for i in range(10)]
    low, high = stats.t.interval(0.95, 3, np.mean(means), stats.sem(means))
    estimate = metrics.share(rows)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


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
    truth, covered, runs = 0.9, 0, 2_000
    for _ in range(runs):
        rows = []
        for cluster in range(5):
            p = 1.0 if rng.random() < 0.8 else 0.5
            rows += [(str(cluster), bool(hit)) for hit in rng.random(16) < p]
        estimate = metrics.share(rows)
        covered += estimate.low <= truth <= estimate.high
    assert covered / runs >= 0.93


def test_ten_unequal_clusters_are_covered_in_93_to_97_of_100_runs():
    rng = np.random.default_rng(0)
    truth, covered, runs = 0.7, 0, 3_000
    for _ in range(runs):
        rows = []
        for cluster, p in enumerate(rng.beta(truth * 8, (1 - truth) * 8, 10)):
            n = int(rng.integers(24, 41))
            right = rng.binomial(n, p)
            rows += [(str(cluster), i < right) for i in range(n)]
        estimate = metrics.share(rows)
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / runs <= 0.97
    naive = metrics.wilson(int(0.7 * 320), 320)
    assert estimate.high - estimate.low > 1.2 * (naive[1] - naive[0])


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
