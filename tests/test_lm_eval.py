"""Results open in lm-evaluation-harness, and no table there shows an accuracy by itself."""

import json
import math
import re
from collections import defaultdict
from dataclasses import replace

import pytest

from isekai import lm_eval
from isekai.results import summarise
from isekai.runs import Run
from tests.exporting import KEY, small

# What lm_eval 0.4.13 writes whatever the tasks are (result_schema.py, evaluation_tracker.py).
HARNESS = {
    *("results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better"),
    *("n-samples", "config", "git_hash", "date", "task_hashes", "model_source", "model_name"),
    *("model_name_sanitized", "system_instruction", "system_instruction_sha"),
    *("fewshot_as_multiturn", "chat_template", "chat_template_sha"),
}


@pytest.fixture
def run(tiny_dataset) -> Run:
    return small(tiny_dataset)


def test_the_shape_is_the_harness_s_and_what_is_ours_stands_apart(run):
    told = lm_eval.results(run, "mixed")
    assert set(told) == HARNESS | {"isekai"}
    ids = [
        f"isekai_twin{control}_{shots}shot"
        for control in ("", "_blind", "_text", "_words-true-swap")
        for shots in (0, 1)
    ]
    assert list(told["results"]) == ids
    for key in ("configs", "versions", "n-shot", "higher_is_better", "n-samples", "task_hashes"):
        assert sorted(told[key]) == sorted(ids), key
    assert told["n-shot"]["isekai_twin_1shot"] == 2  # all examples before the question
    assert told["configs"]["isekai_twin_1shot"]["num_fewshot"] == 2
    ours = told["isekai"]["tasks"]["isekai_twin_1shot"]
    assert (ours["shots_per_class"], ours["n_support_images"], ours["chance"]) == (1, 2, 0.5)
    assert sum(ours["outcomes"].values()) == 24
    assert told["n-samples"]["isekai_twin_1shot"] == {
        "original": 24,
        "effective": 24 - ours["outcomes"]["failed"],
    }


def test_what_its_table_reads_is_numbers_and_shows_no_accuracy_without_all_it_rests_on(run):
    """The table prints every `metric,filter` of a task, and looks for `metric_stderr,filter`."""
    for model in run.config.models:
        for id, row in lm_eval.results(run, model)["results"].items():
            assert row["name"] == row["alias"] == id
            shown = {key: value for key, value in row.items() if "," in key}
            assert {key.partition(",")[2] for key in shown} == {"none"}
            for key, value in shown.items():
                unknown = key.endswith("_stderr,none") and value == "N/A"
                assert unknown or isinstance(value, int | float), key
            assert {"acc,none", "acc_low,none", "acc_high,none", "chance,none", "n,none"} <= set(
                shown
            )
            assert 0 <= row["acc_low,none"] <= row["acc,none"] <= row["acc_high,none"] <= 1
            assert row["n,none"] == row["sample_len"]


def test_the_standard_error_is_that_of_clusters_and_unknown_where_they_agree(run):
    row = lm_eval.results(run, "mixed")["results"]["isekai_twin_blind_1shot"]
    episodes = {episode.id: episode for episode in run.episodes}
    clusters: dict[str, list[bool]] = defaultdict(list)
    for one in run.predictions:
        episode = episodes[one.episode_id]
        cell = (one.model, episode.control, one.shots)
        if cell == ("mixed", "blind", 1) and one.outcome != "failed":
            clusters[episode.cluster].append(one.outcome == "correct")
    total, count = sum(map(len, clusters.values())), len(clusters)
    share = sum(map(sum, clusters.values())) / total
    assert row["acc,none"] == pytest.approx(share)
    squares = sum((sum(hits) - share * len(hits)) ** 2 for hits in clusters.values())
    expected = math.sqrt(count / (count - 1) * squares) / total
    assert row["acc_stderr,none"] == pytest.approx(expected)
    assert expected > 0
    assert lm_eval.standard_error([("a", True), ("a", False), ("b", True)]) == pytest.approx(2 / 9)
    assert lm_eval.standard_error([("a", True), ("b", True)]) is None
    assert lm_eval.standard_error([("a", True), ("a", False)]) is None


def test_a_cell_in_which_everything_failed_has_no_accuracy_but_is_there(run):
    rows = [replace(row, outcome="failed", answer=None, error="503") for row in run.predictions]
    cells = summarise(rows, run.episodes, run.config.models)
    broken = replace(run, predictions=tuple(rows), results=tuple(cells))
    told = lm_eval.results(broken, "mixed")
    row = told["results"]["isekai_twin_1shot"]
    assert "acc,none" not in row
    assert (row["n,none"], row["chance,none"]) == (0, 0.5)
    assert told["n-samples"]["isekai_twin_1shot"] == {"original": 24, "effective": 0}
    words = told["isekai"]["tasks"]["isekai_twin_1shot"]["in_words"]
    assert words == "all 24 queries failed; images a label: 1 (2 in all)"


def test_a_run_folder_holds_it_and_the_same_run_gives_the_same_bytes(run):
    for model in run.config.models:
        told = lm_eval.results(run, model)
        assert json.dumps(told) == json.dumps(lm_eval.results(run, model))
        found = [json.loads(p.read_text()) for p in sorted((run.folder / "lm_eval").glob("*.json"))]
        assert json.loads(json.dumps(told)) in found
    assert told["date"] is None


def test_no_key_of_a_user_is_in_it(run):
    told = json.dumps(lm_eval.results(run, "mixed"))
    assert KEY not in told
    assert "0123456789" not in told
    assert "https://[key removed]@example.org/v1" in told


def test_each_model_has_a_file_of_its_own_on_every_file_system():
    models = ["openai:org/x", "openai:org:x", "OPENAI:org/x", "chance", "../../etc", "con", "ü", ""]
    names = lm_eval.file_names(models)
    assert names["chance"] == "chance.json"
    assert len({name.lower() for name in names.values()}) == len(models)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*\.json", name) for name in names.values()), names
    assert names["con"] != "con.json"
