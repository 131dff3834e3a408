"""Episodes are balanced, nested, and the same whatever else is asked for."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import files
from isekai.dataset import Dataset, Entry
from isekai.episodes import Unit, digest, draw
from isekai.errors import DataError
from isekai.types import Concept, Group

ASKED = {"queries": 3, "episodes": 2, "labels": "fantasy", "seed": 0}


def listed(groups: int = 3, support: int = 6, query: int = 4, reverse: bool = False) -> Dataset:
    """A dataset without pictures: groups of two novel concepts and a foil."""
    made = tuple(
        Group(
            id=f"g{g}",
            title="",
            concepts=tuple(
                Concept(
                    id=f"g{g}/{name}",
                    name=f"{name}{g}",
                    role="foil" if name == "foil" else "novel",
                )
                for name in ("one", "two", "foil")
            ),
        )
        for g in range(groups)
    )
    entries = [
        Entry(
            image_id=files.sha256(f"{concept.id} {split} {index}".encode()),
            concept=concept.id,
            role=concept.role,
            split=split,
            index=index,
        )
        for group in made
        for concept in group.concepts
        for split, count in (("support", support), ("query", query))
        for index in range(count)
    ]
    if reverse:
        made, entries = made[::-1], entries[::-1]
    return Dataset(
        path=Path("listed"),
        fingerprint="",
        groups=made,
        entries=tuple(entries),
        fetch=lambda image_id: b"",
    )


THREE_WAY = Unit(name="g0", cluster="g0", concepts=("g0/one", "g0/two", "g0/foil"))


def drawn(dataset: Dataset | None = None, units=(THREE_WAY,), **asked):
    asked = {"shots": (1, 2, 4), **ASKED, **asked}
    return list(draw(dataset or listed(), "any", units, **asked))


@given(st.integers(0, 2**40), st.sampled_from(["fantasy", "true"]))
@settings(max_examples=40, deadline=None)
def test_an_episode_is_balanced_without_replacement_and_from_its_splits(seed, labels):
    dataset = listed()
    for episode in drawn(dataset, seed=seed, labels=labels):
        concepts = sorted(episode.labels)
        assert concepts == sorted(THREE_WAY.concepts)
        for block in range(4):
            shown = [example.concept for example in episode.support[3 * block : 3 * block + 3]]
            assert sorted(shown) == concepts
        assert sorted(q.concept for q in episode.queries) == sorted(concepts * 3)
        for examples, split in ((episode.support, "support"), (episode.queries, "query")):
            assert len({example.image_id for example in examples}) == len(examples)
            assert all(e.image_id in dataset.ids(e.concept, split) for e in examples)
        assert len(episode.support) == 12
        assert len(set(episode.labels.values())) == 3


@given(st.integers(0, 2**40))
@settings(max_examples=25, deadline=None)
def test_more_shots_and_more_queries_only_lengthen_an_episode(seed):
    for few, many in zip(
        drawn(seed=seed, shots=(1, 2), queries=2),
        drawn(seed=seed, shots=(0, 1, 2, 4, 6), queries=4),
        strict=True,
    ):
        assert many.support[: len(few.support)] == few.support
        assert many.queries[: len(few.queries)] == few.queries
        assert list(many.labels.items()) == list(few.labels.items())
        assert (many.id, many.seed) == (few.id, few.seed)


def test_an_episode_does_not_depend_on_its_neighbours_or_on_the_order_of_rows():
    other = Unit(name="g1", cluster="g1", concepts=("g1/one", "g1/foil"))
    alone = drawn(episodes=1)[0]
    assert drawn(units=(other, THREE_WAY), episodes=3)[3] == alone
    assert drawn(listed(reverse=True), episodes=1)[0] == alone
    assert drawn(listed(groups=9), episodes=1, labels="true") == drawn(episodes=1, labels="true")


def test_episodes_of_one_unit_differ_and_so_do_those_of_other_seeds_and_tasks():
    orders = [tuple(e.image_id for e in episode.support) for episode in drawn(episodes=4)]
    orders += [tuple(e.image_id for e in episode.support) for episode in drawn(seed=1)]
    task = draw(listed(), "other", (THREE_WAY,), shots=(4,), **ASKED)
    orders += [tuple(e.image_id for e in episode.support) for episode in task]
    assert len(set(orders)) == len(orders) == 8


def test_neither_the_last_block_nor_the_order_of_labels_favours_a_concept():
    episodes = drawn(episodes=600)
    for place in (0, -1):
        count = sum(episode.support[place].concept == "g0/foil" for episode in episodes)
        assert 150 < count < 250  # 200 expected, 4 standard deviations wide
    first = sum(next(iter(episode.labels)) == "g0/foil" for episode in episodes)
    assert 150 < first < 250


def test_ids_are_readable_unique_and_in_order():
    ids = [episode.id for episode in drawn(episodes=12)]
    assert ids[0] == "any/g0/0-000"
    assert drawn(episodes=1, seed=7)[0].id == "any/g0/7-000"
    assert all(a < b for a, b in pairwise(ids))


def test_a_digest_is_of_what_is_asked_at_one_shot_count_and_of_nothing_else():
    few, many = drawn(shots=(1, 2))[0], drawn(shots=(0, 1, 2, 4))[0]
    assert [digest(few, k) for k in (1, 2)] == [digest(many, k) for k in (1, 2)]
    assert len({digest(many, k) for k in (0, 1, 2, 4)}) == 4
    assert digest(few, 1) != digest(drawn(shots=(1, 2), labels="true")[0], 1)
    assert digest(few, 1) != digest(drawn(shots=(1, 2), queries=2)[0], 1)
    first, *others = few.support
    turned = replace(few, support=(replace(first, shown="grey"), *others))
    assert digest(few, 1) != digest(turned, 1)
    assert digest(few, 1) == digest(replace(few, support=few.support[:3]), 1)


def test_true_labels_are_the_names_and_fantasy_words_are_new_each_episode():
    true, fantasy = drawn(labels="true"), drawn(labels="fantasy", episodes=20)
    assert dict(true[0].labels) == {"g0/one": "one0", "g0/two": "two0", "g0/foil": "foil0"}
    words = [word for episode in fantasy for word in episode.labels.values()]
    assert len(set(words)) > 50


def test_no_shots_at_all_is_an_empty_support_sequence():
    assert drawn(shots=(0,))[0].support == ()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"shots": (1, 7)}, "has 6 support images and --shots asks for 7 a label; the largest"),
        ({"queries": 5}, "has 4 query images and --queries asks for 5 a label; the largest"),
        ({"units": ()}, "no group here has the concepts that task 'any' needs"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_the_first_episode(asked, told):
    asked = {"units": (THREE_WAY,), "shots": (1,), **ASKED, **asked}
    units = asked.pop("units")
    with pytest.raises(DataError, match=told) as refused:
        draw(listed(), "any", units, **asked)  # not one episode is taken
    assert "\n" not in str(refused.value)


def test_the_largest_number_told_is_one_that_fits():
    with pytest.raises(DataError, match=r"--shots 6$"):
        drawn(shots=(7,))
    assert drawn(shots=(6,))
    with pytest.raises(DataError, match=r"has 0 support images.*build the dataset with more"):
        drawn(listed(support=0), shots=(1,))


def test_true_labels_that_read_alike_are_refused():
    group = Group(
        id="g0",
        title="",
        concepts=(
            Concept(id="g0/a", name="Ice-Cream", role="novel"),
            Concept(id="g0/b", name="ice cream", role="novel"),
        ),
    )
    entries = tuple(
        Entry(image_id=f"{c.id}{split}", concept=c.id, role="novel", split=split, index=0)
        for c in group.concepts
        for split in ("support", "query")
    )
    dataset = Dataset(
        path=Path("x"), fingerprint="", groups=(group,), entries=entries, fetch=lambda id: b""
    )
    unit = Unit(name="g0", cluster="g0", concepts=("g0/a", "g0/b"))
    with pytest.raises(DataError, match=r"both called 'ice cream'.*--labels fantasy"):
        drawn(dataset, (unit,), labels="true", shots=(1,), queries=1)
    assert drawn(dataset, (unit,), labels="fantasy", shots=(1,), queries=1)
