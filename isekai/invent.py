"""Invents brand-new groups from a seed: drawn after every model's training data was collected.

A group begins at an everyday thing, its foil. The concept changes `distance` of the foil's five
attributes, the twin changes `distance` of the concept's; twin and foil differ by at least as many.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from isekai import anatomy, labels, spec
from isekai.anatomy import ATTRIBUTES, FOILS, Make
from isekai.errors import DataError, IsekaiError
from isekai.files import lock, write_text

SETTINGS = (
    "on a plain table", "on a wooden floor", "in tall grass", "on a beach", "in a workshop",
    "on a stone step", "on a window sill", "in fresh snow", "on a patterned rug", "in a garden",
)  # fmt: skip
STYLES = {"a photograph": 4, "a studio photograph": 2, "a 3D render": 1, "an oil painting": 1}
CONDITIONS = ("seen from the front", "seen from the side", "in soft light", "in hard light",
              "slightly worn", "brand new")  # fmt: skip
_NEGATIVE = "text, watermark, logo, people, several copies, cropped"


def run(*, count: int, seed: int, distance: int = 2, out: Path, avoid: Iterable[str] = ()) -> Path:
    """Write `count` group files into the folder `out`; group k is the same whatever the count.

    Names in `avoid` (the concepts of other specs) are not used. A folder that holds other files
    is left alone: DataError.
    """
    if not 1 <= distance < len(ATTRIBUTES):
        raise IsekaiError(f"distance is {distance}; it must be 1 to {len(ATTRIBUTES) - 1}")
    if count < 1:
        raise IsekaiError(f"{count} groups were asked for; at least 1 is needed")
    texts = {f"{name}.toml": text for name, text in groups(count, seed, distance, avoid)}
    with lock(out):
        for path in sorted(out.glob("*.toml")):
            if path.name not in texts or path.read_text(encoding="utf-8") != texts[path.name]:
                raise DataError(
                    f"{path}: the folder holds other group files; choose an empty folder"
                )
        for name, text in texts.items():
            write_text(out / name, text)
    return out


def groups(
    count: int, seed: int, distance: int, avoid: Iterable[str] = ()
) -> list[tuple[str, str]]:
    """Ids and file texts of `count` new groups, all of their concepts different things."""
    import tomli_w

    taken = {name.casefold() for name in avoid} | set(FOILS)
    made: set[Make] = set(FOILS.values())
    written = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        for _ in range(1000):
            foil, concept, twin = _makes(rng, distance)
            if concept not in made and twin not in made:
                break
        else:
            raise IsekaiError(
                f"no new thing is left after {number} groups; ask for fewer or change --distance"
            )
        made |= {concept, twin}
        names = _names(rng, taken)
        taken |= set(names)
        table = _file(foil, concept, twin, names)
        written.append((spec.slug(names[0]), tomli_w.dumps(table)))
    return written


def differences(a: Make, b: Make) -> tuple[str, ...]:
    """The attributes in which two things differ."""
    return tuple(name for name, x, y in zip(ATTRIBUTES, a, b, strict=True) if x != y)


def _makes(rng: np.random.Generator, distance: int) -> tuple[str, Make, Make]:
    foil = str(rng.choice(list(FOILS)))
    while True:
        concept = _changed(FOILS[foil], distance, rng)
        twin = _changed(concept, distance, rng)
        if len(differences(twin, FOILS[foil])) >= distance:
            return foil, concept, twin


def _changed(make: Make, distance: int, rng: np.random.Generator) -> Make:
    """The thing with exactly `distance` attributes changed, each to something rather than none."""
    values = list(make)
    for position in rng.choice(len(values), distance, replace=False):
        choices = list(ATTRIBUTES.values())[position]
        values[position] = str(
            rng.choice([name for name in choices if name not in (values[position], "none")])
        )
    body, foot, crown, flank, skin = values
    return body, foot, crown, flank, skin


def _names(rng: np.random.Generator, taken: set[str]) -> tuple[str, str]:
    """Two words that look nothing alike and are no name yet."""
    while True:
        first, second = labels.fantasy(2, (), rng)
        if first not in taken and second not in taken:
            return first, second


def _file(foil: str, concept: Make, twin: Make, names: tuple[str, str]) -> dict[str, object]:
    """The group as its file's table: parts are shared by name where two concepts agree."""
    parts: dict[str, anatomy.Table] = {}
    concepts = []
    makes = {names[0]: concept, names[1]: twin, foil: FOILS[foil]}
    for name, make in makes.items():
        others = [other for other in makes.values() if other != make]
        used, diagnostic = [], []
        for attribute, solids in anatomy.solids(make).items():
            value = make[list(ATTRIBUTES).index(attribute)]
            for number, solid in enumerate(solids, start=1):
                title = f"{value}-{make[4]}" if attribute == "body" else f"{value}-on-{make[0]}"
                key = f"{title}-{number}" if len(solids) > 1 else title
                parts[key] = solid
                used.append(key)
                if number == 1 and any(_tells(attribute, make, other) for other in others):
                    diagnostic.append(key)
        told = anatomy.describe(make)
        novel = name != foil
        changed = differences(make, FOILS[foil])
        concepts.append({
            "name": name,
            "role": "novel" if novel else "foil",
            **({"novelty": "material" if changed == ("skin",) else "form"} if novel else {}),
            "definition": f"{told[0].upper()}{told[1:]}.",
            "negative_prompt": f"{foil}, {_NEGATIVE}" if novel else _NEGATIVE,
            "prompts": {"subject": [f"{anatomy.with_article(name)}, {told}"]},
            "sketch": used,
            "diagnostic": diagnostic if novel else [],
        })  # fmt: skip
    return {
        "title": f"{names[0].capitalize()} and {names[1]}",
        "parent": foil,
        "prompts": {
            "setting": list(SETTINGS), "style": STYLES, "attribute": list(CONDITIONS),
        },
        "concepts": concepts,
        "parts": parts,
    }  # fmt: skip


def _tells(attribute: str, make: Make, other: Make) -> bool:
    differ = differences(make, other)
    return attribute in differ or (attribute == "body" and "skin" in differ)
