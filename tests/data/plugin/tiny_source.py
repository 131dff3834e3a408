"""A stranger's source, found by its entry point: noise from the seed, with faults on request."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from isekai.protocols import Rejected
from isekai.types import ImageRequest


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
    ) -> None:
        """`wait` seconds an image; `refuse` an index; `die` once while the file `die` exists."""
        self._wait, self._refuse, self._die, self._fail = wait, refuse, die, fail
        self.settings = {"tone": tone}
        self.processes = processes

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Image.Image | Rejected]:
        for request in requests:
            time.sleep(self._wait)
            if self._fail:
                raise RuntimeError("a bug of the source")
            if self._die and self._die.exists() and request.index == 5:
                self._die.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if request.index == self._refuse:
                yield Rejected("refused on request")
                continue
            rng = np.random.default_rng(request.seed)
            shape = (request.size, request.size, 3)
            noise = rng.integers(0, int(self.settings["tone"]), shape, dtype=np.uint8)
            yield Image.fromarray(noise)
