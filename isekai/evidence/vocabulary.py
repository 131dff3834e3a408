"""Nearest names in an open vocabulary: what a model of pictures and texts takes a concept for.

The vocabulary is that of ImageNet-22k as timm ships it (21,841 WordNet synsets with their lemmas),
or a text file with one name a line. A name is embedded as "a photo of a NAME". A synset has the
cosine of its nearest lemma. Cosines are means over a concept's pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_ind

from isekai import files, plugins, progress
from isekai.answers import spelling
from isekai.embeddings import Embeddings
from isekai.errors import DataError
from isekai.evidence.records import Mean, Names, Near, Vocabulary
from isekai.evidence.space import Rows, Space, filled, made, mean, others, part
from isekai.gates import wording
from isekai.types import Concept, Group

TOP = 5
WORDING = "a photo of a NAME"

_TEXTS = 1024
"""Texts between two steps of a bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexicon:
    """Things, each with the names it goes by."""

    source: str
    things: tuple[tuple[str, ...], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of all names in their order, shortened."""
        return files.sha256("\n".join("\t".join(names) for names in self.things).encode())[:16]


def imagenet() -> Lexicon:
    """The classes of ImageNet-22k, from timm; PluginError if it is not installed."""
    try:
        from timm.data.imagenet_info import ImageNetInfo
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "the vocabulary of ImageNet-22k") from error
    told = ImageNetInfo("imagenet-22k").label_descriptions()
    things = tuple(tuple(_distinct(names.split(","))) for names in told)
    return Lexicon(source="ImageNet-22k (WordNet lemmas), by timm", things=things)


def read(path: Path) -> Lexicon:
    """The names of a text file, one a line."""
    names = _distinct(files.read_text(path).removeprefix("\ufeff").splitlines())
    if not names:
        raise DataError(f"{path}: no names; a vocabulary has one name a line")
    return Lexicon(source=path.name, things=tuple((name,) for name in names))


def _distinct(names: Sequence[str]) -> list[str]:
    """Without those that are spelled like an earlier one, and those that have no letter."""
    found = {spelling(name): " ".join(name.split()) for name in reversed(names)}
    found.pop("", None)
    return list(reversed(found.values()))


def measure(space: Space, embeddings: Embeddings, lexicon: Lexicon) -> Vocabulary:
    """What every concept is nearest to; PluginError for an embedder without texts."""
    concepts = filled(space.dataset)
    texts = {text for group, one in concepts for text in compared(group, one).values()}
    words = [name for names in lexicon.things for name in names]
    embedded = _embedded(embeddings, [*map(_photo, words), *sorted(texts)])
    rows = dict(zip(sorted(texts), embedded[len(words) :], strict=True))
    starts = np.cumsum([0, *(len(names) for names in lexicon.things[:-1])])
    known = {spelling(word) for word in words}
    look = _Look(
        space=space,
        lexicon=lexicon,
        words=embedded[: len(words)],
        starts=starts,
        texts=rows,
        known=known,
    )
    near = {one.id: look.cosines(one) for _, one in concepts}
    return Vocabulary(
        made=made(
            embeddings,
            "scipy",
            "timm",
            vocabulary=lexicon.source,
            digest=lexicon.digest,
            things=len(lexicon.things),
            names=len(words),
            wording=WORDING,
        ),
        concepts={one.id: look.at(group, one, near) for group, one in concepts},
    )


def _embedded(embeddings: Embeddings, texts: Sequence[str]) -> Rows:
    """[N, D]: texts in the space of the embedder's pictures, those seen before from the disk."""
    rows = []
    with progress.bar(len(texts)) as advance:
        for start in range(0, len(texts), _TEXTS):
            rows.append(embeddings.texts(texts[start : start + _TEXTS]))
            advance(len(rows[-1]), what="texts")
    return np.concatenate(rows)


def compared(group: Group, concept: Concept) -> dict[str, str]:
    """What a concept's pictures are held against beside the vocabulary: key -> text."""
    told = {"name": _photo(concept.name)}
    if concept.definition:
        told["definition"] = f"a photo of {wording.thing(concept)}"
    told |= {f"parent: {name}": _photo(name) for name in wording.parents(concept)}
    if concept.role == "novel":
        told |= {f"foil: {one.name}": _photo(one.name) for one in others(group, concept, "foil")}
    return told


def _photo(name: str) -> str:
    return f"a photo of {wording.a(name)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """A vocabulary and the texts of a dataset, embedded."""

    space: Space
    lexicon: Lexicon
    words: Rows
    """[names, D]."""
    starts: NDArray[np.int64]
    """[things]: where the names of each begin."""
    texts: Mapping[str, Rows]
    known: set[str]

    def cosines(self, concept: Concept) -> tuple[Rows, int]:
        """[pictures]: the cosine of each picture with the concept's nearest thing; which it is."""
        pictures = self.space.shown(concept.id)
        best = int(self.things(pictures.mean(axis=0)[None])[0].argmax())
        return self.things(pictures)[:, best], best

    def things(self, rows: Rows) -> Rows:
        """[n, things]: cosines with the nearest name of each thing."""
        return np.maximum.reduceat(rows @ self.words.T, self.starts, axis=1)

    def at(self, group: Group, concept: Concept, near: Mapping[str, tuple[Rows, int]]) -> Names:
        pictures = self.space.shown(concept.id)
        centre = pictures.mean(axis=0)
        means = self.things(centre[None])[0]
        order = np.lexsort((np.arange(len(means)), -means))[:TOP]
        first = self.things(pictures).argmax(axis=1)
        own = compared(group, concept)
        beyond = near[concept.id][0]
        margins = {
            key: told
            for key, text in own.items()
            if (told := mean(pictures @ self.texts[text] - beyond)) is not None
        }
        return Names(
            nearest=tuple(
                Near(
                    name=self._nearest_name(int(thing), centre),
                    cosine=float(means[thing]),
                    share=part(int(np.sum(first == thing)), len(pictures)),
                )
                for thing in order
            ),
            margins=margins,
            rank=1 + int(np.sum(means > float(centre @ self.texts[own["name"]]) + 1e-6)),
            collision=spelling(concept.name) in self.known,
            beyond_foil=_beyond(group, concept, near),
        )

    def _nearest_name(self, thing: int, centre: Rows) -> str:
        names, start = self.lexicon.things[thing], int(self.starts[thing])
        return names[int((self.words[start : start + len(names)] @ centre).argmax())]


def _beyond(group: Group, concept: Concept, near: Mapping[str, tuple[Rows, int]]) -> Mean | None:
    """How much nearer a novel concept comes to its nearest name than its foils come to theirs.

    The interval is Welch's; None where either has fewer than two pictures, or none varies.
    """
    foils = [near[one.id][0] for one in others(group, concept, "foil") if one.id in near]
    own = near[concept.id][0]
    if concept.role != "novel" or not foils:
        return None
    other = np.concatenate(foils)
    if min(len(own), len(other)) < 2 or own.std() + other.std() < 1e-9:
        return None
    low, high = ttest_ind(own, other, equal_var=False).confidence_interval(0.95)
    return Mean(
        value=float(own.mean() - other.mean()),
        low=float(low),
        high=float(high),
        n=len(own) + len(other),
    )
