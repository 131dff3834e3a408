"""One round trip to a server: a request's bytes out, a reply or a named fault back."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Generic, Protocol, TypeVar

import httpx2

from isekai.errors import DataError, IsekaiError
from model_adapters.address import Address
from model_adapters.chat import Request
from model_adapters.faults import Again, agree, refusal
from model_adapters.line import Client
from model_adapters.spending import Tokens

CONNECT = 10.0
"""Seconds for a connection to come about."""


class Answered(Protocol):
    """What every reply tells, whatever was asked for."""

    @property
    def tokens(self) -> Tokens | None:
        """None if the server didn't count."""

    @property
    def model(self) -> str | None:
        """Which one answered; None if the server doesn't say."""


Said = TypeVar("Said", bound=Answered)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a chat model answered, whatever its dialect."""

    text: str
    finish: str | None
    tokens: Tokens | None
    """None if the server didn't count."""
    model: str | None
    silence: str = ""
    """Why there is no text, and what may help."""


def no_text(finish: str | None, *, thought: bool) -> str:
    """Why an answer has no text, and what may help."""
    but = " but reasoning" if thought else ""
    if finish == "length":
        return f"no text{but} before max_tokens was reached; raise -o max_tokens"
    if finish == "refusal":
        return "no text: the model refused"
    if thought:
        return f"no text{but}, which ended with {finish!r:.40}; switch it off with -o extra=…"
    return f"no text; it ended with {finish!r:.40}; run the same command to ask again"


class Exchange(Generic[Said]):
    """Sends a request and reads what comes: Again, Refused, or IsekaiError if all would fail.

    `api` is the official client's module, with its exceptions; `read` makes a reply of the JSON of
    an answer, and raises DataError if it is none.
    """

    def __init__(
        self,
        *,
        address: Address,
        path: str,
        api: ModuleType,
        read: Callable[[object], Said],
        timeout: float,
        served_as: str,
    ) -> None:
        self._address = address
        self._path = path
        self._api = api
        self._read = read
        self._timeout = timeout
        self._served_as = served_as
        self._reached = False

    async def __call__(self, client: Client, request: Request) -> Said:
        """Within the time-out, whatever it hangs on."""
        try:
            async with asyncio.timeout(self._timeout):
                response = await client.post(
                    self._path,
                    cast_to=httpx2.Response,
                    content=request.body(),
                    options={"headers": {"Content-Length": str(request.size)}},
                )
        except TimeoutError:
            told = f"no whole answer within {self._timeout:g} s (-o timeout)"
            raise Again(told, overload=True, billed=True) from None
        except self._api.APIStatusError as error:
            self._reached = True
            told = error.response
            raise refusal(self._address, told.status_code, told.headers, told.text) from None
        except self._api.APIConnectionError as error:
            raise self._unconnected(error.__cause__) from None
        self._reached = True
        reply = self._reply(response)
        self._refuse_another(reply.model)
        return reply

    def _unconnected(self, cause: BaseException | None) -> Again | IsekaiError:
        """A server that was there may come back; one that never was is for the user to mend."""
        told = self._address.quote(str(cause)) or type(cause).__name__
        if not isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout):
            return Again(f"the connection broke: {told}", billed=True)
        if self._reached:
            return Again(f"no connection: {told}")
        return IsekaiError(
            f"{self._address.url}: no connection: {told}; start the server, or correct -o base_url"
        )

    def _reply(self, response: httpx2.Response) -> Said:
        status, body = response.status_code, response.content
        try:
            told = json.loads(body)
        except (ValueError, RecursionError):
            if body.lstrip().startswith(b"<"):
                page = f"HTTP {status} with a web page in the place of JSON; is -o base_url right?"
                raise Again(page) from None
            raise Again(f"HTTP {status} with JSON that breaks off", billed=True) from None
        if isinstance(told, dict) and (inner := told.get("error")):  # a gateway passes it on
            code = str(inner.get("code")) if isinstance(inner, dict) else ""
            status = int(code) if code in {str(n) for n in range(400, 600)} else 502
            raise refusal(self._address, status, response.headers, response.text)
        try:
            return self._read(told)
        except DataError as error:
            raise Again(self._address.quote(str(error)), billed=True) from None

    def _refuse_another(self, model: str | None) -> None:
        if model and not agree(self._served_as, model):
            name = self._address.quote(model)
            raise IsekaiError(
                f"{self._address.url}: asked for '{self._served_as}', but '{name}' answered; ask "
                f"for that one, or say that it is the same: -o served_as={name}"
            )
