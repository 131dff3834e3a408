"""Pictures from servers: how they are ordered, what comes, and where it waits until it is taken."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL.Image import Resampling

from isekai import files
from isekai.errors import DataError, PluginError
from isekai.images import UnreadableImage, decode
from isekai.protocols import Picture, Rejected
from isekai.types import ImageRequest
from model_adapters.remote import Counted
from model_adapters.spending import Tokens

LARGEST = 100_000_000
"""Bytes of a reply: a PNG of 4096 pixels has 50 MB at most, and a third more in base64."""


_OURS = ("model", "prompt", "n", "stream", "size", "seed", "negative_prompt", "response_format")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How pictures are ordered. Its fields are all that they depend on but what is to be seen."""

    model: str
    seeded: bool
    negative: bool
    size_as: str
    response_format: str
    extra: Mapping[str, object]

    def __post_init__(self) -> None:
        for key in _OURS:
            if key in self.extra:
                raise PluginError(f"extra can't set '{key}': that is the source's")

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "seeds": "31 bits of each" if self.seeded else "none: nothing can be drawn again",
            "negative_prompts": self.negative,
            "size_as": self.size_as,
            "extra": files.plain(self.extra),
        }

    def body(self, request: ImageRequest) -> bytes:
        """The JSON of a request."""
        fields: dict[str, object] = {"model": self.model, "prompt": request.prompt, "n": 1}
        if self.size_as != "none":
            fields["size"] = self.size_as.replace("{size}", str(request.size))
        if self.response_format != "none":
            fields["response_format"] = self.response_format
        if self.seeded:
            fields["seed"] = request.seed >> 32  # of 63 bits those that every server takes
        if self.negative and request.concept.negative_prompt:
            fields["negative_prompt"] = request.concept.negative_prompt
        return json.dumps(fields | dict(self.extra)).encode()


# ---------------------------------------------------------------- in a reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What a server answered: a picture's file, or where it is; neither if it drew none."""

    data: bytes = field(repr=False)
    url: str = field(repr=False)
    """Tends to be signed: whoever knows it may fetch."""
    revised_prompt: str
    tokens: Tokens | None
    model: str | None


def read(reply: object) -> Drawn:
    """The first picture of a reply of `/images/generations`; DataError if it is none."""
    told = files.parse(_Reply, reply, "the answer")
    shown = told.data[0] if told.data else _Shown()
    url = shown.url or ""
    drawn = 1.0 if shown.b64_json or url else 0.0
    return Drawn(
        data=_decoded(shown.b64_json or ""),
        url=url,
        revised_prompt=shown.revised_prompt or "",
        tokens=told.usage.tokens(drawn) if told.usage else None,
        model=told.model,
    )


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.rpartition(",")[2], validate=True)  # some send a data URL
    except (ValueError, binascii.Error):
        raise DataError("the answer: data[0].b64_json is not base64") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    input_tokens: Counted | None = None
    output_tokens: Counted | None = None

    def tokens(self, pictures: float) -> Tokens | None:
        """None where nothing was counted: some servers send zeros."""
        prompt, completion = self.input_tokens or 0.0, self.output_tokens or 0.0
        if not prompt + completion:
            return None
        return Tokens(prompt=prompt, completion=completion, pictures=pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    data: list[_Shown] | None = None
    usage: _Usage | None = None
    model: str | None = None


# ---------------------------------------------------------------- what comes of it


@dataclass(frozen=True, slots=True)
class Doubt:
    """An image that failed for what may be wrong with it alone, or with all."""

    rejected: Rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A picture as it came, with what is known of it."""

    key: str
    """SHA-256 of what it is the answer to."""
    data: bytes = field(repr=False)
    made: Mapping[str, object]

    def picture(self, size: int, *, resize: bool) -> Picture | Doubt:
        """A square of `size` pixels, or one that is scaled to have them at the longer side."""
        try:
            image = decode(self.data)
        except UnreadableImage as error:
            return Doubt(Rejected(f"the picture can't be read: {error}", again=True))
        width, height = image.size
        if (width, height) == (size, size):
            return Picture(image, made=self.made)
        if not resize:
            told = f"the picture is {width}x{height}, asked for {size}x{size}"
            return Doubt(Rejected(f"{told}; give a --size that the model draws, or -o resize=true"))
        longer = max(width, height)
        new = max(1, round(width * size / longer)), max(1, round(height * size / longer))
        scaled = image.resize(new, Resampling.LANCZOS)
        return Picture(scaled, made={**self.made, "drawn_size": f"{width}x{height}"})


class Unclaimed:
    """Pictures that were paid for and that a run which stopped could not take, until the next does.

    They lie in a folder, a file each. Many processes may use it.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or files.cache_folder() / "pictures"

    def get(self, key: str) -> File | None:
        path = self._path(key)
        if not path.exists():
            return None
        kept = files.read_json(path, _Kept)
        return File(key=key, data=base64.b64decode(kept.data), made=kept.made)

    def put(self, file: File) -> None:
        data = base64.b64encode(file.data).decode("ascii")
        files.write_json(self._path(file.key), _Kept(data=data, made=dict(file.made)))

    def drop(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    data: str
    made: dict[str, Any]
