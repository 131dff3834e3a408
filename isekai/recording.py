"""Keeps the folder of a run: what it holds, what of it is there, and what follows from it.

config.json (what was asked for, as resolved), episodes.jsonl (complete before the first model is
asked), predictions.jsonl (grows by whole episodes), then results.json, table.md, curve.* and
controls.* (the plots), lm_eval/ (the results again, as lm-evaluation-harness writes them) and,
last, manifest.json.
"""

import os
import platform
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from isekai import files, progress
from isekai.errors import DataError
from isekai.files import read_json, read_jsonl
from isekai.reports import tables
from isekai.results import score, summarise
from isekai.runs import ASKED, MADE, Config, Run, hashes
from isekai.types import Episode, Prediction
from isekai.verdict import verdicts

_PACKAGES = (
    *("numpy", "scipy", "pyarrow", "pillow", "torch", "timm", "scikit-learn"),
    *("openai", "anthropic", "transformers"),
)


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
        remove(out)
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
    if manifest.exists():
        told = read_json(manifest, dict[str, object])
        if told.get("failed") == 0 and told.get("sha256") == hashes(out):
            return True
        manifest.unlink()  # what failed or was damaged is made again: until then it isn't complete
    return False


def remove(out: Path) -> None:
    """Take away all that a run wrote here, the manifest first: no half is taken for a whole."""
    for pattern in ("manifest.json", "report/*", *MADE, *reversed(ASKED)):
        for path in out.glob(pattern):
            path.unlink(missing_ok=True)


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
    out: Path, models: Iterable[str], episodes: Sequence[Episode], *, failed: bool = False
) -> dict[tuple[str, str], list[Prediction]]:
    """(model, episode id) -> its predictions, where all are there and none has failed.

    With `failed`, those that failed count, too: as answers that are there.
    """
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
        and (failed or all(row.outcome != "failed" for row in rows))
    }


def conclude(
    out: Path,
    config: Config,
    episodes: Sequence[Episode],
    predictions: Sequence[Prediction],
    *,
    provenance: Mapping[str, object],
    wall: object,
) -> Sequence[Prediction]:
    """Write the scored predictions and all that follows from them, the manifest last; return them.

    `wall` says what the last process did and how long it took, as opposed to the runs it goes on
    from. Equal predictions give equal bytes, but for `wall`.
    """
    from isekai import lm_eval
    from isekai.reports import plots  # half a second that a refused command need not wait for

    predictions = score(predictions, episodes, config.ranking)  # may refuse: nothing changed yet
    _tell_unranked(predictions, config)
    (out / "manifest.json").unlink(missing_ok=True)
    files.write_json(out / "config.json", config)
    files.write_jsonl(out / "predictions.jsonl", predictions)
    cells = summarise(
        predictions,
        episodes,
        config.models,
        released_metric=config.protocol == "paper",
        intervals=config.intervals,
    )
    judged = verdicts(predictions, episodes, config.models, config.labels)
    told: dict[str, object] = {
        "results": cells,
        "verdicts": judged,
        "usage": _usage(predictions),
        "failures": _failures(predictions),
        "provenance": provenance,
        "last_process": wall,
    }
    files.write_json(out / "results.json", told)
    files.write_text(out / "table.md", tables.markdown(cells, files.plain(judged)))
    for name, drawn in (("curve", plots.curves(cells)), ("controls", plots.controls(cells))):
        for suffix, data in drawn.items():
            files.write_bytes(out / f"{name}.{suffix}", data)
    run = Run(
        folder=out,
        config=config,
        episodes=tuple(episodes),
        predictions=tuple(predictions),
        results=tuple(cells),
        told=files.plain(told),
    )
    for model, name in lm_eval.file_names(config.models).items():
        files.write_json(out / "lm_eval" / name, lm_eval.results(run, model))
    files.write_json(
        out / "manifest.json",
        {
            "kind": "run",
            "complete": True,
            "episodes": len(episodes),
            "predictions": len(predictions),
            "failed": sum(row.outcome == "failed" for row in predictions),
            "sha256": hashes(out),
        },
    )
    return predictions


def _tell_unranked(predictions: Iterable[Prediction], config: Config) -> None:
    """Say whose answers a ranking did not touch."""
    ranked = {row.model for row in predictions if row.label_logprobs is not None}
    if config.ranking != "sum":
        for model in config.models:
            if model not in ranked:
                progress.tell(f"{model} gives no log-likelihoods: its answers were read as text")


def provenance(config: Config, dataset: Mapping[str, object]) -> dict[str, object]:
    """What made a run; `dataset` says what the dataset is called and how it is found again."""
    return {
        "dataset": {"fingerprint": config.dataset, **dataset},
        "adapters": config.adapters,
        "seeds": config.seeds,
        "environment": files.environment(*_PACKAGES),
        "hardware": _hardware(),
    }


def _usage(predictions: Iterable[Prediction]) -> dict[str, dict[str, float]]:
    """Model -> the sum of what its answers took, rounded to a millionth."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in predictions:
        for key, value in (row.usage or {}).items():
            sums[row.model][key] += value
    return {
        model: {key: round(value, 6) for key, value in sorted(used.items())}
        for model, used in sums.items()
    }


def _failures(predictions: Iterable[Prediction]) -> dict[str, int]:
    reasons = Counter(
        f"{row.model}: {row.error or _unread(row)}"
        for row in predictions
        if row.outcome == "failed"
    )
    return dict(sorted(reasons.items()))


def _unread(row: Prediction) -> str:
    """Why an answer that came is no answer."""
    if row.label_logprobs is not None:
        return "no log-likelihoods under the control 'text', and so no prior to take off"
    return "cut off before it answered"


def _hardware() -> dict[str, object]:
    """What the models ran on, as far as this process can see: a server has its own."""
    told: dict[str, object] = {"machine": platform.machine(), "cores": os.cpu_count()}
    torch = sys.modules.get("torch")  # a model that runs here has loaded it
    if torch is not None and torch.cuda.is_available():
        told["gpus"] = [
            torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
        ]
    return told
