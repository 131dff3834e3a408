"""Answers a pipeline that asks for embeddings with those that are kept."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from isekai.sources.diffusers.embedding_cache import Element
from isekai.sources.diffusers.listening import Asked, flat, sort_out
from isekai.sources.diffusers.texts import Asking, Gone, Pair, Texts


class Reader:
    """Stands in the place of `encode_prompt` while a pipeline draws."""

    def __init__(self, pipeline: Any, texts: Texts, device: Any) -> None:
        self._signature = inspect.signature(pipeline.encode_prompt)
        self._texts = texts
        self._device = device
        self._pairs: Sequence[Pair] = ()
        self._asking = Asking()
        self._turn = 0
        pipeline.encode_prompt = self

    def begin(self, pairs: Sequence[Pair]) -> None:
        """These are drawn next, all with a negative prompt or all without."""
        asking = self._texts.asking(pairs[0].negative is not None)
        if asking is None:
            raise LookupError("nothing is known of what the pipeline asks for")
        self._pairs, self._asking, self._turn = pairs, asking, 0

    def __call__(self, *args: Any, **given: Any) -> Any:
        call = self._asking.calls[self._turn]
        self._turn += 1
        asked = sort_out(flat(self._signature.bind(*args, **given)))
        texts = {text.parameter: text.of(self._pairs[0]) for text in call.texts}
        if asked != Asked(texts, dict(call.options), call.guided):
            raise LookupError(f"the pipeline asks for {asked}, encoded was {call}")
        answer: list[Any] = [None if kind == "none" else [] for kind in call.empty]
        for role in call.roles:
            found = [self._texts.embedding(call, role, pair) for pair in self._pairs]
            embeddings = [embedding for embedding in found if embedding is not None]
            if len(embeddings) < len(self._pairs):
                raise Gone("an embedding was removed or damaged after it was found")
            for place in embeddings[0]:
                elements = [embedding[place] for embedding in embeddings]
                answer[place] = _together(elements, self._device)
        return answer[0] if call.single else tuple(answer)


def _together(elements: Sequence[Element], device: Any) -> Any:
    """One batch of several of one."""
    tensors = [element.tensor for element in elements]
    if elements[0].kind == "rows":
        return torch.cat(tensors).to(device)
    if elements[0].kind == "list":
        return [tensor.to(device, copy=True) for tensor in tensors]
    if not all(torch.equal(tensors[0], tensor) for tensor in tensors):
        raise LookupError("texts of one batch have parts that differ, but no place for each")
    return tensors[0].to(device, copy=True)
