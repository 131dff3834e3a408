"""The network of both families: tower, resampler, and a decoder with gated cross-attention."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging

from model_adapters.flamingo.crossing import GatedCross, Sight, insert, seeing
from model_adapters.flamingo.decoders import Family
from model_adapters.flamingo.resampler import Resampler
from model_adapters.flamingo.sizes import Sizes

_TIED = ("lm_head.weight",)
"""What is the table of tokens under another name, where a decoder has it so."""


class Plan:
    """A Flamingo without weights: what it is made of, with names and shapes to look weights up by.

    Everything is on the meta device.
    """

    def __init__(
        self,
        *,
        family: Family,
        language: PretrainedConfig,
        vision: CLIPVisionConfig,
        every: int,
        sizes: Sizes,
    ) -> None:
        """`every`: a crossing stands before each so-manieth decoder layer, the last of each."""
        self.family, self.language, self.vision, self.sizes = family, language, vision, sizes
        width, seen = language.hidden_size, vision.hidden_size
        with torch.device("meta"):
            self.decoder = family.network(language)
            self.tower = CLIPVisionModel(vision)
            self.resampler = Resampler(seen, sizes)
            self.crossings = {
                number: GatedCross(width, seen, sizes)
                for number in range(every - 1, language.num_hidden_layers, every)
            }

    @property
    def whole(self) -> nn.Module:
        """All parts in one."""
        crossings = list(self.crossings.values())
        return nn.ModuleList([self.decoder, self.tower, self.resampler, *crossings])

    @property
    def tied(self) -> tuple[str, ...]:
        """The decoder's parameters that are others under another name."""
        return _TIED if self.language.tie_word_embeddings else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The tensors of a plan's parts, under the names that the parts give them."""

    decoder: dict[str, Tensor]
    tower: dict[str, Tensor]
    resampler: dict[str, Tensor]
    crossings: Mapping[int, dict[str, Tensor]]


class Flamingo(nn.Module):
    """Looks at pictures and goes on with text."""

    def __init__(self, plan: Plan, weights: Weights, *, dtype: torch.dtype, device: str) -> None:
        """Ready to run. `weights` must be whole: `keys.Checkpoint` sees to that."""
        super().__init__()
        self.decoder = _filled(plan.family.network, plan.language, weights.decoder, dtype)
        self.tower = _filled(CLIPVisionModel, plan.vision, weights.tower, dtype)
        self.resampler = plan.resampler
        self.resampler.load_state_dict(weights.resampler, assign=True)
        self.crossings = nn.ModuleDict()
        for number, crossing in plan.crossings.items():
            crossing.load_state_dict(weights.crossings[number], assign=True)
            self.crossings[str(number)] = crossing
        insert(plan.family.decoder_layers(self.decoder), plan.crossings)
        self.eval().requires_grad_(False).to(device, dtype)

    @property
    def device(self) -> torch.device:
        return self.resampler.latents.device

    @property
    def dtype(self) -> torch.dtype:
        return self.resampler.latents.dtype

    @property
    def side(self) -> int:
        """Pixels of the pictures that the tower looks at."""
        side: int = self.tower.config.image_size
        return side

    def patches(self, pixels: Tensor) -> Tensor:
        """[pictures, 3, side, side] -> [pictures, patches, width]: CLIP's last layer.

        Neither its class token nor its last norm: Flamingos never saw these.
        """
        seen: Tensor = self.tower(pixel_values=pixels.to(self.device, self.dtype)).last_hidden_state
        return seen[:, 1:]

    def encode(self, pixels: Tensor) -> Tensor:
        """[pictures, 3, side, side] -> [pictures, latents, width]."""
        media: Tensor = self.resampler(self.patches(pixels))
        return media

    def read(self, tokens: Tensor, sight: Sight, **options: Any) -> Any:
        """The decoder's output for [rows, tokens], which look as `sight` says."""
        with seeing(sight):
            return self.decoder(input_ids=tokens, **options)


def _filled(
    kind: type[PreTrainedModel],
    config: PretrainedConfig,
    tensors: dict[str, Tensor],
    dtype: torch.dtype,
) -> Any:
    """The library's network with exactly these tensors; RuntimeError if it would make one up."""
    with _silent():
        loaded: Any = kind.from_pretrained(
            None, config=config, state_dict=tensors, dtype=dtype, output_loading_info=True
        )
    network, told = loaded
    astray = {key: sorted(found) for key, found in told.items() if found}
    if astray:
        raise RuntimeError(f"{kind.__name__}: weights went astray: {astray}")
    return network


@contextmanager
def _silent() -> Iterator[None]:
    """No bars and no reports: what of them matters is checked."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(ERROR)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
