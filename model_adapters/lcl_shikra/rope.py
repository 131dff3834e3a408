"""The released evaluation's positions beyond 2048 tokens, which half precision damages.

It cast the frequencies of the rotary embedding to 16 bits. The table that the model is made with,
of 2048 positions, was computed before and is right. A longer sequence has the table made anew:
positions and their angles as 16-bit numbers, of which neighbouring ones are the same. The paper's
results for 8 and 16 support images were measured so.
"""

import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding


class HalfRotary(nn.Module):
    """Stands in the place of a LLaMA's rotary embedding."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.right = LlamaRotaryEmbedding(config)
        self.reach: int = config.max_position_embeddings
        """Tokens up to which the table is right."""
        self.damaged = False
        """Whether the sequence at hand is longer. In the released code one such damages all that
        come after it; runs were of one shot count each, so that all were longer, or none."""

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [rows, tokens, width of a head], in the type of `x`."""
        if not self.damaged:
            cos, sin = self.right(x, position_ids)
            return cos, sin
        angles = position_ids[..., None].half() * self.right.inv_freq.half()
        both = torch.cat((angles, angles), dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)
