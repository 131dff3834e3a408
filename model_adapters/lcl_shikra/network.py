"""The language model and its projector, under the names that the checkpoint has for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from isekai.errors import DataError
from model_adapters import local
from model_adapters.flamingo import weights
from model_adapters.flamingo.keys import Checkpoint, Piece, close
from model_adapters.lcl_shikra import config as configuration
from model_adapters.lcl_shikra.pixels import pixels
from model_adapters.lcl_shikra.splice import Splice, splice
from model_adapters.lcl_shikra.tokens import Tokens
from model_adapters.lcl_shikra.vision import Vision

_MADE_ANEW = r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"
"""A buffer that transformers 4.29 saved and newer ones make themselves."""

_PUBLISHED = (1024, 256)
"""Width and number of the features of a picture that the published checkpoints were trained on."""


class Network:
    """LCL-Shikra, loaded: transformers' LLaMA, CLIP's tower, and one linear layer between them."""

    def __init__(
        self, checkpoint: Path, vision_tower: Path, dtype: torch.dtype, device: str
    ) -> None:
        """DataError, a line for each thing that doesn't fit, for what isn't LCL-Shikra's."""
        found = configuration.read(checkpoint)
        self.tokens = Tokens(checkpoint)
        if self.tokens.size != found.vocab_size:
            raise DataError(
                f"{checkpoint}: its tokenizer has {self.tokens.size} tokens and its language model "
                f"{found.vocab_size}; take the files of one checkpoint"
            )
        self.vision = Vision(vision_tower, found.mm_vision_select_layer, dtype, device)
        if self.vision.width != found.mm_hidden_size:
            raise DataError(
                f"{vision_tower}: its features are {self.vision.width} wide and the checkpoint was "
                f"trained on {found.mm_hidden_size}; take the tower that it was trained with, "
                "openai/clip-vit-large-patch14 for the published ones"
            )
        if self.vision.width == _PUBLISHED[0] and self.vision.patches != _PUBLISHED[1]:
            raise DataError(
                f"{vision_tower}: looks at {self.vision.side} pixels and gives "
                f"{self.vision.patches} features a picture; LCL-Shikra was trained on "
                f"{_PUBLISHED[1]}: take openai/clip-vit-large-patch14"
            )
        local.refuse_small(device, bare(found), dtype, configuration.NAME)
        self.decoder: LlamaForCausalLM = _decoder(checkpoint, found, dtype).to(device)

    @property
    def projector(self) -> nn.Linear:
        layer = self.decoder.model.mm_projector
        assert isinstance(layer, nn.Linear)
        return layer

    def look(self, images: Sequence[Any]) -> torch.Tensor:
        """[N, patches, width of the language model], of N pictures of Pillow."""
        with torch.inference_mode():
            seen: torch.Tensor = self.projector(
                self.vision.features(pixels(images, self.vision.side))
            )
        return seen

    def words(self, ids: Sequence[int]) -> torch.Tensor:
        """[T, width]: the embeddings of the ids, whatever stands in the places of pictures."""
        with torch.inference_mode():
            told: torch.Tensor = self.decoder.model.embed_tokens(
                torch.tensor(ids, device=self.decoder.device)
            )
        return told

    def embed(
        self, ids: Sequence[int], features: torch.Tensor, how: Splice = "all"
    ) -> torch.Tensor:
        """[T, width]: what the language model reads, with what `look` gave in its places."""
        return splice(self.words(ids), ids, features, self.tokens.marks, how)


def bare(found: configuration.Config) -> Any:
    """The language model with its projector on the meta device: names and shapes alone."""
    with torch.device("meta"):
        decoder: Any = LlamaForCausalLM(found.decoder)
        decoder.model.mm_projector = nn.Linear(found.mm_hidden_size, found.hidden_size)
    return decoder


def _decoder(folder: Path, found: configuration.Config, dtype: torch.dtype) -> Any:
    decoder = bare(found)
    checkpoint = Checkpoint(where=str(folder), held=weights.of_folder(folder))
    checkpoint.ignore(_MADE_ANEW)
    tensors = checkpoint.take(decoder, lambda name: Piece(key=name))
    close(checkpoint)
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise DataError(
            f"{folder}: '{bad[0]}' ({len(bad)} such in all) holds numbers that are none in "
            f"{dtype}; take dtype=float32, or get it again"
        )
    decoder.load_state_dict(tensors, assign=True)
    decoder.model.rotary_emb = LlamaRotaryEmbedding(decoder.config)
    return decoder.eval().requires_grad_(False)
