"""Can concepts be told by style alone: the probe again, on features that know nothing of shape.

All are taken from the whole picture, squeezed to a square of `SIDE` pixels (values 0 to 1):

    colour      mean, deviation and skewness of red - green, of yellow - blue and of saturation;
                a histogram of eight hues, weighted by saturation
    brightness  mean, deviation and skewness of luma; a histogram of eight levels
    texture     mean and deviation of the luma's gradient at full and at half size; the share of it
                that runs across; the slope of its spectrum, log power against log frequency
    frame       share, width, height and place of what differs from the picture's border; how much
                the border varies; the file's own width, height and shape, in logarithms
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import files
from isekai.dataset import Dataset
from isekai.evidence import probes
from isekai.evidence.probes import Found, Pair, Rivals
from isekai.evidence.records import AGAINST, ALL, Against, Comparison, Probes
from isekai.evidence.space import Space, every
from isekai.images import decode
from isekai.types import Estimate

SIDE = 128
BINS = 8
DIFFERS = 0.15
"""How far, in RGB, a pixel lies from the median of the border to count as not of it."""

_LUMA = np.array([0.299, 0.587, 0.114])

Floats = NDArray[np.float64]

FAMILIES = {
    "colour": slice(0, 17),
    "brightness": slice(17, 28),
    "texture": slice(28, 35),
    "frame": slice(35, 44),
}
"""Name of a family -> its features."""


def measure(
    dataset: Dataset,
    styles: Mapping[str, Floats],
    rivals: Rivals,
    *,
    shots: tuple[int, ...],
    seed: int,
) -> Probes:
    """What style alone tells of rivals. `styles` may hold pictures that were described before."""
    ids = every(dataset)
    rows = np.stack([_known(dataset, styles, id) for id in ids])
    known = dataset.entries
    support = {entry.image_id for entry in known if entry.split == "support"}
    scaled = scale(rows, np.array([id in support for id in ids]))
    found = probes.ask(Space.put(dataset, ids, scaled), rivals, shots=shots, seed=seed)
    alone = {
        name: probes.ask(Space.put(dataset, ids, scaled[:, own]), rivals, shots=(), seed=seed)
        for name, own in FAMILIES.items()
    }
    told = probes.comparisons(found, rivals)
    return Probes(
        made={
            "features": {name: own.stop - own.start for name, own in FAMILIES.items()},
            "side": SIDE,
            "probe": probes.PROBE,
            "shots": list(shots),
            "draws": probes.DRAWS,
            "seed": seed,
            "environment": files.environment("numpy", "pillow", "scipy"),
        },
        concepts=_with_families(told, alone, rivals),
        overall=probes.overall(found, rivals),
        families=_families(alone, rivals),
    )


def _known(dataset: Dataset, styles: Mapping[str, Floats], id: str) -> Floats:
    return styles[id] if id in styles else describe(decode(dataset.image(id).data))


def scale(rows: Floats, support: NDArray[np.bool_]) -> Floats:
    """Each feature less its mean over its deviation, by the support pictures of all concepts.

    Families of many features are scaled down: each family weighs as much as the others.
    """
    shown = rows[support]
    away = shown.std(axis=0)
    scaled: Floats = (rows - shown.mean(axis=0)) / np.where(away > 1e-9, away, 1.0)
    for own in FAMILIES.values():
        scaled[:, own] /= np.sqrt(own.stop - own.start)
    return scaled


def _with_families(
    told: Mapping[str, Mapping[Against, Comparison]],
    alone: Mapping[str, Mapping[Pair, Found]],
    rivals: Rivals,
) -> dict[str, dict[Against, Comparison]]:
    by_family = {name: probes.comparisons(found, rivals) for name, found in alone.items()}

    def one(id: str, against: Against, whole: Comparison) -> Comparison:
        families = {name: own[id][against].accuracy[ALL] for name, own in by_family.items()}
        return Comparison(
            other=whole.other, accuracy=whole.accuracy, support=whole.support, families=families
        )

    return {
        id: {against: one(id, against, whole) for against, whole in own.items()}
        for id, own in told.items()
    }


def _families(
    alone: Mapping[str, Mapping[Pair, Found]], rivals: Rivals
) -> dict[Against, dict[str, Estimate]]:
    shares = {name: probes.overall(found, rivals) for name, found in alone.items()}
    return {
        against: {name: own[against][ALL] for name, own in shares.items()}
        for against in AGAINST
        if all(against in own for own in shares.values())
    }


# ---------------------------------------------------------------- features


def describe(image: Image.Image) -> Floats:
    """[D]: the features of a picture, family after family as in `FAMILIES`."""
    square = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(square, np.float64) / 255
    luma = pixels @ _LUMA
    return np.concatenate(
        [_colour(pixels), _brightness(luma), _texture(luma), _frame(pixels, image.size)]
    )


def _colour(pixels: Floats) -> Floats:
    red, green, blue = np.moveaxis(pixels, 2, 0)
    strength = pixels.max(axis=2) - pixels.min(axis=2)
    first, second = red - green, (red + green) / 2 - blue
    hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue) % (2 * np.pi)
    hues, _ = np.histogram(hue, bins=BINS, range=(0, 2 * np.pi), weights=strength)
    return np.concatenate([*map(_moments, (first, second, strength)), hues / hue.size])


def _brightness(luma: Floats) -> Floats:
    levels, _ = np.histogram(luma, bins=BINS, range=(0, 1))
    return np.concatenate([_moments(luma), levels / luma.size])


def _texture(luma: Floats) -> Floats:
    half = luma.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3))
    told = []
    for scale in (luma, half):
        down, across = np.gradient(scale)
        energy = np.hypot(down, across)
        told += [energy.mean(), energy.std(), _ratio(np.abs(across).sum(), np.abs(down).sum())]
    return np.array([*told, _slope(luma)])


def _slope(luma: Floats) -> float:
    """Of the spectrum's mean power over rings of frequency, in log-log; 0 for an even picture."""
    window = np.hanning(SIDE)
    power = np.abs(np.fft.fft2((luma - luma.mean()) * np.outer(window, window))) ** 2
    rate = np.fft.fftfreq(SIDE) * SIDE
    radius = np.hypot(rate[:, None], rate[None])
    edges = np.geomspace(2, SIDE / 2, 9)
    rings = [power[(radius >= low) & (radius < high)].mean() for low, high in pairwise(edges)]
    if min(rings) < 1e-12:
        return 0.0
    return float(np.polyfit(np.log(np.sqrt(edges[:-1] * edges[1:])), np.log(rings), 1)[0])


def _frame(pixels: Floats, size: tuple[int, int]) -> Floats:
    width = SIDE // 16
    inner = np.zeros((SIDE, SIDE), bool)
    inner[width:-width, width:-width] = True
    border = pixels[~inner]
    shape = np.linalg.norm(pixels - np.median(border, axis=0), axis=2) > DIFFERS
    down, across = np.nonzero(shape)
    spans = [_span(across), _span(down)] if len(down) else [(0.0, 0.5), (0.0, 0.5)]
    wide, high = map(float, size)
    file = [np.log(wide), np.log(high), np.log(wide / high)]
    return np.array([shape.mean(), *np.ravel(spans), border.std(axis=0).mean(), *file])


def _span(places: NDArray[np.int64]) -> tuple[float, float]:
    """Twice the deviation and the mean of places along a side, as parts of it."""
    return 2 * float(places.std()) / SIDE, float(places.mean()) / SIDE


def _moments(values: Floats) -> Floats:
    away = values - values.mean()
    deviation = away.std()
    skewness = np.mean(away * away * away) / deviation**3 if deviation > 1e-9 else 0.0
    return np.array([values.mean(), deviation, skewness])


def _ratio(one: float, other: float) -> float:
    return one / (one + other) if one + other > 0 else 0.5
