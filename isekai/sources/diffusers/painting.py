"""A model at work on one device: requests in, pictures out, a batch at a time."""

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from isekai.errors import IsekaiError
from isekai.protocols import Picture, Rejected
from isekai.sources.diffusers import calling, loading, noise
from isekai.sources.diffusers.decoding import Decoder
from isekai.sources.diffusers.reading import Reader
from isekai.sources.diffusers.recipe import Recipe
from isekai.sources.diffusers.safety import Safety
from isekai.sources.diffusers.texts import Pair
from isekai.types import ImageRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pipeline of those that follow each other."""

    recipe: Recipe
    pipeline: Any
    reader: Reader | None
    """None where the pipeline keeps its text encoders and reads the texts itself."""

    def draw(self, pairs: Sequence[Pair], size: int, own: Sequence[Any], **more: Any) -> Any:
        """What the pipeline makes of a batch: pixels from 0 to 1, or latents if asked for."""
        if self.reader:
            self.reader.begin(pairs)
        given = calling.arguments(self.pipeline, self.recipe, pairs, size) | more
        with noise.governed(self.pipeline.scheduler, own), calling.explained(self.pipeline):
            images = self.pipeline(generator=list(own), **given).images
        return images if isinstance(images, torch.Tensor) else _pixels(images)


class Painter:
    """Loaded once and kept: the denoisers, the decoder and the safety checker of one device."""

    def __init__(
        self,
        stages: Sequence[Stage],
        device: Any,
        *,
        safety: Safety | None = None,
        made: Mapping[str, object],
        seeded: bool = True,
    ) -> None:
        """`made` is recorded with each picture. `seeded`: see to it that no noise is unseeded."""
        self.stages = stages
        self._device = device
        self._safety = safety
        self._made = made
        self._unchecked = seeded
        vae = getattr(stages[-1].pipeline, "vae", None)
        self._decoder = Decoder(vae) if hasattr(vae, "decode") else None
        self._lost = 0
        """Batches drawn so far, as long as none of their pictures was finite."""

    def paint(self, requests: Sequence[ImageRequest]) -> list[Picture | Rejected]:
        """All of one size, alike in shape; raises what `is_out_of_memory` knows."""
        started = time.perf_counter()
        if self._decoder:
            self._decoder.begin()
        with torch.no_grad():
            pixels = self._pixels(requests)
            finite = self._finite(pixels, len(requests))
            bytes_ = (pixels.float() * 255).round().nan_to_num(0).to(torch.uint8)
            images = _images(bytes_.permute(0, 2, 3, 1).contiguous().cpu())
        seconds = time.perf_counter() - started
        self._check(finite, requests[0].size, images[0])
        made = {**self._made, "seconds": round(seconds / len(requests), 4), "batch": len(requests)}
        good = [image for image, is_finite in zip(images, finite, strict=True) if is_finite]
        scores = iter(self._safety.scores(good) if self._safety and good else [{} for _ in good])
        lost = Rejected(f"the picture is not finite in {self._dtype}", again=True)
        return [
            Picture(image, next(scores), {**made, **self._decoded(row)}) if finite[row] else lost
            for row, image in enumerate(images)
        ]

    @property
    def _dtype(self) -> str:
        return self.stages[0].recipe.dtype

    def _decoded(self, row: int) -> dict[str, object]:
        """What there is to record of how the image of a row was decoded."""
        again = self._decoder.again if self._decoder else []
        return {"decoder": "float32"} if any(again[row : row + 1]) else {}

    def recover(self) -> None:
        """Give back the memory of a batch that failed."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def close(self) -> None:
        for part in self.stages:
            loading.free(part.pipeline)
        self._decoder = self._safety = None
        self.recover()

    def _pixels(self, requests: Sequence[ImageRequest]) -> Any:
        """[N, 3, H, W] from 0 to 1."""
        own = noise.generators([request.seed for request in requests])
        if not self._unchecked:
            return self._drawn(requests, own)
        with noise.nothing_unseeded(self._device, type(self.stages[0].pipeline.scheduler).__name__):
            pixels = self._drawn(requests, own)
        self._unchecked = False
        return pixels

    def _drawn(self, requests: Sequence[ImageRequest], own: Sequence[Any]) -> Any:
        size, first = requests[0].size, self.stages[0]
        pairs = [[stage.recipe.pair(request) for request in requests] for stage in self.stages]
        if len(self.stages) == 1:
            return first.draw(pairs[0], size, own)
        switch = first.recipe.preset.switch
        latents = first.draw(pairs[0], size, own, output_type="latent", denoising_end=switch)
        return self.stages[1].draw(pairs[1], size, own, image=latents, denoising_start=switch)

    def _finite(self, pixels: Any, count: int) -> list[bool]:
        """Of each image. The decoder has seen infinite values before they were cut off at 1."""
        each: list[bool] = torch.isfinite(pixels).flatten(1).all(dim=1).tolist()
        if self._decoder and len(self._decoder.finite) == count:
            return [a and b for a, b in zip(each, self._decoder.finite, strict=True)]
        return each

    def _check(self, finite: Sequence[bool], size: int, image: Image.Image) -> None:
        if image.size != (size, size):
            raise IsekaiError(
                f"{type(self.stages[0].pipeline).__name__} drew {image.width}x{image.height} "
                f"pixels where {size} were asked for; take another --size"
            )
        if any(finite) or self._lost < 0:
            self._lost = -1
            return
        self._lost += 1
        if self._lost == 2:
            wider = ("bfloat16", "float32") if self._dtype == "float16" else ("float32",)
            what = "try " + " or ".join(f"-o dtype={name}" for name in wider) + ", or "
            raise IsekaiError(
                f"no picture drawn so far is finite in {self._dtype}: "
                f"{'' if self._dtype == 'float32' else what}fetch the model anew"
            )


def _pixels(images: Any) -> torch.Tensor:
    """[N, 3, H, W] of a pipeline that gives pictures or arrays, whatever it is asked for."""
    arrays = [np.asarray(image, np.float32) for image in images]
    scale = 255 if isinstance(images[0], Image.Image) else 1
    return torch.from_numpy(np.stack(arrays) / scale).permute(0, 3, 1, 2)


def _images(pixels: Any) -> list[Image.Image]:
    """RGB images of bytes [N, H, W, 3]."""
    return [Image.fromarray(array) for array in pixels.numpy()]
