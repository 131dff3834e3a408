"""Makes of a picture what LCL's vision tower was trained on: a white square, then CLIP's values."""

from collections.abc import Sequence

import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

WHITE = (255, 255, 255)


def square(image: Image.Image) -> Image.Image:
    """The picture in the middle of a white square as wide as its longer side, rounded up-left.

    Transparency is dropped, not laid on white: `isekai.images.decode` does that before.
    """
    rgb = image.convert("RGB")
    side = max(rgb.size)
    whole = Image.new("RGB", (side, side), WHITE)
    width, height = rgb.size
    whole.paste(rgb, ((side - width) // 2, (side - height) // 2))
    return whole


def pixels(images: Sequence[Image.Image], side: int) -> torch.Tensor:
    """[N, 3, side, side] float32, by Pillow's bicubic filter on eight bits, the same everywhere."""
    see = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    seen: torch.Tensor = see([square(image) for image in images], return_tensors="pt")[
        "pixel_values"
    ]
    return seen
