"""What servers are sent of an image: its picture, and never what is told of it."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from isekai import metadata
from isekai.files import sha256
from isekai.images import UnreadableImage, decode, encode
from isekai.types import EncodedImage
from model_adapters.pictures import picture

PACKET = metadata.packet(
    {"prompt": "a photo of a cactihog", "concept": "cactihog/cactihog", "seed": 4},
    kind="trainedAlgorithmicMedia",
)


def image(data: bytes) -> EncodedImage:
    return EncodedImage(id=sha256(data), data=data)


def noise(width: int = 40, height: int = 30) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(format: str, **how: object) -> bytes:
    buffer = io.BytesIO()
    noise().save(buffer, format, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["png", "webp"])
@pytest.mark.parametrize("max_side", [None, 20])
def test_a_picture_is_sent_without_the_name_of_what_it_shows(format, max_side):
    data = encode(noise(), format, PACKET)
    assert b"cactihog" in data
    sent = picture(image(data), max_side)
    assert b"cactihog" not in base64.b64decode(sent.data)
    assert "cactihog" not in repr(sent)
    plain = picture(image(encode(noise(), format)), max_side)
    assert sent == plain


def test_own_files_are_sent_as_they_are_where_servers_read_them():
    for format, kind in (("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("GIF", "gif")):
        data = saved(format)
        sent = picture(image(data))
        assert sent.media_type == f"image/{kind}"
        assert decode(base64.b64decode(sent.data)) == decode(data)
    assert base64.b64decode(picture(image(encode(noise()))).data) == encode(noise())


@pytest.mark.parametrize("format", ["BMP", "TIFF"])
def test_other_formats_are_sent_as_png(format):
    sent = picture(image(saved(format)))
    assert sent.media_type == "image/png"
    assert decode(base64.b64decode(sent.data)) == noise()


def test_a_file_that_can_be_seen_but_not_taken_apart_is_sent_as_its_pixels():
    data = encode(noise(), "png", PACKET)[:-12]  # without its end, which Pillow forgives
    assert decode(data) == noise()
    sent = picture(image(data))
    assert base64.b64decode(sent.data) == encode(noise())


def test_a_side_that_is_too_long_is_shrunk_and_counted():
    sent = picture(image(encode(noise(400, 300))), 200)
    assert decode(base64.b64decode(sent.data)).size == (200, 150)
    assert sent.tokens == pytest.approx(64)
    assert picture(image(encode(noise(400, 300)))).tokens == pytest.approx(160)


def test_what_is_no_picture_is_refused_with_the_reason():
    for data, told in ((b"hello", "not a picture"), (encode(noise())[:200], "damaged")):
        with pytest.raises(UnreadableImage, match=told):
            picture(image(data))
