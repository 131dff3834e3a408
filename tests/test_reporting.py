"""A report on one run or several: the files that were asked for, and what sets runs apart."""

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from isekai import reporting, runs
from isekai.errors import BusyError, DataError, IsekaiError
from isekai.files import lock
from isekai.reports.together import labels, together
from tests.conftest import seal
from tests.test_page import Page, bench_run


@pytest.fixture(scope="module")
def folders(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same questions to two sets of models; a third run asks others."""
    root = tmp_path_factory.mktemp("runs")
    models = [("planted:binder", "planted:last"), ("planted:binder", "planted:first")]
    found = [root / "a" / "run", root / "b" / "run", root / "other"]
    for out, names, seeds in zip(
        found, [*models, ("planted:last",)], [(0,), (0,), (1,)], strict=True
    ):
        bench_run(tiny_dataset, out, models=names, seeds=seeds, controls=("blind",), shots=(1, 2))
    return found


@pytest.mark.parametrize(
    ("formats", "files"),
    [
        (["md"], ["table.md"]),
        (["tex", "csv"], ["table.tex", "results.csv"]),
        (["png"], ["curve.png", "controls.png"]),
        (["csv", "svg", "csv"], ["results.csv", "curve.svg", "controls.svg"]),
        (["html"], ["report.html"]),
    ],
)
def test_what_is_asked_for_is_written_and_nothing_else(folders, tmp_path, formats, files):
    made = reporting.run(folders[:1], formats=formats, out=tmp_path / "out")
    assert [path.name for path in made] == files
    there = {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."}
    assert there == set(files)


def test_all_formats_hold_the_models_of_all_runs(folders, tmp_path):
    made = reporting.run(folders[:2], formats=list(reporting.FILES), out=tmp_path)
    assert {path.name for path in made} == {n for names in reporting.FILES.values() for n in names}
    texts = [path.read_text() for path in made if path.suffix in (".md", ".csv", ".svg", ".html")]
    assert len(texts) == 5
    for text in texts[:3]:
        assert "planted:first" in text
        assert "a/run" in text
    assert "planted:first" in (tmp_path / "table.tex").read_text()
    with Image.open(tmp_path / "controls.png") as picture:
        assert picture.width > 1000
    rows = csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text()))
    models = ["planted:binder (a/run)", "planted:last", "planted:binder (b/run)", "planted:first"]
    assert list(dict.fromkeys(row["model"] for row in rows)) == models
    page = Page((tmp_path / "report.html").read_text())
    assert [a["class"] for _, a in page.tags if a.get("class") == "warning"] == [
        "warning"
    ]  # noscript
    answers = [len(question["answers"]) for question in page.data["questions"]]
    assert set(answers) == {4}  # the same questions: all four answers side by side


def test_one_run_is_reported_into_a_folder_of_its_own_and_several_need_one(folders):
    (made,) = reporting.run(folders[:1], formats=["md"])
    assert made == folders[0] / "report" / "table.md"
    assert runs.read(folders[0]).config.models == ["planted:binder", "planted:last"]
    with pytest.raises(IsekaiError, match="--out"):
        reporting.run(folders[:2], formats=["md"])


def test_runs_of_the_same_questions_are_put_together_without_a_word(folders):
    found = reporting.read([folders[0], folders[1], folders[0] / ".." / "run"])
    assert found.notes == ()
    assert len(found.origins) == 2
    alone = [runs.read(folder) for folder in folders[:2]]
    assert len(found.run.predictions) == sum(len(run.predictions) for run in alone)
    assert found.run.episodes == alone[0].episodes
    assert {row.model for row in found.run.predictions} == set(found.run.config.models)
    assert set(found.run.told["verdicts"]["twin"]) == set(found.run.config.models)
    assert reporting.read(folders[:1]).run == alone[0]


def test_runs_of_other_questions_are_said_not_to_compare(folders, tmp_path):
    note = "twin: not the same questions in all runs; don't compare their numbers."
    found = reporting.read([folders[0], folders[2]])
    assert found.notes == (note,)
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(reporting.table([folders[0], folders[2]]))
    assert console.file.getvalue().startswith(note)
    reporting.run([folders[0], folders[2]], formats=["md", "tex", "html"], out=tmp_path)
    assert "don't compare" in (tmp_path / "table.md").read_text().splitlines()[0]
    assert "don't compare" in (tmp_path / "table.tex").read_text()
    assert note in Page((tmp_path / "report.html").read_text()).texts


def test_only_cells_that_differ_are_named_and_other_wording_too(folders):
    first, second = (runs.read(folder) for folder in folders[:2])
    changed = [
        replace(r, episodes="other") if (r.control, r.shots_per_class) == ("blind", 2) else r
        for r in second.results
    ]
    wording = replace(second.config.template, instruction="Look.")
    second = replace(
        second, results=tuple(changed), config=replace(second.config, template=wording)
    )
    assert together([first, second]).notes == (
        "twin (blind at 2 shots): not the same questions in all runs; don't compare their numbers.",
        "The runs differ in template: the same questions, put or read in another way.",
    )


def test_digests_that_are_not_there_are_no_proof_of_the_same_questions(folders):
    old = [
        replace(run, results=tuple(replace(r, episodes="") for r in run.results))
        for run in map(runs.read, folders[:2])
    ]
    assert "don't compare" in together(old).notes[0]


def test_another_episode_of_the_same_name_stays_another(folders):
    first, second = (runs.read(folder) for folder in folders[:2])
    id = second.episodes[0].id
    turned = replace(second.episodes[0], queries=second.episodes[0].queries[::-1])
    second = replace(second, episodes=(turned, *second.episodes[1:]))
    found = together([first, second]).run
    assert len(found.episodes) == len(first.episodes) + 1
    assert turned.queries == {e.id: e for e in found.episodes}[f"{id} (run 2)"].queries
    moved = [row for row in found.predictions if row.episode_id == f"{id} (run 2)"]
    assert len(moved) == len([row for row in second.predictions if row.episode_id == id])


def test_folders_are_told_apart_by_as_little_as_can_be():
    paths = [Path("/r/a/run"), Path("/r/b/run"), Path("/s/a/run")]
    assert labels(paths) == ["r/a/run", "r/b/run", "s/a/run"]
    assert labels([Path("/r/a"), Path("/r/b")]) == ["a", "b"]


# ---------------------------------------------------------------- what can be mended


def test_pictures_come_from_where_the_dataset_lies_now(folders, tiny_dataset, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folders[0], moved)
    told = json.loads((moved / "results.json").read_text())
    told["provenance"]["dataset"]["path"] = str(tmp_path / "gone")
    (moved / "results.json").write_text(json.dumps(told))
    seal(moved)
    with pytest.raises(DataError, match=r"gone: no such folder.*say with --data where it lies"):
        reporting.run([moved], formats=["html"])
    assert not (moved / "report" / "report.html").exists()
    data = [str(tiny_dataset)]
    (made,) = reporting.run([moved], formats=["html"], data=data, most=3)
    assert len(Page(made.read_text()).data["questions"]) == 3


def test_another_dataset_is_refused(folders, tiny_dataset, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folders[0], moved)
    config = json.loads((moved / "config.json").read_text())
    config["dataset"] = "0" * 64
    (moved / "config.json").write_text(json.dumps(config))
    seal(moved)
    with pytest.raises(DataError, match=r"is not the dataset of this run \(fingerprint 0{12}\)"):
        reporting.run([moved], formats=["html"])


def test_foreign_files_stay_and_an_earlier_report_is_replaced(folders, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match=r"holds 'thesis.tex', no file of a report"):
        reporting.run(folders[:1], formats=["md"], out=tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    (out / "controls.png").write_bytes(b"of a run with controls")
    plain = replace_controls(folders[0], tmp_path / "plain")
    made = reporting.run([plain], formats=["png"], out=out)
    assert [path.name for path in made] == ["curve.png"]
    assert not (out / "controls.png").exists()


def replace_controls(folder: Path, to: Path) -> Path:
    """A copy of the run with the results of plain episodes alone."""
    shutil.copytree(folder, to)
    told = json.loads((to / "results.json").read_text())
    told["results"] = [one for one in told["results"] if one["control"] == "none"]
    (to / "results.json").write_text(json.dumps(told))
    return seal(to)


@pytest.mark.parametrize(
    ("formats", "words"), [(["pdf"], "'pdf' is not known; known: csv"), ([], "say with --format")]
)
def test_formats_that_are_not_known_are_refused(folders, formats, words):
    with pytest.raises(IsekaiError, match=words):
        reporting.run(folders[:1], formats=formats)


def test_no_run_no_report(tmp_path):
    with pytest.raises(IsekaiError, match="at least one folder"):
        reporting.read([])
    with pytest.raises(DataError, match="no run"):
        reporting.table([tmp_path])


def test_two_reports_into_one_folder_wait_for_each_other(folders, tmp_path):
    with lock(tmp_path), pytest.raises(BusyError):
        reporting.run(folders[:1], formats=["md"], out=tmp_path)
