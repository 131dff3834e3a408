"""A server on 127.0.0.1 that binds what it is shown, draws, counts, remembers, fails on command.

It speaks OpenAI's `/v1/chat/completions` and Anthropic's `/v1/messages` over real sockets. Left
alone it answers truthfully by binding: with what the support set says of the picture whose colours
are nearest to the query's. It draws, too: OpenAI's `/v1/images/generations` gives a picture that
depends on the prompt and the seed alone. In tests:

    with serve(play=["429", None, "reset"]) as server:
        OpenAI("tiny", base_url=server.url)

`play` is what happens to the first requests, in the order in which they arrive: None is a good
answer, a word is a `Fault` of that kind. `answer=knowing({...})` binds without a mistake. By hand:
`python -m tests.loopback --port 8000`.
"""

import argparse
import base64
import gzip
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from isekai.files import sha256
from isekai.images import decode, encode

IMAGE_TOKENS = 85
KNOWN_KINDS = (
    "reset",  # the connection breaks before an answer
    "stall",  # nothing comes for `seconds`
    "stall in body",  # half of an answer comes, then nothing for `seconds`
    "late",  # a good answer after `seconds`
    "trickle",  # one byte of the body every `seconds`, for ever
    "trickle in head",  # one header line every `seconds`, for ever
    "endless",  # a body that never ends, as fast as it goes
    "truncated",  # half a JSON text, in a body that is whole
    "html",
    "gzip",  # a good answer, compressed though nobody asked for it
    "no choices",
    "reasoning",  # nothing but reasoning
    "length",  # cut off, with text
    "silent length",  # cut off before any text
    "filter",
    "silent filter",
    "no usage",
    "wrong model",
    "refusal",
    "error in 200",  # what gateways do: HTTP 200 with the error of another server in it
    "empty",  # of images: none in the list
    "no picture",  # an image without a picture, as moderation leaves it
    "not base64",
    "damaged",  # a picture's file that breaks off
)


PATHS = ("/chat/completions", "/messages", "/images/generations")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one request in the place of a good answer."""

    kind: str
    """One of KNOWN_KINDS, or a status: `429`, `503`."""
    message: str = "the test wants it so"
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.02
    code: str = ""

    def __post_init__(self) -> None:
        assert self.kind in KNOWN_KINDS or self.kind.isdigit(), self.kind


def retry_after(seconds: float, *, form: str = "seconds", status: int = 429) -> Fault:
    """A refusal that says when to come again: as `seconds`, as a `date`, or in `ms`."""
    if form == "date":
        header = ("Retry-After", formatdate(time.time() + seconds, usegmt=True))
    elif form == "ms":
        header = ("retry-after-ms", f"{seconds * 1000:.0f}")
    else:
        header = ("Retry-After", f"{seconds:g}")
    return Fault(kind=str(status), headers=(header,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    raw: bytes = field(repr=False)
    body: dict[str, Any] = field(repr=False)
    began: float
    """Seconds, of a clock that only runs forward."""

    @property
    def images(self) -> list[bytes]:
        return [image for image, _ in _shown(self.body) if image is not None]


Answer = Callable[[list[tuple[bytes, str]], bytes | None], str]
"""Says something of a picture, given the support pictures and what stands beside each."""


MODERATED = Fault(kind="400", message="The safety system says no.", code="moderation_blocked")


@dataclass(slots=True, kw_only=True)
class Drawings:
    """How the image endpoint draws, and what it has drawn; all can be changed while it runs."""

    at: str = ""
    """Where a picture is said to be: `{root}/pictures/{name}`; empty puts it into the reply."""
    side: int | None = None
    """Pixels, whatever is asked for."""
    narrow: bool = False
    """True refuses fields that OpenAI's own models don't know."""
    faults: dict[str, Fault | None] = field(default_factory=dict)
    """Word -> what happens to each request whose prompt has it; None is a good answer."""
    counts: bool = False
    """True counts tokens."""
    revised: str = ""
    """What the prompt is said to have become."""
    fetches: deque[Fault | None] = field(default_factory=deque)
    """What happens to the first pictures that are fetched, in the order of asking."""
    fetched: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Name -> picture, of all that were drawn."""


