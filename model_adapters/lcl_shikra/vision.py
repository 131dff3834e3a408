"""The vision tower: what CLIP makes of each patch one layer before its last, without its norm."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CLIPVisionModel

from isekai.errors import DataError
from model_adapters.flamingo import tower
from model_adapters.flamingo.keys import close
from model_adapters.flamingo.sizes import Sizes


class Vision:
    """CLIP's vision part from a folder in the form of transformers, alone or within a whole CLIP.

    Its weights pass through half precision whatever they are held in, as in the released code.
    """

    def __init__(self, folder: Path, layer: int, dtype: torch.dtype, device: str) -> None:
        """`layer` is a place in CLIP's hidden states: 0 what goes in, -1 what the last puts out."""
        found = _found(folder)
        config = found.config
        states = config.num_hidden_layers + 1
        if not -states <= layer < states:
            raise DataError(
                f"{folder}: has {states} hidden states and the checkpoint asks for number {layer}; "
                "take the tower that the checkpoint was trained with"
            )
        self.side = _whole(folder, config.image_size)
        """Pixels of the pictures it is given."""
        self.width = _whole(folder, config.hidden_size)
        self.patches = (self.side // _whole(folder, config.patch_size)) ** 2
        """Features that it gives a picture."""
        self._layer = layer
        self._tower = _network(found).to(device, dtype)

    def states(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, 1 + patches, width]: the chosen hidden states of [N, 3, side, side] pixels."""
        like = next(self._tower.parameters())
        given = pixels.to(like.device, like.dtype)
        states: torch.Tensor = self._tower(given, output_hidden_states=True).hidden_states[
            self._layer
        ]
        return states

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """[N, patches, width]: those of the patches."""
        return self.states(pixels)[:, 1:]


def _found(folder: Path) -> tower.Tower:
    try:
        return tower.read(folder, Sizes())
    except StrictDataclassError as error:
        told = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"{folder}: no configuration of a CLIP ({told}); get it again") from None


def _network(found: tower.Tower) -> Any:
    network: Any = CLIPVisionModel(found.config)
    tensors = found.checkpoint.take(network, found.spelled)
    close(found.checkpoint)
    network.load_state_dict(tensors)
    return network.half().eval().requires_grad_(False)


def _whole(folder: Path, given: object) -> int:
    """A size in a configuration of transformers, whose types allow for more."""
    if not isinstance(given, int) or given < 1:
        raise DataError(f"{folder}: a tower with the size {given!r}; pictures are square here")
    return given
