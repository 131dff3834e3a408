"""The score step: reads the answers of a run again, without asking its models."""

from dataclasses import replace
from pathlib import Path

from isekai import files, progress, recording, runs
from isekai.errors import DataError
from isekai.files import read_json, read_jsonl
from isekai.types import Episode, Intervals, Prediction, Ranking


def run(
    folder: Path, *, ranking: Ranking | None = None, intervals: Intervals | None = None
) -> Path:
    """Score all predictions of the run in `folder` anew, and write what follows from them.

    `ranking` is how log-likelihoods become answers, `intervals` how these are made; without them
    as the run did. What the models said, the episodes and the provenance stay. Killed midway, the
    same command makes it whole.
    """
    if not (folder / "config.json").exists():
        raise DataError(f"{folder}: no run (no config.json); make one with `isekai bench`")
    with files.lock(folder), files.explained(folder):
        files.sweep_temporaries(folder)
        config = read_json(folder / "config.json", runs.Config)
        episodes = read_jsonl(folder / "episodes.jsonl", Episode)
        predictions = read_jsonl(folder / "predictions.jsonl", Prediction)
        there = recording.answered(folder, config.models, episodes, failed=True)
        missing = len(config.models) * len(episodes) - len(there)
        if missing or not (folder / "results.json").exists():
            raise DataError(
                f"{folder}: not finished; run the same `isekai bench` command again first"
            )
        told = read_json(folder / "results.json", dict[str, object])
        before = [row.outcome for row in predictions]
        config = replace(
            config,
            ranking=ranking or config.ranking,
            intervals=intervals or config.intervals,
        )
        rows = recording.conclude(
            folder,
            config,
            episodes,
            predictions,
            provenance=files.parse(dict[str, object], told.get("provenance"), "provenance"),
            wall=told.get("last_process"),
        )
    changed = sum(a != row.outcome for a, row in zip(before, rows, strict=True))
    progress.tell(f"{folder}: {len(rows)} answers read again, {changed} came out otherwise")
    return folder
