"""How a concept is put into words for a model that looks at its pictures."""

from collections.abc import Sequence

from isekai.errors import DataError
from isekai.types import Concept


def definition(concept: Concept) -> str:
    """What the concept is; DataError where its spec doesn't say."""
    if not concept.definition:
        raise DataError(
            f"{concept.id}: has no definition to hold its pictures against; write one in its spec, "
            "or leave out the gates clip and vqa"
        )
    return concept.definition


def thing(concept: Concept) -> str:
    """The definition as a part of a sentence: `a hedgehog whose back is a cactus`."""
    told = definition(concept).rstrip(". ")
    first, space, rest = told.partition(" ")
    return f"{first.lower()}{space}{rest}" if first in ("A", "An", "The") else told


def parents(concept: Concept) -> Sequence[str]:
    """What a novel concept was made from; nothing for a foil, which is its own parent."""
    return tuple(dict.fromkeys(concept.parents)) if concept.role == "novel" else ()


def a(name: str) -> str:
    """The name with an article, also where there is none: models don't mind `a wool`."""
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"
