"""Finds where a text itself marks its answer: in JSON, a tag, a box, a line "answer: ..."."""

import ast
import json
import re
import warnings

from isekai.answers.mentions import ANY, MENTION

_MARKS = (
    re.compile(
        r"[<\[](?:final[\s_-]?)?(?:answer|conclusion|label|prediction)\b[^<>\[\]]*[>\]]"
        r"(?P<it>.*?)(?:[<\[]/|\Z)",
        re.S,
    ),
    re.compile(r"<\|begin_of_(?:box|solution)\|>(?P<it>.*?)(?:<\||\Z)", re.S),
    re.compile(r"\\boxed\s*\{(?P<it>(?:[^{}]|\{[^{}]*\})*)\}"),
)
_KEYS = (
    *("finalanswer", "answer", "label", "prediction", "identification", "conclusion", "verdict"),
    *("choice", "name", "class", "category", "object", "result", "response", "output"),
)
"""What a field of JSON is called that holds the answer, the surest first."""


def marked(text: str) -> str:
    """The parts of a folded text that it calls its answer; all of it if there are none."""
    values, whole = _json(text)
    said = [words for value in values if (words := _said(value)) is not None]
    if said or whole:
        return "\n".join(said)
    for mark in _MARKS:
        said = [found["it"] for found in mark.finditer(text)]
        if said:
            return "\n".join(said)
    for name, line in _LINES.items():
        found = [here["it"] or here["quoted"] or "" for here in line.finditer(text)]
        said = [_DIRECT.sub(r"answer: \1", words) for words in found if words.strip()]
        if said and ("answer" in name or re.search(MENTION, "".join(said))):
            return "\n".join(said)
    return text


# ---------------------------------------------------------------- lines


def _line(name: str) -> re.Pattern[str]:
    """The value behind a name that begins a line, or that is a key of JSON which is broken."""
    return re.compile(
        rf"^[^\w\n\"'{ANY}]*+(?:(?:so|thus|therefore|my|the|correct|final|predicted|best),?\s+){{0,3}}"
        rf"{name}(?:\s+name)?[^\w\n:=!≠{ANY}]*+(?:[:=]|\n|\|)[_\s>|]*+(?P<it>.*)"
        rf"|[\"'](?:final|predicted)?[\s_-]*{name}[\"']\s*:[\s\[\"']*(?P<quoted>[^\"'\n]*)",
        re.M,
    )


_LINES = {name: _line(name) for name in ("final answer", *_KEYS[1:-3])}
_DIRECT = re.compile(rf"\A([^\w{ANY}]*(?:(?:an?|the|it's|it is|this is) ){{0,2}}[\"'(]*{MENTION})")
"""A label that follows at once is the answer, whatever the line goes on to say."""


# ---------------------------------------------------------------- JSON


def _json(text: str) -> tuple[list[object], bool]:
    """The text if it is JSON, and True; else the outermost JSON objects in it, and False."""
    read = json.JSONDecoder(strict=False, object_pairs_hook=_fields).raw_decode
    whole = text.strip()
    try:
        value, end = read(whole)
        if end == len(whole):
            return [value], True
    except (ValueError, RecursionError):
        if (literal := _literal(whole)) is not None:
            return [literal], True
    values: list[object] = []
    position = text.find("{")
    for _ in range(200):  # of a hostile text, so many braces
        if position < 0:
            break
        try:
            value, end = read(text, position)
            values.append(value)
        except (ValueError, RecursionError):
            end = position + 1
        position = text.find("{", end)
    return values, False


def _fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of JSON; a name that comes twice holds both values."""
    fields: dict[str, object] = {}
    for name, value in pairs:
        fields[name] = [fields[name], value] if name in fields else value
    return fields


def _literal(text: str) -> object:
    """What Python prints for a dict or list, as models do, too; None if it isn't that."""
    if not re.fullmatch(r"[{\[].{,9999}[}\]]", text, re.S):
        return None
    text = re.sub(r"\b(?:true|false)\b", lambda word: word[0].title(), text)  # it was folded
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's about odd escapes in a literal
            return ast.literal_eval(re.sub(r"\b(?:none|null)\b", "None", text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


_CALLED = re.compile(r"(?:final|predicted|correct|best|my|the)*(\w+?)(?:name)?")
_REASONS = re.compile(r"\w*(?:reason|thought|think|expla|rational|analy|descri|error|message)")
_TICKS = {"true": "true", "yes": "true", "false": "false", "no": "false"}


def _said(value: object) -> str | None:
    """What a JSON value answers; None if it is about something else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple | set):
        return "\n".join(said for item in value if (said := _said(item)) is not None)
    return _answered(value) if isinstance(value, dict) else None


def _answered(fields: dict[object, object]) -> str | None:
    """What an object answers: its field of such a name, its ticked keys, or its only text."""
    named = {re.sub(r"[\W_]+", "", str(key).casefold()): item for key, item in fields.items()}
    for name in _KEYS:
        for key, item in named.items():
            if key == name or ((called := _CALLED.fullmatch(key)) and called[1] == name):
                return _said(item) or ""
    ticks = {str(key): _TICKS.get(str(item).casefold()) for key, item in fields.items()}
    if ticks and None not in ticks.values():
        return "\n".join(f"{key}: {tick}" for key, tick in ticks.items())
    said = [
        words
        for key, item in named.items()
        if not isinstance(item, int | float)
        and not _REASONS.match(key)
        and (words := _said(item)) is not None
    ]
    return said[0] if len(said) == 1 else None
