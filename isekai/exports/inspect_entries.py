"""The queries of a cell as entries of a log of inspect_ai, each behind its whole episode."""

import base64
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from PIL import Image

from isekai.errors import IsekaiError
from isekai.exports import cells
from isekai.exports.conversation import Message, Question, media_type, questions
from isekai.exports.keys import cleaned, without_keys
from isekai.exports.names import slugs
from isekai.exports.order import Order
from isekai.files import plain
from isekai.images import encode, grey_like
from isekai.types import EncodedImage, Outcome, Prediction

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessage, Content, ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

SCORER = "isekai"

MOST_BYTES = 4_000_000_000
"""A log whose pictures would take more is refused: it is larger than what viewers open."""

_VALUES: Mapping[Outcome, str] = {"correct": "C", "wrong": "I", "abstain": "N"}
"""What inspect_ai calls these outcomes; a failure has no value there."""


def entries(order: Order, model: str, cell: str) -> "Iterator[EvalSample]":
    rows = {
        (row.episode_id, row.shots, row.query): row
        for row in cells.predictions(order.run, model)[cell]
    }
    names = slugs({id for id, _, _ in rows})
    fetch = order.image if order.images else _unseen
    shared: dict[str, str] = {}  # picture id -> its data URL, in memory once
    size = 0
    for question in questions(order.run, fetch, cell):
        id = question.episode.id
        row = rows[id, question.shots, question.query]
        size += sum(map(len, _pictures(question).values())) * 4 // 3
        if order.images and size > MOST_BYTES:
            raise IsekaiError(
                f"the log of '{model}' on {cell} takes more than {MOST_BYTES // 10**9} GB with its "
                "pictures; write it without them (--no-images), or of a run with fewer shots"
            )
        yield _entry(f"{names[id]}.q{question.query}", question, row, order.images, shared)


def _entry(
    id: str, question: Question, row: Prediction, images: bool, shared: dict[str, str]
) -> "EvalSample":
    from inspect_ai.log import EvalError, EvalSample

    asked = [
        _chat(f"{id}.{place}", message, images, shared)
        for place, message in enumerate(question.messages)
    ]
    output = _output(f"{id}.answer", row)
    error = without_keys(row.error or "cut off before it answered")
    return EvalSample(
        id=id,
        epoch=1,
        input=asked,
        target=question.target,
        messages=[*asked, *(choice.message for choice in output.choices)],
        output=output,
        scores={SCORER: _score(row)},
        metadata=cleaned({**question.facts, "outcome": row.outcome, "image_id": row.image_id}),
        model_usage={without_keys(row.model): output.usage} if output.usage else {},
        error=EvalError(message=error, traceback="", traceback_ansi="")
        if row.outcome == "failed"
        else None,
    )


def _chat(id: str, message: Message, images: bool, shared: dict[str, str]) -> "ChatMessage":
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageUser,
        ContentImage,
        ContentText,
    )

    content: list[Content] = []
    for part in message.parts:
        if part.picture is None:
            content.append(ContentText(text=part.text))
        elif images:
            content.append(ContentImage(image=_data_url(part.picture, shared)))
        else:
            content.append(ContentText(text=_placeholder(part.picture)))
    if message.role == "system":
        return ChatMessageSystem(id=id, content=content)
    if message.role == "user":
        return ChatMessageUser(id=id, content=content)
    return ChatMessageAssistant(id=id, content=content)


def _output(id: str, row: Prediction) -> "ModelOutput":
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput

    model, text = without_keys(row.model), without_keys(row.text)
    if row.error is not None:
        return ModelOutput(model=model, error=without_keys(row.error), usage=_usage(row))
    return ModelOutput(
        model=model,
        choices=[
            ChatCompletionChoice(
                message=ChatMessageAssistant(id=id, content=text, model=model, source="generate"),
                stop_reason="max_tokens" if row.finish == "length" else "stop",
            )
        ],
        usage=_usage(row),
    )


def _score(row: Prediction) -> "Score":
    from inspect_ai.scorer import Score

    answer = None if row.answer is None else without_keys(row.answer)
    told = cleaned({"outcome": row.outcome, "label_logprobs": plain(row.label_logprobs)})
    if row.outcome == "failed":
        return Score.unscored(reason="failed", metadata=told)
    return Score(value=_VALUES[row.outcome], answer=answer, metadata=told)


# ---------------------------------------------------------------- pictures and tokens


@cache
def _dot() -> bytes:
    return encode(Image.new("RGB", (1, 1)))


def _unseen(image_id: str) -> EncodedImage:
    """Stands for a picture that is not to be shown, so that the dataset need not be there."""
    return EncodedImage(id=image_id, data=_dot())


def _placeholder(picture: EncodedImage) -> str:
    grey = grey_like(_unseen("")).id
    return "[grey picture]" if picture.id == grey else f"[picture {picture.id[:12]}]"


def _pictures(question: Question) -> dict[str, bytes]:
    parts = [part for message in question.messages for part in message.parts]
    return {part.picture.id: part.picture.data for part in parts if part.picture}


def _data_url(picture: EncodedImage, shared: dict[str, str]) -> str:
    if picture.id not in shared:
        data = base64.b64encode(picture.data).decode()
        shared[picture.id] = f"data:{media_type(picture)};base64,{data}"
    return shared[picture.id]


def _usage(row: Prediction) -> "ModelUsage | None":
    from inspect_ai.model import ModelUsage

    if not row.usage:
        return None
    prompt, cached, completion = (
        int(row.usage.get(f"{kind}_tokens", 0)) for kind in ("prompt", "cached", "completion")
    )
    return ModelUsage(
        input_tokens=prompt - cached,  # there, those that are charged in full
        input_tokens_cache_read=cached,
        output_tokens=completion,
        total_tokens=prompt + completion,
        total_cost=row.usage.get("cost"),
    )
