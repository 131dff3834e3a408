"""Pictures as the two families see them: OpenAI's recipe for CLIP, with two ways to cut."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Corner = Literal["rounded", "floored"]
"""Which pixel a square begins at where it can't lie in the middle: OpenFlamingo cuts with
torchvision, which rounds half a pixel to the even one, Otter with transformers, which drops it."""

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def pixels(images: Sequence[Image.Image], side: int, corner: Corner) -> Tensor:
    """[images, 3, side, side] float32: the shorter side made `side` long, the middle cut out.

    Bicubic by Pillow, so that the pixels are the same on all machines.
    """
    seen = np.stack([_square(image.convert("RGB"), side, corner) for image in images])
    mean, deviation = (np.array(one, dtype=np.float32) for one in (MEAN, DEVIATION))
    scaled = (seen.astype(np.float32) / np.float32(255) - mean) / deviation
    return torch.from_numpy(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))


def _square(image: Image.Image, side: int, corner: Corner) -> NDArray[np.uint8]:
    short = min(image.size)
    width, height = (side if one == short else int(side * one / short) for one in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (_start(one - side, corner) for one in (width, height))
    return np.asarray(image.crop((left, top, left + side, top + side)))


def _start(spare: int, corner: Corner) -> int:
    return round(spare / 2) if corner == "rounded" else spare // 2
