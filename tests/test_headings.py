"""Controls are named in words, and strangers' names are made harmless without losing a letter."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai import selection, variants
from isekai.reports import headings


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ("blind", "support pictures grey"),
        ("false=0.25", "25 % of the labels in the support set false"),
        ("false=0.5", "half of the labels in the support set false"),
        ("order=3", "the same support set in 3 orders"),
        ("words=true+blind", "the true names; support pictures grey"),
        ("another=1", ""),
        ("another+blind", "support pictures grey"),
        ("false=much", ""),
    ],
)
def test_a_control_is_told_in_words(control, words):
    assert headings.meaning(control) == words


def test_every_built_in_control_and_selection_has_a_meaning():
    known = variants.all_controls("fantasy", (0.25, 0.5, 1.0), 3)
    known += variants.all_controls("true", (0.5,), 3)
    known += [variants.SELECT + name for name in selection.names()]
    assert all(headings.meaning(name) for name in known)
    assert list(headings.legend(known)) == list(dict.fromkeys(known))


def test_plain_and_unknown_controls_need_no_legend():
    assert headings.legend(["none", "strange", "blind"]) == {"blind": "support pictures grey"}


@pytest.mark.parametrize(
    ("control", "turned"),
    [
        ("false=0.5", ("none", 0.5)),
        ("words=true+false=1", ("words=true", 1.0)),
        ("false=2", None),
        ("false=", None),
        ("blind", None),
        ("false=0.5+blind", None),
    ],
)
def test_the_rate_of_false_labels_is_read_from_a_name(control, turned):
    assert headings.false_rate(control) == turned


@given(st.text())
def test_a_line_holds_nothing_unseen_and_is_one_line(text):
    line = headings.line(text)
    assert len(line.splitlines()) <= 1
    assert not [c for c in line if unicodedata.category(c)[0] == "C"]
    assert headings.line(line) == line


@given(st.text(max_size=60), st.integers(1, 20))
def test_broken_lines_fit_and_lose_no_letter(text, width):
    lines = headings.broken(text, width)
    assert all(0 < len(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(headings.line(text).split())


def test_names_are_broken_where_they_may_be():
    assert headings.broken("openai:org/some-long-name", 12) == ["openai:org/", "some-long-", "name"]
    assert headings.broken("words=true+swap", 12) == ["words=true", "+swap"]
    assert headings.broken("words=true+swap", 15) == ["words=true+swap"]


def test_what_is_unseen_is_spelt_out_and_what_is_seen_stays():
    assert headings.visible("a\x00b\u202ec\n\td") == "a⟨U+0000⟩b⟨U+202E⟩c\n\td"
    assert headings.visible("zero\u200bwidth") == "zero⟨U+200B⟩width"
    assert headings.visible("half \ud800") == "half ⟨U+D800⟩"
    for whole in ("naïve — «你好» مرحبا", "👩‍🚀", "می‌خواهم"):
        assert headings.visible(whole) == whole
