"""Each picture and text embedded once: kept in memory for a run, and on disk for the next one."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from isekai import files
from isekai.errors import DataError, PluginError
from isekai.images import decode
from isekai.protocols import Embedder, TextEmbedder
from isekai.types import EncodedImage
from isekai.vectors import Vector, Vectors

T = TypeVar("T")
U = TypeVar("U")
Rows = NDArray[np.float32]

_CHUNK = 64
"""Pictures between two looks at the disk: a killed run loses no more than these and a batch."""


@runtime_checkable
class Batching(Protocol):
    """An embedder that is best given so many pictures or texts at a time, neither more nor less."""

    @property
    def batch(self) -> int: ...


class Embeddings:
    """An embedder that remembers, by its model and revision and the SHA-256 of what it was given.

    Rows are rounded to half precision before anyone sees them and then brought back to length 1, so
    that a row from the disk and one just made are the same to the last bit. Cosines move by less
    than 1e-4 (72 drawings through lite0, 300 random vectors of 512 numbers: at most 7e-5).

    The last bits of what a network makes of a picture depend on how many others are beside it. So
    an embedder is always given as many as its `batch` says, the last time with the last picture
    repeated; one that says nothing is given one at a time. In a batch of a fixed size, rows have
    come out the same to the last bit in whatever place and company (measured: torch 2.14 on x86-64,
    lite0 and ViT-B-32, batches of 8, 16 and 32, 1 to 3 threads). No library promises that: where it
    doesn't hold, rounding hides most of it, and a number that lies between two halves may come out
    as either, 0.05 % apart.
    """

    def __init__(self, embedder: Embedder, folder: Path | None = None) -> None:
        self.embedder = embedder
        self.file = (folder or files.cache_folder()) / "vectors.sqlite"
        self._disk = Vectors(self.file)
        self._batch = embedder.batch if isinstance(embedder, Batching) else 1
        self._keys: dict[str, bytes] = {}
        self._kept: dict[bytes, Vector] = {}

    @property
    def told(self) -> dict[str, str]:
        """Model and revision, for what is published: where a user keeps a model is left out."""
        model = self.embedder.model
        local = Path(model).is_absolute() or Path(model).exists()
        return {"model": Path(model).name if local else model, "revision": self.embedder.revision}

    def rows(self, images: Sequence[EncodedImage]) -> Rows:
        """[N, D] float32: the embedding of each image, in order. At least one image is needed."""
        given = {image.id: image for image in images}
        return self.of([image.id for image in images], given.__getitem__)

    def of(self, ids: Sequence[str], image: Callable[[str], EncodedImage]) -> Rows:
        """As `rows`, by id: `image` fetches only what hasn't been embedded by this object yet."""
        new = [id for id in dict.fromkeys(ids) if self._keys.get(id) not in self._kept]
        self._take(self._fetched(new, image), _decoded, self.embedder.embed_images)
        return self._stacked([self._keys[id] for id in ids])

    def rows_of(self, pictures: Iterable[tuple[str, Image]]) -> Rows:
        """As `rows`, of pictures that are decoded already, each after the SHA-256 of its file.

        They are taken as they come, so that few are in memory if they come from a generator. Such a
        picture has to be what `isekai.images.decode` makes of that file.
        """
        order: list[bytes] = []

        def passing() -> Iterator[tuple[bytes, Image]]:
            for hash, picture in pictures:
                order.append(self._key("image", hash))
                yield order[-1], picture

        self._take(passing(), list, self.embedder.embed_images)
        return self._stacked(order)

    def texts(self, texts: Sequence[str]) -> Rows:
        """[N, D] float32: the embedding of each text, in order. At least one text is needed."""
        embedder = self.embedder
        if not isinstance(embedder, TextEmbedder):
            raise PluginError(
                f"{embedder.model}: embeds no texts; take an embedder that does, such as open_clip"
            )
        keys = [self._key("text", sha256(text.encode()).hexdigest()) for text in texts]
        self._take(zip(keys, texts, strict=True), list, embedder.embed_texts)
        return self._stacked(keys)

    def _fetched(
        self, ids: Sequence[str], image: Callable[[str], EncodedImage]
    ) -> Iterator[tuple[bytes, bytes]]:
        for id in ids:
            data = image(id).data
            self._keys[id] = self._key("image", files.sha256(data))
            yield self._keys[id], data

    def _key(self, kind: str, hash: str) -> bytes:
        told = "\0".join((self.embedder.model, self.embedder.revision, kind, hash))
        return sha256(told.encode()).digest()

    def _take(
        self,
        given: Iterable[tuple[bytes, T]],
        prepare: Callable[[Sequence[T]], list[U]],
        embed: Callable[[list[U]], Rows],
    ) -> None:
        """Have a vector for every key: the one in memory, on disk, or that of what is given."""
        waiting: dict[bytes, T] = {}
        rest = iter(given)
        while chunk := dict(islice(rest, _CHUNK)):
            unknown = [key for key in chunk if key not in self._kept and key not in waiting]
            self._kept |= self._disk.get(unknown)
            waiting |= {key: chunk[key] for key in unknown if key not in self._kept}
            whole = len(waiting) // self._batch * self._batch
            self._embed({key: waiting.pop(key) for key in list(waiting)[:whole]}, prepare, embed)
        self._embed(waiting, prepare, embed)

    def _embed(
        self,
        fresh: Mapping[bytes, T],
        prepare: Callable[[Sequence[T]], list[U]],
        embed: Callable[[list[U]], Rows],
    ) -> None:
        made: dict[bytes, Vector] = {}
        for start in range(0, len(fresh), self._batch):
            keys = list(fresh)[start : start + self._batch]
            some = prepare([fresh[key] for key in keys])
            rows = embed(some + some[-1:] * (self._batch - len(some)))[: len(some)]
            if not np.isfinite(rows).all() or not rows.any(axis=1).all():
                raise DataError(
                    f"{self.embedder.model}: its vectors are no numbers, or all zeros; take "
                    "another model, or dtype=float32 where it has that option"
                )
            made |= zip(keys, rows.astype(np.float16), strict=True)
        if made:
            self._disk.put(made)
            self._kept |= made

    def _stacked(self, keys: Sequence[bytes]) -> Rows:
        rows = np.stack([self._kept[key] for key in keys]).astype(np.float64)
        unit: Rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit


def _decoded(datas: Sequence[bytes]) -> list[Image]:
    """On all cores: decoding lets other threads run."""
    if len(datas) == 1:
        return [decode(datas[0])]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(decode, datas))
