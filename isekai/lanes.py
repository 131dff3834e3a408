"""Worker processes that draw, one a lane: each may die, and another takes up its work."""

import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from typing import Literal, NamedTuple, Self

from PIL.Image import Image

from isekai import progress
from isekai.errors import IsekaiError
from isekai.protocols import Accelerated, ImageSource, Picture, Rejected
from isekai.types import ImageRequest

DEATHS = 3
"""Workers that may die over the same image before the run gives up."""

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
Task = Literal["prepare", "draw"]

_SPAWN = multiprocessing.get_context("spawn")


class Lanes:
    """Several processes, each with a copy of a source; whichever is free takes the next chunk.

    Each has a pipe of its own and no lock or queue is shared: a worker that is killed while it
    holds one of these would leave all others waiting for ever.
    """

    def __init__(self, sources: Sequence[ImageSource], threads: int) -> None:
        resource_tracker.ensure_running()  # starting it within `_spawning` would undo the mask
        self._lanes = [_Lane(source, threads) for source in sources]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for lane in self._lanes:
            lane.hang_up()
        for lane in self._lanes:
            lane.close()

    def prepare(self, requests: Chunk) -> None:
        """Every lane prepares its share; returns when all have."""
        count = len(self._lanes)
        for _ in self._work("prepare", [requests[start::count] for start in range(count)]):
            pass

    def draw(self, chunks: Sequence[Chunk]) -> Iterator[tuple[ImageRequest, Drawn]]:
        """Every request with what the source made of it, as it comes."""
        return self._work("draw", chunks)

    def _work(self, task: Task, chunks: Sequence[Chunk]) -> Iterator[tuple[ImageRequest, Drawn]]:
        todo = deque(chunk for chunk in chunks if chunk)
        deaths: dict[tuple[str, int], int] = {}
        with self._emptied():
            yield from self._loop(task, todo, deaths)

    @contextmanager
    def _emptied(self) -> Iterator[None]:
        """Leave no lane with work of which the answers would come to the next question."""
        try:
            yield
        finally:
            for lane in self._lanes:
                if lane.pending:
                    lane.take_back()

    def _loop(
        self, task: Task, todo: deque[Chunk], deaths: dict[tuple[str, int], int]
    ) -> Iterator[tuple[ImageRequest, Drawn]]:
        while todo or any(lane.pending for lane in self._lanes):
            for _ in range(_AHEAD):  # a chunk for everyone before a second one for anyone
                for lane in self._lanes:
                    if todo and len(lane.pending) < _AHEAD:
                        lane.submit(task, todo.popleft())
            busy = {lane.end: lane for lane in self._lanes if lane.pending}
            for end in wait(list(busy)):
                lane = busy[end]  # type: ignore[index]  # `wait` gives back what it was given
                try:
                    message = lane.receive()
                except (EOFError, OSError):
                    left = lane.take_back()
                    _count(deaths, left[0], begun=lane.begun)
                    todo.extendleft(reversed([chunk for chunk in left if chunk]))
                    continue
                if message.ready:
                    continue
                if message.error is not None:
                    message.error.add_note(message.told)
                    raise message.error
                if message.picture is None:
                    lane.pending.popleft()
                else:
                    yield lane.pending[0].popleft(), message.picture


