"""What adapters of models behind servers share: asking at once, again, within limits, and once."""

import asyncio
import itertools
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated

from pydantic import Field
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from isekai.errors import IsekaiError
from isekai.files import plain
from isekai.types import Response, Sweep
from model_adapters import probing
from model_adapters.address import Address
from model_adapters.chat import Chat, Request
from model_adapters.exchange import Exchange, Reply
from model_adapters.faults import Again, Refused
from model_adapters.line import Client, Line
from model_adapters.request_cache import Answer, RequestCache
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a server is asked. None of it changes an answer."""

    concurrency: int
    timeout: float
    """Seconds for one try, from the first byte sent to the last one read."""
    retries: int
    rpm: int | None
    tpm: int | None
    price_in: float | None
    price_out: float | None
    price_cached: float | None
    max_cost: float | None
    cache: bool | Path
    served_as: str


class Remote(ABC):
    """A model behind a server."""

    path: str
    """Of requests, below the address."""
    api: ModuleType
    """The official client's module."""

    def __init__(self, chat: Chat, address: Address, limits: Limits) -> None:
        self._chat = chat
        self._address = address
        self._limits = limits
        self._spending = Spending(
            price_in=limits.price_in,
            price_out=limits.price_out,
            price_cached=limits.price_cached,
            cap=limits.max_cost,
        )
        self._cache: RequestCache | None = None
        if limits.cache is not False:
            self._cache = RequestCache(None if limits.cache is True else limits.cache)
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
            served_as=limits.served_as or chat.model,
        )
        self._all_counted = True
        self._failed = 0
        self._replayed = 0

    @abstractmethod
    def client(self) -> Client:
        """The official client. It doesn't try again by itself: that is done here."""

    @abstractmethod
    def read(self, reply: object) -> Reply:
        """What the JSON of an answer says; DataError if it is none."""

    # ------------------------------------------------------------ the seams

    @property
    def provenance(self) -> Mapping[str, object]:
        return {"base_url": self._address.url, **plain(self._chat)}

    @property
    def sweeps(self) -> int:
        return self._limits.concurrency

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        """Cut by cut: its first query alone, then the others together behind the same prefix, which
        the server needn't read again.
        """
        rank, line = next(self._ranks), self._open()
        for requests in self._chat.requests(sweep, self._where):
            yield from line.run(self._cut(requests, rank))  # none after `close`: nobody waits

    def probe(self, sweep: Sweep) -> None:
        """Ask the sweep's first query behind its longest cut, and again with one image fewer.

        These are requests of the run itself: where answers are kept, the first costs nothing extra.
        """
        try:
            self._all_counted = probing.check(sweep, self._try, model=self._chat.model)
        except IsekaiError as error:
            told = str(error).removeprefix(f"{self._address.url}: ")
            raise IsekaiError(f"{self._address.url}: {told}") from None

    def foretell(self, sweep: Sweep) -> Mapping[str, float]:
        """As if no answer were kept, no server kept a prefix, and all answers were cut off."""
        requests = [r for cut in self._chat.requests(sweep, self._where) for r in cut]
        tokens = Tokens(
            prompt=sum(request.tokens for request in requests),
            completion=float(self._chat.max_tokens * len(requests)),
        )
        told = {"prompt_tokens": tokens.prompt, "completion_tokens": tokens.completion}
        return told | ({"cost": self._spending.cost(tokens)} if self._spending.priced else {})

    def status(self) -> str:
        spending, throttle = self._spending, self._throttle
        said = [
            f"${spending.spent:.2f}" if spending.priced else f"{spending.tokens:,.0f} tokens",
            f"{throttle.flying} in flight",
        ]
        if throttle.backoffs:
            said.append(f"{throttle.backoffs} back-offs")
        if self._replayed:
            said.append(f"{self._replayed} replayed")
        if not self._all_counted:
            said.append("no token counts: unknown whether all images are seen")
        return ", ".join(said)

    def close(self) -> None:
        with self._lock:
            line, self._line = self._line, None
        if line:
            line.close()

    # ------------------------------------------------------------ a cut, a request

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

    def _try(self, sweep: Sweep) -> probing.Tried:
        *_, [request] = self._chat.requests(sweep, self._where)
        try:
            reply, _ = self._open().run(self._ask(request, rank=0))
        except Refused as refused:
            return probing.Tried(images=request.images, refused=refused)
        except Again as fault:
            raise IsekaiError(f"a first request got no answer: {fault}") from None
        return probing.Tried(
            images=request.images,
            cut_off=reply.silence if reply.finish == "length" else "",
            tokens=reply.tokens,
        )

    async def _cut(self, requests: Sequence[Request], rank: int) -> list[Response]:
        """Responses in order. An IsekaiError goes up when what is under way, and paid, is over."""
        leader = next((place for place, r in enumerate(requests) if not self._kept(r)), 0)
        first = await self._response(requests[leader], rank)
        others = [r for place, r in enumerate(requests) if place != leader]
        said = await asyncio.gather(
            *(self._response(request, rank) for request in others), return_exceptions=True
        )
        for problem in said:
            if isinstance(problem, BaseException):
                raise problem
        responses = [response for response in said if isinstance(response, Response)]
        return [*responses[:leader], first, *responses[leader:]]

    async def _response(self, request: Request, rank: int) -> Response:
        try:
            reply, replayed = await self._ask(request, rank)
        except (Again, Refused) as fault:
            again = isinstance(fault, Again) and self._limits.retries
            tries = f" ({self._limits.retries + 1} tries)" if again else ""
            self._failed += 1
            if self._failed >= HOPELESS:
                raise self._stopped(
                    f"{self._failed} requests in a row got no answer, the last one because of: "
                    f"{fault}{tries}; mend that and run the same command again"
                ) from None
            return Response(text="", error=f"{fault}{tries}")
        self._failed = 0
        return Response(
            text=reply.text,
            usage=self._usage(reply.tokens, replayed=replayed),
            finish=reply.finish,
            error=reply.silence or None,
        )

    def _usage(self, tokens: Tokens | None, *, replayed: bool) -> Mapping[str, float] | None:
        told: dict[str, float] = {"replayed": 1.0} if replayed else {}
        if tokens:
            told["prompt_tokens"] = tokens.prompt
            told["cached_tokens"] = tokens.cached
            told["completion_tokens"] = tokens.completion
            if self._spending.priced:
                told["cost"] = 0.0 if replayed else self._spending.cost(tokens)
        return told or None

    def _kept(self, request: Request) -> Answer | None:
        return self._cache.get(request.key) if self._cache else None

    def _stopped(self, problem: str) -> IsekaiError:
        """An error to raise, after which nothing more is sent."""
        error = IsekaiError(f"{self._address.url}: {problem}")
        self._throttle.stop(error)
        return error

    # ------------------------------------------------------------ the way to the server and back

    async def _ask(self, request: Request, rank: int) -> tuple[Reply, bool]:
        """The reply, and whether it was given before. Again or Refused if there will be none."""
        if kept := self._kept(request):
            self._replayed += 1
            return Reply(text=kept.text, finish=kept.finish, tokens=kept.tokens, model=None), True
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Again),
            stop=stop_after_attempt(self._limits.retries + 1),
            wait=_wait,
            sleep=self._throttle.sleep,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._attempt, request, rank)
        except IsekaiError as problem:
            self._throttle.stop(problem)
            raise
        if self._cache and not reply.silence:
            kept = Answer(text=reply.text, finish=reply.finish, tokens=reply.tokens)
            self._cache.put(request.key, kept)
        return reply, False

    async def _attempt(self, request: Request, rank: int) -> Reply:
        """One try: wait for leave, set the money aside, send and read."""
        expected = Tokens(prompt=request.tokens, completion=float(self._chat.max_tokens))
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
                if isinstance(fault, Again) and fault.overload:
                    self._throttle.overloaded(sent)
                if isinstance(fault, Again) and fault.after:
                    self._throttle.pause(fault.after)
                raise
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
