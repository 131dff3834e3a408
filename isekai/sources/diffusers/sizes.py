"""Which sizes a model draws, as its configuration tells before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from isekai import hub
from isekai.errors import IsekaiError
from isekai.files import read_json
from isekai.sources.diffusers.origin import Origin


def config(origin: Origin, component: str, file: str = "config.json") -> Mapping[str, Any]:
    """A component's configuration; empty if it has none. Of a repository, it is downloaded."""
    name = f"{component}/{file}"
    if name not in origin.layout.files:
        return {}
    path = origin.folder / name
    if origin.commit and not path.exists():
        path = hub.fetch_file(origin.model, origin.commit, name)
    return read_json(path, dict[str, Any])


def usual(origin: Origin) -> int:
    """Pixels of a side that the model was made for; 1024 where it doesn't say."""
    for name in ("unet", "transformer"):
        side = config(origin, name).get("sample_size")
        side = max(side) if isinstance(side, list) else side
        if isinstance(side, int):
            return side * shrinks(origin)
    return 1024


def check(origin: Origin, size: int) -> None:
    """IsekaiError if the model can't draw exactly this many pixels a side."""
    grain = patch(origin)
    if size % grain:
        near = sorted({max(grain, size // grain * grain), -(-size // grain) * grain})
        raise IsekaiError(
            f"a size of {size} pixels; {origin.model} draws multiples of {grain}: give --size "
            + " or ".join(map(str, near))
        )


def patch(origin: Origin) -> int:
    """Pixels a side of what a denoiser sees as one: transformers take latents two by two.

    They don't where the VAE shrinks as much as that of Sana.
    """
    shrunk = shrinks(origin)
    return shrunk * 2 if config(origin, "transformer") and shrunk < 32 else shrunk


def shrinks(origin: Origin) -> int:
    """Pixels a side that the VAE makes of one latent."""
    vae = config(origin, "vae")
    if isinstance(halvings := vae.get("temperal_downsample"), list):  # its makers spell it so
        return int(2 ** len(halvings))
    for key in ("encoder_block_out_channels", "block_out_channels"):
        if isinstance(blocks := vae.get(key), list):
            return int(2 ** (len(blocks) - 1))
    return 8
