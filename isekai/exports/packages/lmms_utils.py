"""Asks the episodes of a run of isekai with lmms-eval: what the YAML files beside it call.

data/ holds the questions, each with its whole episode as messages; images/ holds the pictures,
named by the SHA-256 of their bytes. README.md says how to run it.
"""

import hashlib
from pathlib import Path
from typing import Any

try:
    from isekai.images import decode
    from isekai.scoring import outcome
    from isekai.statistics import metrics
    from isekai.types import Estimate, Response
except ImportError as error:  # also where another package has this name
    raise ImportError(
        "answers are read with isekai, which isn't installed here: pip install isekai-bench"
    ) from error

HERE = Path(__file__).resolve().parent

FAILED = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED]")
"""How answers begin that lmms-eval gives in the place of a model that did not."""

Doc = dict[str, Any]
Outcomes = list[tuple[str, str]]
"""(cluster, outcome) of each question."""


# ---------------------------------------------------------------- asking


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """The support set as turns that were answered, then the question, each with its picture."""
    return [
        {"role": message["role"], "content": [_content(part) for part in message["content"]]}
        for message in doc["messages"]
    ]


def _content(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "text":
        return {"type": "text", "text": part["text"]}
    path = HERE / "images" / Path(part["image"]).name
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != path.stem:
        raise ValueError(f"{path}: its bytes are not those that it is named by; export it again")
    return {"type": "image", "url": decode(data)}


def doc_to_text(doc: Doc) -> str:
    """For logs: the messages' words, `<image>` for each picture."""
    parts = [part for message in doc["messages"] for part in message["content"]]
    return "\n".join(part["text"] if part["type"] == "text" else "<image>" for part in parts)


def doc_to_visual(doc: Doc) -> list[Any]:
    """Refused: all pictures in front of one text would be another question."""
    raise NotImplementedError(
        "isekai's episodes are conversations: take a model of lmms-eval that takes messages (those "
        "in lmms_eval/models/chat)"
    )


# ---------------------------------------------------------------- scoring


def process_results(doc: Doc, results: list[str]) -> dict[str, Any]:
    """The answer read as isekai reads it. A request that failed is no answer and counts nowhere."""
    text = results[0]
    error = text if text.startswith(FAILED) else None
    _, result = outcome(Response(text=text, error=error), doc["labels"], doc["target"])
    counted = [doc["cluster"], result]
    scored = {"cluster": doc["cluster"], "outcome": result}
    if result != "failed":  # by `score` and `cluster` lmms-eval finds the clustered standard error
        scored["score"] = float(result == "correct")
    return {
        "acc": scored,
        "acc_low": counted,
        "acc_high": counted,
        "n": counted,
        "abstain": counted,
        "failed": counted,
        "chance": [doc["chance"]],
    }


def accuracy(items: list[dict[str, Any]]) -> float:
    share = _accuracy([(item["cluster"], item["outcome"]) for item in items])
    return share.value if share else float("nan")


def low(items: Outcomes) -> float:
    """The lower end of the 95 % interval over clusters."""
    share = _accuracy(items)
    return share.low if share else float("nan")


def high(items: Outcomes) -> float:
    share = _accuracy(items)
    return share.high if share else float("nan")


def answers(items: Outcomes) -> int:
    return sum(result != "failed" for _, result in items)


def abstained(items: Outcomes) -> int:
    return sum(result == "abstain" for _, result in items)


def failed(items: Outcomes) -> int:
    return sum(result == "failed" for _, result in items)


def chance(items: list[list[float]]) -> float:
    return items[0][0]


def _accuracy(items: Outcomes) -> Estimate | None:
    return metrics.share((cluster, it == "correct") for cluster, it in items if it != "failed")
