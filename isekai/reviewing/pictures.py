"""The pictures a review shows: small ones made when they are asked for, and files as they are."""

import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from PIL import Image

from isekai import files
from isekai.dataset import Dataset
from isekai.errors import DataError
from isekai.images import decode, encode, media_type
from isekai.intake import Rejection

SIDE = 320
"""Pixels of a small picture's longer side: a tile of 160 on a screen with twice the pixels."""

KEPT_BYTES = 64_000_000
"""Small pictures that stay in memory; 2,000 take about 20 MB."""

_AT_ONCE = 2
"""Pictures decoded at the same time: the largest take 192 MB each."""


class File(NamedTuple):
    """A picture's file as a browser shows it."""

    data: bytes
    kind: str


class Pictures:
    """Pictures of a dataset and, where its folder of images is given, what was left out of it."""

    def __init__(
        self,
        dataset: Dataset,
        left_out: Mapping[str, Rejection],
        images: Path | None,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._dataset = dataset
        self._known = {entry.image_id for entry in dataset.entries}
        self._aside = _present(left_out, images) if images else {}
        self._kept_bytes = kept_bytes
        self._small: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._decoding = threading.Semaphore(_AT_ONCE)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._known or image_id in self._aside

    def small(self, image_id: str) -> File:
        """As a WebP of at most `SIDE` pixels a side; DataError if it can't be shown."""
        with self._lock:
            data = self._small.get(image_id)
            if data is not None:
                self._small.move_to_end(image_id)
        if data is None:
            data = self._shrunk(self._data(image_id))
            self._keep(image_id, data)
        return File(data, "image/webp")

    def whole(self, image_id: str) -> File:
        """The file itself, or the same pixels as PNG if browsers don't show its format."""
        data = self._data(image_id)
        kind = media_type(data)
        if kind:
            return File(data, kind)
        with self._decoding:
            return File(encode(decode(data)), "image/png")

    def _data(self, image_id: str) -> bytes:
        path = self._aside.get(image_id)
        if path is None:
            return self._dataset.image(image_id).data
        try:
            with files.explained(path):
                data = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path}: no such file") from None
        if files.sha256(data) != image_id:
            raise DataError(f"{path}: not the picture that was left out")
        return data

    def _shrunk(self, data: bytes) -> bytes:
        buffer = io.BytesIO()
        with self._decoding:
            picture = decode(data)
            picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
            picture.save(buffer, "WEBP", quality=82, method=2)
        return buffer.getvalue()

    def _keep(self, image_id: str, data: bytes) -> None:
        with self._lock:
            if image_id not in self._small:  # else another thread was faster
                self._small[image_id] = data
                self._bytes += len(data)
            while self._bytes > self._kept_bytes and len(self._small) > 1:
                self._bytes -= len(self._small.popitem(last=False)[1])


def _present(left_out: Mapping[str, Rejection], images: Path) -> dict[str, Path]:
    """Where pictures that were left out still lie; none outside the folder, whatever a row says."""
    found = {}
    root = images.resolve()
    for image_id, one in left_out.items():
        told = PurePosixPath(one.path or "")
        path = (root / told).resolve()
        if one.path and not told.is_absolute() and path.is_relative_to(root) and path.is_file():
            found[image_id] = path
    return found
