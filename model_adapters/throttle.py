"""How many requests may be under way, how closely they follow each other, and when they stop."""

import asyncio
import heapq
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from isekai.errors import IsekaiError


class Throttle:
    """Lets requests through, for all sweeps of an adapter together. It lives on one event loop.

    The width grows by one a round of good answers. When the server is overloaded, it becomes half
    of what is under way, once for all that were under way together (additive increase,
    multiplicative decrease: Chiu and Jain, Computer Networks 17, 1989). Rates are kept by spacing:
    after a request that takes n of r tokens a minute, the next one starts 60 n / r seconds later.
    """

    def __init__(self, most: int, *, rpm: int | None, tpm: int | None) -> None:
        self.flying = 0
        self.backoffs = 0
        """How often the width was halved."""
        self._most = most
        self._width = float(most)
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()
        self._narrowed = 0.0
        self._paused_until = 0.0
        self._request_gap = 60 / rpm if rpm else 0.0
        self._token_gap = 60 / tpm if tpm else 0.0
        self._next_request = 0.0
        self._next_tokens = 0.0
        self._problem: IsekaiError | None = None
        self._stopped = asyncio.Event()

    @asynccontextmanager
    async def slot(self, rank: int, tokens: float) -> AsyncIterator[None]:
        """Wait for leave to send a request of so many tokens; the lowest rank goes first.

        Ranks keep the requests of one sweep together, while its prefix is in the server's cache.
        """
        await self._enter(rank)
        try:
            await self._pace(tokens)
            yield
        finally:
            self._leave()

    def answered(self, surplus: float) -> None:
        """A request went well, and took so many tokens more than `slot` was told (or fewer)."""
        self._next_tokens += surplus * self._token_gap
        self._width = min(self._most, self._width + 1 / self._width)

    def overloaded(self, sent: float) -> None:
        """The server had too much to do with a request of the time `sent` (monotonic, seconds)."""
        if sent >= self._narrowed:
            self._width = max(1.0, min(self._width, self.flying) / 2)
            self._narrowed = time.monotonic()
            self.backoffs += 1

    def pause(self, seconds: float) -> None:
        """Send nothing for so long: the server asked for it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def stop(self, problem: IsekaiError) -> None:
        """Send nothing any more. Whoever waits here, or comes later, gets the first problem."""
        self._problem = self._problem or problem
        self._stopped.set()

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or for `stop`."""
        if seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._stopped.wait()
        if self._problem:
            raise IsekaiError(str(self._problem))

    async def _enter(self, rank: int) -> None:
        if not self._waiting and self.flying < int(self._width):
            self.flying += 1
            return
        leave = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._count), leave))
        try:
            await leave
        except asyncio.CancelledError:
            if not leave.cancelled():  # leave was given, and nobody is there to use it
                self._leave()
            raise

    def _leave(self) -> None:
        self.flying -= 1
        while self._waiting and self.flying < int(self._width):
            leave = heapq.heappop(self._waiting)[2]
            if not leave.done():
                self.flying += 1
                leave.set_result(None)

    async def _pace(self, tokens: float) -> None:
        start = max(time.monotonic(), self._next_request, self._next_tokens)
        self._next_request = start + self._request_gap
        self._next_tokens = start + tokens * self._token_gap
        while (wait := max(start, self._paused_until) - time.monotonic()) > 0:
            await self.sleep(wait)
        await self.sleep(0)
