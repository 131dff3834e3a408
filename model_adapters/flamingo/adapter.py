"""Flamingos as models to ask: `OpenFlamingo` and `Otter`."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from isekai.errors import PluginError
from isekai.types import Response, Sweep
from model_adapters import local
from model_adapters.flamingo import openflamingo, otter, words
from model_adapters.flamingo.decoding import FlamingoDecoder
from model_adapters.flamingo.faulty import Faulty
from model_adapters.flamingo.model import Flamingo, Plan, Weights
from model_adapters.flamingo.prompts import STYLES, Answers, Placed, Prompts, Style
from model_adapters.flamingo.sizes import Sizes
from model_adapters.runtime.running import Choice, Runtime

TOWER = "openai/clip-vit-large-patch14"
"""What all of them look with; OpenFlamingo's checkpoints don't hold it."""

Tokens = Annotated[int, Field(ge=0)]


class OpenFlamingo:
    """OpenFlamingo from its files: `openflamingo:CHECKPOINT.pt -o language_model=FOLDER`.

    checkpoint       checkpoint.pt of openflamingo/OpenFlamingo-*-vitl-*
    language_model   a folder with the files of the language model that it was trained on: of
                     anas-awadalla/mpt-1b-redpajama-200b for the 3B, of
                     togethercomputer/RedPajama-INCITE-Base-3B-v1 for the 4B, of
                     anas-awadalla/mpt-7b for the 9B
    vision_tower     a folder with the files of openai/clip-vit-large-patch14, or open_clip's file
    tokenizer        a folder, if it isn't the language model's
    style            question (`Question:… Short answer:…`) or output (`Output:` and the label
                     alone), as upstream's evaluation asks and classifies
    answers          label: support turns answer with the label alone, as upstream's do; sentence:
                     as the template says
    pictures         front: of each turn's words, as in training; template: where the template says
    dtype            auto (bfloat16 on a GPU, float32 on a CPU), float16, bfloat16, float32
    device           auto (a GPU if there is one), cpu, cuda, cuda:1
    max_tokens       of an answer; 0 for none: then the likeliest label is the answer
    rank             whether labels are ranked by their likelihood, too
    way              how queries are asked: auto, packed, batched or recompute; answers are the
                     same up to rounding
    cached_ranking   labels ranked as upstream's evaluation does by default: upon MPT each of them
                     also follows the labels before it. For published numbers alone
    sizes            for models of other sizes than the published: -o 'sizes={heads = 2}'
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        language_model: Path,
        vision_tower: Path = Path(TOWER),
        tokenizer: Path | None = None,
        style: Literal["question", "output"] = "question",
        answers: Answers = "label",
        pictures: Placed = "front",
        dtype: local.DType = "auto",
        device: str = "auto",
        max_tokens: Tokens = 20,
        rank: bool = True,
        way: Choice = "auto",
        cached_ranking: bool = False,
        sizes: Sizes | None = None,
    ) -> None:
        """DataError or PluginError, a line for each thing that is wrong, for what can't be had."""
        paths = {
            "checkpoint": checkpoint,
            "language_model": language_model,
            "vision_tower": vision_tower,
            "tokenizer": tokenizer or language_model,
        }
        for what, path in paths.items():
            local.there(path, what)
        if cached_ranking and not rank:
            raise PluginError("openflamingo: cached_ranking needs rank=true")
        ready = _Ready("openflamingo", paths["tokenizer"], dtype, device)
        parts = openflamingo.read(
            checkpoint,
            language_model=language_model,
            vision_tower=vision_tower,
            sizes=sizes or Sizes(),
        )
        decoder = ready.decoder(parts, STYLES["openflamingo"][style], pictures, answers)
        self._runtime = Runtime(decoder, rank=rank, max_tokens=max_tokens, way=way)
        self._faulty = Faulty(decoder, self._runtime.features) if cached_ranking else None
        self._told = {
            **_revisions(checkpoint.resolve(), paths),
            "dtype": ready.dtype,
            "sizes": asdict(parts[0].sizes),
            "style": style,
            "answers": answers,
            "pictures": pictures,
            "cached_ranking": cached_ranking,
        }

    @property
    def provenance(self) -> Mapping[str, object]:
        return {**self._told, **self._runtime.settings}

    def probe(self, sweep: Sweep) -> None:
        self._runtime.probe(sweep)

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        responses = self._runtime.respond(sweep)
        if self._faulty is None:
            yield from responses
            return
        for response, ranked in zip(responses, self._faulty.rank(sweep), strict=True):
            said = response.text if self._runtime.settings["max_tokens"] else _likeliest(ranked)
            yield replace(response, text=said, label_logprobs=ranked)


