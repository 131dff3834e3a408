"""Puts requests to a source: in this process, or in several that may die."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Self

from PIL.Image import Image

from isekai.errors import PluginError
from isekai.lanes import Lanes
from isekai.protocols import Accelerated, ImageSource, Picture, Rejected
from isekai.types import ImageRequest

Answer = tuple[ImageRequest, Picture | Rejected]

CHUNK = 4
"""Images that a worker is handed at a time: few, so that no worker is left alone at the end."""


class Drawing:
    """A source at work. Models stay loaded from one `draw` to the next, until it is closed."""

    def __init__(self, source: ImageSource, *, images: int, workers: int | None = None) -> None:
        """`images` are to be drawn in all. `workers` is one a device, or one a usable core."""
        self._source = source
        self._accelerated = source if isinstance(source, Accelerated) else None
        if workers is None:
            workers = len(self._accelerated.devices) if self._accelerated else usable_cores()
        self.workers = max(1, min(workers, -(-images // CHUNK)))
        if not source.processes:
            self.workers = 1
        self._exit = ExitStack()
        self._lanes: Lanes | None = None

    def __enter__(self) -> Self:
        if self.workers > 1:
            self._lanes = self._exit.enter_context(Lanes(self._copies(), self._threads()))
        return self

    def __exit__(self, *error: object) -> None:
        self._exit.close()

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Answer]:
        """Every request with its picture or the reason why not; in any order if there are workers.

        Close the iterator to stop early.
        """
        if self._accelerated:
            if self._lanes:
                self._lanes.prepare(requests)
            else:
                self._accelerated.prepare(requests)
            requests = self._accelerated.arrange(requests)
        if self._lanes:
            return _checked(self._lanes.draw(list(self._chunks(requests))))
        return _checked(zip(requests, self._source.draw(requests), strict=True))

    def _chunks(self, requests: Sequence[ImageRequest]) -> Iterator[Sequence[ImageRequest]]:
        """Large ones first, where a source likes them, and small ones towards the end.

        A lane holds two: a quarter of what is left for all leaves enough to share out.
        """
        most = self._accelerated.chunk if self._accelerated else CHUNK
        start = 0
        while start < len(requests):
            fair = (len(requests) - start) // (4 * self.workers)
            size = max(CHUNK, min(most, fair))
            yield requests[start : start + size]
            start += size

    def _copies(self) -> list[ImageSource]:
        """What each worker draws with."""
        if not self._accelerated:
            return [self._source] * self.workers
        devices = self._accelerated.devices
        return [self._accelerated.on(devices[i % len(devices)]) for i in range(self.workers)]

    def _threads(self) -> int:
        """Threads of each worker. Ours that run on processors alone draw with one each."""
        return max(1, usable_cores() // self.workers) if self._accelerated else 1


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _checked(
    drawn: Iterable[tuple[ImageRequest, Image | Picture | Rejected]],
) -> Iterator[Answer]:
    for request, picture in drawn:
        if isinstance(picture, Image):
            picture = Picture(picture)
        if isinstance(picture, Picture) and picture.image.mode != "RGB":
            raise PluginError(
                f"the source gave a picture of mode {picture.image.mode}; expected RGB"
            )
        yield request, picture
