"""Gated cross-attention in front of a decoder's layers, and what each token of a call looks at."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from model_adapters.flamingo.resampler import feed_forward, join, split
from model_adapters.flamingo.sizes import Sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """The pictures of a call, and which of them each of its tokens sees."""

    media: Tensor
    """[rows, pictures, latents, width], from the resampler."""
    index: Tensor
    """[rows, tokens]: the picture that a token sees, counted from 0; -1 for none."""
    projected: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Layer -> keys and values of the pictures, made once for all calls that share them."""

    def then(self, index: Tensor) -> "Sight":
        """The same pictures for a call with other tokens."""
        return Sight(media=self.media, index=index, projected=self.projected)


def last_seen(tokens: Tensor, image: int, pictures: int) -> Tensor:
    """[rows, tokens]: the picture whose mark stands last before or at each token; -1 for none.

    ValueError where a row holds more marks than pictures: upstream lets what follows such a mark
    look at an average of all of them.
    """
    index = (tokens == image).cumsum(dim=-1) - 1
    if index.numel() and int(index.max()) >= pictures:
        raise ValueError(f"a row marks {int(index.max()) + 1} pictures and has {pictures}")
    return index


class GatedCross(nn.Module):
    """Adds to each token what it makes of the one picture that it sees, then a feed-forward.

    Parameters are named as in OpenFlamingo's checkpoints.
    """

    def __init__(self, width: int, media_width: int, sizes: Sizes) -> None:
        super().__init__()
        self.attn = _Looking(width, media_width, sizes)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(width, sizes.grown)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, hidden: Tensor, sight: Sight, layer: int) -> Tensor:
        hidden = hidden + self.attn(hidden, sight, layer) * self.attn_gate.tanh()
        onwards: Tensor = self.ff(hidden) * self.ff_gate.tanh()
        return hidden + onwards


class _Looking(nn.Module):
    def __init__(self, width: int, media_width: int, sizes: Sizes) -> None:
        super().__init__()
        inner = sizes.heads * sizes.head_width
        self.heads = sizes.heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(media_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, hidden: Tensor, sight: Sight, layer: int) -> Tensor:
        if not sight.media.shape[1]:
            return torch.zeros_like(hidden)
        pictures, latents = sight.media.shape[1:3]
        if layer not in sight.projected:
            keys, values = self.to_kv(sight.media.flatten(1, 2)).chunk(2, dim=-1)
            sight.projected[layer] = split(keys, self.heads), split(values, self.heads)
        keys, values = sight.projected[layer]
        place = torch.arange(pictures, device=hidden.device).repeat_interleave(latents)
        blind = (sight.index < 0)[..., None]
        # A token that sees nothing may look anywhere here: a row that is masked everywhere has no
        # softmax. What it found is put to zero below.
        seen = (sight.index[..., None] == place) | blind
        query = split(self.to_q(self.norm(hidden)), self.heads)
        told = scaled_dot_product_attention(query, keys, values, attn_mask=seen[:, None])
        out: Tensor = self.to_out(join(told).masked_fill(blind, 0.0))
        return out


_sight: ContextVar[Sight | None] = ContextVar("sight", default=None)


@contextmanager
def seeing(sight: Sight) -> Iterator[None]:
    """What the decoder is called with in here looks at these pictures, in this thread alone."""
    token = _sight.set(sight)
    try:
        yield
    finally:
        _sight.reset(token)


def insert(layers: nn.ModuleList, crossings: Mapping[int, GatedCross]) -> None:
    """Let each crossing run in front of the decoder layer of its number."""
    for number, crossing in crossings.items():
        layers[number].register_forward_pre_hook(
            partial(_cross, crossing, number), with_kwargs=True
        )


def _cross(
    crossing: GatedCross, number: int, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    sight = _sight.get()
    if sight is None:
        raise RuntimeError("a Flamingo's decoder was called without `seeing`")
    return (crossing(args[0], sight, number), *args[1:]), kwargs
