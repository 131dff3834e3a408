"""Puts sweeps to a local model: whichever way is fastest and says what plain recompute says."""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch

from isekai.errors import IsekaiError
from isekai.types import Response, Sweep
from model_adapters.runtime.attention import Unsupported
from model_adapters.runtime.budget import Budget, planned
from model_adapters.runtime.checking import fault
from model_adapters.runtime.features import Features
from model_adapters.runtime.laying import Laid, checked, lay
from model_adapters.runtime.packed import Packed
from model_adapters.runtime.seam import Decoder, Pieces
from model_adapters.runtime.ways import Answer, Batched, Recomputed, Way, Wish
from model_adapters.runtime.wiring import Wiring

Choice = Literal["auto", "packed", "batched", "recompute"]
"""How queries are asked; `auto` takes the first of the others that stands the check."""

_WAYS: tuple[type[Way], ...] = (Packed, Batched, Recomputed)


def _told(line: str) -> None:
    print(line, file=sys.stderr)


class Runtime:
    """What the adapters of local models answer with.

    rank        rank the labels by log-likelihood, where the decoder's pieces have labels
    max_tokens  of a greedy answer; 0 for none, and then the likeliest label is the text
    way         auto, packed, batched or recompute
    tokens      of one forward at most; None plans it from the memory there is
    tell        is given a line when a way is given up
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        rank: bool = True,
        max_tokens: int = 0,
        way: Choice = "auto",
        tokens: int | None = None,
        tell: Callable[[str], None] = _told,
    ) -> None:
        self.decoder = decoder
        self.features = Features(decoder.encode)
        self.reasons: list[str] = []
        """Why each way that was given up was."""
        self._rank, self._most, self._tokens = rank, max_tokens, tokens
        self._budget: Budget | None = None
        self._tell = tell
        self._checked = way != "auto"
        self._ways = [one for one in _WAYS if way in ("auto", one.name)]
        if self._ways[0] is Packed:
            self._try_wiring()

    @property
    def way(self) -> str:
        """How it asks, as far as is known."""
        return self._ways[0].name

    @property
    def settings(self) -> Mapping[str, object]:
        """What answers depend on, for an adapter's provenance."""
        return {"rank": self._rank, "max_tokens": self._most}

    def probe(self, sweep: Sweep) -> None:
        """IsekaiError if its longest prompt is longer than what the model reads."""
        checked(self.decoder.pieces(sweep), sweep, self.decoder.context)

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        """As `ModelAdapter.respond` has it."""
        pieces = checked(self.decoder.pieces(sweep), sweep, self.decoder.context)
        wish = Wish(labels=pieces.labels if self._rank else {}, max_tokens=self._room(pieces))
        if not wish.labels and not self._most:
            raise ValueError("neither labels to rank nor tokens for an answer")
        with torch.inference_mode():
            laid = lay(self.decoder, pieces, sweep.cuts, self.features)
            self._check(laid, wish)
            way = self._begin(laid, wish)
        for place in range(len(sweep.cuts)):
            with torch.inference_mode():
                way, answers = self._answers(way, laid, wish, place)
            yield from (
                self._response(way, answer, len(query))
                for answer, query in zip(answers, laid.queries, strict=True)
            )

    def _room(self, pieces: Pieces) -> int:
        """Tokens of an answer for which there is room behind the longest prompt."""
        context = self.decoder.context
        if context is None:
            return self._most
        read = [*([pieces.opening] if pieces.opening else []), *pieces.support]
        longest = sum(len(one.ids) for one in read) + max(len(one.ids) for one in pieces.queries)
        return min(self._most, context - longest + 1)

    def _begin(self, laid: Laid, wish: Wish) -> Way:
        if self._budget is None:
            model = self.decoder.model
            self._budget = (
                planned(model, laid.room) if self._tokens is None else Budget(self._tokens)
            )
        return self._ways[0](self.decoder, wish, self._budget, laid.room)

    def _answers(self, way: Way, laid: Laid, wish: Wish, place: int) -> tuple[Way, list[Answer]]:
        """Behind one cut; a way that turns out not to do gives place to the next."""
        stretches = laid.stretches[place : place + 1]
        while True:
            try:
                for stretch in stretches:
                    if stretch is not None:
                        way.read(stretch)
                return way, way.ask(laid.queries)
            except Unsupported as error:
                self._give_up(str(error))
                way, stretches = self._begin(laid, wish), laid.stretches[: place + 1]

    def _check(self, laid: Laid, wish: Wish) -> None:
        """On the first sweep: the ways that fail it are given up."""
        while not self._checked:
            way = self._begin(laid, wish)
            if isinstance(way, Recomputed):
                break
            reason = fault(type(way), self.decoder, wish, way.budget, laid)
            if reason is None:
                break
            self._give_up(reason)
        self._checked = True

    def _try_wiring(self) -> None:
        try:
            Wiring(self.decoder.model)
        except Unsupported as error:
            self._give_up(str(error))

    def _give_up(self, reason: str) -> None:
        """IsekaiError if the user has chosen the way: only then is none left."""
        gone = self._ways.pop(0)
        if not self._ways:
            raise IsekaiError(
                f"this model can't be asked the way '{gone.name}': {reason}; take way 'auto'"
            )
        self.reasons.append(f"{gone.name}: {reason}")
        self._tell(f"not asked the way '{gone.name}', but '{self.way}': {reason}")

    def _response(self, way: Way, answer: Answer, query: int) -> Response:
        stopped = bool(answer.ids) and answer.ids[-1] in self.decoder.stops
        said = answer.ids[:-1] if stopped else answer.ids
        best = max(answer.logprobs, key=lambda label: answer.logprobs[label], default="")
        read = way.read_tokens
        return Response(
            text=self.decoder.text(said) if self._most else best,
            label_logprobs=answer.logprobs or None,
            label_tokens={
                label: len(told.ids) - told.skip for label, told in way.wish.labels.items()
            }
            or None,
            usage={
                "prompt_tokens": read + query,
                "cached_tokens": 0 if isinstance(way, Recomputed) else read,
                "completion_tokens": len(answer.ids),
            },
            finish=("stop" if stopped else "length") if self._most else None,
        )
