"""LaTeX and CSV hold the same cells, and nothing that a stranger's name could make them do."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.reports import tables, typeset
from isekai.statistics import metrics
from tests.test_report import CONTROLLED, FLIPS, RESULTS, VERDICTS, control, result

HOSTILE = r"[x] \input{/etc/passwd} $a_b^c$ & % # ~ {<|>} --- `\"'"


def test_latex_has_a_block_for_each_task_and_indents_controls():
    text = typeset.latex(CONTROLLED + RESULTS[-1:], VERDICTS)
    assert text.count(r"\midrule") == 2
    assert r"\multicolumn{5}{l}{\textbf{twin}, chance .50} \\" in text
    assert r"\textbf{three}, chance .33" in text
    assert re.search(r"\n    knn &  & \\begin\{tabular\}\[t\]\{@\{\}r@\{\}\}\.78\\\\", text)
    assert r"\quad blind & " in text
    assert r"\quad words=true+swap & " in text
    assert "blind: support pictures grey" in text
    assert "knn (twin) binds: .78 [.7, .9] plain" in text
    rows = [
        line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
    ]
    assert {re.sub(r"\\&", "", row).count("&") for row in rows} == {4}


def test_latex_escapes_whatever_it_reads_as_a_command():
    text = typeset.latex([result(model=HOSTILE, correct=3, wrong=1)], warnings=["50 % & more"])
    row = next(line for line in text.splitlines() if "passwd" in line)
    assert row.startswith(
        r"    {[}x] \textbackslash{}input\{/etc/passwd\} \$a\_b\textasciicircum{}c\$"
    )
    assert r"\& \% \# \textasciitilde{} \{\textless{}\textbar{}\textgreater{}\}" in row
    assert r"-{}-{}-" in row
    assert r"50 \% \& more" in text


@given(st.text(max_size=30))
def test_no_name_opens_a_group_or_a_comment_in_latex(name):
    text = typeset.latex([result(model=name, task=name, correct=3, wrong=1)])
    bare = re.sub(r"\\[\\{}%$&#_]", "", text)
    assert bare.count("{") == bare.count("}")
    assert "$" not in bare
    assert "#" not in bare
    assert bare.count("%") == 1  # the comment in the first line
    assert len(text.splitlines()) == len(typeset.latex([result(correct=3, wrong=1)]).splitlines())


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
@pytest.mark.slow
def test_latex_compiles_with_hostile_names(tmp_path):
    table = typeset.latex([result(model=HOSTILE, task=HOSTILE, correct=3, wrong=1)], VERDICTS)
    head = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "t.tex").write_text(head + table + r"\end{document}")
    command = ["pdflatex", "-halt-on-error", "-no-shell-escape", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "t.pdf").stat().st_size > 1000


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_every_number_as_it_is():
    orders = control("order=3", result(correct=30, wrong=8, abstain=1, failed=1), spread=0.1 / 3)
    orders = replace(orders, metrics={**orders.metrics, "flips": FLIPS}, episodes="12ab")
    plain, shuffled = read(typeset.csv([result(shots=2, correct=2, wrong=1), orders]))
    assert (plain["model"], plain["task"], plain["control"]) == ("knn", "twin", "none")
    assert (plain["shots_per_class"], plain["n_support_images"]) == ("2", "4")
    assert float(plain["accuracy"]) == 2 / 3
    assert (plain["n"], plain["clusters"], plain["n_correct"], plain["n_wrong"]) == (
        "3",
        "3",
        "2",
        "1",
    )
    assert (plain["flips"], plain["spread"], plain["episodes"]) == ("", "", "")
    accuracy = orders.metrics["accuracy"]
    for column, value in {
        "accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high, "flips": 0.25,
        "flips_low": FLIPS.low, "spread": 0.1 / 3, "chance": 0.5,
        "abstain": 1 / 39,
    }.items():  # fmt: skip
        assert float(shuffled[column]) == value
    assert (shuffled["n_abstain"], shuffled["n_failed"], shuffled["episodes"]) == ("1", "1", "12ab")


def test_csv_of_the_paper_protocol_holds_the_released_metric_beside_the_strict_one():
    strict = result(correct=1, wrong=1)
    both = replace(strict, metrics={**strict.metrics, "accuracy_lcl": metrics.share([("0", True)])})
    (row,) = read(typeset.csv([both]))
    assert (row["accuracy"], row["accuracy_lcl"], row["accuracy_lcl_n"]) == ("0.5", "1.0", "1")


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1+1", "-2", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_field_of_csv_starts_a_formula(name):
    (row,) = read(typeset.csv([result(model=name, task=name, correct=1)]))
    assert row["model"][0] == row["task"][0] == "'"


def test_fields_with_commas_quotes_and_line_ends_stay_fields():
    (row,) = read(typeset.csv([result(model='a,"b"\nc', correct=1)]))
    assert row["model"] == 'a,"b" c'
    assert None not in row


def test_all_failed_and_no_results_are_no_reason_to_stop():
    (row,) = read(typeset.csv([result(failed=3)]))
    assert (row["accuracy"], row["n_failed"]) == ("", "3")
    assert "100 \\% failed" in typeset.latex([result(failed=3)])
    assert read(typeset.csv([])) == []
    assert tables.rows([]) == []
