"""Embedders of open_clip: CLIP, SigLIP and others by name and tag, or from a checkpoint."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from PIL import Image

from isekai.embedders import clip_checkpoint, running
from isekai.errors import DataError

T = TypeVar("T")
DType = Literal["float32", "bfloat16", "float16"]

_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


class _Loaded(NamedTuple):
    network: Any
    prepare: Callable[[Image.Image], torch.Tensor]
    tokens: Callable[[Sequence[str]], torch.Tensor]


class OpenClip:
    """Embeds pictures and texts with a model of open_clip: `open_clip:ViT-L-14` with `tag=openai`.

    model      a name of open_clip's list; a folder or a repository (`owner/name`) with an
               open_clip_config.json; or a file of weights beside one
    tag        which weights of a model of the list, or a file of them; ViT-B-32 needs none, it has
               those of LAION-2B
    revision   a branch, tag or commit of the repository that the weights are in
    device     auto (a GPU if there is one), cpu, cuda, cuda:1, mps
    dtype      float32, bfloat16 or float16; normalisations stay float32
    batch      pictures or texts at a time; 0: 8 on a CPU, 64 on a GPU

    Weights are safetensors where there are any, else pickles that hold weights and nothing else.
    DataError or PluginError, in one line, for what can't be had. A vector does not depend on its
    neighbours in the batch but for the last bits, since the matrix library rounds differently with
    the batch's size: about 1e-6.
    """

    def __init__(
        self,
        model: str = clip_checkpoint.MODEL,
        tag: str = "",
        revision: str = "",
        device: str = "auto",
        dtype: DType = "float32",
        batch: int = 0,
    ) -> None:
        self._device = running.device(device)
        self._dtype = dtype
        self.batch = running.batch(batch, self._device, "open_clip")
        self._found = clip_checkpoint.find(model, tag, revision)
        self.model = self._found.name
        self.revision = f"{self._found.revision} {dtype}"

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] float32, rows of length 1."""
        if not images:
            return self.embed_images([Image.new("RGB", (32, 32))])[:0]
        return self._rows(images, self._look)

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] float32, rows of length 1. A text is cut to what the model reads of one."""
        if not texts:
            return self.embed_texts(["nothing"])[:0]
        return self._rows(texts, self._read)

    @cached_property
    def _loaded(self) -> _Loaded:
        """All of it at once; nobody's random numbers are touched by weights that are replaced."""
        found = self._found
        with found.staged() as stage, clip_checkpoint.quiet(), torch.random.fork_rng(devices=[]):
            name = f"local-dir:{stage}"
            options = {"trust_remote_code": False, "local_files_only": True}
            try:
                network, prepare = open_clip.create_model_from_pretrained(
                    name, precision=_PRECISION[self._dtype], device=self._device
                )
                tokens = open_clip.get_tokenizer(name, **(options if found.tokenizer else {}))
            except Exception as error:  # damaged files make the library raise almost any class
                told = " ".join(str(error).split())[:200] or type(error).__name__
                raise DataError(f"{found.name}: can't be loaded ({told})") from error
        return _Loaded(network.eval().requires_grad_(False), prepare, tokens)

    def _look(self, images: Sequence[Image.Image]) -> torch.Tensor:
        network, prepare, _ = self._loaded
        seen = running.each(lambda image: prepare(image.convert("RGB")), images)
        dtype = open_clip.get_input_dtype(_PRECISION[self._dtype])
        features: torch.Tensor = network.encode_image(torch.stack(seen).to(self._device, dtype))
        return features

    def _read(self, texts: Sequence[str]) -> torch.Tensor:
        network, _, tokens = self._loaded
        features: torch.Tensor = network.encode_text(tokens(list(texts)).to(self._device))
        return features

    def _rows(
        self, items: Sequence[T], features: Callable[[Sequence[T]], torch.Tensor]
    ) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = [features(batch) for batch in running.batches(items, self.batch)]
        return running.unit_rows(found, self.model)
