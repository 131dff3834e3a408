"""The pictures of a dataset as rows of a matrix, found again by concept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from isekai import files
from isekai.dataset import Dataset
from isekai.embeddings import Embeddings
from isekai.evidence.records import Made, Mean
from isekai.parquet import SPLITS
from isekai.statistics import metrics
from isekai.types import Concept, Estimate, Group, Role

Rows = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A row for each picture. Any features will do; those of an embedder have length 1."""

    dataset: Dataset
    vectors: Rows
    """[N, D]."""
    places: Mapping[str, int]
    """Image id -> its row."""

    @classmethod
    def of(cls, dataset: Dataset, embeddings: Embeddings) -> "Space":
        """Every picture of the dataset, embedded."""
        ids = every(dataset)
        return cls.put(dataset, ids, embeddings.of(ids, dataset.image))

    @classmethod
    def put(cls, dataset: Dataset, ids: Sequence[str], vectors: Rows) -> "Space":
        return cls(dataset=dataset, vectors=vectors, places={id: n for n, id in enumerate(ids)})

    def at(self, ids: Sequence[str]) -> Rows:
        """[len(ids), D]."""
        return self.vectors[[self.places[id] for id in ids]]

    def shown(self, concept: str) -> Rows:
        """All pictures of the concept."""
        return self.at(pictures(self.dataset, concept))


def every(dataset: Dataset) -> list[str]:
    """The ids of all pictures, each once, in an order that rows and splits do not move."""
    return sorted({entry.image_id for entry in dataset.entries})


def pictures(dataset: Dataset, concept: str) -> list[str]:
    """The ids of all pictures of the concept, in an order that splits do not move."""
    return sorted({id for split in SPLITS for id in dataset.ids(concept, split)})


def filled(dataset: Dataset, least: int = 1) -> list[tuple[Group, Concept]]:
    """Every concept that has so many pictures, with its group."""
    return [
        (group, concept)
        for group in dataset.groups
        for concept in group.concepts
        if len(pictures(dataset, concept.id)) >= least
    ]


def others(group: Group, concept: Concept, role: Role) -> list[Concept]:
    """The other concepts of the group that have this role."""
    return [one for one in group.concepts if one.role == role and one.id != concept.id]


def made(embeddings: Embeddings, *packages: str, **settings: object) -> Made:
    """What a kind of evidence says of its making."""
    return {
        "embedder": embeddings.told,
        **settings,
        "environment": files.environment("numpy", *packages),
    }


def part(hits: int, n: int) -> Estimate:
    """The share of hits among n that are independent, with Wilson's interval."""
    low, high = metrics.wilson(hits, n)
    return Estimate(value=hits / n, low=float(low), high=float(high), n=n, clusters=n)


def mean(values: Rows) -> Mean | None:
    """The mean with its t interval; None for fewer than two values."""
    n = len(values)
    if n < 2:
        return None
    centre = float(values.mean())
    half = float(stdtrit(n - 1, 0.5 + metrics.LEVEL / 2) * values.std(ddof=1) / np.sqrt(n))
    return Mean(value=centre, low=centre - half, high=centre + half, n=n)
