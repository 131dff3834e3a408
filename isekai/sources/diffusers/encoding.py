"""Encodes each text once, apart from drawing, alone in a batch of one.

So an embedding depends on nothing but its text. Which calls of `encode_prompt` that takes is learnt
by `isekai.sources.diffusers.listening`.
"""

import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import torch

from isekai.errors import IsekaiError
from isekai.sources.diffusers.embedding_cache import Element, Embedding
from isekai.sources.diffusers.listening import (
    GIVEN,
    Answer,
    as_tuple,
    call_of,
    empty_form,
    is_nothing,
    listened,
    restored,
)
from isekai.sources.diffusers.texts import Asking, Call, Misfit, Pair, Role, Texts


class Encoder:
    """The text half of a pipeline at work."""

    def __init__(
        self, pipeline: Any, texts: Texts, device: Any, arguments: Callable[[Pair], dict[str, Any]]
    ) -> None:
        """`arguments` are those of the pipeline's `__call__` for one image."""
        self._pipeline = pipeline
        self._texts = texts
        self._device = device
        self._arguments = arguments
        self.encoded = 0
        """Embeddings made."""
        self.cut = 0
        """Texts that were longer than what the model reads."""

    def encode(self, pairs: Sequence[Pair]) -> None:
        """Encode what is missing of the pairs; Misfit if that can't be done apart from drawing."""
        with torch.no_grad(), _counting_cuts() as cut:
            for negative in (True, False):
                alike = [pair for pair in pairs if (pair.negative is not None) is negative]
                if alike:
                    for call in self._asking(negative, alike).calls:
                        self._encode(call, alike)
        self.cut = len(cut)

    def _asking(self, negative: bool, pairs: Sequence[Pair]) -> Asking:
        """What the pipeline asks for, listened to by one process alone."""
        with self._texts.shelf.alone(self._texts.name(negative)):
            asking = self._texts.asking(negative)
            if asking is None:
                try:
                    asking = Asking(calls=tuple(self._listen(pairs)))
                except Misfit as misfit:
                    asking = Asking(misfit=str(misfit))
                self._texts.learn(negative, asking)
        if asking.misfit:
            raise Misfit(asking.misfit)
        return asking

    def _listen(self, pairs: Sequence[Pair]) -> Iterator[Call]:
        pair = pairs[0]
        heard = listened(self._pipeline, self._arguments(pair), self._device)
        if not heard:
            raise Misfit("it never asks for embeddings")
        if pair.prompt not in heard[0][0].texts.values():
            raise Misfit("it rewrites prompts before they are encoded")
        for number, (asked, heard_answer) in enumerate(heard):
            call = call_of(asked, heard_answer, pair, first=number == 0)
            answer = as_tuple(heard_answer)
            if call.guided:
                call = self._told_apart(call, answer, pairs)
            self._keep(call, call.roles, answer, pair)
            yield call

    def _told_apart(self, call: Call, answer: Answer, pairs: Sequence[Pair]) -> Call:
        """The call with the positions of the negative prompt: they are empty without guidance.

        To see that, another prompt is encoded that is due anyway; the same again if there is none.
        """
        due = self._due(call, "prompt", pairs)
        others = [other for other in due if other.prompt != pairs[0].prompt]
        pair = next(iter(others), pairs[0])
        alone = self._ask(call, call.texts_of("prompt", pair), guided=False)
        if len(alone) != len(answer):
            raise Misfit("what it answers has another form without guidance")
        gone = [place for place, value in enumerate(alone) if is_nothing(value)]
        negatives = [place for place in gone if not is_nothing(answer[place])]
        if not negatives:
            raise Misfit("it gives prompts and negative prompts in one")
        empty = tuple(empty_form(value) for value in alone)
        call = replace(call, empty=empty, negatives=tuple(negatives))
        if pair is not pairs[0]:
            self._keep(call, ("prompt",), alone, pair)
        return call

    def _encode(self, call: Call, pairs: Sequence[Pair]) -> None:
        """Text by text. A negative prompt is encoded along with a prompt that is due, too."""
        due = {role: self._due(call, role, pairs) for role in call.roles}
        for prompt, negative in zip_longest(due["prompt"], due.get("negative_prompt", ())):
            wanted: dict[Role, Pair] = {}
            if prompt:
                wanted["prompt"] = prompt
            if negative:
                wanted["negative_prompt"] = negative
            keys = [self._texts.key(call, role, pair) for role, pair in wanted.items()]
            with self._texts.shelf.alone(*keys):
                self._make(call, wanted)

    def _make(self, call: Call, wanted: Mapping[Role, Pair]) -> None:
        """At most one text a role, less what another process has encoded by now."""
        due = {role: pair for role, pair in wanted.items() if self._due(call, role, [pair])}
        if not due:
            return
        guided = "negative_prompt" in due
        prompt = due.get("prompt", next(iter(due.values())))  # a negative prompt never goes alone
        texts = call.texts_of("prompt", prompt)
        if guided:
            texts |= call.texts_of("negative_prompt", due["negative_prompt"])
        answer = self._ask(call, texts, guided=guided)
        for role, pair in due.items():
            self._keep(call, (role,), answer, pair)

    def _due(self, call: Call, role: Role, pairs: Sequence[Pair]) -> list[Pair]:
        """One pair for each text of the role that has no embedding yet."""
        by_key = {self._texts.key(call, role, pair): pair for pair in reversed(pairs)}
        shelf = self._texts.shelf
        return [pair for key, pair in reversed(by_key.items()) if shelf.get(key) is None]

    def _keep(self, call: Call, roles: Sequence[Role], answer: Answer, pair: Pair) -> None:
        for role in roles:
            key = self._texts.key(call, role, pair)
            if self._texts.shelf.get(key) is None:
                places = call.positions(role)
                self._texts.shelf.put(key, _embedding({n: answer[n] for n in places}))
                self.encoded += 1

    def _ask(self, call: Call, texts: Mapping[str, str | None], *, guided: bool) -> Answer:
        """What the text encoders make of one text a parameter."""
        own = inspect.signature(self._pipeline.encode_prompt).parameters
        given = dict(zip(GIVEN, (self._device, 1, guided), strict=True))
        return as_tuple(
            self._pipeline.encode_prompt(
                **{name: restored(value) for name, value in call.options.items()},
                **{name: None if text is None else [text] for name, text in texts.items()},
                **{name: value for name, value in given.items() if name in own},
            )
        )


