"""Paired differences hold their level and their intervals, also where clusters are few or agree."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isekai.statistics import metrics, paired

rows = st.lists(st.tuples(st.sampled_from("abcdefg"), st.booleans()), min_size=1, max_size=40)
pairs = st.lists(
    st.tuples(st.sampled_from("abcdefg"), st.booleans(), st.booleans()), min_size=1, max_size=40
)


def sides(triples):
    return [(c, a) for c, a, _ in triples], [(c, b) for c, _, b in triples]


def clustered(hits, size):
    """(cluster, hit) rows with this many hits of `size` in each cluster."""
    return [(str(g), i < y) for g, y in enumerate(hits) for i in range(size)]


# ---------------------------------------------------------------- differences


@given(pairs)
def test_a_difference_is_that_of_the_shares_and_lies_in_its_interval(triples):
    a, b = sides(triples)
    found = paired.difference(a, b)
    assert found.value == pytest.approx(metrics.share(a).value - metrics.share(b).value)
    assert -1 - 1e-12 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1 + 1e-12
    assert found.high > found.low
    assert 0 < found.p <= 1
    assert (found.n, found.clusters) == (len(triples), len({c for c, _, _ in triples}))


@given(pairs)
def test_swapping_the_sides_mirrors_the_difference(triples):
    a, b = sides(triples)
    there, back = paired.difference(a, b), paired.difference(b, a)
    assert (there.value, there.low, there.high) == pytest.approx(
        (-back.value, -back.high, -back.low), abs=1e-12
    )
    assert there.p == pytest.approx(back.p)


@given(pairs, st.randoms())
def test_the_order_of_answers_and_the_names_of_clusters_do_not_matter(triples, random):
    shuffled = list(triples)
    random.shuffle(shuffled)
    assert paired.difference(*sides(triples)) == paired.difference(*sides(shuffled))
    renamed = [("x" + c, a, b) for c, a, b in triples]
    assert paired.difference(*sides(triples)) == paired.difference(*sides(renamed))


def test_clusters_of_one_size_are_compared_by_their_differences():
    a, b = [9, 7, 8, 5, 6, 9, 4, 7], [6, 7, 5, 5, 3, 8, 5, 4]
    found = paired.difference(clustered(a, 10), clustered(b, 10))
    d = (np.array(a) - np.array(b)) / 10
    half = stats.t.ppf(0.975, 7) * stats.sem(d) / (1 - d.mean() ** 2)  # on Fisher's z scale
    z = np.arctanh(d.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.tanh([z - half, z + half])))
    exact = stats.permutation_test(
        (d,), lambda x, axis: x.sum(axis), permutation_type="samples", vectorized=True
    )
    assert found.p == pytest.approx(exact.pvalue)
    assert found.value == pytest.approx(0.15)


def test_pairing_takes_out_what_is_hard_for_both():
    rng = np.random.default_rng(3)
    hard = rng.beta(2, 1, 12)
    a = clustered(rng.binomial(40, hard), 40)
    b = clustered(rng.binomial(40, hard * 0.8), 40)
    together = paired.difference(a, b)
    alone = np.hypot(*(e.high - e.low for e in map(metrics.share, (a, b))))
    assert together.high - together.low < 0.6 * alone


def test_an_empty_side_has_no_difference():
    assert paired.difference([], [("a", True)]) is None
    assert paired.difference([("a", True)], []) is None
    assert paired.against([], 0.5) is None


def test_a_side_with_fewer_answers_is_still_compared_by_its_shares():
    a = [("a", True)] * 4 + [("b", True)] * 2 + [("b", False)] * 2
    b = [("a", True), ("a", False), ("b", False), ("b", False), ("c", True)]
    found = paired.difference(a, b)
    assert found.value == pytest.approx(6 / 8 - 2 / 5)
    assert (found.n, found.clusters) == (5, 3)


def test_only_questions_answered_on_both_sides_are_matched():
    a = {("e1", 0): ("x", True), ("e1", 1): ("x", False), ("e2", 0): ("y", True)}
    b = {("e2", 0): ("y", False), ("e1", 1): ("x", True), ("e3", 0): ("z", True)}
    left, right = paired.matched(a, b)
    assert left == [("x", False), ("y", True)]
    assert right == [("x", True), ("y", False)]


# ---------------------------------------------------------------- clusters that agree


@pytest.mark.parametrize("clusters", [1, 2, 5, 20])
def test_equal_answers_differ_by_nothing_but_are_not_known_to(clusters):
    a = clustered([3] * clusters, 4)
    found = paired.difference(a, a)
    assert (found.value, found.p) == (0, 1)
    assert found.low == pytest.approx(-found.high)
    assert found.high == pytest.approx(metrics.wilson(0, clusters)[1])


@pytest.mark.parametrize("clusters", [1, 2, 5, 6, 20])
def test_clusters_that_all_differ_alike_are_as_many_coin_tosses(clusters):
    found = paired.difference(clustered([4] * clusters, 4), clustered([2] * clusters, 4))
    assert found.value == 0.5
    assert found.p == 2.0 ** (1 - clusters)
    assert -1 <= found.low < 0.5 < found.high <= 1
    all_right = paired.difference(clustered([4] * clusters, 4), clustered([0] * clusters, 4))
    low = 2 * metrics.wilson(clusters, clusters)[0] - 1
    assert (all_right.low, all_right.high) == pytest.approx((low, 1))


def test_one_answer_more_or_less_does_not_make_a_result_certain():
    perfect = paired.against(clustered([32] * 8, 32), 0.5)
    nearly = paired.against(clustered([32] * 7 + [31], 32), 0.5)
    assert perfect.p == nearly.p == 2**-7


# ---------------------------------------------------------------- the test


@pytest.mark.parametrize("clusters", [1, 2, 3, 7, 12])
def test_counting_in_halves_gives_the_p_value_of_scipys_permutation_test(clusters):
    rng = np.random.default_rng(clusters)
    for parts in (rng.integers(-3, 4, clusters) / 96, rng.normal(0.5, 1, clusters)):
        if np.abs(parts).sum():
            scipys = stats.permutation_test(
                (np.r_[parts, 0.0],),  # scipy wants two values at least; a zero has no sign
                lambda x, axis: x.sum(axis),
                permutation_type="samples",
                vectorized=True,
                n_resamples=2 ** (clusters + 1),
            )
            assert paired.sign_flips(parts) == pytest.approx(scipys.pvalue)


@pytest.mark.parametrize("clusters", [paired.EXACT, paired.EXACT + 1, 100])
def test_with_many_clusters_it_agrees_with_the_t_test_counted_or_drawn(clusters):
    parts = np.random.default_rng(clusters).normal(0.25, 1, clusters)
    assert paired.sign_flips(parts) == pytest.approx(stats.ttest_1samp(parts, 0).pvalue, rel=0.15)
    assert paired.sign_flips(parts) == paired.sign_flips(parts[::-1])
    certain = paired.sign_flips(np.ones(clusters))
    assert certain == (2.0 ** (1 - clusters) if clusters <= paired.EXACT else 1 / 20_000)


@pytest.mark.parametrize(
    ("clusters", "least", "most"), [(5, 0.0, 0.0), (10, 0.0, 0.055), (20, 0.0, 0.055)]
)
@pytest.mark.parametrize("sizes", [(32,), (8, 16, 24, 32, 64)])
@pytest.mark.parametrize(("right", "correlation"), [(0.7, 0.05), (0.7, 0.3), (0.95, 0.3)])
def test_models_that_are_alike_are_told_apart_in_5_of_100_runs_at_most(
    clusters, least, most, sizes, right, correlation
):
    n = np.resize(sizes, clusters)
    a, b = (beta_binomial(right, correlation, n, 3_000, seed) for seed in (1, 2))
    ps = np.array([paired.sign_flips(parts) for parts in (a - b) / n.sum()])
    assert least <= np.mean(ps < 0.05) <= most
    assert all(np.mean(ps <= level) <= level + 0.015 for level in (0.1, 0.25, 0.5))


def test_at_ten_clusters_it_sees_nearly_all_that_the_t_test_sees():
    means = np.random.default_rng(0).normal(1, 1, (3_000, 10))
    ours = np.mean([paired.sign_flips(parts) < 0.05 for parts in means])
    ts = np.mean(stats.ttest_1samp(means, 0, axis=1).pvalue < 0.05)
    assert ts > 0.75
    assert ours > ts - 0.03


@pytest.mark.parametrize("sizes", [(32,), (8, 16, 16, 24, 32, 32, 40, 48, 64, 40)])
@pytest.mark.parametrize(
    ("a", "b", "correlation"),
    [(0.7, 0.7, 0.05), (0.8, 0.7, 0.3), (0.9, 0.6, 0.1), (0.97, 0.5, 0.1)],
)
def test_ten_clusters_cover_the_difference_in_93_to_98_of_100_runs(sizes, a, b, correlation):
    n = np.resize(sizes, 10)
    runs, covered = 2_000, Counter()
    y, z = (beta_binomial(p, correlation, n, runs, seed) for p, seed in ((a, 1), (b, 2)))
    for there, here in zip(y, z, strict=True):
        found = paired.measured([(1.0, *(clustered_share(hits, n) for hits in (there, here)))])
        covered[bool(found.low <= a - b <= found.high)] += 1
    assert 0.93 <= covered[True] / runs <= 0.98


def clustered_share(hits, n):
    totals = {str(g): (int(y), int(m)) for g, (y, m) in enumerate(zip(hits, n, strict=True))}
    return metrics.clustered(totals, list(totals))


def beta_binomial(right, correlation, n, runs, seed):
    """[runs, clusters] hits of n answers each, of a mean share and an intra-cluster correlation."""
    rng = np.random.default_rng(seed)
    k = (1 - correlation) / correlation
    return rng.binomial(n, rng.beta(right * k, (1 - right) * k, (runs, len(n))))


# ---------------------------------------------------------------- against a value


@given(rows, st.sampled_from([0.5, 1 / 3, 0.1]))
def test_against_a_value_the_interval_is_that_of_the_share(hits, value):
    found, alone = paired.against(hits, value), metrics.share(hits)
    assert (found.value, found.low, found.high) == pytest.approx(
        (alone.value - value, alone.low - value, alone.high - value)
    )
    assert 0 < found.p <= 1
    assert (found.n, found.clusters) == (alone.n, alone.clusters)


@pytest.mark.parametrize(("chance", "most"), [(1 / 2, 0.055), (1 / 3, 0.07)])
def test_guessing_is_rarely_told_from_chance(chance, most):
    n = np.full(10, 32)
    hits = beta_binomial(chance, 0.3, n, 4_000, 5)
    parts = (hits - chance * n) / n.sum()
    assert np.mean([paired.sign_flips(row) < 0.05 for row in parts]) <= most


# ---------------------------------------------------------------- many tests


def test_holm_gives_his_worked_example():
    # R: p.adjust(c(.01, .04, .03, .005), "holm")
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([]) == []
    assert paired.holm([0.7, 0.6]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(ps):
    corrected = paired.holm(ps)
    assert all(p <= after <= 1 for p, after in zip(ps, corrected, strict=True))
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    assert [corrected[i] for i in order] == sorted(corrected)


def test_holm_keeps_the_chance_of_any_false_alarm():
    ps = np.random.default_rng(0).random((4_000, 5))
    assert np.mean([min(paired.holm(list(row))) < 0.05 for row in ps]) <= 0.055
    assert np.mean(ps.min(1) < 0.05) > 0.2
