"""What a model makes of each image, encoded once a run: on the device, then the host, then disk."""

import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from isekai.types import EncodedImage
from model_adapters.runtime.budget import Budget, chunked

Encode = Callable[[Sequence[EncodedImage]], Sequence[Tensor]]

BATCH = 8
"""Images encoded at a time; fewer once memory has run out over them."""

GIB = 1 << 30


class Features:
    """Features by the hash of an image's bytes.

    `on_device` and `on_host` are how many bytes are kept there; those used longest ago move on.
    What passes both lies in a folder of this process, and goes with it.
    """

    def __init__(
        self, encode: Encode, *, on_device: int = 2 * GIB, on_host: int = 16 * GIB
    ) -> None:
        self._encode = encode
        self._budget = Budget(BATCH)
        self._device, self._host, self._disk = _Shelf(on_device), _Shelf(on_host), _Disk()
        self._home = torch.device("cpu")
        self.encoded = 0
        """How many images have been encoded."""

    def of(self, images: Sequence[EncodedImage]) -> list[Tensor]:
        """One for each image, on the model's device."""
        wanted = {image.id: image for image in images}
        got = {key: kept for key in wanted if (kept := self._kept(key)) is not None}
        missing = [image for key, image in wanted.items() if key not in got]
        fresh = chunked(
            self._budget, len(missing), 1, lambda part: self._fresh(missing[part]), "an image"
        )
        for some in fresh:
            got |= some
        for key in wanted:
            self._keep(key, got[key])
        return [got[image.id] for image in images]

    def _fresh(self, images: Sequence[EncodedImage]) -> dict[str, Tensor]:
        made = self._encode(images)
        if len(made) != len(images):
            raise ValueError(f"encode gave {len(made)} features for {len(images)} images")
        self.encoded += len(images)
        self._home = made[0].device
        # A part of a batch would hold all of it in memory.
        return {image.id: one.clone() for image, one in zip(images, made, strict=True)}

    def _kept(self, key: str) -> Tensor | None:
        for place in (self._device, self._host, self._disk):
            kept = place.take(key)
            if kept is not None:
                return kept.to(self._home)
        return None

    def _keep(self, key: str, feature: Tensor) -> None:
        for gone, one in self._device.put(key, feature):
            for old, other in self._host.put(gone, one.to("cpu")):
                self._disk.put(old, other)


class _Shelf:
    """So many bytes, the newest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def take(self, key: str) -> Tensor | None:
        """Off the shelf: whoever takes it puts it back."""
        kept = self._held.pop(key, None)
        if kept is not None:
            self._bytes -= kept.nbytes
        return kept

    def put(self, key: str, feature: Tensor) -> list[tuple[str, Tensor]]:
        """What doesn't fit any more."""
        self.take(key)
        self._held[key] = feature
        self._bytes += feature.nbytes
        gone = []
        while self._bytes > self._limit:
            old = next(iter(self._held))
            kept = self.take(old)
            assert kept is not None
            gone.append((old, kept))
        return gone


class _Disk:
    """A folder that is made when it is needed and removed with the process."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    def _file(self, key: str) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="isekai-features-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / f"{key}.safetensors"

    def take(self, key: str) -> Tensor | None:
        """It stays where it is."""
        if self._folder is None or not self._file(key).exists():
            return None
        return load_file(self._file(key))["feature"]

    def put(self, key: str, feature: Tensor) -> None:
        if not self._file(key).exists():
            save_file({"feature": feature.contiguous()}, self._file(key))
