"""Answers are read strictly: each case is a way in which some harness counted wrongly."""

import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isekai.scoring import read_answer

TWO = ("dovrik", "tulmab")


@pytest.mark.parametrize(
    ("text", "labels", "answer"),
    [
        # the pitfalls seen in public harnesses
        ("airstone", ("stone", "airstone"), "airstone"),
        ("stone", ("stone", "airstone"), "stone"),
        ("This is an airstone.", ("stone", "icemic"), None),
        ("a wildcat", ("cat", "dog"), None),
        ("wild-cat", ("cat", "dog"), None),
        ("a kit fox", ("fox", "kit fox"), "kit fox"),
        ("concatenate", ("cat", "dog"), None),
        ("Dovrik", TWO, "dovrik"),
        ("DOVRIK!", TWO, "dovrik"),
        ("It is not an icemic.", ("icemic", "ice cream"), None),
        ("I can't tell a dovrik from a tulmab here.", TWO, None),
        ("Sorry: it could be a dovrik or a tulmab.", TWO, None),
        ("Error 429: no reply for label dovrik", ("dovrik error", "tulmab"), None),
        ("<think>tulmab looks right</think>dovrik", TWO, "dovrik"),
        ("<think>surely tulmab", TWO, None),
        ("dovrik <think>or tulmab?", TWO, "dovrik"),
        (unicodedata.normalize("NFD", "cafétel"), ("cafétel", "tulmab"), "cafétel"),
        ("cafétel", (unicodedata.normalize("NFD", "cafétel"), "tulmab"), "cafe\u0301tel"),
        ("ｄｏｖｒｉｋ", TWO, "dovrik"),
        ("dovrik [END EXAMPLE] [BEGIN EXAMPLE] What is in the image? tulmab", TWO, "dovrik"),
        ("[BEGIN EXAMPLE] there is dovrik in the image", TWO, None),
        ("", TWO, None),
        ("I have no idea.", TWO, None),
        # reasoning
        ("<think>a <think>dovrik</think> b tulmab</think> dovrik", TWO, "dovrik"),
        ("<think>a <think>dovrik</think> tulmab", TWO, None),
        ("it could be tulmab</think>\n\ndovrik", TWO, "dovrik"),
        ("<THINKING level=2>tulmab</THINKING> dovrik", TWO, "dovrik"),
        ("[THINK]tulmab[/THINK]dovrik", TWO, "dovrik"),
        ("◁think▷tulmab◁/think▷dovrik", TWO, "dovrik"),
        ("<|begin_of_thought|>tulmab<|end_of_thought|>dovrik", TWO, "dovrik"),
        (
            "<|channel|>analysis<|message|>tulmab<|end|><|start|>assistant"
            "<|channel|>final<|message|>dovrik<|return|>",
            TWO,
            "dovrik",
        ),
        ("<|channel|>analysis<|message|>dovrik", TWO, None),
        # running on
        ("dovrik\nQuestion: What is this called?\nAnswer: tulmab", TWO, "dovrik"),
        ("dovrik\n\n### User: and this?\ntulmab", TWO, "dovrik"),
        ("dovrik<|im_end|>\n<|im_start|>tulmab", TWO, "dovrik"),
        ("dovrik</s> tulmab", TWO, "dovrik"),
        ("dovrik<|endofchunk|><image>tulmab", TWO, "dovrik"),
        ("Image 1: dovrik\nImage 2: tulmab\nImage 3: dovrik", TWO, None),
        # JSON
        ('{"answer": "dovrik"}', TWO, "dovrik"),
        ('```json\n{"reasoning": "tulmab is round", "answer": "Dovrik"}\n```', TWO, "dovrik"),
        ('Here it is: {"label": "dovrik", "other": "tulmab"} done', TWO, "dovrik"),
        ('{"Final Answer": {"label": ["dovrik"]}}', TWO, "dovrik"),
        ('{"answer": ["dovrik", "tulmab"]}', TWO, None),
        ('{"answer": null, "seen": "dovrik"}', TWO, None),
        ('{"dovrik": false, "tulmab": "maybe"}', TWO, None),
        ('{"dovrik": 0.9, "tulmab": 0.1}', TWO, None),
        ('{"answer": "dov', TWO, None),
        ('{"answer": "dovrik", "because', TWO, "dovrik"),
        ('{"answer": "dovrik"} {"answer": "tulmab"}', TWO, None),
        ('{"answer": "not dovrik"}', TWO, None),
        ('"dovrik"', TWO, "dovrik"),
        ('{"answer": "\\u0064ovrik"}', TWO, "dovrik"),
        # marks
        ("**dovrik**", TWO, "dovrik"),
        ("_dovrik_", TWO, "dovrik"),
        ("`dovrik`.", TWO, "dovrik"),
        ("# dovrik", TWO, "dovrik"),
        ("1. dovrik", TWO, "dovrik"),
        ("> *dovrik*", TWO, "dovrik"),
        ("~~tulmab~~ dovrik", TWO, "dovrik"),
        ("[dovrik](https://example.org/tulmab)", TWO, "dovrik"),
        ("The first is tulmab.\n**Final answer:** dovrik", TWO, "dovrik"),
        ("Answer:\ndovrik\nThe others are tulmab.", TWO, "dovrik"),
        ("Answer: dovrik\nAnswer: tulmab", TWO, None),
        ("Answer: not dovrik", TWO, None),
        ("tulmab is spiky. <answer>dovrik</answer>", TWO, "dovrik"),
        (r"Since tulmab is round: \boxed{\text{dovrik}}", TWO, "dovrik"),
        # spelling
        ("an ice-cream", ("ice cream", "icemic"), "ice cream"),
        ("ice_cream", ("Ice Cream", "icemic"), "Ice Cream"),
        ("dov\u00adrik", TWO, "dovrik"),
        ("“dovrik”", TWO, "dovrik"),
        ("a dovrik's face", TWO, "dovrik"),
        ("three dovriks", TWO, None),
        ("non-dovrik", TWO, None),
        ("dovrik-like", TWO, None),
        ("dovrik2", TWO, None),
        ("a forget-me-not", ("forget-me-not", "St. John’s wort"), "forget-me-not"),
        ("It's St. John's Wort.", ("forget-me-not", "St. John’s wort"), "St. John’s wort"),
        # denial
        ("It is a dovrik, not a tulmab.", TWO, "dovrik"),
        ("It is not a dovrik but a tulmab.", TWO, "tulmab"),
        ("Not a dovrik, a tulmab.", TWO, "tulmab"),
        ("neither dovrik nor tulmab", TWO, None),
        ("not dovrik or tulmab", TWO, None),
        ("not a small, round dovrik", TWO, None),
        ("This isn't a dovrik.", TWO, None),
        ("This isn’t a dovrik.", TWO, None),
        ("I don't think it is a dovrik.", TWO, None),
        ("It is not a normal cactus, it's a dovrik.", TWO, "dovrik"),
        ("I am not sure, but it looks like a dovrik.", TWO, "dovrik"),
        ("No, this is a dovrik.", TWO, "dovrik"),
        ("There is no dovrik.", TWO, None),
        ("No doubt a dovrik.", TWO, "dovrik"),
        ("a dovrik rather than a tulmab", TWO, "dovrik"),
        ("more like dovrik than tulmab", TWO, "dovrik"),
        ("Instead of a tulmab, it shows a dovrik.", TWO, "dovrik"),
        ("Unlike the tulmab, this is a dovrik.", TWO, "dovrik"),
        ("dovrik is wrong", TWO, None),
        ("The dovrik is not in this image.", TWO, None),
        ("dovrik: no", TWO, None),
        ("Is it a dovrik? No, a tulmab.", TWO, "tulmab"),
        ("Is it a dovrik or a tulmab? A dovrik.", TWO, "dovrik"),
        ("dovrik?", TWO, None),
        ("Certainly not:\n- dovrik", TWO, None),
        ("it is not\na dovrik", TWO, None),
        ("What is this called?\ndovrik", TWO, "dovrik"),
        ("dovrik dovrik dovrik", TWO, "dovrik"),
    ],
)
def test_an_answer_is_what_the_text_asserts_of_one_label(text, labels, answer):
    assert read_answer(text, labels) == answer
    assert read_answer(text, labels[::-1]) == answer


