"""Puts an episode into the words and tokens that LCL-Shikra was trained on."""

from isekai.errors import DataError
from isekai.types import EncodedImage, Sweep, Turn
from model_adapters.lcl_shikra.conversation import LIMIT, kept, written
from model_adapters.lcl_shikra.splice import Splice
from model_adapters.lcl_shikra.tokens import Tokens
from model_adapters.runtime.seam import Continuation, Piece, Pieces, alike

SENTENCE = ('there is "', '" in the image.')
"""Around the label in the released reference answer, for episodes that show no other."""


class Asking:
    """Writes with a checkpoint's tokens. A picture takes so many `patches`."""

    def __init__(self, tokens: Tokens, patches: int, how: Splice) -> None:
        self._tokens = tokens
        self._slot = tokens.marks.slot(patches)
        self._how = how

    def pieces(self, sweep: Sweep) -> Pieces:
        """The instruction opens the first example, as released: a query alone goes without it.

        With `last`, the pictures of the support set keep their places and are not shown.
        DataError for words that the tokenizer would read as tokens of its own.
        """
        self._refuse_marks(sweep)
        support = tuple(self._shown(sweep, place) for place in range(len(sweep.support)))
        queries = tuple(
            Piece(ids=self._cut(self._asked(sweep, turn)), images=_images(turn))
            for turn in sweep.queries
        )
        labels = {label: self._continuation(sweep, label) for label in sweep.labels}
        return Pieces(opening=None, support=support, queries=queries, labels=labels)

    def _shown(self, sweep: Sweep, place: int) -> Piece:
        turn, opening = sweep.support[place], "" if place else sweep.instruction
        ids = self._cut(written(opening, [self._question(turn), turn.answer or ""]))
        return Piece(
            ids=ids[:-1] if place else ids,  # as `joined` has it
            images=_images(turn) if self._how == "all" else (),
        )

    def _asked(self, sweep: Sweep, turn: Turn, answer: str = "") -> str:
        return written(sweep.query_instruction, [self._question(turn), answer])

    def _question(self, turn: Turn) -> str:
        before, after = turn.around
        return f"{before}{self._slot if turn.image else ''}{after}"

    def _cut(self, text: str) -> tuple[int, ...]:
        ids = self._tokens.encode(text)
        return tuple(ids[at] for at in kept(ids, LIMIT, self._tokens.pictures))

    def _continuation(self, sweep: Sweep, label: str) -> Continuation:
        """The answer up to the token behind the label, which tells `fox` from `fox terrier`.

        What comes before the label is read and not counted.
        """
        before, after = sentence(sweep)
        turn = sweep.queries[0]
        asked, *told = (
            self._tokens.encode(self._asked(sweep, turn, answer))
            for answer in ("", before, before + label, before + label + after)
        )
        whole = told[-1]
        if whole[: len(asked)] != asked:
            raise DataError(f"the answer '{before}{label}' runs into the question's last token")
        start, end = (max(alike(whole, part), len(asked)) for part in told[:2])
        return Continuation(ids=tuple(whole[len(asked) : end + 1]), skip=start - len(asked))

    def _refuse_marks(self, sweep: Sweep) -> None:
        turns = (*sweep.support, *sweep.queries)
        texts = [part for turn in turns for part in (*turn.around, turn.answer or "")]
        for text in (*texts, sweep.instruction, sweep.query_instruction, *sweep.labels):
            if mark := self._tokens.reserved(text):
                raise DataError(
                    f"{sweep.episode_id}: '{text}' holds '{mark}', which LCL-Shikra reads as a "
                    "token of its own; take another template, or --labels fantasy"
                )


def sentence(sweep: Sweep) -> tuple[str, str]:
    """What stands before and after the label in the answers of the support set.

    A label may occur in the sentence around it, too: the place is taken that most answers share.
    """
    told = [(turn.answer or "", turn.label) for turn in sweep.support if turn.label]
    places = [around for answer, label in told for around in _around(answer, label)]
    if not places:
        return SENTENCE
    return max(
        places, key=lambda at: sum(at[0] + label + at[1] == answer for answer, label in told)
    )


def _around(answer: str, label: str) -> list[tuple[str, str]]:
    starts = [at for at in range(len(answer)) if answer.startswith(label, at)]
    return [(answer[:at], answer[at + len(label) :]) for at in starts]


def _images(turn: Turn) -> tuple[EncodedImage, ...]:
    return (turn.image,) if turn.image else ()
