"""What every task keeps: a stranger's is held to it beside the built-in ones."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import plugins
from isekai.dataset import Dataset
from isekai.errors import DataError
from isekai.types import Episode
from tests.test_episodes import listed
from tests.test_lists import published

ASKED = {"shots": (0, 1, 3), "queries": 2, "episodes": 2, "labels": "fantasy", "seed": 0}


def fitting(name: str, groups: int, support: int = 6, reverse: bool = False) -> Dataset:
    """A dataset that has what the task asks about: published questions, or groups of concepts."""
    if name != "lists":
        return listed(groups, support=support, reverse=reverse)
    dataset = published(groups, support)
    dataset.lists = dataset.lists[::-1] if reverse else dataset.lists
    return dataset


# `published` draws nothing: tests/test_published.py holds it to what these draw.
every_task = pytest.mark.parametrize(
    "name", [name for name in plugins.names("tasks") if name != "published"]
)


@every_task
@given(
    seed=st.integers(0, 2**40),
    groups=st.integers(2, 7),
    labels=st.sampled_from(["true", "fantasy"]),
)
@settings(max_examples=15, deadline=None)
def test_its_episodes_are_balanced_nested_and_never_ask_what_they_show(name, seed, groups, labels):
    task = plugins.load("tasks", name)
    asked = {**ASKED, "seed": seed, "labels": labels}
    episodes = list(task(fitting(name, groups), **asked))
    assert len({episode.id for episode in episodes}) == len(episodes) > 0
    clusters = defaultdict(set)
    for episode in episodes:
        way = len(episode.labels)
        assert episode.task == name
        assert episode.id.startswith(f"{name}/")
        assert episode.shots == (0, 1, 3)
        assert way >= 2
        for shots in episode.shots:
            shown = [example.concept for example in episode.support[: way * shots]]
            assert {shown.count(concept) for concept in episode.labels} == {shots}
        asked_for = [example.concept for example in episode.queries]
        if name == "lists":  # as published: a question has one query
            assert len(asked_for) == 1
        else:
            assert {asked_for.count(concept) for concept in episode.labels} == {2}
        shown = {example.image_id for example in episode.support}
        assert not shown & {example.image_id for example in episode.queries}
        assert len(shown) == len(episode.support)
        for concept in episode.labels:
            clusters[concept].add(episode.cluster)
    assert {len(found) for found in clusters.values()} == {1}  # clusters share no concept


def by_id(episode: Episode) -> str:
    return episode.id


@every_task
def test_it_draws_the_same_episodes_again_in_whatever_order_the_groups_come(name):
    task = plugins.load("tasks", name)
    first = list(task(fitting(name, 5), **ASKED))
    again = list(task(fitting(name, 5, reverse=True), **ASKED))
    assert sorted(again, key=by_id) == sorted(first, key=by_id)
    assert list(task(fitting(name, 5), **{**ASKED, "seed": 1})) != first


@every_task
def test_it_refuses_what_cannot_be_drawn_when_it_is_called(name):
    task = plugins.load("tasks", name)
    with pytest.raises(DataError, match="--shots 6"):
        task(fitting(name, 4), **{**ASKED, "shots": (1, 7)})
    with pytest.raises(DataError, match="no group"):
        task(listed(0), **ASKED)
