"""Results follow from what was said: counts, orders, priors and the released metric."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import pytest

from isekai import results
from isekai.asking import predict
from isekai.errors import IsekaiError
from isekai.types import Response, Sweep
from model_adapters.planted import Planted
from tests.test_controls import changed, folded, two_way


def said(adapter, episodes):
    return [row for e in episodes for row in predict("it", adapter, e, folded(e))]


class Last:
    """Says the label seen last, and so depends on the order alone."""

    provenance: ClassVar[dict[str, object]] = {}
    respond = Planted("last").respond


class Scored:
    """Leans towards one label in every context, and by little towards the right one's rival."""

    provenance: ClassVar[dict[str, object]] = {}

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        first, second = sweep.labels
        for _ in sweep.cuts:
            for query in sweep.queries:
                hint = 0.0 if query.image is None else 1.0
                yield Response(
                    text="",
                    label_logprobs={first: -2.0, second: -8.0 + hint},
                    label_tokens={first: 1, second: 5},
                )


def test_every_cell_counts_its_own_task_model_control_and_shots():
    plain = two_way(shots=(1, 2))
    episodes = [*plain, *changed("blind", plain)]
    rows = said(Planted("first"), episodes)
    cells = results.summarise(rows, episodes, ["it"])
    assert [(c.control, c.shots_per_class, c.n_support_images) for c in cells] == [
        ("none", 1, 2),
        ("none", 2, 4),
        ("blind", 1, 2),
        ("blind", 2, 4),
    ]
    assert {sum(c.outcomes.values()) for c in cells} == {len(plain) * 6}
    assert len({c.episodes for c in cells}) == 4
    again = results.summarise(rows[::-1], episodes[::-1], ["it"])
    assert {c.episodes for c in again} == {c.episodes for c in cells}


def test_intervals_can_be_drawn_instead():
    plain = two_way(shots=(1,), episodes=2)
    rows = said(Last(), plain)
    rows = [replace(row, outcome="wrong") if n % 5 == 0 else row for n, row in enumerate(rows)]
    (t,) = results.summarise(rows, plain, ["it"])
    (drawn,) = results.summarise(rows, plain, ["it"], intervals="bootstrap")
    (again,) = results.summarise(rows, plain, ["it"], intervals="bootstrap")
    assert drawn == again
    assert drawn.metrics["accuracy"].value == t.metrics["accuracy"].value
    assert drawn.metrics["accuracy"] != t.metrics["accuracy"]
    assert (t.intervals, drawn.intervals) == ("t", "bootstrap")


def test_orders_have_a_spread_and_a_share_of_answers_that_flip():
    orders = changed("order=4", two_way(shots=(2,), episodes=20))
    (steady,) = results.summarise(said(Planted("first"), orders), orders, ["it"])
    (moved,) = results.summarise(said(Last(), orders), orders, ["it"])
    assert (steady.spread, steady.metrics["flips"].value) == (0.0, 0.0)
    # of four orders, the last label is the same in all with a chance of about 2 (1/2)^4
    assert moved.metrics["flips"].value == pytest.approx(7 / 8, abs=0.1)
    assert moved.spread == 0.0  # each order is at chance exactly
    plain = two_way(shots=(2,))
    (cell,) = results.summarise(said(Last(), plain), plain, ["it"])
    assert cell.spread is None
    assert "flips" not in cell.metrics


def test_the_released_metric_stands_beside_the_strict_one_for_answers_in_words():
    plain = two_way(shots=(1,))
    rows = said(Planted("first"), plain)
    (cell,) = results.summarise(rows, plain, ["it"], released_metric=True)
    assert cell.metrics["accuracy_lcl"].value == cell.metrics["accuracy"].value == 0.5
    scored = said(Scored(), plain)
    (cell,) = results.summarise(scored, plain, ["it"], released_metric=True)
    assert "accuracy_lcl" not in cell.metrics


def test_labels_are_ranked_as_they_are_by_the_token_or_less_their_prior():
    plain = two_way(shots=(1,))
    episodes = [*plain, *changed("text", plain)]
    rows = said(Scored(), episodes)
    labels = {episode.id: folded(episode).labels for episode in episodes}

    def answers(ranking):
        scored = results.score(rows, episodes, ranking)
        return {
            labels[row.episode_id].index(row.answer) if row.answer else None
            for row in scored
            if "~" not in row.episode_id
        }

    assert answers("sum") == {0}
    assert answers("mean") == {1}
    assert answers("prior") == {1}


def test_where_the_model_gave_no_prior_its_answer_is_no_answer():
    plain = two_way(shots=(1,))
    episodes = [*plain, *changed("text", plain)]
    rows = said(Scored(), episodes)
    silent = [
        replace(row, label_logprobs=None) if row.episode_id.endswith("~text") else row
        for row in rows
    ]
    scored = results.score(silent, episodes, "prior")
    assert {row.outcome for row in scored if "~" not in row.episode_id} == {"failed"}


def test_a_prior_that_was_not_measured_is_asked_for():
    plain = two_way(shots=(1,))
    episodes = [*plain, *changed("text", plain), *changed("words=true", plain)]
    with pytest.raises(IsekaiError, match="no prior for 'words=true' at 1 shots"):
        results.refuse_without_prior(episodes)
    results.refuse_without_prior([*episodes, *changed("words=true+text", plain)])
    for control in ("order=2", "swap"):  # other words than `text` has, or in another order
        moved = [*episodes[: -len(plain)], *changed(control, plain)]
        with pytest.raises(IsekaiError, match=f"ask the control '{control}\\+text', too"):
            results.refuse_without_prior(moved)
        results.refuse_without_prior([*moved, *changed(f"{control}+text", plain)])


class Recent:
    """Leans far towards the label seen last, and a little towards what pictures say."""

    provenance: ClassVar[dict[str, object]] = {}

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        shown = {turn.image.id: turn.label for turn in sweep.support if turn.image}
        for cut in sweep.cuts:
            for query in sweep.queries:
                hint = shown.get(query.image.id) if query.image else None
                last = sweep.support[cut - 1].label
                scores = {label: 5.0 * (label == last) + (label == hint) for label in sweep.labels}
                yield Response(text="", label_logprobs=scores)


def test_a_prior_is_that_of_the_same_words_in_the_same_order():
    plain = [
        replace(e, queries=e.support[:2]) for e in two_way(shots=(1,), episodes=4)
    ]  # each query is in the support set: it says what is right
    names = ("text", "swap", "swap+text")
    episodes = [*plain, *(one for name in names for one in changed(name, plain))]
    scored = results.score(said(Recent(), episodes), episodes, "prior")
    with_pictures = [row for row in scored if not row.episode_id.endswith("text")]
    assert {row.outcome for row in with_pictures} == {"correct"}


def test_scoring_again_changes_nothing_but_answers_and_outcomes():
    plain = two_way()
    rows = said(Planted("first"), plain)
    assert results.score(rows, plain, "sum") == rows
