"""Finds pictures that are the same, or nearly, and says which of them to keep.

Five looks, from the surest to the broadest: equal bytes, equal pixels, nearly equal perceptual
hashes, one a copy of the other (`isekai.copies`), and within a concept nearly parallel embeddings.
Whatever the look, of pictures that are alike the first is kept: one that a person protects, then
the one with the highest score, with most pixels, with the lowest index, then by concept and path.
So every picture left out is alike to one that stays, and the order in which pictures come in
changes nothing. `leaks` tells what is still near across splits and concepts.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import copies, neighbours
from isekai.files import sha256
from isekai.nearby import Near
from isekai.types import Estimate, ImageRecord

HASH_BITS = 256
CANDIDATES = 32
"""Nearest pictures by embedding that are looked at for being copies."""
HASH_CANDIDATES = 4
"""The same by perceptual hash."""
HASH_NEARBY = 80
"""Bits up to which a picture is one of them; different pictures differ in 128 on average."""

_LOOKS = 4096
"""Looks that are remembered, 60 kB each; 100 kB where features were sought."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How near is too near; other embedders need others: see `isekai.calibration`.

    The defaults hold for EfficientNet-Lite0 at 160 px, on two kinds of pictures at once.
    231 renderings of 21 concepts at 256 px, each altered in ten ways (`isekai.alterations`), beside
    1,155 pairs of other views, 2,310 of other concepts and 231 of other things before the same
    background: hash and copy together find 2,309 of the 2,310 copies (0.9996, Wilson's interval
    0.9976 to 0.9999; missed is one that was cut, resized and stored as JPEG) and take none of
    the 3,696 others for a copy (0 to 0.001). Of 1,080 altered from 108 simple drawings they find
    1,078 (0.993 to 0.999), of the 1,890 others beside these none (0 to 0.002).
    - hash: JPEG of quality 30 and resizing change 8 bits at most, 12 of a drawing; others differ in
      60 or more.
    - copy: others score 0.16 at most, 0.17 among the drawings, copies 0.75 and more.
    - cosine: other views come to 0.85, but to 0.973 among drawings, which vary little. Calibration
      on all the renderings picks hash_distance=32, copy=0.477, candidate=0.751, cosine=0.8799.
    """

    hash_distance: int = 32
    copy: float = 0.5
    """Of `copies.score`."""
    candidate: float = 0.7
    """Cosine from which on a picture may be a copy and is compared by its pixels: 0.1 % of copies
    lie below, 0.5 % of those of drawings; of other views 83 % and 2 %."""
    cosine: float = 0.975
    """From which on two pictures of a concept are too near, and others are told as leaks."""


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
    small: copies.Grey | None = None
    """`copies.small`, 16 kB; without it no copies are looked for."""
    keep: bool = False
    """A person wants it: it stays, whatever it is like."""
    score: float = 0.0
    """Of pictures that are alike the highest stays."""

    @classmethod
    def of(
        cls, picture: Image.Image, record: ImageRecord, *, keep: bool = False, score: float = 0.0
    ) -> "Print":
        return cls(
            path=record.path,
            concept=record.concept,
            index=record.index,
            area=picture.width * picture.height,
            data=record.id,
            pixels=pixels_hash(picture),
            hash=perceptual_hash(picture),
            small=copies.small(picture),
            keep=keep,
            score=score,
        )

    @property
    def rank(self) -> tuple[bool, float, int, int, str, str]:
        return (not self.keep, -self.score, -self.area, self.index, self.concept, self.path)


class Duplicate(NamedTuple):
    """A picture to leave out, and the one that stays for it; positions in what was given."""

    position: int
    kept: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinning:
    """What to leave out, and how much of it a search in buckets can have found."""

    duplicates: Sequence[Duplicate]
    recall: Mapping[str, Estimate]
    """Of the pairs near by `hash` and by `embedding`; empty where all pairs were looked at."""


def pixels_hash(image: Image.Image) -> str:
    """Equal for pictures of equal size and RGB values, however they were stored."""
    return sha256(f"{image.width}x{image.height}:".encode() + image.convert("RGB").tobytes())


def perceptual_hash(image: Image.Image) -> NDArray[np.uint64]:
    """[4]: the signs of the picture's 16 x 16 lowest frequencies against their median."""
    return np.packbits(imagehash.phash(image, hash_size=16).hash).view(np.uint64)


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.int64]:
    """[n, m]: differing bits of every pair of hashes [n, 4] and [m, 4]."""
    total = np.zeros((len(a), len(b)), np.int64)
    for word in range(a.shape[1]):
        total += np.bitwise_count(a[:, None, word] ^ b[None, :, word])
    return total


