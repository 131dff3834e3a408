"""Ranking and greedy answers by the plain rule, and as upstream's code does it with its faults.

The runtime gives the same numbers faster; this is what its are measured by, and what explains
published ones.
"""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from model_adapters.flamingo.crossing import Sight, last_seen
from model_adapters.flamingo.model import Flamingo


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Rows of tokens, filled up on the left, with their pictures."""

    tokens: Tensor
    """[rows, tokens]."""
    mask: Tensor
    """[rows, tokens]: 0 where a row is filled up."""
    media: Tensor
    """[rows, pictures, latents, width]; a row with fewer is filled up at its end."""
    image: int
    """The token that marks a picture."""

    @property
    def sight(self) -> Sight:
        return Sight(
            media=self.media, index=last_seen(self.tokens, self.image, self.media.shape[1])
        )


@torch.inference_mode()
def rank(model: Flamingo, prompt: Prompt, labels: Sequence[Sequence[int]]) -> Tensor:
    """[rows, labels]: the log-likelihood of each label's tokens behind each prompt, in sum."""
    return torch.stack([_foretold(model, prompt, label) for label in labels], dim=1)


def _foretold(model: Flamingo, prompt: Prompt, label: Sequence[int]) -> Tensor:
    ids = _repeated(label, prompt)
    sight = prompt.sight
    logits = model.read(
        torch.cat([prompt.tokens, ids], dim=1),
        sight.then(_onwards(sight.index, ids.shape[1])),
        attention_mask=_longer(prompt.mask, ids.shape[1]),
        use_cache=False,
    ).logits[:, -ids.shape[1] - 1 : -1]
    return _picked(logits, ids)


@torch.inference_mode()
def rank_cached(
    model: Flamingo,
    prompt: Prompt,
    labels: Sequence[Sequence[int]],
    *,
    in_place: bool,
    skip: int = 0,
) -> Tensor:
    """[rows, labels]: as OpenFlamingo's evaluation ranks by default, with its two faults.

    It reads the prompt into a cache and the labels behind it without a mask, so that rows which
    are filled up attend to the filling. And `in_place`, where its language model appends to the
    cache that it is given (MPT and MosaicGPT), each label also follows all labels before it.
    The first `skip` tokens of each label are read and not counted.
    """
    sight, cache = prompt.sight, DynamicCache(config=model.decoder.config)
    first = _read(model, prompt.tokens, sight, cache, _twice(prompt.mask, model.dtype))[:, -1:]
    found = []
    for label in labels:
        ids = _repeated(label, prompt)
        after = sight.then(_onwards(sight.index, 1)[:, -1:])
        logits, behind = [first], cache if in_place else copy.deepcopy(cache)
        for place in range(ids.shape[1]):
            logits.append(_read(model, ids[:, place : place + 1], after, behind, None))
        found.append(_picked(torch.cat(logits[:-1], dim=1)[:, skip:], ids[:, skip:]))
    return torch.stack(found, dim=1)


@torch.inference_mode()
def say(
    model: Flamingo,
    prompt: Prompt,
    *,
    most: int,
    stops: frozenset[int],
    barred: frozenset[int] = frozenset(),
    blind: bool = False,
) -> list[list[int]]:
    """The likeliest tokens, one after another, until one of `stops` or so many: without the stop.

    `blind` is Otter's fault with a cache: its own tokens see no picture.
    """
    sight, cache = prompt.sight, DynamicCache(config=model.decoder.config)
    after = sight.then(_onwards(sight.index, 1)[:, -1:])
    if blind:
        after = sight.then(torch.full_like(after.index, -1))
    said: list[list[int]] = [[] for _ in prompt.tokens]
    going = [True] * len(said)
    mask = prompt.mask
    logits = _read(model, prompt.tokens, sight, cache, mask)[:, -1]
    for _ in range(most):
        if barred:
            logits[:, sorted(barred)] = -torch.inf
        chosen = logits.argmax(dim=-1)
        for row, token in enumerate(chosen.tolist()):
            going[row] = going[row] and token not in stops
            said[row] += [token] if going[row] else []
        if not any(going):
            break
        mask = _longer(mask, 1)
        logits = _read(model, chosen[:, None], after, cache, mask)[:, -1]
    return said


def _read(
    model: Flamingo, tokens: Tensor, sight: Sight, cache: DynamicCache, mask: Tensor | None
) -> Tensor:
    known = inspect.signature(model.decoder.forward).parameters
    called = "cache" if "cache" in known else "past_key_values"
    options = {called: cache, "attention_mask": mask, "use_cache": True}
    logits: Tensor = model.read(tokens, sight, **options).logits
    return logits


def _repeated(label: Sequence[int], prompt: Prompt) -> Tensor:
    return torch.tensor([list(label)], device=prompt.tokens.device).expand(len(prompt.tokens), -1)


def _onwards(index: Tensor, more: int) -> Tensor:
    """More tokens, which see what the last one sees."""
    return torch.cat([index, index[:, -1:].expand(-1, more)], dim=1)


def _longer(mask: Tensor, more: int) -> Tensor:
    return torch.cat([mask, mask.new_ones(len(mask), more)], dim=1)


def _twice(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """[rows, 1, tokens, tokens], to add to scores: the mask as GPT-NeoX had it in 2023.

    Later tokens and filling are masked each by the lowest number there is, which adds up to minus
    infinity for what is both. It decides what the filling's own rows come to, and these are what
    labels attend to when the mask is left out.
    """
    lowest = torch.finfo(dtype).min
    tokens = mask.shape[1]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=mask.device).triu(1)
    filling = (mask == 0)[:, None, None, :]
    zero = torch.zeros((), dtype=dtype, device=mask.device)
    return torch.where(later, lowest, zero) + torch.where(filling, lowest, zero)


def _picked(logits: Tensor, ids: Tensor) -> Tensor:
    told = logits.float().log_softmax(dim=-1)
    return told.gather(2, ids[..., None])[..., 0].sum(dim=-1)
