"""`false=RATE`: this share of the support set says another label than the true one.

The dial of the causal link (Link-Context Learning, arXiv:2308.07891, figure 7). Right is what is
true, so that a model that binds goes from its plain accuracy at 0 to none at 1, and a model that
does not care what the support set says stays where it is.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from isekai.episodes import generator
from isekai.errors import IsekaiError
from isekai.types import Episode, Example

if TYPE_CHECKING:
    from isekai.dataset import Dataset


def false(episode: Episode, *, dataset: "Dataset", value: str) -> Iterator[Episode]:
    """Within each label the false ones are spread evenly from a random start (systematic sampling).

    So the k-shot support set holds `RATE * k` of them a label, rounded up or down, for every k.
    """
    rate = _rate(value)
    words = list(episode.labels.values())
    phase = {c: float(generator(episode.seed, "false", c).random()) for c in episode.labels}
    step = {c: int(generator(episode.seed, "false to", c).integers(1, len(words))) for c in phase}
    seen = dict.fromkeys(episode.labels, 0)

    def told(example: Example) -> Example:
        concept, number = example.concept, seen[example.concept]
        seen[concept] += 1
        before, after = (math.floor(phase[concept] + rate * n) for n in (number, number + 1))
        if before == after:
            return example
        other = words[(words.index(episode.labels[concept]) + step[concept]) % len(words)]
        return replace(example, word=other)

    yield replace(episode, support=tuple(told(example) for example in episode.support))


def _rate(value: str) -> float:
    try:
        rate = float(value)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= 1:
        raise IsekaiError(f"control 'false={value}': the rate is a number from 0 to 1: false=0.5")
    return rate
