"""Where the evidence is weak: what speaks against a concept's being new, or fit to be learned."""

from collections.abc import Iterator, Mapping, Sequence

from isekai.evidence.records import AGAINST, ALL, Against, Evidence
from isekai.types import Concept, Estimate, Group

CHANCE = 0.5
"""Of every probe: it tells two concepts apart, asked equally often."""

MEANING: Mapping[str, str] = {
    "collision": "the concept's own name is in the vocabulary, with whatever meaning",
    "near a known name": "its pictures come as near to a name of the vocabulary as those of its "
    "foil, a real thing, come to theirs: the 95 % interval of the difference is not below zero",
    "named": "a model that was told nothing gave a picture the concept's own name",
    "hard to tell": "a probe that sees all support pictures does not tell it from its twin or its "
    "foil: the 95 % interval reaches chance",
    "shortcut": "colour, brightness, texture and framing alone tell it from its twin or its foil: "
    "the 95 % interval lies above chance",
    "copies": "a picture comes nearer to one of the reference folder than the copy threshold",
}
"""Weak point -> when a concept has it."""


def weak_points(evidence: Evidence, concept: Concept) -> tuple[str, ...]:
    """The keys of `MEANING` that hold for a concept, in their order.

    A foil is a real thing: for it, a name that is known is no weakness, and no probe is asked.
    """
    found = set(_weak(evidence, concept.id))
    if concept.role != "novel":
        found &= {"copies"}
    return tuple(point for point in MEANING if point in found)


def _weak(evidence: Evidence, id: str) -> Iterator[str]:
    names = evidence.vocabulary.concepts.get(id) if evidence.vocabulary else None
    if names and names.collision:
        yield "collision"
    if names and names.beyond_foil and names.beyond_foil.high >= 0:
        yield "near a known name"
    for model in evidence.naming.values():
        share = model.concepts[id].shares.get("name") if id in model.concepts else None
        if share and share.value > 0:
            yield "named"
    if any(share.low <= CHANCE for share in probed(evidence, id).values()):
        yield "hard to tell"
    if any(share.low > CHANCE for share in styled(evidence, id).values()):
        yield "shortcut"
    matches = evidence.reference.concepts.get(id) if evidence.reference else None
    if matches and matches.copies.value > 0:
        yield "copies"


def probed(evidence: Evidence, id: str) -> dict[Against, Estimate]:
    """What it is told from -> how often, by embeddings with all support pictures."""
    own = evidence.probes.concepts.get(id, {}) if evidence.probes else {}
    return {against: own[against].accuracy[ALL] for against in AGAINST if against in own}


def styled(evidence: Evidence, id: str) -> dict[Against, Estimate]:
    """The same by style alone."""
    own = evidence.style.concepts.get(id, {}) if evidence.style else {}
    return {against: own[against].accuracy[ALL] for against in AGAINST if against in own}


def telling_families(evidence: Evidence, id: str) -> list[str]:
    """The families of style features that tell it by themselves: their interval is above chance."""
    own = evidence.style.concepts.get(id, {}) if evidence.style else {}
    shares = [share for one in own.values() for share in one.families.items()]
    return list(dict.fromkeys(name for name, share in shares if share.low > CHANCE))


def weakest_first(evidence: Evidence, groups: Sequence[Group]) -> list[Concept]:
    """The novel concepts: those with most weak points first, then those that probes tell worst."""
    novel = [c for group in groups for c in group.concepts if c.role == "novel"]

    def place(concept: Concept) -> tuple[int, float, str]:
        lows = [share.low for share in probed(evidence, concept.id).values()]
        return -len(weak_points(evidence, concept)), min(lows, default=1.0), concept.id

    return sorted(novel, key=place)
