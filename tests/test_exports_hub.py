"""Results for the Hub are what its own library reads, and say what they rest on."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from isekai import export
from tests.exporting import small, small_run


@pytest.fixture
def results(tiny_dataset, tmp_path) -> Path:
    return export.run(
        small_run(tiny_dataset), to="hub-results", out=tmp_path / "out", hub_dataset="me/isekai-20"
    )


def test_the_hub_s_own_parser_reads_an_entry_a_task_and_shot_count_of_the_plain_episodes(
    tiny_dataset, results
):
    run = small(tiny_dataset)
    for model, folder in (("mixed", "mixed"), ("chance:7", "chance-7")):
        told = yaml.safe_load((results / folder / ".eval_results" / "isekai.yaml").read_text())
        entries = parse_eval_result_entries(told)
        plain = [one for one in run.results if one.model == model and one.control == "none"]
        assert [entry.task_id for entry in entries] == ["isekai_twin_0shot", "isekai_twin_1shot"]
        assert {entry.dataset_id for entry in entries} == {"me/isekai-20"}
        for entry, result in zip(entries, plain, strict=True):
            accuracy = result.metrics["accuracy"]
            assert entry.value == pytest.approx(accuracy.value, abs=1e-6)
            assert isinstance(entry.value, float)
            assert f"n {accuracy.n} in 3 clusters; chance 0.500" in entry.notes
            assert f"interval {accuracy.low:.3f} to {accuracy.high:.3f}" in entry.notes
            assert (
                f"images a label: {result.shots_per_class} ({2 * result.shots_per_class} in all)"
                in (entry.notes)
            )
            assert (entry.date, entry.verify_token, entry.source_url) == (None, None, None)


def test_it_is_told_what_failed_and_who_abstained(results):
    told = yaml.safe_load((results / "mixed" / ".eval_results" / "isekai.yaml").read_text())
    notes = " ".join(entry["notes"] for entry in told)
    assert "of 24 queries failed and count nowhere" in notes
    assert "abstained, which is not correct" in notes
