"""Areas are weighted means with honest intervals; plateaus are found where they were planted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.statistics import curve, metrics, paired

SHOTS = (0, 1, 2, 4, 8, 16)

points = st.dictionaries(
    st.sampled_from(SHOTS),
    st.lists(st.tuples(st.sampled_from("abcde"), st.booleans()), min_size=1, max_size=20),
    min_size=2,
)


def planted(heights, rng, *, clusters=20, answers=32, spread=0.1):
    """Answers of a curve with these heights, in clusters that are harder and easier throughout."""
    ease = rng.normal(0, spread, clusters)
    return {
        k: [
            (f"{g:02d}", bool(hit))
            for g in range(clusters)
            for hit in rng.random(answers) < np.clip(height + ease[g], 0, 1)
        ]
        for k, height in zip(SHOTS, heights, strict=True)
    }


def test_a_shot_count_stands_where_the_plots_put_it():
    from isekai.reports import plots

    assert [curve.place(k) for k in (0, 1, 2, 4, 16)] == [0, 1, 2, 3, 5]
    assert [curve.place(k) for k in range(40)] == [plots.place(k) for k in range(40)]


# ---------------------------------------------------------------- area


@given(points)
def test_the_area_is_the_trapezoid_rule_over_doublings(answers):
    shots = sorted(answers)
    heights = [metrics.share(answers[k]).value for k in shots]
    at = [curve.place(k) for k in shots]
    found = curve.area(answers)
    assert found.value == pytest.approx(np.trapezoid(heights, at) / (at[-1] - at[0]))
    assert -1e-12 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1 + 1e-12
    assert found.n == sum(map(len, answers.values()))
    assert found.clusters == len({cluster for rows in answers.values() for cluster, _ in rows})


@given(points)
def test_a_level_curve_has_the_area_and_the_interval_of_its_height(answers):
    rows = next(iter(answers.values()))
    area, height = curve.area(dict.fromkeys(answers, rows)), metrics.share(rows)
    assert (area.value, area.low, area.high) == pytest.approx(
        (height.value, height.low, height.high), abs=1e-9
    )


def test_one_shot_count_has_no_area():
    rows = [("a", True)]
    assert curve.area({4: rows}) is None
    assert curve.area({4: rows, 8: []}) is None
    assert curve.difference({4: rows, 8: rows}, {2: rows, 8: rows}) is None
    assert curve.plateau({4: rows}) is None
    assert curve.area({}) is None


def test_the_error_of_an_area_is_that_of_leaving_out_each_cluster_in_turn():
    """For clusters of one size the delta method and the jackknife are one and the same."""
    answers = planted((0.5, 0.6, 0.7, 0.75, 0.8, 0.8), np.random.default_rng(0), clusters=12)
    names = sorted({name for name, _ in answers[0]})
    without = [
        curve.area({k: [r for r in rows if r[0] != name] for k, rows in answers.items()}).value
        for name in names
    ]
    jackknife = np.sqrt(11 / 12 * np.sum((np.array(without) - np.mean(without)) ** 2))
    found = curve.area(answers)
    log_odds = np.log(found.high / (1 - found.high)) - np.log(found.low / (1 - found.low))
    half = log_odds / 2 * found.value * (1 - found.value)
    assert half == pytest.approx(2.200985 * jackknife)  # t of 11 degrees of freedom


def test_ten_clusters_cover_the_area_in_93_to_97_of_100_runs():
    rng = np.random.default_rng(1)
    heights = (0.5, 0.6, 0.65, 0.7, 0.72, 0.72)
    truth = np.trapezoid(heights, [curve.place(k) for k in SHOTS]) / 5
    covered = []
    for _ in range(600):
        found = curve.area(planted(heights, rng, clusters=10, answers=16))
        covered.append(found.low <= truth <= found.high)
    assert 0.925 <= np.mean(covered) <= 0.975  # 600 runs: 93 to 97, give or take one half


def test_the_difference_of_two_areas_is_paired_and_over_the_shots_that_both_have():
    rng = np.random.default_rng(2)
    a = planted((0.5, 0.6, 0.7, 0.75, 0.8, 0.8), rng, spread=0.25)
    b = {k: [(c, hit and rng.random() < 0.9) for c, hit in rows] for k, rows in a.items()}
    del b[16]
    found = curve.difference(a, b)
    shared = {k: a[k] for k in b}
    assert found.value == pytest.approx(curve.area(shared).value - curve.area(b).value)
    assert found.p < 0.01
    alone = [e.high - e.low for e in (curve.area(shared), curve.area(b))]
    assert found.high - found.low < 0.5 * np.hypot(*alone)
    back = curve.difference(b, a)
    assert (back.value, back.low, back.high, back.p) == pytest.approx(
        (-found.value, -found.high, -found.low, found.p)
    )
    assert curve.difference(a, a).p == 1


def test_the_difference_of_level_curves_is_that_of_their_heights():
    a = [(c, i < 7) for c in "abcdefgh" for i in range(8)]
    b = [(c, i < 4 + n % 2) for n, c in enumerate("abcdefgh") for i in range(8)]
    found, height = (
        curve.difference({1: a, 2: a, 4: a}, {1: b, 2: b, 4: b}),
        paired.difference(a, b),
    )
    assert (found.value, found.low, found.high, found.p) == pytest.approx(
        (height.value, height.low, height.high, height.p)
    )


# ---------------------------------------------------------------- plateau


def plateaus(heights, runs, **options):
    rng = np.random.default_rng(3)
    return [curve.plateau(planted(heights, rng, **options)) for _ in range(runs)]


def test_a_planted_plateau_is_found_and_seldom_overrun():
    found = [p.gains_to for p in plateaus((0.5, 0.6, 0.7, 0.8, 0.8, 0.8), 150)]
    assert np.mean(np.array(found) > 4) <= 0.08  # .05, and nearly twice the error of 150 runs
    assert np.mean(np.array(found) == 4) > 0.85


def test_a_level_curve_gains_nothing_in_95_of_100_runs():
    found = [p.gains_to for p in plateaus((0.7,) * 6, 200)]
    assert np.mean(np.array(found) > 0) <= 0.08


def test_a_rising_curve_gains_to_its_end():
    for found in plateaus((0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 20):
        assert found.gains_to == 16
        assert found.flat_from is None


def test_a_gain_that_is_lost_again_is_none():
    found = [p.gains_to for p in plateaus((0.5, 0.8, 0.5, 0.4, 0.4, 0.4), 40)]
    assert found.count(0) >= 36


def test_many_answers_show_that_a_plateau_is_flat_and_few_do_not():
    heights = (0.5, 0.6, 0.7, 0.8, 0.8, 0.8)
    many = plateaus(heights, 4, answers=3_000)
    assert {p.flat_from for p in many} == {4}
    few = [p.flat_from for p in plateaus(heights, 20, answers=8)]
    assert few.count(None) >= 16


def test_a_slope_of_more_than_the_margin_is_hardly_ever_called_flat():
    slope = tuple(0.6 + 0.025 * step for step in range(6))
    found = [p.flat_from for p in plateaus(slope, 60, answers=256)]
    assert np.mean([flat is not None for flat in found]) <= 0.05


def test_a_wider_margin_is_flat_earlier():
    answers = planted((0.5, 0.6, 0.7, 0.75, 0.78, 0.78), np.random.default_rng(0), answers=400)
    flat = [curve.plateau(answers, margin=m).flat_from for m in (0.01, 0.1, 0.15, 0.6)]
    assert flat[0] is None or flat[0] >= 8
    assert flat[1:] == sorted(flat[1:], reverse=True)
    assert flat[-1] == 0


@pytest.mark.parametrize(
    ("gains_to", "flat_from", "words"),
    [
        (4, None, "no gain after 4"),
        (4, 8, "no gain after 4; within .02 from 8"),
        (16, None, "gains to the end"),
        (0, 0, "no gain after 0; within .02 from 0"),
    ],
)
def test_a_plateau_in_words(gains_to, flat_from, words):
    found = curve.Plateau(gains_to=gains_to, flat_from=flat_from, margin=0.02)
    assert curve.words(found, SHOTS) == words
