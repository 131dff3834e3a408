"""What a dataset's card and its Croissant file both say in sentences."""

from collections.abc import Sequence

from isekai.card.facts import Facts, Maker
from isekai.card.front_matter import OWN

PURPOSE = (
    "Made to measure whether a multimodal model learns a new name from pictures in its context."
)

USES = (
    "Measuring whether a model binds a new name to a new thing that a few pictures in its context "
    "show, beside controls that tell this from naming what it knows.",
    "Comparing models, templates and ways of choosing support pictures on the same episodes.",
)

MISUSES = (
    "Training or tuning a model whose results on these concepts are then reported: they would no "
    "longer be new to it.",
    "Judging how well a model knows real things, or sees in general: all concepts but the foils "
    "are made up, and the pictures have few styles.",
    "Comparing scores with those of the paper that defined the task, whose pictures were others.",
)

_KNOWN = {
    "procedural": "none: sketches rendered by isekai",
    OWN: "no model: pictures that were brought",
}


def summary(found: Sequence[Facts]) -> str:
    """How many pictures of what, in a sentence."""
    concepts = {concept.id: concept for one in found for concept in one.concepts}
    novel = sum(concept.role == "novel" for concept in concepts.values())
    groups = len({group.id for one in found for group in one.groups})
    images = sum(one.manifest.images for one in found)
    more = f", in {len(found)} datasets" if len(found) > 1 else ""
    return (
        f"{images} pictures of {novel} novel concepts and {len(concepts) - novel} foils in "
        f"{groups} groups{more}."
    )


def collection(found: Sequence[Facts]) -> str:
    """Where the pictures come from, in a sentence or two."""
    sources = sorted({maker.source for one in found for maker in one.makers})
    told = f"Drawn by the sources {', '.join(sources)} of isekai"
    if sources == [OWN]:
        told = "Taken from a folder of pictures that its maker had"
    return f"{told}. A picture's label is the concept that it was asked for."


def people(found: Sequence[Facts]) -> str:
    """Whether people may be seen."""
    sources = {maker.source for one in found for maker in one.makers}
    if sources == {"procedural"}:
        return "None: every picture is a rendering of a sketch of solids."
    if OWN in sources:
        return "Not looked for: some pictures were brought by their owner."
    return "No person is asked for. What a model drew was not searched for people."


def limits(found: Sequence[Facts]) -> tuple[str, ...]:
    """What results on these pictures do not show."""
    sources = {maker.source for one in found for maker in one.makers}
    measured = [one.name for one in found if one.novelty]
    unmeasured = [one.name for one in found if not one.novelty]
    points = []
    if unmeasured:
        of = f" of {', '.join(unmeasured)}" if measured else ""
        points.append(
            f"That a model has never met a concept{of} or its name is hoped for, not measured."
        )
    if measured:
        points.append(
            "Evidence of novelty counts against a concept where it finds something. Where it finds "
            "nothing, a model may know the concept all the same."
        )
    points += [
        "The splits are drawn at random within each concept: support and query pictures come from "
        "the same source and share its style.",
        "Damaged and repeated pictures were looked for. Whether a picture shows its concept well "
        "was judged by the gates among the settings, if by any.",
        "Names, definitions and prompts are in one language, and the everyday things that novel "
        "concepts are made of are those that their authors thought of first.",
    ]
    if "procedural" in sources:
        points.append(
            "The pictures of the source `procedural` are renderings of simple solids. They look "
            "like models, not like photographs, and results on them may not carry over."
        )
    if sources - {"procedural", OWN}:
        points.append(
            "A generator draws what it was trained on: it shows backgrounds, materials and people "
            "as often as its own training pictures did, and blends may look like either parent."
        )
    return tuple(points)


def terms(maker: Maker) -> str:
    """The licence of what drew, as far as it is known here."""
    if maker.source in _KNOWN:
        return _KNOWN[maker.source]
    if maker.source == "diffusers":
        from isekai.sources.diffusers import presets

        for preset in presets.load().values():
            if preset.repo == maker.model and preset.licence:
                return preset.licence
    return "not known here"
