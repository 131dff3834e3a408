"""The runtime over decoders of today's vision-language models, held to plain forwards."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as library

from isekai.types import Turn
from model_adapters.runtime.running import Runtime
from model_adapters.runtime.seam import Piece
from tests.runtime_models import IMAGE, IMAGE_TOKENS, VOCABULARY, Spliced
from tests.runtime_reference import close, expected, sweep

_SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_WORDS = _SHAPE | {"vocab_size": VOCABULARY}
_GROUPED = _WORDS | {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": None,
}
_TOWER = _SHAPE | {"image_size": 16, "patch_size": 8}
_QWEN = {
    "depth": 1,
    "hidden_size": 32,
    "out_hidden_size": 32,
    "intermediate_size": 32,
    "num_heads": 2,
}


def _axes(*sections: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "mrope_section": list(sections), "rope_theta": 10000.0}
    return _GROUPED | {"rope_parameters": rope}


CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "Qwen2.5-VL": ("Qwen2_5_VL", {"text_config": _axes(1, 1, 2), "vision_config": _QWEN}),
    "Qwen3-VL": (
        "Qwen3VL",
        {
            "text_config": _axes(2, 1, 1),
            "vision_config": _QWEN | {"deepstack_visual_indexes": [0]},
        },
    ),
    "LLaVA": (
        "Llava",
        {
            "text_config": {"model_type": "llama"} | _WORDS,
            "vision_config": {"model_type": "clip_vision_model"} | _TOWER,
        },
    ),
    "Idefics3": (
        "Idefics3",
        {
            "text_config": {"model_type": "llama", "pad_token_id": 0} | _WORDS,
            "vision_config": _TOWER,
            "scale_factor": 1,
        },
    ),
    "Gemma 3": (
        "Gemma3",
        {
            "text_config": _GROUPED | {"sliding_window": 512},
            "vision_config": _TOWER,
            "mm_tokens_per_image": 4,
        },
    ),
    "Gemma 3 with a short window": (
        "Gemma3",
        {
            "text_config": _GROUPED | {"sliding_window": 12, "num_hidden_layers": 6},
            "vision_config": _TOWER,
            "mm_tokens_per_image": 4,
        },
    ),
}


def built(name: str) -> Any:
    family, config = CONFIGS[name]
    torch.manual_seed(0)
    made = getattr(library, f"{family}ForConditionalGeneration")(
        getattr(library, f"{family}Config")(**config)
    ).eval()
    for weight in made.parameters():
        if weight.ndim > 1:
            weight.data.normal_(0, 0.25)
    return made


class ThreeAxes(Spliced):
    """Image tokens stand side by side at one moment, as in Qwen-VL: they take two positions."""

    def piece(self, turn: Turn) -> Piece:
        made = super().piece(turn)
        if not made.images:
            return made
        positions = torch.arange(len(made.ids)).repeat(3, 1)
        first = made.ids.index(IMAGE)
        behind = first + IMAGE_TOKENS
        positions[:, first:behind] = first + torch.tensor([[0, 0, 0], [0, 1, 1], [0, 0, 1]])
        positions[:, behind:] -= 1
        return replace(made, positions=positions, span=len(made.ids) - 1)


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_todays_families_are_asked_fast_and_right(name):
    decoder = (ThreeAxes if "Qwen" in name else Spliced)(model=built(name))
    true = expected(decoder, sweep(), most=3)
    runtime = Runtime(decoder, max_tokens=3, tell=lambda line: None)
    close(list(runtime.respond(sweep())), true)
    assert runtime.way == ("batched" if "window" in name else "packed")
    assert len(runtime.reasons) == ("window" in name)
    close(list(Runtime(decoder, max_tokens=3, way="batched").respond(sweep())), true)
