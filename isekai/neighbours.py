"""Who is near whom among unit rows: all pairs over a cosine, and the nearest of each.

Up to 200,000 rows every pair is looked at, a tile at a time; N x N numbers are never held. Beyond,
rows are compared within k-means buckets alone, and how many pairs that finds is measured on random
rows that are compared with all others.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isekai.episodes import generator
from isekai.errors import IsekaiError
from isekai.statistics import metrics
from isekai.types import Estimate

TILE = 1024
"""Rows compared at once with as many others: 4 MB of cosines, which a cache holds."""
EXACT = 200_000
"""Rows up to which `search` looks at every pair."""
MOST = 30_000_000
"""Pairs that are held, 12 bytes each; beyond, the threshold says nothing."""

_HOMES = 2
"""Buckets of each row."""
_ROUNDS = 8
_A_CENTRE = 64
"""Rows a centre that k-means learns from."""
_QUERIES = 1000
_ROUNDING = 1e-6
"""How far the cosine of one pair differs between two products of other shapes."""

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of rows, i < j, ordered by i and then j."""

    i: NDArray[np.int32]
    j: NDArray[np.int32]
    cosine: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.i)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Pairs, and which share of all such pairs they are; None where every pair was looked at."""

    pairs: Pairs
    recall: Estimate | None


def search(rows: Rows, threshold: float, seed: int = 0, exact: int = EXACT) -> Found:
    """Pairs of unit rows [N, D] whose cosine is at least `threshold`: all up to `exact` rows.

    Beyond, those that share one of their two buckets, with the recall measured.
    """
    if len(rows) <= exact:
        return Found(pairs=pairs(rows, threshold), recall=None)
    found = bucketed(rows, threshold, seed)
    return Found(pairs=found, recall=recall(rows, threshold, found, seed))


def pairs(rows: Rows, threshold: float) -> Pairs:
    """Every pair of unit rows [N, D] whose cosine is at least `threshold`.

    IsekaiError if there are more than `MOST`.
    """
    return _joined(_scan(rows, threshold), threshold)


def bucketed(rows: Rows, threshold: float, seed: int = 0) -> Pairs:
    """The pairs that share a bucket: sqrt(N) k-means buckets, each row in the two nearest.

    The same rows, order and seed give the same pairs. IsekaiError as for `pairs`.
    """
    homes, _ = nearest(rows, _centres(rows, seed), _HOMES)
    parts, held = [], 0
    for members in _members(homes):
        for part in _scan(rows[members], threshold):
            i, j = members[part.i], members[part.j]
            parts.append(Pairs(i=i.astype(np.int32), j=j.astype(np.int32), cosine=part.cosine))
            held += len(part)
            _refuse_too_many(held // _HOMES, threshold)
    return _joined(iter(parts), threshold)


def recall(
    rows: Rows, threshold: float, found: Pairs, seed: int = 0, queries: int = _QUERIES
) -> Estimate | None:
    """Which share of all pairs of random rows was found; None if these have no pair.

    The rows are drawn by `seed` and compared with all others. The interval takes a query, not a
    pair, for independent. Pairs on the very edge of the threshold count nowhere.
    """
    chosen = generator(seed, "neighbours", "queries").permutation(len(rows))[:queries]
    chosen.sort()
    known = _keys(found.i, found.j, len(rows))
    hits: list[tuple[str, bool]] = []
    for start in range(0, len(rows), TILE):
        cosines = rows[chosen] @ rows[start : start + TILE].T
        query, other = np.nonzero(cosines >= threshold + _ROUNDING)
        one, two = chosen[query], other + start
        apart = one != two
        one, two = one[apart], two[apart]
        keys = _keys(np.minimum(one, two), np.maximum(one, two), len(rows))
        places = np.searchsorted(known, keys)
        there = known[np.minimum(places, len(known) - 1)] == keys if len(known) else keys < 0
        hits += zip(map(str, one), map(bool, there), strict=True)
    return metrics.share(hits)


def nearest(
    queries: Rows, rows: Rows, k: int, floor: float = -2.0
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """[Q, k] twice: the rows nearest to each query, nearest first, and their cosines.

    Only cosines of at least `floor` count; missing ones are row -1 with cosine -2. Of equally near
    rows the lower ones come first.
    """
    where = np.full((len(queries), k), -1, np.int64)
    cosine = np.full((len(queries), k), -2, np.float32)
    for top in range(0, len(queries), TILE):
        for left in range(0, len(rows), TILE):
            tile = queries[top : top + TILE] @ rows[left : left + TILE].T
            edge = np.maximum(cosine[top : top + TILE, -1], np.float32(floor))
            best = tile.max(axis=1)
            # The first rows of equal cosine are there already: a later one has to be nearer.
            better = (best > edge) | ((best >= floor) & (where[top : top + TILE, -1] < 0))
            chosen = np.flatnonzero(better)
            if len(chosen):
                near, found = _best(tile[chosen], k, floor)
                _merge(where, cosine, top + chosen, near + left, found)
    return where, cosine


def closest(a: Rows, b: Rows) -> tuple[float, int, int]:
    """The highest cosine between a row of `a` and a row of `b` (unit rows), and which rows."""
    best = (-1.0, 0, 0)
    for row in range(0, len(a), TILE):
        for column in range(0, len(b), TILE):
            cosines = a[row : row + TILE] @ b[column : column + TILE].T
            i, j = divmod(int(cosines.argmax()), cosines.shape[1])
            best = max(best, (float(cosines[i, j]), row + i, column + j), key=lambda one: one[0])
    return best


def closest_apart(rows: Rows, labels: NDArray[np.int64]) -> tuple[float, int, int] | None:
    """The highest cosine of two rows with different labels, and which; None if all are equal."""
    best: tuple[float, int, int] | None = None
    for top, left, tile in _tiles(rows):
        if best and tile.max() <= best[0]:
            continue
        alike = labels[top : top + TILE, None] == labels[None, left : left + TILE]
        tile[alike] = -2
        i, j = divmod(int(tile.argmax()), tile.shape[1])
        if tile[i, j] > (best[0] if best else -2):
            best = (float(tile[i, j]), top + i, left + j)
    return best


# ---------------------------------------------------------------- tiles


def _tiles(rows: Rows) -> Iterator[tuple[int, int, Rows]]:
    """Top, left and cosines of each tile on or above the diagonal; the tile is used again."""
    buffer = np.empty((min(TILE, len(rows)), min(TILE, len(rows))), np.float32)
    for top in range(0, len(rows), TILE):
        upper = rows[top : top + TILE]
        for left in range(top, len(rows), TILE):
            lower = rows[left : left + TILE]
            tile = buffer[: len(upper), : len(lower)]
            yield top, left, np.matmul(upper, lower.T, out=tile)


def _scan(rows: Rows, threshold: float) -> Iterator[Pairs]:
    """The pairs of each tile that holds any."""
    for top, left, tile in _tiles(rows):
        if tile.max() < threshold:
            continue
        i, j = np.nonzero(tile >= threshold)
        if top == left:
            above = i < j
            i, j = i[above], j[above]
        if len(i):
            yield Pairs(
                i=(i + top).astype(np.int32), j=(j + left).astype(np.int32), cosine=tile[i, j]
            )


def _joined(parts: Iterator[Pairs], threshold: float) -> Pairs:
    """In order, and each pair once."""
    held: list[Pairs] = []
    for part in parts:
        held.append(part)
        _refuse_too_many(sum(map(len, held)), threshold)
    if not held:
        none = np.zeros(0, np.int32)
        return Pairs(i=none, j=none, cosine=np.zeros(0, np.float32))
    i = np.concatenate([part.i for part in held])
    j = np.concatenate([part.j for part in held])
    cosine = np.concatenate([part.cosine for part in held])
    _, order = np.unique(_keys(i, j, int(j.max()) + 1), return_index=True)
    return Pairs(i=i[order], j=j[order], cosine=cosine[order])


def _refuse_too_many(count: int, threshold: float) -> None:
    if count > MOST:
        raise IsekaiError(
            f"more than {MOST:,} pairs have a cosine of {threshold:.3f} or more; "
            "a higher threshold is needed"
        )


def _keys(i: NDArray[np.integer], j: NDArray[np.integer], count: int) -> NDArray[np.int64]:
    """A number for each pair of rows among `count`, in the order of i and then j."""
    return i.astype(np.int64) * count + j


def _best(tile: Rows, k: int, floor: float) -> tuple[NDArray[np.int64], Rows]:
    """[q, k] twice: the columns of the highest cosines of each row, and these; -2 for none."""
    least = np.full(len(tile), floor, np.float32)
    if tile.shape[1] > k:
        least = np.maximum(least, np.partition(tile, -k, axis=1)[:, -k])
    row, column = np.nonzero(tile >= least[:, None])  # more than k where the last are equal
    order = np.lexsort((column, -tile[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    row, column, place = row[place < k], column[place < k], place[place < k]
    where = np.zeros((len(tile), k), np.int64)
    cosine = np.full((len(tile), k), -2, np.float32)
    where[row, place] = column
    cosine[row, place] = tile[row, column]
    return where, cosine


def _merge(
    where: NDArray[np.int64],
    cosine: Rows,
    chosen: NDArray[np.int64],
    near: NDArray[np.int64],
    found: Rows,
) -> None:
    """Put what was found for the chosen queries among the best so far."""
    both = np.concatenate([cosine[chosen], found], axis=1)
    order = np.argsort(-both, axis=1, kind="stable")[:, : where.shape[1]]
    rows = np.concatenate([where[chosen], np.where(found < -1.5, -1, near)], axis=1)
    where[chosen] = np.take_along_axis(rows, order, axis=1)
    cosine[chosen] = np.take_along_axis(both, order, axis=1)


# ---------------------------------------------------------------- buckets


def _centres(rows: Rows, seed: int) -> Rows:
    """[sqrt(N), D]: spherical k-means on a part of the rows; an empty bucket keeps its centre."""
    rng = generator(seed, "neighbours", "centres")
    count = max(round(len(rows) ** 0.5), 1)
    part = rows[np.sort(rng.permutation(len(rows))[: count * _A_CENTRE])]
    centres = part[np.sort(rng.permutation(len(part))[:count])]
    for _ in range(_ROUNDS):
        homes = nearest(part, centres, 1)[0][:, 0]
        order = np.argsort(homes, kind="stable")
        full, first = np.unique(homes[order], return_index=True)
        sums = np.add.reduceat(part[order], first, axis=0)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres[full] = np.where(length > 0, sums / np.maximum(length, 1e-12), centres[full])
    return centres


def _members(homes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """The rows of each bucket, ascending."""
    rows = np.repeat(np.arange(len(homes)), homes.shape[1])
    flat = homes.ravel()
    rows, flat = rows[flat >= 0], flat[flat >= 0]
    order = np.argsort(flat, kind="stable")
    _, first = np.unique(flat[order], return_index=True)
    yield from np.split(rows[order], first[1:])
