"""What the names of controls mean, for whoever reads a table or a plot and did not ask for it."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping

PLAIN = "none"
"""The control of episodes in which nothing is changed; tables and plots call them `plain`."""

_MEANINGS: Mapping[tuple[str, str], str] = {
    ("none", ""): "nothing changed",
    ("blind", ""): "support pictures grey",
    ("text", ""): "no pictures, the words alone",
    ("swap", ""): "labels swapped, in the support set and in what is right",
    ("false", "0.5"): "half of the labels in the support set false",
    ("false", "1"): "all labels in the support set false",
    ("words", "true"): "the true names",
    ("words", "fantasy"): "new words in each episode",
    ("words", "conflict"): "common words for other things",
    ("zero", ""): "no support set",
    ("select", "random"): "support images drawn from all labels together",
    ("select", "balanced"): "support images drawn for each label",
    ("select", "nearest"): "of each label the images most similar to the query",
    ("select", "herding"): "images that together come nearest to the mean of their label",
    ("select", "prototype"): "of each label the most typical images",
    ("select", "diverse"): "of each label images far from each other",
    ("select", "hardest"): "of each label the images nearest to another label",
}


def meaning(control: str) -> str:
    """The control's name in words; empty for one that is not known here."""
    return "; ".join(filter(None, (_one(word) for word in control.split("+"))))


def _one(word: str) -> str:
    key, _, value = word.partition("=")
    if found := _MEANINGS.get((key, value)):
        return found
    if key == "order" and value.isdecimal():
        return f"the same support set in {value} orders"
    if key == "false" and (rate := _share(value)) is not None:
        return f"{rate * 100:g} % of the labels in the support set false"
    return ""


def false_rate(control: str) -> tuple[str, float] | None:
    """What stands before `false=RATE` in the control's name, and the rate; None without one."""
    before, plus, last = control.rpartition("+")
    key, _, value = last.partition("=")
    rate = _share(value)
    return (before if plus else PLAIN, rate) if key == "false" and rate is not None else None


def _share(value: str) -> float | None:
    try:
        rate = float(value)
    except ValueError:
        return None
    return rate if 0 <= rate <= 1 else None


def legend(controls: Iterable[str]) -> dict[str, str]:
    """Control -> what it means, for those that are known and change something."""
    told = {control: meaning(control) for control in controls if control != PLAIN}
    return {control: words for control, words in told.items() if words}


def line(text: str) -> str:
    """A stranger's text on one line, nothing in it that is unseen or moves what follows it."""
    seen = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join("".join(seen).split())


def broken(text: str, width: float, measure: Callable[[str], float] = len) -> list[str]:
    """A stranger's text in lines at most `width` wide, as `measure` tells.

    It is broken behind a blank or one of `/:=_-`, or in front of `+`; a piece that does not fit by
    itself is broken anywhere.
    """
    lines = [""]
    for piece in re.findall(r"\+?[^\s/:=_+-]*(?:[\s/:=_-]+|$|(?=\+))", line(text)):
        if measure((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        for character in piece:
            if measure((lines[-1] + character).rstrip()) > width:
                lines.append("")
            lines[-1] += character
    return [one.strip() for one in lines if one.strip()]


def visible(text: str) -> str:
    """A stranger's text with all its lines, and every character in it that is unseen spelt out.

    Joiners stay: scripts and emoji are written with them.
    """
    return "".join(
        f"⟨U+{ord(c):04X}⟩"
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") and c not in "\n\t\u200c\u200d"
        else c
        for c in text
    )
