"""Writes YAML without a package: nested blocks, with every text in quotes.

A JSON string is a YAML string, but for the characters that YAML calls line breaks or unprintable:
these are escaped as well, so that no text can end its line.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date

_PLAIN = re.compile(r"[A-Za-z_][\w-]*", re.A)
_UNSAFE = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"}


def dump(value: Mapping[str, object]) -> str:
    """The mapping as YAML lines; values are texts, numbers, truth values, lists and mappings.

    An empty list or mapping stays one. Keys keep their order.
    """
    return "\n".join(_block(value)) + "\n"


def quoted(text: str) -> str:
    """The text as a YAML scalar in one line."""
    written = json.dumps(text, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def _block(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{_key(str(key))}:", item)
    elif isinstance(value, Sequence):
        for item in value:
            if _is_nested(item):
                first, *rest = _block(item)
                yield f"- {first}"
                yield from (f"  {line}" for line in rest)
            else:
                yield f"- {_scalar(item)}"


def _entry(key: str, item: object) -> Iterator[str]:
    if _is_nested(item):
        yield key
        yield from (f"  {line}" for line in _block(item))
    else:
        yield f"{key} {_scalar(item)}"


def _is_nested(value: object) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and bool(value)


def _key(key: str) -> str:
    return key if _PLAIN.fullmatch(key) and key.casefold() not in _WORDS else quoted(key)


def _scalar(value: object) -> str:
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool | int):
        return json.dumps(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, date):  # a date with a time is one, too
        return value.isoformat()
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence):
        return "[]"
    raise TypeError(f"{type(value).__name__} is not written as YAML")


def _number(value: float) -> str:
    """With a point, which YAML 1.1 asks of a number with an exponent."""
    if not math.isfinite(value):
        return repr(value).replace("inf", ".inf").replace("nan", ".nan")
    text = repr(value)
    return text if "." in text else text.replace("e", ".0e")
