"""The questions of a run as rows of JSON, with their pictures as files beside them."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from isekai.exports.conversation import Message, Part, Question, file_name, portable, questions
from isekai.exports.names import slugs
from isekai.exports.order import Files, Order
from isekai.types import EncodedImage

PACKAGES = Path(__file__).parent / "packages"
"""Files that are copied as they are: no data gets into code."""


def asked(order: Order) -> tuple[list[dict[str, Any]], Files]:
    """A row for every question of the run, and the files of the pictures in them."""
    names = slugs(episode.id for episode in order.run.episodes)
    stored = {
        example.image_id
        for episode in order.run.episodes
        for example in (*episode.support, *episode.queries)
    }
    rows: list[dict[str, Any]] = []
    pictures: dict[str, Callable[[], bytes]] = {}
    for question in questions(order.run, order.image):
        id = f"{names[question.episode.id]}@{question.shots}.q{question.query}"
        rows.append(_row(id, question))
        for message in question.messages:
            for part in message.parts:
                if part.picture is not None:
                    make = partial(_held, part.picture)
                    if part.stored in stored:  # found again, so that not all are in memory
                        make = partial(_found, order, part.stored)
                    pictures[f"images/{file_name(part.picture)}"] = make
    return rows, pictures


def _held(picture: EncodedImage) -> bytes:
    return picture.data


def _found(order: Order, id: str) -> bytes:
    return portable(order.image(id)).data


def _row(id: str, question: Question) -> dict[str, Any]:
    return {
        "id": id,
        "messages": [_message(message) for message in question.messages],
        "target": question.target,
        "facts": question.facts,
    }


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": [_part(part) for part in message.parts]}


def _part(part: Part) -> dict[str, str]:
    if part.picture is None:
        return {"type": "text", "text": part.text}
    return {"type": "image", "image": file_name(part.picture)}


def line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
