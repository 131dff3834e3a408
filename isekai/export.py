"""The export step: writes a run in the forms that others' tools open."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from isekai import dataset as datasets
from isekai import files, plugins, runs
from isekai.dataset import Dataset
from isekai.errors import DataError, IsekaiError, did_you_mean
from isekai.exports import writing
from isekai.exports.order import Files, Order
from isekai.runs import Run
from isekai.types import EncodedImage

FORMATS = {
    "lm-eval": "lm_eval",
    "inspect-log": "inspect_log",
    "inspect-task": "inspect_task",
    "lmms-task": "lmms_task",
    "hub-results": "hub_results",
}
"""What `--to` takes -> the module of `isekai.exports` that knows it."""


def run(
    folder: Path,
    *,
    to: str,
    out: Path | None = None,
    models: Sequence[str] = (),
    controls: Sequence[str] = (),
    data: str | None = None,
    images: bool = True,
    hub_dataset: str = "",
) -> Path:
    """Write the run in `folder` as `to` says, and return `out`, by default `folder/exports/TO`.

    `models` and `controls` leave all others out (`none` is the plain episodes). `data` says where
    the dataset lies now, if not where the run found it; `images=False` leaves pictures out of logs;
    `hub_dataset` is the dataset's id on the Hub. An export may be written again to its own folder;
    files that are not its own, or were changed since, are refused before anything is written.
    """
    if to not in FORMATS:
        raise IsekaiError(f"no export is called '{to}'{did_you_mean(to, FORMATS)}")
    found = runs.read(folder)
    order = Order(
        run=_only(found, models, controls),
        models=tuple(dict.fromkeys(models)) or tuple(found.config.models),
        image=_pictures(found, data),
        images=images,
        hub_dataset=hub_dataset,
        finished=_finished(folder),
    )
    out = out or folder / "exports" / to
    try:
        with files.lock(out), files.explained(out):
            files.sweep_temporaries(out)
            made: Files = importlib.import_module(f"isekai.exports.{FORMATS[to]}").files(order)
            writing.write(out, to, made)
    except ModuleNotFoundError as error:
        raise plugins.missing(error, f"--to {to}") from error
    return out


def _only(found: Run, models: Sequence[str], controls: Sequence[str]) -> Run:
    """The run with these models and controls alone; with all of them where none is named."""
    asked = dict.fromkeys(episode.control for episode in found.episodes)
    _refuse_unknown(found, "model", models, found.config.models)
    _refuse_unknown(found, "control", controls, list(asked))
    kept_models, kept = set(models or found.config.models), set(controls or asked)
    episodes = {one.id: one for one in found.episodes if one.control in kept}
    return replace(
        found,
        episodes=tuple(episodes.values()),
        predictions=tuple(
            row
            for row in found.predictions
            if row.model in kept_models and row.episode_id in episodes
        ),
        results=tuple(
            one for one in found.results if one.model in kept_models and one.control in kept
        ),
    )


def _refuse_unknown(found: Run, kind: str, given: Sequence[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            near = did_you_mean(name, known)
            raise IsekaiError(f"{found.folder}: no {kind} is called '{name}' here{near}")


def _pictures(found: Run, data: str | None) -> Callable[[str], EncodedImage]:
    """Fetches pictures of the run's own dataset, which is opened when the first one is wanted."""

    @cache
    def dataset() -> Dataset:
        where = data or str(found.told["provenance"]["dataset"]["path"])
        try:
            there = datasets.load(where)
        except DataError as error:
            raise DataError(f"{error} (--data says where the run's dataset lies now)") from None
        if there.fingerprint != found.config.dataset:
            raise DataError(
                f"{where}: not the dataset of this run (fingerprint {there.fingerprint[:12]}, "
                f"expected {found.config.dataset[:12]}); say where that one lies with --data"
            )
        return there

    return lambda image_id: dataset().image(image_id)


def _finished(folder: Path) -> str:
    """When the run was finished: its manifest is written last."""
    moment = datetime.fromtimestamp((folder / "manifest.json").stat().st_mtime, UTC)
    return moment.isoformat(timespec="seconds")
