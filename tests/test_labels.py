"""Fantasy words: apart, pronounceable, new, and the same for the same seed."""

import re
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import labels

seeds = st.integers(0, 2**63 - 1)


@given(seeds, st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_labels_of_an_episode_are_pronounceable_and_never_alike(seed, count):
    words = labels.fantasy(count, (), np.random.default_rng(seed))
    assert len(words) == len(set(words)) == count
    assert all(re.fullmatch(r"[^aeiou][aeiou][lmnrs][^aeiou][aeiou][^aeiou]", w) for w in words)
    assert not any(labels.alike(a, b) for a, b in combinations(words, 2))
    assert not labels.DICTIONARY & set(words)


@given(seeds)
@settings(max_examples=60, deadline=None)
def test_a_label_is_never_like_the_name_of_a_concept(seed):
    first = labels.fantasy(2, (), np.random.default_rng(seed))
    names = [first[0].upper(), first[1][:3] + "q" + first[1][4:], "Kit Fox"]
    again = labels.fantasy(2, names, np.random.default_rng(seed))
    assert not any(labels.alike(word, name.casefold()) for word in again for name in names)


@given(seeds)
def test_the_same_seed_gives_the_same_words(seed):
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    assert labels.fantasy(3, ("stone",), rngs[0]) == labels.fantasy(3, ("stone",), rngs[1])


def test_the_space_is_as_large_as_it_says():
    count = 1
    for letters in labels.LETTERS:
        assert len(set(letters)) == len(letters)
        count *= len(letters)
    assert count == 112_000


def test_alike_knows_containment_and_small_edits():
    assert labels.alike("stone", "airstone")
    assert labels.alike("dovrik", "dovrip")
    assert labels.alike("dovrik", "ovrika")
    assert not labels.alike("dovrik", "tulmab")


@given(st.text("abc", max_size=7), st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_the_edit_distance_is_a_metric(a, b, c):
    d = labels._edits
    assert d(a, b) == d(b, a)
    assert (d(a, b) == 0) == (a == b)
    assert d(a, c) <= d(a, b) + d(b, c)
    assert abs(len(a) - len(b)) <= d(a, b) <= max(len(a), len(b))


def test_concepts_named_by_letters_leave_words_to_draw():
    words = labels.fantasy(2, list("abcdefghijklmnopqrstuvwxyz"), np.random.default_rng(0))
    assert len(set(words)) == 2
