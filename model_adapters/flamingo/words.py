"""Tokens of the two families: what they add to a language model's tokenizer, in their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AddedToken, AutoTokenizer

from isekai.errors import DataError

Kind = Literal["openflamingo", "otter"]

IMAGE = "<image>"
END = "<|endofchunk|>"
ANSWER = "<answer>"
_ADDED: dict[Kind, tuple[str, ...]] = {
    "openflamingo": (END, IMAGE),
    "otter": (END, IMAGE, ANSWER),
}
_PAD = "<PAD>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """A tokenizer with a family's tokens added to it."""

    tokenizer: Any
    image: int
    end: int
    stops: frozenset[int]
    """What ends an answer."""
    opening: tuple[int, ...]
    """What the tokenizer puts in front of every text, such as LLaMA's `<s>`."""

    def ids(self, text: str) -> tuple[int, ...]:
        """The text's tokens, without an opening."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def behind(self, before: str, text: str) -> tuple[int, ...]:
        """The tokens of `text` as they follow `before`, which has to end in a token of its own."""
        whole, head = self.ids(before + text), self.ids(before)
        if whole[: len(head)] != head:
            raise ValueError(f"the tokens of '{before}' run into those of '{text}'")
        return whole[len(head) :]

    def reserved(self, text: str) -> str:
        """The first special token that stands in a text as it is; empty if none does."""
        added = self.tokenizer.added_tokens_decoder.values()
        return next((one.content for one in added if one.special and one.content in text), "")

    def refuse_other(self, rows: int, kind: Kind, where: str) -> None:
        """DataError where a model's table of tokens can't be this tokenizer's.

        OpenFlamingo's has a row for each token. Otter's may have more: it is filled up to a round
        number.
        """
        tokens = len(self.tokenizer)
        if tokens > rows or (kind == "openflamingo" and tokens != rows):
            raise DataError(
                f"{where}: its tokenizer has {tokens} tokens and the model's table {rows} rows; "
                "give the tokenizer that the model was trained with"
            )

    def text(self, ids: Sequence[int]) -> str:
        """What the tokens spell, without special ones."""
        told: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return told


def read(folder: Path, kind: Kind) -> Words:
    """The tokenizer of a folder with the tokens of the family. DataError for what is none."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # damaged files make the library raise almost any class
        told = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{folder}: its tokenizer can't be loaded ({told})") from error
    # Made for other tokenizers, it takes away spaces that an answer has.
    tokenizer.clean_up_tokenization_spaces = False
    for token in _ADDED[kind]:
        _add(tokenizer, token)
    # A tokenizer may have its own already; then nothing is added, and nothing may be.
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": _PAD})
    found = {token: tokenizer.convert_tokens_to_ids(token) for token in _ADDED[kind]}
    ends = {found[END], tokenizer.eos_token_id} - {None}
    return Words(
        tokenizer=tokenizer,
        image=found[IMAGE],
        end=found[END],
        stops=frozenset(ends),
        opening=tuple(tokenizer("")["input_ids"]),
    )


def _add(tokenizer: Any, token: str) -> None:
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)
