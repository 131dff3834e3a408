"""Decisions are what the last rows say, whatever was undone or torn off."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai import decisions, files
from isekai.decisions import Decision, History, Row
from isekai.errors import DataError

A, B, C = (files.sha256(name.encode()) for name in "abc")


def written(path: Path, *rows: Row) -> Path:
    with files.Journal(path) as journal:
        for row in rows:
            journal.append([row])
    return path


def test_no_file_is_no_decision(tmp_path):
    assert decisions.read(tmp_path / "review.jsonl") == {}


def test_the_last_decision_of_a_picture_counts(tmp_path):
    path = written(
        tmp_path / "review.jsonl",
        Row(image_id=A, verdict="keep"),
        Row(image_id=B, verdict="drop", note="two heads"),
        Row(image_id=A, verdict="concept", concept="fruit/quorrin"),
    )
    assert decisions.read(path) == {
        A: Decision(image_id=A, verdict="concept", concept="fruit/quorrin"),
        B: Decision(image_id=B, verdict="drop", note="two heads"),
    }


def test_what_is_undone_never_was(tmp_path):
    path = written(
        tmp_path / "review.jsonl",
        Row(image_id=A, verdict="keep"),
        Row(image_id=A, verdict="drop"),
        Row(image_id=B, verdict="drop"),
        Row(image_id=A, verdict="undo"),
        Row(image_id=B, verdict="undo"),
    )
    assert decisions.read(path) == {A: Decision(image_id=A, verdict="keep")}


def test_a_note_alone_decides_nothing_and_takes_an_older_decision_s_place(tmp_path):
    path = written(
        tmp_path / "review.jsonl",
        Row(image_id=A, verdict="note", note="ask again"),
        Row(image_id=B, verdict="keep"),
        Row(image_id=B, verdict="note", note="not sure any more"),
    )
    assert decisions.read(path) == {}
    assert [row.note for row in decisions.history(path)] == ["ask again", "not sure any more"]


def test_a_torn_last_line_is_dropped_and_cut_off_by_the_next_row(tmp_path):
    path = written(tmp_path / "review.jsonl", Row(image_id=A, verdict="keep"))
    with path.open("ab") as file:
        file.write(b'{"image_id":"' + B[:20].encode())
    assert set(decisions.read(path)) == {A}
    written(path, Row(image_id=C, verdict="drop"))
    assert set(decisions.read(path)) == {A, C}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"image_id": A, "verdict": "kep"}, "did you mean 'keep'"),
        ({"image_id": A, "verdict": "keep", "by": "me"}, "by is not a field"),
        ({"image_id": "../../etc", "verdict": "keep"}, "not a SHA-256"),
        ({"image_id": A, "verdict": "keep", "concept": "a/b"}, "'keep' names no concept"),
        ({"image_id": A, "verdict": "undo", "note": "x"}, "'undo' has no note"),
        ({"image_id": A, "verdict": "note", "note": "x" * 2001}, "at most 2000 characters"),
        ({"image_id": A, "verdict": "note", "note": "\x1b[2J"}, "no text"),
        ({"image_id": A, "verdict": "note", "note": "\ud800"}, "no text"),
        ({"image_id": A, "verdict": "undo"}, "nothing to undo"),
    ],
)
def test_a_row_that_is_none_is_named_with_its_line(tmp_path, line, told):
    path = written(tmp_path / "review.jsonl", Row(image_id=B, verdict="keep"))
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=r"review\.jsonl: line 2: .*" + told):
        decisions.read(path)


def test_the_digest_follows_what_is_decided_and_nothing_else():
    keep = Decision(image_id=A, verdict="keep")
    drop = Decision(image_id=B, verdict="drop")
    noted = Decision(image_id=B, verdict="drop", note="why")
    assert decisions.digest({}) == ""
    assert decisions.digest({A: keep, B: drop}) == decisions.digest({B: drop, A: keep})
    variants = ({A: keep}, {B: drop}, {A: keep, B: drop}, {B: noted})
    assert len({decisions.digest(given) for given in variants}) == len(variants)


SAID = st.sampled_from(["keep", "drop", "concept", "note"])
STEPS = st.lists(st.tuples(st.sampled_from([A, B, C]), SAID | st.just("undo")), max_size=30)


@given(STEPS)
def test_undoing_everything_leaves_nothing_and_each_undo_the_state_before(steps):
    past = History()
    states = [dict[str, Row]()]
    for image_id, verdict in steps:
        if verdict != "undo":
            past.add(Row(image_id=image_id, verdict=verdict))
            states.append({row.image_id: row for row in past})
        elif last := past.last():
            past.add(Row(image_id=last.image_id, verdict="undo"))
            states.pop()
        assert {row.image_id: row for row in past} == states[-1]
    while last := past.last():
        past.add(Row(image_id=last.image_id, verdict="undo"))
    assert list(past) == []


@given(STEPS)
def test_a_picture_is_decided_by_its_own_rows_alone(steps):
    def told(rows):
        past = History()
        for image_id, verdict in rows:
            if verdict != "undo" or past.of(image_id):
                past.add(Row(image_id=image_id, verdict=verdict))
        return past

    together = told(steps)
    for one in (A, B, C):
        alone = told([step for step in steps if step[0] == one])
        assert together.of(one) == alone.of(one)
