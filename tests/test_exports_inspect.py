"""Logs open in inspect_ai, and its task package asks the same questions and reads them alike."""

import base64
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from isekai import dataset as datasets
from isekai import export
from isekai.errors import IsekaiError
from isekai.exports import inspect_entries, inspect_log
from isekai.exports.order import Order
from isekai.runs import Run
from isekai.statistics import metrics
from isekai.templates import fold
from isekai.types import Prediction
from tests.exporting import HOSTILE, KEY, small, small_run

LETTERS = {"correct": "C", "wrong": "I", "abstain": "N"}


@pytest.fixture(scope="module")
def logs(tiny_dataset, tmp_path_factory) -> Path:
    asked = {"to": "inspect-log", "models": ("mixed",), "controls": ("none", "blind")}
    return export.run(small_run(tiny_dataset), out=tmp_path_factory.mktemp("logs") / "out", **asked)


def predictions(run: Run, control: str, shots: int) -> list[Prediction]:
    asked = {episode.id for episode in run.episodes if episode.control == control}
    return [
        row
        for row in run.predictions
        if (row.model, row.shots) == ("mixed", shots) and row.episode_id in asked
    ]


# ---------------------------------------------------------------- logs


def test_a_log_reads_back_as_the_predictions_of_its_cell(tiny_dataset, logs):
    from inspect_ai.log import read_eval_log

    run = small(tiny_dataset)
    log = read_eval_log(str(logs / "mixed" / "isekai_twin_blind_1shot.eval"))
    assert (log.status, log.eval.task, log.eval.model) == (
        "success",
        "isekai_twin_blind_1shot",
        "mixed",
    )
    rows = predictions(run, "blind", 1)
    assert len(log.samples) == len(rows) == 24
    for entry, row in zip(log.samples, rows, strict=True):
        assert entry.metadata["episode"] == row.episode_id
        assert entry.metadata["query"] == row.query
        assert entry.metadata["outcome"] == row.outcome
        assert (entry.metadata["control"], entry.metadata["shots_per_class"]) == ("blind", 1)
        assert entry.metadata["cluster"] in ("fruit", "stone", "plant")
        assert entry.target == row.target
        score = entry.scores["isekai"]
        assert score.answer == row.answer
        if row.outcome == "failed":
            assert score.value != score.value  # inspect_ai's mark for what has no score
            assert entry.error.message
        else:
            assert (score.value, entry.error) == (LETTERS[row.outcome], None)
    assert {row.outcome for row in rows} == {"correct", "wrong", "abstain", "failed"}


def test_what_was_said_is_kept_as_text_and_a_failure_with_its_reason(tiny_dataset, logs):
    from inspect_ai.log import read_eval_log

    entries = {
        control: read_eval_log(str(logs / "mixed" / f"isekai_twin{control}_{shots}shot.eval"))
        for control, shots in (("", 0), ("_blind", 1))
    }
    said = [entry.output.completion for entry in entries["_blind"].samples]
    assert HOSTILE.replace(KEY, "[key removed]") in said
    assert "Let me think" in said
    errors = {entry.error.message for entry in entries[""].samples if entry.error}
    assert errors == {"503 for Bearer [key removed]"}
    cut_off = [entry for entry in entries["_blind"].samples if entry.error]
    assert {entry.error.message for entry in cut_off} == {"cut off before it answered"}
    assert {entry.output.stop_reason for entry in cut_off} == {"max_tokens"}


