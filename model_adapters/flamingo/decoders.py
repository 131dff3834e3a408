"""The language models behind Flamingos: their native classes, and how checkpoints name them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MptConfig,
    MptForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from isekai.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One kind of language model."""

    name: str
    network: type[PreTrainedModel]
    layers: str
    """Where its decoder layers are, in the network and in checkpoints."""
    embedding: str
    """The table of tokens, as checkpoints name it."""
    spelled: tuple[tuple[str, str], ...] = ()
    """What checkpoints call a thing other than the network does: network's pattern, theirs."""

    def key(self, name: str) -> str:
        """The network's parameter as checkpoints name it."""
        for ours, theirs in self.spelled:
            name = re.sub(ours, theirs, name)
        return name

    def decoder_layers(self, network: PreTrainedModel) -> nn.ModuleList:
        found: Any = network.get_submodule(self.layers)
        layers: nn.ModuleList = found
        return layers


class NormedMpt(MptForCausalLM):  # type: ignore[no-untyped-call]  # as transformers leaves it
    """MPT with queries and keys normalised over their whole width, before heads are told apart."""

    def __init__(self, config: MptConfig) -> None:
        super().__init__(config)
        blocks: Any = self.transformer.blocks
        for block in blocks:
            block.attn.Wqkv = _NormedProjection(config.hidden_size, config.layer_norm_epsilon)


class _NormedProjection(nn.Linear):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__(width, 3 * width, bias=False)
        self.q_ln = nn.LayerNorm(width, eps=epsilon, bias=False)
        self.k_ln = nn.LayerNorm(width, eps=epsilon, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        query, key, value = super().forward(hidden).chunk(3, dim=-1)
        return torch.cat([self.q_ln(query), self.k_ln(key), value], dim=-1)


_NORMS = ((r"\.Wqkv\.(q_ln|k_ln)\.", r".\1."),)
_MPT = Family(
    name="mpt",
    network=MptForCausalLM,
    layers="transformer.blocks",
    embedding="transformer.wte.weight",
)
_NORMED_MPT = replace(_MPT, network=NormedMpt, spelled=_NORMS)
_MOSAIC = replace(
    _MPT,
    name="mosaic_gpt",
    network=NormedMpt,
    spelled=(
        *_NORMS,
        (r"\.norm_([12])\.", r".ln_\1."),
        (r"\.ffn\.up_proj\.", ".mlp.mlp_up."),
        (r"\.ffn\.down_proj\.", ".mlp.mlp_down."),
        (r"\.norm_f\.", ".ln_f."),
    ),
)
_NEOX = Family(
    name="gpt_neox",
    network=GPTNeoXForCausalLM,
    layers="gpt_neox.layers",
    embedding="gpt_neox.embed_in.weight",
    spelled=((r"^lm_head\.", "embed_out."),),
)
_LLAMA = Family(
    name="llama",
    network=LlamaForCausalLM,
    layers="model.layers",
    embedding="model.embed_tokens.weight",
)


def family(config: Mapping[str, Any], where: str) -> Family:
    """The family that a configuration describes. DataError for one that no Flamingo is built on."""
    kind = config.get("model_type")
    if kind == "mpt":
        return _NORMED_MPT if _attention(config).get("qk_ln") else _MPT
    if kind == "mosaic_gpt":
        return _MOSAIC if config.get("attn_qk_ln") else replace(_MOSAIC, network=MptForCausalLM)
    if kind == "gpt_neox":
        return _NEOX
    # Otter picks LLaMA by this name alone: its configuration may hold nothing else.
    if kind == "llama" or "llama" in str(config.get("_name_or_path", "")).lower():
        return _LLAMA
    raise DataError(
        f"{where}: its language model is of the kind '{kind}'; Flamingos are built on mpt, "
        "mosaic_gpt, gpt_neox and llama"
    )


def configuration(
    family: Family, config: Mapping[str, Any], rows: int, where: str
) -> PretrainedConfig:
    """The network's own configuration, for a table of so many tokens.

    DataError with all that the network can't do and upstream's could.
    """
    try:
        return _configuration(family, config, rows, where)
    except DataError:
        raise
    except Exception as error:  # the library checks what it is given, by errors of any class
        told = " ".join(str(error).split())[:200]
        raise DataError(f"{where}: describes no {family.name} that can be run ({told})") from error


def _configuration(
    family: Family, config: Mapping[str, Any], rows: int, where: str
) -> PretrainedConfig:
    if family.layers == _MPT.layers:
        return _mpt(family, config, rows, where)
    if family is _NEOX:
        return GPTNeoXConfig(**_named(config, _NEOX_WORDS), vocab_size=rows)
    return LlamaConfig(**_named(config, _LLAMA_WORDS), vocab_size=rows)


def tied(family: Family, config: Mapping[str, Any]) -> bool:
    """Whether the output is the table of tokens itself."""
    return family.layers == _MPT.layers or bool(config.get("tie_word_embeddings", False))


_ROTARY = ("max_position_embeddings", "rope_scaling", "rope_parameters", "tie_word_embeddings")
_SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_NEOX_WORDS = (
    *_SHAPE,
    *_ROTARY,
    *("hidden_act", "layer_norm_eps", "use_parallel_residual", "attention_bias"),
    *("rotary_emb_base", "rotary_pct"),
)
_LLAMA_WORDS = (
    *_SHAPE,
    *_ROTARY,
    *("num_key_value_heads", "hidden_act", "rms_norm_eps", "rope_theta", "attention_bias"),
)


def _named(config: Mapping[str, Any], words: tuple[str, ...]) -> dict[str, Any]:
    return {word: config[word] for word in words if config.get(word) is not None}


def _attention(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """MPT's options of attention; MosaicGPT has them at its top, with a prefix to their names."""
    told = config.get("attn_config")
    if isinstance(told, Mapping):
        return told
    flat = {key.removeprefix("attn_"): value for key, value in config.items()}
    return {
        word: flat[word]
        for word in ("alibi", "alibi_bias_max", "qk_ln", "clip_qkv", "softmax_scale", "prefix_lm")
        if word in flat
    }


def _mpt(family: Family, config: Mapping[str, Any], rows: int, where: str) -> PretrainedConfig:
    attention = _attention(config)
    heads = config.get("n_heads", MptConfig.n_heads)
    told = {
        "alibi": (attention.get("alibi", True), True),
        "alibi_bias_max": (attention.get("alibi_bias_max", 8), 8),
        "attn_type": (attention.get("attn_type", "multihead_attention"), "multihead_attention"),
        "prefix_lm": (attention.get("prefix_lm", False), False),
        "logit_scale": (config.get("logit_scale"), None),
        "no_bias": (config.get("no_bias", True), True),
        "expansion_ratio": (config.get("expansion_ratio", config.get("mlp_ratio", 4)), 4),
    }
    if issubclass(family.network, NormedMpt):
        told["clip_qkv"] = (attention.get("clip_qkv"), None)
    if family.name == "mosaic_gpt":
        # It has no rule for other numbers, where MPT interleaves the slopes of the next power.
        told["n_heads"] = (heads, 2 ** (heads.bit_length() - 1))
    problems = [
        f"{where}: the language model's {word} is {given}; only {known} can be run"
        for word, (given, known) in told.items()
        if given != known
    ]
    if problems:
        raise DataError("\n".join(problems))
    return MptConfig(
        **_named(config, ("d_model", "n_heads", "n_layers", "max_seq_len", "layer_norm_epsilon")),
        attn_config=_named(attention, ("clip_qkv", "softmax_scale")),
        vocab_size=rows,
    )