class _Lane:
    """A process and what it has to do; started by the first `submit` and after each death."""

    def __init__(self, source: ImageSource, threads: int) -> None:
        self.pending: deque[deque[ImageRequest]] = deque()
        """Chunks, less what has come back of the first."""
        self._source = source
        self._threads = threads
        self._process: BaseProcess | None = None
        self.end: Connection
        self.begun = False
        """True when the process has taken the source."""

    def submit(self, task: Task, chunk: Chunk) -> None:
        self.pending.append(deque(chunk))
        with suppress(OSError):  # if it has died, `receive` finds that out
            if self._process is None:
                self._start()
            self.end.send((task, chunk))

    def _start(self) -> None:
        """The source goes through the pipe, where a process that dies before it has it is noticed.

        As an argument of the process it would be waited for in vain, with Ctrl-C held off.
        """
        end, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs,), name="isekai-lane")
        try:
            with _spawning(self._threads):
                process.start()
        finally:
            theirs.close()
        self.end, self._process, self.begun = end, process, False
        self.end.send(self._source)

    def receive(self) -> "_Message":
        """EOFError or OSError where the process has died."""
        message: _Message = self.end.recv()
        self.begun = True
        return message

    def take_back(self) -> list[Chunk]:
        """What a process that died has not done."""
        left: list[Chunk] = [list(chunk) for chunk in self.pending]
        self.pending.clear()
        self.close()
        return left

    def hang_up(self) -> None:
        """The process ends when it has done the image it is at, or after GRACE seconds."""
        if self._process is not None:
            self.end.close()

    def close(self) -> None:
        self.hang_up()
        if self._process is not None:
            self._process.join()
            self._process.close()
            self._process = None


def _count(deaths: dict[tuple[str, int], int], chunk: Chunk, *, begun: bool) -> None:
    """Count a death over the first image that had not come back."""
    key = (chunk[0].concept.id, chunk[0].index) if chunk and begun else ("", 0)
    deaths[key] = deaths.get(key, 0) + 1
    if deaths[key] >= DEATHS and not begun:
        raise IsekaiError(
            f"{DEATHS} worker processes died before their first image, perhaps for want of memory: "
            "try --workers 1; a script that calls isekai has to do so below "
            "`if __name__ == '__main__':`"
        )
    if deaths[key] >= DEATHS:
        raise IsekaiError(
            f"{DEATHS} worker processes died, one after the other, over the same image, perhaps "
            "for want of memory; run the same command again to go on, with a smaller --workers if "
            "it happens again"
        )
    progress.tell("a worker process died; another one takes up its images")


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


class _Message(NamedTuple):
    """A picture; what went wrong, with its traceback; or, with neither, the end of a chunk."""

    ready: bool = False
    """The worker has its source: nothing else is told."""
    picture: Drawn | None = None
    error: BaseException | None = None
    told: str = ""


def _serve(end: Connection) -> None:
    """Take a source, then do what is asked until the parent hangs up."""
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            source: ImageSource = end.recv()
        except EOFError:
            return
        except Exception as error:
            end.send(_Message(error=_sendable(error), told=traceback.format_exc()))
            return
        end.send(_Message(ready=True))
        _serve_with(source, end)


def _serve_with(source: ImageSource, end: Connection) -> None:
    asked: SimpleQueue[tuple[Task, Chunk] | None] = SimpleQueue()
    threading.Thread(target=_listen, args=(end, asked), daemon=True).start()
    while (work := asked.get()) is not None:
        try:
            for picture in _done(source, *work):
                end.send(_Message(picture=picture))
            end.send(_Message())
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            end.send(_Message(error=_sendable(error), told=traceback.format_exc()))


def _listen(end: Connection, asked: "SimpleQueue[tuple[Task, Chunk] | None]") -> None:
    """Take what is asked off the pipe at once: the parent must never wait to say it.

    End with the parent, or soon after it has hung up.
    """
    with suppress(EOFError, OSError):
        while True:
            asked.put(end.recv())
    asked.put(None)
    parent = multiprocessing.parent_process()
    if parent is not None and parent.is_alive():
        time.sleep(GRACE)
    os._exit(1)


def _done(source: ImageSource, task: Task, chunk: Chunk) -> Iterator[Drawn]:
    if task == "draw":
        for _, picture in zip(chunk, source.draw(chunk), strict=True):
            yield picture
    elif isinstance(source, Accelerated):
        source.prepare(chunk)


def _sendable(error: Exception) -> Exception:
    """The error itself if it survives the way between processes, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # what a stranger's class raises when it is pickled can be anything
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
