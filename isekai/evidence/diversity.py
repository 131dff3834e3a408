"""How different the pictures of one concept are: a concept of one picture teaches one picture."""

import numpy as np

from isekai.embeddings import Embeddings
from isekai.evidence.records import Diversity, Spread
from isekai.evidence.space import Rows, Space, filled, made, pictures


def measure(space: Space, embeddings: Embeddings) -> Diversity:
    """The spread within every concept that has at least two pictures."""
    return Diversity(
        made=made(embeddings, kernel="cosine"),
        concepts={
            concept.id: spread(pictures(space.dataset, concept.id), space.shown(concept.id))
            for _, concept in filled(space.dataset, least=2)
        },
    )


def spread(ids: list[str], vectors: Rows) -> Spread:
    """Of at least two unit rows [n, D]."""
    rows = vectors.astype(np.float64)
    cosines = rows @ rows.T
    upper = np.triu_indices(len(rows), 1)
    pairs = cosines[upper]
    best = int(pairs.argmax())
    first, second = ids[int(upper[0][best])], ids[int(upper[1][best])]
    return Spread(
        n=len(rows),
        distance=float(np.mean(1 - pairs)),
        vendi=vendi(cosines),
        nearest=(first, second),
        nearest_cosine=float(pairs[best]),
    )


def vendi(similarities: Rows) -> float:
    """The Vendi score of a positive semi-definite [n, n] kernel with ones on its diagonal.

    exp of the entropy of the eigenvalues of K / n: 1 for n equal pictures, n for n orthogonal ones
    (Friedman and Dieng, The Vendi Score, arXiv:2210.02410, definition 3.1).
    """
    values = np.linalg.eigvalsh(similarities / len(similarities))
    values = values[values > 0]
    return float(np.exp(-np.sum(values * np.log(values))))
