"""The released metric, quirks and all: recorded results, and laws derived from its description."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.scoring import accuracy_lcl

CASES = json.loads(
    (Path(__file__).parent / "data" / "golden" / "metrics_cases.json").read_text(encoding="utf-8")
)


def told(case, *, pairs):
    """What the metric says of a recorded case, in the words of the recording."""
    labels = (case["positive"], case["negative"])
    try:
        right = accuracy_lcl(case["pred"], case["target"], labels, pairs=pairs)
    except ValueError as error:
        return re.search(r"raises \w+Error", str(error))[0]
    return float(right)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['label']} {case['pred']}"[:40])
def test_what_the_released_code_said_is_said_again_in_both_variants(case):
    pair = (case["positive"], case["negative"])
    assert told(case, pairs=None) == case["isekai_accuracy"]
    assert told(case, pairs=[pair]) == case["test100_accuracy"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['label']} {case['pred']}"[:40])
def test_the_bare_name_of_the_target_says_the_same_as_the_decoded_reference(case):
    pair = (case["positive"], case["negative"])
    assert told({**case, "target": case["label"]}, pairs=None) == case["isekai_accuracy"]
    assert told({**case, "target": case["label"]}, pairs=[pair]) == case["test100_accuracy"]


def test_the_recorded_cases_hold_every_kind_of_result():
    assert len(CASES) == 24
    assert {case["isekai_accuracy"] for case in CASES} == {1.0, 0.0, "raises UnboundLocalError"}
    assert {case["test100_accuracy"] for case in CASES} == {1.0, 0.0, "raises KeyError"}


def derived(text, name, positive, negative):
    """The description, taken literally, for names without the phrases that are deleted.

    Instead of deleting the target, look for the other name in each piece of the text between two
    targets and across the places where they stood: the pieces put together again.
    """
    wanted = name.strip(" .'\"").lower()
    assert not set(wanted) & set(".'\""), "only marks at the ends in this derivation"
    other = None
    for candidate in (positive.lower(), negative.lower()):
        other = other if candidate == wanted else candidate
    if other is None:
        return "raises"
    pieces, rest = [], text
    while (at := rest.find(wanted)) >= 0:
        pieces.append(rest[:at])
        rest = rest[at + len(wanted) :]
    return bool(pieces) and other not in "".join([*pieces, rest])


names = st.from_regex(r"\A[.']?[abA]{1,3}( [ab])?[.']?\Z")


@given(st.text("abA. '", max_size=14), names, names)
def test_it_follows_the_description_over_small_alphabets(text, positive, negative):
    for name in (positive, negative):
        expected = derived(text, name, positive, negative)
        if expected == "raises":
            with pytest.raises(ValueError, match="UnboundLocalError"):
                accuracy_lcl(text, name, (positive, negative))
        else:
            assert accuracy_lcl(text, name, (positive, negative)) is expected


phrases = st.lists(
    st.sampled_from(["a", "B", " ", ".", "'", '"', "there is", "in the image", "The answer is"])
)


@given(st.text("ab", max_size=6), phrases.map("".join), names)
def test_a_name_may_come_alone_or_in_the_decoded_reference(text, name, other):
    reference = f'USER: what? ASSISTANT: there is "{name}" in the image.</s> ASSISTANT</s>'
    labels = (name, other + "c")
    assert accuracy_lcl(text, reference, labels) is accuracy_lcl(text, name, labels)


@given(st.text("abc ", max_size=12), st.lists(st.text("abc", min_size=1), min_size=2, max_size=6))
def test_both_variants_agree_on_plain_names_of_which_none_comes_twice(text, words):
    words = list(dict.fromkeys(words))
    pairs = list(zip(words[::2], words[1::2], strict=False))
    for pair in pairs:
        for name in pair:
            said = accuracy_lcl(text, name, pair)
            assert accuracy_lcl(text, name, pair, pairs=pairs) is said


def test_a_name_that_comes_twice_has_the_partner_that_was_listed_last():
    pairs = [("crane", "heron"), ("winch", "Crane")]
    assert accuracy_lcl("crane heron", "crane", pairs[0], pairs=pairs) is True
    assert accuracy_lcl("crane winch", "crane", pairs[0], pairs=pairs) is False


def test_the_order_of_the_labels_tells_where_the_target_lost_a_mark():
    assert accuracy_lcl("st bernard, no beagle", "St. Bernard", ("St. Bernard", "beagle")) is False
    assert accuracy_lcl("st bernard, no beagle", "St. Bernard", ("beagle", "St. Bernard")) is True


@pytest.mark.parametrize("labels", [("cat",), ("cat", "dog", "bird"), ()])
def test_it_is_not_defined_for_other_than_two_labels(labels):
    assert accuracy_lcl("cat", "cat", labels) is None
