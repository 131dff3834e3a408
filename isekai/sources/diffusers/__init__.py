"""Draws with diffusion models: any text-to-image repository or folder in the diffusers layout.

There are two phases, so that text encoders never share memory with what denoises: `prepare` encodes
each distinct text once and keeps the embeddings on disk, `draw` loads the rest of the model. The
noise of an image comes from its own seed alone and is the same to the bit whatever the batch, the
order, the worker or the device. What is computed from it may differ in the last bits.
"""

import copy
import shutil
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Literal

from isekai import progress
from isekai.errors import IsekaiError
from isekai.protocols import Picture, Rejected
from isekai.sources.diffusers import (
    batching,
    devices,
    estimating,
    presets,
    recipe,
    sizes,
    speeds,
)
from isekai.sources.diffusers.choice import Choice
from isekai.sources.diffusers.embedding_cache import Shelf, usual
from isekai.sources.diffusers.texts import Gone, Texts
from isekai.types import DigitalSource, ImageRequest

if TYPE_CHECKING:
    from isekai.sources.diffusers.painting import Painter

CHUNK = 32
"""Requests that a worker is handed at a time: some batches, and few minutes of one GPU."""

_PRESET = {"revision", "variant", "steps", "guidance", "scheduler", "dtype", "negative_prompts",
           "tokens", "refiner", "switch"}  # fmt: skip
"""Options that take the place of a preset's value."""


