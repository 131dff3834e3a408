"""A run: what was asked of whom, as config.json has it, and all that its folder holds when read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isekai import files
from isekai.errors import DataError
from isekai.files import read_json, read_jsonl
from isekai.templates import Template
from isekai.types import Episode, Intervals, LabelWords, Prediction, Protocol, Ranking, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that the predictions of a run depend on: config.json. Equal configs, equal bytes."""

    dataset: str
    """Its fingerprint: neither its name nor where it lies matters."""
    models: Sequence[str]
    adapters: Mapping[str, Mapping[str, object]]
    """Model -> its adapter's provenance."""
    tasks: Sequence[str]
    protocol: Protocol
    shots: Sequence[int]
    episodes: int
    queries: int
    labels: LabelWords
    controls: Sequence[str]
    """Names of the controls asked beside the plain episodes, such as `words=true+blind`."""
    selections: Sequence[str]
    """Names of the support selections asked beside the plain episodes, such as `nearest`."""
    embedder: Mapping[str, object]
    """What selects support images; empty if nothing does."""
    template: Template
    seeds: Sequence[int]
    limit: int | None
    """Episodes of each task at most; None for all."""
    ranking: Ranking
    """How log-likelihoods of labels become an answer."""
    intervals: Intervals = "t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A complete run, as its folder holds it."""

    folder: Path
    config: Config
    episodes: tuple[Episode, ...]
    predictions: tuple[Prediction, ...]
    """In the order of models, then episodes, then shots and queries."""
    results: tuple[Result, ...]
    told: Mapping[str, Any]
    """results.json as it was read: its `verdicts`, `usage`, `failures`, `provenance`, ..."""


ASKED = ("config.json", "episodes.jsonl", "predictions.jsonl")
MADE = ("results.json", "table.md", "curve.*", "controls.*", "lm_eval/*.json")
"""What follows from the files above it, as patterns."""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run, by its name: what manifest.json holds of a complete one."""
    found = [folder / name for name in ASKED]
    found += sorted(path for pattern in MADE for path in folder.glob(pattern))
    return {
        path.relative_to(folder).as_posix(): files.sha256(path.read_bytes())
        for path in found
        if path.exists()
    }


def results(out: Path) -> list[Result]:
    """The results of a run that is complete."""
    found = read_json(out / "results.json", dict[str, object])
    return files.parse(list[Result], found.get("results"), str(out / "results.json"))


def read(folder: Path) -> Run:
    """The run in the folder; DataError if there is none, or one that isn't complete."""
    if not (folder / "config.json").exists():
        raise DataError(f"{folder}: no run (no config.json); make one with `isekai bench`")
    if not (folder / "manifest.json").exists():
        raise DataError(f"{folder}: not finished; run the same `isekai bench` command again")
    written = read_json(folder / "manifest.json", dict[str, Any]).get("sha256") or {}
    there = hashes(folder)
    for name in sorted({*written, *there}):
        if written.get(name) != there.get(name):
            raise DataError(
                f"{folder / name}: not as the run left it; run the same `isekai bench` command "
                "again, or `isekai score` if its predictions are whole"
            )
    return Run(
        folder=folder,
        config=read_json(folder / "config.json", Config),
        episodes=tuple(read_jsonl(folder / "episodes.jsonl", Episode)),
        predictions=tuple(read_jsonl(folder / "predictions.jsonl", Prediction)),
        results=tuple(results(folder)),
        told=read_json(folder / "results.json", dict[str, object]),
    )
