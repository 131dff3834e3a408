"""Puts the cascade under the attention of a model of transformers while the runtime is in it.

Models whose attention goes through transformers' `AttentionInterface` are pointed at one of ours
for the time of a forward; MPT computes its own, so each of its attention modules is given a forward
that asks whether there is a frame. Outside of a frame all of them do what they did before.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig, PreTrainedModel
from transformers.models.mpt.modeling_mpt import MptAttention

from model_adapters.runtime.attention import Frame, Unsupported, cascade, current, framed

NAME = "isekai_cascade"
"""No mask is registered under it, so transformers makes none."""


class Wiring:
    """Unsupported, with the reason, if the model's attention can't be reached."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._configs: list[PretrainedConfig] = []
        own = [module for module in model.modules() if isinstance(module, MptAttention)]
        for module in own:
            _give_forward(module)
        if not own:
            self._configs = _read_by_attention(model)
            AttentionInterface.register(NAME, _attention)

    @contextmanager
    def framed(self, frame: Frame) -> Iterator[None]:
        """Forwards inside attend to this frame."""
        before = [config._attn_implementation for config in self._configs]
        try:
            for config in self._configs:
                config._attn_implementation = NAME
            with framed(frame):
                yield
        finally:
            for config, implementation in zip(self._configs, before, strict=True):
                config._attn_implementation = implementation


def _give_forward(module: MptAttention) -> None:
    given = vars(module).get("forward")
    if isinstance(given, partial) and given.func is _mpt:
        return
    if given is not None:
        raise Unsupported("its attention has been given another forward, as for several devices")
    vars(module)["forward"] = partial(_mpt, module)


def _read_by_attention(model: PreTrainedModel) -> list[PretrainedConfig]:
    """Where the decoder's layers look up how to attend."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "layer_idx")]
    configs = {id(one.config): one.config for one in layers if hasattr(one, "config")}
    if not configs or not model._can_set_attn_implementation():
        raise Unsupported(f"{type(model).__name__} computes attention in code of its own")
    return list(configs.values())


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    frame = current()
    assert frame is not None
    _refuse(module, frame.positions, others)
    layer: Any = module.layer_idx
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return cascade(frame, layer, query, key, value, scale=scale).contiguous(), None


def _refuse(module: nn.Module, positions: Tensor, others: dict[str, Any]) -> None:
    """Whatever else a model asks of attention is either done or told: never left out."""
    if not getattr(module, "is_causal", True) or others.get("is_causal") is False:
        raise Unsupported("a layer attends to later tokens, too")
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise Unsupported(f"its attention takes '{name}'")
    if others.get("dropout"):
        raise Unsupported("it is in training mode")
    window = others.get("sliding_window")
    if window is not None and int(positions.max()) >= window:
        raise Unsupported(f"a layer sees only the last {window} tokens, and prompts are longer")


def _mpt(
    module: MptAttention,
    hidden_states: Tensor,
    position_bias: Tensor,
    *given: Any,
    **named: Any,
) -> tuple[Tensor, Tensor | None]:
    frame = current()
    if frame is None:
        plain: Callable[..., tuple[Tensor, Tensor]] = type(module).forward
        return plain(module, hidden_states, position_bias, *given, **named)
    rows, tokens = hidden_states.shape[:2]
    mixed = module.Wqkv(hidden_states)
    if module.clip_qkv:
        mixed = mixed.clamp(min=-module.clip_qkv, max=module.clip_qkv)
    query, key, value = (
        part.reshape(rows, tokens, module.n_heads, module.head_dim).transpose(1, 2)
        for part in mixed.chunk(3, dim=2)
    )
    slopes = position_bias[:, 0, -1] - position_bias[:, 0, -2]
    layer: Any = module.layer_idx
    scale: Any = module.softmax_scale
    out = cascade(frame, layer, query, key, value, scale=scale, slopes=slopes)
    return module.out_proj(out.reshape(rows, tokens, -1)), None
