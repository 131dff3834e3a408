"""Worker processes that draw, one a lane: each may die, and another takes up its work."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple, Self

from PIL.Image import Image

from isekai import progress
from isekai.errors import IsekaiError
from isekai.protocols import Accelerated, ImageSource, Picture, Rejected
from isekai.types import ImageRequest

DEATHS = 3
"""Workers that may die over the same images before the run gives up."""

GRACE = 2.0
"""Seconds that a worker has for the image it is at when the run ends early."""

_AHEAD = 2
"""Chunks a lane holds: the one it draws and the next, so that it never waits for us."""

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)

Chunk = Sequence[ImageRequest]
Drawn = Image | Picture | Rejected


class Lanes:
    """Several processes, each with a copy of a source; whichever is free takes the next chunk."""

    def __init__(self, sources: Sequence[ImageSource], threads: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # starting it within `_spawning` would undo the mask
        self._watched, self._held = self._context.Pipe(duplex=False)
        self._lanes = [_Lane(source, self._open) for source in sources]
        self._threads = threads

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held.close()
        for lane in self._lanes:
            lane.close()
        self._watched.close()

    def prepare(self, requests: Chunk) -> None:
        """Every lane prepares its share; returns when all have."""
        count = len(self._lanes)
        shares = deque(requests[start::count] for start in range(count))
        for _ in self._work(shares, _prepare):
            pass

    def draw(self, chunks: Sequence[Chunk]) -> Iterator[tuple[ImageRequest, Drawn]]:
        """Every request with what the source made of it, as it comes."""
        for chunk, pictures in self._work(deque(chunks), _draw):
            yield from zip(chunk, pictures, strict=True)

    def _work(
        self, todo: deque[Chunk], task: Callable[[Chunk], Any]
    ) -> Iterator[tuple[Chunk, Any]]:
        deaths: dict[int, int] = {}
        while todo or any(lane.pending for lane in self._lanes):
            for _ in range(_AHEAD):  # a chunk for everyone before a second one for anyone
                for lane in self._lanes:
                    if todo and len(lane.pending) < _AHEAD:
                        with _spawning(self._threads):
                            lane.submit(task, todo.popleft())
            wait(
                [lane.pending[0][0] for lane in self._lanes if lane.pending], None, FIRST_COMPLETED
            )
            for lane in self._lanes:
                while lane.pending and lane.pending[0][0].done():
                    future, chunk = lane.pending[0]
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        self._died(lane, chunk, deaths)
                        todo.extendleft(reversed([chunk for _, chunk in lane.take_back()]))
                        break
                    lane.pending.popleft()
                    yield chunk, result

    def _died(self, lane: "_Lane", chunk: Chunk, deaths: dict[int, int]) -> None:
        """Count the death; chunks are told apart by identity."""
        deaths[id(chunk)] = deaths.get(id(chunk), 0) + 1
        if deaths[id(chunk)] >= DEATHS:
            raise IsekaiError(
                f"{DEATHS} worker processes died, one after the other, over the same images, "
                "perhaps for want of memory; run the same command again to go on, with a smaller "
                "--workers if it happens again"
            )
        progress.tell("a worker process died; another one takes up its images")

    def _open(self, source: ImageSource) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, _begin, (source, self._watched))


class _Lane:
    def __init__(
        self, source: ImageSource, open: Callable[[ImageSource], ProcessPoolExecutor]
    ) -> None:
        self.pending: deque[tuple[Future[Any], Chunk]] = deque()
        self._source = source
        self._open = open
        self._pool: ProcessPoolExecutor | None = None

    def submit(self, task: Callable[[Chunk], Any], chunk: Chunk) -> None:
        if self._pool is None:
            self._pool = self._open(self._source)
        try:
            future: Future[Any] = self._pool.submit(task, chunk)
        except BrokenProcessPool as error:  # it died while it had nothing to do
            future = Future()
            future.set_exception(error)
        self.pending.append((future, chunk))

    def take_back(self) -> list[tuple[Future[Any], Chunk]]:
        """The work of a process that died; the next `submit` starts a fresh one."""
        left = list(self.pending)
        self.pending.clear()
        self.close()
        self._pool = None
        return left

    def close(self) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def _spawning(threads: int) -> Iterator[None]:
    """What a process is started with: few threads for linear algebra, deaf to Ctrl-C.

    Ctrl-C reaches the whole process group; the parent alone answers it and then stops the workers.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


# ---------------------------------------------------------------- in a worker


class _Worker(NamedTuple):
    source: ImageSource
    stop: threading.Event


_worker: _Worker


def _begin(source: ImageSource, watched: Connection) -> None:
    global _worker
    _worker = _Worker(source, threading.Event())
    threading.Thread(target=_watch, args=(watched, _worker.stop), daemon=True).start()


def _watch(watched: Connection, stop: threading.Event) -> None:
    """End with the parent, or soon after it has closed its side of the pipe.

    A pipe, not a lock or an event of `multiprocessing`: a worker that is killed while it holds one
    of these would leave all others waiting for ever.
    """
    try:
        watched.recv_bytes()
    except (EOFError, OSError):
        stop.set()
    parent = multiprocessing.parent_process()
    if parent is not None and parent.is_alive():
        time.sleep(GRACE)
    os._exit(1)


def _prepare(requests: Chunk) -> None:
    if isinstance(_worker.source, Accelerated):
        _worker.source.prepare(requests)


def _draw(requests: Chunk) -> list[Drawn]:
    results = []
    pictures = _worker.source.draw(requests)
    for _, picture in zip(requests, pictures, strict=True):
        if _worker.stop.is_set():
            break
        results.append(picture)
    return results
