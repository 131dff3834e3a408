"""Plans reach the power that they promise, and say what they assume."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isekai.errors import DataError, IsekaiError
from isekai.statistics import paired, power

SPREAD = power.Spread(between=0.004, within=0.03, clusters=20, episodes=4, source="as planted")


def seen(difference, spread, clusters, episodes, runs=6_000):
    """How often the t test and the sign-flip test see a difference with normal episode means."""
    rng = np.random.default_rng(clusters)
    error = math.sqrt(spread.between + spread.within / episodes)
    means = rng.normal(difference, error, (runs, clusters))
    t = np.mean(stats.ttest_1samp(means, 0, axis=1).pvalue < 0.05)
    few = means[: 2_000 if clusters <= paired.EXACT else 150]
    return t, np.mean([paired.sign_flips(row / clusters) < 0.05 for row in few])


# ---------------------------------------------------------------- the plan


@pytest.mark.parametrize(("clusters", "difference"), [(8, 0.1), (10, 0.09), (20, 0.06), (40, 0.04)])
def test_the_planned_number_of_episodes_has_the_planned_power(clusters, difference):
    spread = replace(SPREAD, clusters=clusters)
    episodes = power.plan(difference, spread).episodes
    t, flips = seen(difference, spread, clusters, episodes)
    assert 0.785 <= t <= 0.9
    assert flips >= t - 0.05
    assert t == pytest.approx(power.reached(difference, spread, clusters, episodes), abs=0.015)
    assert episodes > 1
    assert power.reached(difference, spread, clusters, episodes - 1) < 0.8


def test_where_episodes_do_not_do_the_planned_number_of_clusters_does():
    plan = power.plan(0.03, replace(SPREAD, clusters=8))
    assert plan.episodes is None
    t, flips = seen(0.03, SPREAD, plan.clusters, SPREAD.episodes)
    assert 0.785 <= t <= 0.83
    assert flips >= 0.72
    assert power.reached(0.03, SPREAD, plan.clusters - 1, SPREAD.episodes) < 0.8
    assert power.reached(0.03, SPREAD, plan.least_clusters, 10**9) >= 0.8
    assert power.reached(0.03, SPREAD, plan.least_clusters - 1, 10**9) < 0.8
    assert plan.least_clusters < plan.clusters


def test_right_and_wrong_answers_reach_what_their_pilot_promised():
    """From binary answers of two models, through a pilot and a plan, to the test of the result."""
    rng = np.random.default_rng(4)

    def answers(clusters, episodes):
        """[clusters, episodes, queries] differences of hits: .72 against .60."""
        ease = rng.normal(0, 0.06, (2, clusters, 1, 1)) + rng.normal(
            0, 0.1, (clusters, episodes, 1)
        )
        chance = np.clip(np.array([0.72, 0.60]).reshape(2, 1, 1, 1) + ease, 0, 1)
        a, b = rng.random((2, clusters, episodes, 8)) < chance
        return a.astype(float) - b

    pilot = answers(3_000, 3)
    rows = [(str(g), e, value) for (g, e, _), value in np.ndenumerate(pilot)]
    spread = replace(power.measured([rows]), clusters=10)
    plan = power.plan(0.12, spread)
    sums = [answers(10, plan.episodes).sum((1, 2)) for _ in range(1_500)]
    reached = np.mean([paired.sign_flips(row / (80 * plan.episodes)) < 0.05 for row in sums])
    planned = power.reached(0.12, spread, 10, plan.episodes)
    assert planned >= 0.8
    assert reached == pytest.approx(planned, abs=0.04)


@pytest.mark.parametrize("clusters", [2, 5])
def test_fewer_than_six_clusters_never_suffice(clusters):
    plan = power.plan(0.5, replace(SPREAD, clusters=clusters))
    assert (plan.episodes, plan.clusters, plan.least_clusters) == (None, 6, 6)


def test_at_six_clusters_all_have_to_agree():
    means = np.random.default_rng(0).normal(0.1, 0.05, (4_000, 6))
    spread = power.Spread(between=0.05**2, within=0, clusters=6, episodes=1, source="")
    flips = np.mean([paired.sign_flips(row) < 0.05 for row in means])
    assert power.reached(0.1, spread, 6, 1) == pytest.approx(flips, abs=0.02)


@given(st.floats(0.01, 1), st.integers(2, 60), st.integers(1, 3))
def test_a_larger_difference_never_takes_more(difference, clusters, units):
    spread = replace(SPREAD, clusters=clusters)
    small = power.plan(difference / 2, spread, units=units)
    large = power.plan(difference, spread, units=units)
    assert (large.episodes or power.MOST + 1) <= (small.episodes or power.MOST + 1)
    assert (large.least_clusters or power.MOST + 1) <= (small.least_clusters or power.MOST + 1)
    assert (large.episodes is None) or (large.clusters is None)


def test_episodes_are_counted_for_each_unit_of_a_cluster():
    alone, two = power.plan(0.05, SPREAD), power.plan(0.05, SPREAD, units=2)
    assert two.episodes == math.ceil(alone.episodes / 2)


def test_without_any_spread_one_episode_is_enough_if_clusters_are():
    still = power.Spread(between=0, within=0, clusters=6, episodes=4, source="")
    assert power.plan(0.01, still).episodes == 1


@pytest.mark.parametrize("difference", [0, -0.1, 1.5])
def test_a_difference_that_cannot_be_is_refused(difference):
    with pytest.raises(IsekaiError, match="above 0 and not above 1"):
        power.plan(difference, SPREAD)


# ---------------------------------------------------------------- the spread


@pytest.mark.parametrize("counts", [(4,), (1, 2, 4, 9)])
def test_planted_variances_are_found_also_with_unequal_numbers(counts):
    rng = np.random.default_rng(1)
    found = []
    for _ in range(600):
        rows = []
        for g, count in enumerate(np.resize(counts, 24)):
            level = rng.normal(0, 0.3)
            rows += [(str(g), e, level + rng.normal(0, 0.5)) for e in range(count)]
        spread = power.measured([rows])
        found.append((spread.between, spread.within))
    assert np.mean(found, axis=0) == pytest.approx((0.09, 0.25), rel=0.05)
    assert spread.clusters == 24
    assert spread.episodes == round(np.resize(counts, 24).mean())


def test_an_episode_is_one_observation_whatever_its_queries():
    rows = [("a", 1, 1.0), ("a", 2, 0.0), ("b", 3, 0.5), ("b", 4, 0.25)]
    assert power.measured([rows]) == power.measured([rows * 5])
    assert power.measured([rows]).within == pytest.approx((0.5 + 0.03125) / 2)


def test_one_episode_a_cluster_cannot_tell_the_parts_apart_and_says_so():
    spread = power.measured([[("a", 1, 0.2), ("b", 2, 0.4), ("b", 2, 0.6)]])
    assert (spread.between, spread.within) == (pytest.approx(0.045), 0)
    assert "one episode each" in spread.source


def test_one_cluster_is_no_pilot():
    with pytest.raises(DataError, match="1 cluster to plan from"):
        power.measured([[("a", 1, 0.5), ("a", 2, 0.5)]])
    with pytest.raises(DataError, match="0 cluster"):
        power.measured([])


def test_shot_counts_are_averaged_before_anything_is_cut_off():
    apart = [("a", 1, 0.0), ("a", 2, 0.2), ("b", 3, 0.8), ("b", 4, 1.0)]
    alike = [("a", 1, 0.0), ("a", 2, 1.0), ("b", 3, 0.0), ("b", 4, 1.0)]
    (b1, w1), (b2, w2) = (0.32 - 0.01, 0.02), (-0.25, 0.5)
    both = power.measured([apart, alike])
    assert (both.between, both.within) == pytest.approx(((b1 + b2) / 2, (w1 + w2) / 2))
    assert power.measured([alike]).between == 0
    assert both.source.endswith("4 episodes of 2 clusters at 2 shot counts")


def test_the_assumed_spread_is_that_of_coins_tossed_for_whole_episodes():
    spread = power.assumed(20, 4, correlation=0.2)
    coins = np.random.default_rng(0).integers(0, 2, (2, 20_000))
    assert spread.between + spread.within == pytest.approx(np.var(coins[0] - coins[1]), rel=0.02)
    assert spread.between == pytest.approx(0.1)
    assert power.assumed(20, 4, runs=1).within == pytest.approx(0.5 / 4)


# ---------------------------------------------------------------- words


def test_a_plan_says_what_it_takes_and_what_it_assumes():
    assert power.words(power.plan(0.05, SPREAD)) == (
        "To see a difference of .05 (power .8, two-sided, level .05) takes 18 episodes a unit with "
        "these 20 clusters; there are 4 now. Planned for a paired t test over clusters: the "
        "difference in one episode has a standard deviation of .0632 between clusters and .173 "
        "within, as planted."
    )


def test_a_plan_that_episodes_cannot_fulfil_asks_for_clusters():
    few = replace(SPREAD, clusters=8, episodes=1)
    told = power.words(power.plan(0.03, few))
    plan = power.plan(0.03, few)
    assert told.startswith(
        "With these 8 clusters no number of episodes suffices to see a difference of .03 (power "
        f".8, two-sided, level .05). It takes {plan.clusters} clusters with 1 episode a unit, and "
        f"at least {plan.least_clusters} clusters, however many episodes they have. Planned for"
    )
    assert "no 1,000 clusters do" in power.words(power.plan(0.001, few))
    middle = power.words(power.plan(0.012, few))
    assert "It takes at least" in middle
