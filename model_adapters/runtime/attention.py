"""Cascade attention: densely to a prefix that all rows share, by a mask inside each row's branch.

The two parts are softmaxes over two sets of keys. Merged by their log-sum-exp they are exactly the
softmax over both (Juravsky et al., "Hydragen", arXiv:2402.05099). The prefix is read once for all
rows, and no mask has its width.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from model_adapters.runtime.stores import Store

SCORES = 1 << 26
"""Scores that are written out at a time: 256 MiB."""


class Unsupported(Exception):
    """The model attends in a way that the cascade doesn't reproduce; the text says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What the tokens of one forward attend to, whatever the layer."""

    positions: Tensor
    """[rows, tokens], along the first axis."""
    prefix: Store | None = None
    """One row that every token of every row sees."""
    branch: Store | None = None
    """What each row has read before; always together with a mask."""
    mask: Tensor | None = None
    """[rows or 1, 1, tokens, tokens of the branch + tokens], True where a token sees another; None
    for every token and those before it."""
    record: Store | None = None
    """Where the tokens' own keys and values are kept."""
    recorded: int | None = None
    """So many of the first tokens are; None for all."""


_current: ContextVar[Frame | None] = ContextVar("frame", default=None)


def current() -> Frame | None:
    """The frame of the forward under way; None outside of the runtime's."""
    return _current.get()


@contextmanager
def framed(frame: Frame) -> Iterator[None]:
    """Forwards inside attend to this frame."""
    token = _current.set(frame)
    try:
        yield
    finally:
        _current.reset(token)


def cascade(
    frame: Frame,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    slopes: Tensor | None = None,
) -> Tensor:
    """[rows, tokens, heads, width] from new tokens' [rows, heads, tokens, width].

    `key` and `value` may have fewer heads: each serves as many neighbouring heads of `query`.
    `slopes`, [heads], is what a score gains for every position that a key lies nearer (ALiBi).
    """
    keys, values = key, value
    if frame.branch is not None and frame.branch.length:
        kept, held = frame.branch.read(layer)
        keys, values = torch.cat([kept, key], dim=2), torch.cat([held, value], dim=2)
    bias = _bias(frame, query, keys.shape[2], slopes)
    own, weight = attend(query, *_repeated(query, keys, values), bias, bias is None, scale)
    if frame.prefix is not None and frame.prefix.length:
        shared, mass = _shared(frame, frame.prefix, layer, query, scale, slopes)
        share = torch.sigmoid(mass.float() - weight.float()).to(own.dtype)
        own = torch.lerp(own, shared, share.unsqueeze(-1))
    if frame.record is not None:
        frame.record.write(layer, key[:, :, : frame.recorded], value[:, :, : frame.recorded])
    return own.transpose(1, 2)


def _shared(
    frame: Frame, prefix: Store, layer: int, query: Tensor, scale: float, slopes: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All rows as one against the prefix: what `attend` gives, for the rows again."""
    keys, values = prefix.read(layer)
    rows, heads, tokens, width = query.shape
    groups = keys.shape[1]
    each = heads // groups
    packed = query.transpose(1, 2).reshape(1, rows * tokens, groups, each, width)
    packed = packed.transpose(1, 2).reshape(1, groups, rows * tokens * each, width)
    bias = None
    if slopes is not None:
        assert each == 1, "a bias by distance has a slope for every head of the keys"
        bias = _distance(prefix.positions, frame, slopes, query)
        bias = bias.expand(1, heads, packed.shape[2], prefix.length)
    out, mass = attend(packed, keys, values, bias, False, scale)
    out = out.reshape(groups, rows, tokens, each, -1).permute(1, 0, 3, 2, 4)
    mass = mass.reshape(groups, rows, tokens, each).permute(1, 0, 3, 2)
    return out.reshape(rows, heads, tokens, -1), mass.reshape(rows, heads, tokens)


def _bias(frame: Frame, query: Tensor, width: int, slopes: Tensor | None) -> Tensor | None:
    """[rows, heads or 1, tokens, width] to add to the branch's scores; None for plainly causal."""
    rows, heads, tokens, _ = query.shape
    if frame.mask is None and slopes is None:
        return None
    seen = frame.mask
    if seen is None:
        seen = torch.ones((1, 1, tokens, width), dtype=torch.bool, device=query.device).tril()
    nothing = torch.zeros((), dtype=query.dtype, device=query.device)
    if slopes is None:
        bias = torch.where(seen.to(query.device), nothing, -torch.inf)
        return bias.expand(rows, -1, -1, -1)
    positions = frame.positions
    if frame.branch is not None and frame.branch.length:
        positions = torch.cat([frame.branch.positions, positions], dim=1)
    distance = _distance(positions, frame, slopes, query)
    bias = torch.where(seen.to(query.device), distance, -torch.inf)
    return bias.expand(rows, heads, -1, -1)


def _distance(positions: Tensor, frame: Frame, slopes: Tensor, like: Tensor) -> Tensor:
    """[rows, heads, 1, keys]. Only differences count: all keys of a forward share the zero."""
    zero = frame.positions.min()
    lifted = (positions - zero).to(like.device)[:, None, None, :] * slopes[None, :, None, None]
    return lifted.to(like.dtype)


def _repeated(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    each = query.shape[1] // key.shape[1]
    if each == 1:
        return key, value
    return key.repeat_interleave(each, dim=1), value.repeat_interleave(each, dim=1)


def attend(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Attention, and the log-sum-exp of each query's scores, [rows, heads, tokens].

    torch's own `scaled_dot_product_attention` doesn't give the latter away; the kernels below it
    do. Where there is none that takes what is given, the scores are written out.
    """
    same = query.shape[-1] == value.shape[-1]
    kernels: Any = torch.ops.aten
    if query.device.type == "cpu" and same:
        out, mass = kernels._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=bias, scale=scale
        )
        return out, mass
    if query.device.type == "cuda" and same and bias is None and _flashes(query):
        out, mass, *_ = kernels._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scale
        )
        return out, mass
    if causal:
        before = torch.ones(2 * (query.shape[2],), dtype=torch.bool, device=query.device).tril()
        bias = torch.zeros_like(before, dtype=query.dtype).masked_fill(~before, -torch.inf)
        bias = bias.expand(*query.shape[:2], -1, -1)
    return written_out(query, key, value, bias, scale)


def _flashes(query: Tensor) -> bool:
    """What the flash kernel takes on a GPU."""
    return query.dtype != torch.float32 and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256


def written_out(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The same by the formula, for so many queries at a time that scores stay below `SCORES`."""
    rows, heads, tokens, _ = query.shape
    step = max(1, SCORES // (rows * heads * key.shape[2]))
    outs, masses = [], []
    for start in range(0, tokens, step):
        part = slice(start, start + step)
        scores = (query[:, :, part] @ key.transpose(-1, -2)).float() * scale
        if bias is not None:
            scores += bias[:, :, part]
        mass = scores.logsumexp(dim=-1)
        outs.append((scores - mass.unsqueeze(-1)).exp().to(value.dtype) @ value)
        masses.append(mass)
    return torch.cat(outs, dim=2), torch.cat(masses, dim=2)
