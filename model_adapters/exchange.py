"""One round trip to a server: a request out, a reply or a named fault back, a file it names."""

import asyncio
import ipaddress
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Generic, Protocol, TypeVar

import httpx2

from isekai.errors import DataError, IsekaiError
from model_adapters.address import Address, is_near
from model_adapters.chat import Request
from model_adapters.faults import Again, Refused, agree, refusal, retry_after
from model_adapters.line import Client, bounded, certificates
from model_adapters.spending import Tokens

CONNECT = 10.0
"""Seconds for a connection to come about."""

HOPS = 4
"""Addresses that are followed from one to the next."""


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


# ---------------------------------------------------------------- a file that a reply names


async def fetch(url: str, server: Address, largest: int) -> bytes:
    """The file, of at most so many bytes, at the address that `server` names; Again or Refused.

    Only http and https are followed, and nothing of the network that we are in can be named by
    those outside of it: what a name stands for is looked up once, checked, and connected to. No key
    travels along, and no text holds the address: it may be signed.
    """
    here = httpx2.URL(server.url)
    for _ in range(HOPS):
        try:
            there = here.join(url)
        except (httpx2.InvalidURL, ValueError):
            raise Refused("what is named is no address") from None
        if there.scheme not in ("http", "https"):
            raise Refused(f"it is at a '{server.quote(there.scheme, 20)}' address; expected http")
        if not there.host or (there.port is not None and not 0 < there.port < 2**16):
            raise Refused("what is named is no address")
        response = await _get(there, server, largest, trusted=is_near(here.host))
        if not response.has_redirect_location:
            return _file(response, server.quote(there.host, 80))
        here, url = there, response.headers["location"]
    raise Refused(f"it is more than {HOPS} addresses away")


async def _get(url: httpx2.URL, server: Address, largest: int, *, trusted: bool) -> httpx2.Response:
    """A response with its body. The client of httpx2 is passed by: it logs whole addresses."""
    told, name = server.quote(url.host, 80), url.raw_host.decode("ascii")
    problem = "no such host"
    async with httpx2.AsyncHTTPTransport(verify=certificates()) as transport:
        for number in await _numbers(name, told, trusted=trusted):
            request = httpx2.Request(
                "GET",
                url.copy_with(host=number, userinfo=b""),
                headers={"Host": url.netloc.decode("ascii"), "Accept-Encoding": "identity"},
                extensions={"sni_hostname": name, "timeout": {"connect": CONNECT}},
            )
            try:
                response = await transport.handle_async_request(request)
                await bounded(response, largest)
                await response.aread()
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                problem = server.quote(str(error), 120) or type(error).__name__
            except httpx2.HTTPError as error:
                raise Again(f"{told}: the connection broke: {server.quote(str(error))}") from None
            else:
                return response
    raise Again(f"{told}: no connection: {problem}")


async def _numbers(name: str, told: str, *, trusted: bool) -> list[str]:
    """The IP addresses of a host. Refused if one is not of the open net, unless it is trusted."""
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Again(f"{told}: no such host") from None
    numbers = list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
    if not trusted and not all(ipaddress.ip_address(number).is_global for number in numbers):
        raise Refused(f"{told} is a place of a private network, where no one outside may point to")
    return numbers


def _file(response: httpx2.Response, told: str) -> bytes:
    status = response.status_code
    if status == 200:
        return response.content
    if status in (408, 425, 429) or status >= 500:
        raise Again(f"{told}: HTTP {status}", after=retry_after(response.headers))
    raise Refused(f"{told}: HTTP {status}")
