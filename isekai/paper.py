"""The published protocol: a support set of its own, shuffled anew, for every query and shot count.

Link-Context Learning (arXiv:2308.07891) as its released code asks: the positives, then the
negatives, shuffled as one list; then the query. There the order comes from one global generator, so
that it depends on all that was asked before; here every question has a seed of its own.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from isekai.spec import seed as seeded
from isekai.types import Episode, Example, LabelWords

TEMPLATE = "lcl"
LABELS: LabelWords = "true"
"""What `--protocol paper` asks with unless it is told otherwise."""


def questions(episode: Episode) -> Iterator[Episode]:
    """The episode as one for each of its shot counts and queries.

    All variants of an episode are shuffled alike, so that they differ in nothing but their control.
    """
    for shots in episode.shots:
        shown = episode.support[: len(episode.labels) * shots]
        for number, query in enumerate(episode.queries):
            place = f"paper/{episode.take}/{number}"
            yield replace(
                episode,
                id=f"{episode.id}/{number:03d}@{shots}",
                support=shuffled(_by_label(episode, shown), seeded(place, shots, episode.seed)),
                shots=(shots,),
                queries=(query,),
            )


def shuffled(examples: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """The examples in the order in which Python's generator of this seed shuffles them.

    `random.shuffle` is what the released code calls: with the same state, the same order.
    """
    order = list(examples)
    random.Random(seed).shuffle(order)
    return tuple(order)


def _by_label(episode: Episode, examples: Sequence[Example]) -> list[Example]:
    """All of the first label, then all of the next, each in the order it had."""
    return [one for concept in episode.labels for one in examples if one.concept == concept]