def _embedding(values: Mapping[int, Any]) -> Embedding:
    """The elements of an answer for one text, checked to be numbers."""
    embedding = {}
    for place, value in values.items():
        if is_nothing(value):
            continue
        element = _element(value)
        tensor = element.tensor
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            own = str(tensor.dtype).removeprefix("torch.")
            mend = "fetch the model anew" if own == "float32" else "try -o dtype=float32"
            raise IsekaiError(
                f"the text encoder gives numbers that are not finite in {own}; {mend}"
            )
        embedding[place] = element
    return embedding


def _element(value: Any) -> Element:
    if isinstance(value, torch.Tensor):
        batched = value.ndim > 0 and value.shape[0] == 1
        return Element("rows" if batched else "bare", value.cpu())
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], torch.Tensor):
        return Element("list", value[0].cpu())
    raise Misfit(f"it answers with a {type(value).__name__}")


@contextmanager
def _counting_cuts() -> Iterator[set[str]]:
    """What diffusers says of texts that it cuts off, a line each; it is silent otherwise."""
    cut: set[str] = set()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "truncated" in (told := record.getMessage()):
                cut.add(told)

    logger, handler = logging.getLogger("diffusers"), Listening(logging.WARNING)
    level, handlers = logger.level, logger.handlers
    logger.handlers, propagate, logger.propagate = [handler], logger.propagate, False
    logger.setLevel(logging.WARNING)
    try:
        yield cut
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
