"""The published protocol: each question with a support set of its own, shuffled as published."""

import json
from collections import Counter
from pathlib import Path

from isekai import paper, variants
from isekai.types import Example
from tests.test_controls import DATASET, two_way

GOLDEN = Path(__file__).parent / "data" / "golden"


def questions(**asked):
    return [one for episode in two_way(**asked) for one in paper.questions(episode)]


def test_every_query_and_shot_count_is_a_question_of_its_own():
    episodes, made = two_way(), questions()
    assert len(made) == sum(len(e.shots) * len(e.queries) for e in episodes)
    assert len({one.id for one in made}) == len(made)
    for one in made:
        assert len(one.queries) == len(one.shots) == 1
        assert len(one.support) == 2 * one.shots[0]
        counts = Counter(example.concept for example in one.support)
        assert set(counts.values()) <= {one.shots[0]}


def test_the_support_set_is_the_nested_one_in_another_order_for_each_query():
    episode = two_way(episodes=1)[0]
    made = [one for one in paper.questions(episode) if one.shots == (4,)]
    assert {frozenset(one.support) for one in made} == {frozenset(episode.support[:8])}
    assert len({one.support for one in made}) == len(made)


def test_more_shots_and_more_queries_leave_the_questions_that_were_there():
    few = {one.id: one for one in questions(shots=(1, 2))}
    many = {one.id: one for one in questions()}
    assert few.items() <= many.items()


def test_controls_are_shuffled_as_the_plain_questions_are():
    (blind,) = variants.controls(["blind"], DATASET)
    for episode in two_way():
        for a, b in zip(
            paper.questions(episode),
            (one for made in blind.of(episode) for one in paper.questions(made)),
            strict=True,
        ):
            assert [e.image_id for e in a.support] == [e.image_id for e in b.support]
            assert b.id.endswith(a.id.rsplit("/", 1)[1])


def test_the_label_seen_last_is_even():
    last = Counter(
        list(one.labels).index(one.support[-1].concept)
        for one in questions(episodes=60)
        if one.shots == (2,)
    )
    assert abs(last[0] - last[1]) < 4 * sum(last.values()) ** 0.5


def test_the_order_is_the_one_that_the_released_code_drew_from_the_same_state():
    cases = json.loads((GOLDEN / "eval_orders.json").read_text())
    for case in cases:
        both = [Example(image_id=name, concept="") for name in case["positives + negatives"]]
        shown = [one.image_id for one in paper.shuffled(both, case["random_seed"])]
        assert shown == case["image_order"]
    assert len(cases) == 16
