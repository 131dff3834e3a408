"""The parts of tiny pipelines: text encoders, decoders and checkers with random weights."""

import warnings

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


def filled(module, *, seed: int = 0):
    """The module with random weights that keep the size of what passes through them.

    Start values of most models are made to be trained: with them a prompt would tell too little.
    Gains of norms stay one; other vectors are zero, also those that start as whatever is in memory.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in module.named_parameters():
            if weights.ndim and weights[0].numel() > 1:
                weights.normal_(0, weights[0].numel() ** -0.5, generator=generator)
            elif not name.endswith(("weight", "gamma")):
                weights.zero_()
    return module.eval()


# ---------------------------------------------------------------- pictures

_KL = {
    "block_out_channels": (4, 4, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 1,
    "latent_channels": LATENTS,
    "norm_num_groups": 2,
    "sample_size": 64,
}
"""Each latent stands for 8 x 8 pixels, as in the models that these stand for."""


def vae(*, shift_factor: float | None = None, quantised: bool = True):
    return filled(
        library().AutoencoderKL(
            **_KL,
            scaling_factor=0.5,
            shift_factor=shift_factor,
            use_quant_conv=quantised,
            use_post_quant_conv=quantised,
        )
    )


def vae_flux2():
    return filled(library().AutoencoderKLFlux2(**_KL))


def vae_qwen_image():
    return filled(
        library().AutoencoderKLQwenImage(
            base_dim=4,
            z_dim=LATENTS,
            dim_mult=[1, 1, 2, 2],
            num_res_blocks=1,
            latents_mean=[0.0] * LATENTS,
            latents_std=[1.0] * LATENTS,
        )
    )


def vae_dc():
    """A deep compression autoencoder: each latent stands for 32 x 32 pixels."""
    channels, blocks = (4, 4, 4, 8, 8, 8), ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
    return filled(
        library().AutoencoderDC(
            latent_channels=LATENTS,
            attention_head_dim=4,
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_block_out_channels=channels,
            decoder_block_out_channels=channels,
            encoder_layers_per_block=(1,) * 6,
            decoder_layers_per_block=(1,) * 6,
            encoder_qkv_multiscales=((),) * 6,
            decoder_qkv_multiscales=((),) * 6,
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.5,
        )
    )


def unet(*, cross_attention_dim: int, width: int = WIDTH, numbers: int = 0):
    """A UNet of two levels; as in SDXL it is told some numbers, such as sizes, beside the text."""
    told = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 8 * numbers + WIDTH,
        "use_linear_projection": True,
    }
    return filled(
        library().UNet2DConditionModel(
            sample_size=8,
            layers_per_block=1,
            block_out_channels=(width // 2, width),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            norm_num_groups=4,
            cross_attention_dim=cross_attention_dim,
            attention_head_dim=2,
            **(told if numbers else {}),
        )
    )


def safety():
    """A checker that objects to about half of all pictures, and what prepares them for it."""
    from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessor

    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    }
    config = CLIPConfig(vision_config=vision, projection_dim=WIDTH)
    checker = filled(StableDiffusionSafetyChecker(config))
    for thresholds in (checker.concept_embeds_weights, checker.special_care_embeds_weights):
        thresholds.data.fill_(1)  # a cosine that nothing reaches
    checker.concept_embeds_weights.data[11] = 0.13  # pictures lie between 0.07 and 0.21
    return checker, CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)


# ---------------------------------------------------------------- texts


def clip(tokenizer, *, width: int = WIDTH, projected: bool = False, seed: int = 0):
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
    return filled((CLIPTextModelWithProjection if projected else CLIPTextModel)(config), seed=seed)


def t5(tokenizer, *, width: int = WIDTH):
    from transformers import T5Config, T5EncoderModel

    return filled(
        T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=width,
                d_kv=width // 2,
                d_ff=2 * width,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
            )
        )
    )


def qwen_vl(tokenizer):
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
    return filled(Qwen2_5_VLForConditionalGeneration(config))


def qwen3(tokenizer, *, layers: int, head: bool = False):
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=WIDTH // 2,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return filled((Qwen3ForCausalLM if head else Qwen3Model)(config))


def gemma(tokenizer):
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=WIDTH // 2,
        query_pre_attn_scalar=WIDTH // 2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return filled(Gemma2Model(config))
