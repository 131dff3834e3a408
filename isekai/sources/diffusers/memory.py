"""What a device's memory allows: a plan made from sizes alone, before anything is loaded.

What pixels depend on (type, quantisation, tiles) follows from the size of the card, so that a run
goes on as it began whoever else uses the card; where weights wait follows from what is free now.
Exactness goes before speed: weights are offloaded, which changes nothing, before pictures are
decoded in tiles; they are quantised only where the card holds less than half of the denoiser.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal, cast, get_args

from isekai.errors import IsekaiError, did_you_mean
from isekai.sources.diffusers.presets import Dtype

Offload = Literal["none", "model", "group"]
"""Nothing; whole networks while they aren't at work; the denoiser layer by layer."""
Quantise = Literal["none", "int8", "nf4"]

PROFILES = {"8g": 8 << 30, "16g": 16 << 30, "24g": 24 << 30, "80g": 80 << 30}
"""Cards by what is printed on them, in bytes."""

ITEM: dict[Dtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
"""Bytes a number."""

DECODE = {
    "AutoencoderKL": 770,
    "AutoencoderKLFlux2": 770,
    "AutoencoderDC": 835,
    "AutoencoderKLQwenImage": 1735,
}
"""VAE -> numbers that live at once for each pixel decoded, as `benchmarks/memory.py` counts them,
without the workspace of kernels. Others count as the hungriest of these."""

DENOISE = {"unet": 80, "transformer": 400}
"""Denoiser -> numbers that live at once for each pixel, by the same script: 79 in SDXL; at 512 px,
where the prompt weighs most, 314 in FLUX.1 and 400 in FLUX.2 klein, at 1024 px 232 and 289."""

TILE = 512
"""Pixels of a side of the tiles of most VAEs; those of SDXL and FLUX are as large as the pictures
they were trained on, 1024, and save less."""

GROUPED = 0.1
"""The share of a denoiser that is on the device while its layers come and go, ahead of the work on
a stream of their own. Generous: the largest layer is 3 % of FLUX.1."""

QUANTISED: dict[Quantise, float] = {"none": 1.0, "int8": 0.55, "nf4": 0.32}
"""Of the bytes in 16 bits: 8 bits, and 4.5 with the scale of each block of 64; what is no linear
layer stays as it is."""

FREE = 0.9
SPARE = 500_000_000
"""A tenth and half a GB are left to fragments, kernels and what the driver takes for itself. No
measurement, but a margin: where it fails memory runs out, and fewer images are drawn at a time."""

COMPILES = 70_000_000_000
"""Bytes of a card from which the denoiser is compiled: a rule of thumb for machines that have a
compiler and much to draw; it takes minutes before the first image."""

BATCH = {"cuda": 64, "mps": 8, "cpu": 8}
"""Images at a time at most: more didn't pay on any device that the batch size was tried on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """How a model is put on a device."""

    device: str
    dtype: Dtype
    offload: Offload
    quantise: Quantise
    vae_slicing: bool
    """Decode one image of a batch after the other."""
    vae_tiling: bool
    channels_last: bool
    compile: bool
    text_device: str
    """Where prompts are encoded, before the denoiser is there."""
    batch_limit: int
    """Images at a time at most. Whether so many fit is found by drawing them."""
    room: int
    """Bytes that were planned with."""

    def told(self) -> str:
        """The plan in one line."""
        words: list[str] = [self.dtype]
        if self.quantise != "none":
            words.append(f"denoiser quantised to {self.quantise}")
        words.append(
            {
                "none": "all weights on the device",
                "model": "networks on the device in turn",
                "group": "layers of the denoiser on the device in turn",
            }[self.offload]
        )
        words += ["decoded in tiles"] if self.vae_tiling else []
        words += ["compiled"] if self.compile else []
        some = "1 image" if self.batch_limit == 1 else f"up to {self.batch_limit} images"
        words.append(f"{some} at a time")
        if self.text_device != self.device:
            words.append(f"prompts encoded on the {self.text_device}")
        return f"{self.device}, {_gigabytes(self.room)} to use: {', '.join(words)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Needs:
    """Bytes that the parts of a model take where it runs."""

    texts: float
    denoiser: float
    rest: float
    """The decoder and whatever else stands beside it."""
    denoise: float
    """Of activations, for each pixel of an image."""
    decode: float
    side: int
    """Pixels."""
    tiled: bool = False

    @property
    def denoising(self) -> float:
        """Activations of an image."""
        return self.denoise * self.side**2

    @property
    def decoding(self) -> float:
        return self.decode * (min(self.side, TILE) if self.tiled else self.side) ** 2

    def resident(self, offload: Offload) -> float:
        """Weights that stay while denoising."""
        if offload == "model":
            return self.denoiser
        return self.denoiser * (1 if offload == "none" else GROUPED) + self.rest

    def peak(self, offload: Offload) -> float:
        """The most that is there at any time, for one image."""
        denoising = self.resident(offload) + self.denoising
        decoding = self.rest + self.decoding + (self.denoiser if offload == "none" else 0)
        return max(denoising, decoding)


def plan(
    sizes: Mapping[str, int],
    *,
    device: str,
    free_bytes: int,
    total: int,
    size_px: int,
    profile: str = "auto",
    dtype: Dtype | None = None,
    gpu_dtype: Dtype | None = None,
    widths: Mapping[str, float] | None = None,
    decoder: str = "",
    guided: bool = True,
    offload: str | None = None,
    quantise: str | None = None,
    compile: bool | None = None,
    tiling: bool | None = None,
) -> Memory:
    """How a model of these components (name -> bytes as stored) is run; IsekaiError in one line.

    `free_bytes` and `total` are the device's, on a CPU those of the machine. `dtype` is what the
    user asks for, `gpu_dtype` what the model is run in on a GPU. `widths` tells how many bytes a
    parameter takes as stored (2 where unknown), `decoder` the class of the VAE, `guided` whether
    each image is denoised twice a step. `offload`, `quantise`, `compile` and `tiling` are the
    user's word where they aren't None.
    """
    kind = device.partition(":")[0]
    _check(kind, profile, dtype, offload, quantise)
    card = min(total, PROFILES[profile]) if profile in PROFILES else total
    room, now = _room(card), _room(min(card, free_bytes))
    chosen: Dtype = dtype or ("float32" if kind == "cpu" else gpu_dtype or "bfloat16")
    needs = _needs(sizes, widths or {}, chosen, size_px, decoder, guided)
    small = _quantise(kind, quantise, offload, needs, room)
    needs = replace(needs, denoiser=needs.denoiser * QUANTISED[small])
    tiled = kind != "cpu" and needs.rest + needs.decoding > room if tiling is None else tiling
    needs = replace(needs, tiled=tiled)
    if kind == "cpu" and needs.texts > room:
        raise IsekaiError(
            f"{device}: reading prompts takes about {_gigabytes(needs.texts)} of memory, and "
            f"{_gigabytes(room)} can be used; take a model with a smaller text encoder"
        )
    where = _offload(device, offload, needs, small, room, now)
    return Memory(
        device=device,
        dtype=chosen,
        offload=where,
        quantise=small,
        vae_slicing=True,
        vae_tiling=tiled,
        channels_last=kind == "cuda" and "unet" in sizes,
        compile=(kind, where, small) == ("cuda", "none", "none") and card >= COMPILES
        if compile is None
        else compile,
        text_device=device if needs.texts <= room else "cpu",
        batch_limit=_batch_limit(kind, needs, where, now),
        room=now,
    )


def _check(
    kind: str, profile: str, dtype: str | None, offload: str | None, quantise: str | None
) -> None:
    """IsekaiError for what no device of this kind can do."""
    for name, value, known in (
        ("memory", profile, (*PROFILES, "auto")),
        ("offload", offload, get_args(Offload)),
        ("quantise", quantise, get_args(Quantise)),
    ):
        if value is not None and value not in known:
            near = did_you_mean(value, known).replace(", ".join(sorted(known)), ", ".join(known))
            raise IsekaiError(f"{name}={value}: not one of these{near}")  # cards in order of size
    if kind == "cpu" and dtype == "float16":
        raise IsekaiError("dtype=float16: not supported here on a CPU; take float32 or bfloat16")
    if kind != "cuda" and offload not in (None, "none"):
        raise IsekaiError(
            f"offload={offload}: weights wait in the machine's memory for a CUDA device, and "
            f"{kind} has no other; leave it out"
        )
    if quantise in (None, "none"):
        return
    if kind != "cuda":
        raise IsekaiError(f"quantise={quantise}: takes a CUDA device, not {kind}; leave it out")
    if find_spec("bitsandbytes") is None:
        raise IsekaiError(f"quantise={quantise}: takes the package bitsandbytes; pip install it")
    if offload == "group":
        raise IsekaiError(f"quantise={quantise} goes with offload=none or model, not with group")


def _room(size: int) -> int:
    return max(0, int(size * FREE) - SPARE)


def _needs(
    sizes: Mapping[str, int],
    widths: Mapping[str, float],
    dtype: Dtype,
    size_px: int,
    decoder: str,
    guided: bool,
) -> _Needs:
    item = ITEM[dtype]
    taken = {name: size / widths.get(name, 2) * item for name, size in sizes.items()}
    texts = {name for name in taken if name.startswith("text_encoder")}
    denoisers = {name for name in taken if name.startswith(("unet", "transformer", "prior"))}
    values = DECODE.get(decoder, max(DECODE.values()))
    upcast = 4 if dtype == "float16" else item  # what some VAEs decode in, to stay finite
    return _Needs(
        texts=sum(taken[name] for name in texts),
        denoiser=sum(taken[name] for name in denoisers),
        rest=sum(taken[name] for name in taken.keys() - texts - denoisers),
        denoise=DENOISE["unet" if "unet" in sizes else "transformer"] * item * (1 + guided),
        decode=values * upcast,
        side=size_px,
    )


def _quantise(
    kind: str, asked: str | None, offload: str | None, needs: _Needs, room: int
) -> Quantise:
    if asked is not None:
        return cast(Quantise, asked)
    wanted = kind == "cuda" and offload != "group" and room < needs.denoiser / 2
    return "nf4" if wanted and find_spec("bitsandbytes") else "none"


def _offload(
    device: str, asked: str | None, needs: _Needs, quantised: Quantise, room: int, now: int
) -> Offload:
    """The first that fits. IsekaiError if none does, with what would."""
    if asked is not None:
        return cast(Offload, asked)
    ways: tuple[Offload, ...] = ("none",)
    if device.startswith("cuda"):
        ways = ("none", "model") if quantised != "none" else ("none", "model", "group")
    for way in ways:
        if needs.peak(way) <= now:
            return way
    least = needs.peak(way)
    told = f"{device}: drawing {needs.side} px takes about {_gigabytes(least + 5e7)} of memory, and"
    if least <= room:
        raise IsekaiError(
            f"{told} {_gigabytes(now)} are free now; stop what else needs it, or draw smaller"
        )
    sides = range((needs.side - 1) // 64 * 64, 255, -64)
    fits = next((side for side in sides if replace(needs, side=side).peak(way) <= room), 0)
    advice = f"--size {fits} would fit" if fits else "take a smaller model"
    raise IsekaiError(f"{told} {_gigabytes(room)} can be used; {advice}")


def _batch_limit(kind: str, needs: _Needs, offload: Offload, now: int) -> int:
    """As many images as their activations leave room for."""
    images = (now - needs.resident(offload)) // max(1, needs.denoising)
    return int(min(max(1, images), BATCH.get(kind, BATCH["cpu"])))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
