"""Tables say what the results say, and what they rest on."""

import io
import re

import pytest
from rich.console import Console

from isekai import metrics, report
from isekai.types import Outcome, Result


def result(model="knn", task="twin", shots=1, way=2, **counts: int) -> Result:
    """Four clusters; the outcomes are dealt out to them in turn."""
    names: list[Outcome] = ["correct", "wrong", "abstain", "failed"]
    dealt = [name for name in names for _ in range(counts.get(name, 0))]
    rows = [(str(place % 4), name) for place, name in enumerate(dealt)]
    found = {"accuracy": metrics.accuracy(rows), "abstain": metrics.abstain_share(rows)}
    return Result(
        model=model,
        task=task,
        shots_per_class=shots,
        n_support_images=way * shots,
        metrics={name: value for name, value in found.items() if value},
        outcomes=metrics.tally(rows),
        chance=1 / way,
    )


@pytest.mark.parametrize(
    ("counts", "cell"),
    [
        ({"correct": 83, "wrong": 17}, r"\.83 \[\.8\d, \.8\d\]"),
        ({"correct": 100}, r"1\.00 \[\.51, 1\.00\]"),
        ({"wrong": 100}, r"\.00 \[\.00, \.49\]"),
        ({"correct": 60, "wrong": 39, "abstain": 1}, r"\.60 \[\.\d\d, \.\d\d\] 1 % abstain"),
        ({"correct": 999, "abstain": 1}, r"1\.00 \[.*\] 1 % abstain"),
        ({"correct": 1, "abstain": 999}, r"\.00 \[.*\] 99 % abstain"),
        ({"abstain": 8}, "abstains"),
        ({"correct": 50, "wrong": 25, "failed": 25}, r"\.67 \[.*\] 25 % failed"),
        ({"abstain": 4, "failed": 4}, "abstains 50 % failed"),
        ({"failed": 7}, "100 % failed"),
    ],
)
def test_a_cell_says_all_that_happened(counts, cell):
    assert re.fullmatch(cell, " ".join(report.cell(result(**counts))))


RESULTS = [
    result(shots=0, abstain=40),
    result(shots=1, correct=26, wrong=14),
    result(shots=2, correct=31, wrong=9),
    result(model="a|b", shots=1, correct=20, wrong=20),
    result(model="a|b", shots=2, correct=20, wrong=18, failed=2),
    result(task="three", way=3, shots=1, correct=20, wrong=19),
]


def test_markdown_has_a_row_for_each_task_and_model_and_states_chance_n_and_clusters():
    lines = report.markdown(RESULTS).splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    header, rule, knn, other, three = [[cell.strip() for cell in row] for row in rows]
    assert header == ["task", "model", "0 (0)", "1 (2–3)", "2 (4)", "n (clusters)"]
    assert set("".join(rule)) == {"-", ":"}
    assert knn[:3] == ["twin", "knn", "abstains"]
    assert knn[3].startswith(".65 [")
    assert knn[-1] == "40 (4)"
    assert other[:3] == ["twin", r"a\|b", ""]
    assert other[-1] == "38–40 (4)"
    assert three[0] == "three"
    text = "\n".join(lines)
    assert "Chance is .50 on twin, .33 on three." in text
    assert "An abstention is not a correct answer" in text
    assert "Failed queries count neither for nor against" in text


def test_what_did_not_happen_is_not_explained():
    text = report.markdown([result(shots=1, correct=3, wrong=1)])
    assert "abstention" not in text
    assert "Failed" not in text
    assert "Chance is .50." in text


def test_the_terminal_shows_the_same_cells_within_80_columns():
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(report.table(RESULTS))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for one in RESULTS:
        assert all(words in shown for words in report.cell(one))
    assert "n (clusters) 38–40 (4), chance .50" in shown
    assert "n (clusters) 39 (4), chance .33" in shown
