"""Draws with diffusion models: any text-to-image repository or folder in the diffusers layout.

There are two phases, so that text encoders never share memory with what denoises: `prepare` encodes
each distinct text once and keeps the embeddings on disk, `draw` loads the rest of the model. The
noise of an image comes from its own seed alone and is the same to the bit whatever the batch, the
order, the worker or the device. What is computed from it may differ in the last bits.
"""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from isekai import progress
from isekai.errors import IsekaiError
from isekai.protocols import Picture, Rejected
from isekai.sources.diffusers import batching, estimating, lora, memory, origin, presets, recipe
from isekai.sources.diffusers.embedding_cache import Shelf, usual
from isekai.sources.diffusers.recipe import Recipe
from isekai.sources.diffusers.texts import Texts
from isekai.types import ImageRequest

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
        self._preset = presets.resolve(model, **own)
        self._asked = frozenset(key for key, value in own.items() if value is not None)
        self._lora = lora
        self._memory_options = {
            "profile": memory,
            "offload": offload,
            "quantise": quantise,
            "tiling": tiling,
            "compile": compile,
        }
        self._batch = batch
        self._given_devices = devices
        self._safety = safety == "score"
        self._threads = threads
        self._trust = trust_remote_code
        folder = cache if isinstance(cache, Path) else usual()
        self._shelf = Shelf(None if cache is False else folder)
        self._pace: batching.Pace | None = None
        self._painter: Painter | None = None
        self.encoded = 0
        """Texts that this object has encoded."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_painter": None, "_pace": None}

    # ------------------------------------------------------------ what it is

    @property
    def model(self) -> str:
        return self._recipe.name

    @cached_property
    def revision(self) -> str:
        return self._origin.revision

    @cached_property
    def settings(self) -> Mapping[str, object]:
        settings = {**self._recipe.settings(), "packages": recipe.versions()}
        if self._refiner:
            settings["refiner"] = {
                "model": self._refiner.name,
                "revision": self._refiner.origin.revision,
                "switch": self._preset.switch,
            }
        return settings

    @cached_property
    def size(self) -> int:
        return self._preset.size or recipe.usual_size(self._recipe)

    @cached_property
    def devices(self) -> Sequence[str]:
        if self._given_devices == "cpu":
            return ("cpu",)
        from isekai.sources.diffusers import placing

        return placing.devices(self._given_devices)

    @property
    def chunk(self) -> int:
        return max(CHUNK, self._batch)

    def on(self, device: str) -> "DiffusersSource":
        here = copy.copy(self)
        here.__dict__.update(_given_devices=device, devices=(device,), encoded=0)
        return here

    # ------------------------------------------------------------ what it does

    def estimate(self, requests: Sequence[ImageRequest]) -> Sequence[str]:
        self._check(requests)
        return estimating.lines(self._recipes, self._texts, requests, self.devices)

    def arrange(self, requests: Sequence[ImageRequest]) -> Sequence[ImageRequest]:
        """Those whose embeddings have one shape side by side: only these are drawn together."""
        kinds: dict[object, int] = {}
        places = [kinds.setdefault(self._kind(request), len(kinds)) for request in requests]
        return [requests[i] for i in sorted(range(len(requests)), key=places.__getitem__)]

    def prepare(self, requests: Sequence[ImageRequest]) -> None:
        """Encode the texts that are not in the cache, each alone and each once."""
        self._check(requests)
        for own, texts in zip(self._recipes, self._texts, strict=True):
            pairs = [own.pair(request) for request in requests if request.prompt]
            missing = [] if texts.misfit(pairs) else texts.missing(pairs)
            if missing:
                self._let_go()
                from isekai.sources.diffusers import stages

                device = self._memory.text_device
                self.encoded += stages.encode(own, texts, missing, device)

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Picture | Rejected]:
        """In batches of what fits and pays; see `isekai.sources.diffusers.batching`."""
        self.prepare(requests)
        start = 0
        while start < len(requests):
            kind = self._kind(requests[start])
            rest = islice(requests, start, start + self._paced.size)
            batch = list(takewhile(lambda request, kind=kind: self._kind(request) == kind, rest))  # type: ignore[misc]
            drawn = self._drawn(batch) if batch[0].prompt else [_no_prompt(r) for r in batch]
            yield from drawn
            start += len(drawn)

    def _drawn(self, batch: Sequence[ImageRequest]) -> list[Picture | Rejected]:
        """The pictures; none if memory ran out: then fewer are drawn at a time from now on."""
        painter = self._painting(batch)
        started = time.perf_counter()
        try:
            pictures = painter.paint(batch)
        except Exception as error:
            if not batching.is_out_of_memory(error):
                raise
            told = self._paced.ran_out(len(batch))
        else:
            self._paced.took(len(batch), time.perf_counter() - started)
            return pictures
        progress.tell(told)
        painter.recover()
        return []

    # ------------------------------------------------------------ what it needs for that

    @cached_property
    def _origin(self) -> origin.Origin:
        return self._found(self._preset)

    @cached_property
    def _memory(self) -> memory.Memory:
        return memory.plan(dtype=self._preset.dtype)

    @cached_property
    def _recipe(self) -> Recipe:
        plan = self._memory
        return Recipe(
            preset=self._preset,
            origin=self._origin,
            dtype=plan.dtype,
            quantise=plan.quantise,
            tiled=plan.vae_tiling,
            lora=lora.find(self._lora) if self._lora else None,
            trust_remote_code=self._trust,
            asked=self._asked,
        )

    @cached_property
    def _refiner(self) -> Recipe | None:
        """The model that draws the last steps; it is run as the first one is."""
        if not self._preset.refiner:
            return None
        named = presets.resolve(self._preset.refiner)
        own = replace(self._preset, repo=named.repo, revision=named.revision, refiner="")
        return replace(self._recipe, preset=own, origin=self._found(own), lora=None)

    def _found(self, preset: presets.Preset) -> origin.Origin:
        return origin.find(
            preset.repo,
            preset.revision,
            variant=preset.variant,
            trust_remote_code=self._trust,
        )

    @property
    def _recipes(self) -> list[Recipe]:
        return [self._recipe, *([self._refiner] if self._refiner else [])]

    @cached_property
    def _texts(self) -> list[Texts]:
        """Those of the model and, if there is one, of the refiner."""
        return [
            Texts(shelf=self._shelf, identity=own.identity(), guidance=own.preset.guidance)
            for own in self._recipes
        ]

    @property
    def _paced(self) -> batching.Pace:
        if self._pace is None:
            self._pace = batching.Pace(limit=self._memory.batch_limit, fixed=self._batch)
        return self._pace

    def _painting(self, batch: Sequence[ImageRequest]) -> "Painter":
        if self._painter is None:
            from isekai.sources.diffusers import stages

            pairs = [[own.pair(request) for request in batch] for own in self._recipes]
            self._painter = stages.painter(
                self._recipes,
                self._texts,
                pairs,
                self._memory,
                self.devices[0],
                scored=self._safety,
            )
        return self._painter

    def _let_go(self) -> None:
        """Text encoders and denoisers are never loaded at the same time."""
        painter, self._painter = self._painter, None
        if painter:
            painter.close()

    def _kind(self, request: ImageRequest) -> object:
        """Equal for what can be drawn together."""
        pairs = [own.pair(request) for own in self._recipes]
        shapes = [texts.shape(pair) for texts, pair in zip(self._texts, pairs, strict=True)]
        return bool(request.prompt), request.size, pairs[0].negative is None, *shapes

    def _check(self, requests: Sequence[ImageRequest]) -> None:
        for size in dict.fromkeys(request.size for request in requests):
            recipe.check_size(self._recipe, size)


def _no_prompt(request: ImageRequest) -> Rejected:
    return Rejected(f"{request.concept.id} has no prompt to draw from")