def signs(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """[n, 256]: hashes [n, 4] as unit rows; d differing bits are exactly a cosine of 1 - d/128."""
    bits = np.unpackbits(hashes.view(np.uint8), axis=1)
    return (bits.astype(np.float32) * 2 - 1) / np.float32(HASH_BITS**0.5)


# ---------------------------------------------------------------- what to leave out


def find(
    prints: Sequence[Print],
    features: NDArray[np.float32] | None = None,
    limits: Limits | None = None,
    seed: int = 0,
) -> list[Duplicate]:
    """Every picture to leave out. `features` are unit rows, one a print; None for no embedding."""
    return list(thin(prints, features, limits, seed).duplicates)


def thin(
    prints: Sequence[Print],
    features: NDArray[np.float32] | None = None,
    limits: Limits | None = None,
    seed: int = 0,
) -> Thinning:
    """As `find`, with what is known of the search; `seed` is that of buckets, where there are any.

    A picture is compared with those that stay and come before it. By bytes, pixels, hash and, in
    its concept, embedding, no two are left that are alike. For copies only the nearest are looked
    at: `CANDIDATES` by embedding and `HASH_CANDIDATES` by hash.
    """
    order = sorted(range(len(prints)), key=lambda position: prints[position].rank)
    if not order:
        return Thinning(duplicates=[], recall={})
    rows = np.zeros((len(order), 1), np.float32) if features is None else features[order]
    walk = _Walk([prints[position] for position in order], rows, limits or Limits(), seed)
    found = [Duplicate(order[place], order[kept], reason) for place, kept, reason in walk.matches()]
    return Thinning(duplicates=sorted(found), recall=walk.recall())


class _Walk:
    """Goes down the places of ranked prints, and keeps what is like nothing kept so far."""

    def __init__(
        self, prints: Sequence[Print], rows: NDArray[np.float32], limits: Limits, seed: int
    ) -> None:
        self.prints, self.limits = prints, limits
        bits = max(limits.hash_distance, HASH_NEARBY)
        hashes = signs(np.stack([one.hash for one in prints]))
        self.by_hash = Near(hashes, 1 - 2 * bits / HASH_BITS, HASH_CANDIDATES, seed)
        self.by_look = Near(rows, limits.candidate, CANDIDATES, seed)
        self.concepts: dict[str, list[int]] = defaultdict(list)
        for place, one in enumerate(prints):
            self.concepts[one.concept].append(place)
        self.in_concept = {
            concept: Near(rows[places], limits.cosine, 1, seed)
            for concept, places in self.concepts.items()
        }
        self.bytes: dict[str, int] = {}
        self.pixels: dict[str, int] = {}
        self.look = lru_cache(_LOOKS)(self._look)

    def matches(self) -> Iterator[tuple[int, int, str]]:
        """(place, kept place, reason) of each that goes."""
        count: dict[str, int] = defaultdict(int)
        for place, one in enumerate(self.prints):
            own = count[one.concept]
            count[one.concept] += 1
            match = None if one.keep else self._match(place, own)
            if match:
                yield place, *match
                continue
            self.bytes.setdefault(one.data, place)
            self.pixels.setdefault(one.pixels, place)
            self.by_hash.kept[place] = self.by_look.kept[place] = True
            self.in_concept[one.concept].kept[own] = True

    def recall(self) -> dict[str, Estimate]:
        both = {"hash": self.by_hash.recall, "embedding": self.by_look.recall}
        return {name: recall for name, recall in both.items() if recall}

    def _match(self, place: int, own: int) -> tuple[int, str] | None:
        """A kept place that this one is like, by the surest look; `own` is its place in concept."""
        one = self.prints[place]
        if one.data in self.bytes:
            return self.bytes[one.data], "same bytes"
        if one.pixels in self.pixels:
            return self.pixels[one.pixels], "same pixels"
        hashed, cosines = self.by_hash.of(place)
        if len(hashed) and (1 - cosines[0]) * HASH_BITS / 2 <= self.limits.hash_distance:
            return int(hashed[0]), "same picture by perceptual hash"
        near, _ = self.by_look.of(place)
        for other in dict.fromkeys([*near.tolist(), *hashed.tolist()]):
            if self._is_copy(other, place):
                return other, "same picture, cropped, mirrored or turned"
        same, _ = self.in_concept[one.concept].of(own)
        if len(same):
            return self.concepts[one.concept][same[0]], "near-duplicate by embedding"
        return None

    def _is_copy(self, kept: int, place: int) -> bool:
        a, b = self.look(kept), self.look(place)
        return bool(a and b and copies.score(a, b) >= self.limits.copy)

    def _look(self, place: int) -> copies.Look | None:
        small = self.prints[place].small
        return None if small is None else copies.Look(small)


# ---------------------------------------------------------------- what leaks


class Leak(NamedTuple):
    """Two pictures that are near though they should have nothing to do with each other."""

    i: int
    j: int
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaks:
    """What comes near across splits or concepts; positions in what was given, i < j."""

    across_splits: int
    """Pairs at the limit or over it."""
    across_concepts: int
    worst: Sequence[Leak]
    """Of both, nearest first."""
    closest_across_splits: Leak | None
    """Whether over the limit or not; None if there is but one split, or more rows than can be
    compared pair by pair."""
    closest_across_concepts: Leak | None
    recall: Estimate | None
    """Which share of the near pairs a search in buckets finds; None where all were looked at."""


def leaks(
    features: NDArray[np.float32],
    splits: Sequence[str],
    concepts: Sequence[str],
    limits: Limits | None = None,
    most: int = 100,
    seed: int = 0,
) -> Leaks:
    """What is nearer than `limits.cosine` across splits and concepts, the `most` worst by name.

    `features` are unit rows, `splits` and `concepts` name those of each.
    """
    split, concept = (np.unique(names, return_inverse=True)[1] for names in (splits, concepts))
    found = neighbours.search(features, (limits or Limits()).cosine, seed)
    i, j, cosine = found.pairs.i, found.pairs.j, found.pairs.cosine
    other_split, other_concept = split[i] != split[j], concept[i] != concept[j]
    near = np.flatnonzero(other_split | other_concept)
    near = near[np.lexsort((j[near], i[near], -cosine[near]))][:most]
    exact = len(features) <= neighbours.EXACT
    closest_split, closest_concept = (
        Leak(best[1], best[2], best[0]) if best else None
        for best in (
            neighbours.closest_apart(features, labels) if exact else None
            for labels in (split, concept)
        )
    )
    return Leaks(
        across_splits=int(other_split.sum()),
        across_concepts=int(other_concept.sum()),
        worst=[Leak(int(i[row]), int(j[row]), float(cosine[row])) for row in near],
        closest_across_splits=closest_split,
        closest_across_concepts=closest_concept,
        recall=found.recall,
    )
