"""Finds labels in a text as whole words, however they are spelled, and leaves a mark for each."""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache

FIRST = 0xF0000
"""A label found is written as one private character: this code point and the label's number."""
ANY = "\U000f0000-\U000ffffd"
MENTION = f"[{ANY}]"


def marker(words: Sequence[str]) -> Callable[[str], str]:
    """A function that writes a mark for every mention of these spellings in a folded text.

    The longest word goes first: "kit fox" is no "fox". A text may leave out the full stops and
    apostrophes within a word ("st bernard"), if that doesn't make it another word of the list.
    """
    longest = sorted(range(len(words)), key=lambda i: (-len(words[i]), words[i]))
    exact = [(i, re.compile(_pattern(words[i], ""))) for i in longest]
    loose = [(i, re.compile(_pattern(words[i], "?"))) for i in longest if words[i].strip("'. ")]
    patterns = [*exact, *loose]
    places = re.compile(f"(?={'|'.join(pattern.pattern for _, pattern in patterns)})")

    def mark(text: str) -> str:
        kept, position = [], 0
        for place in places.finditer(text):
            start = place.start()
            if start < position or _tied_before(text, start):
                continue
            for i, pattern in patterns:
                found = pattern.match(text, start)
                if found and not _tied_after(text, found.end()):
                    kept += [text[position:start], chr(FIRST + i)]
                    position = found.end()
                    break
        return "".join([*kept, text[position:]])

    return mark if words else lambda text: text


def spelling(label: str) -> str:
    """What is compared of a label: folded, one blank between words ("Ice_Cream", "ice-cream")."""
    return " ".join(re.split(r"[\s_-]+", plain(fold(label)))).strip()


def _pattern(word: str, loose: str) -> str:
    letters = {" ": r"[\s_-]+", ".": rf"\.{loose}", "'": f"'{loose}"}
    return "".join(letters.get(char) or re.escape(char) for char in word)


# ---------------------------------------------------------------- letters


class _Visible(dict[int, str]):
    """A table for `str.translate` that drops what has no shape, and private characters."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        hidden = unicodedata.category(char) in ("Cc", "Cf", "Co", "Cs") and not char.isspace()
        self[code] = "" if hidden else char
        return self[code]


_MARKS = str.maketrans("‘’‛ʼ′“”„″‐‑‒–−", "'" * 5 + '"' * 4 + "-" * 5)
_VISIBLE = _Visible(dict.fromkeys((0x34F, 0x115F, 0x1160, *range(0xFE00, 0xFE10)), ""))
_VISIBLE |= dict.fromkeys(map(ord, "\r\v\f\x85\u2028\u2029"), "\n") | {ord("。"): ". "}
_COLOURED = re.compile(r"\x1b\[[\d;]*[a-z]", re.I)


def fold(text: str) -> str:
    """The form in which two spellings are equal: NFKC, case folded, plain quotes and hyphens."""
    text = _COLOURED.sub("", text.replace("\r\n", "\n"))
    text = unicodedata.normalize("NFKC", text).casefold().replace(" \u0301", "'")  # that was "´"
    text = unicodedata.normalize("NFKC", text.translate(_MARKS).translate(_VISIBLE))
    return re.sub(r"[^\S\n]+", " ", text)


_HTML = "a|b|big|blockquote|body|center|code|div|em|font|h[1-6]|head|hr|html|i|img|li|mark|ol|p|pre"
_HTML += "|q|small|span|strong|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul"
_PLAIN: tuple[tuple[re.Pattern[str], str], ...] = (
    # what is struck through was taken back, what is not ticked was not chosen
    (re.compile(r"~~.*?~~", re.S), " "),
    (re.compile(r"<(del|strike)>(?:(?!</?\1>).)*+</\1>|<!--(?:(?!<!--|-->).)*+-->", re.S), " "),
    (re.compile(r"^[^\S\n]*[-*+][^\S\n]+\[ \].*", re.M), " "),
    (re.compile(r"<br\s*/?>"), "\n"),
    (re.compile(rf"</?(?:{_HTML})(?:\s[^<>]*)?>"), ""),
    (re.compile(r"!?\[([^\[\]\n]*)\]\([^()\n]*\)"), r"\1"),
    (re.compile(r"\b(?:https?://|www\.)[^\s<>\"]+"), " "),
    (re.compile(r"\\(?:text|math|emph|fbox|mbox)\w*\s*\{([^{}]*)\}"), r"\1"),
    (re.compile(r"^[^\S\n]*(?:#+|>+|[-+*•](?=\s)|\d{1,3}[.)](?=\s+\S))", re.M), " "),
    (re.compile(r"[*`$]"), ""),
)


def plain(text: str) -> str:
    """A folded text without the marks of Markdown, HTML and LaTeX."""
    for pattern, instead in _PLAIN:
        text = pattern.sub(instead, text)
    return re.sub(r"&#?\w{1,31};", lambda entity: fold(html.unescape(entity[0])), text)


# ---------------------------------------------------------------- the ends of words


_PARTICLES = frozenset("是为為叫只隻个個的了有像张張这這那在和或而とはがをにのもでだや")
"""Words of one letter, beside which others begin in Chinese and Japanese: they have no blanks."""


@cache
def _kind(char: str) -> str:
    """`a` for a letter, digit or combining mark, or its script if words there need no blanks."""
    if unicodedata.category(char)[0] == "M":
        return "a"
    if not char.isalnum():
        return ""
    script = unicodedata.name(char, "").partition(" ")[0]
    return script if script in ("CJK", "HIRAGANA", "KATAKANA", "HANGUL") else "a"


def _one_word(inner: str, outer: str) -> bool:
    """True if a letter of a label and the one beside it, outside, belong to the same word."""
    kinds = _kind(inner), _kind(outer)
    if "" in kinds or kinds[0] != kinds[1]:
        return False
    return kinds[0] in ("a", "KATAKANA", "HANGUL") or outer not in _PARTICLES


_TIED_BEFORE = re.compile(r"(?:[^\W_]'?[-_]|[^\W_](?:'|[+#@]{1,2})|\d[.,](?=\d)).\Z", re.S)
_TIED_AFTER = re.compile(r"[-_][^\W_]|'(?!s\b(?!-))[^\W_]|[+#@]|(?<=\d)[.,]\d")


def _tied_before(text: str, start: int) -> bool:
    """True if what stands before `start` makes the word there a part of a longer one."""
    if start == 0 or not _kind(text[start]):
        return False
    tied = _TIED_BEFORE.search(text[max(0, start - 3) : start + 1])
    return tied is not None or _one_word(text[start], text[start - 1])


def _tied_after(text: str, end: int) -> bool:
    """True if what stands from `end` on makes the word before it a part of a longer one."""
    if end == len(text) or not _kind(text[end - 1]):
        return False
    return _TIED_AFTER.match(text, end) is not None or _one_word(text[end - 1], text[end])