def test_the_whole_episode_is_in_the_messages_with_each_picture_once(tiny_dataset, logs):
    from inspect_ai.log import read_eval_log, resolve_sample_attachments

    run, image = small(tiny_dataset), datasets.load(tiny_dataset).image
    log = read_eval_log(str(logs / "mixed" / "isekai_twin_1shot.eval"))
    sweeps = {
        episode.id: fold(episode, run.config.template, image)
        for episode in run.episodes
        if episode.control == "none"
    }
    for entry in log.samples:
        sweep = sweeps[entry.metadata["episode"]]
        turns = [*sweep.support[:2], sweep.queries[entry.metadata["query"]]]
        assert len(entry.attachments) == len({turn.image.id for turn in turns}) == 3
        whole = resolve_sample_attachments(entry, "full")
        shown = [
            base64.b64decode(part.image.partition("base64,")[2])
            for message in whole.input
            for part in message.content
            if part.type == "image"
        ]
        assert shown == [turn.image.data for turn in turns]
        roles = [message.role for message in whole.messages]
        assert roles[:5] == ["user", "assistant", "user", "assistant", "user"]
        assert roles[5:] == ([] if whole.output.error else ["assistant"])


def test_the_numbers_of_a_log_are_those_of_the_results_never_an_accuracy_alone(tiny_dataset, logs):
    from inspect_ai.log import read_eval_log

    run = small(tiny_dataset)
    found = {path.stem: read_eval_log(str(path), header_only=True) for path in logs.rglob("*.eval")}
    assert set(found) == {
        f"isekai_twin{control}_{shots}shot" for control in ("", "_blind") for shots in (0, 1)
    }
    for result in run.results:
        if result.model != "mixed" or result.control not in ("none", "blind"):
            continue
        control = "" if result.control == "none" else "_blind"
        log = found[f"isekai_twin{control}_{result.shots_per_class}shot"]
        (score,) = log.results.scores
        accuracy = result.metrics["accuracy"]
        told = {name: metric.value for name, metric in score.metrics.items()}
        assert told["accuracy"] == accuracy.value
        assert (told["lower"], told["upper"]) == (accuracy.low, accuracy.high)
        assert (told["n"], told["chance"]) == (accuracy.n, 0.5)
        assert (score.scored_samples, score.unscored_samples) == (
            accuracy.n,
            result.outcomes["failed"],
        )
        assert log.results.completed_samples == accuracy.n
        assert f"n {accuracy.n} in 3 clusters; chance 0.500" in log.eval.metadata["in_words"]
    ids = {(log.eval.task_id, log.eval.eval_id) for log in found.values()}
    assert len(ids) == 4
    assert len({log.eval.run_id for log in found.values()}) == 1


def test_tokens_are_counted_as_inspect_ai_counts_them(logs):
    from inspect_ai.log import read_eval_log

    log = read_eval_log(str(logs / "mixed" / "isekai_twin_0shot.eval"))
    usage = log.stats.model_usage["mixed"]
    answered = sum(entry.output.usage is not None for entry in log.samples)
    assert 0 < answered < len(log.samples)
    assert usage.input_tokens == 60 * answered  # those from the cache are apart
    assert usage.input_tokens_cache_read == 40 * answered
    assert (usage.output_tokens, usage.total_tokens) == (2 * answered, 102 * answered)


def test_inspect_lists_the_logs_with_their_tasks(logs):
    from inspect_ai.log import list_eval_logs

    listed = list_eval_logs(str(logs))
    assert sorted(info.task for info in listed) == sorted(
        path.stem for path in logs.rglob("*.eval")
    )


def test_a_log_without_pictures_needs_no_dataset_and_names_them(tiny_dataset, tmp_path):
    from inspect_ai.log import read_eval_log

    asked = {"to": "inspect-log", "models": ("mixed",), "controls": ("none", "blind", "text")}
    folder = small_run(tiny_dataset)
    out = export.run(folder, out=tmp_path, images=False, data=str(tmp_path / "gone"), **asked)
    run = small(tiny_dataset)
    for control, shown in (("", None), ("_blind", "[grey picture]"), ("_text", "")):
        log = read_eval_log(str(out / "mixed" / f"isekai_twin{control}_1shot.eval"))
        entry = log.samples[0]
        assert not entry.attachments
        texts = [part.text for part in entry.input[0].content]
        episode = next(one for one in run.episodes if one.id == entry.metadata["episode"])
        named = f"[picture {episode.support[0].image_id[:12]}]" if shown is None else shown
        assert texts == [*filter(None, [named]), "What is this called?"]


