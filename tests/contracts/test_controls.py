"""What every control keeps: a stranger's is held to it beside the built-in ones."""

import pytest

from isekai import plugins, variants
from tests.test_episodes import THREE_WAY, drawn, listed

VALUES = {"false": "=0.5", "words": "=true", "order": "=2"}

every_control = pytest.mark.parametrize(
    "name", [name + VALUES.get(name, "") for name in plugins.names("controls")]
)


def made(name: str, seed: int = 0, **asked):
    dataset = listed(5)
    (variant,) = variants.controls([name], dataset)
    episodes = drawn(dataset, (THREE_WAY,), seed=seed, **asked)
    return [(episode, list(variant.of(episode))) for episode in episodes]


@every_control
def test_its_episodes_ask_the_same_queries_of_the_same_cluster_under_ids_of_their_own(name):
    ids = []
    for episode, variants_of_it in made(name, episodes=3):
        for one in variants_of_it:
            assert one.control == name
            assert one.id.startswith(episode.id)
            assert one.id.endswith(f"~{name}")
            assert (one.task, one.cluster, one.seed) == (
                episode.task,
                episode.cluster,
                episode.seed,
            )
            queries = [(query.image_id, query.concept) for query in one.queries]
            assert queries == [(query.image_id, query.concept) for query in episode.queries]
            assert set(one.shots) <= {0, *episode.shots}
            assert set(one.labels) == set(episode.labels)
            assert len(set(one.labels.values())) == len(one.labels)
            assert len(one.support) == len(one.labels) * max(one.shots)
            ids.append(one.id)
    assert len(ids) == len(set(ids)) > 0


@every_control
def test_it_makes_the_same_episodes_again_and_does_something(name):
    assert made(name) == made(name)
    for episode, variants_of_it in made(name):
        for one in variants_of_it:
            assert (one.labels, one.support, one.queries, one.shots) != (
                episode.labels,
                episode.support,
                episode.queries,
                episode.shots,
            )


@every_control
def test_more_shots_leave_what_it_showed_at_fewer(name):
    few, many = made(name, shots=(1, 2)), made(name, shots=(1, 2, 4))
    known = {
        (one.id, shots): one.support[: 3 * shots]
        for _, ones in many
        for one in ones
        for shots in one.shots
    }
    for _, ones in few:
        for one in ones:
            for shots in one.shots:
                assert known[one.id, shots] == one.support[: 3 * shots]
