"""A line to a server: an event loop in a thread of its own, and the client that lives on it."""

import asyncio
import ssl
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from functools import cache, partial
from typing import Any, Protocol, TypeVar

import httpx2

from model_adapters.faults import Again

T = TypeVar("T")

LARGEST_REPLY = 16_000_000
"""Bytes. What is longer is no answer to a short question."""


class Client(Protocol):
    """What the official clients of OpenAI and Anthropic have in common."""

    async def post(
        self,
        path: str,
        *,
        cast_to: type[httpx2.Response],
        content: AsyncIterable[bytes],
        options: Any,
    ) -> httpx2.Response: ...

    async def close(self) -> None: ...


class Line:
    """Runs coroutines for threads that wait. On one loop no request needs a thread of its own, a
    total time-out reaches every step of a request, and what is given up is cancelled on the spot.
    """

    def __init__(self, build: Callable[[], Client]) -> None:
        self.client = build()
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._loop = runner.get_loop()
        self._open = True
        self._lock = threading.Lock()
        self._hang_up = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)
        threading.Thread(
            target=_live, args=(runner, self.client), name="isekai-line", daemon=True
        ).start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin with `work`; a CancelledError after `close`."""
        with self._lock:
            if not self._open:
                work.close()
                raise CancelledError
            return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for `work`; whatever ends the waiting ends the work."""
        future = self.start(work)
        try:
            return future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancel all that runs and close the connections. Who waits gets a CancelledError."""
        with self._lock:
            self._open = False
            self._hang_up()


def _live(runner: asyncio.Runner, client: Client) -> None:
    with runner:
        runner.get_loop().run_forever()
        runner.get_loop().run_until_complete(_end(client))


async def _end(client: Client) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await client.close()


def http_options(largest: int | None = None) -> dict[str, Any]:
    """For the HTTP client of an official client: certificates read once, replies of at most so many
    bytes.
    """
    hook = partial(bounded, largest=largest)
    return {"verify": certificates(), "event_hooks": {"response": [hook]}}


@cache
def certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


async def bounded(response: httpx2.Response, largest: int | None = None) -> None:
    """No reply may fill the memory, nor swell in it when it is unpacked."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Again("a compressed reply, which wasn't asked for", billed=True)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, largest or LARGEST_REPLY)


class _Bounded(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, largest: int) -> None:
        self._stream = stream
        self._largest = largest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._largest
        async for chunk in self._stream:
            left -= len(chunk)
            if left < 0:
                raise Again(f"a reply of more than {self._largest:,} bytes", billed=True)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()
