"""Embeddings of texts on disk: one safetensors file a text, written whole, checked when read."""

import json
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isekai.files import cache_folder, explained, write_bytes, write_json

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["rows", "list", "bare"]
"""How an element holds its batch: along its first axis, as a list of tensors, or not at all."""

Shape = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Of each tensor the position and kind, its type and its size: what has to agree in a batch."""

RECENT = 256
"""Embeddings kept in memory: 1 GB of the longest (512 x 4096 in bfloat16), mostly far less."""


@dataclass(frozen=True, slots=True)
class Element:
    """One tensor of what a pipeline makes of a text, for a batch of one."""

    kind: Kind
    tensor: "Tensor"


Embedding = Mapping[int, Element]
"""Position in what `encode_prompt` returns -> what stands there; positions left out hold None."""


def usual() -> Path:
    return cache_folder() / "embeddings"


@dataclass(slots=True)
class Shelf:
    """Where embeddings are kept: in `folder` or, without one, in memory alone.

    What is read counts on nothing but its own name, so any number of processes may share a folder.
    Files that are damaged, cut off or of another kind are as good as absent.
    """

    folder: Path | None
    _bytes: dict[str, bytes] = field(default_factory=dict, repr=False)
    _notes: dict[str, object] = field(default_factory=dict, repr=False)
    _recent: "OrderedDict[str, Embedding]" = field(default_factory=OrderedDict, repr=False)
    _shapes: dict[str, Shape] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> tuple[Path | None, dict[str, bytes], dict[str, object]]:
        return self.folder, self._bytes, self._notes

    def __setstate__(self, state: tuple[Path | None, dict[str, bytes], dict[str, object]]) -> None:
        self.folder, self._bytes, self._notes = state
        self._recent, self._shapes = OrderedDict(), {}

    def path(self, key: str) -> Path | None:
        return self.folder / key[:2] / f"{key}.safetensors" if self.folder else None

    def put(self, key: str, embedding: Embedding) -> None:
        data = _packed(key, embedding)
        if path := self.path(key):
            write_bytes(path, data)
        else:
            self._bytes[key] = data
        self._remember(key, embedding)

    def get(self, key: str) -> Embedding | None:
        """On the CPU; None where it isn't kept, or isn't whole any more."""
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        data = self._read(key)
        embedding = _unpacked(key, data) if data else None
        if embedding is not None:
            self._remember(key, embedding)
        return embedding

    def shape(self, key: str) -> Shape | None:
        """From the head of the file alone, without torch; None where there is no such file."""
        shape = self._shapes.get(key) or _shape(self._read(key, head=True))
        if shape:
            self._shapes[key] = shape
        return shape

    def note(self, name: str) -> object | None:
        """What was noted under this name; None if nothing was, or it can't be read any more."""
        if name not in self._notes and self.folder:
            try:
                with explained(self.folder):
                    self._notes[name] = json.loads(self._note(self.folder, name).read_bytes())
            except (FileNotFoundError, ValueError):
                return None
        return self._notes.get(name)

    def put_note(self, name: str, note: object) -> None:
        if self.folder:
            write_json(self._note(self.folder, name), note)
        self._notes[name] = note

    @contextmanager
    def alone(self, *keys: str) -> Iterator[None]:
        """Hold the parts of the folder that `keys` are in, so that no one else works on them.

        Everyone takes locks in the same order, so that no two wait for each other. The operating
        system lets go when the process dies.
        """
        from filelock import FileLock

        with ExitStack() as stack:
            for path in self._locks(keys):
                with explained(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(FileLock(path, thread_local=False))
            yield

    def _locks(self, keys: Iterable[str]) -> list[Path]:
        folder = self.folder
        return [folder / part / ".lock" for part in sorted({k[:2] for k in keys})] if folder else []

    @staticmethod
    def _note(folder: Path, name: str) -> Path:
        return folder / name[:2] / f"{name}.json"

    def _remember(self, key: str, embedding: Embedding) -> None:
        self._recent[key] = embedding
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def _read(self, key: str, *, head: bool = False) -> bytes:
        path = self.path(key)
        if path is None:
            return self._bytes.get(key, b"")
        try:
            with explained(path), path.open("rb") as file:
                start = file.read(8)
                length = int.from_bytes(start, "little")
                return start + (file.read(min(length, _HEAD)) if head else file.read())
        except FileNotFoundError:
            return b""


_HEAD = 1_000_000
"""Bytes of a file's head at most; ours have some hundred."""


def _packed(key: str, embedding: Embedding) -> bytes:
    from safetensors.torch import save

    tensors = {
        f"{position}.{element.kind}": element.tensor.detach().cpu().contiguous()
        for position, element in embedding.items()
    }
    sums = {name: str(_checksum(tensor)) for name, tensor in tensors.items()}
    return save(tensors, {"key": key, **sums})


def _unpacked(key: str, data: bytes) -> Embedding | None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        told = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    except (SafetensorError, ValueError, KeyError):
        return None
    if told.get("key") != key:
        return None
    embedding = {}
    for name, tensor in tensors.items():
        position, _, kind = name.partition(".")
        if told.get(name) != str(_checksum(tensor)):
            return None
        embedding[int(position)] = Element(kind, tensor)  # type: ignore[arg-type]
    return embedding


def _shape(data: bytes) -> Shape | None:
    try:
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return tuple(
            (name, tensor["dtype"], tuple(tensor["shape"]))
            for name, tensor in sorted(head.items())
            if name != "__metadata__"
        )
    except (ValueError, KeyError, AttributeError):
        return None


def _checksum(tensor: "Tensor") -> int:
    """Tells a disk's flipped bit; no more is needed, since the key says where a tensor is from."""
    import torch

    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
