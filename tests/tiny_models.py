"""Tiny models of the library transformers, with random weights: real classes, real files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import tokens
from tests.parts import filled

_LAYERS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def clip(folder: Path) -> Path:
    """32 pixels, 77 tokens, 16 numbers a vector."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    words = tokens.clip()
    config = CLIPConfig(
        text_config=_LAYERS | _vocabulary(words, 77),
        vision_config=_LAYERS | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    filled(CLIPModel(config)).save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(**_cropped(32)), words).save_pretrained(folder)
    return folder


def siglip(folder: Path) -> Path:
    """32 pixels, 64 tokens, 32 numbers a vector."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    words = tokens.t5(longest=64)
    words.model_input_names = ["input_ids"]  # as its makers' tokenizers have it
    config = SiglipConfig(
        text_config=_LAYERS | _vocabulary(words, 64) | {"projection_size": 32},
        vision_config=_LAYERS | {"image_size": 32, "patch_size": 8},
    )
    filled(SiglipModel(config)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def siglip2(folder: Path) -> Path:
    """At most 16 patches of 8 pixels, which keep a picture's shape; 64 tokens."""
    from transformers import Siglip2Config, Siglip2ImageProcessor, Siglip2Model

    words = tokens.gemma()
    words.padding_side = "right"
    config = Siglip2Config(
        text_config=_LAYERS | _vocabulary(words, 64) | {"projection_size": 32},
        vision_config=_LAYERS | {"patch_size": 8, "num_patches": 16},
    )
    filled(Siglip2Model(config)).save_pretrained(folder)
    Siglip2ImageProcessor(patch_size=8, max_num_patches=16).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def dino(folder: Path) -> Path:
    """28 pixels, 32 numbers a vector, no texts."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(**_LAYERS, image_size=28, patch_size=14)
    model = filled(Dinov2Model(config))
    for layer in model.encoder.layer:  # start at nothing, and would show nothing of a picture
        layer.layer_scale1.lambda1.data.fill_(1)
        layer.layer_scale2.lambda1.data.fill_(1)
    model.save_pretrained(folder)
    BitImageProcessor(**_cropped(28)).save_pretrained(folder)
    return folder


def siglip2_fixed(folder: Path) -> Path:
    """SigLIP 2 with one size of pictures: the network of SigLIP, the tokenizer of Gemma."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    words = tokens.gemma()
    config = SiglipConfig(
        text_config=_LAYERS | _vocabulary(words, 64) | {"projection_size": 32},
        vision_config=_LAYERS | {"image_size": 32, "patch_size": 8},
    )
    filled(SiglipModel(config)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def dinov3_vit(folder: Path) -> Path:
    """32 pixels, 32 numbers a vector, two registers."""
    from transformers import DINOv3ViTConfig, DINOv3ViTImageProcessor, DINOv3ViTModel

    config = DINOv3ViTConfig(**_LAYERS, image_size=32, patch_size=8, num_register_tokens=2)
    model = filled(DINOv3ViTModel(config))
    for name, scale in model.named_parameters():
        if name.endswith("lambda1"):  # starts at next to nothing, like that of DINOv2
            scale.data.fill_(1)
    model.save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def dinov3_convnext(folder: Path) -> Path:
    """64 pixels, 32 numbers a vector."""
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel, DINOv3ViTImageProcessor

    config = DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], image_size=64)
    filled(DINOv3ConvNextModel(config)).save_pretrained(folder)
    DINOv3ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


def classifier(
    folder: Path, labels: Sequence[str] = ("normal", "nsfw"), *, independent: bool = False
) -> Path:
    """32 pixels; `independent` labels don't share a sum of one."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        **_LAYERS,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        problem_type="multi_label_classification" if independent else None,
    )
    filled(ViTForImageClassification(config)).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def texts(folder: Path) -> Path:
    """A model that reads texts and sees nothing."""
    from transformers import BertConfig, BertModel

    filled(BertModel(BertConfig(**_LAYERS, vocab_size=8))).save_pretrained(folder)
    return folder


OPEN_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
"""A tiny CLIP in the words of open_clip; the size of its vocabulary is that of its tokenizer."""


def open_clip(folder: Path) -> Path:
    """32 pixels, 77 tokens, 16 numbers a vector; as `open_clip` writes it for the Hub."""
    import json

    from open_clip import CLIP
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    save_file(filled(CLIP(**OPEN_CLIP)).state_dict(), folder / "open_clip_model.safetensors")
    preparing = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    told = {"model_cfg": OPEN_CLIP, "preprocess_cfg": preparing | {"resize_mode": "shortest"}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    return folder


def open_clip_tower(folder: Path, repo: str = "owner/tiny") -> Path:
    """As `open_clip`, with a text model and a tokenizer of transformers that are in `repo`."""
    import json

    from open_clip import CustomTextCLIP
    from safetensors.torch import save_file
    from transformers import BertConfig

    words = tokens.gemma()
    BertConfig(**_LAYERS | _vocabulary(words, 64)).save_pretrained(folder)
    words.save_pretrained(folder)
    text = {"hf_proj_type": "linear", "hf_pooler_type": "mean_pooler", "context_length": 64}
    towers = {key: OPEN_CLIP[key] for key in ("embed_dim", "vision_cfg")}
    here = {"hf_model_name": str(folder), "hf_model_pretrained": False}
    network = filled(CustomTextCLIP(**towers, text_cfg=text | here))
    save_file(network.state_dict(), folder / "open_clip_model.safetensors")
    there = {"hf_model_name": repo, "hf_tokenizer_name": repo}
    told = {"model_cfg": towers | {"text_cfg": text | there}, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    return folder


def head(file: Path, width: int = 16, *layers: int) -> Path:
    """A head over vectors of this width, with these layers before its one number."""
    import torch
    from safetensors.torch import save_file

    sizes, generator = (width, *layers, 1), torch.Generator().manual_seed(0)
    tensors = {}
    for place, (above, below) in enumerate(zip(sizes[1:], sizes[:-1], strict=True)):
        tensors[f"layers.{2 * place}.weight"] = torch.randn(above, below, generator=generator)
        tensors[f"layers.{2 * place}.bias"] = torch.randn(above, generator=generator)
    save_file(tensors, file)
    return file


_BUILT: dict[tuple[Path, str], Path] = {}


def built(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this kind, built once a session. Don't write into it."""
    key = tmp_path_factory.getbasetemp(), kind
    if key not in _BUILT:
        _BUILT[key] = globals()[kind](tmp_path_factory.mktemp(kind) / kind)
    return _BUILT[key]


@contextmanager
def one_thread() -> Iterator[None]:
    """Models as small as these are slower on several cores than on one."""
    import torch

    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(usual)


def _vocabulary(words: Any, longest: int) -> dict[str, int | None]:
    special = (f"{name}_token_id" for name in ("bos", "eos", "pad"))
    return {
        "vocab_size": len(words),
        "max_position_embeddings": longest,
        **{name: getattr(words, name) for name in special},
    }


def _cropped(side: int) -> dict[str, dict[str, int]]:
    return {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
