"""The tokenizer that LCL's checkpoints were trained with: text in pieces, each with its own blank.

It is the slow LLaMA tokenizer of transformers 4.29 over the checkpoint's own sentencepiece model.
The tokenizers of transformers 5 encode the same texts otherwise.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from isekai.errors import DataError
from isekai.files import explained, parse, read_json

PAD, BOS, EOS = 0, 1, 2
_SPECIAL = {"<unk>": PAD, "<s>": BOS, "</s>": EOS}
_MODEL, _ADDED = "tokenizer.model", "added_tokens.json"

_TIDY = (".", "?", "!", ",", "' ", "n't", "'m", "'s", "'ve", "'re")
"""What stands without a blank before it, in the order of `clean_up_tokenization_spaces` of
transformers; a lone apostrophe has none behind it either."""

FILES = (_MODEL, _ADDED)
"""What is read of a checkpoint's folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """The ids of the tokens that stand for a picture: start, one for each patch, end."""

    start: int
    patch: int
    end: int

    def slot(self, patches: int) -> str:
        """The text in the place of a picture."""
        return f"<im_start>{'<im_patch>' * patches}<im_end>"


class Tokens:
    """The tokenizer of a checkpoint's folder; DataError, in one line, where it isn't LCL's."""

    def __init__(self, folder: Path) -> None:
        self._pieces = _sentencepieces(folder / _MODEL)
        known: int = self._pieces.vocab_size()
        added = read_json(folder / _ADDED, dict[str, int])
        names = {f"<im_{one}>" for one in ("start", "patch", "end")}
        if set(added) != names or sorted(added.values()) != list(range(known, known + len(names))):
            raise DataError(
                f"{folder / _ADDED}: expected {', '.join(sorted(names))} with the {len(names)} ids "
                f"from {known} on, which {_MODEL} leaves free; take the files of one checkpoint"
            )
        self.marks = parse(Marks, {name[4:-1]: id for name, id in added.items()}, _ADDED)
        self.size = known + len(added)
        """Rows that the language model's vocabulary needs."""
        self._added = {id: name for name, id in added.items()}
        self._apart = {**_SPECIAL, **added}
        self._names = {id: name for name, id in self._apart.items()}
        self._split = re.compile(f"({'|'.join(map(re.escape, self._apart))})")

    @property
    def pictures(self) -> frozenset[int]:
        return frozenset(self._added)

    def reserved(self, text: str) -> str:
        """The first token's name that the text spells out, or nothing: it would be read as one."""
        found = self._split.search(text)
        return found[0] if found else ""

    def encode(self, text: str, *, opens: bool = True) -> list[int]:
        """`<s>` if it opens a piece, and the ids of the text.

        What stands between two named tokens is encoded by itself and so begins with a blank of its
        own. White space beside a token of a picture is lost.
        """
        ids = [BOS] if opens else []
        parts = self._split.split(text)  # names at the odd places
        for place, part in enumerate(parts):
            if place % 2:
                ids.append(self._apart[part])
                continue
            before, after = parts[place - 1 : place], parts[place + 1 : place + 2]
            part = part.lstrip() if self._is_picture(before) else part
            part = part.rstrip() if self._is_picture(after) else part
            ids += self._pieces.encode(part)
        return ids

    def decode(self, ids: Sequence[int], *, special: bool = False, tidy: bool = True) -> str:
        """The text of ids, with the named tokens of sentencepiece if `special` ones are wanted.

        `tidy` takes blanks off before full stops and the like. With both, it is what the released
        metric reads; with `tidy` alone, what the released code keeps of an answer.
        """
        told: list[str] = []
        run: list[int] = []
        for id in ids:
            if id in self._added:
                told += [*([self._run(run)] if run else []), self._added[id]]
                run = []
            elif special or id not in _SPECIAL.values():
                run.append(id)
        text = " ".join([*told, *([self._run(run)] if run else [])])
        for mark in _TIDY if tidy else ():
            text = text.replace(f" {mark}", mark.strip())
        return text

    def _run(self, ids: Sequence[int]) -> str:
        """Ids without a picture's. Words that a special token follows get a blank in front."""
        told = ""
        words: list[int] = []
        for id in ids:
            if id in _SPECIAL.values():
                told += (" " if words else "") + self._pieces.decode(words) + self._names[id]
                words = []
            else:
                words.append(id)
        return told + str(self._pieces.decode(words))

    def _is_picture(self, part: Sequence[str]) -> bool:
        return bool(part) and self._apart.get(part[0]) in self._added


def _sentencepieces(path: Path) -> SentencePieceProcessor:
    pieces = SentencePieceProcessor()
    try:
        with explained(path):
            data = path.read_bytes()
        pieces.LoadFromSerializedProto(data)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; get the whole checkpoint") from None
    except RuntimeError:
        raise DataError(f"{path}: no model of sentencepiece; get it again") from None
    if (pieces.unk_id(), pieces.bos_id(), pieces.eos_id()) != (PAD, BOS, EOS):
        raise DataError(f"{path}: <unk>, <s>, </s> aren't 0, 1, 2; no tokenizer of LLaMA")
    return pieces
