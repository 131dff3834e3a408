"""Neighbours among unit rows: exact ones are those of brute force, buckets say what they miss."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import neighbours
from isekai.errors import IsekaiError


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def drawn(count: int, width: int = 6, seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).normal(size=(count, width)))


def crowd(count: int, width: int, near: int, seed: int = 0) -> np.ndarray:
    """Rows at random, the last `near` of them each beside one of the first."""
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(count, width)))
    rows[-near:] = unit(rows[:near] + 0.02 * rng.normal(size=(near, width)))
    return rows


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", 7)


sizes = st.integers(0, 40)


@settings(max_examples=60, deadline=None)
@given(
    count=sizes, tile=st.integers(1, 45), threshold=st.floats(-0.9, 0.99), seed=st.integers(0, 9)
)
def test_all_pairs_are_those_of_brute_force(count, tile, threshold, seed):
    rows = drawn(count, seed=seed)
    cosines = rows @ rows.T
    if len(rows) and np.min(np.abs(cosines - threshold)) < 1e-5:
        return  # on the very edge, either answer is right
    before, neighbours.TILE = neighbours.TILE, tile
    try:
        found = neighbours.pairs(rows, threshold)
    finally:
        neighbours.TILE = before
    i, j = np.nonzero(np.triu(cosines >= threshold, 1))
    assert found.i.tolist() == i.tolist()
    assert found.j.tolist() == j.tolist()
    assert np.allclose(found.cosine, cosines[i, j], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    queries=st.integers(0, 12),
    count=sizes,
    k=st.integers(1, 6),
    tile=st.integers(1, 45),
    floor=st.sampled_from([-2.0, 0.0, 0.5]),
    width=st.sampled_from([4, 16]),
)
def test_the_nearest_are_those_of_brute_force_and_the_lower_row_wins_a_tie(
    queries, count, k, tile, floor, width
):
    # Signs of a few numbers: cosines are exact and often equal.
    rng = np.random.default_rng(count * 7 + width)
    rows, asked = (
        ((rng.integers(0, 2, (number, width)) * 2 - 1) / width**0.5).astype(np.float32)
        for number in (count, queries)
    )
    before, neighbours.TILE = neighbours.TILE, tile
    try:
        where, cosine = neighbours.nearest(asked, rows, k, floor)
    finally:
        neighbours.TILE = before
    for row, own in enumerate(asked @ rows.T):
        order = [at for at in np.argsort(-own, kind="stable") if own[at] >= floor][:k]
        missing = k - len(order)
        assert where[row].tolist() == order + [-1] * missing
        assert np.allclose(cosine[row], [*own[order], *[-2] * missing], atol=1e-6)


@pytest.mark.parametrize("tile", [1, 3, 64])
def test_closest_is_the_highest_cosine_of_all_pairs(monkeypatch, tile):
    monkeypatch.setattr(neighbours, "TILE", tile)
    a, b = drawn(10, seed=1), drawn(7, seed=2)
    cosine, i, j = neighbours.closest(a, b)
    assert cosine == pytest.approx((a @ b.T).max())
    assert (i, j) == np.unravel_index((a @ b.T).argmax(), (10, 7))


@pytest.mark.parametrize("tile", [2, 5, 64])
def test_closest_apart_looks_only_at_rows_with_different_labels(monkeypatch, tile):
    monkeypatch.setattr(neighbours, "TILE", tile)
    rows, labels = drawn(23, seed=3), np.arange(23) % 3
    cosines = np.where(labels[:, None] == labels, -2, rows @ rows.T)
    cosine, i, j = neighbours.closest_apart(rows, labels)
    assert cosine == pytest.approx(cosines.max())
    assert (i, j) == np.unravel_index(cosines.argmax(), cosines.shape)
    assert neighbours.closest_apart(rows, np.zeros(23, int)) is None


def test_buckets_find_planted_pairs_the_same_way_every_time():
    rows = crowd(3000, 16, near=100)
    found = neighbours.bucketed(rows, 0.98)
    again = neighbours.bucketed(rows, 0.98)
    assert np.array_equal(found.i, again.i)
    assert np.array_equal(found.cosine, again.cosine)
    planted = {(row, 2900 + row) for row in range(100)}
    assert len(planted & set(zip(found.i.tolist(), found.j.tolist(), strict=True))) >= 97


def test_buckets_hold_no_pair_twice_and_none_that_is_too_far():
    rows = crowd(1500, 8, near=50)
    found = neighbours.bucketed(rows, 0.9)
    exact = neighbours.pairs(rows, 0.9 - 1e-6)
    pairs = list(zip(found.i.tolist(), found.j.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) <= set(zip(exact.i.tolist(), exact.j.tolist(), strict=True))
    assert pairs == sorted(pairs)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_the_recall_of_all_rows_as_queries_is_the_share_that_was_found(share):
    rows = crowd(600, 8, near=200, seed=4)
    exact = neighbours.pairs(rows, 0.95)
    kept = np.random.default_rng(5).random(len(exact)) < share
    part = neighbours.Pairs(i=exact.i[kept], j=exact.j[kept], cosine=exact.cosine[kept])
    told = neighbours.recall(rows, 0.95, part, queries=600)
    assert told.value == pytest.approx(kept.mean(), abs=1e-6)
    assert told.n == 2 * len(exact)


def test_the_recall_of_some_rows_covers_the_share_that_was_found():
    rows = crowd(3000, 8, near=1000, seed=6)
    exact = neighbours.pairs(rows, 0.95)
    kept = np.arange(len(exact)) % 4 > 0
    part = neighbours.Pairs(i=exact.i[kept], j=exact.j[kept], cosine=exact.cosine[kept])
    covered = 0
    for seed in range(20):
        told = neighbours.recall(rows, 0.95, part, seed, queries=300)
        covered += told.low <= kept.mean() <= told.high
    assert covered >= 17


def test_no_recall_is_told_where_the_queries_have_no_pairs():
    rows = np.eye(30, dtype=np.float32)
    assert neighbours.recall(rows, 0.5, neighbours.pairs(rows, 0.5)) is None


def test_search_looks_at_all_pairs_up_to_its_limit_and_tells_its_recall_beyond():
    rows = crowd(1000, 16, near=200)
    exact = neighbours.search(rows, 0.95)
    assert exact.recall is None
    beyond = neighbours.search(rows, 0.95, exact=999)
    assert beyond.recall.value == pytest.approx(len(beyond.pairs) / len(exact.pairs))
    assert beyond.recall.low <= beyond.recall.value <= beyond.recall.high + 1e-9


def test_rows_that_are_all_equal_are_bucketed_too():
    rows = np.ones((50, 4), np.float32) / 2
    assert len(neighbours.bucketed(rows, 0.9)) == 50 * 49 / 2


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("how", [neighbours.pairs, neighbours.bucketed])
def test_more_pairs_than_are_held_are_refused(monkeypatch, how):
    monkeypatch.setattr(neighbours, "MOST", 100)
    with pytest.raises(IsekaiError, match="a higher threshold is needed"):
        how(np.ones((40, 4), np.float32) / 2, 0.9)
