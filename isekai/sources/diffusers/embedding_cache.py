"""Embeddings of texts on disk: one safetensors file a text, written whole, checked when read."""

import json
import os
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from isekai.files import cache_folder, explained, write_bytes, write_json

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["rows", "list", "bare"]
"""How an element holds its batch: along its first axis, as a list of tensors, or not at all."""

Shape = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Of each tensor the position and kind, its type and its size: what has to agree in a batch."""

RECENT = 128
"""Embeddings kept in memory: half a GB of the longest (512 x 4096 in bfloat16), mostly far less."""


@dataclass(frozen=True, slots=True)
class Element:
    """One tensor of what a pipeline makes of a text, for a batch of one."""

    kind: Kind
    tensor: "Tensor"


Embedding = Mapping[int, Element]
"""Position in what `encode_prompt` returns -> what stands there; positions left out hold None."""


def usual() -> Path:
    return cache_folder() / "embeddings"


class Shelf:
    """A folder of embeddings, and of notes on what pipelines ask for.

    Nothing that is read counts on more than its own name, so any number of processes may share a
    folder. A file that is damaged, cut off or of another kind is as good as absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shapes: dict[str, Shape] = {}
        self._recent: OrderedDict[str, Embedding] = OrderedDict()

    def __reduce__(self) -> tuple[type["Shelf"], tuple[Path]]:
        return Shelf, (self.folder,)

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"

    def put(self, key: str, embedding: Embedding) -> None:
        write_bytes(self.path(key), _packed(key, embedding))
        self._remember(key, embedding)

    def get(self, key: str) -> Embedding | None:
        """On the CPU; None where it isn't kept. What is damaged is removed."""
        if key in self._recent:
            self._recent.move_to_end(key)
            return self._recent[key]
        path = self.path(key)
        with explained(path):
            try:
                embedding = _unpacked(key, path.read_bytes())
            except FileNotFoundError:
                embedding = None
            if embedding is None:
                self._shapes.pop(key, None)
                path.unlink(missing_ok=True)
                return None
        self._remember(key, embedding)
        return embedding

    def shape(self, key: str) -> Shape | None:
        """From the head of the file alone, without torch; None where there is no whole file."""
        shape = self._shapes.get(key) or _shape(self.path(key))
        if shape:
            self._shapes[key] = shape
        return shape

    def note(self, name: str) -> object | None:
        """What was noted under this name; None if nothing was, or it can't be read any more."""
        path = self._note(name)
        try:
            with explained(path):
                note: object = json.loads(path.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return note

    def put_note(self, name: str, note: object) -> None:
        write_json(self._note(name), note)

    @contextmanager
    def alone(self, *keys: str) -> Iterator[None]:
        """Hold the parts of the folder that `keys` are in, so that no one else works on them.

        Everyone takes locks in the same order, so that no two wait for each other. The operating
        system lets go when the process dies.
        """
        from filelock import FileLock

        with ExitStack() as stack:
            for part in sorted({key[:2] for key in keys}):
                path = self.folder / part / ".lock"
                with explained(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(FileLock(path, thread_local=False))
            yield

    def _note(self, name: str) -> Path:
        return self.folder / name[:2] / f"{name}.json"

    def _remember(self, key: str, embedding: Embedding) -> None:
        self._recent[key] = embedding
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)


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


def _shape(path: Path) -> Shape | None:
    """Of a safetensors file that is as long as its head says."""
    try:
        with explained(path), path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            head = json.loads(file.read(min(length, _HEAD)))
            head.pop("__metadata__")
            end = max(tensor["data_offsets"][1] for tensor in head.values())
            if os.fstat(file.fileno()).st_size != 8 + length + end:
                return None
        return tuple(
            (name, tensor["dtype"], tuple(tensor["shape"])) for name, tensor in sorted(head.items())
        )
    except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError, IndexError):
        return None


_HEAD = 1_000_000
"""Bytes of a file's head at most; ours have some hundred."""


def _checksum(tensor: "Tensor") -> int:
    """Tells a disk's flipped bit; no more is needed, since the key says where a tensor is from."""
    import torch

    return zlib.crc32(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
