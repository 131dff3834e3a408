"""Tiny diffusers pipelines with random weights: real classes, real files, nothing downloaded."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests import tokens

WIDTH = 16
"""Of every text encoder and, for one head, of every denoiser."""

LATENTS = 4
"""Channels between a denoiser and its VAE."""


def library():
    """The package `diffusers`, without what it warns of when its pipelines are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import diffusers
        from diffusers import AutoPipelineForText2Image  # noqa: F401  (loads all others)

        return diffusers


def build(
    kind: str, folder: Path, *, nan_vae: bool = False, pickle: bool = False, scale: int = 1
) -> Path:
    """Write the pipeline of this kind as a model folder.

    `nan_vae` breaks the last layer of the decoder. `pickle` leaves no safetensors, only what
    PyTorch used to write. `scale` multiplies the widths of the text encoder and the denoiser of
    the kinds that take it.
    """
    import torch

    pipeline = _MAKERS[kind](**({} if scale == 1 else {"scale": scale}))
    if nan_vae:
        torch.nn.init.constant_(pipeline.vae.decoder.conv_out.weight, math.nan)
    pipeline.save_pretrained(folder)
    if pickle:
        _pickled(folder)
    return folder


_BUILT: dict[tuple[object, ...], Path] = {}


def built(kind: str, tmp_path_factory: pytest.TempPathFactory, **options: bool | int) -> Path:
    """The folder of this kind, built once a session. Don't write into it."""
    key = (tmp_path_factory.getbasetemp(), kind, *sorted(options.items()))
    if key not in _BUILT:
        _BUILT[key] = build(kind, tmp_path_factory.mktemp(kind) / kind, **options)
    return _BUILT[key]


def lora(kind: str, folder: Path) -> Path:
    """Write a LoRA for the denoiser of `sd15` or `flux`; the file."""
    from peft import LoraConfig, get_peft_model_state_dict

    pipeline = _MAKERS[kind]()
    part = {"sd15": "unet", "flux": "transformer"}[kind]
    denoiser = getattr(pipeline, part)
    denoiser.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    layers = get_peft_model_state_dict(_filled(denoiser, seed=1))
    pipeline.save_lora_weights(folder, **{f"{part}_lora_layers": layers})
    return folder / "pytorch_lora_weights.safetensors"


# ---------------------------------------------------------------- pipelines


def _sd15(*, scale: int = 1):
    diffusers = library()
    width = WIDTH * scale
    tokenizer = tokens.clip()
    return diffusers.StableDiffusionPipeline(
        vae=_vae(latents=LATENTS),
        text_encoder=_clip(tokenizer, width=width),
        tokenizer=tokenizer,
        unet=_filled(
            diffusers.UNet2DConditionModel(
                sample_size=8,
                layers_per_block=1,
                block_out_channels=(width // 2, width),
                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
                norm_num_groups=4,
                cross_attention_dim=width,
                attention_head_dim=2,
            )
        ),
        scheduler=diffusers.PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _flux():
    diffusers = library()
    tokenizer, tokenizer_2 = tokens.clip(), tokens.t5()
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=_vae(latents=LATENTS, shift_factor=0.1159, quantised=False),
        text_encoder=_clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=_t5(tokenizer_2),
        tokenizer_2=tokenizer_2,
        transformer=_filled(
            diffusers.FluxTransformer2DModel(
                in_channels=4 * LATENTS,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=WIDTH,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                pooled_projection_dim=WIDTH,
                axes_dims_rope=(4, 6, 6),
            )
        ),
    )


def _qwen_image():
    diffusers = library()
    tokenizer = tokens.qwen()
    return diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=_filled(
            diffusers.AutoencoderKLQwenImage(
                base_dim=4,
                z_dim=LATENTS,
                dim_mult=[1, 1, 2, 2],
                num_res_blocks=1,
                latents_mean=[0.0] * LATENTS,
                latents_std=[1.0] * LATENTS,
            )
        ),
        text_encoder=_qwen_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=_filled(
            diffusers.QwenImageTransformer2DModel(
                in_channels=4 * LATENTS,
                out_channels=LATENTS,
                num_layers=1,
                attention_head_dim=WIDTH,
                num_attention_heads=2,
                joint_attention_dim=WIDTH,
                axes_dims_rope=(4, 6, 6),
            )
        ),
    )


_MAKERS: dict[str, Callable[..., object]] = {
    "sd15": _sd15,
    "flux": _flux,
    "qwen-image": _qwen_image,
}

PIPELINES: dict[str, Callable[[Path], Path]] = {kind: partial(build, kind) for kind in _MAKERS}
"""Kind -> what writes it into a folder."""


# ---------------------------------------------------------------- parts


def _filled(module, *, seed: int = 0):
    """The module with random weights that keep the size of what passes through them.

    Start values of most models are made to be trained: with them a prompt would tell too little.
    Gains of norms stay one; other vectors are zero, also those that start as whatever is in memory.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in module.named_parameters():
            if weights[0].numel() > 1:
                weights.normal_(0, weights[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias"):
                weights.zero_()
    return module.eval()


def _vae(*, latents: int, shift_factor: float | None = None, quantised: bool = True):
    """An AutoencoderKL that makes each latent 8 x 8 pixels."""
    return _filled(
        library().AutoencoderKL(
            block_out_channels=(4, 4, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=latents,
            norm_num_groups=2,
            sample_size=64,
            scaling_factor=0.5,
            shift_factor=shift_factor,
            use_quant_conv=quantised,
            use_post_quant_conv=quantised,
        )
    )


def _clip(tokenizer, *, width: int = WIDTH, projected: bool = False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _filled((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def _t5(tokenizer):
    from transformers import T5Config, T5EncoderModel

    return _filled(
        T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=WIDTH,
                d_kv=WIDTH // 2,
                d_ff=2 * WIDTH,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
            )
        )
    )


def _qwen_vl(tokenizer):
    """A Qwen 2.5 VL; pictures would need a processor that no pipeline here has."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {
        "vocab_size": len(tokenizer),
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e6,
            "mrope_section": [1, 1, 2],
        },
    }
    vision = {
        "depth": 1,
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
    }
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return _filled(Qwen2_5_VLForConditionalGeneration(config))


def _pickled(folder: Path) -> None:
    """Turn each file of weights into what `torch.save` writes, under the name it then had."""
    import torch
    from safetensors.torch import load_file

    for path in folder.rglob("*.safetensors"):
        torch.save(load_file(path), path.with_name(_PICKLE_NAMES[path.stem]))
        path.unlink()


_PICKLE_NAMES = {
    "model": "pytorch_model.bin",
    "diffusion_pytorch_model": "diffusion_pytorch_model.bin",
}
