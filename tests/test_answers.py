"""Answers are read strictly: cases by kind in data/answers.jsonl, and laws that hold for all texts.

A case has a `text`, the `answer` to be read (null: it abstains) and `labels`, if they are not blip
and zorp.
"""

import json
import re
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isekai.scoring import read_answer

LABELS = ("blip", "zorp")
CASES = [
    json.loads(line)
    for line in (Path(__file__).parent / "data" / "answers.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
KINDS = sorted({case["kind"] for case in CASES})


def misread(cases, change=lambda text: text):
    """The cases of which another answer is read once their text is changed."""
    return [
        (change(case["text"]), case["answer"], answer)
        for case in cases
        if (answer := read_answer(change(case["text"]), labels(case))) != case["answer"]
    ]


def labels(case):
    return tuple(case.get("labels", LABELS))


# ---------------------------------------------------------------- cases


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_what_the_text_asserts_of_one_label(kind):
    assert misread([case for case in CASES if case["kind"] == kind]) == []


def test_there_are_cases_of_all_kinds_that_answer_and_that_abstain():
    assert len(CASES) > 1_600
    for kind in KINDS:
        answers = {case["answer"] is None for case in CASES if case["kind"] == kind}
        assert answers == {True, False}, kind


def test_no_case_depends_on_the_order_of_labels():
    for case in CASES:
        assert read_answer(case["text"], labels(case)[::-1]) == case["answer"], case


ASCII = [case for case in CASES if case["text"].isascii() and labels(case) == LABELS]


def renamed(text, names):
    """The text with other words for blip and zorp, capital where those are."""

    def name(found):
        word = names[found[0].lower()]
        return word.upper() if found[0].isupper() else word.title() if found[0][0] < "a" else word

    return re.sub("blip|zorp", name, text, flags=re.I)


@pytest.mark.parametrize("names", [("zorp", "blip"), ("gansek", "pirvox"), ("kit fox", "x9")])
def test_an_answer_is_renamed_as_its_label_is(names):
    new = dict(zip(LABELS, names, strict=True))
    for case in ASCII:
        text = renamed(case["text"], new)
        if text == case["text"]:
            continue  # its labels are spelled in another way
        if "kit fox" in names and re.search(r"[_-](blip|zorp)|(blip|zorp)[_-]", case["text"]):
            continue  # a hyphen may join the two words of a label
        assert read_answer(text, names) == new.get(case["answer"]), text


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: unicodedata.normalize("NFKC", text),
        lambda text: f" \n  {text}  \n\n",
        lambda text: text.replace(" ", "  \t"),
        lambda text: text.replace("\n", "\r\n"),
    ],
    ids=["capitals", "NFD", "NFKC", "blanks around", "blanks within", "ends of lines"],
)
def test_no_case_depends_on_case_normal_form_or_blanks(change):
    assert misread([case for case in CASES if "ı" not in case["text"]], change) == []


def test_reasoning_in_front_changes_no_case():
    def thought(text):
        return f"<think>Is it <b>blip</b>? Answer: zorp\n</think>\n{text}"

    assert misread([case for case in CASES if case["text"][:8] != "analysis"], thought) == []


def test_emphasis_changes_no_sentence():
    plain = [c for c in ASCII if re.fullmatch(r"[\w ,.;:?!'-]+", c["text"]) and c["text"][0] != "-"]
    assert len(plain) > 500
    for mark in ("**", "*", "`", "$"):
        assert misread(plain, lambda text, mark=mark: mark + text + mark) == []


# ---------------------------------------------------------------- laws


words = st.text("abcdefgh", min_size=3, max_size=6)
two_labels = st.lists(words, min_size=2, max_size=4, unique=True)
snippets = st.sampled_from(
    [
        *(
            "blip",
            "zorp",
            "blip",
            "zorp",
            " ",
            "\n",
            ". ",
            ", ",
            ": ",
            "? ",
            " not ",
            " or ",
            "no ",
        ),
        *(
            " and ",
            " but ",
            "it is ",
            "this is a ",
            "the first image is ",
            "if ",
            "so ",
            "answer: ",
        ),
        *("<think>", "</think>", "<answer>", "</answer>", '{"answer": "', '"}', "\\boxed{", "}"),
        *("**", "~~", "- ", "wait, ", "yes", "the last one ", "than ", "less ", "\nuser: ", "</s>"),
    ]
)
texts = st.lists(snippets, max_size=14).map("".join)


@given(two_labels, st.sampled_from(["{}", "This is called {}.", "**{}**", "a {}\n", '["{}"]']))
def test_every_label_is_read_back_from_a_plain_sentence(labels, sentence):
    for label in labels:
        assert read_answer(sentence.format(label.upper()), labels) == label


@given(st.one_of(texts, st.text(max_size=60)), st.permutations(["blip", "zorp", "a", "not"]))
def test_any_text_gives_one_of_the_labels_or_none_in_any_order_of_labels(text, order):
    answer = read_answer(text, order)
    assert answer is None or answer in order
    assert read_answer(text, sorted(order)) == answer


@given(texts)
def test_no_text_prefers_one_label_to_another(text):
    other = renamed(text, {"blip": "zorp", "zorp": "blip"})
    swapped = {"blip": "zorp", "zorp": "blip", None: None}
    assert read_answer(other, LABELS) == swapped[read_answer(text, LABELS)]


@given(texts)
def test_a_closed_block_of_reasoning_may_stand_before_any_text(text):
    assert read_answer(f"<think>a blip</think>{text}", LABELS) == read_answer(text, LABELS)


@given(st.text(alphabet="ab <>[]{}/:\n*\"'?!.thinkanswer", max_size=80), two_labels)
@example("<think>", ["abc", "def"])
def test_a_text_without_any_label_is_an_abstention(text, labels):
    if not any(label in text.casefold() for label in labels):
        assert read_answer(text, labels) is None


def test_no_labels_no_answer():
    assert read_answer("blip", ()) is None


@pytest.mark.parametrize("labels", [("Cat", "cat"), ("ice cream", "ice-cream"), ("", "a"), ("*",)])
def test_labels_that_no_reader_could_tell_apart_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be words"):
        read_answer("cat", labels)


# ---------------------------------------------------------------- time


HOSTILE = [
    *("<think>", "</think>", "[", "{", '{"a":', '{"a": "', "[{", "\n", "\n#", "~~", "(", ", ", " "),
    *(
        "\\boxed{",
        "\\boxed{{a}",
        "<del>",
        "<!--",
        "<answer",
        "![](",
        "](",
        "&#",
        "http://",
        "\x1b[",
    ),
    *(
        "blip not ",
        "blip, ",
        "blip or ",
        "blip\n",
        "blip: no\n",
        "less blip than ",
        "blip-",
        "blip+",
    ),
    *("it ", "no a ", "than ", "the first image ", "answer ", "answer: \n", "my my ", "no aa bb "),
    *(", the aa bb ", "not anything but ", "the x of the ", "what is this?\n", "wait ", ". ", "- "),
    *("\u0301", "\u200b", "猫", "0.", "1. ", "…", "bli"),
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_of_fifty_thousand_letters_is_read_in_good_time(piece):
    begin = time.process_time()
    for head, tail in (("a", ""), ("blip ", ' "'), ("x\n", "x")):
        read_answer(head + piece * (50_000 // len(piece)) + tail, LABELS)
    assert time.process_time() - begin < 3  # a tenth of it on an idle core
