"""A stranger's source and gates, found by entry points: noise from the seed, faults on request."""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from isekai.errors import DataError
from isekai.protocols import Judgement, Rejected
from isekai.types import Group, ImageRequest


class TinySource:
    model = "tiny"
    revision = "1"

    def __init__(
        self,
        wait: float = 0.0,
        refuse: int = -1,
        die: Path | None = None,
        fail: bool = False,
        tone: int = 255,
        processes: bool = True,
        weight: int = 0,
    ) -> None:
        """`wait` seconds an image; `refuse` an index; `die` as often as that file has bytes;
        `weight` bytes go with each copy."""
        self._wait, self._refuse, self._die, self._fail = wait, refuse, die, fail
        self.settings = {"tone": tone}
        self.processes = processes
        self._weight = bytes(weight)

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Image.Image | Rejected]:
        for request in requests:
            time.sleep(self._wait)
            if self._fail:
                raise RuntimeError("a bug of the source")
            if self._die and request.index == 5 and (left := self._die.read_bytes()):
                self._die.write_bytes(left[1:])
                os.kill(os.getpid(), signal.SIGKILL)
            if request.index == self._refuse:
                yield Rejected("refused on request")
                continue
            rng = np.random.default_rng(request.seed)
            shape = (request.size, request.size, 3)
            noise = rng.integers(0, int(self.settings["tone"]), shape, dtype=np.uint8)
            yield Image.fromarray(noise)


class Even:
    """A gate: the first pixel's red has to be even, as about every second picture's is."""

    def __init__(self, parity: int = 0) -> None:
        self.settings: Mapping[str, object] = {"parity": parity}
        self._parity = parity

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        red = image.getpixel((0, 0))[0]
        odd = red % 2 != self._parity
        return Judgement({"even.red": float(red)}, f"{red} is odd" if odd else "")


class Knows:
    """A gate that has to know the definitions; concepts that have the word `odd` are no good."""

    settings: Mapping[str, object] = {}

    def inform(self, groups: Sequence[Group]) -> None:
        for group in groups:
            for concept in group.concepts:
                if "odd" in concept.definition:
                    raise DataError(f"{concept.id} is defined as odd")

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        return Judgement()


class Apart:
    """A gate that compares: no two pictures of a concept begin with nearly the same red."""

    settings: Mapping[str, object] = {}

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        return Judgement()

    def repeats(self, images: Iterable[tuple[str, Image.Image]]) -> Mapping[str, Judgement]:
        taken: list[int] = []
        found = {}
        for name, image in images:
            red = image.getpixel((0, 0))[0]
            near = [other for other in taken if abs(other - red) < 12]
            if near:
                found[name] = Judgement({"apart.red": float(red)}, f"{red} is near {near[0]}")
            else:
                taken.append(red)
        return found
