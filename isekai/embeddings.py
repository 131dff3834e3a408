"""Each image embedded once: kept in memory for a run, and on disk for the next one."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isekai.errors import DataError
from isekai.files import cache_folder, explained, sha256
from isekai.images import decode
from isekai.protocols import Embedder
from isekai.types import EncodedImage

_TABLE = """
    create table if not exists embeddings (
        embedder text, image text, vector blob, primary key (embedder, image)
    ) without rowid
"""

_CHUNK = 64
"""Pictures between two writes: a killed run loses no more, and as many are in memory at once."""


class Embeddings:
    """An embedder that remembers, by its own revision and the SHA-256 of the image's bytes.

    Pictures are embedded one at a time. In a batch, the last bits of a row depend on how many
    others there are, and a run that was cut off and continued would not give the same bytes; on a
    CPU a batch is not faster.
    """

    def __init__(self, embedder: Embedder, folder: Path | None = None) -> None:
        self.embedder = embedder
        self.file = (folder or cache_folder()) / "embeddings.sqlite"
        self._key = f"{embedder.model} {embedder.revision}"
        self._rows: dict[str, NDArray[np.float32]] = {}

    def rows(self, images: Sequence[EncodedImage]) -> NDArray[np.float32]:
        """[N, D] float32: the embedding of each image, in order. At least one image is needed."""
        given = {image.id: image for image in images}
        return self.of([image.id for image in images], given.__getitem__)

    def of(self, ids: Sequence[str], image: Callable[[str], EncodedImage]) -> NDArray[np.float32]:
        """As `rows`, by id: `image` fetches only what hasn't been embedded by this object yet."""
        new = [id for id in dict.fromkeys(ids) if id not in self._rows]
        for start in range(0, len(new), _CHUNK):
            self._fetch({id: image(id).data for id in new[start : start + _CHUNK]})
        return np.stack([self._rows[id] for id in ids])

    def _fetch(self, images: dict[str, bytes]) -> None:
        hashes = {id: sha256(data) for id, data in images.items()}
        try:
            with explained(self.file):
                self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=60)) as disk:
                disk.execute(_TABLE)
                for id, hash in hashes.items():
                    found = disk.execute(
                        "select vector from embeddings where embedder = ? and image = ?",
                        (self._key, hash),
                    ).fetchone()
                    if found:
                        self._rows[id] = np.frombuffer(found[0], np.float32)
                fresh = [id for id in images if id not in self._rows]
                for id in fresh:
                    self._rows[id] = self.embedder.embed_images([decode(images[id])])[0]
                with disk:
                    disk.executemany(
                        "insert or ignore into embeddings values (?, ?, ?)",
                        [(self._key, hashes[id], self._rows[id].tobytes()) for id in fresh],
                    )
        except sqlite3.Error as error:
            raise DataError(
                f"{self.file}: {error}; delete this file, or choose another folder with "
                "-o cache=… or $ISEKAI_CACHE"
            ) from None
