"""A Flamingo as the runtime of local models sees it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from isekai.images import decode
from isekai.types import EncodedImage, Sweep
from model_adapters.flamingo import looking
from model_adapters.flamingo.crossing import Sight, seeing
from model_adapters.flamingo.model import Flamingo
from model_adapters.flamingo.prompts import Prompts
from model_adapters.runtime.seam import Look, Piece, Pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class FlamingoDecoder:
    """`blind` is Otter's fault: tokens of its own answer see no picture."""

    network: Flamingo
    prompts: Prompts
    corner: looking.Corner
    blind: bool = False

    @property
    def model(self) -> PreTrainedModel:
        model: PreTrainedModel = self.network.decoder
        return model

    @property
    def context(self) -> int | None:
        config = self.model.config
        longest: int = (
            config.max_seq_len if hasattr(config, "max_seq_len") else config.max_position_embeddings
        )
        return longest

    @property
    def stops(self) -> frozenset[int]:
        return self.prompts.words.stops

    @property
    def barred(self) -> frozenset[int]:
        """A mark in an answer would begin a picture that isn't there."""
        return frozenset({self.prompts.words.image})

    def pieces(self, sweep: Sweep) -> Pieces:
        return self.prompts.pieces(sweep)

    @torch.inference_mode()
    def encode(self, images: Sequence[EncodedImage]) -> Sequence[Tensor]:
        """[latents, width] each."""
        shown = [decode(image.data) for image in images]
        return list(self.network.encode(looking.pixels(shown, self.network.side, self.corner)))

    def embed(self, piece: Piece, features: Sequence[Tensor]) -> Tensor:
        table = self.model.get_input_embeddings()
        told: Tensor = table(torch.tensor(piece.ids, device=self.network.device))
        return told

    def text(self, ids: Sequence[int]) -> str:
        return self.prompts.words.text(ids).strip()

    def looking(self, look: Look) -> AbstractContextManager[None]:
        index = look.index.masked_fill(look.generated, -1) if self.blind else look.index
        return seeing(Sight(media=look.media, index=index))
