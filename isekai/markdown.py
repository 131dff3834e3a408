"""Text of strangers in Markdown: shown as it is, and nothing more."""

import re

_UNSEEN = re.compile(r"[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
"""Control characters, and those that turn the direction of the text after them."""


def escape(text: str) -> str:
    """The text as Markdown that shows it, with no markup, HTML, link or formula in it."""
    plain = " ".join(_UNSEEN.sub(" ", text).split())
    return re.sub(r"(?i)([\\`*_{}\[\]<>|~$&!#@]|:(?=//)|(?<=www)\.)", r"\\\1", plain)


def code(text: str) -> str:
    """The text in a code span that fits into a table; only backticks and bars change."""
    plain = " ".join(_UNSEEN.sub(" ", text).split()).replace("`", "'").replace("|", "/")
    return f"`{plain}`" if plain else ""
