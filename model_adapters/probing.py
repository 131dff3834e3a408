"""Finds out before a run whether a server takes the longest support set, with all its pictures."""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

from isekai.errors import IsekaiError
from isekai.types import Sweep
from model_adapters.faults import Refused
from model_adapters.spending import Tokens

PLACEHOLDER = 4
"""Tokens. A picture that adds fewer was not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of a first request."""

    images: int
    refused: Refused | None = None
    cut_off: str = ""
    """What to do about an answer that was cut off before it began."""
    tokens: Tokens | None = None


Try = Callable[[Sweep], Tried]
"""Asks the first query of a sweep behind its last cut."""


def check(sweep: Sweep, ask: Try, *, model: str) -> bool:
    """True if every image counts, False if the server doesn't tell; IsekaiError if it is too much.

    What the longest cut asks is asked, and the same with one image fewer: a server that drops
    images silently takes as many tokens for both.
    """
    whole = ask(_behind(sweep, sweep.cuts[-1]))
    if whole.refused:
        raise IsekaiError(_too_much(sweep, ask, whole))
    if whole.cut_off:
        raise IsekaiError(f"a first request got {whole.cut_off}")
    fewer = _one_image_fewer(_behind(sweep, sweep.cuts[-1]))
    if fewer is None:
        return True
    less = ask(fewer)
    if whole.tokens is None or less.tokens is None:
        return False
    if whole.tokens.prompt - less.tokens.prompt < PLACEHOLDER:
        raise IsekaiError(
            f"not all of {whole.images} images reach {model}: the server counts "
            f"{whole.tokens.prompt:.0f} prompt tokens, and {less.tokens.prompt:.0f} with one image "
            "fewer; let the server take more, or give fewer --shots"
        )
    return True


def _behind(sweep: Sweep, cut: int) -> Sweep:
    cuts = tuple(end for end in sweep.cuts if end <= cut)
    return replace(sweep, cuts=cuts, support=sweep.support[:cut], queries=sweep.queries[:1])


def _too_much(sweep: Sweep, ask: Try, whole: Tried) -> str:
    """The line that says what is refused, in the server's words, and what fits."""
    way = max(1, len(sweep.labels))
    cuts = sweep.cuts[:-1]
    fits = bisect_left(cuts, True, key=lambda cut: ask(_behind(sweep, cut)).refused is not None)
    what = f"{whole.images} images ({sweep.cuts[-1] // way} shots) are refused: {whole.refused}"
    if fits:
        return f"{what}; {cuts[fits - 1] // way} shots fit: give no more to --shots"
    if cuts:
        return f"every request is refused, with {cuts[0] // way} shots as well: {whole.refused}"
    return f"{what}; if they are too many, give fewer --shots"


def _one_image_fewer(sweep: Sweep) -> Sweep | None:
    """Without the last image of the support set or, if it has none, of the query; None for none."""
    turns = [*sweep.queries, *sweep.support]
    for place in reversed(range(len(turns))):
        if turns[place].image:
            turns[place] = replace(turns[place], image=None)
            asked = len(sweep.queries)
            return replace(sweep, queries=tuple(turns[:asked]), support=tuple(turns[asked:]))
    return None
