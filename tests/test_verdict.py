"""Oracles get the verdict that they were planted for; what cannot be told is not told."""

import numpy as np
import pytest

from isekai import plugins, variants, verdict
from isekai.asking import predict
from isekai.types import Episode
from isekai.verdict import judge
from model_adapters.planted import Planted
from tests.test_controls import changed, folded, listed, two_way
from tests.test_lists import published

DATASET = listed(groups=10)
KNOWN = {entry.image_id: DATASET.concept(entry.concept) for entry in DATASET.entries}


def judged(strategy: str, labels="fantasy", controls=None) -> verdict.Verdict:
    plain = two_way(DATASET, labels=labels, shots=(0, 1, 2))
    names = controls or variants.all_controls(labels, (0.5, 1.0), 2)
    episodes: list[Episode] = [*plain]
    episodes += [one for name in names for one in changed(name, plain, DATASET)]
    oracle = Planted(strategy)
    oracle.inform(KNOWN)
    rows = [row for e in episodes for row in predict("it", oracle, e, folded(e))]
    return verdict.verdicts(rows, episodes, ["it"], labels)["twin"]["it"]


@pytest.mark.parametrize("labels", ["fantasy", "true"])
@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("binder", "binds"),
        ("namer", "names"),
        ("first", "guesses"),
        ("last", "guesses"),
        ("frequent", "guesses"),
        ("text", "guesses"),
    ],
)
def test_each_oracle_is_seen_through(strategy, expected, labels):
    found = judged(strategy, labels)
    assert found.verdict == expected
    assert found.words.startswith(f"{expected}: ")
    assert "\n" not in found.words
    assert len(found.tests) >= 4


def test_a_model_that_scores_by_true_names_alone_is_not_said_to_bind():
    found = judged("namer", "true", controls=["blind", "swap"])
    assert found.verdict == "names"
    assert "1.00 [" in found.words


def test_published_questions_with_one_query_each_do_not_make_a_guesser():
    dataset = published(pairs=24)
    plain = list(
        plugins.load("tasks", "lists")(
            dataset, shots=(1,), queries=1, episodes=1, labels="fantasy", seed=0
        )
    )
    episodes = [*plain, *changed("blind", plain, dataset)]
    oracle = Planted("binder")
    shows = {one.query: dataset.concept(one.concept) for one in dataset.lists}
    for one in dataset.lists:
        for label, ids in zip(one.labels, (one.positives, one.negatives), strict=True):
            shows |= dict.fromkeys(ids, dataset.concept(label))
    oracle.inform(shows)
    rows = [row for e in episodes for row in predict("it", oracle, e, folded(e))]
    found = verdict.verdicts(rows, episodes, ["it"], "fantasy")["lists"]["it"]
    assert found.verdict == "binds"
    assert "one answer" not in found.words


def test_without_blind_there_is_no_verdict():
    plain = two_way(DATASET)
    rows = [row for e in plain for row in predict("it", Planted("first"), e, folded(e))]
    assert verdict.verdicts(rows, plain, ["it"], "fantasy") == {}


def clustered(shares) -> list[tuple[str, bool]]:
    """Twenty answers a cluster, that share of them right."""
    return [(str(g), i < round(20 * p)) for g, p in enumerate(shares) for i in range(20)]


def test_zero_shots_of_the_true_names_count_for_naming_whatever_column_they_stand_in():
    plain = two_way(DATASET, labels="true", shots=(0, 1, 2))
    episodes = [*plain, *changed("blind", plain, DATASET)]
    oracle = Planted("namer")
    oracle.inform(KNOWN)
    rows = [row for e in episodes for row in predict("it", oracle, e, folded(e))]
    found = verdict.verdicts(rows, episodes, ["it"], "true")["twin"]["it"]
    assert any("words=true+zero" in test.about for test in found.tests)


def test_few_clusters_are_not_enough_to_be_sure():
    asked = {"none": clustered([1, 1, 1]), "blind": clustered([0.5, 0.5, 0.5])}
    assert judge(asked, 0.5, "fantasy").verdict == "undecided"


def test_both_can_be_true_of_a_model():
    ten = np.full(10, 1.0)
    asked = {
        "none": clustered(ten * 0.95),
        "blind": clustered(ten * 0.5),
        "swap": clustered(ten * 0.9),
        "words=true+blind": clustered(ten * 0.85),
    }
    assert judge(asked, 0.5, "fantasy").verdict == "binds and names"


def test_one_that_does_not_follow_the_swap_does_not_bind():
    rng = np.random.default_rng(0)
    asked = {
        "none": clustered(0.9 + rng.uniform(-0.05, 0.05, 10)),
        "blind": clustered(0.5 + rng.uniform(-0.05, 0.05, 10)),
        "swap": clustered(0.3 + rng.uniform(-0.05, 0.05, 10)),
    }
    assert judge(asked, 0.5, "fantasy").verdict == "undecided"


def test_an_interval_that_reaches_far_above_chance_is_no_proof_of_guessing():
    wide = clustered([0.2, 0.9, 0.4, 0.8, 0.3, 0.9])
    asked = {"none": wide, "blind": clustered([0.5] * 6)}
    assert judge(asked, 0.5, "fantasy").verdict == "undecided"
    even = clustered([0.5, 0.45, 0.55, 0.5, 0.5, 0.55, 0.45, 0.5])
    assert judge({"none": even, "blind": even}, 0.5, "fantasy").verdict == "guesses"


def test_guessers_are_called_guessers_and_rarely_anything_else():
    """Holm keeps the chance of any wrong word below 5 %, and correlated answers don't break it."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        controls = ("none", "blind", "swap", "words=true+blind", "words=true+swap")
        asked = {name: clustered(np.clip(rng.normal(0.5, 0.12, 12), 0, 1)) for name in controls}
        wrong += judge(asked, 0.5, "fantasy").verdict not in ("guesses", "undecided")
    assert wrong <= 300 * 0.05 + 3 * (300 * 0.05 * 0.95) ** 0.5
