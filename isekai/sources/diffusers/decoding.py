"""Sees to it that latents become pixels: a float16 decoder that overflows decodes in float32."""

from typing import Any

import torch


class Decoder:
    """Stands in the place of a VAE's `decode` and looks at what comes out, image by image.

    Some VAEs leave the range of float16 and give black or broken pictures. An image that is lost so
    is decoded once more in float32, alone, so that it depends on nothing but its own latents.
    """

    def __init__(self, vae: Any) -> None:
        self._vae = vae
        self._decode = vae.decode
        self.finite: list[bool] = []
        """Of each image decoded since `begin`, whether its pixels are numbers."""
        self.again: list[bool] = []
        """Whether it took float32."""
        vae.decode = self

    def begin(self) -> None:
        self.finite, self.again = [], []

    def __call__(self, latents: Any, *args: Any, **given: Any) -> Any:
        try:
            answer = self._decode(latents, *args, **given)
            pixels = answer[0]
            finite = _finite(pixels)
            again = [
                not good and self._vae.dtype == torch.float16 and bool(known)
                for good, known in zip(finite, _finite(latents), strict=True)
            ]
            for row in (row for row, due in enumerate(again) if due):
                pixels[row] = self._in_float32(latents[row : row + 1], *args, **given)
                finite[row] = bool(torch.isfinite(pixels[row]).all())
        except torch.OutOfMemoryError as error:  # some pipelines swallow it, and fail later
            raise MemoryError(str(error)) from None
        self.finite += finite
        self.again += again
        return answer

    def _in_float32(self, latents: Any, *args: Any, **given: Any) -> Any:
        self._vae.to(torch.float32)
        try:
            return self._decode(latents.float(), *args, **given)[0][0]
        finally:
            self._vae.to(torch.float16)  # exact: the weights were float16 before


def _finite(batch: Any) -> list[bool]:
    each: list[bool] = torch.isfinite(batch).flatten(1).all(dim=1).tolist()
    return each
