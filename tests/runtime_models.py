"""Tiny decoders for the runtime: random models of transformers, and two ways to see images."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isekai.images import decode
from isekai.types import EncodedImage, Sweep, Turn
from model_adapters.runtime.seam import Continuation, Look, Piece, Pieces

VOCABULARY = 96
IMAGE_TOKENS = 3
STOP, BARRED, IMAGE = 1, 2, 3

_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def model(name: str, seed: int = 0, **changes: Any) -> Any:
    """Weights large enough for logits to differ by units."""
    import transformers

    torch.manual_seed(seed)
    mpt = {"vocab_size": VOCABULARY, "d_model": 24, "n_layers": 2, "n_heads": 4}
    settings: Mapping[str, Mapping[str, Any]] = {
        "Llama": _SHAPE,
        "GPTNeoX": _SHAPE,
        "Mpt": mpt,
        "Bloom": _SHAPE | {"n_layer": 2, "n_head": 4},
        "Mistral": _SHAPE | {"num_key_value_heads": 2, "head_dim": 8},
        "Gemma2": _SHAPE | {"num_key_value_heads": 2, "head_dim": 8},
    }
    config = getattr(transformers, f"{name}Config")(**settings[name] | changes)
    made = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    for weight in made.parameters():
        if weight.ndim > 1:
            weight.data.normal_(0, 0.25)
    return made


@dataclass(kw_only=True)
class Spliced:
    """Image features stand in the place of tokens, as in LLaVA. Words are bytes of the text."""

    model: Any
    context: int | None = None
    stops: frozenset[int] = frozenset({STOP})
    barred: frozenset[int] = frozenset({BARRED, IMAGE})
    encoded: list[str] = field(default_factory=list)
    """The ids of all images that were encoded, in order."""

    def __post_init__(self) -> None:
        torch.manual_seed(7)
        width = self.model.get_input_embeddings().embedding_dim
        self.vision = nn.Linear(3, IMAGE_TOKENS * width)

    def pieces(self, sweep: Sweep) -> Pieces:
        opening = Piece(ids=spelled(sweep.instruction)) if sweep.instruction else None
        return Pieces(
            opening=opening,
            support=tuple(self.piece(turn) for turn in sweep.support),
            queries=tuple(self.piece(turn) for turn in sweep.queries),
            labels={label: Continuation(ids=spelled(label)) for label in sweep.labels},
        )

    def piece(self, turn: Turn) -> Piece:
        before, after = turn.around
        shown = (IMAGE,) * IMAGE_TOKENS if turn.image else ()
        return Piece(
            ids=spelled(before) + shown + spelled(after + (turn.answer or "")),
            images=(turn.image,) if turn.image else (),
        )

    def encode(self, images: Sequence[EncodedImage]) -> list[Tensor]:
        self.encoded += [image.id for image in images]
        means = [
            torch.tensor(decode(image.data).resize((1, 1)).getpixel((0, 0))) / 255
            for image in images
        ]
        return list(self.vision(torch.stack(means)).unflatten(1, (IMAGE_TOKENS, -1)))

    def embed(self, piece: Piece, features: Sequence[Tensor]) -> Tensor:
        ids = torch.tensor(piece.ids)
        embeds = self.model.get_input_embeddings()(ids).clone()
        if features:
            embeds[ids == IMAGE] = torch.cat(list(features))
        return embeds

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(str(token) for token in ids)


@dataclass(kw_only=True)
class Crossed(Spliced):
    """Images are seen by a gated cross attention in front of every layer, as in Flamingo."""

    forwards: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._look: Look | None = None
        width = self.model.get_input_embeddings().embedding_dim
        self.keys = nn.Linear(width, width)
        for layer in self.layers:
            layer.register_forward_pre_hook(self._cross, with_kwargs=True)

    @property
    def layers(self) -> nn.ModuleList:
        body = self.model.base_model
        found: nn.ModuleList = getattr(body, "layers", None) or body.blocks
        return found

    def piece(self, turn: Turn) -> Piece:
        before, after = turn.around
        shown = (IMAGE,) if turn.image else ()
        return Piece(
            ids=spelled(before) + shown + spelled(after + (turn.answer or "")),
            images=(turn.image,) if turn.image else (),
            marks=(len(spelled(before)),) if turn.image else (),
        )

    def embed(self, piece: Piece, features: Sequence[Tensor]) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(torch.tensor(piece.ids))
        return embedded

    @contextmanager
    def looking(self, look: Look) -> Iterator[None]:
        assert self._look is None
        self._look = look
        self.forwards += 1
        yield
        self._look = None

    def _cross(self, layer: nn.Module, given: Any, named: Any) -> Any:
        assert self._look is not None
        hidden = given[0]
        return (hidden + crossed(hidden, self._look, self.keys), *given[1:]), named


def crossed(hidden: Tensor, look: Look, keys: nn.Module) -> Tensor:
    """Each token attends to the features of the image that it sees; without one it gets nothing."""
    if not look.media.shape[1]:
        return torch.zeros_like(hidden)
    rows, images, each, width = look.media.shape
    media = look.media.reshape(rows, images * each, width)
    of = torch.arange(images).repeat_interleave(each)
    seen = look.index.unsqueeze(2) == of
    scores = (hidden @ keys(media).transpose(1, 2)).masked_fill(~seen, -1e9)
    told = scores.softmax(dim=-1) @ media * (look.index >= 0).unsqueeze(2)
    return torch.where(look.generated.unsqueeze(2), 0.5 * told, told)


def spelled(text: str) -> tuple[int, ...]:
    return tuple(4 + ord(letter) % (VOCABULARY - 4) for letter in text)
