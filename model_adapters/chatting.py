"""Chat models behind servers: sweeps asked cut by cut, answers kept, nothing paid for twice."""

import asyncio
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from isekai.errors import IsekaiError
from isekai.files import plain
from isekai.types import Response, Sweep
from model_adapters import probing, remote
from model_adapters.address import Address
from model_adapters.chat import Chat, Request
from model_adapters.exchange import Reply
from model_adapters.faults import Again, Refused
from model_adapters.request_cache import Answer, RequestCache
from model_adapters.spending import Tokens


class Chatting(remote.Remote[Reply]):
    """A chat model behind a server."""

    def __init__(self, chat: Chat, address: Address, limits: remote.Limits) -> None:
        super().__init__(address, limits, model=chat.model)
        self._chat = chat
        self._cache: RequestCache | None = None
        if limits.cache is not False:
            self._cache = RequestCache(None if limits.cache is True else limits.cache)
        self._all_counted = True
        self._failed = 0
        self._replayed = 0

    @abstractmethod
    def read(self, reply: object) -> Reply: ...

    def expected(self, request: Request) -> Tokens:
        return Tokens(prompt=request.tokens, completion=float(self._chat.max_tokens))

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
        said = [super().status()]
        if self._replayed:
            said.append(f"{self._replayed} replayed")
        if not self._all_counted:
            said.append("no token counts: unknown whether all images are seen")
        return ", ".join(said)

    # ------------------------------------------------------------ a cut, a request

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
            self._failed += 1
            if self._failed >= remote.HOPELESS:
                raise self._stopped(
                    f"{self._failed} requests in a row got no answer, the last one because of: "
                    f"{self._told(fault)}; mend that and run the same command again"
                ) from None
            return Response(text="", error=self._told(fault))
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

    async def _ask(self, request: Request, rank: int) -> tuple[Reply, bool]:
        """The reply, and whether it was given before. Again or Refused if there will be none."""
        if kept := self._kept(request):
            self._replayed += 1
            return Reply(text=kept.text, finish=kept.finish, tokens=kept.tokens, model=None), True
        reply = await self._answered(request, rank)
        if self._cache and not reply.silence:
            kept = Answer(text=reply.text, finish=reply.finish, tokens=reply.tokens)
            self._cache.put(request.key, kept)
        return reply, False
