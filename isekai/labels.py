"""Label words: fantasy words that only the context gives a meaning, and common words that lie."""

from collections.abc import Iterable

import numpy as np

ONSETS = "bdfgklmnprstvz"
VOWELS = "aeiou"
CODAS = "lmnrs"
INNER = "bdfgkpvz"
FINALS = "bgkpvzfx"
"""A word is onset, vowel, coda | inner onset, vowel, final: 112,000 of them, six letters each.

One form for all words: neither length nor shape tells two labels of an episode apart, and six
letters in two syllables cost most tokenizers the same two or three tokens.
"""

LETTERS = (ONSETS, VOWELS, CODAS, INNER, VOWELS, FINALS)

APART = 4
"""Two labels of an episode differ by at least this many edits, of six letters."""

DICTIONARY = frozenset(
    """
    bandog bembex bombax danzig disdub disgig fondak fonduk forfex gasbag kuldip linkup marfik
    markab markeb markup menkib mirfak muskeg perdix perfix pondok sambuk sandak sandip sandix
    serdab sundek sundik sundog tanzeb tanzib terfez tumbak vindex volvox zendik
    """.split()  # noqa: SIM905
)
"""The words of this form in Webster's Second and the GNU Collaborative International Dictionary."""

_RUDE = ("dik", "fag", "fuk", "kok")


COMMON = tuple(
    """
    accordion anchor apron armchair backpack balloon banjo barrel basket bathtub bicycle binoculars
    blanket bookshelf broom bucket button calculator camera candle canoe carpet cello chainsaw
    chess chimney clarinet clock compass cradle crane curtain dice doorbell drum elevator envelope
    escalator fence ferry flute fountain funnel giraffe glove guitar hammer hammock harp helicopter
    jacket jigsaw kayak keyboard kite ladder lantern lawnmower lipstick magnet mailbox mattress
    microscope mirror mittens motorcycle necklace notebook padlock paintbrush parachute pencil
    penguin piano pillow pistol pyramid quilt radiator raincoat refrigerator rocket rollerblade
    saddle sailboat sandal saxophone scarf scissors scooter screwdriver shovel skateboard sled
    slipper snorkel spoon stapler stethoscope submarine suitcase sunglasses surfboard sweater
    syringe tambourine tent thermometer thimble toaster toothbrush tractor trampoline trombone
    trumpet umbrella vacuum violin wallet wheelbarrow whistle windmill wrench xylophone yacht zebra
    zipper
    """.split()  # noqa: SIM905
)
"""Everyday things that everybody can picture, each with one plain name."""


def conflict(count: int, avoid: Iterable[str], rng: np.random.Generator) -> tuple[str, ...]:
    """`count` common words for quite other things, none of which is like a word in `avoid`.

    What a model knows of such a word speaks against the thing that the context calls so. Words that
    share the last letters of a name ("-pot") are no hint here, so only whole words are kept apart.
    """
    taken = [word.casefold() for word in avoid if len(word) > 2]
    words: list[str] = []
    for word in rng.permutation(COMMON).tolist():
        if len(words) == count:
            break
        if not any(alike(word, other) for other in (*words, *taken)):
            words.append(word)
    if len(words) < count:
        raise ValueError(f"no {count} common words are this far from the names in the dataset")
    return tuple(words)


def fantasy(count: int, avoid: Iterable[str], rng: np.random.Generator) -> tuple[str, ...]:
    """`count` words that are like neither each other nor any word in `avoid`, nor in a dictionary.

    `avoid` holds the names of all concepts around, so that no label hints at one of them.
    """
    taken = [word.casefold() for word in avoid if word]
    words: list[str] = []
    for _ in range(10_000):
        if len(words) == count:
            return tuple(words)
        word = "".join(letters[rng.integers(len(letters))] for letters in LETTERS)
        if word in DICTIONARY or any(part in word for part in _RUDE):
            continue
        if not any(alike(word, other) for other in (*words, *taken)):
            words.append(word)
    raise ValueError(f"no {count} fantasy words are this far apart; a smaller way is needed")


def alike(a: str, b: str) -> bool:
    """True for words that could be taken for each other: few edits apart, or one in the other."""
    near = (  # a letter that the other lacks is an edit at least: quicker to see than all edits
        abs(len(a) - len(b)) < APART
        and max(len({*a} - {*b}), len({*b} - {*a})) < APART
        and _edits(a, b) < APART
    )
    short, long = sorted((a, b), key=len)
    return near or (len(short) > 2 and short in long)


def _edits(a: str, b: str) -> int:
    """Levenshtein distance: letters to insert, drop or change."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
