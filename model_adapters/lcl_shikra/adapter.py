"""LCL-Shikra as a model to ask: `LclShikra`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from transformers import PreTrainedModel

from isekai.errors import PluginError
from isekai.images import decode
from isekai.types import EncodedImage, Response, Sweep
from model_adapters import local
from model_adapters.lcl_shikra.asking import Asking
from model_adapters.lcl_shikra.config import NAME
from model_adapters.lcl_shikra.network import Network
from model_adapters.lcl_shikra.rope import HalfRotary
from model_adapters.lcl_shikra.splice import Splice
from model_adapters.lcl_shikra.tokens import EOS
from model_adapters.runtime.running import Choice, Runtime
from model_adapters.runtime.seam import Piece, Pieces

TOWER = "openai/clip-vit-large-patch14"
"""What the published checkpoints were trained with; their configuration holds a dead path."""


class LclShikra:
    """LCL-Shikra from a folder with its checkpoint: `lcl-shikra:FOLDER`.

    checkpoint        a folder with the files of ISEKAI-Portal/LCL_2WAY_WEIGHT or LCL-Mix
    vision_tower      a folder with the files of openai/clip-vit-large-patch14
    splice            all: the model sees every picture, which is what the method means; last: the
                      query's alone, which is what the released code does
    dtype             auto (float16, as released, on a GPU; float32 on a CPU), float16, bfloat16,
                      float32
    device            auto (a GPU if there is one), cpu, cuda, cuda:1
    legacy_fp16_rope  positions of prompts beyond 2048 tokens as the released evaluation damaged
                      them: for the paper's numbers at 8 and 16 support images
    max_tokens        of an answer, as released; 0 for none: the likeliest label is the answer
    rank              whether labels are ranked by their likelihood, too
    way               how queries are asked: auto, packed, batched or recompute; answers are the
                      same up to rounding
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        vision_tower: Path = Path(TOWER),
        splice: Splice = "all",
        dtype: local.DType = "auto",
        device: str = "auto",
        legacy_fp16_rope: bool = False,
        max_tokens: Annotated[int, Field(ge=0)] = 1024,
        rank: bool = True,
        way: Choice = "auto",
    ) -> None:
        """DataError or PluginError, a line for each thing that is wrong, for what can't be had."""
        if not rank and not max_tokens:
            raise PluginError(
                "lcl-shikra: nothing to ask; take rank=true, or max_tokens of at least 1"
            )
        local.there(checkpoint, "the checkpoint")
        local.there(vision_tower, "the vision tower")
        device = local.device(device, NAME)
        dtype = local.dtype(dtype, device, "float16")
        network = Network(checkpoint, vision_tower, getattr(torch, dtype), device)
        self._decoder = _Decoder(network, splice)
        self._rotary = _damageable(network) if legacy_fp16_rope else None
        self._runtime = Runtime(self._decoder, rank=rank, max_tokens=max_tokens, way=way)
        self._told = {
            "model": checkpoint.resolve().name,
            "revision": local.digest([checkpoint]),
            "vision_tower": vision_tower.resolve().name,
            "vision_revision": local.digest([vision_tower]),
            "splice": splice,
            "dtype": dtype,
            "legacy_fp16_rope": legacy_fp16_rope,
            "image_tokens": network.vision.patches,
        }

    @property
    def provenance(self) -> Mapping[str, object]:
        return {**self._told, **self._runtime.settings}

    def probe(self, sweep: Sweep) -> None:
        self._runtime.probe(sweep)

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        if self._rotary is None:
            yield from self._runtime.respond(sweep)
            return
        # A damaged prefix can't be shared with prompts that are short enough to be read right.
        for damaged, cuts in groupby(sweep.cuts, self._longer_than(self._rotary.reach, sweep)):
            self._rotary.damaged = damaged
            yield from self._runtime.respond(replace(sweep, cuts=tuple(cuts)))

    def _longer_than(self, reach: int, sweep: Sweep) -> Callable[[int], bool]:
        """Whether the prompts of a cut are longer: what is said in answer doesn't count."""
        pieces = self._decoder.pieces(sweep)
        query = max(len(piece.ids) for piece in pieces.queries)
        read = [0, *accumulate(len(piece.ids) for piece in pieces.support)]
        return lambda cut: read[cut] + query > reach


class _Decoder:
    """The network as the runtime sees it."""

    barred: frozenset[int] = frozenset()
    stops = frozenset({EOS})
    context = None
    """None: the paper's 16-shot prompts have 5000 tokens and more, and the code lets them."""

    def __init__(self, network: Network, how: Splice) -> None:
        self._network = network
        self._asking = Asking(network.tokens, network.vision.patches, how)

    @property
    def model(self) -> PreTrainedModel:
        return self._network.decoder

    def pieces(self, sweep: Sweep) -> Pieces:
        return self._asking.pieces(sweep)

    def encode(self, images: Sequence[EncodedImage]) -> Sequence[torch.Tensor]:
        """[patches, width] each."""
        return list(self._network.look([decode(image.data) for image in images]))

    def embed(self, piece: Piece, features: Sequence[torch.Tensor]) -> torch.Tensor:
        if not features:
            return self._network.words(piece.ids)
        return self._network.embed(piece.ids, torch.stack(list(features)))

    def text(self, ids: Sequence[int]) -> str:
        return self._network.tokens.decode(ids)


def _damageable(network: Network) -> HalfRotary:
    rotary = HalfRotary(network.decoder.config).to(network.decoder.device)
    network.decoder.model.rotary_emb = rotary
    return rotary
