"""What adapters and sources behind servers share: asking at once, again, and within limits."""

import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Generic, ParamSpec, TypeVar

from pydantic import Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from isekai.errors import IsekaiError
from model_adapters.address import Address
from model_adapters.chat import Request
from model_adapters.exchange import Exchange, Said
from model_adapters.faults import Again, Refused
from model_adapters.line import Client, Line
from model_adapters.spending import Spending, Tokens
from model_adapters.throttle import Throttle

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
"""Seconds before another try where the server names none: drawn at random below a bound that
doubles with each try ("full jitter")."""

HOPELESS = 64
"""After so many requests in a row that got no answer, the run stops."""

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Counted = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Tokens, as a server writes them."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a server is asked. None of it changes an answer."""

    concurrency: int
    timeout: float
    """Seconds for one try, from the first byte sent to the last one read."""
    retries: int
    rpm: int | None
    tpm: int | None = None
    price_in: float | None
    price_out: float | None
    price_cached: float | None = None
    price: float | None = None
    """US dollars a picture that is drawn."""
    max_cost: float | None
    cache: bool | Path
    served_as: str


class Remote(ABC, Generic[Said]):
    """Something behind a server, which is asked from many threads at once."""

    path: str
    """Of requests, below the address."""
    api: ModuleType
    """The official client's module."""

    def __init__(self, address: Address, limits: Limits, *, model: str) -> None:
        self._address = address
        self._limits = limits
        self._spending = Spending(
            price_in=limits.price_in,
            price_out=limits.price_out,
            price_cached=limits.price_cached,
            price=limits.price,
            cap=limits.max_cost,
        )
        self._ranks = itertools.count()
        self._lock = threading.Lock()
        self._line: Line | None = None
        self._throttle = self._fresh_throttle()
        self._exchange = Exchange(
            address=address,
            path=self.path,
            api=self.api,
            read=self.read,
            timeout=limits.timeout,
            served_as=limits.served_as or model,
        )
        self._in_vain = 0
        """Tries in a row, of all requests together, that the server gave no answer to."""

    @abstractmethod
    def client(self) -> Client:
        """The official client. It doesn't try again by itself: that is done here."""

    @abstractmethod
    def read(self, reply: object) -> Said:
        """What the JSON of an answer says; DataError if it is none."""

    @abstractmethod
    def expected(self, request: Request) -> Tokens:
        """About what a request takes."""

    def status(self) -> str:
        spending, throttle = self._spending, self._throttle
        said = [
            f"${spending.spent:.2f}" if spending.priced else f"{spending.tokens:,.0f} tokens",
            f"{throttle.flying} in flight",
        ]
        if throttle.backoffs:
            said.append(f"{throttle.backoffs} back-offs")
        return ", ".join(said)

    def close(self) -> None:
        with self._lock:
            line, self._line = self._line, None
        if line:
            line.close()

    @property
    def _where(self) -> str:
        return self._address.url + self.path

    def _open(self) -> Line:
        with self._lock:
            if self._line is None:
                self._line = Line(self.client)
                self._throttle = self._fresh_throttle()
            return self._line

    def _fresh_throttle(self) -> Throttle:
        return Throttle(self._limits.concurrency, rpm=self._limits.rpm, tpm=self._limits.tpm)

    def _stopped(self, problem: str) -> IsekaiError:
        """An error to raise, after which nothing more is sent."""
        error = IsekaiError(f"{self._address.url}: {problem}")
        self._throttle.stop(error)
        return error

    def _told(self, fault: Again | Refused) -> str:
        """The fault, and how often it was met."""
        again = isinstance(fault, Again) and self._limits.retries
        return f"{fault} ({self._limits.retries + 1} tries)" if again else str(fault)

    # ------------------------------------------------------------ the way to the server and back

    async def _answered(self, request: Request, rank: int) -> Said:
        """The reply. Again or Refused if there will be none."""
        try:
            return await self._again(self._attempt, request, rank)
        except IsekaiError as problem:
            self._throttle.stop(problem)
            raise

    async def _again(
        self, attempt: Callable[P, Awaitable[T]], *given: P.args, **named: P.kwargs
    ) -> T:
        """What comes of an attempt, or of the next one after a fault that may pass."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Again),
            stop=stop_after_attempt(self._limits.retries + 1),
            wait=_wait,
            sleep=self._throttle.sleep,
            reraise=True,
        )
        return await retrying(attempt, *given, **named)

    async def _attempt(self, request: Request, rank: int) -> Said:
        """One try: wait for leave, set the money aside, send and read."""
        expected = self.expected(request)
        line = self._open()
        async with self._throttle.slot(rank, expected.total):
            reserved = await self._spending.reserve(expected)
            sent = time.monotonic()
            try:
                await self._throttle.sleep(0)  # raises if all was stopped while money was awaited
                reply = await self._exchange(line.client, request)
            except BaseException as fault:
                billed = isinstance(fault, Again) and fault.billed
                self._spending.release(reserved, spent=reserved if billed else 0.0)
                self._in_vain += isinstance(fault, Again)
                if isinstance(fault, Again) and fault.overload:
                    self._throttle.overloaded(sent)
                if isinstance(fault, Again) and fault.after:
                    self._throttle.pause(fault.after)
                raise
            self._in_vain = 0
            self._spending.settle(reserved, expected, reply.tokens)
            took = reply.tokens.total if reply.tokens else expected.total
            self._throttle.answered(took - expected.total)
            return reply


def _wait(state: RetryCallState) -> float:
    """Seconds before the next try: what the server asks for, or ever longer; with jitter."""
    fault = state.outcome.exception() if state.outcome else None
    jitter = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)(state)
    if isinstance(fault, Again) and fault.after is not None:
        return fault.after + min(jitter, FIRST_WAIT)
    return jitter
