"""Few-shot probes: can the pictures of two concepts be told apart by the nearest centroid.

From a good embedding they should be: else nobody can learn the concept. From style alone (`style`)
they should not be.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isekai.dataset import Dataset
from isekai.embeddings import Embeddings
from isekai.episodes import generator
from isekai.evidence.records import AGAINST, ALL, Against, Comparison, Probes
from isekai.evidence.space import Rows, Space, made, others, part
from isekai.statistics import metrics
from isekai.types import Concept, Estimate, Group

SHOTS = (1, 4)
DRAWS = 10
"""Support sets drawn at each number of shots."""


Hits = list[tuple[str, bool]]
"""(image id of the query, told right)."""
Pair = tuple[str, str]
"""The ids of two concepts, sorted: what is found of A and B is found of B and A."""
Rivals = Mapping[str, Mapping[Against, str]]
"""Concept -> what it is told from."""


def measure(
    space: Space, embeddings: Embeddings, rivals: Rivals, *, shots: Sequence[int], seed: int
) -> Probes:
    """What an embedder's features tell."""
    found = ask(space, rivals, shots=shots, seed=seed)
    settings = {"probe": PROBE, "shots": list(shots), "draws": DRAWS, "seed": seed}
    return Probes(
        made=made(embeddings, "scipy", **settings),
        concepts=comparisons(found, rivals),
        overall=overall(found, rivals),
    )


PROBE = "nearest centroid"


# ---------------------------------------------------------------- whom to tell from whom


def choose(space: Space) -> Rivals:
    """Each novel concept's twin and foil: of several the one whose support lies nearest.

    Left out is whoever has no picture in either split.
    """
    dataset = space.dataset
    usable = {c.id for group in dataset.groups for c in group.concepts if _asked(dataset, c.id)}
    centres = {id: space.at(dataset.ids(id, "support")).mean(axis=0) for id in sorted(usable)}
    chosen: dict[str, dict[Against, str]] = {}
    for group in dataset.groups:
        for concept in group.concepts:
            if concept.role == "novel" and concept.id in usable:
                found = _nearest(group, concept, centres)
                if found:
                    chosen[concept.id] = found
    return chosen


def _asked(dataset: Dataset, concept: str) -> bool:
    return bool(dataset.ids(concept, "support") and dataset.ids(concept, "query"))


def _nearest(group: Group, concept: Concept, centres: Mapping[str, Rows]) -> dict[Against, str]:
    found: dict[Against, str] = {}
    own = centres[concept.id]
    there: dict[Against, list[Concept]] = {
        "twin": others(group, concept, "novel"),
        "foil": others(group, concept, "foil"),
    }
    for against, those in there.items():
        ids = [one.id for one in those if one.id in centres]
        if ids:
            found[against] = min(ids, key=lambda id: (float(np.sum((own - centres[id]) ** 2)), id))
    return found


# ---------------------------------------------------------------- asking


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a probe said of two concepts."""

    group: str
    hits: Mapping[str, Hits]
    """By support pictures a concept."""
    support: int


def ask(space: Space, rivals: Rivals, *, shots: Sequence[int], seed: int) -> dict[Pair, Found]:
    """Each pair of rivals, asked once."""
    pairs = {pair(id, other) for id, against in rivals.items() for other in against.values()}
    return {one: _ask(space, one, shots=shots, seed=seed) for one in sorted(pairs)}


def pair(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def _ask(space: Space, concepts: Pair, *, shots: Sequence[int], seed: int) -> Found:
    """Of both concepts equally many queries are asked, so that chance is one half."""
    dataset, key = space.dataset, "/".join(concepts)
    support = [sorted(dataset.ids(concept, "support")) for concept in concepts]
    most = min(map(len, support))
    asked = [sorted(dataset.ids(concept, "query")) for concept in concepts]
    fewest = min(map(len, asked))
    drawn = [
        (side, ids[place])
        for side, ids in enumerate(asked)
        for place in generator(seed, "probe", key, "query", str(side)).permutation(len(ids))[
            :fewest
        ]
    ]
    sides, queries = np.array([side for side, _ in drawn]), [id for _, id in drawn]
    vectors, pools = space.at(queries), [space.at(ids) for ids in support]

    def told(count: int, take: int) -> Hits:
        own = ("probe", key, str(count), str(take))
        centres = np.stack(
            [
                pool[generator(seed, *own, str(side)).permutation(len(pool))[:count]].mean(axis=0)
                for side, pool in enumerate(pools)
            ]
        )
        return list(zip(queries, _right(vectors, centres, sides), strict=True))

    few = [count for count in sorted(set(shots)) if count < most]
    hits = {str(k): [hit for take in range(DRAWS) for hit in told(k, take)] for k in few}
    takes = 1 if len(pools[0]) == len(pools[1]) else DRAWS  # all of both: nothing is drawn
    hits[ALL] = [hit for take in range(takes) for hit in told(most, take)]
    return Found(group=concepts[0].split("/", 1)[0], hits=hits, support=most)


def _right(vectors: Rows, centres: Rows, sides: NDArray[np.int64]) -> list[bool]:
    """Whether the nearer of two centres [2, D] is that of each row's own side.

    A tie goes to the first, which is right for half of the rows.
    """
    away = np.sum((vectors[:, None] - centres[None]) ** 2, axis=2)
    return [bool(right) for right in away.argmin(axis=1) == sides]


# ---------------------------------------------------------------- summing up


def comparisons(
    found: Mapping[Pair, Found], rivals: Rivals
) -> dict[str, dict[Against, Comparison]]:
    """Concept -> what it is told from -> how well."""

    def one(id: str, other: str) -> Comparison:
        said = found[pair(id, other)]
        return Comparison(
            other=other,
            accuracy={key: _by_picture(hits) for key, hits in said.hits.items()},
            support=said.support,
        )

    return {
        id: {against: one(id, other) for against, other in own.items()}
        for id, own in rivals.items()
    }


def overall(found: Mapping[Pair, Found], rivals: Rivals) -> dict[Against, dict[str, Estimate]]:
    """What a concept is told from -> support pictures -> share right, clustered by group."""
    told: dict[Against, dict[str, Estimate]] = {}
    for against in AGAINST:
        pairs = {pair(id, own[against]) for id, own in rivals.items() if against in own}
        hits: dict[str, Hits] = defaultdict(list)
        for one in sorted(pairs):
            for key, said in found[one].hits.items():
                hits[key] += [(found[one].group, right) for _, right in said]
        if hits:
            keys = sorted(hits, key=lambda key: (key == ALL, int(key) if key != ALL else 0))
            told[against] = {key: _share(hits[key]) for key in keys}
    return told


def _by_picture(hits: Hits) -> Estimate:
    """Pictures are independent given what was drawn; asked more than once, each is a cluster."""
    once = len({query for query, _ in hits}) == len(hits)
    return part(sum(right for _, right in hits), len(hits)) if once else _share(hits)


def _share(hits: Hits) -> Estimate:
    found = metrics.share(hits)
    assert found is not None  # every pair has queries
    return found
