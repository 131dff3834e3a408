"""Pictures over a megabyte: smaller, the same wherever that is possible, and told of as before."""

import io

import numpy as np
import pytest
from PIL import Image

from isekai import metadata
from isekai.fitting import LIMIT, fit
from isekai.images import UnreadableImage, decode, encode

FACTS = {"prompt": "a blimel, 2 < 3", "seed": 7}
XMP = metadata.packet(FACTS, kind="algorithmicMedia")


def noise(width: int, height: int, colours: int = 256) -> Image.Image:
    values = np.random.default_rng(3).integers(0, colours, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def stored(picture: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize("data", [b"", b"no picture", encode(noise(40, 30), "png", XMP)])
def test_what_is_small_enough_stays_byte_for_byte(data):
    assert fit(data) == (data, "")


def test_the_limit_itself_is_allowed():
    data = encode(noise(40, 30))
    assert fit(data, len(data)) == (data, "")
    assert fit(data, len(data) - 1).how


def test_pixels_stay_where_they_fit_without_loss():
    picture = noise(700, 500, colours=4)
    data = stored(picture, "BMP")
    smaller, how = fit(data)
    assert len(data) > LIMIT >= len(smaller)
    assert how == "lossless WebP"
    assert decode(smaller).tobytes() == picture.tobytes()


def test_what_does_not_fit_without_loss_gets_the_highest_quality_that_fits():
    picture = noise(120, 120)
    data, limit = encode(picture, "png", XMP), 13_000
    smaller, how = fit(data, limit)
    quality = int(how.removeprefix("WebP of quality "))
    assert 50 < quality < 100
    assert len(smaller) <= limit
    better = stored(picture, "WEBP", quality=quality + 1, method=4, xmp=XMP)
    assert len(better) > limit
    assert decode(smaller).size == picture.size
    assert difference(decode(smaller), picture) < difference(Image.new("RGB", (120, 120)), picture)


def test_a_picture_that_no_quality_makes_small_enough_loses_half_its_sides():
    smaller, how = fit(encode(noise(120, 90)), 3_000)
    assert how.startswith("WebP of quality ")
    assert how.endswith(", 60x45 pixels")
    assert decode(smaller).size == (60, 45)
    assert len(smaller) <= 3_000


def test_sides_that_webp_can_not_hold_are_halved():
    data = stored(Image.new("RGB", (16_384, 40), (9, 80, 200)), "BMP")
    smaller, how = fit(data)
    assert "8192x20 pixels" in how
    assert decode(smaller).getpixel((4_000, 10)) == pytest.approx((9, 80, 200), abs=3)


@pytest.mark.parametrize("limit", [20_000, 13_000, 6_000])
def test_what_is_told_of_the_picture_goes_along(limit):
    data = encode(noise(90, 90), "png", XMP)
    smaller, how = fit(data, limit)
    assert how
    assert metadata.read(smaller) == FACTS
    assert metadata.digital_source(smaller) == "algorithmicMedia"


def test_nothing_else_that_the_file_tells_goes_along():
    exif = Image.Exif()
    exif[0x010E] = "taken at 1 Secret Street"
    smaller, how = fit(stored(noise(90, 90), "JPEG", quality=100, exif=exif), 9_000)
    assert how
    assert b"Secret" not in smaller


def test_a_turned_picture_stands_upright_once():
    picture = Image.new("RGB", (60, 40))
    picture.paste(noise(30, 40), (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = stored(picture, "PNG", exif=exif)
    smaller, how = fit(data, 3_600)
    assert how.startswith("WebP of quality ")
    upright = decode(smaller)
    assert upright.size == (40, 60)
    around = upright.transpose(Image.Transpose.ROTATE_180)
    assert difference(upright, decode(data)) < difference(around, decode(data)) / 2


def test_equal_pictures_become_equal_files():
    data = encode(noise(120, 120), "png", XMP)
    for limit in (43_000, 13_000, 5_000):
        assert fit(data, limit) == fit(bytes(data), limit)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"no picture" * 200_000, "not a picture"),
        (encode(noise(700, 700))[:-300_000], "damaged"),
    ],
)
def test_what_is_no_picture_is_refused(data, told):
    with pytest.raises(UnreadableImage, match=told):
        fit(data)


def test_what_follows_a_picture_in_its_file_is_cut_off():
    picture = noise(10, 10)
    smaller, how = fit(encode(picture) + b"x" * LIMIT)
    assert how == "lossless WebP"
    assert decode(smaller).tobytes() == picture.tobytes()


def test_metadata_that_leaves_no_room_is_told():
    with pytest.raises(UnreadableImage, match=r"bytes of metadata leave no room .* in 600"):
        fit(encode(noise(20, 20), "png", XMP), 600)
