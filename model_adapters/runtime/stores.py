"""Keys and values that are kept: of the prefix, once, or of what each query's branch has read."""

import torch
from torch import Tensor


class Store:
    """Room for the keys and values of every layer: [rows, heads, room, width] each.

    Layers are filled one after another during a forward; `length` says how many tokens all of them
    hold, and is set by whoever ran it. What lies behind is overwritten.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.length = 0
        self.positions: Tensor | None = None
        """[rows, room] of the tokens, along the first axis; for biases by distance."""
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = self._kept[layer]
        return keys[:, :, : self.length], values[:, :, : self.length]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Behind the `length` tokens that are there."""
        end = self.length + keys.shape[2]
        if layer not in self._kept:
            self._kept[layer] = (_room(keys, self.room), _room(values, self.room))
        for kept, new in zip(self._kept[layer], (keys, values), strict=True):
            kept[:, :, self.length : end] = new

    def place(self, positions: Tensor) -> None:
        """Note the positions, [rows, tokens], of what is about to be written."""
        if self.positions is None:
            self.positions = positions.new_zeros((len(positions), self.room))
        self.positions[:, self.length : self.length + positions.shape[1]] = positions


def _room(like: Tensor, room: int) -> Tensor:
    return torch.empty((*like.shape[:2], room, like.shape[3]), dtype=like.dtype, device=like.device)
