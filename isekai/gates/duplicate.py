"""The gate for pictures of a concept that are the same picture again."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai.dedup import HASH_BITS, Limits, distances, perceptual_hash
from isekai.errors import PluginError
from isekai.protocols import Judgement
from isekai.types import ImageRequest

DISTANCE = Limits().hash_distance


class Duplicate:
    """Turns down a picture whose perceptual hash is near that of an earlier one that passed.

    `distance` is how many of the 256 bits may differ between two of the same picture; where the
    number comes from stands at `isekai.dedup.Limits`. One picture alone always passes.
    """

    def __init__(self, distance: int = DISTANCE) -> None:
        if not 0 <= distance < HASH_BITS:
            raise PluginError(
                f"gate 'duplicate' takes a distance from 0 to {HASH_BITS - 1}, given {distance}"
            )
        self._distance = distance

    @property
    def settings(self) -> Mapping[str, object]:
        return {"distance": self._distance, "bits": HASH_BITS}

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        return Judgement()

    def repeats(self, images: Iterable[tuple[str, Image.Image]]) -> Mapping[str, Judgement]:
        """Name -> why it goes: the first is kept, each next one if it is near none kept.

        Pictures are looked at one by one and not held. `duplicate.distance` counts bits.
        """
        kept: list[str] = []
        hashes: list[NDArray[np.uint64]] = []
        found = {}
        for name, image in images:
            own = perceptual_hash(image)
            if hashes:
                bits = distances(own[None], np.stack(hashes))[0]
                nearest = int(bits.argmin())
                if bits[nearest] <= self._distance:
                    found[name] = self._repeat(kept[nearest], int(bits[nearest]))
                    continue
            kept.append(name)
            hashes.append(own)
        return found

    def _repeat(self, earlier: str, bits: int) -> Judgement:
        return Judgement(
            {"duplicate.distance": float(bits)},
            f"the same picture as {earlier}: {bits} of {HASH_BITS} bits of "
            f"their perceptual hashes differ, more than {self._distance} are wanted",
        )
