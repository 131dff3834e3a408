"""The task `lists` asks what was published: these pictures, this query, these two names."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import files
from isekai.dataset import Dataset, Entry, Listed
from isekai.errors import DataError
from isekai.tasks.lists import lists
from isekai.types import Concept, Episode, Group
from tests.test_controls import folded

ASKED = {"shots": (0, 1, 3), "queries": 1, "episodes": 1, "labels": "fantasy", "seed": 0}


def id_of(*words: object) -> str:
    return files.sha256(" ".join(map(str, words)).encode())


def published(pairs: int = 3, pictures: int = 5, lines: tuple[int, ...] = (0, 1)) -> Dataset:
    """Pairs of two names; a question for each of their names in turn, numbered through."""
    groups = []
    asked: list[Listed] = []
    for n in range(pairs):
        made = tuple(
            Concept(id=f"g{n}/{name}", name=f"{name} {n}", role="novel") for name in ("one", "two")
        )
        groups.append(Group(id=f"g{n}", title="", concepts=made))
        shown = [tuple(id_of(c.id, k) for k in range(pictures)) for c in made]
        for line in lines:
            asked.append(
                Listed(
                    line=line + len(lines) * n,
                    query=id_of("query", n, line),
                    concept=made[line % 2].id,
                    labels=(made[0].id, made[1].id),
                    positives=shown[0],
                    negatives=shown[1],
                )
            )
    entries = [
        Entry(image_id=one.query, concept=one.concept, role="novel", split="query", index=0)
        for one in asked
    ]
    return Dataset(
        path=Path("published"),
        fingerprint="",
        groups=groups,
        entries=entries,
        fetch=lambda image_id: b"",
        lists=tuple(asked),
    )


def drawn(dataset: Dataset, **asked) -> list[Episode]:
    return list(lists(dataset, **{**ASKED, **asked}))


@given(
    seed=st.integers(0, 2**40),
    labels=st.sampled_from(["true", "fantasy", "conflict"]),
    shots=st.sets(st.integers(0, 5), min_size=1).map(sorted).map(tuple),
)
@settings(max_examples=40, deadline=None)
def test_each_question_is_an_episode_whose_shots_are_the_first_of_either_list(seed, labels, shots):
    dataset = published()
    episodes = drawn(dataset, seed=seed, labels=labels, shots=shots)
    assert len({episode.id for episode in episodes}) == len(dataset.lists)
    for episode, one in zip(episodes, dataset.lists, strict=True):
        assert [(query.image_id, query.concept) for query in episode.queries] == [
            (one.query, one.concept)
        ]
        assert tuple(episode.labels) == one.labels
        assert episode.cluster == one.concept.split("/")[0]
        assert episode.shots == shots
        for count in shots:
            shown = episode.support[: 2 * count]
            positives = [e.image_id for e in shown if e.concept == one.labels[0]]
            negatives = [e.image_id for e in shown if e.concept == one.labels[1]]
            assert positives == list(one.positives[:count])
            assert negatives == list(one.negatives[:count])


def test_ids_hold_the_pair_the_seed_and_the_published_number():
    dataset = published(lines=tuple(range(4)))
    ids = [episode.id for episode in drawn(dataset, seed=7)]
    assert ids[:2] == ["lists/g0/7-00", "lists/g0/7-01"]
    assert ids[-1] == "lists/g2/7-11"


def test_how_many_episodes_or_queries_are_asked_for_changes_nothing():
    dataset = published()
    assert drawn(dataset, queries=9, episodes=5) == drawn(dataset)


def test_whoever_says_what_is_listed_first_is_right_half_of_the_time_though_positives_are_asked():
    dataset = published(pairs=200, lines=(0,))  # the query shows the positive thing in all
    assert all(one.concept == one.labels[0] for one in dataset.lists)
    right = 0
    for episode in drawn(dataset):
        told = folded(episode, "choices")
        assert " or ".join(told.labels) in told.queries[0].question
        right += told.labels[0] == episode.labels[episode.queries[0].concept]
    assert 80 <= right <= 120


def test_true_names_are_those_published_and_made_up_words_follow_the_seed():
    dataset = published()
    for episode in drawn(dataset, labels="true"):
        n = episode.cluster[1:]
        assert list(episode.labels.values()) == [f"one {n}", f"two {n}"]
    words = [[list(e.labels.values()) for e in drawn(dataset, seed=s)] for s in (0, 0, 1)]
    assert words[0] == words[1] != words[2]
    one, two = (drawn(dataset, labels="true", seed=seed) for seed in (0, 1))
    assert [e.queries for e in one] == [e.queries for e in two]
    assert [set(e.support) for e in one] == [set(e.support) for e in two]


def test_either_label_is_seen_last_about_equally_often():
    dataset = published(pairs=60)
    last = [episode.support[-1].concept.split("/")[1] for episode in drawn(dataset)]
    assert 40 < last.count("one") < 80  # of 120; outside once in 4,000 seeds


def test_more_shots_only_lengthen_the_support_set():
    dataset = published()
    for short, long in zip(drawn(dataset, shots=(2,)), drawn(dataset, shots=(5,)), strict=True):
        assert long.support[:4] == short.support
        assert long.labels == short.labels


def test_shots_beyond_a_list_are_refused_with_the_most_that_fits_all():
    dataset = published(pictures=4)
    with pytest.raises(DataError, match="question 0 lists 4 images of a label and --shots asks"):
        drawn(dataset, shots=(1, 5))
    assert drawn(dataset, shots=(4,))
    *others, last = dataset.lists
    dataset.lists = (*others, replace(last, negatives=()))
    with pytest.raises(DataError, match=r"question 5 lists 0 .* largest that fits is --shots 0"):
        drawn(dataset, shots=(1,))
    assert len(drawn(dataset, shots=(0,))) == 6


def test_a_dataset_without_published_questions_says_which_readers_have_them():
    with pytest.raises(DataError, match=r"no group here has published questions.*lists:… or"):
        lists(published(pairs=0), **ASKED)