class Otter:
    """Otter from a folder with its checkpoint: `otter:FOLDER`.

    checkpoint      a folder with the files of luodian/OTTER-Image-MPT7B or
                    luodian/OTTER-Image-LLaMA7B-LA-InContext
    tokenizer       a folder, if the checkpoint's holds none: of mosaicml/mpt-7b-instruct for MPT
    style           demo (`User: … GPT:<answer> …`), short (`… Please answer in short words. …`, as
                    its few-shot evaluation asks) or simple (as it was trained in late 2023)
    answers         label: support turns answer with the label alone, as upstream's do; sentence: as
                    the template says
    pictures        front: of each turn's words, as in training; template: where the template says
    dtype           auto (bfloat16 on a GPU, float32 on a CPU), float16, bfloat16, float32
    device          auto (a GPU if there is one), cpu, cuda, cuda:1
    max_tokens      of an answer; 0 for none: then the likeliest label is the answer
    rank            whether labels are ranked by their likelihood, too
    way             how queries are asked: auto, packed, batched or recompute; answers are the same
                    up to rounding
    cache_masking   as upstream's code answers with a cache, LLaMA's by default: from its second
                    token on an answer sees no picture. For published numbers alone
    sizes           for models of other sizes than the published: -o 'sizes={heads = 2}'
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        tokenizer: Path | None = None,
        style: Literal["demo", "short", "simple"] = "demo",
        answers: Answers = "label",
        pictures: Placed = "front",
        dtype: local.DType = "auto",
        device: str = "auto",
        max_tokens: Tokens = 20,
        rank: bool = True,
        way: Choice = "auto",
        cache_masking: bool = False,
        sizes: Sizes | None = None,
    ) -> None:
        """DataError or PluginError, a line for each thing that is wrong, for what can't be had."""
        paths = {"checkpoint": checkpoint, "tokenizer": tokenizer or checkpoint}
        for what, path in paths.items():
            local.there(path, what)
        ready = _Ready("otter", paths["tokenizer"], dtype, device)
        parts = otter.read(checkpoint, sizes=sizes or Sizes())
        how = STYLES["otter"][style], pictures, answers
        decoder = ready.decoder(parts, *how, blind=cache_masking)
        self._runtime = Runtime(decoder, rank=rank, max_tokens=max_tokens, way=way)
        self._told = {
            **_revisions(checkpoint.resolve(), paths),
            "dtype": ready.dtype,
            "sizes": asdict(parts[0].sizes),
            "style": style,
            "answers": answers,
            "pictures": pictures,
            "cache_masking": cache_masking,
        }

    @property
    def provenance(self) -> Mapping[str, object]:
        return {**self._told, **self._runtime.settings}

    def probe(self, sweep: Sweep) -> None:
        self._runtime.probe(sweep)

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        yield from self._runtime.respond(sweep)


class _Ready:
    """All that can be found out before weights are read, which takes minutes."""

    def __init__(self, kind: words.Kind, tokenizer: Path, dtype: local.DType, device: str) -> None:
        self._kind, self._tokenizer = kind, tokenizer
        self._device = local.device(device, kind)
        self.dtype = local.dtype(dtype, self._device, "bfloat16")
        self._words = words.read(tokenizer, kind)

    def decoder(
        self,
        parts: tuple[Plan, Weights],
        style: Style,
        pictures: Placed,
        answers: Answers,
        *,
        blind: bool = False,
    ) -> FlamingoDecoder:
        plan, weights = parts
        self._words.refuse_other(plan.language.vocab_size, self._kind, str(self._tokenizer))
        numbers: torch.dtype = getattr(torch, self.dtype)
        local.refuse_small(self._device, plan.whole, numbers, self._kind)
        return FlamingoDecoder(
            network=Flamingo(plan, weights, dtype=numbers, device=self._device),
            prompts=Prompts(words=self._words, style=style, placed=pictures, answers=answers),
            corner="rounded" if self._kind == "openflamingo" else "floored",
            blind=blind,
        )


def _revisions(checkpoint: Path, paths: Mapping[str, Path]) -> dict[str, str]:
    """The checkpoint's folder names the model: its file is called alike in all repositories."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    parts = {
        f"{what}_revision": local.digest([path])
        for what, path in paths.items()
        if what != "checkpoint"
    }
    return {"model": folder.name, "revision": local.digest([checkpoint]), **parts}


def _likeliest(ranked: Mapping[str, float]) -> str:
    return max(ranked, key=lambda label: ranked[label])
