"""A run survives kills, broken models and second thoughts; its numbers follow from its files."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from isekai import bench, files, runs
from isekai.dataset import Dataset
from isekai.errors import BusyError, DataError, IsekaiError, PluginError
from isekai.files import read_json, read_jsonl
from isekai.setup import Setup
from isekai.types import Episode, Prediction, Response, Sweep

COLOURS = {"embedder": "colours"}
PLUGIN = Path(__file__).parent / "data" / "colours"
ISEKAI = (sys.executable, "-c", "from isekai.cli import main; main()")

# What a run leaves behind that may not depend on how it came to be.
LASTING = (
    "config.json",
    "episodes.jsonl",
    "predictions.jsonl",
    "table.md",
    "curve.png",
    "curve.svg",
)


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(PLUGIN)


@pytest.fixture
def bench_run(tiny_dataset, tmp_path):
    """Runs with small numbers; anything can be asked otherwise."""

    def run(out: str = "run", *, force: bool = False, **asked) -> Path:
        small = {"models": ["chance"], "tasks": ["twin"], "shots": (0, 1, 2), "episodes": 2}
        asked = {**small, "data": str(tiny_dataset), **asked}
        adapters = [model for model in asked["models"] if not isinstance(model, str)]
        asked["models"] = tuple(model for model in asked["models"] if isinstance(model, str))
        return bench.run(Setup(**asked), out=tmp_path / out, adapters=adapters, force=force)

    return run


def lasting(out: Path) -> dict[str, bytes]:
    found = {name: (out / name).read_bytes() for name in LASTING}
    results = read_json(out / "results.json", dict[str, object])
    del results["last_process"]
    return {**found, "results.json": json.dumps(results).encode()}


def predictions(out: Path) -> list[Prediction]:
    return read_jsonl(out / "predictions.jsonl", Prediction)


class Oracle:
    """Knows what each query shows, by its dataset; may misbehave in one episode."""

    def __init__(self, data: Path, trouble=None, at: str = "") -> None:
        self.provenance = {"revision": "1"}
        dataset = Dataset.open(data)
        self.concepts = {entry.image_id: entry.concept for entry in dataset.entries}
        self.trouble, self.at, self.asked = trouble, at, []

    def respond(self, sweep: Sweep):
        self.asked.append(sweep.episode_id)
        shown = {self.concepts[turn.image.id]: turn.label for turn in sweep.support}
        said = [
            Response(text=shown[self.concepts[query.image.id]] if cut else "no idea")
            for cut in sweep.cuts
            for query in sweep.queries
        ]
        if sweep.episode_id == self.at:
            yield from self.trouble(said)
        else:
            yield from said


def raising(error: BaseException, after: int = 0):
    def trouble(said):
        yield from said[:after]
        raise error

    return trouble


# ---------------------------------------------------------------- a run


def test_a_run_is_a_folder_anyone_can_read(bench_run, tiny_dataset):
    out = bench_run(models=[Oracle(tiny_dataset), "chance"], tasks=["twin", "foil"])
    episodes = read_jsonl(out / "episodes.jsonl", Episode)
    assert [e.task for e in episodes] == ["twin"] * 6 + ["foil"] * 12
    rows = predictions(out)
    assert len(rows) == 2 * 18 * 3 * 8
    manifest = read_json(out / "manifest.json", dict[str, object])
    assert (manifest["kind"], manifest["complete"]) == ("run", True)
    assert manifest["sha256"]["episodes.jsonl"] == files.sha256(
        (out / "episodes.jsonl").read_bytes()
    )
    results = read_json(out / "results.json", dict[str, object])
    dataset = Dataset.open(tiny_dataset)
    assert results["provenance"]["dataset"]["fingerprint"] == dataset.fingerprint
    assert results["provenance"]["adapters"]["oracle"] == {"revision": "1"}
    assert results["last_process"]["predictions"] == {"oracle": 432, "chance": 432}


def test_results_follow_from_the_predictions(bench_run, tiny_dataset):
    out = bench_run(models=[Oracle(tiny_dataset), "chance"], tasks=["twin", "foil"])
    cells = {(r.task, r.model, r.shots_per_class): r for r in runs.results(out)}
    assert list(cells)[:4] == [
        ("twin", "oracle", 0),
        ("twin", "oracle", 1),
        ("twin", "oracle", 2),
        ("twin", "chance", 0),
    ]
    zero, two = cells["foil", "oracle", 0], cells["foil", "oracle", 2]
    assert zero.outcomes == {"correct": 0, "wrong": 0, "abstain": 96, "failed": 0}
    assert (zero.metrics["accuracy"].value, zero.metrics["abstain"].value) == (0, 1)
    assert two.outcomes["correct"] == 96
    assert (two.n_support_images, two.chance) == (4, 0.5)
    assert (two.metrics["accuracy"].n, two.metrics["accuracy"].clusters) == (96, 3)
    right = sum(
        row.outcome == "correct"
        for row in predictions(out)
        if row.model == "chance" and row.shots == 1 and row.episode_id.startswith("twin/")
    )
    assert cells["twin", "chance", 1].metrics["accuracy"].value == right / 48
    assert right / 48 == pytest.approx(0.5, abs=0.25)


def test_the_metric_baselines_bind_words_that_nobody_has_met(bench_run):
    models = ["prototype", "knn", "logreg", "chance"]
    out = bench_run(models=models, shots=(2,), episodes=1, queries=2)
    *metric, chance = runs.results(out)
    assert all(result.metrics["accuracy"].value > 0.9 for result in metric)
    assert chance.metrics["accuracy"].low < 0.5 < chance.metrics["accuracy"].high


def test_true_labels_and_fantasy_words_ask_the_same_pictures(bench_run):
    fantasy = read_jsonl(bench_run("a", labels="fantasy") / "episodes.jsonl", Episode)
    true = read_jsonl(bench_run("b", labels="true") / "episodes.jsonl", Episode)
    assert [replace(e, labels={}) for e in fantasy] == [replace(e, labels={}) for e in true]
    assert set(true[0].labels.values()) == {"blimel", "quorrin"}


def test_another_model_and_more_shots_leave_the_episodes_and_answers_that_were_there(bench_run):
    few = bench_run("few", shots=(1, 2))
    many = bench_run("many", models=["knn", "chance"], shots=(0, 1, 2, 4), options=COLOURS)
    for a, b in zip(*(read_jsonl(o / "episodes.jsonl", Episode) for o in (few, many)), strict=True):
        assert b.support[: len(a.support)] == a.support
        assert (b.queries, b.labels) == (a.queries, a.labels)
    there = {json.dumps(files.plain(row)) for row in predictions(many)}
    assert {json.dumps(files.plain(row)) for row in predictions(few)} <= there


# ---------------------------------------------------------------- kills and reruns


SCRIPT = """
import os, signal, sys
from pathlib import Path
from isekai import bench
from isekai.setup import Setup
from model_adapters.chance import Chance

