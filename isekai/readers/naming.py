"""Names of strangers' classes as words to show and as ids."""

from collections import Counter
from collections.abc import Mapping

from isekai.files import sha256
from isekai.spec import slug


def words(name: str) -> str:
    """The name with blanks for underscores, as text that can be written, whatever it is made of."""
    return " ".join(printable(name).replace("_", " ").split())


def printable(name: str) -> str:
    """The name without what no file can hold: bytes that are no text, halves of characters."""
    return name.encode(errors="backslashreplace").decode()


def slugs(names: Mapping[str, str]) -> dict[str, str]:
    """Key -> an id made of the key's name; a part of the key's hash tells equal ones apart."""
    plain = {key: slug(name) for key, name in names.items()}
    often = Counter(plain.values())
    return {
        key: text if text and often[text] == 1 else f"{text or 'x'}-{_short(key)}"
        for key, text in plain.items()
    }


def _short(key: str) -> str:
    return sha256(printable(key).encode())[:8]
