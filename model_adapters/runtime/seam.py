"""What the runtime has to know of a model: its pieces, its images and its decoder.

A model says how an episode becomes pieces of tokens (`pieces`), what an image becomes (`encode`),
and what the decoder reads in the place of tokens (`embed`). All else is the runtime's: it
encodes each image once, reads the support set once, and asks all queries and labels behind it.

Images reach a decoder in one of two ways. Spliced models (LLaVA, Shikra) answer `embed` with rows
that hold the image's features at its tokens: nothing more is needed. Cross-attending models
(Flamingo) answer `embed` with the tokens' embeddings alone, say in `Piece.marks` where each image
begins, and are `Looking`: around every forward the runtime tells them which image each token sees.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor
from transformers import PreTrainedModel

from isekai.types import EncodedImage, Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Tokens that always stand together: one support turn, or one query."""

    ids: tuple[int, ...]
    """One for each position that the decoder sees, those that an image takes included."""
    images: tuple[EncodedImage, ...] = ()
    """In the order in which they are shown; those whose features nobody looks at are left out."""
    marks: tuple[int, ...] = ()
    """For cross-attending decoders: at which token each image begins to be seen, ascending.

    The token itself sees it already, and so do all after it until the next mark, in later pieces
    too. Tokens before a piece's first mark see the image that the piece before it ends with.
    """
    positions: Tensor | None = None
    """[axes, len(ids)] from the piece's beginning, for rotary embeddings with several axes; None
    counts the tokens."""
    span: int | None = None
    """How many positions the piece takes; None for one a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """What a label looks like as an answer, right behind a query's last token."""

    ids: tuple[int, ...]
    skip: int = 0
    """So many tokens at its beginning are read but not counted: `there is "`, for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """A sweep in tokens. The prompt of a cut is `opening + support[:cut] + a query`, and no more.

    So a query can't have other tokens behind one cut than behind another. What begins every prompt
    (a first token, the instruction) is the opening's.
    """

    opening: Piece | None
    support: tuple[Piece, ...]
    queries: tuple[Piece, ...]
    labels: Mapping[str, Continuation] = field(default_factory=dict)
    """Every label of the sweep, in its order; the tokens as they follow a demonstration's."""


@runtime_checkable
class Decoder(Protocol):
    """A local model as the runtime sees it."""

    @property
    def model(self) -> PreTrainedModel:
        """A causal language model of transformers in eval mode.

        It is called with `inputs_embeds`, `position_ids`, `use_cache` and `logits_to_keep`. The
        runtime changes how it attends for the time of its own forwards, and only then.
        """

    @property
    def context(self) -> int | None:
        """The most tokens that the model reads; None for no limit. Longer prompts are refused."""

    @property
    def stops(self) -> frozenset[int]:
        """Tokens that end an answer."""

    @property
    def barred(self) -> frozenset[int]:
        """Tokens that an answer must not hold, such as OpenFlamingo's `<image>`."""

    def pieces(self, sweep: Sweep) -> Pieces: ...

    def encode(self, images: Sequence[EncodedImage]) -> Sequence[Tensor]:
        """What the model makes of each image by itself, on its device: called once an image.

        The runtime keeps it (`features.py`), so it must depend on nothing but the image.
        """

    def embed(self, piece: Piece, features: Sequence[Tensor]) -> Tensor:
        """[len(piece.ids), width] on the model's device; `features` has one for each image."""

    def text(self, ids: Sequence[int]) -> str:
        """The answer that these tokens spell, without what ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Which image each token of one forward sees."""

    media: Tensor
    """[rows, images, ...]: what `encode` gave for the images that the tokens of a row see. Rows
    that see fewer images are filled up with zeros, to which no index points. `images` may be 0."""
    index: Tensor
    """[rows, tokens], long: the image of `media` that a token sees; -1 for none.

    OpenFlamingo's mask of text_time is `index == image`, and rows of -1 get exactly nothing."""
    generated: Tensor
    """[rows, tokens], bool: the token is the model's own answer, not of the episode; a label that
    is ranked is not. What Otter's cache quirk is about."""


@runtime_checkable
class Looking(Protocol):
    """A decoder that sees images by cross attention; all its features have one shape."""

    def looking(self, look: Look) -> AbstractContextManager[None]:
        """While it lasts, the decoder's layers attend to this; forwards do not nest."""


def alike(one: Sequence[int], other: Sequence[int]) -> int:
    """How many token ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
