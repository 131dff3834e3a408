"""Where the noise of an image comes from: its seed alone, whatever the batch, order or device."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from isekai.errors import IsekaiError


def generators(seeds: Sequence[int]) -> list[Any]:
    """One for each image, on the CPU: those of GPUs give other numbers on other models of GPU."""
    import torch

    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@contextmanager
def governed(scheduler: Any, own: Sequence[Any]) -> Iterator[None]:
    """Let a scheduler that adds noise at each step take it from the images' generators.

    Not all pipelines hand them on, and the noise would come from the global one.
    """
    step = getattr(scheduler, "step", None)
    if step is None or "generator" not in inspect.signature(step).parameters:
        yield
        return

    @wraps(step)
    def seeded(*args: Any, generator: Any = None, **given: Any) -> Any:
        return step(*args, generator=generator or list(own), **given)

    scheduler.step = seeded
    try:
        yield
    finally:
        del scheduler.step


@contextmanager
def nothing_unseeded(device: Any, what: str) -> Iterator[None]:
    """IsekaiError if numbers were drawn that no image's seed decides."""
    before = _global_states(device)
    yield
    if _global_states(device) != before:
        raise IsekaiError(
            f"{what} draws noise that no image's seed decides, so no picture could be drawn again; "
            "take another scheduler with -o scheduler=NAME"
        )


def _global_states(device: Any) -> list[bytes]:
    import torch

    states = [torch.get_rng_state()]
    if torch.device(device).type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return [state.numpy().tobytes() for state in states]