def test_a_log_too_large_for_any_viewer_is_refused_with_what_to_do(
    tiny_dataset, tmp_path, monkeypatch
):
    monkeypatch.setattr(inspect_entries, "MOST_BYTES", 1_000)
    with pytest.raises(IsekaiError, match="--no-images"):
        export.run(small_run(tiny_dataset), to="inspect-log", out=tmp_path, controls=("none",))


def test_labels_with_markup_stay_labels(tiny_dataset):
    """What a log holds is data: nothing is interpreted, and file names don't come from labels."""
    run = small(tiny_dataset)
    episode = run.episodes[0]
    labels = dict(
        zip(episode.labels, ("<img src=x onerror=alert(1)>", "../../etc/passwd"), strict=True)
    )
    rows = [
        replace(row, target=labels[episode.queries[row.query].concept], answer=None)
        for row in run.predictions
        if (row.model, row.episode_id) == ("mixed", episode.id)
    ]
    odd = replace(run, episodes=(replace(episode, labels=labels),), predictions=tuple(rows))
    order = Order(
        run=odd,
        models=("mixed",),
        image=datasets.load(tiny_dataset).image,
        images=True,
        hub_dataset="",
        finished="2026-01-01T00:00:00+00:00",
    )
    log = inspect_log.log(order, "mixed", "isekai_twin_1shot")
    answers = {message.text for entry in log.samples for message in entry.input[1::2]}
    assert answers == {f"This is called {label}." for label in labels.values()}
    assert {entry.target for entry in log.samples} == set(labels.values())
    assert {entry.id for entry in log.samples} == {f"twin-fruit-0-000.q{n}" for n in range(4)}


# ---------------------------------------------------------------- the task package

ASK = """
import json, sys
from inspect_ai import eval
from inspect_ai.model import ModelOutput, ModelUsage, get_model

def answer(input, tools, tool_choice, config):
    "Says the label that was seen last; breaks at one picture, rambles at another."
    said = [message for message in input if message.role == "assistant"]
    images = [part.image for message in input for part in message.content
              if not isinstance(part, str) and part.type == "image"]
    assert all(image.startswith(("data:image/png;base64,", "/")) for image in images), images
    if len(said) != 2:
        text = "I don't know."
    elif said[-1].text == "This is called BREAK.":
        raise RuntimeError("503")
    else:
        text = f"<think>perhaps {said[0].text}</think> {said[-1].text}"
    output = ModelOutput.from_content(model="mockllm/model", content=text)
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    return output

model = get_model("mockllm/model", custom_outputs=answer)
task, args, logs = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
(log,) = eval(f"{task}@isekai", model=model, task_args=args, log_dir=logs, display="none")
print(json.dumps({
    "status": log.status,
    "metrics": {n: m.value for s in log.results.scores for n, m in s.metrics.items()},
    "counted": [(s.scored_samples, s.unscored_samples) for s in log.results.scores],
    "entries": [
        {"id": e.id, "facts": e.metadata, "target": e.target, "roles": [m.role for m in e.messages],
         "value": e.scores["isekai"].value if e.scores else None,
         "answer": e.scores["isekai"].answer if e.scores else None}
        for e in log.samples
    ],
}))
"""


@pytest.fixture(scope="module")
def package(tiny_dataset, tmp_path_factory) -> Path:
    return export.run(
        small_run(tiny_dataset), to="inspect-task", out=tmp_path_factory.mktemp("task") / "package"
    )


