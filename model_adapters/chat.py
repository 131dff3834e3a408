"""A sweep as the bodies of chat requests: pictures and words in order, what is shared but once."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from isekai.errors import PluginError
from isekai.types import Sweep, Turn
from model_adapters.pictures import Picture, picture

Style = Literal["turns", "single"]
"""Support answers as turns of the assistant; or everything, interleaved, in one user message."""

MARKS = 4
"""Ends of cuts, the longest, that are marked for a server's cache: Anthropic takes no more."""

PIECE = 2**18
"""Bytes that are handed over at a time."""

Block = dict[str, Any]
"""A piece of text or a picture, as the server's JSON has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One query behind one cut, ready to be sent."""

    head: memoryview = field(repr=False)
    """The same for all queries of a cut, byte for byte, so that a server needs to read it once; the
    requests of a sweep share its memory."""
    tail: bytes = field(repr=False)
    key: str
    """SHA-256 of where it goes and of its body."""
    images: int
    tokens: float
    """About how many the prompt takes."""

    @property
    def size(self) -> int:
        """Bytes of the body."""
        return len(self.head) + len(self.tail)

    async def body(self) -> AsyncIterator[bytes]:
        """A piece at a time: many are under way at once, and no one needs a copy of a whole."""
        for start in range(0, len(self.head), PIECE):
            yield bytes(self.head[start : start + PIECE])
        yield self.tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat(ABC):
    """How one family of servers wants a chat written. Its fields are all that answers depend on."""

    model: str
    max_tokens: int
    temperature: float | Literal["none"]
    style: Style
    max_side: int | None
    extra: dict[str, Any]
    """Further fields of each request, or others in the place of ours."""

    def __post_init__(self) -> None:
        for key in ("messages", "model", "stream"):
            if key in self.extra:
                raise PluginError(f"extra can't set '{key}': that is the adapter's")

    @abstractmethod
    def settings(self, sweep: Sweep) -> Block:
        """All fields of a request but its messages and `extra`."""

    @abstractmethod
    def opening(self, sweep: Sweep) -> list[Block]:
        """Messages that stand before the first turn."""

    @abstractmethod
    def shown(self, picture: Picture) -> Block: ...

    def answered(self, text: str, *, ends_cut: bool) -> Block:
        """An answer of the support set; `ends_cut` where a server may be told to keep it."""
        return _text(text)

    def requests(self, sweep: Sweep, address: str) -> Iterator[list[Request]]:
        """For each cut, the requests of all its queries; `address` is where they go."""
        queries = [self._asked(turn, sweep.query_instruction) for turn in sweep.queries]
        closing = b"]}]}" if self.style == "single" else b"]}"
        whole, ends = self._support(sweep)
        digest, start = hashlib.sha256(address.encode() + b"\n"), 0
        for cut in sweep.cuts:
            shown = ends[cut]
            digest.update(whole[start : shown.end])
            start = shown.end
            yield [
                Request(
                    head=whole[: shown.end],
                    tail=query.json + closing,
                    key=_key(digest, query.json + closing),
                    images=shown.images + query.images,
                    tokens=shown.tokens + query.tokens,
                )
                for query in queries
            ]

    def _support(self, sweep: Sweep) -> tuple[memoryview, list["_Shown"]]:
        """The body up to the queries of the longest cut, and what is shown after each turn."""
        body = bytearray(json.dumps(self.settings(sweep) | self.extra)[:-1].encode())
        body += b', "messages": ['
        body += b"".join(_bare([message]) + b", " for message in self.opening(sweep))
        if self.style == "single":
            body += b'{"role": "user", "content": ['
        marked = [cut for cut in sweep.cuts if cut][-MARKS:]
        ends = [_Shown(end=len(body), images=0, tokens=_tokens(sweep.instruction))]
        for number, turn in enumerate(sweep.support[: sweep.cuts[-1]], start=1):
            piece = self._asked(turn)
            body += piece.json + b", " + self._said(turn, ends_cut=number in marked) + b", "
            ends.append(
                _Shown(
                    end=len(body),
                    images=ends[-1].images + piece.images,
                    tokens=ends[-1].tokens + piece.tokens + _tokens(turn.answer or ""),
                )
            )
        return memoryview(body), ends

    def _asked(self, turn: Turn, before: str = "") -> "_Piece":
        """A question, with its picture where it wants it. Blanks are left out: some refuse them."""
        ahead, behind = turn.around
        if turn.image is None:
            image, texts, blocks = None, [before + ahead + behind], []
        else:
            image, texts = picture(turn.image, self.max_side), [before + ahead, behind]
            blocks = [self.shown(image)]
        if texts[0].strip():
            blocks.insert(0, _text(texts[0]))
        if texts[-1].strip() and image:
            blocks.append(_text(texts[-1]))
        return _Piece(
            json=_bare(blocks if self.style == "single" else [{"role": "user", "content": blocks}]),
            images=int(image is not None),
            tokens=(image.tokens if image else 0.0) + sum(map(_tokens, texts)),
        )

    def _said(self, turn: Turn, *, ends_cut: bool) -> bytes:
        block = self.answered(turn.answer or "", ends_cut=ends_cut)
        if self.style == "turns":
            # A bare text is what every server takes for an assistant's words.
            content = block["text"] if block == _text(block["text"]) else [block]
            block = {"role": "assistant", "content": content}
        return _bare([block])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """A turn's question in JSON, without brackets around."""

    json: bytes = field(repr=False)
    images: int
    tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """How much of a body the first so many support turns are."""

    end: int
    images: int
    tokens: float


def answer_schema(labels: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of an object whose only field, `answer`, is one of the labels."""
    return {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(labels)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def _text(text: str) -> Block:
    return {"type": "text", "text": text}


def _bare(values: Sequence[Block]) -> bytes:
    return json.dumps(values)[1:-1].encode()


def _key(digest: "hashlib._Hash", tail: bytes) -> str:
    whole = digest.copy()
    whole.update(tail)
    return whole.hexdigest()


def _tokens(text: str) -> float:
    """About how many: four bytes each, and two for the marks around."""
    return len(text.encode(errors="replace")) / 4 + 2
