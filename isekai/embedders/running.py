"""What embedders that run a network share: the device, how many at a time, rows of length 1."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from isekai.errors import DataError, PluginError

T = TypeVar("T")

ON_PROCESSOR = 8
"""Pictures at a time on a CPU: enough that weights are not read anew for each.

Images a second on two cores of a busy x86-64 machine, torch 2.14, median of three interleaved
rounds, alone / 8 at a time / 32 / 8 at a time in two threads of one core each: lite0 at 160 px 64,
163, 99, 148; ViT-B-32 7, 11, 15, 14. A few left over are cheap to fill up.
"""

ON_GPU = 64


def device(name: str) -> str:
    """The device of that name; `auto` is a GPU if there is one."""
    here = [kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available()] + ["cpu"]
    if name == "auto":
        return here[0]
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in here:
        raise PluginError(f"no device '{name}' here; there are: {', '.join(here)}")
    return name


def batch(asked: int, device: str, who: str) -> int:
    """How many at a time; 0 is what is usual on the device."""
    if asked < 0:
        raise PluginError(f"{who} takes batch >= 1, or 0 for what is usual, given {asked}")
    return asked or (ON_PROCESSOR if device.startswith("cpu") else ON_GPU)


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def each(prepare: Callable[[Image.Image], T], images: Sequence[Image.Image]) -> list[T]:
    """What `prepare` makes of each image, on all cores: Pillow lets other threads run."""
    if len(images) == 1:
        return [prepare(images[0])]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(prepare, images))


def unit_rows(features: Sequence[torch.Tensor], model: str) -> NDArray[np.float32]:
    """The batches' rows under one another, each of length 1. DataError for what has no length."""
    rows = np.concatenate([some.float().cpu().numpy() for some in features])
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise DataError(f"{model}: its vectors are no numbers, or all zeros; take dtype=float32")
    unit: NDArray[np.float32] = rows / lengths
    return unit
