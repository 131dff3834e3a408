"""Runs are compared on the same episodes or not at all, and the tables say what was compared."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from isekai import compare, files, runs, templates
from isekai.errors import DataError, IsekaiError
from isekai.statistics import curve, metrics, paired, power
from isekai.types import Episode, Example, Prediction
from tests.conftest import seal

GROUPS, NUMBERS, QUERIES, SHOTS = 8, 3, 4, (0, 1, 2, 4)


def episodes(task="twin", *, shots=SHOTS, control="none", groups=GROUPS, numbers=NUMBERS):
    """Two-way episodes whose sequences only grow with the longest shot count."""
    made = []
    for group in range(groups):
        for number in range(numbers):
            concepts = (f"g{group}/left", f"g{group}/right")

            def example(kind, place, pair=concepts, number=number):
                concept = pair[place % 2]
                return Example(image_id=f"{concept}-{kind}-{number}-{place}", concept=concept)

            tail = "" if control == "none" else f"~{control}"
            made.append(
                Episode(
                    id=f"{task}/g{group}/{number:03d}{tail}",
                    task=task,
                    cluster=f"g{group}",
                    labels=dict(zip(concepts, ("blim", "quor"), strict=True)),
                    support=tuple(example("support", n) for n in range(2 * max(shots))),
                    shots=tuple(shots),
                    queries=tuple(example("query", n) for n in range(QUERIES)),
                    seed=1_000 * group + number,
                    control=control,
                )
            )
    return made


def predictions(model, asked, right, *, seed=0, failed=(), abstain=0.0):
    """Answers right with the chance `right[shots]`, or always that of a number."""
    rng = np.random.default_rng(seed)
    made = []
    for episode in asked:
        for shots in episode.shots:
            for query, example in enumerate(episode.queries):
                target = episode.labels[example.concept]
                other = next(word for word in episode.labels.values() if word != target)
                chance = right[shots] if isinstance(right, dict) else right
                outcome = "correct" if rng.random() < chance else "wrong"
                if rng.random() < abstain:
                    outcome = "abstain"
                if (episode.id, shots, query) in failed:
                    outcome = "failed"
                said = {"correct": target, "wrong": other}.get(outcome)
                made.append(
                    Prediction(
                        model=model,
                        episode_id=episode.id,
                        shots=shots,
                        query=query,
                        target=target,
                        answer=said,
                        outcome=outcome,
                        text=said or "",
                        error="time-out" if outcome == "failed" else None,
                    )
                )
    return made


def write(folder: Path, asked, rows, **settings) -> Path:
    """The folder of a finished run, without its pictures and tables."""
    config = runs.Config(
        dataset="0" * 64,
        models=list(dict.fromkeys(row.model for row in rows)),
        adapters={},
        tasks=list(dict.fromkeys(episode.task for episode in asked)),
        protocol="isekai",
        shots=sorted({shots for episode in asked for shots in episode.shots}),
        episodes=NUMBERS,
        queries=QUERIES // 2,
        labels="fantasy",
        controls=[],
        selections=[],
        embedder={},
        template=templates.read("plain"),
        seeds=[0],
        limit=None,
        ranking="sum",
    )
    files.write_json(folder / "config.json", replace(config, **settings))
    files.write_jsonl(folder / "episodes.jsonl", asked)
    files.write_jsonl(folder / "predictions.jsonl", rows)
    files.write_json(folder / "results.json", {"results": []})
    return seal(folder)


def one_model(folder, model, right, *, asked=None, **options):
    asked = episodes() if asked is None else asked
    return write(folder, asked, predictions(model, asked, right, **options))


RISING = {0: 0.5, 1: 0.7, 2: 0.85, 4: 0.9}


@pytest.fixture
def folders(tmp_path):
    a = one_model(tmp_path / "a", "knn", RISING)
    return a, one_model(tmp_path / "b", "chance", 0.5, seed=1)


# ---------------------------------------------------------------- the numbers


def test_every_number_is_that_of_the_answers_themselves(folders):
    found = compare.run(*folders)
    (versus,) = found.versus
    assert (versus.model_a, versus.model_b) == ("knn", "chance")
    assert [cell.shots for cell in versus.cells] == list(SHOTS)
    a, b = (hits(runs.read(folder)) for folder in folders)
    for cell in versus.cells:
        assert cell.a == metrics.share(a[cell.shots])
        assert cell.b == metrics.share(b[cell.shots])
        assert cell.difference == paired.difference(a[cell.shots], b[cell.shots])
        assert cell.difference.value == pytest.approx(cell.a.value - cell.b.value)
        assert (cell.n_support_images, cell.chance, cell.dropped) == (2 * cell.shots, 0.5, 0)
    corrected = paired.holm([cell.difference.p for cell in versus.cells])
    assert [cell.p_holm for cell in versus.cells] == corrected
    (both,) = versus.curves
    assert (both.area_a, both.area_b) == (curve.area(a), curve.area(b))
    assert both.difference == curve.difference(a, b)
    assert both.plateau_a == curve.plateau(a)
    assert both.difference.p < 0.05 < versus.cells[0].difference.p
    assert found.notes == versus.notes == versus.plans == ()


def hits(run):
    known = {episode.id: episode.cluster for episode in run.episodes}
    found = {}
    for row in run.predictions:
        hit = (known[row.episode_id], row.outcome == "correct")
        found.setdefault(row.shots, []).append(hit)
    return found


def test_swapping_the_runs_mirrors_the_comparison(folders):
    there, back = compare.run(*folders).versus[0], compare.run(*reversed(folders)).versus[0]
    for one, other in zip(there.cells, back.cells, strict=True):
        assert (one.a, one.b) == (other.b, other.a)
        assert one.difference.value == pytest.approx(-other.difference.value)
        assert (one.difference.p, one.p_holm) == pytest.approx((other.difference.p, other.p_holm))


def test_each_task_and_control_is_corrected_on_its_own(tmp_path):
    asked = [*episodes(), *episodes(control="blind"), *episodes("foil")]
    a = one_model(tmp_path / "a", "knn", RISING, asked=asked)
    b = one_model(tmp_path / "b", "logreg", 0.5, asked=asked, seed=3)
    cells = compare.run(a, b).versus[0].cells
    blocks = list(dict.fromkeys((cell.task, cell.control) for cell in cells))
    assert blocks == [("twin", "none"), ("twin", "blind"), ("foil", "none")]
    for block in blocks:
        own = [cell for cell in cells if (cell.task, cell.control) == block]
        assert [c.p_holm for c in own] == paired.holm([c.difference.p for c in own])


def test_a_question_that_failed_on_a_side_is_left_out_on_both(tmp_path):
    lost = {("twin/g0/000", 2, 1), ("twin/g3/001", 2, 0), ("twin/g3/001", 4, 0)}
    a = one_model(tmp_path / "a", "knn", 1.0, failed=lost)
    b = one_model(tmp_path / "b", "chance", 0.5, failed={("twin/g0/000", 2, 1)})
    found = compare.run(a, b)
    dropped = {cell.shots: cell.dropped for cell in found.versus[0].cells}
    assert dropped == {0: 0, 1: 0, 2: 2, 4: 1}
    asked = GROUPS * NUMBERS * QUERIES
    for cell in found.versus[0].cells:
        assert cell.a.n == cell.b.n == cell.difference.n == asked - cell.dropped
        assert cell.a.value == 1
    assert "Left out as failed on a side: 3." in compare.markdown(found)


def test_a_shot_count_at_which_all_failed_is_told_and_has_no_cell(tmp_path):
    asked = episodes(shots=(1, 2))
    all_of_one = {(e.id, 1, query) for e in asked for query in range(QUERIES)}
    a = one_model(tmp_path / "a", "knn", 0.9, asked=asked, failed=all_of_one)
    b = one_model(tmp_path / "b", "chance", 0.5, asked=asked)
    (versus,) = compare.run(a, b).versus
    assert [cell.shots for cell in versus.cells] == [2]
    assert versus.curves == ()
    assert versus.notes == ("twin, plain, at 1 shots: every question failed on a side.",)


# ---------------------------------------------------------------- which models


def test_models_of_the_same_names_are_compared_by_name(tmp_path):
    asked = episodes(shots=(1,))
    for name, seed in (("a", 0), ("b", 5)):
        rows = [r for m in "xy" for r in predictions(m, asked, 0.5 + 0.4 * (m == "x"), seed=seed)]
        write(tmp_path / name, asked, rows)
    found = compare.run(tmp_path / "a", tmp_path / "b")
    assert [(v.model_a, v.model_b) for v in found.versus] == [("x", "x"), ("y", "y")]
    assert found.versus[0].cells[0].a.value > 0.8 > found.versus[1].cells[0].a.value


def test_two_models_of_one_run_are_compared_with_each_other(tmp_path):
    asked = episodes()
    rows = [*predictions("x", asked, 0.9), *predictions("y", asked, 0.5, seed=2)]
    folder = write(tmp_path / "one", asked, rows)
    for models in (None, ["x", "y"]):
        (versus,) = compare.run(folder, folder, models=models).versus
        assert (versus.model_a, versus.model_b) == ("x", "y")
        assert versus.cells[1].difference.value > 0.2
    (turned,) = compare.run(folder, folder, models=["y", "x"]).versus
    assert turned.cells[1].difference.value < -0.2


def test_models_that_leave_a_choice_have_to_be_named(tmp_path):
    asked = episodes(shots=(1,))
    three = [row for m in ("x", "y", "z") for row in predictions(m, asked, 0.5)]
    a = write(tmp_path / "a", asked, three)
    b = one_model(tmp_path / "b", "x", 0.5, asked=asked)
    with pytest.raises(
        DataError, match=r"holds x, y, z, .*b holds x: say which two .*--models x,x"
    ):
        compare.run(a, b)
    with pytest.raises(DataError, match=r"holds x, y, z: say which two to compare"):
        compare.run(a, a)
    with pytest.raises(DataError, match="holds x alone: name another run"):
        compare.run(b, b)
    with pytest.raises(DataError, match=r"holds no model 'yy'; did you mean 'y'\?"):
        compare.run(a, b, models=["yy", "x"])
    with pytest.raises(DataError, match="name two different ones"):
        compare.run(a, a, models=["x"])
    with pytest.raises(DataError, match="name one of each run"):
        compare.run(a, b, models=["x", "y", "z"])
    (versus,) = compare.run(a, b, models=["z", "x"]).versus
    assert (versus.model_a, versus.model_b) == ("z", "x")
    (same,) = compare.run(a, b, models=["x"]).versus
    assert {cell.difference.p for cell in same.cells} == {1}


# ---------------------------------------------------------------- the same episodes


def changed(place, **what):
    asked = episodes()
    asked[place] = replace(asked[place], **what)
    return asked


def other_queries(episode):
    return (replace(episode.queries[0], image_id="new"), *episode.queries[1:])


def other_support(episode, place):
    support = list(episode.support)
    support[place] = replace(support[place], image_id="new")
    return tuple(support)


PLAIN = episodes()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (changed(5, queries=other_queries(PLAIN[5])), "at 0 .*g1/002 differs in its queries"),
        (changed(2, support=other_support(PLAIN[2], 0)), "at 1 .*g0/002 differs in its support"),
        (changed(2, support=other_support(PLAIN[2], 6)), "at 4 .*g0/002 differs in its support"),
        (changed(0, labels={"g0/left": "x", "g0/right": "y"}), "at 0 .*differs in its labels"),
        (changed(0, labels=dict(reversed(PLAIN[0].labels.items()))), "at 0 .*in its labels"),
        (PLAIN[:-1], "at 0 .*episode twin/g7/002 is only in .*a;"),
        ([*PLAIN, replace(PLAIN[0], id="new")], "at 0 .*episode new is only in .*b;"),
    ],
)
def test_other_episodes_are_refused_and_the_first_is_named(tmp_path, asked, told):
    a = one_model(tmp_path / "a", "knn", 0.9)
    b = one_model(tmp_path / "b", "chance", 0.5, asked=asked)
    with pytest.raises(DataError, match=f"did not ask the same {told}") as refused:
        compare.run(a, b)
    assert "\n" not in str(refused.value)


def test_only_shared_shot_counts_have_to_agree(tmp_path):
    a = one_model(tmp_path / "a", "knn", 0.9, asked=episodes(shots=(1, 2)))
    b = one_model(tmp_path / "b", "chance", 0.5, asked=episodes(shots=(0, 1, 2, 4, 8)))
    late = changed(2, support=other_support(PLAIN[2], 6))
    c = one_model(tmp_path / "c", "logreg", 0.7, asked=late)
    found = compare.run(a, b)
    assert [cell.shots for cell in found.versus[0].cells] == [1, 2]
    assert found.notes == (
        f"Only {b} has, and is not compared: twin plain at 0; twin plain at 4; twin plain at 8.",
    )
    assert [cell.shots for cell in compare.run(a, c).versus[0].cells] == [1, 2]


def test_runs_that_share_nothing_cannot_be_compared(tmp_path):
    a = one_model(tmp_path / "a", "knn", 0.9)
    b = one_model(tmp_path / "b", "knn", 0.5, asked=episodes("foil"))
    with pytest.raises(DataError, match="no task, control and shot count in common"):
        compare.run(a, b)
    with pytest.raises(DataError, match="no run"):
        compare.run(a, tmp_path / "nothing")


def test_what_else_the_runs_differ_in_is_told(tmp_path, folders):
    asked = episodes()
    other = write(
        tmp_path / "c", asked, predictions("knn", asked, 0.5), ranking="mean",
        template=templates.read("chat"),
    )  # fmt: skip
    assert compare.run(folders[0], other).notes == (
        "The runs differ in their ranking of labels (sum and mean), and a difference may come "
        "from it.",
        "The runs differ in their template, and a difference may come from it.",
    )


# ---------------------------------------------------------------- the plan


def test_a_plan_is_made_for_each_task(folders):
    (planned,) = compare.run(*folders, plan=0.2).versus[0].plans
    assert planned.task == "twin"
    assert planned.plan.spread.clusters == GROUPS
    assert planned.plan.spread.episodes == NUMBERS
    assert planned.plan.episodes or planned.plan.clusters
    smaller = compare.run(*folders, plan=0.05).versus[0].plans[0].plan
    assert (smaller.clusters or 0, smaller.episodes or 0) > (0, planned.plan.episodes or 0)
    with pytest.raises(IsekaiError, match="above 0 and not above 1"):
        compare.run(*folders, plan=2)


def test_a_run_alone_is_planned_for_against_chance(tmp_path, folders):
    (planned,) = compare.alone(folders[1], 0.2)
    run = runs.read(folders[1])
    known = {episode.id: episode for episode in run.episodes}
    levels = [
        [
            (known[row.episode_id].cluster, row.episode_id, (row.outcome == "correct") - 0.5)
            for row in run.predictions
            if row.shots == shots
        ]
        for shots in SHOTS[1:]
    ]
    assert planned.plan == power.plan(0.2, power.measured(levels))
    certain = one_model(tmp_path / "c", "sure", 1.0)
    assert compare.alone(certain, 0.2)[0].plan.episodes == 1


def test_units_of_a_cluster_share_what_is_planned(tmp_path):
    asked = episodes(shots=(1,), numbers=2 * NUMBERS)  # as of two units of three episodes
    a = one_model(tmp_path / "a", "knn", 0.8, asked=asked)
    b = one_model(tmp_path / "b", "chance", 0.5, asked=asked, seed=1)
    (planned,) = compare.run(a, b, plan=0.2).versus[0].plans
    assert planned.plan.units == 2


# ---------------------------------------------------------------- told


@pytest.fixture
def told(tmp_path):
    asked = [*episodes(), *episodes(control="words=true+swap"), *episodes("odd|task")]
    lost = {("twin/g0/000", 2, 1)}
    rows = predictions("x", asked, RISING, failed=lost, abstain=0.1)
    rows += predictions("[red]y[/red]*", asked, 0.5, seed=4)
    folder = write(tmp_path / "one", asked, rows)
    return compare.run(folder, folder, plan=0.1)


def test_a_comparison_is_json(told):
    plain = json.loads(json.dumps(files.plain(told), allow_nan=False))
    assert plain["versus"][0]["cells"][0]["difference"]["clusters"] == GROUPS
    assert plain["versus"][0]["curves"][0]["plateau_a"]["margin"] == curve.MARGIN


def test_markdown_and_the_terminal_tell_the_same_rows(told):
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(compare.table(told))
    shown, text = console.file.getvalue(), compare.markdown(told)
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown
    cells = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(cells) == 3 * (1 + 1 + len(SHOTS) + 1)
    words = [line.split() for line in shown.splitlines()]
    for line in cells:
        if "---" not in line:
            assert line.replace("|", " ").split() in words
    for said in ("chance .50", "clusters 8", "abstained from", "Left out as failed on a side: 1."):
        assert said in text
        assert said in " ".join(shown.split())


def test_a_cell_has_both_shares_their_difference_and_both_p_values(told):
    (line, *_) = [row for row in compare.markdown(told).splitlines() if row.startswith("| 4 (8)")]
    share, signed, p = r"1?\.\d\d", r"[+-]?1?\.\d\d", r"(<\.001|1?\.\d\d\d)"
    estimate, difference = (rf"{x} \[{x}, {x}\]" for x in (share, signed))
    cells = [r"4 \(8\)", estimate, estimate, difference, p, p]
    found = line.strip("| ").split(" | ")
    assert all(re.fullmatch(*pair) for pair in zip(cells, found, strict=True)), line


def test_names_of_strangers_stay_text(told):
    text = compare.markdown(told)
    assert r"\[red\]y\[/red\]\*" in text
    assert r"odd\|task" in text
    console = Console(width=80, file=io.StringIO(), color_system=None)
    console.print(compare.table(told))
    assert "b: [red]y[/red]*" in console.file.getvalue()


def test_few_clusters_are_told_to_be_too_few(tmp_path):
    asked = episodes(groups=4)
    a = one_model(tmp_path / "a", "knn", 1.0, asked=asked)
    b = one_model(tmp_path / "b", "chance", 0.0, asked=asked)
    found = compare.run(a, b)
    assert {cell.difference.p for cell in found.versus[0].cells} == {0.125}
    assert "With 4 clusters no p can be below 0.125" in compare.markdown(found)
