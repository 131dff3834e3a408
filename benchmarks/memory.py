"""What activations take: the peak of live tensors in decoders and denoisers of published models.

    python benchmarks/memory.py

The networks are built with the widths of the published ones and run on tensors without content
(`FakeTensorMode`), so neither weights nor a GPU are needed; memory that kernels take for themselves
is not counted. The last figure of a line is that of values an image and pixel: these are the
constants of `isekai/sources/diffusers/memory.py`.
"""

import gc
import warnings
import weakref

import diffusers
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside it and still live; weights aside."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {one.untyped_storage()._cdata for one in network.parameters()}

    def __torch_dispatch__(self, function, types, given=(), named=None):
        out = function(*given, **(named or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


SD = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SANA = {
    "latent_channels": 32,
    "attention_head_dim": 32,
    "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    "encoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "decoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3, 3, 3, 3, 3, 3),
    "encoder_qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
    "decoder_qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
    "downsample_block_type": "Conv",
    "upsample_block_type": "interpolate",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
}
DECODERS = {  # channels of a latent, how much smaller it is, and the VAE by its config.json
    "SD 1.5, SDXL": (4, 8, lambda: diffusers.AutoencoderKL(**SD, latent_channels=4)),
    "SD 3, FLUX.1, Z-Image": (16, 8, lambda: diffusers.AutoencoderKL(**SD, latent_channels=16)),
    "FLUX.2": (32, 8, lambda: diffusers.AutoencoderKLFlux2()),
    "Qwen-Image": (16, 8, lambda: diffusers.AutoencoderKLQwenImage()),
    "Sana": (32, 32, lambda: diffusers.AutoencoderDC(**SANA)),
}


def sdxl(side: int, batch: int):
    unet = diffusers.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        use_linear_projection=True,
    )
    more = {"text_embeds": torch.zeros(batch, 1280), "time_ids": torch.zeros(batch, 6)}
    latent = torch.zeros(batch, 4, side // 8, side // 8)
    texts = torch.zeros(batch, 77, 2048)
    return lambda: unet(latent, torch.tensor(1), texts, added_cond_kwargs=more), unet


def flux(side: int, batch: int):
    transformer = diffusers.FluxTransformer2DModel()
    tokens = (side // 16) ** 2
    given = {
        "hidden_states": torch.zeros(batch, tokens, 64),
        "encoder_hidden_states": torch.zeros(batch, 512, 4096),
        "pooled_projections": torch.zeros(batch, 768),
        "timestep": torch.zeros(batch),
        "img_ids": torch.zeros(tokens, 3),
        "txt_ids": torch.zeros(512, 3),
    }
    return lambda: transformer(**given), transformer


def flux2(side: int, batch: int):
    transformer = diffusers.Flux2Transformer2DModel(
        num_layers=5,
        num_single_layers=20,
        num_attention_heads=24,
        joint_attention_dim=7680,
        guidance_embeds=False,
    )
    tokens = (side // 16) ** 2
    given = {
        "hidden_states": torch.zeros(batch, tokens, 128),
        "encoder_hidden_states": torch.zeros(batch, 512, 7680),
        "timestep": torch.zeros(batch),
        "img_ids": torch.zeros(tokens, 4),
        "txt_ids": torch.zeros(512, 4),
    }
    return lambda: transformer(**given, guidance=None), transformer


DENOISERS = {"SDXL": sdxl, "FLUX.1": flux, "FLUX.2 klein 4B": flux2}


def peak(run, network: torch.nn.Module) -> int:
    live = Live(network)
    with torch.no_grad(), live:
        run()
    gc.collect()
    return live.peak


def decoding(name: str, side: int) -> int:
    channels, shrinks, make = DECODERS[name]
    frames = (1,) if name == "Qwen-Image" else ()
    with FakeTensorMode():
        vae = make()
        latent = torch.zeros(1, channels, *frames, side // shrinks, side // shrinks)
        return peak(lambda: vae.decode(latent), vae)


def denoising(name: str, side: int, batch: int) -> int:
    with FakeTensorMode():
        return peak(*DENOISERS[name](side, batch))


def main() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        torch.set_default_dtype(dtype)
        for name in DECODERS:
            for side in (512, 1024):
                found = decoding(name, side)
                each = found / side**2 / dtype.itemsize
                print(f"decoding, {name}, {dtype}, {side} px: {found / 1e9:.2f} GB, {each:.0f}")
    torch.set_default_dtype(torch.bfloat16)
    for name in DENOISERS:
        for side in (512, 1024):
            one, two = (denoising(name, side, batch) for batch in (1, 2))
            each = (two - one) / side**2 / 2
            both = f"{one / 1e9:.2f} GB, {two / 1e9:.2f} GB for two"
            print(f"denoising, {name}, {side} px: {both}, {each:.0f}")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
