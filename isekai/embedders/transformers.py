"""Embedders by their names on the Hugging Face Hub: CLIP and SigLIP, DINO and their like."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import MODEL_MAPPING

from isekai.embedders import running
from isekai.embedders.pretrained import DType, Pretrained
from isekai.errors import PluginError

T = TypeVar("T")


def Transformers(  # the name of what is built, as of all embedders
    model: str, revision: str = "", device: str = "auto", dtype: DType = "float32", batch: int = 0
) -> "PictureEmbedder":
    """Embeds with a vision model of the library transformers: `transformers:facebook/dinov2-base`.

    model      a repository (`owner/name`) or a folder; with a model of pictures and texts (CLIP,
               SigLIP, SigLIP 2, ...) the embedder embeds texts, too
    revision   a branch, tag or commit of the repository; else its main branch
    device     auto (a GPU if there is one), cpu, cuda, cuda:1, mps
    dtype      float32, bfloat16 or float16; part of what the embedder's revision says
    batch      pictures or texts at a time; 0: 8 on a CPU, 64 on a GPU

    DataError or PluginError, in one line, for a model that can't be had or embeds no pictures.
    """
    at_a_time = running.batch(batch, running.device(device), "transformers")
    found = Pretrained(model, revision, device, dtype)
    kind = found.kind(MODEL_MAPPING)
    if kind and hasattr(kind, "get_image_features") and hasattr(kind, "get_text_features"):
        return PictureTextEmbedder(found, kind, at_a_time)
    if kind and kind.main_input_name == "pixel_values":
        return PictureEmbedder(found, kind, at_a_time)
    raise PluginError(
        f"{model}: a model of the kind '{found.config.model_type}' embeds no pictures; give one "
        "such as openai/clip-vit-large-patch14 or facebook/dinov2-base"
    )


class PictureEmbedder:
    """What a vision model pools of each picture.

    A picture's vector does not depend on its neighbours in the batch but for the last bits, because
    the matrix library rounds differently with the batch's size: about 1e-6.
    """

    def __init__(self, found: Pretrained, kind: type[Any], batch: int) -> None:
        self.model = found.name
        self.revision = found.revision
        self._found = found
        self._kind = kind
        self.batch = batch

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, D] float32, rows of length 1."""
        if not images:
            return self.embed_images([Image.new("RGB", (32, 32))])[:0]
        return self._rows(images, self._look)

    @cached_property
    def _network(self) -> Any:
        return self._found.load(self._kind)

    @cached_property
    def _image_processor(self) -> Any:
        return self._found.image_processor()

    def _look(self, images: Sequence[Image.Image]) -> torch.Tensor:
        see = self._image_processor
        seen = running.each(
            lambda image: see(images=[image.convert("RGB")], return_tensors="pt"), images
        )
        inputs = type(seen[0])({key: torch.cat([one[key] for one in seen]) for key in seen[0]})
        look = getattr(self._network, "get_image_features", self._network)
        return self._pooled(look, inputs.to(self._network.device, self._network.dtype))

    def _pooled(self, ask: Callable[..., Any], inputs: Any) -> torch.Tensor:
        pooled = ask(**inputs).get("pooler_output")
        if pooled is None:
            raise PluginError(
                f"{self.model}: a {self._kind.__name__} pools nothing of a picture; give a model "
                "such as openai/clip-vit-large-patch14 or facebook/dinov2-base"
            )
        flat: torch.Tensor = pooled.flatten(1)
        return flat

    def _rows(
        self, items: Sequence[T], features: Callable[[Sequence[T]], torch.Tensor]
    ) -> NDArray[np.float32]:
        with torch.inference_mode():
            found = [features(batch) for batch in running.batches(items, self.batch)]
        return running.unit_rows(found, self.model)


class PictureTextEmbedder(PictureEmbedder):
    """What a model of pictures and texts makes of either, in one space."""

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] float32, rows of length 1. A text is cut to what the model reads of one."""
        if not texts:
            return self.embed_texts(["nothing"])[:0]
        return self._rows(texts, self._read)

    @cached_property
    def _tokenizer(self) -> Any:
        return self._found.tokenizer()

    def _read(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts are filled up to full length at their end: SigLIP was trained so, and then none
        depends on how long its neighbours are.
        """
        config = self._found.config
        if config.model_type.startswith("siglip"):
            # Trained on lower case, which tokenizers of SigLIP 2 with one size don't see to.
            texts = [text.lower() for text in texts]
        longest = config.get_text_config().max_position_embeddings
        inputs = self._tokenizer(
            list(texts),
            padding="max_length",
            padding_side="right",  # not what the tokenizer of SigLIP 2 does by itself
            truncation=True,
            max_length=min(longest, self._tokenizer.model_max_length),
            return_tensors="pt",
        )
        return self._pooled(self._network.get_text_features, inputs.to(self._network.device))
