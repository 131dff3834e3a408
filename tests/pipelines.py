"""Tiny diffusers pipelines with random weights: real classes, real files, nothing downloaded."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import parts, tokens
from tests.parts import LATENTS, WIDTH, library


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
    layers = get_peft_model_state_dict(parts.filled(denoiser, seed=1))
    pipeline.save_lora_weights(folder, **{f"{part}_lora_layers": layers})
    return folder / "pytorch_lora_weights.safetensors"


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


# ---------------------------------------------------------------- pipelines


def _sd15(*, scale: int = 1, checked: bool = False):
    diffusers = library()
    tokenizer = tokens.clip()
    checker, extractor = parts.safety() if checked else (None, None)
    return diffusers.StableDiffusionPipeline(
        vae=parts.vae(),
        text_encoder=parts.clip(tokenizer, width=WIDTH * scale),
        tokenizer=tokenizer,
        unet=parts.unet(width=WIDTH * scale, cross_attention_dim=WIDTH * scale),
        scheduler=diffusers.PNDMScheduler(**_BETAS, skip_prk_steps=True, steps_offset=1),
        safety_checker=checker,
        feature_extractor=extractor,
        requires_safety_checker=checked,
    )


_BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""The noise that Stable Diffusion 1 and XL were trained with."""


def _sdxl():
    diffusers = library()
    tokenizer, tokenizer_2 = tokens.clip(), tokens.clip(pad="!")
    return diffusers.StableDiffusionXLPipeline(
        vae=parts.vae(),
        text_encoder=parts.clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=parts.clip(tokenizer_2, projected=True, seed=1),
        tokenizer_2=tokenizer_2,
        unet=parts.unet(cross_attention_dim=2 * WIDTH, numbers=6),  # two sizes and a corner
        scheduler=diffusers.EulerDiscreteScheduler(**_BETAS, steps_offset=1),
        add_watermarker=False,
    )


def _sdxl_refiner():
    diffusers = library()
    tokenizer = tokens.clip(pad="!")
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=parts.vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=parts.clip(tokenizer, projected=True, seed=1),
        tokenizer_2=tokenizer,
        unet=parts.unet(cross_attention_dim=WIDTH, numbers=5),  # a size, a corner and a score
        scheduler=diffusers.EulerDiscreteScheduler(**_BETAS, steps_offset=1),
        requires_aesthetics_score=True,
        add_watermarker=False,
    )


def _sd3():
    diffusers = library()
    tokenizer, tokenizer_2, tokenizer_3 = tokens.clip(), tokens.clip(pad="!"), tokens.t5()
    return diffusers.StableDiffusion3Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=parts.vae(shift_factor=0.0609, quantised=False),
        text_encoder=parts.clip(tokenizer, projected=True),
        tokenizer=tokenizer,
        text_encoder_2=parts.clip(tokenizer_2, projected=True, seed=1),
        tokenizer_2=tokenizer_2,
        text_encoder_3=parts.t5(tokenizer_3, width=2 * WIDTH),
        tokenizer_3=tokenizer_3,
        transformer=parts.filled(
            diffusers.SD3Transformer2DModel(
                sample_size=8,
                in_channels=LATENTS,
                out_channels=LATENTS,
                num_layers=2,
                attention_head_dim=WIDTH,
                num_attention_heads=2,
                joint_attention_dim=2 * WIDTH,
                caption_projection_dim=2 * WIDTH,
                pooled_projection_dim=2 * WIDTH,
                pos_embed_max_size=16,
            )
        ),
    )


def _flux():
    diffusers = library()
    tokenizer, tokenizer_2 = tokens.clip(), tokens.t5()
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=parts.vae(shift_factor=0.1159, quantised=False),
        text_encoder=parts.clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=parts.t5(tokenizer_2),
        tokenizer_2=tokenizer_2,
        transformer=parts.filled(
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


def _flux2_klein():
    diffusers = library()
    tokenizer = tokens.qwen()
    return diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=parts.vae_flux2(),
        text_encoder=parts.qwen3(tokenizer, layers=27, head=True),  # layers 9, 18 and 27 are read
        tokenizer=tokenizer,
        transformer=parts.filled(
            diffusers.Flux2Transformer2DModel(
                in_channels=4 * LATENTS,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=WIDTH,
                num_attention_heads=2,
                joint_attention_dim=3 * WIDTH,
                axes_dims_rope=(4, 4, 4, 4),
                guidance_embeds=False,
            )
        ),
        is_distilled=True,
    )


def _pixart_sigma():
    diffusers = library()
    tokenizer = tokens.t5(longest=300)
    return diffusers.PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=parts.t5(tokenizer),
        vae=parts.vae(),
        transformer=parts.filled(
            diffusers.PixArtTransformer2DModel(
                sample_size=32,  # of those that have a table of shapes the smallest
                in_channels=LATENTS,
                out_channels=2 * LATENTS,
                num_layers=1,
                attention_head_dim=WIDTH,
                num_attention_heads=2,
                cross_attention_dim=2 * WIDTH,
                caption_channels=WIDTH,
            )
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def _sana():
    diffusers = library()
    tokenizer = tokens.gemma()
    return diffusers.SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=parts.gemma(tokenizer),
        vae=parts.vae_dc(),
        transformer=parts.filled(
            diffusers.SanaTransformer2DModel(
                sample_size=16,  # of those that have a table of shapes the smallest
                in_channels=LATENTS,
                out_channels=LATENTS,
                num_layers=1,
                attention_head_dim=WIDTH,
                num_attention_heads=2,
                cross_attention_head_dim=WIDTH,
                num_cross_attention_heads=2,
                cross_attention_dim=2 * WIDTH,
                caption_channels=WIDTH,
            )
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )


def _qwen_image():
    diffusers = library()
    tokenizer = tokens.qwen()
    return diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=parts.vae_qwen_image(),
        text_encoder=parts.qwen_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=parts.filled(
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


def _z_image():
    diffusers = library()
    tokenizer = tokens.qwen()
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=parts.vae(shift_factor=0.1159, quantised=False),
        text_encoder=parts.qwen3(tokenizer, layers=2),
        tokenizer=tokenizer,
        transformer=parts.filled(
            diffusers.ZImageTransformer2DModel(
                in_channels=LATENTS,
                dim=WIDTH,
                n_layers=1,
                n_refiner_layers=1,
                n_heads=1,
                n_kv_heads=1,
                cap_feat_dim=WIDTH,
                axes_dims=(4, 6, 6),
            )
        ),
    )


_MAKERS: dict[str, Callable[..., Any]] = {
    "sd15": _sd15,
    "sd15-checked": partial(_sd15, checked=True),
    "sdxl": _sdxl,
    "sdxl-refiner": _sdxl_refiner,
    "sd3": _sd3,
    "flux": _flux,
    "flux2-klein": _flux2_klein,
    "pixart-sigma": _pixart_sigma,
    "sana": _sana,
    "qwen-image": _qwen_image,
    "z-image": _z_image,
}

PIPELINES: dict[str, Callable[[Path], Path]] = {kind: partial(build, kind) for kind in _MAKERS}
"""Kind -> what writes it into a folder."""
