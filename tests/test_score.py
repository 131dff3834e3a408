"""A run is read again without its models; what was said stays."""

import pytest

from isekai import bench, files, runs, score
from isekai.errors import DataError, IsekaiError
from isekai.setup import Setup
from isekai.types import Response


class Wordy:
    """Says `label_logprobs` whose sums favour the first label, and the tokens the second."""

    def __init__(self) -> None:
        self.provenance = {"revision": "1"}

    def respond(self, sweep):
        first, second = sweep.labels
        for _ in range(len(sweep.cuts) * len(sweep.queries)):
            yield Response(
                text=first,
                label_logprobs={first: -1.0, second: -2.0},
                label_tokens={first: 1, second: 4},
            )


@pytest.fixture
def run(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    setup = Setup(models=("chance",), shots=(1, 2), episodes=2, data=str(tiny_dataset))
    return bench.run(setup, out=tmp_path / "run", adapters=[Wordy()])


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_scoring_as_before_changes_no_byte(run, capfd):
    before = content(run)
    score.run(run)
    assert content(run) == before
    assert "0 came out otherwise" in capfd.readouterr().err


def test_another_ranking_gives_other_answers_from_the_same_words(run):
    before = runs.read(run)
    after = runs.read(score.run(run, ranking="mean"))
    assert after.config.ranking == "mean"
    assert [row.text for row in after.predictions] == [row.text for row in before.predictions]
    for a, b in zip(before.predictions, after.predictions, strict=True):
        assert (a.answer != b.answer) == (a.model == "wordy")
    assert after.told["provenance"] == before.told["provenance"]
    assert content(score.run(run, ranking="sum")) == content(run)
    assert runs.read(run) == before


def test_a_ranking_that_the_answers_do_not_allow_leaves_the_run_as_it_was(run):
    before = content(run)
    with pytest.raises(IsekaiError, match="ask the control 'text', too"):
        score.run(run, ranking="prior")
    assert content(run) == before


def test_one_that_died_midway_is_made_whole_by_the_same_command(run):
    whole = content(score.run(run, ranking="mean"))
    score.run(run, ranking="sum")
    for name in ("manifest.json", "table.md", "curve.png"):
        (run / name).unlink()
    assert content(score.run(run, ranking="mean")) == whole


def test_a_run_that_was_changed_by_hand_is_not_shown(run):
    for name in ("results.json", "predictions.jsonl", "episodes.jsonl", "table.md"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match=f"{name}: not as the run left it"):
            runs.read(run)
        (run / name).unlink()
        with pytest.raises(DataError, match=f"{name}: not as the run left it"):
            runs.read(run)
        (run / name).write_bytes(whole)
    assert len(runs.read(run).predictions) == 2 * 6 * 2 * 8


def test_what_is_no_finished_run_is_told(run, tmp_path):
    with pytest.raises(DataError, match="no run"):
        score.run(tmp_path / "nowhere")
    rows = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    files.write_bytes(run / "predictions.jsonl", b"".join(rows[:-1]))
    with pytest.raises(DataError, match="not finished; run the same `isekai bench`"):
        score.run(run)
