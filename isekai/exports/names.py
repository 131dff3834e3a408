"""Names that file systems and other tools take, no two of them alike."""

import re
from collections import Counter
from collections.abc import Iterable

from isekai.files import sha256

_LONGEST = 80
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\.|$)")
"""What Windows keeps for its devices."""


def slugs(names: Iterable[str]) -> dict[str, str]:
    """Each name in lower-case letters, digits, dots and hyphens, at most 89 of them.

    Names that would become the same, become nothing or become too long carry the beginning of their
    SHA-256.
    """
    plain = {name: _slug(name) for name in names}
    often = Counter(plain.values())
    return {
        name: slug if slug and often[slug] == 1 else f"{slug}-{_digest(name)}".lstrip("-")
        for name, slug in plain.items()
    }


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    if len(slug) > _LONGEST or _RESERVED.match(slug):
        return f"{slug[:_LONGEST]}-{_digest(name)}"
    return slug


def _digest(name: str) -> str:
    return sha256(name.encode(errors="surrogatepass"))[:8]
