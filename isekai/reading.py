"""Reads answers from free text, strictly.

Strict means: a label counts only as a whole word, said of the query image and not denied; if no
label is left, or more than one, the answer is an abstention. Nothing is guessed for the model.
"""

import ast
import json
import re
import unicodedata
import warnings
from collections.abc import Iterator, Sequence


def read_answer(text: str, labels: Sequence[str]) -> str | None:
    """The one label that the text gives as its answer; None if it abstains.

    Out of account stay, in this order: reasoning (closed, unclosed, nested), whatever follows a
    stop token or the begin of a further example, and, where the text marks its answer (JSON, an
    answer tag, a box, a line "answer: ..."), all that stands around it. In what is left, labels
    are found longest first between word boundaries, after NFKC and case folding; those in a
    question (unless "yes" follows), under a negation or under a condition don't count. Raises
    ValueError for labels of one spelling.
    """
    wanted = {spelling(label): label for label in labels}
    if len(wanted) != len(labels) or "" in wanted:
        raise ValueError(f"labels must be words that differ by more than case: {list(labels)}")
    text = _before_run_on(_without_reasoning(_clean(text)))
    named = _asserted(_plain(_fold(_marked(text))), list(wanted))
    return wanted[named.pop()] if len(named) == 1 else None


def spelling(label: str) -> str:
    """What is compared of a label: folded, one blank between words ("Ice_Cream", "ice-cream")."""
    return " ".join(re.split(r"[\s_-]+", _plain(_fold(label)))).strip()


# ---------------------------------------------------------------- spelling


_QUOTES = str.maketrans("‘’‛ʼ“”„‐‑", "''''\"\"\"--")


def _clean(text: str) -> str:
    """NFKC, plain quotes and hyphens, nothing invisible (nor private: mentions are marked so)."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    return "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Co", "Cs"))


def _fold(text: str) -> str:
    """The form in which two spellings of a word are equal."""
    return unicodedata.normalize("NFKC", _clean(text).casefold())


def _plain(text: str) -> str:
    """Without the marks of Markdown and LaTeX. What is struck through was taken back."""
    text = re.sub(r"~~.*?~~", " ", text, flags=re.S)
    text = re.sub(r"!?\[([^\[\]\n]*)\]\([^()\n]*\)", r"\1", text)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(?m)^[^\S\n]*(?:#+|>+|[-+*]\s|\d+[.)]\s)", " ", text)
    return re.sub(r"[*`]", "", text)


# ---------------------------------------------------------------- what is not the answer


_FINAL = "<|channel|>final<|message|>"
_THINKING = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad"
_TAG = re.compile(
    rf"[<\[◁]\s*(?P<close>/?)\s*(?:{_THINKING})\b[^<>\[\]◁▷\n]*[>\]▷]"
    r"|<\|(?:begin|(?P<end>end))_of_(?:thought|reasoning)\|>",
    re.I,
)


def _without_reasoning(text: str) -> str:
    """What stands outside of reasoning tags; the opening tag may be missing (a prompt held it)."""
    if "<|channel|>" in text:  # the "harmony" format: only its final channel speaks to the user
        text = text.rpartition(_FINAL)[2] if _FINAL in text else ""
    kept, depth, position = "", 0, 0
    for tag in _TAG.finditer(text):
        if depth == 0:
            kept += text[position : tag.start()]
        position = tag.end()
        if not (tag["close"] or tag["end"]):
            depth += 1
        elif depth:
            depth -= 1
        else:
            kept = ""
    return kept if depth else kept + text[position:]


_RUN_ON = re.compile(
    r"\[\s*(?:BEGIN|END) EXAMPLE\s*\]|\[FINAL QUESTION\]"
    r"|(?<=\S)\s*+(?:<image>|</s>|<\|[\w ]+\|>|<end_of_\w+>)"
    r"|(?<=\S)[^\S\n]*+\n[*#\s]{0,40}+(?:user|human|question|q|instruction)[*\s]*:",
    re.I,
)


def _before_run_on(text: str) -> str:
    """The text up to where the model goes on with examples or turns of its own."""
    stop = _RUN_ON.search(text)
    return text[: stop.start()] if stop else text


# ---------------------------------------------------------------- where the text marks its answer


_KEYS = ("final_answer", "answer", "label", "prediction", "name", "class", "category", "object")
_MARKS = (
    re.compile(r"<answer>(?P<it>.*?)(?:</answer>|\Z)", re.I | re.S),
    re.compile(r"\\boxed\s*\{(?P<it>(?:[^{}]|\{[^{}]*\})*)\}"),
    re.compile(
        r"(?:^|\n)[^\S\n]*+[#>*_]*+[^\S\n]*+(?:(?:my|the|final)\s+){0,2}answer[*_ ]*:[*_\s]*"
        r"(?P<it>.*)",
        re.I,
    ),
)


def _marked(text: str) -> str:
    """The parts that the text itself calls its answer; all of it if there are none."""
    said = [words for value in _json_values(text) if (words := _said(value)) is not None]
    if said:
        return "\n".join(said)
    for mark in _MARKS:
        said = [found["it"] for found in mark.finditer(text)]
        if said:
            return "\n".join(said)
    return text


def _json_values(text: str) -> Iterator[object]:
    """The text if it is JSON, else the outermost JSON objects in it (of the first 1,000 braces)."""
    for read in (json.loads, ast.literal_eval):  # models print Python's dicts, too
        try:
            if read is json.loads or re.fullmatch(r"\s*+\{.{,9999}\}\s*", text, re.S):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # Python's about odd escapes in a literal
                    value = read(text)
                yield value
                return
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    position = text.find("{")
    for _ in range(1_000):
        if position < 0:
            return
        try:
            value, end = json.JSONDecoder().raw_decode(text, position)
            yield value
        except (ValueError, RecursionError):
            end = position + 1
        position = text.find("{", end)


def _said(value: object) -> str | None:
    """What a JSON value answers: a text, or the field of an object that is named like an answer."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(said for item in value if (said := _said(item)) is not None)
    if isinstance(value, dict) and value:
        fields = {re.sub(r"[\s-]+", "_", _fold(key)): item for key, item in value.items()}
        for key in _KEYS:
            if key in fields:
                return _said(fields[key]) or ""
        texts = [item for item in value.values() if isinstance(item, str)]
        return texts[0] if len(texts) == 1 else ""
    return None


