"""Oracles with a known way to answer, planted to prove what the controls tell apart."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from isekai.types import Concept, Response, Sweep, Turn

Strategy = Literal["binder", "namer", "first", "last", "frequent", "text"]


class Planted:
    """Answers by one rule: `planted:binder`, namer, first, last, frequent or text. No model.

    binder    what the support set mostly calls the thing in the query, whatever its name is
    namer     the true name of the thing in the query, whatever the support set calls it
    first     the label that is listed first
    last      the label seen last (the query follows it)
    frequent  the label said most often in the support set
    text      the label that comes first in the alphabet: it reads words alone

    Where its rule gives nothing or a tie, an oracle says the first label. The queries of an episode
    ask for each label equally often: whoever says one label to all of them scores chance exactly.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._concepts: Mapping[str, Concept] = {}

    @property
    def provenance(self) -> Mapping[str, object]:
        return {"strategy": self.strategy}

    def inform(self, concepts: Mapping[str, Concept]) -> None:
        """Only `binder` and `namer` look at it; without it they recognise nothing."""
        self._concepts = concepts

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        for cut in sweep.cuts:
            for query in sweep.queries:
                yield Response(text=self._answer(sweep, sweep.support[:cut], query))

    def _answer(self, sweep: Sweep, support: tuple[Turn, ...], query: Turn) -> str:
        first, said = sweep.labels[0], [turn.label or "" for turn in support]
        thing = self._seen(query)
        match self.strategy:
            case "binder":
                own = [turn.label or "" for turn in support if thing and self._seen(turn) == thing]
                return _most_frequent(own) or first
            case "namer":
                return thing.name if thing and thing.name in sweep.labels else first
            case "first":
                return first
            case "last":
                return said[-1] if said else first
            case "frequent":
                return _most_frequent(said) or first
            case "text":
                return min(sweep.labels)

    def _seen(self, turn: Turn) -> Concept | None:
        return self._concepts.get(turn.image.id) if turn.image else None


def _most_frequent(words: list[str]) -> str:
    """The word said more often than any other; empty for a tie or no words."""
    ranked = Counter(words).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return ""
    return ranked[0][0]
