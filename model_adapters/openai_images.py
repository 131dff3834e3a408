"""Pictures from OpenAI-compatible image endpoints: vLLM-Omni, SGLang, LocalAI and hosted ones."""

import asyncio
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import openai
from pydantic import Field

from isekai.errors import IsekaiError, PluginError
from isekai.files import sha256
from isekai.protocols import Picture, Rejected
from isekai.types import DigitalSource, ImageRequest
from model_adapters import drawings, line, openai_api, remote
from model_adapters.chat import Request
from model_adapters.drawings import Doubt, Drawn, File, Order, Unclaimed
from model_adapters.exchange import fetch
from model_adapters.faults import Again, Refused
from model_adapters.remote import Count, Dollars, Limits, Remote, Seconds
from model_adapters.spending import Tokens

AHEAD = 8
"""Images that may be drawn before the one that is waited for, for each that may be under way."""

DOUBTS = 4
"""Images in a row that may fail for what could be wrong with all, before any is drawn."""

LONGEST_PROMPT = 8000
"""Characters of a revised prompt that are recorded."""

ONE = Tokens(prompt=0, completion=0, pictures=1)
"""What is known of a picture that was not counted."""

Outcome = Picture | Rejected | Doubt


class OpenAIImages(Remote[Drawn]):
    """`openai:MODEL` at OpenAI, or with `-o base_url=` at any server with its image endpoint.

    model            as the server calls it; `served_as` if it answers under another name
    base_url         such as http://localhost:8000/v1; else $OPENAI_BASE_URL, else OpenAI
    api_key_env      the environment variable with the key: OPENAI_API_KEY, and none for servers on
                     this machine or in its network
    seed             false sends no seed: each picture is another one and can't be drawn again.
                     OpenAI's own models take none
    negative         false sends no `negative_prompt`; OpenAI's own models take none
    size_as          how a size is written, none to leave it out: -o size_as='{size}*{size}'
    resize           scales pictures of another size than asked; else they are turned down
    response_format  b64_json, url, or none to leave it out, as OpenAI's own models want it
    extra            further fields of each request: -o 'extra={quality = "low"}'; they are recorded
    revision         what you know of the version that is served; servers don't tell
    concurrency      pictures at a time; fewer while the server is overloaded
    timeout          seconds for one try, whatever it hangs on
    retries          further tries after a fault that may pass
    rpm              requests a minute at most
    price            US dollars a picture
    price_in, price_out   US dollars a million tokens, where the server counts them
    max_cost         US dollars that this process may spend; it stops before the request that could
                     pass them
    cache            a folder in the place of the usual one for pictures that were paid for when a
                     run stopped; the next takes them from there. false for none
    """

    path = "/images/generations"
    api = openai
    processes = False
    size = 1024
    gates = ("flat", "duplicate")
    digital_source: DigitalSource = "trainedAlgorithmicMedia"

    def __init__(
        self,
        model: str,
        base_url: str = "",
        api_key_env: str = "",
        seed: bool | None = None,
        negative: bool | None = None,
        size_as: str = "{size}x{size}",
        resize: bool = False,
        response_format: Literal["b64_json", "url", "none"] | None = None,
        extra: dict[str, Any] | None = None,
        revision: str = "unknown",
        concurrency: Count = 4,
        timeout: Seconds = 600.0,
        retries: Annotated[int, Field(ge=0)] = 6,
        rpm: Count | None = None,
        price: Dollars | None = None,
        price_in: Dollars | None = None,
        price_out: Dollars | None = None,
        max_cost: Dollars | None = None,
        cache: bool | Path = True,
        served_as: str = "",
    ) -> None:
        given = dict(locals())
        self._options = {key: given[key] for key in given if key not in ("self", "__class__")}
        server = openai_api.resolve(base_url, api_key_env)
        if max_cost is not None and price is None and price_in is None:
            raise PluginError("max_cost needs a price: give price, US dollars a picture")
        limits = Limits(
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            rpm=rpm,
            price=price,
            price_in=price_in,
            price_out=price_out,
            max_cost=max_cost,
            cache=cache,
            served_as=served_as,
        )
        super().__init__(server, limits, model=model)
        narrow = server.is_openai or "gpt-image" in model  # refuses each field it doesn't know
        self._order = Order(
            model=model,
            seeded=not narrow if seed is None else seed,
            negative=not narrow if negative is None else negative,
            size_as=size_as,
            response_format=response_format or ("none" if narrow else "b64_json"),
            extra=extra or {},
        )
        self.model = model
        self.revision = revision
        self.chunk = AHEAD * concurrency
        self._resize = resize
        self._unclaimed: Unclaimed | None = None
        if cache is not False:
            self._unclaimed = Unclaimed(None if cache is True else cache)
        self._proven = False
        """True once a picture was drawn: what fails then is the fault of an image."""
        self._doubts = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(OpenAIImages, **self._options), ()  # the key is looked up there again

    def client(self) -> line.Client:
        return openai_api.client(self._address, drawings.LARGEST)

    def read(self, reply: object) -> Drawn:
        return drawings.read(reply)

    def expected(self, request: Request) -> Tokens:
        return Tokens(prompt=request.tokens, completion=0, pictures=1)

    # ------------------------------------------------------------ the seams

    @property
    def settings(self) -> Mapping[str, object]:
        return {"base_url": self._address.url, **self._order.settings, "resize": self._resize}

    @property
    def devices(self) -> Sequence[str]:
        return (urlsplit(self._address.url).netloc,)

    def on(self, device: str) -> "OpenAIImages":
        return self

    def prepare(self, requests: Sequence[ImageRequest]) -> None:
        """Nothing: the server does it."""

    def arrange(self, requests: Sequence[ImageRequest]) -> Sequence[ImageRequest]:
        return requests

    def estimate(self, requests: Sequence[ImageRequest]) -> Sequence[str]:
        """As if nothing were drawn twice."""
        count, limits = len(requests), self._limits
        told = [f"{count} pictures from {self.devices[0]}"]
        if limits.price is not None:
            told.append(f"about ${count * limits.price:.2f}, at ${limits.price:g} a picture")
            if limits.max_cost is not None and count * limits.price > limits.max_cost:
                told.append(f"more than max_cost, ${limits.max_cost:g}: it would stop there")
        if limits.price_in is not None:
            told.append(f"${limits.price_in:g} and ${limits.price_out:g} a million tokens")
        if limits.rpm:
            told.append(f"at least {count / limits.rpm:.1f} minutes, at {limits.rpm} a minute")
        return told

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Picture | Rejected]:
        """In order, while up to `concurrency` are under way.

        IsekaiError for what no image would be spared. What fails before anything was drawn is held
        back until it is clear whether that is so.
        """
        held: list[Outcome] = []
        with closing(self._outcomes(requests)) as outcomes:
            for outcome in outcomes:
                self._weigh(outcome)
                held.append(outcome)
                if self._proven or not self._doubts:
                    yield from map(_settled, held)
                    held.clear()
        yield from map(_settled, held)

    # ------------------------------------------------------------ many images

    def _weigh(self, outcome: Outcome) -> None:
        """Count what is in doubt since the last picture; IsekaiError if it is too much."""
        if isinstance(outcome, Picture):
            self._proven, self._doubts = True, 0
        elif isinstance(outcome, Doubt):
            self._doubts += 1
            if self._doubts >= (remote.HOPELESS if self._proven else DOUBTS):
                raise IsekaiError(
                    f"{self._address.url}: {self._doubts} images in a row could not be drawn, the "
                    f"last one because of: {outcome.rejected.reason}; mend that and run the same "
                    "command again"
                )

    def _outcomes(self, requests: Sequence[ImageRequest]) -> Generator[Outcome]:
        """One for each request, in order. What is paid for and can't be given is kept on disk."""
        server, left = self._open(), iter(requests)
        asked: deque[tuple[ImageRequest, Future[File | Rejected | Doubt]]] = deque()
        try:
            while True:
                for request in islice(left, self.chunk - len(asked)):
                    work = self._drawn(request, next(self._ranks))
                    asked.append((request, server.start(work)))
                if not asked:
                    return
                request, future = asked[0]
                outcome = future.result()
                asked.popleft()
                if not isinstance(outcome, File):
                    yield outcome
                    continue
                yield outcome.picture(request.size, resize=self._resize)
                if self._unclaimed:
                    self._unclaimed.drop(outcome.key)
        except IsekaiError:
            wait([future for _, future in asked])  # what is under way will be charged for
            raise
        finally:
            for _, future in asked:
                paid = None if future.cancel() or future.exception() else future.result()
                if isinstance(paid, File) and self._unclaimed:
                    self._unclaimed.put(paid)

    # ------------------------------------------------------------ one image

    async def _drawn(self, request: ImageRequest, rank: int) -> File | Rejected | Doubt:
        """Its file, or why there is none; IsekaiError for what would meet all others, too."""
        if not request.prompt:
            return Rejected(f"{request.concept.id} has no prompt to draw from")
        body = self._order.body(request)
        key = sha256(b"\n".join([self._where.encode(), body, str(request.seed).encode()]))
        if self._unclaimed and (kept := self._unclaimed.get(key)):
            return kept
        length = len(request.prompt.encode()) / 4
        order = Request(head=memoryview(b""), tail=body, key=key, images=0, tokens=length)
        try:
            drawn = await self._answered(order, rank)
        except Refused as fault:
            if fault.policy:
                return Rejected(f"turned down by the server's policy: {fault}")
            return Doubt(Rejected(str(fault)))
        except Again as fault:
            if self._in_vain > self._limits.retries:  # nor was anything else answered meanwhile
                raise self._stopped(
                    f"no answer any more: {self._told(fault)}; run the same command again to go on"
                ) from None
            return Rejected(self._told(fault), again=True)
        if not drawn.data and not drawn.url:
            return Rejected("no picture came: the server kept it back or drew none")
        try:
            data = drawn.data or await self._again(self._fetch, drawn.url)
        except (Again, Refused) as fault:
            told = f"the picture can't be fetched: {self._told(fault)}"
            return Doubt(Rejected(told, again=True))
        return File(key=key, data=data, made=self._made(drawn, request))

    async def _fetch(self, url: str) -> bytes:
        try:
            async with asyncio.timeout(self._limits.timeout):
                return await fetch(url, self._address, drawings.LARGEST)
        except TimeoutError:
            raise Again(f"not whole within {self._limits.timeout:g} s (-o timeout)") from None

    def _made(self, drawn: Drawn, request: ImageRequest) -> Mapping[str, object]:
        """What is known of a picture, beside what was asked."""
        made: dict[str, object] = {"device": self.devices[0], "openai": openai.__version__}
        if drawn.model:
            made["model"] = self._address.quote(drawn.model)
        if drawn.revised_prompt and drawn.revised_prompt != request.prompt:
            made["revised_prompt"] = self._address.quote(drawn.revised_prompt, LONGEST_PROMPT)
        if drawn.tokens:
            made["prompt_tokens"] = drawn.tokens.prompt
            made["completion_tokens"] = drawn.tokens.completion
        if self._spending.priced and (drawn.tokens or self._limits.price is not None):
            made["cost"] = self._spending.cost(drawn.tokens or ONE)
        return made


def _settled(outcome: Outcome) -> Picture | Rejected:
    return outcome.rejected if isinstance(outcome, Doubt) else outcome