# ---------------------------------------------------------------- what is asserted


_MENTION = re.compile("[\ue000-\uf8ff]")
_OPEN_END = re.compile(r"(\b(?:not|no|an?|the|or|nor|is|called)|n't|[:,])[^\S\n]*\n\s*")
_CLAUSE = re.compile(
    r"(?<=[.!?;])(?=\s|$)|\n|;|,\s*so\b|\b(?:but|however|although|therefore|instead(?! of))\b"
)
_SURE = re.compile(
    r"\b(?:no|without(?: any?)?) (?:doubt|question)\b|\bnot only\b"
    r"|\bnone other than\b|\bnothing but\b"
)
_NOT = re.compile(
    r"\b(?:not|never|neither|nor|non|without|cannot|than|unlike|unlikely|hardly|barely|doubt"
    r"|except|exclud(?:es?|ing)|lacks?|fake|false|wrong|incorrect)\b|n't\b|\bno\b(?!\s*[,.!:;])"
    r"|\b(?:instead of|opposed to|contrast to|far from|anything but|rules? out|ruled out)\b"
    r"|\b(?:different|differs|distinct) from\b|\b(?:is|are|was|were|do|does|did|ca|wo|would)nt\b"
    r"|\b(?:unable|impossible|improbable|unclear|unsure|uncertain|whether|for example|for instance"
    r"|such as|opposite of)\b|\bif\b(?! (?:i|you|we)\b)"
)
_NEW_SUBJECT = re.compile(
    r",\s*(?:and\s+)?(?:it|this|that|they|these|the \w+)\s*(?:'s|is|are|was|looks|seems)\b"
    r"|\b(?:i'd|i would|i'll|i will|i) (?:say|guess|go with|call|choose|pick)\b"
    r"|\bmy (?:best )?guess\b"
)
_DENIED_AFTER = re.compile(
    r"[\s\"')]*(?:(?:is|was|are|were|does|do|did|can|could|would|should)\s*(?:n't|not|no)\b|cannot\b"
    r"|(?:is|was|are|were|seems|looks|would be)\s+(?:\w+ly\s+)?"
    r"(?:wrong|incorrect|false|excluded|ruled out|absent|missing)\b"
    r"|[:=-]\s*(?:no|false|wrong|incorrect)\b|out\b|no\b(?=[\s.!]*$)"
    r"|not (?:found|present|visible|shown|seen|detected)\b"
    r"|,?\s*which (?:it|this|that)\s+(?:is|was)\s*(?:n't|not)\b)"
)
_YES = re.compile(r"[\s\"']*(?:yes|yeah|yep|correct|indeed|it is)\b(?! not)")
_JOINED = re.compile(r"\b(?:or|nor|and|from|versus|vs)\b\.?(?:\s+(?:an?|the))?\s*$")


def _asserted(text: str, words: Sequence[str]) -> set[str]:
    """The label spellings that the text says, neither asking nor denying."""
    words = sorted(words, key=lambda word: (-len(word), word))
    pattern = "|".join(re.escape(word).replace(r"\ ", r"[\s_-]+") for word in words)
    # A letter, a digit, or a hyphen that ties on one of them makes it a part of another word.
    found = re.compile(rf"(?<![^\W_])(?<![^\W_]-)(?:{pattern})(?![^\W_])(?!-[^\W_])")
    text = found.sub(lambda match: chr(0xE000 + words.index(spelling(match[0]))), text)
    text = _SURE.sub(" ", _OPEN_END.sub(r"\1 ", text))
    said = set()
    clauses = _CLAUSE.split(text)
    for clause, reply in zip(clauses, [*clauses[1:], ""], strict=True):
        if clause.rstrip(" \"')").endswith("?"):
            asked = _MENTION.findall(clause)
            if len(asked) == 1 and _YES.match(reply):
                said.add(words[ord(asked[0]) - 0xE000])
            continue
        denied, last = False, 0
        for mention in _MENTION.finditer(clause):
            before = clause[last : mention.start()]
            denied = _denies(before) or (denied and bool(_JOINED.search(before)))
            if not denied and not _DENIED_AFTER.match(clause, mention.end()):
                said.add(words[ord(mention[0]) - 0xE000])
            last = mention.end()
    return said


def _denies(before: str) -> bool:
    """True if a negation in `before` reaches the word that follows it."""
    start = max((subject.start() for subject in _NEW_SUBJECT.finditer(before)), default=0)
    return bool(_NOT.search(before, start))
