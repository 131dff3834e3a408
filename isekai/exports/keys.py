"""Keeps what looks like a key to an account out of everything that is exported."""

import re
from typing import Any

REMOVED = "[key removed]"

_KEYS = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|pk|rk)-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic and those like them
    r"|hf_[A-Za-z0-9]{16,}"
    r"|gh[opsur]_[A-Za-z0-9]{16,}|github_pat_\w{16,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|AIza[A-Za-z0-9_-]{30,}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"  # JSON Web Tokens
    r")"
)
_SAID = re.compile(r"(?i)\b((?:bearer|basic)\s+)[\w.~+/=-]{12,}")
_SECRET = r"(?:api[_-]?key|(?:access|auth)[_-]?token|authorization|password|secret)"
_NAMED = re.compile(rf"(?i)({_SECRET}[\"']?\s*[:=]\s*[\"']?)(?=\S*\d)[^\s\"',;}}\]]{{8,}}")
_LOGIN = re.compile(r"(?<=://)[^\s/@\"']+@")


def without_keys(text: str) -> str:
    """The text with `[key removed]` for whatever has the form of a key, a token or a login."""
    text = _KEYS.sub(REMOVED, _LOGIN.sub(f"{REMOVED}@", text))
    for named in (_SAID, _NAMED):
        text = named.sub(rf"\1{REMOVED}", text)
    return text


def cleaned(value: Any) -> Any:
    """What JSON knows, `without_keys` in its texts and without texts in fields named like keys."""
    if isinstance(value, str):
        return without_keys(value)
    if isinstance(value, dict):
        return {without_keys(str(key)): _field(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [cleaned(item) for item in value]
    return value


def _field(name: str, value: Any) -> Any:
    if isinstance(value, str) and value and re.search(rf"(?i){_SECRET}$", name):
        return REMOVED
    return cleaned(value)
