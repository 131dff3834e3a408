"""Holds a way of asking to plain recompute, on a few cells of one episode."""

from dataclasses import replace

import torch

from isekai.errors import IsekaiError
from model_adapters.runtime.attention import Unsupported
from model_adapters.runtime.budget import Budget, ran_out
from model_adapters.runtime.laying import Laid
from model_adapters.runtime.seam import Decoder
from model_adapters.runtime.strips import Strip
from model_adapters.runtime.ways import Answer, Recomputed, Way, Wish

ALLOWED = {torch.float16: 0.05, torch.bfloat16: 0.3}
"""Nats by which the log-likelihood of an answer may differ; `EXACT` for other dtypes."""

EXACT = 1e-3
"""Tiny networks stay below 1e-5, and deep ones lose a digit or two; a wrong place costs tenths."""

ANSWER = 8
"""Tokens of an answer that are looked at."""


def fault(make: type[Way], decoder: Decoder, wish: Wish, budget: Budget, laid: Laid) -> str | None:
    """Why not to ask this way; None if it says what plain recompute says.

    Asked are the shortest and the longest query behind the first and the last cut, and answers of
    a few tokens.
    """
    wish = replace(wish, max_tokens=min(wish.max_tokens, ANSWER))
    asked = sorted(laid.queries, key=len)
    queries = asked[:1] if len(asked) == 1 else [asked[0], asked[-1]]
    way = make(decoder, wish, budget, laid.room)
    plain = Recomputed(decoder, wish, budget, laid.room)
    allowed = ALLOWED.get(decoder.model.dtype, EXACT)
    for place, stretch in enumerate(laid.stretches):
        try:
            if stretch is not None:
                way.read(stretch)
            told = way.ask(queries) if place in (0, len(laid.stretches) - 1) else []
        except Unsupported as error:
            return str(error)
        except IsekaiError:
            raise
        except Exception as error:
            if ran_out(error):
                raise
            return f"{type(error).__name__}: {error}".splitlines()[0]
        if stretch is not None:
            plain.read(stretch)
        off = max(
            (_off(one, query, plain) for one, query in zip(told, queries, strict=False)),
            default=0.0,
        )
        if not off <= allowed:
            return f"it is {off:.2g} nats off plain recompute in {decoder.model.dtype}"
    return None


def _off(answer: Answer, query: Strip, plain: Recomputed) -> float:
    """The largest difference of a log-likelihood: of a label, or of what was answered."""
    off = [0.0]
    for label, told in plain.wish.labels.items():
        true = plain.foretold([query], told.ids, False)[:, told.skip :].sum()
        off.append(abs(float(true) - answer.logprobs[label]))
    if answer.ids:
        off.append(abs(float(plain.foretold([query], answer.ids, True).sum()) - answer.said))
    return max(off)
