"""The gate for pictures that show nothing: black, white, or all of one colour."""

from collections.abc import Mapping

from PIL import Image, ImageChops, ImageStat

from isekai.errors import PluginError
from isekai.protocols import Judgement
from isekai.types import ImageRequest

NEAR = 8
"""Levels of 255, in each channel, within which a pixel has the picture's commonest colour."""


class Flat:
    """Turns down what hardly differs from a plain area. A thing on a plain background passes.

    `flat.deviation` is the standard deviation of the channel that varies most, in levels of 255;
    `flat.plain` the share of pixels that have the median colour.

    The limits are measured at 128 pixels. Among 300 procedural pictures of all concepts the least
    deviation is 20.8 and the largest plain share 0.62. A pale disc (240) on white comes to 6.9 and
    0.80 at half of the picture's width, to 3.8 and 0.95 at a quarter, where it still passes. Noise
    of 2 levels about any grey stays at 2.0, so it counts as flat; a disc of an eighth of the width
    has a plain share of 0.987, whatever its colour, and counts as a speck.
    """

    def __init__(self, min_deviation: float = 3.0, max_plain: float = 0.985) -> None:
        if not 0 <= min_deviation <= 127 or not 0 < max_plain <= 1:
            raise PluginError(
                "gate 'flat' takes min_deviation from 0 to 127 and max_plain above 0 and up to 1, "
                f"given {min_deviation:g} and {max_plain:g}"
            )
        self._min_deviation = min_deviation
        self._max_plain = max_plain

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "min_deviation": self._min_deviation,
            "max_plain": self._max_plain,
            "near": NEAR,
        }

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        deviation, plain = measure(image)
        scores = {"flat.deviation": deviation, "flat.plain": plain}
        if deviation < self._min_deviation:
            reason = (
                f"all of one colour: its levels deviate by {deviation:.1f}, "
                f"at least {self._min_deviation:g} are wanted"
            )
        elif plain > self._max_plain:
            reason = (
                f"nearly all of one colour: {plain:.1%} of the pixels have it, "
                f"at most {self._max_plain:.1%} may"
            )
        else:
            reason = ""
        return Judgement(scores, reason)


def measure(image: Image.Image) -> tuple[float, float]:
    """The largest standard deviation of a channel, and the share of pixels of the median colour."""
    rgb = image.convert("RGB")
    found = ImageStat.Stat(rgb)
    median = Image.new("RGB", rgb.size, tuple(int(level) for level in found.median))
    red, green, blue = ImageChops.difference(rgb, median).split()
    largest = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    return max(found.stddev), sum(largest[: NEAR + 1]) / sum(largest)
