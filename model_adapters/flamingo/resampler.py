"""The perceiver resampler: a few latent vectors that stand for a picture's patches."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from model_adapters.flamingo.sizes import Sizes


class Resampler(nn.Module):
    """Makes `latents` vectors of each picture's patches, whatever their number.

    Parameters are named as in OpenFlamingo's checkpoints.
    """

    def __init__(self, width: int, sizes: Sizes) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.zeros(sizes.latents, width))
        self.layers = nn.ModuleList(_Layer(width, sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: Tensor) -> Tensor:
        """[pictures, patches, width] -> [pictures, latents, width]; each picture by itself."""
        latents = self.latents.expand(len(patches), -1, -1)
        for layer in self.layers:
            latents = layer(patches, latents)
        normed: Tensor = self.norm(latents)
        return normed


class _Layer(nn.ModuleList):
    """Reading, then a feed-forward; a list, since checkpoints name the two by number."""

    def __init__(self, width: int, sizes: Sizes) -> None:
        super().__init__([_Reading(width, sizes), feed_forward(width, sizes.grown)])

    def forward(self, patches: Tensor, latents: Tensor) -> Tensor:
        reading, onwards = self
        latents = latents + reading(patches, latents)
        told: Tensor = latents + onwards(latents)
        return told


class _Reading(nn.Module):
    """Latents look at the patches and at each other."""

    def __init__(self, width: int, sizes: Sizes) -> None:
        super().__init__()
        inner = sizes.heads * sizes.head_width
        self.heads = sizes.heads
        self.norm_media = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, patches: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm_latents(latents)
        seen = torch.cat([self.norm_media(patches), latents], dim=1)
        keys, values = self.to_kv(seen).chunk(2, dim=-1)
        query = split(self.to_q(latents), self.heads)
        told = scaled_dot_product_attention(
            query, split(keys, self.heads), split(values, self.heads)
        )
        out: Tensor = self.to_out(join(told))
        return out


def feed_forward(width: int, grown: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width),
        nn.Linear(width, grown * width, bias=False),
        nn.GELU(),
        nn.Linear(grown * width, width, bias=False),
    )


def split(vectors: Tensor, heads: int) -> Tensor:
    """[rows, tokens, heads * width] -> [rows, heads, tokens, width]."""
    rows, tokens, _ = vectors.shape
    return vectors.view(rows, tokens, heads, -1).transpose(1, 2)


def join(heads: Tensor) -> Tensor:
    """[rows, heads, tokens, width] -> [rows, tokens, heads * width]."""
    return heads.transpose(1, 2).flatten(2)
