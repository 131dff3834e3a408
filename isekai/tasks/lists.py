"""`lists`: the questions of a published benchmark, each with the pictures that it was given.

Nothing is drawn: how many queries or episodes are asked for changes nothing here.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from isekai.episodes import generator, words
from isekai.errors import DataError
from isekai.spec import seed as seeded
from isekai.types import Episode, Example, LabelWords

if TYPE_CHECKING:
    from isekai.dataset import Dataset, Listed


def lists(
    dataset: "Dataset",
    *,
    shots: Sequence[int],
    queries: int,
    episodes: int,
    labels: LabelWords,
    seed: int,
) -> Iterator[Episode]:
    """One episode a question, with its one query; its cluster is its pair of names.

    The k-shot support set is the first k positives and the first k negatives. The positive label
    stands first in `labels`, as published, which the released metric needs. In the support set and
    where labels are listed, which of the two comes first changes by chance. The seed moves these
    orders and made-up words, nothing else.
    """
    if not dataset.lists:
        raise DataError(
            f"{dataset.path}: no group here has published questions, which task 'lists' asks; "
            "they come with --data lists:… or pairs:…"
        )
    scarcest = min(dataset.lists, key=_fits)
    if max(shots) > _fits(scarcest):
        raise DataError(
            f"{dataset.path}: question {scarcest.line} lists {_fits(scarcest)} images of a label "
            f"and --shots asks for {max(shots)}; the largest that fits is --shots {_fits(scarcest)}"
        )
    digits = len(str(dataset.lists[-1].line))
    return (_episode(dataset, one, tuple(shots), labels, seed, digits) for one in dataset.lists)


def _fits(one: "Listed") -> int:
    return min(len(one.positives), len(one.negatives))


def _episode(
    dataset: "Dataset",
    one: "Listed",
    shots: tuple[int, ...],
    labels: LabelWords,
    base: int,
    digits: int,
) -> Episode:
    group = dataset.concept(one.concept).group
    seed = seeded(f"lists/{group}", one.line, base)
    return Episode(
        id=f"lists/{group}/{base}-{one.line:0{digits}d}",
        task="lists",
        cluster=group,
        labels=words(dataset, one.labels, labels, seed),
        support=_support(one, max(shots), seed),
        shots=shots,
        queries=(Example(image_id=one.query, concept=one.concept),),
        seed=seed,
    )


def _support(one: "Listed", count: int, seed: int) -> tuple[Example, ...]:
    """Blocks of the i-th positive and the i-th negative, in random order within a block."""
    pictures = [
        [Example(image_id=id, concept=concept) for id in ids[:count]]
        for concept, ids in zip(one.labels, (one.positives, one.negatives), strict=True)
    ]
    order = generator(seed, "support", "order")
    blocks = zip(*pictures, strict=True)
    return tuple(chain(*([block[i] for i in order.permutation(2)] for block in blocks)))
