"""Each control changes one thing about an episode, and oracles land where theory puts them."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import plugins, templates, variants
from isekai.errors import IsekaiError
from isekai.labels import alike
from isekai.types import EncodedImage, Episode
from model_adapters.planted import Planted
from tests.test_episodes import THREE_WAY, drawn, listed

DATASET = listed(groups=6)
SHOTS = (0, 1, 2, 4)


def two_way(dataset=DATASET, labels="fantasy", shots=SHOTS, episodes=3, seed=0) -> list[Episode]:
    return list(
        plugins.load("tasks", "twin")(
            dataset, shots=shots, queries=3, episodes=episodes, labels=labels, seed=seed
        )
    )


def changed(name: str, episodes: list[Episode], dataset=DATASET) -> list[Episode]:
    (variant,) = variants.controls([name], dataset)
    return [made for episode in episodes for made in variant.of(episode)]


# ---------------------------------------------------------------- what a control changes


@pytest.mark.parametrize("control", ["swap", "words=true"])
def test_words_that_were_said_falsely_are_not_left_behind_by_a_change_of_words(control):
    with pytest.raises(IsekaiError, match=f"'{control}' goes before 'false'"):
        changed(f"false=1+{control}", two_way())
    for made in changed(f"{control}+false=1", two_way()):
        assert {example.word for example in made.support} == set(made.labels.values())
        assert all(example.word != made.labels[example.concept] for example in made.support)


def test_blind_greys_the_support_set_and_nothing_else():
    for episode, made in zip(two_way(), changed("blind", two_way()), strict=True):
        assert {example.shown for example in made.support} == {"grey"}
        assert made.queries == episode.queries
        shown = tuple(replace(example, shown="picture") for example in made.support)
        assert replace(made, support=shown, control="none", id=episode.id) == episode


def test_text_takes_every_picture_away_and_no_word():
    episode, (made, *_) = two_way()[0], changed("text", two_way())
    assert {example.shown for example in (*made.support, *made.queries)} == {"nothing"}
    plain, bare = folded(episode), folded(made)
    assert all(turn.image is None for turn in (*bare.support, *bare.queries))
    assert [turn.answer for turn in bare.support] == [turn.answer for turn in plain.support]
    assert bare.queries[0].question == plain.queries[0].question


def test_swap_moves_the_labels_in_the_support_set_and_in_what_is_right():
    for way in (two_way(), drawn(DATASET, (THREE_WAY,))):
        for episode, made in zip(way, changed("swap", way), strict=True):
            assert made.support == episode.support
            assert folded(made).labels == folded(episode).labels  # listed alike
            assert list(made.labels) == list(episode.labels)
            assert not any(made.labels[concept] == word for concept, word in episode.labels.items())


@given(
    rate=st.floats(0, 1),
    seed=st.integers(0, 1000),
    shots=st.integers(1, 6),
)
@settings(deadline=None, max_examples=60)
def test_a_rate_of_false_labels_holds_in_every_support_set_and_within_each_label(rate, seed, shots):
    (episode,) = two_way(listed(1), shots=(shots,), episodes=1, seed=seed)
    (made,) = changed(f"false={rate!r}", [episode])
    assert made.labels == episode.labels  # what is right stays
    for k in range(1, shots + 1):
        for concept in episode.labels:
            told = [e.word for e in made.support[: 2 * k] if e.concept == concept]
            count = sum(word is not None for word in told)
            assert abs(count - rate * k) < 1
    for example in made.support:
        assert example.word != episode.labels[example.concept]
        assert example.word in {None, *episode.labels.values()}


def test_the_rate_of_false_labels_is_right_on_average_where_it_cannot_be_exact():
    made = changed("false=0.3", two_way(listed(1), shots=(1,), episodes=800))
    told = [example.word is not None for episode in made for example in episode.support]
    assert sum(told) / len(told) == pytest.approx(0.3, abs=4 * (0.21 / len(told)) ** 0.5)


def test_words_are_those_of_another_run_with_these_labels():
    for kind in ("true", "fantasy", "conflict"):
        (made, *_) = changed(f"words={kind}", two_way())
        (there, *_) = two_way(labels=kind)
        assert list(made.labels.items()) == list(there.labels.items())
        assert replace(made, labels={}, control="none", id=there.id) == replace(there, labels={})


def test_conflicting_words_are_common_and_like_no_name_around():
    words = {w for e in two_way(labels="conflict", episodes=30) for w in e.labels.values()}
    assert len(words) > 60
    kettle = listed(2)
    group = kettle.groups[0]
    named = replace(group.concepts[0], definition="A tractor that plays the piano.")
    kettle.groups = (replace(group, concepts=(named, *group.concepts[1:])), *kettle.groups[1:])
    there = {w for e in two_way(kettle, "conflict", episodes=60) for w in e.labels.values()}
    assert not any(alike(word, other) for word in there for other in ("tractor", "piano"))


def test_orders_show_the_same_support_set_at_every_shot_count_in_other_orders():
    episodes = two_way()
    made = changed("order=3", episodes)
    assert len(made) == len(episodes) * 3 * 3  # no order of nothing at 0 shots
    for episode in episodes:
        own = [one for one in made if one.seed == episode.seed]
        assert Counter((one.take, one.shots) for one in own) == {
            (take, (shots,)): 1 for take in range(3) for shots in (1, 2, 4)
        }
        for one in own:
            assert set(one.support) == set(episode.support[: 2 * one.shots[0]])
    orders = {one.support for one in made if one.shots == (4,) and one.seed == episodes[0].seed}
    assert len(orders) == 3


def test_zero_has_no_support_set():
    assert {(one.support, one.shots) for one in changed("zero", two_way())} == {((), (0,))}


def test_controls_add_up_from_left_to_right():
    (made, *_) = changed("words=true+swap+blind", two_way())
    (true, *_) = two_way(labels="true")
    assert set(made.labels.values()) == set(true.labels.values())
    assert made.labels != true.labels
    assert made.support[0].shown == "grey"
    assert (made.control, made.id) == ("words=true+swap+blind", f"{true.id}~words=true+swap+blind")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("blnd", "no control is called 'blnd'; did you mean 'blind'"),
        ("blind=1", "'blind' takes no value"),
        ("false", "the rate is a number from 0 to 1"),
        ("false=1.5", "the rate is a number from 0 to 1"),
        ("false=nan", "the rate is a number from 0 to 1"),
        ("words=english", "one of true, fantasy, conflict"),
        ("order=1", "from 2 to 100"),
        ("swap+zero=3", "'zero' takes no value"),
    ],
)
def test_a_control_that_cannot_be_is_refused_in_a_line(name, told):
    with pytest.raises(IsekaiError, match=told) as refused:
        changed(name, two_way())
    assert "\n" not in str(refused.value)


# ---------------------------------------------------------------- planted oracles


def folded(episode: Episode, template: str = "plain"):
    def picture(id: str) -> EncodedImage:
        return EncodedImage(id=id, data=PIXEL)

    return templates.fold(episode, templates.read(template), picture)


def _pixel() -> bytes:
    from PIL import Image

    from isekai.images import encode

    return encode(Image.new("RGB", (1, 1), (9, 9, 9)))


PIXEL = _pixel()
KNOWN = {entry.image_id: DATASET.concept(entry.concept) for entry in DATASET.entries}


def accuracy(strategy: str, episodes: list[Episode]) -> dict[int, float]:
    """Shots -> the share of right answers."""
    oracle = Planted(strategy)
    oracle.inform(KNOWN)
    right: Counter[int] = Counter()
    asked: Counter[int] = Counter()
    for episode in episodes:
        said = oracle.respond(folded(episode))
        for shots in episode.shots:
            for query in episode.queries:
                right[shots] += next(said).text == episode.labels[query.concept]
                asked[shots] += 1
    return {shots: right[shots] / asked[shots] for shots in asked}


WITH = (1, 2, 4)


@pytest.mark.parametrize("strategy", ["first", "last", "frequent", "text"])
@pytest.mark.parametrize(
    "control", ["none", "blind", "text", "swap", "false=0.5", "false=1", "words=true", "order=3"]
)
def test_who_says_one_label_to_all_queries_is_at_chance_exactly(strategy, control):
    episodes = two_way() if control == "none" else changed(control, two_way())
    assert set(accuracy(strategy, episodes).values()) == {0.5}


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ("none", 1.0),
        ("blind", 0.5),
        ("text", 0.5),
        ("swap", 1.0),  # it follows
        ("false=0.25", 1.0),
        ("false=1", 0.0),
        ("words=true", 1.0),
        ("words=true+swap", 1.0),
        ("words=conflict", 1.0),
        ("words=true+blind", 0.5),
        ("order=3", 1.0),
    ],
)
def test_a_pure_binder_goes_with_the_support_set_alone(control, expected):
    episodes = two_way() if control == "none" else changed(control, two_way())
    at = accuracy("binder", episodes)
    assert at.pop(0, 0.5) == 0.5  # nothing is shown
    if control == "false=0.25":  # at 1 and 2 shots a false label may stand alone
        at = {4: at[4]}
    assert set(at.values()) == {expected}


def test_the_causal_link_dial_takes_a_binder_down_and_leaves_a_namer():
    dial = ["false=0.25", "false=0.5", "false=0.75", "false=1"]
    episodes = two_way(labels="true", shots=(4,), episodes=20)
    binder = [accuracy("binder", changed(rate, episodes))[4] for rate in dial]
    assert binder[0] == 1.0
    assert binder[1] == pytest.approx(0.5, abs=0.01)
    assert binder[2:] == [0.0, 0.0]
    assert {accuracy("namer", changed(rate, episodes))[4] for rate in dial} == {1.0}


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        ("none", 0.5),  # it knows no fantasy word
        ("swap", 0.5),
        ("words=conflict", 0.5),
        ("words=true", 1.0),
        ("words=true+blind", 1.0),
        ("words=true+zero", 1.0),
        ("words=true+swap", 0.0),  # it keeps to the true names
        ("words=true+text", 0.5),
    ],
)
def test_a_pure_namer_goes_with_what_it_knows_alone(control, expected):
    episodes = two_way() if control == "none" else changed(control, two_way())
    assert set(accuracy("namer", episodes).values()) == {expected}
