"""Puts an episode into the words that the two families were shown in training and evaluation."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from isekai.errors import DataError
from isekai.types import EncodedImage, Sweep, Turn
from model_adapters.flamingo.words import ANSWER, END, IMAGE, Words
from model_adapters.lcl_shikra.asking import sentence
from model_adapters.runtime.seam import Continuation, Piece, Pieces, alike

Placed = Literal["front", "template"]
"""Where a turn's picture stands: in front of all its words, or where the template says. A token
sees the last picture before it: what stands in front of one sees the turn before."""

Answers = Literal["label", "sentence"]
"""What support turns answer: the label alone, as upstream's demonstrations do, or the template's
sentence around it. A sentence that no support turn shows can't be known: then it's the label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How a family writes a turn: `<image>` + lead + question + ask + space + answer + end."""

    lead: str
    ask: str
    space: str = ""
    """Between the question's end and an answer, in demonstrations; a query ends without it."""
    end: str = END
    question: bool = True
    """False leaves the question out."""


STYLES: Mapping[str, Mapping[str, Style]] = {
    "openflamingo": {
        "question": Style(lead="Question:", ask=" Short answer:", end=f"{END}\n"),
        "output": Style(lead="Output:", ask="", question=False),
    },
    "otter": {
        "demo": Style(lead="User: ", ask=f" GPT:{ANSWER}", space=" "),
        "short": Style(lead="User: ", ask=f" Please answer in short words. GPT:{ANSWER}"),
        "simple": Style(lead="User:", ask=f" GPT:{ANSWER}"),
    },
}
"""Family -> style: OpenFlamingo's visual questions and its classification; Otter's demonstrations
and first training, its few-shot evaluation, and its training of late 2023."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """Writes with a checkpoint's tokens."""

    words: Words
    style: Style
    placed: Placed = "front"
    answers: Answers = "label"

    def pieces(self, sweep: Sweep) -> Pieces:
        """DataError for words that the tokenizer would read as tokens of its own."""
        self._refuse_marks(sweep)
        opening = self.words.opening + self.words.ids(_line(sweep.instruction))
        return Pieces(
            opening=Piece(ids=opening) if opening else None,
            support=tuple(self._shown(turn) for turn in sweep.support),
            queries=tuple(
                self._piece(turn, self._asked(turn, _line(sweep.query_instruction)))
                for turn in sweep.queries
            ),
            labels=self._labels(sweep),
        )

    def _shown(self, turn: Turn) -> Piece:
        answer = (turn.answer if self.answers == "sentence" else turn.label) or ""
        return self._piece(turn, self._asked(turn) + self.style.space + answer + self.style.end)

    def _asked(self, turn: Turn, before: str = "") -> str:
        mark = IMAGE if turn.image else ""
        style = self.style
        if not style.question:
            return f"{before}{mark}{style.lead}{style.ask}"
        left, right = turn.around
        if self.placed == "template":
            return f"{before}{style.lead}{left}{mark}{right}{style.ask}"
        return f"{before}{mark}{style.lead}{_closed(left, right)}{style.ask}"

    def _piece(self, turn: Turn, text: str) -> Piece:
        ids = self.words.ids(text)
        marks = tuple(place for place, token in enumerate(ids) if token == self.words.image)
        return Piece(ids=ids, images=_images(turn), marks=marks)

    def _labels(self, sweep: Sweep) -> dict[str, Continuation]:
        """The answers up to each label's last token, as upstream ranks: without what follows.

        Of sentences, what they begin with alike is read and not counted.
        """
        shown = self.answers == "sentence" and any(turn.label for turn in sweep.support)
        before = sentence(sweep)[0] if shown else ""
        told = {label: self._behind(before + label) for label in sweep.labels}
        head = self._behind(before) if before else ()
        skip = min((alike(head, ids) for ids in told.values()), default=0)
        return {label: Continuation(ids=ids, skip=skip) for label, ids in told.items()}

    def _behind(self, answer: str) -> tuple[int, ...]:
        """An answer's tokens as they stand in a demonstration.

        Behind Otter's `<answer>` they depend on it; OpenFlamingo's evaluation takes them alone.
        """
        if self.style.ask.endswith(ANSWER):
            return self.words.behind(ANSWER, self.style.space + answer)
        return self.words.ids(answer)

    def _refuse_marks(self, sweep: Sweep) -> None:
        turns = (*sweep.support, *sweep.queries)
        texts = [part for turn in turns for part in (*turn.around, turn.answer or "")]
        for text in (*texts, sweep.instruction, sweep.query_instruction, *sweep.labels):
            if mark := self.words.reserved(text):
                raise DataError(
                    f"{sweep.episode_id}: '{text}' holds '{mark}', which the model reads as a "
                    "token of its own; take another template, or --labels fantasy"
                )


def _line(text: str) -> str:
    return f"{text.strip()}\n" if text.strip() else ""


def _closed(left: str, right: str) -> str:
    """A question without its picture: one space where it stood, none in front of a mark."""
    return re.sub(r"\s+([?.!,;:])", r"\1", f"{left.strip()} {right.strip()}".strip())


def _images(turn: Turn) -> tuple[EncodedImage, ...]:
    return (turn.image,) if turn.image else ()
