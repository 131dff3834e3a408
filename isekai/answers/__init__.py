"""Reads answers from free text, strictly: where a text answers, and which label it gives there.

Strict means: a label counts only as a whole word, said of the query image and not denied; if no
label is left, or more than one, the answer is an abstention. Nothing is guessed for the model.

    mentions.py    finds labels, however they are spelled      marked.py   finds marked answers
    asserting.py   which labels a text asserts, clause by clause
    denying.py     what is denied or made to depend            pictures.py  what is said of others
"""

import re
from collections.abc import Sequence

from isekai.answers.asserting import asserted
from isekai.answers.marked import marked
from isekai.answers.mentions import FIRST, MENTION, fold, marker, plain, spelling

__all__ = ["read_answer", "spelling"]


def read_answer(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the text gives as its answer; None if it abstains.

    Out of account stay, in this order: reasoning (closed, unclosed, nested), whatever follows a
    stop token or the begin of a further example, a text that is an error, and, where the text marks
    its answer (JSON, an answer tag, a box, a line "answer: ..."), all that stands around it. In
    what is left a label counts if it is asserted of the query image: not asked, denied, taken back
    or made to depend on a condition. A conclusion goes before what leads to it.

    Labels are whole words, the longest first, after NFKC and case folding. The letter of an option
    or the score of a label is no label. Grammar is that of English; of other languages only the
    commonest words of denial are known. ValueError for labels of one spelling.
    """
    wanted = {spelling(label): label for label in labels}
    if len(wanted) != len(labels) or "" in wanted:
        raise ValueError(f"labels must be words that differ by more than case: {list(labels)}")
    mark = marker(list(wanted))
    text = _before_run_on(mark(_without_reasoning(plain(fold(text)))))
    if _ERROR.match(text) or not _MAY_ANSWER.search(text):
        return None
    said = asserted(mark(plain(marked(text))))
    return list(wanted.values())[ord(said.pop()) - FIRST] if len(said) == 1 else None


_MAY_ANSWER = re.compile(rf"{MENTION}|\\u")
"""A label is there, or letters are that JSON has escaped."""
_ERROR = re.compile(
    r"\W{0,9}(?:http\W{0,3}[45]\d\d\b|(?:\d{3}\W{1,3})?(?:(?!no |without )[\w.]+\s+){0,2}"
    r"(?:[\w.]*error|[\w.]*exception|traceback|timeout|timed out|unavailable)\b)"
)


# ---------------------------------------------------------------- reasoning


_THINKING = (
    r"(?:seed:)?think(?:ing)?|(?:inner_)?thoughts?|reason(?:ing)?(?:_content)?|reflection|analysis"
    r"|scratchpad|rationale|(?:inner_)?monologue|explanation|summary|caption|cot|chain_of_thought"
)
_TAG = re.compile(
    rf"<\s*(?P<close>/?)\s*(?:{_THINKING})\b[^<>\n]*(?<!/)>|[\[◁]\s*(?P<shut>/?)\s*think\s*[\]▷]"
    r"|<\|(?:(?P<end>end_of|end|/)|begin_of|start)?_?(?:thought|thinking|think|reasoning)\|>"
)
_FINAL = re.compile(r"<\|channel\|>\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")


def _without_reasoning(text: str) -> str:
    """What stands outside of reasoning tags; the opening tag may be missing (a prompt held it)."""
    if "<|channel|>" in text:  # the "harmony" format: only its final channel speaks to the user
        text = _FINAL.split(text)[-1] if _FINAL.search(text) else ""
    elif re.match(r"\s*analysis(?=[^\W\d_])", text):  # the same, its special tokens taken out
        text = text.rpartition("assistantfinal")[2] if "assistantfinal" in text else ""
    kept: list[str] = []
    depth = position = 0
    for tag in _TAG.finditer(text):
        if depth == 0:
            kept.append(text[position : tag.start()])
        position = tag.end()
        if not (tag["close"] or tag["shut"] or tag["end"]):
            depth += 1
        elif depth:
            depth -= 1
        else:
            kept.clear()
    return "".join(kept if depth else [*kept, text[position:]])


# ---------------------------------------------------------------- running on


_TOKEN = r"</?s>|<\|(?!begin_of_)[\w ▁]+\|>|<(?:image|eos|bos|pad|unk|im_\w+|(?:start|end)_of_\w+)>"
_ROLE = r"(?:user|human|question|q|instruction|input|prompt)(?:\s*\d+)?"
_RUN_ON = re.compile(
    r"\[\s*(?:begin|end) example\s*\]|\[final question\]"
    rf"|(?<=\S)\s*+(?:{_TOKEN}|\[/?inst\])"
    rf"|(?<=\S)[^\S\n]*+\n[#>\s]{{0,40}}+{_ROLE}\s*:"
    r"|(?<=\S)[^\S\n]*+\n\s*+(?:user|human|assistant|model)[^\S\n]*+\n"
    r"|(?<=[.!?\])\"])[^\S\n]*+(?:user|human|assistant)\s*:"
)


def _before_run_on(text: str) -> str:
    """The text up to where the model goes on with examples or turns of its own."""
    stop = _RUN_ON.search(text)
    return text[: stop.start()] if stop else text
