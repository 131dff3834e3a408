"""Which shots help? Asks an episode with other support images, chosen by their embeddings."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from isekai.dedup import Limits
from isekai.episodes import generator
from isekai.errors import DataError, IsekaiError, did_you_mean
from isekai.strategies import STRATEGIES, Labels, Positions, Rows, nearest, random, rounded
from isekai.types import Episode, Example

if TYPE_CHECKING:
    from isekai.dataset import Dataset
    from isekai.embeddings import Embeddings


def names() -> list[str]:
    """Of all strategies, in the order in which tables show them."""
    return list(STRATEGIES)


def select(
    episode: Episode,
    strategy: str,
    *,
    dataset: "Dataset",
    embeddings: "Embeddings",
    limits: Limits | None = None,
) -> Iterator[Episode]:
    """The episodes to ask in the place of a plain one: as it is, but for its support images.

    They come from all support images of the episode's concepts. Which label stands in which place
    stays (but for `random`), so that the label shown last is as balanced as before. No image is
    shown whose cosine with a query reaches `limits.cosine`, a number measured on embedder `lite0`.
    `balanced` is the episode itself, with another image for every one that is that near.
    `nearest` takes an episode for every shot count and query; the most similar images come last in
    it, as in Flamingo. DataError if too few images are left.
    """
    if strategy not in STRATEGIES:
        known = did_you_mean(strategy, STRATEGIES)
        raise IsekaiError(f"no support selection is called '{strategy}'{known}")
    if not episode.support:
        return iter(list(_questions(episode)) if strategy == "nearest" else [episode])
    pool = _Pool.of(episode, dataset, embeddings)
    queries = embeddings.of([one.image_id for one in episode.queries], dataset.image).astype(float)
    near = pool.near(episode.queries, queries, limits or Limits())
    if strategy != "nearest":
        near = np.any(near, axis=1, keepdims=True)  # all queries share the support set
    _refuse_too_few(episode, strategy, pool, near)
    if strategy == "nearest":
        rows = zip(queries, near.T, strict=True)
        ranked = [_nearest_to(row, pool.without(close), episode) for row, close in rows]
        return iter(list(_questions(episode, ranked)))
    return iter([replace(episode, support=_support(episode, strategy, pool.without(near[:, 0])))])


def _support(episode: Episode, strategy: str, pool: "_Pool") -> tuple[Example, ...]:
    rng = generator(episode.seed, "select", strategy)
    if strategy == "random":
        return pool.at(random(pool.rows, pool.labels, len(episode.support), rng))
    choose = STRATEGIES[strategy]
    chosen = pool.at(choose(pool.rows, pool.labels, max(_wanted(episode).values()), rng))
    if strategy == "balanced":
        left = set(pool.examples)
        own = [one for one in map(_bare, episode.support) if one in left]
        chosen = tuple(dict.fromkeys([*own, *chosen]))
    return _fill(episode.support, _by_concept(chosen))


def _nearest_to(query: Rows, pool: "_Pool", episode: Episode) -> dict[str, list[Example]]:
    count = max(_wanted(episode).values())
    return _by_concept(pool.at(nearest(pool.rows, pool.labels, count, query)))


def _questions(
    episode: Episode, ranked: Sequence[Mapping[str, list[Example]]] = ()
) -> Iterator[Episode]:
    """An episode for every shot count and query; `ranked` has each query's images, best first."""
    for shots in episode.shots:
        places = episode.support[: len(episode.labels) * shots]
        count = Counter(place.concept for place in places)
        for number, query in enumerate(episode.queries):
            chosen = {concept: ranked[number][concept][: count[concept]][::-1] for concept in count}
            yield replace(
                episode,
                id=f"{episode.id}/{number:03d}@{shots}",
                support=_fill(places, chosen),
                shots=(shots,),
                queries=(query,),
            )


def _fill(
    places: Sequence[Example], chosen: Mapping[str, Sequence[Example]]
) -> tuple[Example, ...]:
    """For every place the next image of the concept that stands there."""
    rest = {concept: iter(examples) for concept, examples in chosen.items()}
    return tuple(next(rest[place.concept]) for place in places)


def _by_concept(examples: Sequence[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.concept, []).append(example)
    return found


def _bare(example: Example) -> Example:
    return Example(image_id=example.image_id, concept=example.concept)


def _wanted(episode: Episode) -> Counter[str]:
    """How many images of each concept the longest support set shows."""
    return Counter(example.concept for example in episode.support)


# ---------------------------------------------------------------- what there is to choose from


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pool:
    """Support images of an episode's concepts, by content hash."""

    examples: tuple[Example, ...]
    labels: Labels
    """[N]: which of the episode's labels, counted from 0."""
    rows: Rows
    """[N, D]."""

    @classmethod
    def of(cls, episode: Episode, dataset: "Dataset", embeddings: "Embeddings") -> "_Pool":
        """All that the dataset has, and the episode's own, where a published list names others."""
        examples: list[Example] = []
        for concept in episode.labels:
            own = [one.image_id for one in episode.support if one.concept == concept]
            there = dict.fromkeys([*dataset.ids(concept, "support"), *own])
            examples += [Example(image_id=id, concept=concept) for id in there]
        rows = embeddings.of([one.image_id for one in examples], dataset.image)
        numbers = {concept: number for number, concept in enumerate(episode.labels)}
        order = sorted(
            range(len(examples)), key=lambda i: (examples[i].image_id, examples[i].concept)
        )
        return cls(
            examples=tuple(examples[i] for i in order),
            labels=np.array([numbers[examples[i].concept] for i in order]),
            rows=rows[order].astype(float),
        )

    def near(self, queries: Sequence[Example], rows: Rows, limits: Limits) -> NDArray[np.bool_]:
        """[N, Q]: which images are the query itself or a near-duplicate of it."""
        ids = np.array([one.image_id for one in self.examples])
        same = ids[:, None] == np.array([query.image_id for query in queries])
        near: NDArray[np.bool_] = same | (rounded(self.rows @ rows.T) >= limits.cosine)
        return near

    def without(self, left_out: NDArray[np.bool_]) -> "_Pool":
        kept = np.flatnonzero(~left_out)
        return _Pool(examples=self.at(kept), labels=self.labels[kept], rows=self.rows[kept])

    def at(self, positions: Positions) -> tuple[Example, ...]:
        return tuple(self.examples[position] for position in positions)


def _refuse_too_few(episode: Episode, strategy: str, pool: _Pool, near: NDArray[np.bool_]) -> None:
    """DataError unless each query leaves enough images that aren't `near` it [N, Q]."""
    wanted = dict(_wanted(episode))
    fewest = {
        concept: int((~near[pool.labels == number]).sum(axis=0).min())
        for number, concept in enumerate(episode.labels)
    }
    if strategy == "random":
        wanted = {"any label": len(episode.support)}
        fewest = {"any label": int((~near).sum(axis=0).min())}
    for who, asked in wanted.items():
        if fewest[who] < asked:
            fits = min(fewest[one] * max(episode.shots) // wanted[one] for one in wanted)
            raise DataError(
                f"{episode.id}: selection '{strategy}' asks for {asked} images of {who}, and "
                f"{fewest[who]} are no near-duplicates of what is asked about; "
                + (f"the largest that fits is --shots {fits}" if fits else "take another embedder")
            )
