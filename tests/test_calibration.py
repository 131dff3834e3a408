"""Limits are picked for a stated precision, on pairs whose truth is known."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from isekai import calibration, files, labelled
from isekai.alterations import ALTERATIONS
from isekai.calibration import Pictured, limit
from isekai.dedup import Limits
from isekai.errors import DataError
from isekai.labelled import NEGATIVES, RULES, Pairs
from tests.test_copies import textured


def small_grey(images) -> np.ndarray:
    """An embedder that is blind to all but the coarsest greys."""
    rows = np.stack([np.asarray(one.convert("L").resize((8, 8)), np.float32) for one in images])
    rows = rows.reshape(len(rows), -1)
    rows -= rows.mean(axis=1, keepdims=True)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pictured(concepts: int = 4, each: int = 2) -> list[Pictured]:
    return [
        Pictured(
            id=f"{number}",
            concept=f"c{number % concepts}",
            open=partial(textured, number, (96, 96)),
        )
        for number in range(concepts * each)
    ]


@pytest.fixture(scope="module")
def calibrated() -> calibration.Calibration:
    return calibration.run(pictured(), small_grey)


def pairs(same, others, kinds=None) -> Pairs:
    """Pairs with these cosines; hashes and copies that say nothing."""
    count = len(same) + len(others)
    names = list(ALTERATIONS)
    kind = kinds or [names[n % len(names)] for n in range(len(same))]
    return Pairs(
        kind=np.array([*kind, *["same concept"] * len(others)]),
        concept=np.array(["a"] * count),
        other=np.array(["a"] * count),
        bits=np.full(count, 128),
        copy=np.zeros(count),
        cosine=np.array([*same, *others], float),
    )


def test_every_alteration_and_kind_of_others_is_counted(calibrated):
    assert [one.pairs for one in calibrated.lines] == [*ALTERATIONS, *NEGATIVES]
    for one in calibrated.lines:
        assert set(one.found) == set(RULES)
        assert one.same == (one.pairs in ALTERATIONS)
        for share in one.found.values():
            assert share.n == one.n
            assert share.low <= share.value <= share.high + 1e-9
    by_kind = {one.pairs: one for one in calibrated.lines}
    assert by_kind["exact"].n == calibrated.measured == 4
    assert by_kind["exact"].found["same picture"].value == 1
    assert by_kind["mirror"].found["hash"].value == 0
    assert by_kind["mirror"].found["copy"].value > 0


def test_copies_are_found_at_the_precision_that_was_asked_for(calibrated):
    assert calibrated.recall["same picture"].value >= 0.95
    assert calibrated.precision["same picture"].value >= 0.99


def test_the_order_of_the_pictures_changes_nothing():
    few = pictured(concepts=2)
    assert calibration.run(few, small_grey) == calibration.run(few[::-1], small_grey)


def test_it_is_told_as_a_table_and_as_json(calibrated):
    text = calibrated.text()
    assert "picked for a precision of 0.99" in text
    assert f"cosine={calibrated.limits.cosine:g}" in text
    for name in (*ALTERATIONS, *NEGATIVES, "recall", "precision"):
        assert sum(line.startswith(f"{name} ") for line in text.splitlines()) == 1, name
    told = json.loads(json.dumps(files.plain(calibrated)))
    assert Limits(**told["limits"]) == calibrated.limits


def test_limits_are_not_measured_on_what_they_were_picked_on():
    names = np.array(["c0", "c1", "c2", "c3"])
    one, two = (side.ravel() for side in np.meshgrid(names, names))
    both = replace(pairs([0.9] * 16, []), concept=one, other=two)
    first = labelled.halves(both, 0)
    one, two = both.at(first), both.at(~first)
    assert not set(one.concept) & set(two.concept)
    assert not set(one.other) & set(two.concept)
    assert set(one.concept) | set(two.concept) == {"c0", "c1", "c2", "c3"}


def test_where_the_kinds_lie_apart_the_limit_is_midway():
    own = pairs([0.9] * 100, [0.5, 0.3])
    assert limit(own.cosine, own.same, own, 0.99) == pytest.approx(0.7)


@pytest.mark.parametrize("precision", [0.8, 0.9, 0.99])
def test_where_they_overlap_the_limit_is_the_lowest_that_is_precise_enough(precision):
    rng = np.random.default_rng(1)
    both = pairs(rng.normal(0.8, 0.05, 2000), rng.normal(0.7, 0.05, 300))
    found = limit(both.cosine, both.same, both, precision)

    def precise(at: float) -> float:
        taken = both.cosine >= at
        return float(both.weight[taken & both.same].sum() / both.weight[taken].sum())

    assert precise(found) >= precision
    lower = np.sort(both.cosine[both.same & (both.cosine < found)])[::-1]
    assert all(precise(at) < precision for at in lower)


def test_a_precision_that_no_limit_has_lets_only_the_nearest_through():
    both = pairs([0.5] * 10, [0.9, 0.8])
    assert limit(both.cosine, both.same, both, 0.99) == pytest.approx(0.9)


def test_at_most_so_many_pictures_are_altered(monkeypatch):
    monkeypatch.setattr(labelled, "AT_MOST", 12)
    chosen = labelled.choose(pictured(concepts=3, each=9), 0)
    assert len(chosen) == 12
    assert {one.concept for one in chosen} == {"c0", "c1", "c2"}
    many = labelled.choose(pictured(concepts=10, each=3), 0)
    assert len(many) == 12
    assert len({one.concept for one in many}) == 6


@pytest.mark.parametrize(("concepts", "each"), [(1, 9), (5, 1)])
def test_too_few_concepts_are_refused(concepts, each):
    with pytest.raises(DataError, match="calibration needs two at least"):
        calibration.run(pictured(concepts, each), small_grey)


@pytest.mark.parametrize("precision", [0.2, 1.0, 99])
def test_a_precision_that_is_none_is_refused(precision):
    with pytest.raises(DataError, match=r"between 0\.5 and 1"):
        calibration.run(pictured(), small_grey, precision)
