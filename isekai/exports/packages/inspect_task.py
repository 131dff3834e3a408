"""Asks the episodes of a run of isekai again: `inspect eval task.py --model PROVIDER/MODEL`.

A line of data.jsonl is a question with its whole episode as messages; images/ holds the pictures,
named by the SHA-256 of their bytes. By default all plain questions are asked; narrow it down with
`-T task=twin -T shots=2`, or ask one of the controls that the run had, or all: `-T control=blind`,
`-T control=all`. README.md says more.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    Content,
    ContentImage,
    ContentText,
)
from inspect_ai.scorer import (
    Metric,
    SampleScore,
    Score,
    Scorer,
    Target,
    Value,
    metric,
    scorer,
    value_to_float,
)
from inspect_ai.solver import TaskState, generate

try:
    from isekai.scoring import outcome
    from isekai.statistics import metrics
    from isekai.types import Response
except ImportError as error:  # also where another package has this name
    raise ImportError(
        "answers are read with isekai, which isn't installed here: pip install isekai-bench"
    ) from error

HERE = Path(__file__).resolve().parent

VALUES = {"correct": "C", "wrong": "I", "abstain": "N"}


@task(name="isekai")
def episodes(task: str = "all", control: str = "none", shots: int | None = None) -> Task:
    """The questions of a task (or all), under a control (or all), at a shot count (or all)."""
    rows = [json.loads(line) for line in (HERE / "data.jsonl").read_bytes().splitlines()]
    asked = [
        row
        for row in rows
        if task in ("all", row["facts"]["task"])
        and control in ("all", row["facts"]["control"])
        and shots in (None, row["facts"]["shots_per_class"])
    ]
    if not asked:
        known = sorted({row["facts"]["cell"] for row in rows})
        raise ValueError(
            f"no question of task '{task}', control '{control}' and shots {shots} here; there are "
            f"those of {', '.join(known)}"
        )
    return Task(
        dataset=MemoryDataset([_entry(row) for row in asked], name="isekai"),
        solver=generate(),
        scorer=reader(),
        fail_on_error=False,  # a request that fails is no answer, and ends nothing
    )


def _entry(row: dict[str, Any]) -> Sample:
    return Sample(
        id=row["id"],
        input=[_message(message) for message in row["messages"]],
        target=row["target"],
        metadata=row["facts"],
    )


def _message(message: dict[str, Any]) -> ChatMessage:
    content = [_content(part) for part in message["content"]]
    if message["role"] == "system":
        return ChatMessageSystem(content=content)
    if message["role"] == "assistant":
        return ChatMessageAssistant(content=content)
    return ChatMessageUser(content=content)


def _content(part: dict[str, str]) -> Content:
    if part["type"] == "text":
        return ContentText(text=part["text"])
    path = HERE / "images" / Path(part["image"]).name
    if hashlib.sha256(path.read_bytes()).hexdigest() != path.stem:
        raise ValueError(f"{path}: its bytes are not those that it is named by; export it again")
    return ContentImage(image=str(path))


# ---------------------------------------------------------------- scoring


@metric(scores="unreduced")
def by_cell() -> Metric:
    """Accuracy of each cell with its 95 % interval over clusters, its n and its chance level.

    A cell is a task, a control and a shot count. What failed counts nowhere.
    """

    def measure(scores: list[SampleScore]) -> Value:
        cells: dict[str, list[SampleScore]] = defaultdict(list)
        for one in scores:
            cells[_facts(one)["cell"]].append(one)
        return {name: value for cell in sorted(cells) for name, value in _row(cell, cells[cell])}

    return measure


def _row(cell: str, scores: list[SampleScore]) -> Iterator[tuple[str, float]]:
    right = value_to_float()
    share = metrics.share((_facts(one)["cluster"], right(one.score.value) == 1) for one in scores)
    if share is not None:
        yield cell, share.value
        yield f"{cell} lower", share.low
        yield f"{cell} upper", share.high
        yield f"{cell} n", share.n
        yield f"{cell} clusters", share.clusters
        yield f"{cell} chance", _facts(scores[0])["chance"]


def _facts(score: SampleScore) -> dict[str, Any]:
    return score.sample_metadata or {}


@scorer(metrics=[by_cell()], name="isekai")
def reader() -> Scorer:
    """Reads the answer as isekai does: a label counts if it is asserted, whole and alone."""

    async def score(state: TaskState, target: Target) -> Score:
        cut_off = state.output.stop_reason in ("max_tokens", "model_length")
        said = Response(text=state.output.completion, finish="length" if cut_off else None)
        answer, result = outcome(said, state.metadata["labels"], target.text)
        if result == "failed":
            return Score.unscored(reason="failed", explanation="cut off before it answered")
        return Score(value=VALUES[result], answer=answer, metadata={"outcome": result})

    return score
