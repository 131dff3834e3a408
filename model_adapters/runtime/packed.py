"""The fast way: all queries and all labels at once, behind a prefix that is kept once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_adapters.runtime.attention import Frame
from model_adapters.runtime.branches import tree
from model_adapters.runtime.budget import Budget, chunked
from model_adapters.runtime.seam import Decoder
from model_adapters.runtime.stores import Store
from model_adapters.runtime.strips import Strip, joined, words
from model_adapters.runtime.ways import Answer, Saying, Way, Wish
from model_adapters.runtime.wiring import Wiring

USUAL = 64
"""Tokens of an answer for which memory is set aside; longer ones take what there is."""


class Packed(Way):
    """A row is a query with the labels' tree behind it; queries end in one column.

    Shorter queries are filled up in front with tokens that nothing sees.
    """

    name = "packed"

    def __init__(self, decoder: Decoder, wish: Wish, budget: Budget, room: int) -> None:
        super().__init__(decoder, wish, budget, room)
        self._wiring = Wiring(decoder.model)
        self._store = Store(room)
        self._tree = tree(wish.labels)

    def _read(self, strip: Strip) -> None:
        def part(some: slice) -> None:
            bit = strip[some]
            positions = bit.positions[:1] + self.span
            self._store.place(positions)
            frame = Frame(positions=positions, prefix=self._store, record=self._store)
            with self._wiring.framed(frame):
                self.logits([bit], 1, start=self.span, carried=self.carried, use_cache=False)
            self._store.length += len(bit)

        for _ in chunked(self.budget, len(strip), 1, part, "a token"):
            pass

    def ask(self, queries: Sequence[Strip]) -> list[Answer]:
        places = sorted(range(len(queries)), key=lambda place: len(queries[place]))
        width = max(len(query) for query in queries) + len(self._tree.ids)
        width += min(self.wish.max_tokens, USUAL)
        done = chunked(
            self.budget,
            len(queries),
            width,
            lambda part: self._answers([queries[place] for place in places[part]]),
            "a query",
        )
        answers = dict(zip(places, [one for chunk in done for one in chunk], strict=True))
        return [answers[place] for place in range(len(queries))]

    def _answers(self, queries: Sequence[Strip]) -> list[Answer]:
        block = self._block(queries)
        ahead = min(self.wish.max_tokens, USUAL)
        kept = Store(block.width + ahead) if ahead else None
        positions = torch.stack([row.positions[0] for row in block.rows]) + self.span
        if kept is not None:
            kept.place(positions[:, : block.width])
        frame = Frame(
            positions=positions,
            prefix=self._store,
            mask=block.mask,
            record=kept,
            recorded=block.width,
        )
        with self._wiring.framed(frame):
            logits = self.logits(
                block.rows,
                1 + len(self._tree.ids),
                start=self.span,
                carried=self.carried,
                use_cache=False,
            )
        scores = self._scores(logits.log_softmax(dim=-1))
        if kept is None:
            return [Answer(logprobs=one) for one in scores]
        kept.length = block.width
        return self._said(queries, block, kept, logits[:, 0]).answers(scores)

    def _block(self, queries: Sequence[Strip]) -> "_Block":
        width, device = max(len(query) for query in queries), queries[0].embeds.device
        labels = words(self.decoder, self._tree.ids, device)
        depths = torch.tensor(self._tree.depths, dtype=torch.long, device=device)
        behind = Strip(
            embeds=labels.embeds,
            positions=depths.unsqueeze(0) - 1,
            span=labels.span,
            sees=labels.sees,
        )
        filled = [_filled(query, width) for query in queries]
        begins = torch.tensor([width - len(query) for query in queries], device=device)
        real = torch.arange(width, device=device) >= begins.unsqueeze(1)
        mask = self._tree.mask(width).to(device)
        if not bool(real.all()):
            seen = torch.nn.functional.pad(real, (0, len(self._tree.ids)), value=True)
            itself = torch.eye(len(mask), dtype=torch.bool, device=device)
            mask = (mask & seen.unsqueeze(1)) | itself
        else:
            mask = mask.unsqueeze(0)
        return _Block(
            rows=[joined([row, behind]) for row in filled],
            width=width,
            real=real,
            mask=mask.unsqueeze(1),
        )

    def _scores(self, logprobs: Tensor) -> list[Mapping[str, float]]:
        """From [rows, 1 + tokens of the tree, vocabulary]."""
        scores: list[dict[str, float]] = [{} for _ in range(len(logprobs))]
        for label, path in self._tree.paths.items():
            told = self.wish.labels[label]
            at = torch.tensor(path[told.skip :], device=logprobs.device) + 1
            ids = torch.tensor(told.ids[told.skip :], device=logprobs.device)
            for row, value in zip(scores, logprobs[:, at, ids].sum(dim=1).tolist(), strict=True):
                row[label] = value
        return list(scores)

    def _said(
        self, queries: Sequence[Strip], block: "_Block", kept: Store, logits: Tensor
    ) -> Saying:
        saying = Saying(len(queries), self.decoder.stops, self.wish.max_tokens)
        rows, seen = list(queries), block.real
        while True:
            tokens, logprobs = self.chosen(logits)
            going = saying.add(tokens, logprobs)
            if not going:
                return saying
            rows = [
                joined([row, words(self.decoder, [token], row.embeds.device)])[len(row) :]
                for row, token in zip(rows, tokens.tolist(), strict=True)
            ]
            if len(going) <= len(rows) // 2:
                rows, seen = [rows[row] for row in going], seen[going]
                kept.keep(going)
                saying.keep(going)
            seen = torch.nn.functional.pad(seen, (0, 1), value=True)
            logits = self._step(rows, kept, seen)

    def _step(self, rows: Sequence[Strip], kept: Store, seen: Tensor) -> Tensor:
        """[rows, vocabulary] behind one more token of each row."""
        positions = torch.stack([row.positions[0] for row in rows]) + self.span
        kept.place(positions)
        frame = Frame(
            positions=positions,
            prefix=self._store,
            branch=kept,
            mask=seen[:, None, None],
            record=kept,
        )
        with self._wiring.framed(frame):
            logits = self.logits(
                rows, 1, start=self.span, carried=self.carried, own=1, use_cache=False
            )
        kept.length += 1
        return logits[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Queries of one forward."""

    rows: list[Strip]
    """Filled up, and with the labels' tree behind."""
    width: int
    """Of the longest query: the tree stands behind so many tokens."""
    real: Tensor
    """[rows, width], bool: which tokens are a query's."""
    mask: Tensor
    """As in `Frame`."""


def _filled(query: Strip, width: int) -> Strip:
    """The query behind as many empty tokens as it is shorter than `width`."""
    short = width - len(query)
    if not short:
        return query
    empty = Strip(
        embeds=query.embeds.new_zeros((short, query.embeds.shape[1])),
        positions=query.positions.new_zeros((len(query.positions), short)),
        span=0,
        sees=query.sees.new_zeros(short),
    )
    return joined([empty, query])
