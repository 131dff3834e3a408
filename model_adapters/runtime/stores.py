"""Keys and values that are kept: of the prefix, once, or of what each query's branch has read."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Store:
    """The keys and values of every layer, [rows, heads, tokens, width] each.

    There is `room` for so many tokens at first, and more is made when it is needed. Layers are
    filled one after another during a forward; `length` says how many tokens all of them hold, and
    is set by whoever ran it. What lies behind is overwritten.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.length = 0
        self._positions: Tensor | None = None
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        keys, values = self._kept[layer]
        return keys[:, :, : self.length], values[:, :, : self.length]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Behind the `length` tokens that are there."""
        end = self.length + keys.shape[2]
        held = self._kept.get(layer, (None, None))
        places = (
            _with_room(held[0], keys, end, self._room),
            _with_room(held[1], values, end, self._room),
        )
        for place, new in zip(places, (keys, values), strict=True):
            place[:, :, self.length : end] = new
        self._kept[layer] = places

    @property
    def positions(self) -> Tensor:
        """[rows, length], along the first axis; for biases by distance."""
        assert self._positions is not None
        return self._positions[:, : self.length]

    def place(self, positions: Tensor) -> None:
        """Note the positions, [rows, tokens], of what is about to be written."""
        before = positions[:, :0] if self._positions is None else self.positions
        self._positions = torch.cat([before, positions], dim=1)

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all other rows."""
        for layer, (keys, values) in self._kept.items():
            self._kept[layer] = keys[list(rows)], values[list(rows)]
        if self._positions is not None:
            self._positions = self._positions[list(rows)]


def _with_room(kept: Tensor | None, like: Tensor, end: int, room: int) -> Tensor:
    """What is kept, in a tensor with room for `end` tokens, and for half as many more."""
    if kept is not None and kept.shape[2] >= end:
        return kept
    length = max(room, end if kept is None else end + end // 2)
    made = like.new_empty((*like.shape[:2], length, like.shape[3]))
    if kept is not None:
        made[:, :, : kept.shape[2]] = kept
    return made
