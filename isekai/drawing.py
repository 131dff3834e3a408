"""Puts requests to a source, in this process or in several, and encodes what it draws."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import NamedTuple

from PIL.Image import Image

from isekai.errors import IsekaiError, PluginError
from isekai.images import Format, encode
from isekai.protocols import ImageSource, Rejected
from isekai.types import ImageRequest

CHUNK = 4
"""Images a worker draws between two reports: few, so that no worker is left alone at the end."""

_ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


class Drawn(NamedTuple):
    """An image as the bytes of its file."""

    data: bytes
    width: int
    height: int


Result = Drawn | Rejected


def draw(
    source: ImageSource, requests: Sequence[ImageRequest], *, format: Format, workers: int
) -> Generator[tuple[ImageRequest, Result]]:
    """Every request with its image or the reason why not; in any order if there are workers.

    Close the iterator to stop early: workers end after the image they are at.
    """
    workers = min(workers, -(-len(requests) // CHUNK))
    if workers > 1 and source.processes:
        return _draw_in_processes(source, requests, format, workers)
    return _draw_here(source, requests, format)


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _draw_here(
    source: ImageSource, requests: Sequence[ImageRequest], format: Format
) -> Generator[tuple[ImageRequest, Result]]:
    for request, picture in zip(requests, source.draw(requests), strict=True):
        yield request, _encoded(picture, format)


def _encoded(picture: Image | Rejected, format: Format) -> Result:
    if isinstance(picture, Rejected):
        return picture
    if picture.mode != "RGB":
        raise PluginError(f"the source gave a picture of mode {picture.mode}; expected RGB")
    return Drawn(encode(picture, format), *picture.size)


def _draw_in_processes(
    source: ImageSource, requests: Sequence[ImageRequest], format: Format, workers: int
) -> Generator[tuple[ImageRequest, Result]]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _begin, (source, format, stop))
    running: dict[Future[list[Result]], Sequence[ImageRequest]] = {}
    try:
        for start in range(0, len(requests), CHUNK):
            chunk = requests[start : start + CHUNK]
            with _spawning():
                running[pool.submit(_draw_chunk, chunk)] = chunk
            if len(running) == 2 * workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)
    except BrokenProcessPool:
        raise IsekaiError(
            "a worker process died, perhaps for want of memory; run the same command again to go "
            "on, with a smaller --workers if it happens again"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _finished(
    running: dict[Future[list[Result]], Sequence[ImageRequest]],
) -> Generator[tuple[ImageRequest, Result]]:
    """Wait for a chunk and take what is done out of `running`."""
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield from zip(running.pop(future), future.result(), strict=True)


@contextmanager
def _spawning() -> Iterator[None]:
    """What a process is started with: one thread for linear algebra, deaf to Ctrl-C.

    Ctrl-C reaches the whole process group; the parent alone answers it and then stops the workers.
    """
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
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
    format: Format
    stop: Event


_worker: _Worker


def _begin(source: ImageSource, format: Format, stop: Event) -> None:
    global _worker
    _worker = _Worker(source, format, stop)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw_chunk(requests: Sequence[ImageRequest]) -> list[Result]:
    results = []
    pictures = _worker.source.draw(requests)
    for _, picture in zip(requests, pictures, strict=True):
        if _worker.stop.is_set():
            break
        results.append(_encoded(picture, _worker.format))
    return results
