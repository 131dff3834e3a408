"""A walk along rows: which of those before, and kept so far, are near the next one."""

import numpy as np
from numpy.typing import NDArray

from isekai import neighbours
from isekai.types import Estimate

_BLOCK = 256
"""Rows that are compared at once with all kept before them."""


class Near:
    """Which places that are kept, and come before, are near a place.

    Asked place after place, with `kept` true for those before that stay.
    """

    def __init__(self, rows: NDArray[np.float32], floor: float, count: int, seed: int) -> None:
        self.rows, self.floor, self.count = rows, floor, count
        self.kept = np.zeros(len(rows), bool)
        self.recall: Estimate | None = None
        self._start = self._stop = 0
        self._of = self._in_block
        if len(rows) > neighbours.EXACT:
            found = neighbours.search(rows, floor, seed, exact=0)
            self.recall = found.recall
            order = np.argsort(found.pairs.j, kind="stable")
            self._earlier, self._cosines = found.pairs.i[order], found.pairs.cosine[order]
            self._first = np.searchsorted(found.pairs.j[order], np.arange(len(rows) + 1))
            self._of = self._in_pairs

    def of(self, place: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """At most `count` places, nearest first, and their cosines of at least `floor`."""
        places, cosines = self._of(place)
        stay = self.kept[places]
        places, cosines = places[stay], cosines[stay]
        order = np.lexsort((places, -cosines))[: self.count]
        return places[order], cosines[order]

    def _in_block(self, place: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        if place >= self._stop:
            self._advance(place)
        row = place - self._start
        near = self._before[row] >= 0
        among = np.flatnonzero(self._among[row, :row] >= self.floor)
        return (
            np.concatenate([self._places[self._before[row][near]], among + self._start]),
            np.concatenate([self._cosine[row][near], self._among[row, among]]),
        )

    def _advance(self, place: int) -> None:
        """All that is kept before the next block is known by now."""
        self._start, self._stop = place, min(place + _BLOCK, len(self.rows))
        block = self.rows[self._start : self._stop]
        self._places = np.flatnonzero(self.kept[:place])
        self._before, self._cosine = neighbours.nearest(
            block, self.rows[self._places], self.count, self.floor
        )
        self._among = block @ block.T

    def _in_pairs(self, place: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        span = slice(self._first[place], self._first[place + 1])
        return self._earlier[span].astype(np.int64), self._cosines[span]
