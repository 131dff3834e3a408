"""Tables say what the results say, and what they rest on."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from isekai.errors import DataError
from isekai.reports import headings, tables
from isekai.statistics import metrics
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
    assert re.fullmatch(cell, " ".join(tables.cell(result(**counts))))


RESULTS = [
    result(shots=0, abstain=40),
    result(shots=1, correct=26, wrong=14),
    result(shots=2, correct=31, wrong=9),
    result(model="a|b", shots=1, correct=20, wrong=20),
    result(model="a|b", shots=2, correct=20, wrong=18, failed=2),
    result(task="three", way=3, shots=1, correct=20, wrong=19),
]


def test_markdown_has_a_row_for_each_task_and_model_and_states_chance_n_and_clusters():
    lines = tables.markdown(RESULTS).splitlines()
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
    text = tables.markdown([result(shots=1, correct=3, wrong=1)])
    assert "abstention" not in text
    assert "Failed" not in text
    assert "Chance is .50." in text


def test_the_terminal_shows_the_same_cells_within_80_columns():
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(tables.table(RESULTS))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    for one in RESULTS:
        assert all(words in shown for words in tables.cell(one))
    assert "n (clusters) 38–40 (4), chance .50" in shown
    assert "n (clusters) 39 (4), chance .33" in shown


# ---------------------------------------------------------------- controls


def control(name: str, base: Result | None = None, **changes) -> Result:
    return replace(base or result(correct=20, wrong=20), control=name, **changes)


FLIPS = metrics.share([("0", True), *[("1", False)] * 3])

CONTROLLED = [
    result(shots=1, correct=31, wrong=9),
    result(shots=2, correct=35, wrong=5),
    control("blind", result(shots=1, correct=20, wrong=20)),
    control("blind", result(shots=2, correct=21, wrong=19)),
    control("words=true+swap", result(shots=1, correct=5, wrong=35)),
    control("zero", result(shots=0, correct=19, wrong=21)),
    result(model="[b]other", shots=1, correct=20, wrong=20),
    control("blind", result(model="[b]other", shots=1, correct=20, wrong=20)),
]
VERDICTS = {
    "twin": {
        "knn": {"verdict": "binds", "words": "binds: .78 [.7, .9] plain; chance .50", "tests": []},
        "[b]other": {"verdict": "guesses", "words": "guesses: .50 plain", "tests": []},
    }
}


def test_controls_stand_below_the_plain_row_of_their_model_and_are_explained_once():
    lines = tables.markdown(CONTROLLED, VERDICTS).splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells[0][:4] == ["task", "model", "control", "0 (0)"]
    assert [row[:3] for row in cells[2:]] == [
        ["twin", "knn", "plain"],
        ["", "", "`blind`"],
        ["", "", "`words=true+swap`"],
        ["", "", "`zero`"],
        ["twin", r"\[b\]other", "plain"],
        ["", "", "`blind`"],
    ]
    assert cells[2][3] == ""
    assert cells[5][3].startswith(".47 [")
    assert cells[5][4:] == ["", "", "40 (4)"]
    text = "\n".join(lines)
    assert text.count("- `blind`: support pictures grey") == 1
    assert "- `words=true+swap`: the true names; labels swapped" in text
    assert r"- **knn** (twin) binds: .78 \[.7, .9\] plain; chance .50" in text


def test_a_control_without_plain_episodes_still_says_whose_it_is():
    results = [control("blind", result(model="m", correct=1))]
    plain, blind = tables.rows(results)
    assert (plain.heading, plain.results, blind.heading) == ("m", {}, "blind")
    assert "| twin | m | plain |" in tables.markdown(
        [control("blind", result(model="m", correct=1))]
    )


def test_orders_show_their_spread_and_what_flips():
    shown = control("order=3", result(correct=30, wrong=10), spread=0.0312)
    shown = replace(shown, metrics={**shown.metrics, "flips": FLIPS})
    assert tables.cell(shown)[2:] == ("sd .03", "25 % flip")
    none = metrics.share([("0", False), ("1", False)])
    shown = replace(shown, metrics={**shown.metrics, "flips": none})
    assert tables.cell(shown)[3] == "0 % flip"
    assert "sd is the standard deviation" in tables.markdown([shown])


def test_the_released_metric_has_a_row_of_its_own_under_its_own_name():
    strict = result(shots=1, correct=20, wrong=20)
    released = metrics.share([("0", True), ("1", True), ("2", False)])
    both = replace(strict, metrics={**strict.metrics, "accuracy_lcl": released})
    accuracy, lcl = tables.rows([both])
    assert accuracy.cell(1)[0] == ".50"
    assert lcl.cell(1)[0] == ".67"
    assert lcl.heading == tables.RELEASED
    assert lcl.behind == "3 (3)"
    text = tables.markdown([both])
    assert f"| {tables.RELEASED} |" in text
    assert "arXiv:2308.07891" in text


def shown(results, verdicts=None, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(tables.table(results, verdicts))
    return console.file.getvalue()


def test_the_terminal_has_controls_and_verdicts_and_no_markup_of_strangers():
    text = shown(CONTROLLED, VERDICTS)
    assert max(map(len, text.splitlines())) <= 80
    lines = [line.rstrip() for line in text.splitlines()]
    names = [re.match(r" {0,2}(\S*)", line)[1] for line in lines]
    assert names.index("knn") < names.index("blind") < names.index("words=true+swap")
    assert "[b]other" in text
    assert "  .78 [.7, .9] plain; chance .50" in lines
    assert "knn (twin) binds" in lines
    assert any(re.fullmatch(r"blind +support pictures grey", line) for line in lines)


@pytest.mark.parametrize("count", [1, 5, 9, 17])
def test_many_shot_counts_and_long_names_stay_within_80_columns_and_lose_nothing(count):
    long = "openai:org/some-long-model-name-of-2026"
    results = [
        control(name, result(model=long, shots=k, correct=20, wrong=10, abstain=10, failed=4))
        for name in ("none", "words=true+blind", "select=prototype")
        for k in range(count)
    ]
    text = shown(results)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for k in range(count):
        assert f"{k} ({2 * k})" in text
    assert text.count(tables.cell(results[0])[1]) == len(results)
    for piece in headings.broken(long, 15 if count > 1 else 60):
        assert any(line.startswith(piece) for line in text.splitlines())


def test_an_escape_sequence_in_a_name_does_not_reach_the_terminal():
    text = shown(
        [result(model="a\x1b[31mb\u202e", correct=1)], {"twin": {"\x1bm": {"words": "\x1b"}}}
    )
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_kind_of_intervals_is_told():
    one = result(correct=3, wrong=1)
    assert "Intervals are t intervals over clusters" in tables.markdown([one])
    other = replace(one, shots_per_class=2, intervals="bootstrap")
    assert "Intervals are bootstrap-t intervals over clusters" in tables.markdown([other])
    assert "Intervals are bootstrap-t or t intervals" in tables.markdown([one, other])


def test_verdicts_are_read_from_results_json_or_are_none():
    assert tables.verdicts_of({"verdicts": VERDICTS}) == VERDICTS
    assert tables.verdicts_of({}) == {}
    with pytest.raises(DataError, match="verdicts"):
        tables.verdicts_of({"verdicts": {"twin": 3}})