class Mortal(Chance):
    '''Chance, until the process dies in the middle of an episode.'''
    left = int(sys.argv[3])
    def respond(self, sweep):
        said = list(super().respond(sweep))
        for response in said:
            Mortal.left -= 1
            if Mortal.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield response

bench.run(Setup(models=("chance",), shots=(0, 1, 2), episodes=2, data=sys.argv[1]),
          adapters=[Mortal()], out=Path(sys.argv[2]))
"""


def test_a_run_killed_twice_ends_with_the_bytes_of_one_that_was_not(tiny_dataset, tmp_path):
    def run(out: str, lives: int, hashing: str) -> int:
        return subprocess.run(
            [sys.executable, "-c", SCRIPT, tiny_dataset, tmp_path / out, str(lives)],
            env={**os.environ, "PYTHONHASHSEED": hashing},
            check=False,
        ).returncode

    assert run("whole", 0, "1") == 0
    assert run("killed", 30, "2") == -9
    assert len(predictions(tmp_path / "killed")) == 24
    assert run("killed", 60, "3") == -9
    assert len(predictions(tmp_path / "killed")) == 72
    assert run("killed", 0, "4") == 0
    assert lasting(tmp_path / "killed") == lasting(tmp_path / "whole")


def test_whatever_a_kill_left_of_the_files_a_rerun_ends_with_the_same_bytes(bench_run, tmp_path):
    whole = lasting(bench_run("whole", models=["chance", "knn"], options=COLOURS))
    written = whole["predictions.jsonl"]
    for cut in (0, 1, 900, len(written) // 3, len(written) // 2, len(written) - 1, len(written)):
        out = tmp_path / f"cut-{cut}"
        out.mkdir()
        for name in ("config.json", "episodes.jsonl"):
            (out / name).write_bytes(whole[name])
        (out / "predictions.jsonl").write_bytes(written[:cut])
        (out / ".isekai-part-0").write_bytes(b"half")
        bench_run(out.name, models=["chance", "knn"], options=COLOURS)
        assert lasting(out) == whole
        assert not (out / ".isekai-part-0").exists()


def test_a_rerun_asks_only_what_is_missing_and_a_complete_run_is_left_alone(
    bench_run, tiny_dataset, capfd
):
    out = bench_run(models=[Oracle(tiny_dataset)])
    before, when = lasting(out), (out / "results.json").stat().st_mtime_ns
    again = Oracle(tiny_dataset)
    bench_run(models=[again])
    assert again.asked == []
    assert (out / "results.json").stat().st_mtime_ns == when
    assert "complete, nothing to do" in capfd.readouterr().err
    lines = before["predictions.jsonl"].splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join(lines[:30] + lines[96:]))
    (out / "manifest.json").unlink()
    bench_run(models=[again])
    assert again.asked == ["twin/fruit/0-001", "twin/plant/0-000", "twin/plant/0-001"]
    assert lasting(out) == before


def test_a_complete_run_that_was_damaged_is_mended(bench_run, tiny_dataset):
    out = bench_run(models=[Oracle(tiny_dataset)])
    before = lasting(out)
    lines = before["predictions.jsonl"].splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join(lines[: len(lines) // 2])[:-7])
    again = Oracle(tiny_dataset)
    bench_run(models=[again])
    assert again.asked == [f"twin/{name}/0-00{n}" for name in ("plant", "stone") for n in (0, 1)]
    assert lasting(out) == before


def test_an_interrupt_goes_up_and_what_was_answered_stays(bench_run, tiny_dataset, tmp_path):
    trouble = {"trouble": raising(KeyboardInterrupt()), "at": "twin/plant/0-000"}
    with pytest.raises(KeyboardInterrupt):
        bench_run(models=[Oracle(tiny_dataset, **trouble)])
    assert len(predictions(tmp_path / "run")) == 2 * 24
    patient = Oracle(tiny_dataset)
    assert lasting(bench_run(models=[patient])) == lasting(
        bench_run("whole", models=[Oracle(tiny_dataset)])
    )
    assert patient.asked[0] == "twin/plant/0-000"


def test_another_config_is_refused_with_the_setting_that_differs_unless_forced(bench_run):
    out = bench_run()
    before = lasting(out)
    for asked, told in (
        ({"seeds": (1,)}, r"seeds is \[0\] there and \[1\] here"),
        ({"queries": 2}, "queries is 4 there and 2 here"),
        ({"options": {"seed": 7}}, "adapters.chance.seed is 0 there and 7 here"),
        ({"tasks": ["foil"]}, r"tasks is \['twin'\] there and \['foil'\] here"),
    ):
        with pytest.raises(DataError, match=told) as refused:
            bench_run(**asked)
        assert "\n" not in str(refused.value)
    assert lasting(out) == before
    assert lasting(bench_run(seeds=(1,), force=True)) == lasting(bench_run("other", seeds=(1,)))


def test_a_folder_with_other_files_is_never_written_to(bench_run, tiny_dataset, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("")
    for force in (False, True):
        with pytest.raises(DataError, match=r"holds 'thesis.tex' but no config.json"):
            bench_run(force=force)
    assert os.listdir(tmp_path / "run") == ["thesis.tex"]


def test_two_runs_on_one_folder_do_not_mix(bench_run, tmp_path):
    with files.lock(tmp_path / "run"), pytest.raises(BusyError, match="another isekai process"):
        bench_run()


def test_episodes_that_another_version_drew_are_not_mixed_with_ours(bench_run):
    out = bench_run()
    rows = read_jsonl(out / "episodes.jsonl", Episode)
    files.write_jsonl(out / "episodes.jsonl", [replace(rows[0], seed=1), *rows[1:]])
    with pytest.raises(DataError, match="another version drew these episodes"):
        bench_run()


# ---------------------------------------------------------------- models that misbehave


def outcomes(out: Path, episode: str) -> str:
    return "".join(row.outcome[0] for row in predictions(out) if row.episode_id == episode)


@pytest.mark.parametrize(
    ("trouble", "left", "told"),
    [
        (raising(ValueError("bad\nluck")), "f" * 24, "ValueError: bad\nluck"),
        (raising(ValueError("luck"), after=11), "a" * 8 + "ccc" + "f" * 13, "ValueError: luck"),
        (lambda said: said[:-1], "f" * 24, "23 responses to 24 questions"),
        (lambda said: [*said, *said], "f" * 24, "more responses to 24 questions"),
        (lambda said: [*said[:23], "text"], "a" * 8 + "c" * 15 + "f", "AttributeError: 'str'"),
        (
            lambda said: [*said[:23], Response(text="dovrik", error="503")],
            "a" * 8 + "c" * 15 + "f",
            "503",
        ),
        (
            lambda said: [*said[:23], Response(text="", label_logprobs={"a": 0.0})],
            "a" * 8 + "c" * 15 + "f",
            "label_logprobs has ['a'], the labels are",
        ),
    ],
)
def test_a_broken_episode_fails_with_its_reason_and_ends_nothing(
    bench_run, tiny_dataset, trouble, left, told
):
    out = bench_run(models=[Oracle(tiny_dataset, trouble, "twin/plant/0-000")])
    assert outcomes(out, "twin/plant/0-000") == left
    for whole in ("twin/plant/0-001", "twin/stone/0-001"):
        assert outcomes(out, whole) == "a" * 8 + "c" * 16
    failed = [row for row in predictions(out) if row.outcome == "failed"]
    assert all(told in row.error and row.answer is None for row in failed)
    last = runs.results(out)[-1]
    assert last.metrics["accuracy"].value == 1  # a failure is not an answer
    assert last.outcomes["failed"] == left[16:].count("f")
    assert read_json(out / "manifest.json", dict[str, object])["failed"] == left.count("f")
    assert "failed" in (out / "table.md").read_text()


def test_what_failed_is_asked_again_by_the_next_run(bench_run, tiny_dataset, tmp_path):
    bench_run(models=[Oracle(tiny_dataset, raising(OSError("no route")), "twin/plant/0-000")])
    with pytest.raises(KeyboardInterrupt):
        bench_run(models=[Oracle(tiny_dataset, raising(KeyboardInterrupt()), "twin/plant/0-000")])
    assert not (tmp_path / "run" / "manifest.json").exists()
    mended = Oracle(tiny_dataset)
    out = bench_run(models=[mended])
    assert mended.asked == ["twin/plant/0-000"]
    assert lasting(out) == lasting(bench_run("whole", models=[Oracle(tiny_dataset)]))


def test_a_model_that_fails_throughout_still_ends_with_a_table(bench_run, tiny_dataset):
    class Broken(Oracle):
        def respond(self, sweep):
            raise RuntimeError("no weights")

    out = bench_run(models=[Broken(tiny_dataset)])
    assert [result.metrics for result in runs.results(out)] == [{}] * 3
    assert "100 % failed" in (out / "table.md").read_text()
    assert read_json(out / "results.json", dict[str, object])["failures"] == {
        "broken: RuntimeError: no weights": 144
    }


def test_what_the_user_can_mend_ends_the_run(bench_run, tiny_dataset, tmp_path):
    trouble = raising(IsekaiError("the key is not valid"))
    with pytest.raises(IsekaiError, match="the key is not valid"):
        bench_run(models=[Oracle(tiny_dataset, trouble, "twin/plant/0-000")])
    assert len(predictions(tmp_path / "run")) == 2 * 24


def test_odd_text_is_kept_and_read_back(bench_run, tiny_dataset):
    class Odd(Oracle):
        def respond(self, sweep):
            for _ in sweep.cuts:
                for _ in sweep.queries:
                    yield Response(text='\ud800"\u2028\n', usage={"tokens": 3})

    rows = predictions(bench_run(models=[Odd(tiny_dataset)]))
    assert {row.text for row in rows} == {'?"\u2028\n'}
    assert rows[0].usage == {"tokens": 3.0}


# ---------------------------------------------------------------- what is refused first


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"models": ["prototyp"]}, "no model is called 'prototyp'; did you mean 'prototype'"),
        ({"tasks": ["twins"]}, "no task is called 'twins'; did you mean 'twin'"),
        ({"template": "plane"}, r"no template is called 'plane' .*did you mean 'plain'"),
        ({"shots": (1, 7)}, "fruit/blimel has 6 support images and --shots asks for 7"),
        ({"queries": 7}, "fruit/blimel has 6 query images and --queries asks for 7"),
        ({"shots": (-1,)}, "-1 shots; 0 is the least"),
        ({"episodes": 0}, "0 episodes and 4 queries; at least 1"),
        ({"models": []}, "at least one model"),
        ({"seeds": (-1,)}, "seed -1; 0 is the least"),
        ({"limit": 0}, "--limit 0; 1 is the least"),
        ({"n_images": (2, 3)}, "--n-images 3: the paper shows each of two labels equally often"),
        ({"controls": ("blid",)}, "no control is called 'blid'; did you mean 'blind'"),
        ({"select": ("nearst",)}, "no support selection is called 'nearst'; did you mean 'near"),
        ({"false_labels": (2.0,)}, "control 'false=2': the rate is a number from 0 to 1"),
        ({"controls": ("order=2",), "shots": (0,)}, "'order=2' leaves nothing to ask at --shots 0"),
        ({"ranking": "prior"}, "--ranking prior has no prior for 'none' at 0 shots"),
        ({"options": {"speed": 1}}, "model 'chance' has no option 'speed'"),
        (
            {"models": ["chance", "knn"], "options": {"kk": 1}},
            "none of these models has an option 'kk'; did you mean 'k'",
        ),
        ({"data": "none"}, "none: no such folder"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(bench_run, tmp_path, asked, told):
    with pytest.raises(IsekaiError, match=told):
        bench_run(**asked)
    assert not (tmp_path / "run").exists()


def test_an_option_goes_to_each_model_that_has_it(bench_run):
    config = read_json(
        bench_run(models=["knn:3", "prototype", "chance"], options={**COLOURS, "seed": 5})
        / "config.json",
        dict[str, object],
    )
    assert config["adapters"]["knn:3"]["k"] == 3
    assert config["adapters"]["knn:3"]["embedder"] == "colours"
    assert config["adapters"]["prototype"]["embedder"] == "colours"
    assert config["adapters"]["chance"] == {"seed": 5}
    with pytest.raises(PluginError, match="two of the models are called 'oracle'"):
        bench_run("other", models=[type("Oracle", (), {})(), type("Oracle", (), {})()])


# ---------------------------------------------------------------- from the command line


def isekai(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ISEKAI, *map(str, words)], capture_output=True, text=True, check=False)


def test_the_command_prints_the_table_beside_and_the_path_as_its_result(tiny_dataset, tmp_path):
    words = ("bench", "--model", "chance", "--task", "twin", "--task", "foil", "--shots", "1,2")
    words += ("--data", tiny_dataset, "--out", tmp_path / "run", "-o", "seed=3")
    told = isekai(*words)
    assert told.returncode == 0
    assert told.stdout == f"{tmp_path / 'run'}\n"
    assert "chance" in told.stderr
    assert "2 (4)" in told.stderr
    printed = json.loads(isekai(*words, "--json").stdout)
    assert printed == read_json(tmp_path / "run" / "results.json", dict[str, object])
    assert len(printed["results"]) == 4


def test_a_mistake_on_the_command_line_is_one_line(tiny_dataset):
    told = isekai("bench", "--model", "chance", "--data", tiny_dataset, "--shots", "1,two")
    assert told.returncode == 1
    assert told.stderr == "isekai: --shots is '1,two'; it takes numbers with commas: 0,1,2,4\n"


def test_models_are_listed_with_what_they_are():
    listed = json.loads(isekai("models", "--json").stdout)
    assert {"prototype", "knn", "logreg", "chance", "scripted"} <= set(listed)
    assert all(about.endswith(".") for about in listed.values())
    assert "Nearest centroid" in isekai("models").stdout
