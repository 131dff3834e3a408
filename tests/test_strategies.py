"""What each strategy chooses is what its definition says, checked against brute force."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai.strategies import STRATEGIES, diverse, hardest, herding, nearest, prototype

OF_EACH = sorted(set(STRATEGIES) - {"random"})
DEFINED = ("nearest", "herding", "prototype", "hardest")
"""Strategies that draw nothing: what they choose follows from the images alone."""


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def space(seed: int, counts=(6, 8, 5), size: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows around a centre for each label, in mixed order, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = rng.normal(size=(len(counts), size))
    return unit(centres[labels] + 0.7 * rng.normal(size=(len(labels), size))), labels


def chosen(name: str, rows, labels, count: int, seed: int = 0) -> list[int]:
    last = {"query": unit(np.arange(1.0, 1 + rows.shape[1]))}
    if name != "nearest":
        last = {"rng": np.random.default_rng(seed)}
    return STRATEGIES[name](rows, labels, count, **last).tolist()


def by_label(positions, labels) -> list[list[int]]:
    return [[p for p in positions if labels[p] == label] for label in range(labels.max() + 1)]


SEEDS = st.integers(0, 2**32)


@given(SEEDS, st.sampled_from(OF_EACH), st.integers(1, 9))
@settings(max_examples=80, deadline=None)
def test_as_many_of_each_label_as_asked_none_twice_and_more_only_adds(seed, name, count):
    rows, labels = space(seed)
    few, many = (chosen(name, rows, labels, n, seed) for n in (count, count + 1))
    assert len(set(few)) == len(few)
    for small, large, there in zip(
        by_label(few, labels), by_label(many, labels), np.bincount(labels), strict=True
    ):
        assert len(small) == min(count, there)
        assert large[: len(small)] == small


@given(SEEDS, st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_random_chooses_from_all_labels_together_and_more_only_adds(seed, count):
    rows, labels = space(seed)
    few, many = (chosen("random", rows, labels, n, seed) for n in (count, count + 1))
    assert len(set(few)) == min(count, len(rows))
    assert many[: len(few)] == few


def test_random_and_balanced_choose_every_image_equally_often():
    rows, labels = space(1, counts=(4, 8))
    for name, shares in (("random", [3 / 12] * 2), ("balanced", [3 / 4, 3 / 8])):
        drawn = [chosen(name, rows, labels, 3, seed) for seed in range(2000)]
        counts = np.bincount(np.concatenate(drawn), minlength=12) / 2000
        assert np.abs(counts - np.take(shares, labels)).max() < 0.05  # 4.5 standard errors


@given(SEEDS, st.sampled_from(DEFINED), st.integers(1, 5))
@settings(max_examples=60, deadline=None, derandomize=True)  # equal by chance is no fault
def test_the_order_of_rows_changes_nothing(seed, name, count):
    rows, labels = space(seed)
    order = np.random.default_rng(seed).permutation(len(rows))
    mixed = [int(order[p]) for p in chosen(name, rows[order], labels[order], count)]
    assert mixed == chosen(name, rows, labels, count)


@given(SEEDS, st.sampled_from(OF_EACH))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_of_equal_images_the_first_is_taken_whatever_the_last_bits_say(seed, name):
    rows, labels = space(seed)
    twice, labels = np.concatenate([rows, rows]), np.concatenate([labels, labels])
    noise = 1e-14 * np.random.default_rng(seed).normal(size=twice.shape)
    found = chosen(name, twice, labels, 9, seed)
    assert chosen(name, twice + noise, labels, 9, seed) == found
    if name in DEFINED:
        for position in found:
            if position >= len(rows):
                assert found.index(position - len(rows)) < found.index(position)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_nearest_and_prototype_and_hardest_sort_by_what_they_name(seed):
    rows, labels = space(seed)
    query = unit(np.random.default_rng(seed).normal(size=rows.shape[1]))
    means = unit(np.stack([rows[labels == label].mean(axis=0) for label in range(3)]))
    own = np.einsum("nd,nd->n", rows, means[labels])
    others = [
        max(row @ means[k] for k in range(3) if k != j) for row, j in zip(rows, labels, strict=True)
    ]
    rng = np.random.default_rng(0)
    for found, score in (
        (nearest(rows, labels, 4, query), rows @ query),
        (prototype(rows, labels, 4, rng), own),
        (hardest(rows, labels, 4, rng), others - own),
    ):
        for label, picked in enumerate(by_label(found.tolist(), labels)):
            best = sorted((score[i] for i in np.flatnonzero(labels == label)), reverse=True)
            assert np.array(score)[picked] == pytest.approx(best[:4], abs=2e-6)


def test_hardest_finds_the_image_that_lies_among_those_of_another_label():
    rng = np.random.default_rng(0)
    centres = unit(np.array([[1.0, 0, 0, 0], [0, 1, 0, 0]]))
    labels = np.repeat([0, 1], 10)
    rows = centres[labels] + 0.1 * rng.normal(size=(20, 4))
    rows[3] = [0.3, 1, 0, 0]
    rows = unit(rows)
    assert hardest(rows, labels, 1, rng)[0] == 3
    assert 3 not in prototype(rows, labels, 9, rng)


@given(SEEDS, st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_diverse_covers_at_most_twice_as_widely_as_the_best_choice(seed, count):
    rows, labels = space(seed, counts=(7,), size=3)

    def radius(centres) -> float:
        far = np.linalg.norm(rows[:, None] - rows[None, list(centres)], axis=2)
        return float(far.min(axis=1).max())

    best = min(radius(centres) for centres in combinations(range(7), count))
    found = diverse(rows, labels, count, np.random.default_rng(seed))
    assert radius(found) <= 2 * best + 1e-5


def test_diverse_covers_more_than_chance_and_starts_anywhere():
    rows, labels = space(2, counts=(40,), size=5)
    starts, wide = set(), []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found, drawn = diverse(rows, labels, 6, rng), rng.permutation(40)[:6]
        starts.add(int(found[0]))
        wide.append([(rows @ rows[some].T).max(axis=1).min() for some in (found, drawn)])
    assert len(starts) > 20
    assert np.mean([ours > theirs for ours, theirs in wide]) > 0.8


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_each_step_of_herding_brings_the_mean_as_near_as_any_image_could(seed):
    rows, labels = space(seed, counts=(8,))
    mean = rows.mean(axis=0)
    found = herding(rows, labels, 8, np.random.default_rng(0)).tolist()
    for step in range(8):
        before = rows[found[:step]].sum(axis=0)
        off = np.linalg.norm(mean - (before + rows) / (step + 1), axis=1)
        off[found[:step]] = np.inf
        assert off[found[step]] ** 2 <= off.min() ** 2 + 1e-5
    assert found[0] == prototype(rows, labels, 1, np.random.default_rng(0))[0]


def test_the_mean_of_what_herding_chose_is_nearer_than_that_of_a_random_choice():
    ours, theirs = [], []
    for seed in range(100):
        rows, labels = space(seed, counts=(20,), size=6)
        off = [
            [np.linalg.norm(rows[some[:k]].mean(axis=0) - rows.mean(axis=0)) for k in range(1, 11)]
            for some in (chosen(n, rows, labels, 10, seed) for n in ("herding", "balanced"))
        ]
        ours.append(off[0])
        theirs.append(off[1])
    assert (np.mean(ours, axis=0) < np.mean(theirs, axis=0)).all()
    assert np.mean(np.array(ours) <= np.array(theirs)) > 0.9


def test_a_label_whose_images_cancel_out_has_no_typical_one():
    rows = np.array([[1.0, 0], [-1, 0], [0, 1], [0.6, 0.8]])
    labels = np.array([0, 0, 1, 1])
    rng = np.random.default_rng(0)
    assert prototype(rows, labels, 2, rng).tolist()[:2] == [0, 1]
    assert sorted(hardest(rows, labels, 2, rng)) == [0, 1, 2, 3]
