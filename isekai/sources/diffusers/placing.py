"""Puts a loaded pipeline where it draws, as the plan for the device's memory says."""

from typing import Any

import torch

from isekai.errors import IsekaiError
from isekai.sources.diffusers.loading import TEXT_ENCODER, quiet
from isekai.sources.diffusers.memory import Memory

DENOISERS = ("unet", "transformer")


def devices(names: str) -> list[str]:
    """The devices that are named, or all GPUs, or else the CPU."""
    if names != "auto":
        found = [name.strip() for name in names.split(",") if name.strip()]
        for name in found:
            _check(name)
        return found
    if torch.cuda.is_available():
        return [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["mps" if torch.backends.mps.is_available() else "cpu"]


def _check(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise IsekaiError(f"device '{name}': expected a name such as cpu or cuda:0") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise IsekaiError(
            f"device '{name}': {torch.cuda.device_count()} GPUs are usable here; name one that is"
        )


def move_texts(pipeline: Any, device: str) -> None:
    """The text encoders alone; of the other networks there are no weights."""
    for name, part in pipeline.components.items():
        if name.startswith(TEXT_ENCODER) and part is not None:
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
        elif memory.offload == "none":
            pipeline.to(device)
        else:
            raise ValueError(f"no such way to offload: {memory.offload}")
    if memory.compile:
        for name in DENOISERS:
            if parts.get(name) is not None:
                _compile(parts[name])


def _compile(denoiser: Any) -> None:
    """Block by block where the blocks are alike: as fast as a whole, and ready in a tenth of it."""
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks()
    else:
        denoiser.compile()
