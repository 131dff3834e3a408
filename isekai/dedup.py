"""Finds pictures that are the same, or nearly, and says which of them to keep.

Four looks, from the surest to the broadest: equal bytes, equal pixels, nearly equal perceptual
hashes, nearly parallel embeddings. Of pictures that are alike the first is kept: the one with most
pixels, then the lowest index, then by concept and path. So every picture left out is alike to one
that stays, no two that stay are alike, and the order in which pictures come in changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai.files import sha256
from isekai.types import ImageRecord

HASH_BITS = 256
TILE = 1024
"""Pictures compared at once with as many others: all pairs are looked at, never held together."""

Alike = Callable[[slice, slice], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How near is too near.

    The numbers keep clear of other views of one concept, which are no duplicates. Measured on 360
    renderings of 9 concepts at 192 px and 108 simple drawings at 96 px:
    - hash: different pictures differ in 76 bits or more (46 among the drawings), copies that were
      stored as JPEG, resized, blurred or brightened in 14 or less (34 at quality 25 and 96 px);
    - cosine, EfficientNet-Lite0 at 160 px: other views of a concept come to 0.84 (0.967 among the
      drawings), copies cropped by 2 % a side to 0.98 and mirrored ones to 0.955 in the median.
    So the hash finds the same picture stored otherwise, the cosine what is left of near copies.
    """

    hash_distance: int = 32
    cosine: float = 0.975


@dataclass(frozen=True, slots=True, kw_only=True)
class Print:
    """What is compared of a picture, and what decides which of several stays."""

    path: str
    concept: str
    index: int
    area: int
    """Pixels."""
    data: str
    """SHA-256 of the file's bytes."""
    pixels: str
    """SHA-256 of the decoded picture."""
    hash: NDArray[np.uint64]
    """[4]: the 256 bits of `perceptual_hash`."""

    @classmethod
    def of(cls, picture: Image.Image, record: ImageRecord) -> "Print":
        return cls(
            path=record.path,
            concept=record.concept,
            index=record.index,
            area=picture.width * picture.height,
            data=record.id,
            pixels=pixels_hash(picture),
            hash=perceptual_hash(picture),
        )

    @property
    def rank(self) -> tuple[int, int, str, str]:
        return (-self.area, self.index, self.concept, self.path)


class Duplicate(NamedTuple):
    """A picture to leave out, and the one that stays for it; positions in what was given."""

    position: int
    kept: int
    reason: str


def pixels_hash(image: Image.Image) -> str:
    """Equal for pictures of equal size and RGB values, however they were stored."""
    return sha256(f"{image.width}x{image.height}:".encode() + image.convert("RGB").tobytes())


def perceptual_hash(image: Image.Image) -> NDArray[np.uint64]:
    """[4]: the signs of the picture's 16 x 16 lowest frequencies against their median."""
    return np.packbits(imagehash.phash(image, hash_size=16).hash).view(np.uint64)


def find(
    prints: Sequence[Print], features: NDArray[np.float32], limits: Limits | None = None
) -> list[Duplicate]:
    """Every picture to leave out. `features` are unit rows, one a print."""
    limits = limits or Limits()
    order = sorted(range(len(prints)), key=lambda position: prints[position].rank)
    found: list[Duplicate] = []
    for reason, keys in (
        ("same bytes", [one.data for one in prints]),
        ("same pixels", [one.pixels for one in prints]),
    ):
        first: dict[str, int] = {}
        for position in order:
            kept = first.setdefault(keys[position], position)
            if kept != position:
                found.append(Duplicate(position, kept, reason))
        order = list(first.values())
    if not order:
        return found

    hashes, vectors = np.stack([prints[position].hash for position in order]), features[order]

    def same(a: slice, b: slice) -> NDArray[np.bool_]:
        return distances(hashes[a], hashes[b]) <= limits.hash_distance

    # One walk under both rules: two in turn would leave out what is like none that stays.
    pairs = _thin(
        len(order), lambda a, b: same(a, b) | (vectors[a] @ vectors[b].T >= limits.cosine)
    )
    for place, kept in pairs:
        hashed = same(slice(place, place + 1), slice(kept, kept + 1)).all()
        reason = "same picture by perceptual hash" if hashed else "near-duplicate by embedding"
        found.append(Duplicate(order[place], order[kept], reason))
    return sorted(found)


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[n, m]: differing bits of every pair of hashes [n, 4] and [m, 4]."""
    total = np.zeros((len(a), len(b)), np.int64)
    for word in range(a.shape[1]):
        total += np.bitwise_count(a[:, None, word] ^ b[None, :, word])
    return total


def closest(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, int, int]:
    """The highest cosine between a row of `a` and a row of `b` (unit rows), and which rows."""
    best = (-1.0, 0, 0)
    for row in range(0, len(a), TILE):
        for column in range(0, len(b), TILE):
            cosines = a[row : row + TILE] @ b[column : column + TILE].T
            i, j = divmod(int(cosines.argmax()), cosines.shape[1])
            best = max(best, (float(cosines[i, j]), row + i, column + j), key=lambda one: one[0])
    return best


def _thin(count: int, alike: Alike) -> list[tuple[int, int]]:
    """Walk down the places: keep what is like nothing kept so far, pair the rest with its match.

    `alike` compares slices of the places.
    """
    kept = np.ones(count, bool)
    match = np.zeros(count, np.int64)
    for start in range(0, count, TILE):
        rows = slice(start, min(start + TILE, count))
        for before in range(0, start, TILE):
            columns = slice(before, before + TILE)
            hits = alike(rows, columns) & kept[columns]
            new = kept[rows] & hits.any(axis=1)
            match[rows][new] = before + hits[new].argmax(axis=1)
            kept[rows][new] = False
        among = alike(rows, rows)
        for row in range(1, rows.stop - start):
            hits = among[row, :row] & kept[start : start + row]
            if kept[start + row] and hits.any():
                match[start + row] = start + hits.argmax()
                kept[start + row] = False
    return [(int(place), int(match[place])) for place in np.flatnonzero(~kept)]
