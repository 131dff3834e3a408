"""What invented things are made of: a value for each of five attributes, and its solids.

Every value is one line of words and a few parts that sit on the anchors its body offers, so that
whatever is combined hangs together. A new value is one new entry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

Table = dict[str, object]
"""A part as a spec file writes it, without its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A trunk and where things attach to it, in sketch units."""

    words: str
    parts: tuple[Table, ...]
    foot: float
    """Height of the underside on the axis."""
    top: float
    side: float
    """Distance of the flank from the axis, at height `waist`."""
    waist: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limb:
    """Something attached to a body: its words, and its parts given the body."""

    words: str
    parts: Callable[[Body], tuple[Table, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Skin:
    """What the body is covered with."""

    words: str
    look: Mapping[str, object]


def _none(body: Body) -> tuple[Table, ...]:
    return ()


BODIES: Mapping[str, Body] = MappingProxyType({
    "gourd": Body(
        words="gourd",
        parts=(
            {"shape": "ball", "size": [0.42], "at": [0, -0.14, 0], "melt": 0.16},
            {"shape": "ball", "size": [0.27], "at": [0, 0.32, 0], "melt": 0.16},
        ),
        foot=-0.54, top=0.57, side=0.4, waist=-0.14,
    ),
    "drum": Body(
        words="drum",
        parts=({"shape": "cylinder", "size": [0.44, 0.38, 0.06]},),
        foot=-0.36, top=0.36, side=0.43,
    ),
    "barrel": Body(
        words="barrel",
        parts=({"shape": "ellipsoid", "size": [0.42, 0.56, 0.42]},),
        foot=-0.54, top=0.54, side=0.41,
    ),
    "pear": Body(
        words="pear",
        parts=({"shape": "egg", "size": [0.42, 0.22, 0.46]},),
        foot=-0.63, top=0.43, side=0.41, waist=-0.2,
    ),
    "dome": Body(
        words="dome",
        parts=({"shape": "dome", "size": [0.58, -0.12], "at": [0, -0.2, 0]},),
        foot=-0.3, top=0.36, side=0.56, waist=-0.2,
    ),
    "block": Body(
        words="block",
        parts=({"shape": "box", "size": [0.38, 0.42, 0.38, 0.07]},),
        foot=-0.4, top=0.4, side=0.37,
    ),
    "spindle": Body(
        words="spindle",
        parts=({"shape": "diamond", "size": [0.46, 0.62]},),
        foot=-0.56, top=0.56, side=0.4,
    ),
    "bulb": Body(
        words="bulb",
        parts=({"shape": "egg", "size": [0.2, 0.44, 0.42]},),
        foot=-0.38, top=0.62, side=0.41, waist=0.2,
    ),
    "stack": Body(
        words="stack of three discs",
        parts=(
            {"shape": "cylinder", "size": [0.44, 0.13, 0.06], "at": [0, -0.3, 0],
             "line": 3, "step": [0, 0.3, 0]},
            {"shape": "cylinder", "size": [0.2, 0.4, 0.02], "paint": 1},
        ),
        foot=-0.42, top=0.42, side=0.43, waist=0.0,
    ),
    "column": Body(
        words="six-sided column",
        parts=({"shape": "prism", "size": [6, 0.38, 0.5, 0.03]},),
        foot=-0.48, top=0.48, side=0.33,
    ),
})  # fmt: skip

FEET: Mapping[str, Limb] = MappingProxyType({
    "none": Limb(words="", parts=_none),
    "legs": Limb(words="three splayed legs", parts=lambda b: (
        {"shape": "capsule", "size": [0.075, 0.24], "at": [0.24, b.foot - 0.1, 0],
         "turn": [0, 0, 28], "ring": 3},
    )),
    "plinth": Limb(words="a round plinth", parts=lambda b: (
        {"shape": "cone", "size": [0.42, 0.24, 0.14, 0.02], "at": [0, b.foot - 0.1, 0]},
    )),
    "wheels": Limb(words="two big wheels", parts=lambda b: (
        {"shape": "torus", "size": [0.24, 0.08], "at": [0.34, b.foot - 0.05, 0],
         "turn": [0, 0, 90], "mirror": True},
        {"shape": "cylinder", "size": [0.09, 0.36, 0.02], "at": [0, b.foot - 0.05, 0],
         "turn": [0, 0, 90], "paint": 1},
        {"shape": "box", "size": [0.05, 0.22, 0.05, 0.02], "at": [0.34, b.foot - 0.05, 0],
         "mirror": True, "paint": 1},
        {"shape": "cylinder", "size": [0.14, 0.18, 0.02], "at": [0, b.foot + 0.06, 0],
         "paint": 1},
    )),
    "spring": Limb(words="a coiled spring", parts=lambda b: (
        {"shape": "helix", "size": [0.24, 0.07, 0.19, 2.2], "at": [0, b.foot - 0.2, 0]},
        {"shape": "cylinder", "size": [0.29, 0.05, 0.02], "at": [0, b.foot + 0.02, 0]},
    )),
    "tentacles": Limb(words="six curling tentacles", parts=lambda b: (
        {"shape": "arc", "size": [0.26, 0.11, 0.04, 150], "at": [0.38, b.foot - 0.02, 0],
         "turn": [180, 0, 180], "ring": 6},
    )),
    "rocker": Limb(words="a rocker of two curved runners", parts=lambda b: (
        {"shape": "arc", "size": [0.6, 0.065, 0.065, 110], "at": [0, b.foot + 0.42, 0.2],
         "turn": [0, 0, 215], "line": 2, "step": [0, 0, -0.4]},
        {"shape": "box", "size": [0.1, 0.1, 0.24, 0.03], "at": [0, b.foot - 0.08, 0]},
    )),
})  # fmt: skip

CROWNS: Mapping[str, Limb] = MappingProxyType({
    "none": Limb(words="", parts=_none),
    "collar": Limb(words="a flared collar", parts=lambda b: (
        {"shape": "cone", "size": [0.16, 0.32, 0.14, 0.02], "at": [0, b.top + 0.08, 0]},
    )),
    "stem": Limb(words="a short bent stem", parts=lambda b: (
        {"shape": "path", "points": [[0, b.top - 0.06, 0, 0.09], [0, b.top + 0.12, 0, 0.07],
                                     [0.1, b.top + 0.28, 0.04, 0.08]]},
    )),
    "loop": Limb(words="a hanging loop", parts=lambda b: (
        {"shape": "torus", "size": [0.16, 0.06], "at": [0, b.top + 0.13, 0],
         "turn": [90, 0, 0]},
    )),
    "leaves": Limb(words="a tuft of pointed leaves", parts=lambda b: (
        {"shape": "leaf", "size": [0.32, 0.12, 0.05], "at": [0.14, b.top + 0.2, 0],
         "turn": [0, 90, -28], "ring": 6},
    )),
    "roof": Limb(words="a pointed roof", parts=lambda b: (
        {"shape": "cone", "size": [0.48, 0.03, 0.2, 0.02], "at": [0, b.top + 0.16, 0]},
    )),
    "horns": Limb(words="a crown of five curved horns", parts=lambda b: (
        {"shape": "arc", "size": [0.3, 0.1, 0.02, 100], "at": [-0.16, b.top - 0.08, 0],
         "ring": 5},
    )),
    "star": Limb(words="an upright star", parts=lambda b: (
        {"shape": "star", "size": [5, 0.36, 0.16, 0.08], "at": [0, b.top + 0.24, 0],
         "turn": [90, 0, 0]},
    )),
    "gear": Limb(words="a toothed wheel on edge", parts=lambda b: (
        {"shape": "gear", "size": [9, 0.28, 0.14, 0.09], "at": [0, b.top + 0.24, 0],
         "turn": [90, 0, 0]},
    )),
    "bowl": Limb(words="an open bowl", parts=lambda b: (
        {"shape": "bowl", "size": [0.36, 0.06, 0.06], "at": [0, b.top + 0.3, 0]},
    )),
    "antenna": Limb(words="three stalks that end in balls", parts=lambda b: (
        {"shape": "capsule", "size": [0.04, 0.2], "at": [0.12, b.top + 0.12, 0],
         "turn": [0, 0, -24], "ring": 3},
        {"shape": "ball", "size": [0.13], "at": [0.22, b.top + 0.36, 0], "ring": 3},
    )),
})  # fmt: skip

FLANKS: Mapping[str, Limb] = MappingProxyType({
    "none": Limb(words="", parts=_none),
    "handles": Limb(words="two looped handles", parts=lambda b: (
        {"shape": "torus", "size": [0.19, 0.06], "at": [b.side + 0.1, b.waist + 0.06, 0],
         "turn": [90, 0, 0], "mirror": True},
    )),
    "wings": Limb(words="two broad wings", parts=lambda b: (
        {"shape": "leaf", "size": [0.44, 0.2, 0.05], "at": [b.side + 0.26, b.waist + 0.16, 0],
         "turn": [0, 0, -62], "mirror": True},
    )),
    "knobs": Limb(words="a belt of round knobs", parts=lambda b: (
        {"shape": "ball", "size": [0.12], "at": [b.side, b.waist, 0], "ring": 9},
    )),
    "ring": Limb(words="a wide ring like a planet's", parts=lambda b: (
        {"shape": "torus", "size": [b.side + 0.24, 0.06], "at": [0, b.waist, 0],
         "turn": [0, 0, 12]},
        {"shape": "capsule", "size": [0.035, b.side + 0.2], "at": [0, b.waist, 0],
         "turn": [90, 0, 0], "ring": 2},
    )),
    "spikes": Limb(words="rows of spikes", parts=lambda b: (
        {"shape": "cone", "size": [0.08, 0.005, 0.16, 0.002],
         "at": [b.side + 0.1, b.waist - 0.12, 0], "turn": [0, 0, -90], "ring": 9, "line": 2,
         "step": [0, 0.24, 0]},
    )),
    "fins": Limb(words="four upright fins", parts=lambda b: (
        {"shape": "leaf", "size": [0.36, 0.22, 0.05], "at": [b.side + 0.06, b.waist, 0],
         "ring": 4},
    )),
    "spout": Limb(words="a long curved spout", parts=lambda b: (
        {"shape": "path", "points": [[b.side - 0.06, b.waist - 0.08, 0.1, 0.11],
                                     [b.side + 0.22, b.waist, 0.16, 0.09],
                                     [b.side + 0.34, b.waist + 0.32, 0.2, 0.07]]},
    )),
})  # fmt: skip

SKINS: Mapping[str, Skin] = MappingProxyType(
    {
        "plain": Skin(words="smooth", look={}),
        "ribs": Skin(words="ribbed", look={"pattern": "ribs", "relief": 0.8}),
        "planks": Skin(words="planked", look={"pattern": "planks", "relief": 0.6}),
        "cells": Skin(words="scaly", look={"pattern": "cells", "scale": 7.0, "relief": 0.7}),
        "bricks": Skin(words="brick-built", look={"pattern": "bricks", "relief": 0.6}),
        "knit": Skin(words="knitted", look={"pattern": "knit", "scale": 9.0, "relief": 0.8}),
        "mesh": Skin(words="mesh-wrapped", look={"pattern": "mesh", "relief": 0.7}),
        "dots": Skin(words="dotted", look={"pattern": "dots", "scale": 6.0, "relief": 0.4}),
        "metal": Skin(words="polished metal", look={"material": "metal"}),
        "embers": Skin(
            words="ember-glowing", look={"pattern": "cracks", "material": "glow", "scale": 6.0}
        ),
    }
)

ATTRIBUTES: Mapping[str, Mapping[str, Body | Limb | Skin]] = MappingProxyType(
    {"body": BODIES, "foot": FEET, "crown": CROWNS, "flank": FLANKS, "skin": SKINS}
)

Make = tuple[str, str, str, str, str]
"""A value of each attribute, in the order of ATTRIBUTES."""

FOILS: Mapping[str, Make] = MappingProxyType({
    "vase": ("gourd", "plinth", "collar", "none", "plain"),
    "barrel": ("barrel", "none", "none", "none", "planks"),
    "pineapple": ("barrel", "none", "leaves", "none", "cells"),
    "pear": ("pear", "none", "stem", "none", "plain"),
    "bell": ("dome", "none", "loop", "none", "metal"),
    "lantern": ("drum", "plinth", "roof", "none", "mesh"),
    "cactus": ("barrel", "none", "none", "spikes", "ribs"),
    "cauldron": ("drum", "legs", "collar", "handles", "metal"),
    "chimney": ("block", "none", "collar", "none", "bricks"),
    "watering can": ("drum", "none", "loop", "spout", "metal"),
})  # fmt: skip
"""Everyday things that these attributes can say."""


def solids(make: Make) -> dict[str, list[Table]]:
    """The parts of a thing by attribute; the skin is part of the body."""
    body = BODIES[make[0]]
    look = SKINS[make[4]].look
    paints = {"foot": 1, "crown": 2, "flank": 1}
    parts = {"body": [{**look, **part} for part in body.parts]}
    for attribute, name in zip(("foot", "crown", "flank"), make[1:4], strict=True):
        limb = ATTRIBUTES[attribute][name]
        assert isinstance(limb, Limb)
        parts[attribute] = [{"paint": paints[attribute], **part} for part in limb.parts(body)]
    return parts


def describe(make: Make) -> str:
    """A thing in words, without a full stop: `a ribbed drum on three splayed legs, with …`."""
    body, foot, crown, flank, skin = make
    text = with_article(f"{SKINS[skin].words} {BODIES[body].words}")
    if FEET[foot].words:
        text += f" on {FEET[foot].words}"
    carried = [limb.words for limb in (CROWNS[crown], FLANKS[flank]) if limb.words]
    if carried:
        text += ", with " + " and ".join(carried)
    return text


def with_article(words: str) -> str:
    return ("an " if words[0] in "aeiou" else "a ") + words
