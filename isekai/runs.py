"""The folder of a run: what it holds, what of it is there, and the results that follow from it.

config.json (what was asked for, as resolved), episodes.jsonl (complete before the first model is
asked), predictions.jsonl (grows by whole episodes), then results.json, table.md, curve.png,
curve.svg and, last, manifest.json.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isekai import files, metrics, report
from isekai.errors import DataError
from isekai.files import read_json, read_jsonl
from isekai.templates import Template
from isekai.types import Episode, LabelWords, Prediction, Protocol, Ranking, Result

OUTPUTS = ("results.json", "table.md", "curve.png", "curve.svg")
FILES = ("config.json", "episodes.jsonl", "predictions.jsonl", *OUTPUTS, "manifest.json")

_PACKAGES = ("numpy", "scipy", "pyarrow", "pillow", "torch", "timm", "scikit-learn")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A complete run, as its folder holds it."""

    folder: Path
    config: Config
    episodes: tuple[Episode, ...]
    predictions: tuple[Prediction, ...]
    """In the order of models, then episodes, then shots and queries."""
    results: tuple[Result, ...]
    told: Mapping[str, object]
    """results.json as it was read: `provenance`, `usage`, `verdicts`, `failures`, `last_process`."""


def refuse_foreign(out: Path) -> None:
    """Never write among files that are not a run's."""
    with files.explained(out):
        if not out.is_dir() or (out / "config.json").exists():
            return
        others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
    if others:
        raise DataError(
            f"{out}: holds '{others[0]}' but no config.json of a run; give --out a new or empty "
            "folder"
        )


def settle(out: Path, config: Config, episodes: Sequence[Episode], *, force: bool) -> bool:
    """Make `out`, which is locked, the folder of this very run; True if nothing is left to do."""
    path = out / "config.json"
    if force:
        for name in reversed(FILES):
            (out / name).unlink(missing_ok=True)
    if path.exists():
        different = _difference(read_json(path, dict[str, object]), files.plain(config))
        if different:
            raise DataError(
                f"{out}: holds another run: {different}; choose another --out, or --force to start "
                "over"
            )
        saved = out / "episodes.jsonl"
        if saved.exists() and read_jsonl(saved, Episode) != list(episodes):
            raise DataError(
                f"{saved}: another version drew these episodes for the same config; choose another "
                "--out, or --force to start over"
            )
    else:
        files.write_json(path, config)
    files.write_jsonl(out / "episodes.jsonl", episodes)
    manifest = out / "manifest.json"
    if all((out / name).exists() for name in FILES):
        told = read_json(manifest, dict[str, object])
        if told.get("failed") == 0 and told.get("sha256") == _hashes(out):
            return True
        manifest.unlink()  # what failed or was damaged is made again: until then it isn't complete
    return False


def _difference(there: object, here: object, key: str = "its config") -> str:
    """The first setting in which two configs differ, with both values; empty if none does."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            path = name if key == "its config" else f"{key}.{name}"
            if found := _difference(there.get(name), here.get(name), path):
                return found
        return ""
    return f"{key} is {there!r} there and {here!r} here" if there != here else ""


def answered(
    out: Path, models: Iterable[str], episodes: Sequence[Episode]
) -> dict[tuple[str, str], list[Prediction]]:
    """(model, episode id) -> its predictions, where all are there and none has failed."""
    found: dict[tuple[str, str], list[Prediction]] = {}
    for row in read_jsonl(out / "predictions.jsonl", Prediction):
        found.setdefault((row.model, row.episode_id), []).append(row)
    expected = {
        episode.id: [(shots, q) for shots in episode.shots for q in range(len(episode.queries))]
        for episode in episodes
    }
    known = set(models)
    return {
        (model, id): rows
        for (model, id), rows in found.items()
        if model in known
        and [(row.shots, row.query) for row in rows] == expected.get(id)
        and all(row.outcome != "failed" for row in rows)
    }


def summarise(
    predictions: Sequence[Prediction], episodes: Sequence[Episode], models: Sequence[str]
) -> list[Result]:
    """A result for every task, model and shot count, in that order."""
    known = {episode.id: episode for episode in episodes}
    asked: dict[tuple[str, str, int], list[Prediction]] = {}
    for row in predictions:
        asked.setdefault((known[row.episode_id].task, row.model, row.shots), []).append(row)
    found = []
    for task in dict.fromkeys(episode.task for episode in episodes):
        way = len(next(episode for episode in episodes if episode.task == task).labels)
        for model in models:
            for shots in sorted({k for t, m, k in asked if (t, m) == (task, model)}):
                rows = asked[task, model, shots]
                outcomes = [(known[row.episode_id].cluster, row.outcome) for row in rows]
                measured = {
                    "accuracy": metrics.accuracy(outcomes),
                    "abstain": metrics.abstain_share(outcomes),
                }
                found.append(
                    Result(
                        model=model,
                        task=task,
                        shots_per_class=shots,
                        n_support_images=way * shots,
                        metrics={name: value for name, value in measured.items() if value},
                        outcomes=metrics.tally(outcomes),
                        chance=1 / way,
                    )
                )
    return found


def conclude(
    out: Path,
    config: Config,
    episodes: Sequence[Episode],
    *,
    dataset: Mapping[str, object],
    wall: Mapping[str, object],
) -> None:
    """Write the results, then the table and the curves, then the manifest.

    `dataset` says what the dataset is called and where it lay, `wall` what this process did and
    how long it took, as opposed to the runs it goes on from.
    """
    from isekai import plots  # half a second that a refused command need not wait for

    predictions = read_jsonl(out / "predictions.jsonl", Prediction)
    cells = summarise(predictions, episodes, config.models)
    reasons = Counter(f"{row.model}: {row.error}" for row in predictions if row.error)
    files.write_json(
        out / "results.json",
        {
            "results": cells,
            "failures": dict(sorted(reasons.items())),
            "provenance": {
                "dataset": {"fingerprint": config.dataset, **dataset},
                "adapters": config.adapters,
                "seed": config.seed,
                "environment": files.environment(*_PACKAGES),
            },
            "last_process": wall,  # not of the runs it goes on from
        },
    )
    files.write_text(out / "table.md", report.markdown(cells))
    for suffix, drawn in plots.curves(cells).items():
        files.write_bytes(out / f"curve.{suffix}", drawn)
    files.write_json(
        out / "manifest.json",
        {
            "kind": "run",
            "complete": True,
            "episodes": len(episodes),
            "predictions": len(predictions),
            "failed": sum(row.outcome == "failed" for row in predictions),
            "sha256": _hashes(out),
        },
    )


def _hashes(out: Path) -> dict[str, str]:
    """What a complete run is checked against when it is found again."""
    names = ("config.json", "episodes.jsonl", "predictions.jsonl")
    return {name: files.sha256((out / name).read_bytes()) for name in names}


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
    return Run(
        folder=folder,
        config=read_json(folder / "config.json", Config),
        episodes=tuple(read_jsonl(folder / "episodes.jsonl", Episode)),
        predictions=tuple(read_jsonl(folder / "predictions.jsonl", Prediction)),
        results=tuple(results(folder)),
        told=read_json(folder / "results.json", dict[str, object]),
    )