class Loopback:
    """The server; every setting can be changed while it runs."""

    def __init__(
        self,
        *,
        play: Iterable[Fault | str | None] = (),
        always: Fault | str | None = None,
        model: str = "tiny",
        key: str | None = None,
        max_images: int | None = None,
        max_bytes: int | None = None,
        keeps: int | None = None,
        capacity: int | None = None,
        delay: float = 0.0,
        answer: Answer | None = None,
        port: int = 0,
    ) -> None:
        self.script = deque(play)
        self.always = always
        """What happens to every request once the script is over."""
        self.model = model
        self.key = key
        """Requests without it are refused; the refusal repeats what was given instead."""
        self.max_images = max_images
        self.max_bytes = max_bytes
        self.keeps = keeps
        """Images beyond so many are silently dropped."""
        self.capacity = capacity
        """More requests than this at a time are refused with 429."""
        self.delay = delay
        self.drawings = Drawings()
        self.answer = answer or nearest_colours
        self.asked: list[Asked] = []
        self.usage: list[dict[str, int]] = []
        self.problems: list[BaseException] = []
        self.flying = 0
        self.peak = 0
        """Most requests that were under way at a time."""
        self._known: set[bytes] = set()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._port = port
        self._held: socket.socket | None = None
        self._stopping = threading.Event()

    @property
    def root(self) -> str:
        """The address for Anthropic's client."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        """The address for OpenAI's client."""
        return f"{self.root}/v1"

    def start(self) -> None:
        """Listen; after a `stop`, at the same address again."""
        self.close()
        self._stopping.clear()
        self._server = _Server(("127.0.0.1", self._port), _Requests)
        self._server.loopback = self
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        """Break every connection and refuse new ones. Nobody else gets the port in the meantime."""
        self._stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.bind(("127.0.0.1", self._port))
        with self._lock:
            for connection in self._connections:
                _break(connection)
        if self.problems:
            raise self.problems[0]

    @property
    def stopped(self) -> bool:
        return self._held is not None

    def close(self) -> None:
        """Let go of the port of a server that was stopped."""
        if self._held:
            self._held.close()
            self._held = None

    # ------------------------------------------------------------ one request

    def take(self, request: Asked) -> Fault | None:
        """Keep the request and say what happens to it."""
        with self._lock:
            self.asked.append(request)
            self.flying += 1
            self.peak = max(self.peak, self.flying)
            crowded = self.capacity is not None and self.flying > self.capacity
            fault = self.script.popleft() if self.script else self.always
        if self.key and self.key not in (request.headers.get("authorization") or "").split():
            given = request.headers.get("authorization") or request.headers.get("x-api-key")
            return Fault(kind="401", message=f"Incorrect API key provided: {given}")
        if fault is None and crowded:
            return Fault(kind="429", message="too many requests at a time")
        if fault is None and request.path.endswith("/images/generations"):
            fault = _unwanted(request.body, self.drawings)
        if fault is None and self.max_bytes is not None and len(request.raw) > self.max_bytes:
            return Fault(kind="413", message="request too large")
        if fault is None and self.max_images is not None and len(request.images) > self.max_images:
            words = f"At most {self.max_images} image(s) may be provided in one prompt."
            return Fault(kind="400", message=words)
        return Fault(kind=fault) if isinstance(fault, str) else fault

    def done(self) -> None:
        with self._lock:
            self.flying -= 1

    def pause(self, seconds: float) -> bool:
        """Wait; False if the server is being stopped."""
        return not self._stopping.wait(seconds)

    def reply(self, request: Asked, fault: Fault | None) -> dict[str, Any]:
        """A whole answer, changed as the fault wants it."""
        kind = fault.kind if fault else ""
        if request.path.endswith("/images/generations"):
            return self._drawn(request.body, kind)
        shown = _shown(request.body)
        if self.keeps is not None:
            shown[self.keeps :] = [(None, text) for _, text in shown[self.keeps :]]
        said = self._say(request.body, shown)
        usage = self._count(request.body, said)
        model = "another-model" if kind == "wrong model" else self.model
        with self._lock:
            self.usage.append(usage)
        shape = _anthropic if request.path.endswith("/messages") else _openai
        return shape(kind, said, usage, model)

    def _drawn(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        drawings = self.drawings
        with self._lock:
            seed = body.get("seed", f"the server's own, {len(drawings.files)}")
            side = drawings.side or int(re.findall(r"\d+", body.get("size", "64"))[0])
            data = drawn(body["prompt"], seed, side)
            name = f"{len(drawings.files)}.png"
            drawings.files[name] = data
        shown = {"b64_json": base64.b64encode(data).decode()}
        if kind == "damaged":
            shown = {"b64_json": base64.b64encode(data[: len(data) // 2]).decode()}
        elif kind == "not base64":
            shown = {"b64_json": "?"}
        elif kind == "no picture":
            shown = {"b64_json": ""}
        elif drawings.at:
            shown = {"url": drawings.at.format(root=self.root, name=name)}
        if drawings.revised:
            shown["revised_prompt"] = drawings.revised
        reply: dict[str, Any] = {"created": 0, "data": [] if kind == "empty" else [shown]}
        if kind == "wrong model":
            reply["model"] = "another-model"
        if drawings.counts:
            prompt, drawing = len(body["prompt"]) // 4 + 1, side * side
            reply["usage"] = {
                "input_tokens": prompt,
                "output_tokens": drawing,
                "total_tokens": prompt + drawing,
            }
        return reply

    def _say(self, body: dict[str, Any], shown: list[tuple[bytes | None, str]]) -> str:
        if not shown:
            return "I see nothing."
        *support, (query, _) = shown
        said = self.answer([(image, text) for image, text in support if image], query)
        choices = _choices(body)
        if choices is None:
            return said
        chosen = next((word for word in choices if word in said), choices[0])
        schema = "json_schema" in json.dumps(
            [body.get("response_format"), body.get("output_config")]
        )
        return json.dumps({"answer": chosen}) if schema else chosen

    def _count(self, body: dict[str, Any], said: str) -> dict[str, int]:
        """Tokens, also of the prefix that was seen before: it is when the answer to it is out."""
        digest, total, cached, prefixes, marks = hashlib.sha256(), 0, 0, [], 0
        anthropic = "system" in body or any(mark for *_, mark in _blocks(body))
        images = 0
        for role, kind, content, mark in _blocks(body):
            images += kind == "image"
            if kind == "image" and self.keeps is not None and images > self.keeps:
                continue
            digest.update(json.dumps([role, kind, content]).encode())
            total += IMAGE_TOKENS if kind == "image" else len(content) // 4 + 1
            if mark or not anthropic:
                marks += 1
                prefixes.append(digest.digest())
                if digest.digest() in self._known:
                    cached = total
        with self._lock:
            self._known.update(prefixes)
        return {"prompt": total, "cached": cached, "completion": len(said.split())}


# ---------------------------------------------------------------- the two shapes


def _openai(kind: str, said: str, usage: dict[str, int], model: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said, "refusal": None}
    finish = "stop"
    if kind in ("reasoning", "silent length"):
        message |= {"content": None, "reasoning_content": "Let me think about this."}
        finish = "length" if kind == "silent length" else "stop"
    elif kind in ("filter", "silent filter"):
        message["content"] = said if kind == "filter" else ""
        finish = "content_filter"
    elif kind == "refusal":
        message |= {"content": None, "refusal": "I can't help with that."}
    elif kind == "length":
        finish = "length"
    reply = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": usage["prompt"],
            "completion_tokens": usage["completion"],
            "total_tokens": usage["prompt"] + usage["completion"],
            "prompt_tokens_details": {"cached_tokens": usage["cached"]},
        },
    }
    if kind == "no choices":
        reply["choices"] = []
    if kind == "no usage":
        del reply["usage"]
    return reply


def _anthropic(kind: str, said: str, usage: dict[str, int], model: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": said}]
    finish = "end_turn"
    if kind in ("reasoning", "silent length"):
        content = [{"type": "thinking", "thinking": "Let me think.", "signature": "x"}]
        finish = "max_tokens" if kind == "silent length" else "end_turn"
    elif kind in ("filter", "silent filter", "refusal"):
        content = content if kind != "silent filter" else []
        finish = "refusal"
    elif kind == "length":
        finish = "max_tokens"
    elif kind == "no choices":
        content = []
    fresh = usage["prompt"] - usage["cached"]
    reply = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": finish,
        "stop_sequence": None,
        "usage": {
            "input_tokens": fresh,
            "cache_read_input_tokens": usage["cached"],
            "cache_creation_input_tokens": 0,
            "output_tokens": usage["completion"],
        },
    }
    if kind == "no usage":
        del reply["usage"]
    return reply


def _blocks(body: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """Role, `text` or `image`, content, and whether the block asks to be cached up to here."""
    messages = body["messages"]
    if system := body.get("system"):
        messages = [{"role": "system", "content": system}, *messages]
    for message in messages:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            mark = "cache_control" in block
            if block["type"] == "text":
                yield message["role"], "text", block["text"], mark
            elif block["type"] == "image_url":
                data = block["image_url"]["url"]
                assert re.match(r"data:image/(png|jpeg|webp|gif);base64,", data), data[:40]
                yield message["role"], "image", data.partition(",")[2], mark
            else:
                source = block["source"]
                assert source["type"] == "base64", source
                assert source["media_type"].startswith("image/"), source
                yield message["role"], "image", source["data"], mark


def _shown(body: dict[str, Any]) -> list[tuple[bytes | None, str]]:
    """Every picture with what is said of it, the query's last.

    In a chat that is the assistant's answer, in a single message all text up to the next picture.
    """
    found: list[tuple[bytes | None, list[str]]] = []
    for role, kind, content, _ in _blocks(body):
        if kind == "image":
            found.append((base64.b64decode(content, validate=True), []))
        elif found and role == "assistant":
            found[-1][1][:] = [content]
        elif found:
            found[-1][1].append(content)
    return [(image, "\n".join(texts)) for image, texts in found]


def _choices(body: dict[str, Any]) -> list[str] | None:
    """The only texts that the request lets the model say; None for any."""
    if "structured_outputs" in body:
        return list(body["structured_outputs"]["choice"])
    if "grammar" in body:
        return [json.loads(word) for word in re.findall(r'"(?:[^"\\]|\\.)*"', body["grammar"])]
    found = (body.get("response_format") or {}).get("json_schema") or (
        body.get("output_config") or {}
    ).get("format")
    return list(found["schema"]["properties"]["answer"]["enum"]) if found else None


# ---------------------------------------------------------------- what it sees


def nearest_colours(support: list[tuple[bytes, str]], query: bytes | None) -> str:
    """What is said of the support picture whose colours are nearest to the query's."""
    if query is None or not support:
        return "I don't know."
    target = _colours(query)
    return min(support, key=lambda shown: float(np.abs(_colours(shown[0]) - target).sum()))[1]


def knowing(concepts: Mapping[str, str]) -> Answer:
    """Answers by what pictures truly show: `concepts` holds it by the SHA-256 of a file's bytes.

    Like any that binds: with what the support set says last of the query's concept.
    """

    def answer(support: list[tuple[bytes, str]], query: bytes | None) -> str:
        said = {concepts[sha256(image)]: words for image, words in support}
        return said.get(concepts[sha256(query)], "I don't know.") if query else "I don't know."

    return answer


def _colours(data: bytes) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """A histogram of the colours in the middle of a picture, which no place or light decides."""
    image = np.asarray(decode(data))
    height, width = image.shape[:2]
    middle = image[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None]
    cells = (middle.reshape(-1, 3) // 52).astype(int)
    counts = np.bincount(cells @ np.array([25, 5, 1]), minlength=125)
    return counts / counts.sum()


# ---------------------------------------------------------------- what it draws


def drawn(prompt: str, seed: object, side: int) -> bytes:
    """The PNG of a square with soft patches of colours that the prompt and the seed decide."""
    digest = hashlib.sha256(f"{prompt}|{seed}".encode()).digest()
    patches = np.random.default_rng(list(digest)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return encode(Image.fromarray(patches).resize((side, side), Image.Resampling.BICUBIC))


def _unwanted(body: dict[str, Any], drawings: Drawings) -> Fault | None:
    """What becomes of a request for what it holds."""
    unknown = set(body) & {"seed", "negative_prompt", "response_format"}
    if drawings.narrow and unknown:
        told = f"Unknown parameter: '{min(unknown)}'."
        return Fault(kind="400", message=told, code="unknown_parameter")
    return next((fault for word, fault in drawings.faults.items() if word in body["prompt"]), None)


# ---------------------------------------------------------------- the wire


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    loopback: Loopback

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; whatever else goes wrong here is told at the end."""
        problem = sys.exc_info()[1]
        if problem and not isinstance(problem, OSError):
            self.loopback.problems.append(problem)


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer leaves in one piece, however many writes it took
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the tests look at what was asked."""

    def setup(self) -> None:
        super().setup()
        with self.server.loopback._lock:
            self.server.loopback._connections.add(self.connection)

    def finish(self) -> None:
        with self.server.loopback._lock:
            self.server.loopback._connections.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def do_GET(self) -> None:
        """A picture that was drawn before."""
        loopback, name = self.server.loopback, self.path.partition("?")[0].rpartition("/")[2]
        drawings = loopback.drawings
        headers = {key.lower(): value for key, value in self.headers.items()}
        drawings.fetched.append((self.path, headers))
        self._counts = False
        fault = drawings.fetches.popleft() if drawings.fetches else None
        if fault is None and name not in drawings.files:
            fault = Fault(kind="404", message="no such picture")
        self._respond(loopback, fault, lambda: drawings.files[name])

    def do_POST(self) -> None:
        loopback = self.server.loopback
        length = int(self.headers["Content-Length"])
        raw = self.rfile.read(length)
        if len(raw) < length or not loopback.pause(0):
            _break(self.connection)  # one side went away in the middle of the question
            self.close_connection = True
            return
        request = Asked(
            path=self.path,
            headers={key.lower(): value for key, value in self.headers.items()},
            raw=raw,
            body=json.loads(raw),
            began=time.monotonic(),
        )
        fault = loopback.take(request)
        self._counts = True
        try:
            if loopback.delay and not loopback.pause(loopback.delay):
                self._reset()  # the server stops: what is under way is lost
            else:
                if not self.path.endswith(PATHS):
                    fault = Fault(kind="404", message="no such path")
                self._respond(
                    loopback, fault, lambda: json.dumps(loopback.reply(request, fault)).encode()
                )
        finally:
            self._over()

    def _over(self) -> None:
        """Count the request as over: before its last bytes leave, as the next may be here then."""
        if self._counts:
            self._counts = False
            self.server.loopback.done()

    def _respond(
        self, loopback: Loopback, fault: Fault | None, answer: Callable[[], bytes]
    ) -> None:
        """What `answer` gives, unless a fault wants something else."""
        kind = fault.kind if fault else ""
        if fault and kind.isdigit():
            return self._error(fault)
        if kind == "reset":
            return self._reset()
        if fault and kind == "stall":
            loopback.pause(fault.seconds)
            return self._reset()
        if fault and kind == "error in 200":
            error = {"error": {"message": fault.message, "code": int(fault.code or 0)}}
            return self._send(200, json.dumps(error).encode())
        if kind == "html":
            page = b"<!doctype html><html><body><h1>Welcome!</h1></body></html>"
            return self._send(200, page, (("Content-Type", "text/html"),))
        if fault and kind == "endless":
            return self._endless(loopback)
        if fault and kind == "trickle in head":
            return self._trickle_head(loopback, fault.seconds)
        if fault and kind == "late" and not loopback.pause(fault.seconds):
            return self._reset()
        body = answer()
        if kind == "truncated":
            return self._send(200, body[: len(body) // 2])
        if kind == "gzip":
            return self._send(200, gzip.compress(body), (("Content-Encoding", "gzip"),))
        if fault and kind == "stall in body":
            self._send(200, body, written=len(body) // 2)
            loopback.pause(fault.seconds)
            return self._reset()
        if fault and kind == "trickle":
            self._send(200, b" " * 1_000_000, written=1)
            while loopback.pause(fault.seconds):
                self._write(b" ")
            return self._reset()
        return self._send(200, body)

    def _error(self, fault: Fault) -> None:
        if self.path.endswith("/messages"):
            error = {"type": "error", "error": {"type": "api_error", "message": fault.message}}
        else:
            error = {
                "error": {"message": fault.message, "type": "error", "code": fault.code or None}
            }
        self._send(int(fault.kind), json.dumps(error).encode(), fault.headers)

    def _send(
        self,
        status: int,
        body: bytes,
        headers: Sequence[tuple[str, str]] = (),
        written: int | None = None,
    ) -> None:
        self.send_response(status)
        if not any(name == "Content-Type" for name, _ in headers):
            self.send_header("Content-Type", "application/json")
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self._write(body[:written])

    def _write(self, data: bytes) -> None:
        self._over()
        self.wfile.write(data)
        self.wfile.flush()

    def _endless(self, loopback: Loopback) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        while loopback.pause(0):
            self._write(b" " * 1_000_000)

    def _trickle_head(self, loopback: Loopback, seconds: float) -> None:
        self._write(b"HTTP/1.1 200 OK\r\n")
        number = 0
        while loopback.pause(seconds):
            number += 1
            self._write(f"X-Wait-{number}: 1\r\n".encode())

    def _reset(self) -> None:
        self._over()
        self.close_connection = True
        _break(self.connection)


def _break(connection: socket.socket) -> None:
    """Close without a goodbye: the other side sees its connection reset."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        connection.close()


@contextmanager
def serve(play: Iterable[Fault | str | None] = (), **settings: Any) -> Iterator[Loopback]:
    """A running server; `settings` are those of `Loopback`."""
    server = Loopback(play=play, **settings)
    server.start()
    try:
        yield server
    finally:
        if not server.stopped:
            server.stop()
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before each answer")
    given = parser.parse_args()
    with serve(port=given.port, model=given.model, delay=given.delay) as server:
        print(f"OpenAI: {server.url}  Anthropic: {server.root}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
