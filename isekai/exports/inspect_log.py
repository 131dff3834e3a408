"""Logs that `inspect view` opens: one a model, task, control and shot count."""

import io
import tempfile
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isekai import lm_eval
from isekai.exports import cells
from isekai.exports.inspect_entries import SCORER, entries
from isekai.exports.keys import cleaned, without_keys
from isekai.exports.names import slugs
from isekai.exports.order import Files, Order
from isekai.files import plain, sha256
from isekai.types import Result

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalScore
    from inspect_ai.model import ModelUsage


def files(order: Order) -> Files:
    """`MODEL/TASK_ID.eval` for every cell of the results."""
    folders = slugs(order.run.config.models)
    return {
        f"{folders[model]}/{cell}.eval": partial(_archive, order, model, cell)
        for model in order.models
        for cell in cells.results(order.run, model)
    }


def _archive(order: Order, model: str, cell: str) -> bytes:
    from inspect_ai.log import write_eval_log

    made = log(order, model, cell)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{cell}.eval"
        write_eval_log(made, path)
        return _undated(path)


def _undated(path: Path) -> bytes:
    """The archive without the times at which its members were added: equal logs, equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(buffer, "w") as bare:
        for member in archive.infolist():
            info = zipfile.ZipInfo(member.filename)  # dated 1980, when archives begin
            info.compress_type = member.compress_type
            bare.writestr(info, archive.read(member))
    return buffer.getvalue()


# ---------------------------------------------------------------- a log


def log(order: Order, model: str, cell: str) -> "EvalLog":
    """One cell: an entry for every query, with its whole episode as messages before it."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats

    run, name = order.run, without_keys(model)
    result = cells.results(run, model)[cell]
    made = list(entries(order, model, cell))
    failed = result.outcomes.get("failed", 0)
    one_run = sha256(repr(plain(run.config)).encode())
    own = sha256(f"{one_run} {model} {cell}".encode())
    usage = _sum([entry.output.usage for entry in made])
    version = lm_eval.version(run)
    return EvalLog(
        status="success",
        eval=EvalSpec(
            run_id=one_run[:22],
            task_id=own[:22],
            eval_id=own[22:44],
            created=order.finished,
            task=cell,
            task_version=version or 0,
            dataset=EvalDataset(
                name=lm_eval.dataset(run).get("name"),
                samples=len(made),
                sample_ids=[str(entry.id) for entry in made],
            ),
            model=name,
            config=EvalConfig(log_images=order.images),
            packages={"isekai": version} if version else {},
            metadata=_about(order, model, result),
        ),
        results=EvalResults(
            total_samples=len(made),
            completed_samples=len(made) - failed,
            scores=[_measured(order, model, cell, result)],
        ),
        stats=EvalStats(
            started_at=order.finished,
            completed_at=order.finished,
            model_usage={name: usage} if usage else {},
        ),
        samples=made,
    )


def _about(order: Order, model: str, result: Result) -> dict[str, Any]:
    """What the log says of itself beside its entries."""
    config = order.run.config
    told = {
        "in_words": cells.words(result),
        "control": result.control,
        "shots_per_class": result.shots_per_class,
        "n_support_images": result.n_support_images,
        "outcomes": result.outcomes,
        "episodes": result.episodes,
        "protocol": config.protocol,
        "labels": config.labels,
        "template": config.template,
        "ranking": config.ranking,
        "seeds": config.seeds,
        "dataset_fingerprint": config.dataset,
        "adapter": config.adapters[model],
    }
    about: dict[str, Any] = cleaned(plain(told))
    return about


def _measured(order: Order, model: str, cell: str, result: Result) -> "EvalScore":
    """The accuracy, and beside it all that it must not be shown without."""
    from inspect_ai.log import EvalMetric, EvalScore

    rows = cells.predictions(order.run, model)[cell]
    clusters = {episode.id: episode.cluster for episode in order.run.episodes}
    told = lm_eval.measured(cell, result, rows, clusters)
    answered = len(rows) - result.outcomes.get("failed", 0)
    names = {"acc": "accuracy", "acc_stderr": "stderr", "acc_low": "lower", "acc_high": "upper"}
    found: dict[str, EvalMetric] = {}
    for key in ("acc", "acc_stderr", "acc_low", "acc_high", "chance", "n", "abstain"):
        value = told.get(f"{key},none", "N/A")
        if value != "N/A":
            name = names.get(key, key)
            found[name] = EvalMetric(name=name, value=value)
    return EvalScore(
        name=SCORER,
        scorer=SCORER,
        scored_samples=answered,
        unscored_samples=len(rows) - answered,
        metrics=found,
        metadata={"in_words": cells.words(result)},
    )


def _sum(usages: "Sequence[ModelUsage | None]") -> "ModelUsage | None":
    known = [usage for usage in usages if usage is not None]
    return sum(known[1:], start=known[0]) if known else None