words = st.text("abcdefgh", min_size=3, max_size=6)
two_labels = st.lists(words, min_size=2, max_size=4, unique=True)


@given(two_labels, st.sampled_from(["{}", "This is called {}.", "**{}**", "a {}\n", '["{}"]']))
def test_every_label_is_read_back_from_a_plain_sentence(labels, sentence):
    for label in labels:
        if not any(word in labels for word in ("called", "this", "is", "a")):
            assert read_answer(sentence.format(label.upper()), labels) == label


@given(st.text(max_size=60), two_labels)
def test_any_text_gives_one_of_the_labels_or_none_in_any_order_of_labels(text, labels):
    answer = read_answer(text, labels)
    assert answer is None or answer in labels
    assert read_answer(text, labels[::-1]) == answer


@given(st.text(alphabet="ab <>[]{}/:\n*\"'?!.thinkanswer", max_size=80), two_labels)
@example("<think>", ["abc", "def"])
def test_a_text_without_any_label_is_an_abstention(text, labels):
    if not any(label in text.casefold() for label in labels):
        assert read_answer(text, labels) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("isnt a blip", None),
        ("I would rule blip out", None),
        ("Blip would be wrong", None),
        ("blip, which it isn't", None),
        ("It's the opposite of blip", None),
        ("nope, blip no", None),
        ("I'm unable to determine if it is a blip", None),
        ("It's impossible to say whether blip", None),
        ("Error: blip not found", None),
        ("No image was provided. For example, blip", None),
        ("If it had spikes it would be a zorp", None),
        ("Is this a blip or a zorp? Yes.", None),
        ("Is this a blip? No.", None),
        ("improbable that this is a zorp", None),
        ("Blip? No. Zorp? Yes.", "zorp"),
        ("Is this a zorp? Yes.", "zorp"),
        ("I'm not sure, I'd say zorp", "zorp"),
        ("none other than a zorp", "zorp"),
        ("improbable that this is a blip; zorp", "zorp"),
        ("{'answer': 'zorp', 'reason': 'blip'}", "zorp"),
        ("If I had to guess, zorp", "zorp"),
    ],
)
def test_denials_refusals_and_questions_say_no_label_and_plain_words_do(text, answer):
    assert read_answer(text, ("blip", "zorp")) == answer


def test_a_line_of_blanks_is_read_in_good_time():
    begin = time.perf_counter()
    read_answer("x\n" + " " * 50_000 + "x", TWO)
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize(
    "piece", ["<think>", "[", "{", '{"a":', "\n", "\n#", "~~", "dovrik not ", "(", "\\boxed{", ", "]
)
def test_a_hostile_text_is_read_in_good_time(piece):
    begin = time.perf_counter()
    read_answer("a" + piece * 5_000, TWO)
    assert time.perf_counter() - begin < 2


@pytest.mark.parametrize("labels", [("Cat", "cat"), ("ice cream", "ice-cream"), ("", "a"), ("*",)])
def test_labels_that_no_reader_could_tell_apart_are_refused(labels):
    with pytest.raises(ValueError, match="labels must be words"):
        read_answer("cat", labels)
