"""What the runtime has to give: every prompt by itself through a model as transformers has it."""

import io
from collections.abc import Sequence

import pytest
import torch
from PIL import Image
from torch import Tensor

from isekai.files import sha256
from isekai.types import EncodedImage, Response, Sweep, Turn
from model_adapters.runtime.seam import Look, Piece
from tests.runtime_models import STOP, Crossed, Spliced

NEAR = 1e-4
"""Nats between two ways to compute a log-likelihood in fp32."""


def picture(number: int) -> EncodedImage:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (40 * number % 256, 90 * number % 256, 17 * number % 256)).save(
        buffer, "PNG"
    )
    return EncodedImage(id=sha256(buffer.getvalue()), data=buffer.getvalue())


def sweep(*, instruction: str = "Learn:", cuts: tuple[int, ...] = (0, 2, 6)) -> Sweep:
    """Labels that share a beginning, one that begins another, and queries of three lengths."""
    support = [
        Turn(image=picture(i), question="what is <image>?", answer=f"a {word}.")
        for i, word in enumerate(["fe", "fed", "gor"] * 2)
    ]
    queries = [
        Turn(image=picture(10), question="And this: <image> it is"),
        Turn(image=picture(11), question="<image>?"),
        Turn(image=None, question="nothing shown?"),
    ]
    return Sweep(
        episode_id="one",
        support=tuple(support),
        cuts=cuts,
        queries=tuple(queries),
        labels=("fe", "fed", "gor", "x"),
        instruction=instruction,
    )


def expected(decoder: Spliced, asked: Sweep, most: int) -> list[Response]:
    """Every prompt and label by itself through a model as transformers has it."""
    pieces = decoder.pieces(asked)
    opening = [pieces.opening] if pieces.opening else []
    told = []
    for cut in asked.cuts:
        for query in pieces.queries:
            prompt = [*opening, *pieces.support[:cut], query]
            labels = {
                label: sum(_foretold(decoder, prompt, one.ids))
                for label, one in pieces.labels.items()
            }
            told.append(Response(text=_said(decoder, prompt, most), label_logprobs=labels))
    return told


def _logits(decoder: Spliced, prompt: Sequence[Piece], ids: Sequence[int], own: int = 0) -> Tensor:
    """[tokens, vocabulary]: one row, read from its beginning, without a cache."""
    shown = [decoder.encode(piece.images) if piece.images else [] for piece in prompt]
    parts = [decoder.embed(*one) for one in zip(prompt, shown, strict=True)]
    embeds = torch.cat([*parts, decoder.model.get_input_embeddings()(torch.tensor(ids).long())])
    named = {"inputs_embeds": embeds.unsqueeze(0), "use_cache": False}
    if any(piece.positions is not None for piece in prompt):
        named["position_ids"] = _positions(prompt, len(ids)).unsqueeze(1)
    if not isinstance(decoder, Crossed):
        return decoder.model(**named).logits[0]
    with decoder.looking(_look(prompt, shown, len(ids), own)):
        return decoder.model(**named).logits[0]


def _positions(prompt: Sequence[Piece], more: int) -> Tensor:
    """[axes, tokens]."""
    axes = max(1 if piece.positions is None else len(piece.positions) for piece in prompt)
    start, told = 0, []
    for piece in prompt:
        counted = torch.arange(len(piece.ids)).expand(axes, -1)
        told.append(start + (counted if piece.positions is None else piece.positions))
        start += len(piece.ids) if piece.span is None else piece.span
    return torch.cat([*told, start + torch.arange(more).expand(axes, -1)], dim=1)


def _look(prompt: Sequence[Piece], shown: Sequence[Sequence[Tensor]], more: int, own: int) -> Look:
    """As upstream has it: the images so far are counted over the whole row."""
    count, sees = 0, []
    for piece in prompt:
        for place in range(len(piece.ids)):
            count += place in piece.marks
            sees.append(count - 1)
    sees += [count - 1] * more
    media = [image for some in shown for image in some]
    return Look(
        media=torch.stack(media).unsqueeze(0) if media else torch.zeros((1, 0)),
        index=torch.tensor(sees).unsqueeze(0),
        generated=(torch.arange(len(sees)) >= len(sees) - own).unsqueeze(0),
    )


def _foretold(decoder: Spliced, prompt: Sequence[Piece], ids: Sequence[int]) -> list[float]:
    logprobs = _logits(decoder, prompt, ids[:-1])[-len(ids) :].log_softmax(dim=-1)
    return [float(row[token]) for row, token in zip(logprobs, ids, strict=True)]


def _said(decoder: Spliced, prompt: Sequence[Piece], most: int) -> str:
    ids: list[int] = []
    while len(ids) < most:
        logits = _logits(decoder, prompt, ids, own=len(ids))[-1]
        logits[sorted(decoder.barred)] = -torch.inf
        token = int(logits.argmax())
        if token == STOP:
            break
        ids.append(token)
    return decoder.text(ids)


def close(told: list[Response], true: list[Response]) -> None:
    assert len(told) == len(true)
    for one, other in zip(told, true, strict=True):
        assert one.error is None
        assert one.label_logprobs == pytest.approx(other.label_logprobs, abs=NEAR)
        best = [max(row, key=row.get) for row in (one.label_logprobs, other.label_logprobs)]
        assert best[0] == best[1]
        assert one.text == other.text
