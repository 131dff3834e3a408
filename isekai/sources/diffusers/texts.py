"""Which texts a pipeline wants embeddings of, under which names they are kept, what is missing."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from isekai.files import parse, plain, sha256
from isekai.sources.diffusers.embedding_cache import Embedding, Shape, Shelf

Role = Literal["prompt", "negative_prompt"]

_STRICT: dict[str, object] = {"extra": "forbid"}


class Misfit(Exception):
    """A pipeline whose texts cannot be encoded apart from drawing; the text says why."""


class Gone(Exception):
    """An embedding that was there is no longer."""


class Pair(NamedTuple):
    """What an image is to show and not to show; None leaves the latter to the pipeline."""

    prompt: str
    negative: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A parameter of `encode_prompt` that takes a text, and which text that is."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    parameter: str
    source: Literal["prompt", "negative", "constant"]
    constant: str | None = None

    @property
    def role(self) -> Role:
        return "negative_prompt" if self.parameter.startswith("negative") else "prompt"

    def of(self, pair: Pair) -> str | None:
        if self.source == "constant":
            return self.constant
        return pair.prompt if self.source == "prompt" else pair.negative


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One of the calls of `encode_prompt` that a pipeline makes for a batch."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    texts: tuple[Text, ...]
    options: Mapping[str, Any]
    """All other arguments, as JSON, but the device, the images a prompt and the flag below."""
    guided: bool
    """Whether the embeddings of negative prompts are asked for in the same call."""
    single: bool
    """Whether the answer is one element alone, and no tuple."""
    empty: tuple[Literal["none", "list"], ...]
    """What stands at each position of the answer where there is nothing."""
    negatives: tuple[int, ...] = ()
    """The positions that belong to the negative prompt."""

    @property
    def roles(self) -> tuple[Role, ...]:
        return ("prompt", "negative_prompt") if self.guided else ("prompt",)

    def texts_of(self, role: Role, pair: Pair) -> dict[str, str | None]:
        return {text.parameter: text.of(pair) for text in self.texts if text.role == role}

    def positions(self, role: Role) -> list[int]:
        """Those of the answer that hold what is made of this role's texts."""
        negative = role == "negative_prompt"
        return [place for place in range(len(self.empty)) if (place in self.negatives) is negative]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What a pipeline asks of its text encoders for a batch."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    calls: tuple[Call, ...] = ()
    misfit: str = ""
    """Why its texts cannot be encoded apart from drawing; empty if they can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """The embeddings of one model's texts. Only `embedding` needs torch."""

    shelf: Shelf
    identity: Mapping[str, object]
    """Everything that embeddings depend on besides the texts and the arguments of the calls."""
    guidance: float | None
    """How hard images are pulled to the prompt; what a pipeline asks for depends on it."""
    _learnt: dict[bool, Asking] = field(default_factory=dict, compare=False, repr=False)

    def name(self, negative: bool) -> str:
        """Of the note that says what is asked for; pipelines look whether guidance is above 1."""
        pull = None if self.guidance is None else (self.guidance > 0) + (self.guidance > 1)
        return _digest(self.identity, "asking", pull, negative)

    def asking(self, negative: bool) -> Asking | None:
        """With a negative prompt or without; None as long as no one has listened."""
        if negative not in self._learnt:
            note = self.shelf.note(self.name(negative))
            if note is None:
                return None
            self._learnt[negative] = parse(Asking, note, "what a pipeline asks for")
        return self._learnt[negative]

    def learn(self, negative: bool, asking: Asking) -> None:
        """For everyone; a misfit for this process alone, since the next may know better."""
        self._learnt[negative] = asking
        if not asking.misfit:
            self.shelf.put_note(self.name(negative), plain(asking))

    def key(self, call: Call, role: Role, pair: Pair) -> str:
        return _digest(self.identity, role, call.texts_of(role, pair), call.options)

    @property
    def misfit(self) -> str:
        """Why texts can't be encoded apart from drawing; empty if they can, or it isn't known."""
        known = [asking for negative in (False, True) if (asking := self.asking(negative))]
        return next((asking.misfit for asking in known if asking.misfit), "")

    def missing(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Those that an embedding is missing for, each once."""
        return [pair for pair in dict.fromkeys(pairs) if self.shape(pair) is None]

    def shape(self, pair: Pair) -> tuple[Shape, ...] | None:
        """What has to be equal for two to be drawn together; None if an embedding is missing."""
        asking = self.asking(pair.negative is not None)
        if asking is None or asking.misfit:
            return None
        keys = [self.key(call, role, pair) for call in asking.calls for role in call.roles]
        shapes = [self.shelf.shape(key) for key in keys]
        known = tuple(shape for shape in shapes if shape is not None)
        return known if len(known) == len(keys) else None

    def embedding(self, call: Call, role: Role, pair: Pair) -> Embedding | None:
        return self.shelf.get(self.key(call, role, pair))


def _digest(*parts: object) -> str:
    return sha256(json.dumps(plain(parts), sort_keys=True).encode())
