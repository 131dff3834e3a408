"""Results for model pages and leaderboards on the Hub: `.eval_results/*.yaml`.

The format is that of https://huggingface.co/docs/hub/eval-results. A leaderboard shows an entry
once the `eval.yaml` of the dataset's repository lists its `task_id`, under one of the frameworks
that the Hub knows; isekai is none of them yet, so that no `eval.yaml` is written here.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from isekai.errors import IsekaiError
from isekai.exports import cells
from isekai.exports.names import slugs
from isekai.exports.order import Files, Order
from isekai.reports.headings import PLAIN
from isekai.types import Result


def files(order: Order) -> Files:
    """`MODEL/.eval_results/isekai.yaml`, for the repository of each model."""
    _refuse_id(order.hub_dataset)
    folders = slugs(order.run.config.models)
    return {
        f"{folders[model]}/.eval_results/isekai.yaml": partial(_yaml, order, model)
        for model in order.models
    }


def _refuse_id(dataset: str) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    if not dataset:
        raise IsekaiError(
            "--to hub-results needs the dataset's id on the Hub, where the leaderboard is: "
            "--hub-dataset NAME/DATASET"
        )
    try:
        hf_hub_url(dataset, "eval.yaml")  # asks nobody; the Hub's rules for ids are behind it
    except HFValidationError:
        known = False
    else:
        known = dataset.count("/") == 1
    if not known:
        raise IsekaiError(
            f"--hub-dataset is '{dataset}'; ids on the Hub are of the form NAME/DATASET"
        )


def _yaml(order: Order, model: str) -> bytes:
    """An entry a task and shot count of the plain episodes; where all failed there is none."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = [
        EvalResultEntry(
            dataset_id=order.hub_dataset,
            task_id=cell,
            value=result.metrics["accuracy"].value,
            notes=_notes(order, result),
        )
        for cell, result in cells.results(order.run, model).items()
        if result.control == PLAIN and "accuracy" in result.metrics
    ]
    if not entries:
        raise IsekaiError(f"'{model}' has no accuracy on plain episodes: nothing can be reported")
    return "".join(map(_entry, eval_result_entries_to_yaml(entries))).encode()


def _entry(entry: Mapping[str, Any]) -> str:
    dataset = "".join(f"    {key}: {_scalar(it)}\n" for key, it in entry["dataset"].items())
    rest = "".join(f"  {key}: {_scalar(it)}\n" for key, it in entry.items() if key != "dataset")
    return f"- dataset:\n{dataset}{rest}"


def _scalar(value: object) -> str:
    """Strings as JSON, which YAML reads as they are. A number with an exponent it may not read."""
    return f"{value:.6f}" if isinstance(value, float) else json.dumps(value)


def _notes(order: Order, result: Result) -> str:
    config = order.run.config
    return (
        f"{cells.words(result)}; {config.labels} label words, {config.protocol} protocol; dataset "
        f"{config.dataset[:12]}, episodes {result.episodes[:12]}"
    )