class DiffusersSource:
    """A model and how it is run; what isn't given is the preset's, or else the pipeline's own.

    Neither building it nor asking what it is loads torch, unless a GPU has to be looked for.
    """

    processes = True
    gates = ("flat", "duplicate")
    digital_source: DigitalSource = "trainedAlgorithmicMedia"
    """What needs no model of its own; these pictures can be grey, and can be the same twice."""

    def __init__(
        self,
        model: str = "",
        *,
        revision: str | None = None,
        variant: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        scheduler: str | None = None,
        dtype: presets.Dtype | None = None,
        negative_prompts: bool | None = None,
        tokens: int | None = None,
        refiner: str | None = None,
        switch: float | None = None,
        lora: str = "",
        memory: str = "auto",
        offload: str | None = None,
        quantise: str | None = None,
        tiling: bool | None = None,
        compile: bool | None = None,
        batch: int = 0,
        devices: str = "auto",
        safety: Literal["score", "off"] = "score",
        cache: bool | Path = True,
        threads: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        """`model` is a preset's name, a folder, or `owner/name[@revision]` on the Hub.

        `lora` is `FILE`, `FOLDER[:FILE]` or `OWNER/NAME[:FILE]`, with `@SCALE` behind it. `memory`
        is the card's, such as `16g`; `offload`, `quantise`, `tiling` and `compile` say otherwise
        than what follows from it. `batch` images are drawn at a time; 0 finds out how many pay.
        `devices` are names with commas. `cache` is a folder for embeddings, or false for none.
        """
        given = locals()
        own = {key: given[key] for key in _PRESET}
        if batch < 0 or threads < 0:
            raise IsekaiError(f"batch={batch} and threads={threads}: expected 0 or more of each")
        self._choice = Choice(
            presets.resolve(model, **own),
            asked=frozenset(key for key, value in own.items() if value is not None),
            lora=lora,
            devices=devices,
            memory={
                "profile": memory,
                "offload": offload,
                "quantise": quantise,
                "tiling": tiling,
                "compile": compile,
            },
            trust_remote_code=trust_remote_code,
        )
        self._batch = batch
        self._safety = safety == "score"
        self._threads = threads
        self._cache = cache
        self._pace: batching.Pace | None = None
        self._painter: Painter | None = None
        self._kinds: dict[tuple[str, str, int], object] = {}
        self._fastest: dict[int, float] = {}
        """Size -> seconds an image."""
        self.encoded = 0
        """Texts that this object has encoded."""

    def __getstate__(self) -> dict[str, Any]:
        """Without what is loaded; with the folder that copies share."""
        left: dict[str, Any] = {"_painter": None, "_pace": None, "_kinds": {}}
        return {**self.__dict__, "_shelf": self._shelf, **left}

    # ------------------------------------------------------------ what it is

    @property
    def model(self) -> str:
        return recipe.identifier(self._choice.origin)

    @cached_property
    def revision(self) -> str:
        return self._choice.origin.revision

    @property
    def settings(self) -> Mapping[str, object]:
        return self._choice.settings

    @property
    def size(self) -> int:
        return self._choice.size

    @property
    def devices(self) -> Sequence[str]:
        return self._choice.devices

    @property
    def chunk(self) -> int:
        return max(CHUNK, self._batch)

    def on(self, device: str) -> "DiffusersSource":
        here = copy.copy(self)
        here._choice = self._choice.on(device)
        here.encoded = 0
        return here

    # ------------------------------------------------------------ what it does

    def estimate(self, requests: Sequence[ImageRequest]) -> Sequence[str]:
        self._check(requests)
        return estimating.lines(self._choice.recipes, self._texts, requests, self.devices)

    def arrange(self, requests: Sequence[ImageRequest]) -> Sequence[ImageRequest]:
        """Those whose embeddings have one shape side by side: only these are drawn together."""
        kinds: dict[object, int] = {}
        places = [kinds.setdefault(self._kind(request), len(kinds)) for request in requests]
        return [requests[i] for i in sorted(range(len(requests)), key=places.__getitem__)]

    def prepare(self, requests: Sequence[ImageRequest]) -> None:
        """Encode the texts that are not in the cache, each alone and each once."""
        self._check(requests)
        for own, texts in zip(self._choice.recipes, self._texts, strict=True):
            pairs = [own.pair(request) for request in requests if request.prompt]
            missing = [] if texts.misfit else texts.missing(pairs)
            if missing:
                self.release()  # text encoders and denoisers are never loaded at the same time
                from isekai.sources.diffusers import stages

                self._kinds.clear()
                stages.use(self._threads)
                where = self._choice.text_device
                size = requests[0].size
                self.encoded += stages.encode(own, texts, missing, size=size, device=where)

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Picture | Rejected]:
        """In batches of what fits and pays; see `isekai.sources.diffusers.batching`."""
        self.prepare(requests)
        start = 0
        while start < len(requests):
            if requests[start].prompt:
                drawn = self._drawn(self._alike(requests, start))
            else:
                told = f"{requests[start].concept.id} has no prompt to draw from"
                drawn = [Rejected(told)]
            yield from drawn
            start += len(drawn)
        self._keep_speeds()

    def _alike(self, requests: Sequence[ImageRequest], start: int) -> Sequence[ImageRequest]:
        """Those that can be drawn together, from `start` on."""
        kind = self._kind(requests[start])
        most = self._pace.size if self._pace else self._batch or 1
        rest = islice(requests, start, start + most)
        return list(takewhile(lambda request: self._kind(request) == kind, rest))

    def _drawn(self, alike: Sequence[ImageRequest]) -> list[Picture | Rejected]:
        """The first of these; none if memory ran out: then fewer are drawn from now on."""
        painter, pace = self._ready(alike)
        batch = alike[: pace.size]
        started = time.perf_counter()
        try:
            pictures = painter.paint(batch)
        except Gone:
            self.prepare(batch)  # which finds it missing now
            return []
        except Exception as error:
            if not batching.is_out_of_memory(error):
                raise
            told = pace.ran_out(len(batch))
        else:
            seconds = time.perf_counter() - started
            pace.took(len(batch), seconds)
            size, each = batch[0].size, seconds / len(batch)
            self._fastest[size] = min(each, self._fastest.get(size, each))
            return pictures
        progress.tell(told)  # here, where the error holds on to nothing any more
        painter.recover()
        return []

    # ------------------------------------------------------------ what it needs for that

    @cached_property
    def _shelf(self) -> Shelf:
        """A folder that is shared by all copies, if only for as long as this process lives."""
        if self._cache is not False:
            return Shelf(usual() if self._cache is True else self._cache)
        passing = Shelf(Path(mkdtemp(prefix="isekai-embeddings-")))
        weakref.finalize(passing, shutil.rmtree, passing.folder, ignore_errors=True)
        return passing

    @cached_property
    def _texts(self) -> list[Texts]:
        """Those of the model and, if there is one, of the refiner."""
        return [
            Texts(shelf=self._shelf, identity=own.identity(), guidance=own.preset.guidance)
            for own in self._choice.recipes
        ]

    def _ready(self, batch: Sequence[ImageRequest]) -> "tuple[Painter, batching.Pace]":
        """What draws, loaded, and how many it draws at a time."""
        if self._painter is None or self._pace is None:
            from isekai.sources.diffusers import stages

            stages.use(self._threads)
            plan = self._choice.plan(batch[0].size)
            self._pace = self._pace or batching.Pace(limit=plan.batch_limit, fixed=self._batch)
            self._painter = stages.painter(
                self._choice.recipes, self._texts, plan, scored=self._safety
            )
        return self._painter, self._pace

    def _keep_speeds(self) -> None:
        for size, seconds in self._fastest.items():
            speeds.keep(
                speeds.Speed(
                    model=self.revision,
                    device=devices.called(self.devices[0]),
                    size=size,
                    steps=self._choice.preset.steps,
                    seconds=seconds,
                )
            )

    def release(self) -> None:
        painter, self._painter = self._painter, None
        if painter:
            painter.close()

    def _kind(self, request: ImageRequest) -> object:
        """Equal for what can be drawn together."""
        own = request.prompt, request.concept.negative_prompt, request.size
        if own in self._kinds:
            return self._kinds[own]
        pairs = [each.pair(request) for each in self._choice.recipes]
        shapes = [texts.shape(pair) for texts, pair in zip(self._texts, pairs, strict=True)]
        kind = (not request.prompt, request.size, pairs[0].negative is None, *shapes)
        if None not in shapes:  # an embedding that isn't there yet may come
            self._kinds[own] = kind
        return kind

    def _check(self, requests: Sequence[ImageRequest]) -> None:
        for size in dict.fromkeys(request.size for request in requests):
            sizes.check(self._choice.origin, size)
