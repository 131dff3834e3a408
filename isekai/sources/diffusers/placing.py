"""Puts a loaded pipeline where it draws, as the plan for the device's memory says."""

import logging
from typing import Any

import torch

from isekai.sources.diffusers.loading import library, quiet, reads
from isekai.sources.diffusers.memory import Memory
from isekai.sources.diffusers.recipe import Recipe

DENOISERS = ("unet", "transformer")


def quantisation(recipe: Recipe) -> Any:
    """What loads the denoiser in fewer bits; None to load it as it is."""
    if recipe.quantise == "none":
        return None
    diffusers: Any = library()
    if recipe.quantise == "int8":
        config = diffusers.BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = diffusers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, recipe.dtype),
        )
    here = [name for name in DENOISERS if name in recipe.model.components]
    return diffusers.PipelineQuantizationConfig(quant_mapping=dict.fromkeys(here, config))


def move_texts(pipeline: Any, device: str) -> None:
    """The text encoders alone; of the other networks there are no weights."""
    for name, part in pipeline.components.items():
        if reads(name) and part is not None:
            part.to(device)


def place(pipeline: Any, memory: Memory, device: str) -> None:
    """Onto the device, whole or in parts as they are needed, with what saves memory or time."""
    parts = pipeline.components
    vae = parts.get("vae")
    if memory.vae_slicing and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()
    if memory.vae_tiling and hasattr(vae, "enable_tiling"):
        vae.enable_tiling()
    if memory.channels_last:
        for name in ("unet", "vae"):
            if parts.get(name) is not None:
                parts[name].to(memory_format=torch.channels_last)
    with quiet():
        if memory.offload == "model":
            pipeline.enable_model_cpu_offload(device=device)
        elif memory.offload == "group":
            pipeline.enable_group_offload(
                onload_device=torch.device(device),
                offload_type="leaf_level",
                use_stream=torch.device(device).type == "cuda",
            )
        else:
            pipeline.to(device)
    if memory.compile:
        for name in DENOISERS:
            if parts.get(name) is not None:
                _compile(parts[name])


def _compile(denoiser: Any) -> None:
    """Block by block where the blocks are alike: as fast as a whole, and ready in a tenth of it."""
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a GPU
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks()
    else:
        denoiser.compile()
