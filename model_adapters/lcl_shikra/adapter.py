"""LCL-Shikra as a model to ask: `LclShikra`."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from transformers import PreTrainedModel

from isekai.errors import DataError, PluginError
from isekai.files import explained, sha256
from isekai.images import decode
from isekai.types import EncodedImage, Response, Sweep
from model_adapters.lcl_shikra.asking import Asking
from model_adapters.lcl_shikra.network import Network
from model_adapters.lcl_shikra.rope import HalfRotary
from model_adapters.lcl_shikra.splice import Splice
from model_adapters.lcl_shikra.tokens import EOS
from model_adapters.runtime.running import Choice, Runtime
from model_adapters.runtime.seam import Piece, Pieces

DType = Literal["auto", "float16", "bfloat16", "float32"]

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
        dtype: DType = "auto",
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
        for folder in (checkpoint, vision_tower):
            _refuse_missing(folder)
        device = _device(device)
        dtype = _dtype(dtype, device)
        network = Network(checkpoint, vision_tower, getattr(torch, dtype), device)
        self._decoder = _Decoder(network, splice)
        self._rotary = _damageable(network) if legacy_fp16_rope else None
        self._runtime = Runtime(self._decoder, rank=rank, max_tokens=max_tokens, way=way)
        self._told = {
            "model": checkpoint.resolve().name,
            "revision": _digest(checkpoint),
            "vision_tower": vision_tower.resolve().name,
            "vision_revision": _digest(vision_tower),
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


def _refuse_missing(folder: Path) -> None:
    with explained(folder):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; get it from the Hub with `hf download {folder} "
                "--local-dir FOLDER`, and give that folder"
            )


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        here = torch.device(name).type == "cpu" or torch.zeros(1, device=name).is_cuda
    except (RuntimeError, AssertionError, NotImplementedError):
        here = False
    if not here:
        raise PluginError(f"lcl-shikra: no device '{name}' here; take auto, or cpu")
    return name


def _dtype(name: DType, device: str) -> DType:
    if name != "auto":
        return name
    return "float32" if device == "cpu" else "float16"


_READ = (".json", ".model", ".safetensors", ".bin")


def _digest(folder: Path) -> str:
    """Of all files that may be read of it."""
    told = {}
    with explained(folder):
        for path in sorted(path for path in folder.iterdir() if path.suffix in _READ):
            with path.open("rb") as file:
                told[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sha256(json.dumps(told).encode())
