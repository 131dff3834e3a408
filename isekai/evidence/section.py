"""The card's section on novelty, in Markdown: what was measured, and what that does not prove."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from isekai.evidence.records import AGAINST, ALL, Against, Evidence, Probes
from isekai.evidence.vocabulary import TOP
from isekai.evidence.weighing import (
    CHANCE,
    MEANING,
    probed,
    styled,
    telling_families,
    weak_points,
    weakest_first,
)
from isekai.markdown import escape
from isekai.types import Concept, Estimate, Group

Cell = Callable[[Concept], str]
Shares = Callable[[Evidence, str], Mapping[Against, Estimate]]

_LEFT_OUT = 20
"""Damaged reference files told by name."""

_NOT_PROVED = (
    "That a model has never seen such a thing: its training pictures are not searched, only asked "
    "about. A name that lies near, or that a model says, is evidence against novelty; that none "
    "does is weak evidence for it, above all where the foils are not recognised either.",
    "That a concept is new to the embedder or the models other than those named here.",
    "That there is no shortcut: only the style features listed are looked at, by one simple probe. "
    "Texture and framing follow from shape, too: a spiky thing has more edges. So a shortcut by "
    "colour or brightness is worse than one by texture, which may be the concept itself.",
    "Every interval is one of 95 %, for each concept by itself: of many that are fine, about one "
    "in forty is marked by chance.",
)


def section(evidence: Evidence, groups: Sequence[Group]) -> str:
    """Markdown without a heading; text of strangers in it is escaped."""
    parts = [
        "\n\n".join(_kinds(evidence, groups)),
        _table(evidence, groups),
        _meanings(evidence, groups),
        "What this does not prove:\n\n" + _list(_NOT_PROVED),
    ]
    return "\n\n".join(part for part in parts if part)


# ---------------------------------------------------------------- kind by kind


def _kinds(evidence: Evidence, groups: Sequence[Group]) -> Iterator[str]:
    if evidence.probes:
        yield _probes(evidence.probes)
    if evidence.style:
        yield _style(evidence.style)
    if evidence.vocabulary:
        yield _vocabulary(evidence, groups)
    for model in evidence.naming:
        yield _naming(evidence, model)
    if evidence.reference:
        yield _reference(evidence)
    if evidence.diversity:
        yield _diversity(evidence, groups)


def _probes(told: Probes) -> str:
    return (
        f"**Can they be learned?** A probe ({_made(told.made, 'probe')}, on embeddings by "
        f"{_embedder(told.made)}) sees a few support pictures of two concepts and tells their "
        f"query pictures apart; chance is {_percent(CHANCE)}. {_overall(told)}"
    )


def _style(told: Probes) -> str:
    families = "; ".join(
        f"from their {escape(against)} by "
        + ", ".join(f"{escape(name)} {_share(share)}" for name, share in shares.items())
        for against, shares in told.families.items()
    )
    each = f" Each family alone, with all support pictures: {families}." if families else ""
    return (
        "**Can they be told by style alone?** The same probe on low-level features "
        f"({', '.join(map(escape, _mapping(told.made.get('features'))))}), which should stay near "
        "chance. "
        f"{_overall(told)}{each}"
    )


def _overall(told: Probes) -> str:
    return " ".join(
        f"From their {escape(against)}: "
        + ", ".join(f"{_share(share)} {_shots(key)}" for key, share in shares.items())
        + "."
        for against, shares in told.overall.items()
    )


def _shots(key: str) -> str:
    return "with all support pictures" if key == ALL else f"with {escape(key)} a concept"


def _vocabulary(evidence: Evidence, groups: Sequence[Group]) -> str:
    assert evidence.vocabulary
    made, names = evidence.vocabulary.made, evidence.vocabulary.concepts
    foils = [names[c.id] for c in _of(groups, "foil") if c.id in names]
    first = sum(one.rank <= TOP for one in foils)
    check = (
        f" As a check: of {len(foils)} foils, {first} have their own name among the {TOP} nearest."
        if foils
        else ""
    )
    return (
        "**What do they look like to a model of pictures and texts?** Nearest names among "
        f"{_made(made, 'things')} things ({_made(made, 'vocabulary')}; "
        f"“{_made(made, 'wording')}”), by {_embedder(made)}.{check}"
    )


def _naming(evidence: Evidence, model: str) -> str:
    told = evidence.naming[model]
    failed = sum(one.failed for one in told.concepts.values())
    shares = "; ".join(
        f"{escape(role)} concepts: "
        + ", ".join(
            f"{_KINDS.get(kind, escape(kind))} {_share(share)}" for kind, share in own.items()
        )
        for role, own in told.overall.items()
        if own
    )
    return (
        f"**What does {escape(model)} call them?** Asked “{_made(told.made, 'question')}”, "
        f"without examples and labels. {shares}. Questions without an answer: {failed}."
    )


_KINDS = {
    "name": "own name",
    "parent": "a parent",
    "both": "both parents",
    "foil": "the foil",
    "twin": "the twin",
    "other": "none of these",
}


def _reference(evidence: Evidence) -> str:
    assert evidence.reference
    told = evidence.reference
    bad = [f"{escape(path)} ({escape(why)})" for path, why in told.left_out.items()]
    more = f" and {len(bad) - _LEFT_OUT} more" if len(bad) > _LEFT_OUT else ""
    left_out = f" Not looked at: {', '.join(bad[:_LEFT_OUT])}{more}." if bad else ""
    return (
        f"**Are they copies of known pictures?** Against {told.pictures:,} reference pictures, by "
        f"{_embedder(told.made)}: {_share(told.overall)} come to a cosine of "
        f"{_made(told.made, 'threshold')} or more.{left_out}"
    )


def _diversity(evidence: Evidence, groups: Sequence[Group]) -> str:
    assert evidence.diversity
    spreads = evidence.diversity.concepts
    told = []
    for role in ("novel", "foil"):
        own = [spreads[c.id] for c in _of(groups, role) if c.id in spreads]
        if own:
            worth = sum(one.vendi for one in own) / len(own)
            apart = sum(one.distance for one in own) / len(own)
            n = sum(one.n for one in own) / len(own)
            told.append(
                f"the pictures of a {role} concept (n = {len(own)} concepts of {n:.1f} pictures) "
                f"lie {apart:.3f} apart (mean cosine distance) and are worth {worth:.1f} wholly "
                "different ones (Vendi score)"
            )
    return (
        f"**Are there many pictures, or one?** By {_embedder(evidence.diversity.made)}, on "
        f"average, {'; '.join(told)}."
    )


# ---------------------------------------------------------------- concept by concept


def _table(evidence: Evidence, groups: Sequence[Group]) -> str:
    order = weakest_first(evidence, groups)
    if not order:
        return ""
    columns = list(_columns(evidence))
    rows = [[name for name, _ in columns], ["---"] * len(columns)]
    rows += [[str(cell(concept)) for _, cell in columns] for concept in order]
    return "The concepts with the weakest evidence come first.\n\n" + "\n".join(
        "| " + " | ".join(row) + " |" for row in rows
    )


def _columns(evidence: Evidence) -> Iterator[tuple[str, Cell]]:
    yield "concept", lambda concept: escape(concept.name)
    yield "weak points", lambda concept: _weak(evidence, concept)
    for against in AGAINST:
        if evidence.probes and against in evidence.probes.overall:
            yield f"told from {against}", _probe_cell(evidence, against, probed)
    for against in AGAINST:
        if evidence.style and against in evidence.style.overall:
            yield f"from {against} by style", _probe_cell(evidence, against, styled)
    if evidence.vocabulary:
        yield "nearest name (cosine)", lambda concept: _nearest(evidence, concept)
        yield "margin of the definition", lambda concept: _margin(evidence, concept, "definition")
    for model in evidence.naming:
        yield f"{escape(model)}: own name, a parent, n", _naming_cell(evidence, model)
    if evidence.reference:
        yield "nearest reference (cosine)", lambda concept: _match(evidence, concept)
    if evidence.diversity:
        yield "Vendi score, n", lambda concept: _vendi(evidence, concept)


def _weak(evidence: Evidence, concept: Concept) -> str:
    by = ", ".join(telling_families(evidence, concept.id))
    points = [
        f"{point} ({by})" if point == "shortcut" and by else point
        for point in weak_points(evidence, concept)
    ]
    return ", ".join(points) or "none found"


def _probe_cell(evidence: Evidence, against: Against, shares: Shares) -> Cell:
    def cell(concept: Concept) -> str:
        share = shares(evidence, concept.id).get(against)
        return _share(share) if share else "-"

    return cell


def _nearest(evidence: Evidence, concept: Concept) -> str:
    names = evidence.vocabulary.concepts.get(concept.id) if evidence.vocabulary else None
    return f"{escape(names.nearest[0].name)} ({names.nearest[0].cosine:.3f})" if names else "-"


def _margin(evidence: Evidence, concept: Concept, key: str) -> str:
    names = evidence.vocabulary.concepts.get(concept.id) if evidence.vocabulary else None
    margin = names.margins.get(key) if names else None
    return f"{margin.value:+.3f} ({margin.low:+.3f} to {margin.high:+.3f})" if margin else "-"


def _naming_cell(evidence: Evidence, model: str) -> Cell:
    def cell(concept: Concept) -> str:
        named = evidence.naming[model].concepts.get(concept.id)
        if named is None or not named.answers:
            return "-"
        own, parent = (_percent(named.shares[kind].value) for kind in ("name", "parent"))
        return f"{own}, {parent}, {named.answers}"

    return cell


def _match(evidence: Evidence, concept: Concept) -> str:
    found = evidence.reference.concepts.get(concept.id) if evidence.reference else None
    return f"{escape(found.nearest[0].path)} ({found.nearest[0].cosine:.3f})" if found else "-"


def _vendi(evidence: Evidence, concept: Concept) -> str:
    spread = evidence.diversity.concepts.get(concept.id) if evidence.diversity else None
    return f"{spread.vendi:.1f}, {spread.n}" if spread else "-"


def _meanings(evidence: Evidence, groups: Sequence[Group]) -> str:
    found = {point for one in _of(groups, "novel") for point in weak_points(evidence, one)}
    if not found:
        return ""
    return "Weak points:\n\n" + _list(
        f"*{point}*: {meaning}." for point, meaning in MEANING.items() if point in found
    )


# ---------------------------------------------------------------- words


def _of(groups: Sequence[Group], role: str) -> list[Concept]:
    return [concept for group in groups for concept in group.concepts if concept.role == role]


def _embedder(made: Mapping[str, object]) -> str:
    look = _mapping(made.get("embedder"))
    return f"{escape(str(look['model']))} (revision {escape(str(look['revision']))})"


def _made(made: Mapping[str, object], key: str) -> str:
    """What a kind of evidence says of its making; the file may be a stranger's."""
    value = made.get(key, "unknown")
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return value


def _share(share: Estimate) -> str:
    low, high = _percent(share.low), _percent(share.high)
    return f"{_percent(share.value)} ({low} to {high}, n = {share.n})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _list(points: Iterable[str]) -> str:
    return "\n".join(f"- {point}" for point in points)
