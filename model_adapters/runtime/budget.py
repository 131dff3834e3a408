"""How many tokens a forward may hold: planned from the memory there is, halved when it runs out."""

import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from isekai.errors import IsekaiError

T = TypeVar("T")

ON_CPU = 2048
"""Tokens of a forward on a CPU: more are no faster there and take more memory."""

MOST = 65_536
"""Tokens of a forward on a GPU at most: more are no faster there."""

_SHARE = 0.6
"""Of a device's free memory, for what one forward holds beside the prefix."""


class Budget:
    """Tokens of one forward. It starts at what fits and only ever gets smaller."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def rows(self, width: int) -> int:
        """How many rows of so many tokens a forward takes; at least one."""
        return max(1, self.tokens // max(1, width))

    def halve(self, held: int) -> None:
        """After memory ran out over so many tokens, of which a part can be left out."""
        self.tokens = max(1, min(self.tokens, held) // 2)
        if torch.cuda.is_available():
            gc.collect()
            torch.cuda.empty_cache()


def planned(model: PreTrainedModel, prefix: int) -> Budget:
    """What fits beside the weights and the keys and values of a prefix of so many tokens."""
    if model.device.type != "cuda":
        return Budget(ON_CPU)
    free, _ = torch.cuda.mem_get_info(model.device)
    spare = _SHARE * (free - prefix * kept(model))
    return Budget(int(min(MOST, max(1, spare // (kept(model) + _held(model))))))


def kept(model: PreTrainedModel) -> int:
    """Bytes of keys and values a token."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * groups * width * model.dtype.itemsize)


def _held(model: PreTrainedModel) -> int:
    """Bytes that a token takes while a layer works on it, and its logits."""
    config = model.config.get_text_config()
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int((12 * config.hidden_size + 3 * inner) * model.dtype.itemsize + 4 * config.vocab_size)


def ran_out(error: BaseException) -> bool:
    """True for what torch raises when memory is used up, on a device or on the host."""
    told = str(error)
    host = isinstance(error, RuntimeError) and "DefaultCPUAllocator" in told and "memory" in told
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or host


def too_little(what: str) -> IsekaiError:
    return IsekaiError(
        f"memory ran out over {what} alone; take fewer shots, a smaller model, a half-precision "
        "dtype or a device with more memory"
    )


def chunked(
    budget: Budget, count: int, width: int, work: Callable[[slice], T], what: str
) -> Iterator[T]:
    """`work` over all of `count` rows of so many tokens, as many at a time as memory takes."""
    start = 0
    while start < count:
        rows = min(budget.rows(width), count - start)
        try:
            done = [work(slice(start, start + rows))]
        except Exception as error:
            if not ran_out(error):
                raise
            done = []  # what the failed forward held is let go with the error
        if done:
            yield done[0]
            start += rows
        elif rows == 1:
            raise too_little(what)
        else:
            budget.halve(rows * width)
