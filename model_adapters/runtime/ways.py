"""What every way of asking behind a prefix has in common, and the two plain ways.

A way reads the prefix bit by bit and answers queries behind what it has read. `Packed` (in
`packed.py`) is the fast one; `Batched` copies the cache of the prefix for every row; `Recomputed`
reads everything anew for every label and is what the other two are held to.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from isekai.errors import IsekaiError
from model_adapters.runtime.budget import Budget, chunked
from model_adapters.runtime.seam import Continuation, Decoder, Looking
from model_adapters.runtime.strips import Strip, joined, look, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked of every query."""

    labels: Mapping[str, Continuation]
    max_tokens: int
    """Of an answer in the model's own words; 0 for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one query got."""

    logprobs: Mapping[str, float]
    ids: tuple[int, ...] = ()
    """The greedy answer, with the token that ends it if it came."""
    said: float = 0.0
    """Log-likelihood of `ids`."""


class Way(ABC):
    """One prefix and the queries behind it. `room` is how many tokens the prefix will have."""

    name: str

    def __init__(self, decoder: Decoder, wish: Wish, budget: Budget, room: int) -> None:
        self.decoder = decoder
        self.wish = wish
        self.budget = budget
        self.room = room
        self.read_tokens = 0
        self.span = 0
        self.carried: Tensor | None = None

    def read(self, strip: Strip) -> None:
        """Read on: behind what has been read before."""
        self._read(strip)
        self.read_tokens += len(strip)
        self.span += strip.span
        if strip.media:
            self.carried = strip.media[-1]

    @abstractmethod
    def _read(self, strip: Strip) -> None: ...

    @abstractmethod
    def ask(self, queries: Sequence[Strip]) -> list[Answer]:
        """An answer for each query, in order."""

    def logits(
        self,
        rows: Sequence[Strip],
        keep: int,
        *,
        start: int = 0,
        carried: Tensor | None = None,
        own: int = 0,
        **named: Any,
    ) -> Tensor:
        """[rows, keep, vocabulary], fp32: of the last tokens of rows of one length.

        `start` is the position of their beginning, and their last `own` tokens are the model's.
        IsekaiError if any is not a number.
        """
        embeds = torch.stack([row.embeds for row in rows])
        positions = torch.stack([row.positions for row in rows], dim=1) + start
        seen: Any = nullcontext()
        if isinstance(self.decoder, Looking):
            said = torch.zeros(embeds.shape[:2], dtype=torch.bool, device=embeds.device)
            said[:, said.shape[1] - own :] = True
            seen = self.decoder.looking(look(rows, carried, said))
        with seen:
            told = self.decoder.model(
                inputs_embeds=embeds,
                position_ids=positions[0] if len(positions) == 1 else positions,
                logits_to_keep=keep,
                **named,
            )
        logits: Tensor = told.logits[:, -keep:].float()
        if not bool(logits.amax(dim=-1).isfinite().all()):
            raise IsekaiError(
                f"the model's logits are no finite numbers in {self.decoder.model.dtype}; "
                "take another dtype, such as bfloat16 or float32"
            )
        return logits

    def chosen(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """[rows] tokens and their log-probabilities, from [rows, vocabulary]."""
        logprobs = logits.log_softmax(dim=-1)
        barred = sorted(self.decoder.barred)
        allowed = logits.clone()
        allowed[:, barred] = -torch.inf
        tokens = allowed.argmax(dim=-1)
        return tokens, logprobs.gather(1, tokens.unsqueeze(1)).squeeze(1)


class Saying:
    """Greedy answers of several rows, token by token."""

    def __init__(self, rows: int, stops: frozenset[int], most: int) -> None:
        self._ids: list[list[int]] = [[] for _ in range(rows)]
        self._said = [0.0] * rows
        self._stops, self._most = stops, most
        self._asked = list(range(rows))

    def _open(self, ids: list[int]) -> bool:
        return len(ids) < self._most and not (ids and ids[-1] in self._stops)

    def add(self, tokens: Tensor, logprobs: Tensor) -> list[int]:
        """The next token of every row that is asked; which of them go on.

        Rows that have ended take no more.
        """
        told = zip(self._asked, tokens.tolist(), logprobs.tolist(), strict=True)
        for row, token, logprob in told:
            if self._open(self._ids[row]):
                self._ids[row].append(token)
                self._said[row] += logprob
        return [place for place, row in enumerate(self._asked) if self._open(self._ids[row])]

    def keep(self, places: Sequence[int]) -> None:
        """Only these of the rows that are asked are asked any more."""
        self._asked = [self._asked[place] for place in places]

    def answers(self, scores: Sequence[Mapping[str, float]]) -> list[Answer]:
        told = zip(scores, self._ids, self._said, strict=True)
        return [Answer(logprobs=one, ids=tuple(ids), said=said) for one, ids, said in told]


class _Plain(Way):
    """Labels as rows of their own, without any attention but the model's."""

    def ask(self, queries: Sequence[Strip]) -> list[Answer]:
        answers: dict[int, Answer] = {}
        for width in {len(query) for query in queries}:
            same = [place for place, query in enumerate(queries) if len(query) == width]
            answers |= zip(same, self._same([queries[one] for one in same]), strict=True)
        return [answers[place] for place in range(len(queries))]

    def _same(self, queries: Sequence[Strip]) -> list[Answer]:
        """Of queries of one length."""
        done = chunked(
            self.budget,
            len(queries),
            self.width(len(queries[0])),
            lambda part: self._answers(queries[part]),
            "a query",
        )
        return [one for chunk in done for one in chunk]

    @abstractmethod
    def width(self, query: int) -> int:
        """Tokens that a row with a query of so many takes memory for."""

    @abstractmethod
    def _said(self, queries: Sequence[Strip]) -> Saying: ...

    @abstractmethod
    def foretold(self, queries: Sequence[Strip], ids: Sequence[int], own: bool) -> Tensor:
        """[queries, tokens]: log-probabilities of the tokens behind queries of one length.

        `own` if they are the model's answer.
        """

    def _answers(self, queries: Sequence[Strip]) -> list[Answer]:
        scores: list[dict[str, float]] = [{} for _ in queries]
        for label, told in self.wish.labels.items():
            logprobs = self.foretold(queries, told.ids, False)[:, told.skip :].sum(dim=1)
            for row, value in zip(scores, logprobs.tolist(), strict=True):
                row[label] = value
        if not self.wish.max_tokens:
            return [Answer(logprobs=one) for one in scores]
        return self._said(queries).answers(scores)

    def _followed(self, rows: Sequence[Strip], ids: Sequence[int]) -> list[Strip]:
        return [joined([row, words(self.decoder, ids, row.embeds.device)]) for row in rows]


def _picked(logits: Tensor, ids: Sequence[int]) -> Tensor:
    told = torch.tensor(ids, device=logits.device).expand(len(logits), -1)
    return logits.log_softmax(dim=-1).gather(2, told.unsqueeze(2)).squeeze(2)


class Recomputed(_Plain):
    """Everything is read anew for every label and every token of an answer."""

    name = "recompute"

    def __init__(self, decoder: Decoder, wish: Wish, budget: Budget, room: int) -> None:
        super().__init__(decoder, wish, budget, room)
        self._prefix: list[Strip] = []

    def _read(self, strip: Strip) -> None:
        self._prefix.append(strip)

    def width(self, query: int) -> int:
        return self.budget.tokens  # one row at a time

    def foretold(self, queries: Sequence[Strip], ids: Sequence[int], own: bool) -> Tensor:
        rows = self._followed([joined([*self._prefix, one]) for one in queries], ids[:-1])
        said = len(ids) - 1 if own else 0
        return _picked(self.logits(rows, len(ids), own=said, use_cache=False), ids)

    def _said(self, queries: Sequence[Strip]) -> Saying:
        saying = Saying(len(queries), self.decoder.stops, self.wish.max_tokens)
        rows = [joined([*self._prefix, one]) for one in queries]
        said = 0
        while True:
            tokens, logprobs = self.chosen(self.logits(rows, 1, own=said, use_cache=False)[:, 0])
            if not saying.add(tokens, logprobs):
                return saying
            rows = [
                joined([row, words(self.decoder, [token], row.embeds.device)])
                for row, token in zip(rows, tokens.tolist(), strict=True)
            ]
            said += 1


class Batched(_Plain):
    """The prefix is read once into a cache of transformers, which is copied for every row."""

    name = "batched"

    def __init__(self, decoder: Decoder, wish: Wish, budget: Budget, room: int) -> None:
        super().__init__(decoder, wish, budget, room)
        self._cache = DynamicCache(config=decoder.model.config)
        known = inspect.signature(decoder.model.forward).parameters
        self._called = "cache" if "cache" in known else "past_key_values"

    def _read(self, strip: Strip) -> None:
        named: dict[str, Any] = {self._called: self._cache, "use_cache": True}
        # A cache that a part was written to can't be gone on with: all fits, or nothing does.
        whole = Budget(len(strip))
        for _ in chunked(
            whole,
            1,
            len(strip),
            lambda part: self.logits([strip], 1, start=self.span, carried=self.carried, **named),
            "the support set",
        ):
            pass

    def width(self, query: int) -> int:
        return self.read_tokens + query

    def _copied(self, rows: int) -> dict[str, Any]:
        cache = copy.deepcopy(self._cache)
        if self.read_tokens:
            cache.batch_repeat_interleave(rows)
        return {self._called: cache, "use_cache": True}

    def foretold(self, queries: Sequence[Strip], ids: Sequence[int], own: bool) -> Tensor:
        rows, named = self._followed(queries, ids[:-1]), self._copied(len(queries))
        said = len(ids) - 1 if own else 0
        logits = self.logits(
            rows, len(ids), start=self.span, carried=self.carried, own=said, **named
        )
        return _picked(logits, ids)

    def _said(self, queries: Sequence[Strip]) -> Saying:
        saying = Saying(len(queries), self.decoder.stops, self.wish.max_tokens)
        named, rows, said = self._copied(len(queries)), list(queries), 0
        while True:
            logits = self.logits(
                rows, 1, start=self.span, carried=self.carried, own=min(said, 1), **named
            )
            tokens, logprobs = self.chosen(logits[:, 0])
            if not saying.add(tokens, logprobs):
                return saying
            rows = [
                joined([row, words(self.decoder, [token], row.embeds.device)])[len(row) :]
                for row, token in zip(rows, tokens.tolist(), strict=True)
            ]
            said += 1
