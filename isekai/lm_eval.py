"""Results in the form in which lm-evaluation-harness writes and reads its own."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from isekai.exports import cells
from isekai.exports.keys import cleaned
from isekai.exports.names import slugs
from isekai.files import plain
from isekai.runs import Run
from isekai.statistics import metrics
from isekai.types import Prediction, Result

_NAMES = {"accuracy": "acc", "accuracy_lcl": "acc_lcl", "abstain": "abstain"}
"""What the harness calls the metrics that it is told of."""


def file_names(models: Sequence[str]) -> dict[str, str]:
    """Model -> the name of its file, fit for every file system; no two models share one."""
    return {model: f"{slug}.json" for model, slug in slugs(models).items()}


def results(run: Run, model: str) -> dict[str, Any]:
    """What `lm_eval --output_path` would have written (lm_eval 0.4.13, `result_schema.py`).

    Each task, control and shot count is a task of its own. Beside `acc` stand the ends of its 95 %
    interval, its chance level and its n as metrics, so that no table shows it without them.
    `n-shot` counts as the harness does: all examples before the question. What the harness has no
    place for lies under `isekai`. `date` and `git_hash` are None: a run gives the same bytes
    whenever and wherever they are written.
    """
    own = cells.results(run, model)
    rows = cells.predictions(run, model)
    clusters = {episode.id: episode.cluster for episode in run.episodes}
    told: dict[str, Any] = {
        "results": {id: measured(id, one, rows[id], clusters) for id, one in own.items()},
        "group_subtasks": {},
        "configs": {id: _config(run, id, one) for id, one in sorted(own.items())},
        "versions": dict.fromkeys(sorted(own), version(run)),
        "n-shot": {id: one.n_support_images for id, one in sorted(own.items())},
        "higher_is_better": {
            id: {_NAMES[name]: True for name in one.metrics if name.startswith("accuracy")}
            for id, one in sorted(own.items())
        },
        "n-samples": {
            id: {"original": sum(one.outcomes.values()), "effective": _answers(one)}
            for id, one in own.items()
        },
        "config": {
            "model": model,
            "model_args": run.config.adapters[model],
            "batch_size": None,
            "batch_sizes": [],
            "device": None,
            "use_cache": None,
            "limit": run.config.limit,
            "bootstrap_iters": 0,
            "gen_kwargs": None,
            "random_seed": run.config.seeds[0],
            "fewshot_seed": run.config.seeds[0],
        },
        "git_hash": None,
        "date": None,
        "task_hashes": {id: one.episodes for id, one in own.items()},
        "model_source": "isekai",
        "model_name": model,
        "model_name_sanitized": re.sub(r'["<>:/|\\?*\[\]]+', "__", model),
        "system_instruction": run.config.template.instruction or None,
        "system_instruction_sha": None,
        "fewshot_as_multiturn": True,
        "chat_template": None,
        "chat_template_sha": None,
        "isekai": _ours(run, own),
    }
    kept: dict[str, Any] = cleaned(plain(told))
    return kept


def measured(
    id: str, result: Result, rows: Sequence[Prediction], clusters: Mapping[str, str]
) -> dict[str, Any]:
    """`metric,filter` -> value; where the clusters don't differ, no standard error is known."""
    told: dict[str, Any] = {"name": id, "alias": id, "sample_len": _answers(result)}
    answered = [row for row in rows if row.outcome != "failed"]
    for name, harness in _NAMES.items():
        if estimate := result.metrics.get(name):
            told[f"{harness},none"] = estimate.value
    for name, outcome in (("acc", "correct"), ("abstain", "abstain")):
        if f"{name},none" in told:
            hits = [(clusters[row.episode_id], row.outcome == outcome) for row in answered]
            told[f"{name}_stderr,none"] = standard_error(hits) or "N/A"
    if accuracy := result.metrics.get("accuracy"):
        told |= {"acc_low,none": accuracy.low, "acc_high,none": accuracy.high}
    return told | {"chance,none": result.chance, "n,none": _answers(result)}


def standard_error(hits: Sequence[tuple[str, bool]]) -> float | None:
    """The clustered standard error of the share of hits over (cluster, hit).

    None where the clusters don't differ, or there is but one: then their spread says nothing, and
    the interval of `metrics.share` is another one.
    """
    clusters = metrics.totals(hits)
    share = metrics.clustered(clusters, list(clusters))
    error = float(metrics.standard_error(share.errors))
    return error if error > metrics.NOTHING else None


def _answers(result: Result) -> int:
    """How many queries did not fail."""
    return sum(result.outcomes.values()) - result.outcomes.get("failed", 0)


def _config(run: Run, id: str, result: Result) -> dict[str, object]:
    """What the harness calls the task's config: how it was asked."""
    template = run.config.template
    return {
        "task": id,
        "dataset_path": dataset(run).get("name"),
        "dataset_kwargs": {"fingerprint": run.config.dataset},
        "test_split": "query",
        "fewshot_split": "support",
        "doc_to_text": template.query_question,
        "doc_to_target": template.support_answer,
        "description": template.instruction,
        "num_fewshot": result.n_support_images,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "output_type": "generate_until",
        "repeats": 1,
        "should_decontaminate": False,
        "metadata": {
            "version": version(run),
            "protocol": run.config.protocol,
            "labels": run.config.labels,
            "control": result.control,
            "shots_per_class": result.shots_per_class,
        },
    }


def _ours(run: Run, own: Mapping[str, Result]) -> dict[str, object]:
    """Everything that a result of isekai holds, and what all of them rest on."""
    return {
        "tasks": {id: {**plain(one), "in_words": cells.words(one)} for id, one in own.items()},
        "dataset": {"fingerprint": run.config.dataset, "name": dataset(run).get("name")},
        "seeds": run.config.seeds,
        "template": run.config.template,
        "ranking": run.config.ranking,
        "environment": run.told.get("provenance", {}).get("environment", {}),
    }


def dataset(run: Run) -> Mapping[str, Any]:
    """What the run tells of its dataset: `fingerprint`, `name`, `path`."""
    found: Mapping[str, Any] = run.told.get("provenance", {}).get("dataset", {})
    return found


def version(run: Run) -> str | None:
    """Of isekai, as the run was made with it."""
    found: str | None = run.told.get("provenance", {}).get("environment", {}).get("isekai")
    return found
