"""Ways to choose support images by their embeddings: which of them, and which first.

A strategy is given the images to choose from: their embeddings, unit rows [N, D], and the number of
each one's label. It answers with the positions of `count` images of every label, label by label:
the one to show at one shot, the one to add at two, and so on. Asking for more never changes these.

Of equal images the first is taken, so that the rows' order has to mean something: give them by
content hash. Similarities are rounded before they are compared, which makes equal what is equal by
construction, though sums differ in their last bits from machine to machine. Two images that are
closer than that noise may still change places on another machine.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

DECIMALS = 6
"""Of similarities. Embeddings are float32, and no more of their products is to be trusted."""

Rows = NDArray[np.float64]
Labels = NDArray[np.int_]
Positions = NDArray[np.int_]


def random(rows: Rows, labels: Labels, count: int, rng: np.random.Generator) -> Positions:
    """`count` images in all, whatever their labels: some may come up seldom, or never."""
    return rng.permutation(len(rows))[:count]


def balanced(rows: Rows, labels: Labels, count: int, rng: np.random.Generator) -> Positions:
    """Images of each label at random: what episodes are drawn like."""
    return _of_each(labels, lambda own: rng.permutation(own)[:count])


def nearest(rows: Rows, labels: Labels, count: int, query: Rows) -> Positions:
    """Images of each label most similar to the query [D], the most similar first.

    Retrieval-based in-context example selection (RICES: Yang et al., arXiv:2109.05014; named so in
    Flamingo, arXiv:2204.14198), but for each label: over all of them, the choice would tell the
    answer to a model that only counts.
    """
    near = rounded(rows @ query)
    return _of_each(labels, lambda own: own[_descending(near[own])][:count])


def herding(rows: Rows, labels: Labels, count: int, rng: np.random.Generator) -> Positions:
    """Images of each label whose mean is nearest to the label's, one after the other.

    Herding (Welling, ICML 2009) as in iCaRL (arXiv:1611.07725), without taking an image twice. On
    unit rows, what brings the mean nearest has the largest product with what is missing from it.
    """

    def herd(own: Positions) -> Positions:
        mean, total = rows[own].mean(axis=0), np.zeros(rows.shape[1])
        chosen: list[int] = []
        while len(chosen) < min(count, len(own)):
            missing = (len(chosen) + 1) * mean - total
            chosen.append(_best(rows[own] @ missing, chosen))
            total += rows[own[chosen[-1]]]
        return own[chosen]

    return _of_each(labels, herd)


def prototype(rows: Rows, labels: Labels, count: int, rng: np.random.Generator) -> Positions:
    """Images of each label most similar to the label's mean: its most typical ones."""
    own_mean = _to_prototypes(rows, labels)[np.arange(len(rows)), labels]
    return _of_each(labels, lambda own: own[_descending(own_mean[own])][:count])


def diverse(rows: Rows, labels: Labels, count: int, rng: np.random.Generator) -> Positions:
    """Images of each label, each the farthest from those before it; the first is drawn at random.

    Greedy k-center (Gonzalez 1985; for choosing what to learn from, Sener & Savarese,
    arXiv:1708.00489): no image is more than twice as far from a chosen one as it has to be.
    """

    def spread(own: Positions) -> Positions:
        chosen = [int(rng.integers(len(own)))]
        closest = np.full(len(own), -np.inf)
        while len(chosen) < min(count, len(own)):
            closest = np.maximum(closest, rows[own] @ rows[own[chosen[-1]]])
            chosen.append(_best(-closest, chosen))
        return own[chosen[:count]]

    return _of_each(labels, spread)


def hardest(rows: Rows, labels: Labels, count: int, rng: np.random.Generator) -> Positions:
    """Images of each label that are least its own: the smallest margin over the other labels.

    The margin is the similarity to the label's mean less that to the nearest mean of another label.
    """
    to = _to_prototypes(rows, labels)
    at = np.arange(len(rows)), labels
    own_mean = to[at]
    to[at] = -np.inf
    margin = own_mean - to.max(axis=1)
    return _of_each(labels, lambda own: own[_descending(-margin[own])][:count])


STRATEGIES: Mapping[str, Callable[..., Positions]] = {
    "random": random,
    "balanced": balanced,
    "nearest": nearest,
    "herding": herding,
    "prototype": prototype,
    "diverse": diverse,
    "hardest": hardest,
}


def rounded(similarities: Rows) -> Rows:
    """Without the last bits, which depend on the machine."""
    return similarities.round(DECIMALS)


def _of_each(labels: Labels, choose: Callable[[Positions], Positions]) -> Positions:
    """What is chosen from the positions of each label, label by label."""
    chosen = [choose(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    return np.concatenate([*chosen, np.zeros(0, int)])


def _to_prototypes(rows: Rows, labels: Labels) -> Rows:
    """[N, labels]: the cosine of every row with the mean of each label's rows."""
    means = np.stack([rows[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    cosines: Rows = rows @ (means / np.maximum(lengths, np.finfo(float).tiny)).T
    return cosines


def _descending(similarities: Rows) -> Positions:
    """Positions from the largest to the smallest; of equal ones, the first first."""
    return np.argsort(-rounded(similarities), kind="stable")


def _best(scores: Rows, taken: Sequence[int]) -> int:
    """The position of the largest score that isn't taken; of equal ones, the first."""
    scores = rounded(scores)
    scores[list(taken)] = -np.inf
    return int(scores.argmax())