def ask(package: Path, logs: Path, **args) -> dict:
    """Run the package as a user does, in a process of its own."""
    command = (sys.executable, "-c", ASK, str(package / "task.py"), json.dumps(args), str(logs))
    done = subprocess.run(command, capture_output=True, text=True, cwd=package, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_package_asks_whole_episodes_and_reads_answers_as_isekai_does(
    tiny_dataset, package, tmp_path
):
    """The last label of two is said: right as often as the episodes have it, and never in doubt."""
    run = small(tiny_dataset)
    told = ask(package, tmp_path, control="none")
    assert told["status"] == "success"
    plain = {episode.id: episode for episode in run.episodes if episode.control == "none"}
    assert len(told["entries"]) == 2 * 24
    hits: dict[int, list[tuple[str, bool]]] = {0: [], 1: []}
    for entry in told["entries"]:
        facts = entry["facts"]
        episode = plain[facts["episode"]]
        shots, labels = facts["shots_per_class"], list(episode.labels.values())
        assert entry["target"] == episode.labels[episode.queries[facts["query"]].concept]
        assert entry["roles"] == ["user", "assistant"] * (2 * shots + 1)
        assert facts["labels"] == labels
        last = episode.labels[episode.support[1].concept] if shots else None
        assert entry["answer"] == last
        assert entry["value"] == ("N" if last is None else "C" if last == entry["target"] else "I")
        hits[shots].append((episode.cluster, last == entry["target"]))
    for shots, found in hits.items():
        share = metrics.share(found)
        cell = f"isekai_twin_{shots}shot"
        assert told["metrics"][cell] == share.value
        assert told["metrics"][f"{cell} lower"] == pytest.approx(share.low)
        assert told["metrics"][f"{cell} upper"] == pytest.approx(share.high)
        assert told["metrics"][f"{cell} n"] == share.n == 24
        assert told["metrics"][f"{cell} clusters"] == share.clusters == 3
        assert told["metrics"][f"{cell} chance"] == 0.5
    assert set(told["metrics"]) == {
        f"isekai_twin_{shots}shot{what}"
        for shots in (0, 1)
        for what in ("", " lower", " upper", " n", " clusters", " chance")
    }


def test_a_request_that_fails_counts_nowhere_and_ends_nothing(package, tmp_path):
    broken = shutil.copytree(package, tmp_path / "package")
    rows = [json.loads(line) for line in (broken / "data.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["facts"]["cell"] == "isekai_twin_blind_1shot"]
    kept[0]["messages"][3]["content"][0]["text"] = "This is called BREAK."
    (broken / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    told = ask(broken, tmp_path, control="blind", shots=1, task="twin")
    assert told["status"] == "success"
    assert told["metrics"]["isekai_twin_blind_1shot n"] == 23
    assert sum(entry["value"] is None for entry in told["entries"]) == 1


def test_the_package_holds_data_as_data_and_code_as_it_was_reviewed(package):
    reviewed = Path(export.__file__).parent / "exports" / "packages" / "inspect_task.py"
    assert (package / "task.py").read_bytes() == reviewed.read_bytes()
    rows = [json.loads(line) for line in (package / "data.jsonl").read_text().splitlines()]
    named = {
        part["image"]
        for row in rows
        for message in row["messages"]
        for part in message["content"]
        if part["type"] == "image"
    }
    assert named == {path.name for path in (package / "images").iterdir()}
    assert len({row["id"] for row in rows}) == len(rows) == 24 * 2 * 4
    for row in rows:
        assert row["messages"][-1]["role"] == "user"
        assert row["target"] in row["facts"]["labels"]


@pytest.mark.parametrize(
    ("before", "args", "told"),
    [
        ("", {"control": "blnd"}, "there are those of isekai_twin_0shot, isekai_twin_1shot"),
        ("damage", {}, "its bytes are not those that it is named by"),
        ("import sys; sys.modules['isekai'] = None", {}, "pip install isekai-bench"),
    ],
)
def test_the_package_says_what_is_wrong(package, tmp_path, before, args, told):
    broken = shutil.copytree(package, tmp_path / "package")
    if before == "damage":
        for picture in (broken / "images").iterdir():
            picture.write_bytes(b"other bytes")
        before = ""
    code = f"{before}\nimport runpy\nrunpy.run_path('task.py')['episodes'](**{args!r})"
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=broken, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]
