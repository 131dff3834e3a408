"""Files without what is told of their picture: the same picture, and not a word."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from isekai import containers, metadata
from isekai.images import UnreadableImage, bare, decode, encode

SECRET = b"cactihog"
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PACKET = metadata.packet({"prompt": SECRET.decode(), "seed": 1}, kind="algorithmicMedia")
FORMATS = ["PNG", "JPEG", "WEBP", "GIF"]


def noise(mode: str = "RGB", size: tuple[int, int] = (19, 13)) -> Image.Image:
    rng = np.random.default_rng(3)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 4), dtype=np.uint8), "RGBA")
    return image.convert("RGB").convert(mode) if mode != "RGBA" else image


def exif(orientation: int = 1) -> Image.Exif:
    told = Image.Exif()
    told[0x0112] = orientation
    told[0x010E] = SECRET.decode()  # ImageDescription
    return told


def told(
    format: str, orientation: int = 1, image: Image.Image | None = None, **how: object
) -> bytes:
    """A file that tells its secret in every way that Pillow knows to write."""
    texts = PngInfo()
    texts.add_text("Description", SECRET.decode())
    texts.add_text("Comment", SECRET.decode() * 40, zip=True)
    texts.add_itxt("XML:com.adobe.xmp", PACKET.decode())
    texts.add(b"caBX", SECRET)
    ways: dict[str, dict[str, object]] = {
        "PNG": {"pnginfo": texts, "exif": exif(orientation), "icc_profile": SRGB},
        "JPEG": {
            "comment": SECRET, "exif": exif(orientation), "xmp": PACKET, "icc_profile": SRGB,
            "dpi": (72, 72),
        },
        "WEBP": {"exif": exif(orientation), "xmp": PACKET, "icc_profile": SRGB, "lossless": True},
        "GIF": {"comment": SECRET},
    }  # fmt: skip
    buffer = io.BytesIO()
    image = image or noise()
    image.save(buffer, format, **{**ways[format], **how})
    return buffer.getvalue() + SECRET  # and behind the end of the file


def same(data: bytes) -> bytes:
    """The bare file, which shows the same and is bare."""
    stripped = bare(data)
    assert decode(stripped) == decode(data)
    assert bare(stripped) == stripped
    return stripped


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_told_is_left_and_the_picture_is_the_same(format):
    data = told(format)
    assert SECRET in data
    stripped = same(data)
    assert SECRET not in stripped
    assert zlib.compress(SECRET * 40) not in stripped
    assert not any(word in stripped.lower() for word in (b"xmp", b"exif", b"adobe", b"isekai"))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_on_its_side_stays_turned(format, orientation):
    stripped = same(told(format, orientation))
    assert SECRET not in stripped
    found = Image.open(io.BytesIO(stripped)).getexif()
    assert dict(found) == ({0x0112: orientation} if orientation > 1 else {})


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_an_orientation_that_xmp_alone_tells_stays(format):
    packet = b'<x tiff:Orientation="6">' + SECRET + b"</x>"
    texts = PngInfo()
    texts.add_itxt("XML:com.adobe.xmp", packet.decode())
    data = told(format, exif=b"", **({"pnginfo": texts} if format == "PNG" else {"xmp": packet}))
    assert decode(data).size == (13, 19)
    assert SECRET not in same(data)


def test_an_orientation_behind_the_pixels_or_in_hexadecimal_stays():
    plain = encode(noise())
    body = exif(8).tobytes()[6:]
    late = plain[:-12] + containers.png_chunk(b"eXIf", body) + plain[-12:]
    assert decode(late).size == (13, 19)
    same(late)
    raw = exif(6).tobytes()
    texts = PngInfo()
    texts.add_text("Raw profile type exif", f"\nexif\n{len(raw)}\n{raw.hex()}\n", zip=True)
    hexadecimal = told("PNG", pnginfo=texts, exif=b"")
    assert decode(hexadecimal).size == (13, 19)
    same(hexadecimal)


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_picture_of_ours_without_its_packet_is_one_that_never_had_it(format):
    assert bare(encode(noise(), format, PACKET)) == encode(noise(), format)
    assert bare(encode(noise(), format)) == encode(noise(), format)


def test_colours_gamma_and_see_through_pixels_stay():
    swapped = SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    for format in ("PNG", "JPEG", "WEBP"):
        data = told(format, icc_profile=swapped)
        assert decode(data) != decode(told(format))
        same(data)
    plain = encode(noise())
    linear = plain[:33] + containers.png_chunk(b"gAMA", struct.pack(">I", 100_000)) + plain[33:]
    assert decode(linear) != noise()
    same(linear)
    for format, how in (("PNG", {}), ("WEBP", {"exact": True}), ("WEBP", {"lossless": False})):
        data = told(format, image=noise("RGBA"), **how)
        assert decode(data) != noise()
        same(data)
    for mode in ("P", "L", "1", "LA", "I;16"):
        image = Image.new(mode, (5, 4)) if mode == "I;16" else noise(mode)
        same(told("PNG", image=image, icc_profile=b""))
    same(told("PNG", image=noise("P"), icc_profile=b"", transparency=3))
    same(told("GIF", image=noise("P"), transparency=3))


@pytest.mark.parametrize("how", [{"progressive": True}, {"restart_marker_blocks": 1}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_every_kind_of_jpeg_is_taken_apart(mode, how):
    image = noise("RGB", (120, 90)).convert(mode)
    data = told("JPEG", image=image, icc_profile=b"", quality=95, **how)
    assert SECRET not in same(data)


def test_a_comment_between_two_scans_and_filling_bytes_go():
    data = told("JPEG", image=noise("RGB", (64, 64)), progressive=True)
    parts = containers.pieces(data)
    second = [place for place, (name, _) in enumerate(parts) if name == b"\xda"][1]
    comment = b"\xff\xff\xff\xfe" + struct.pack(">H", 2 + len(SECRET)) + SECRET
    raw = [raw for _, raw in parts]
    same(b"".join([*raw[:second], comment, *raw[second:]]))


def test_a_thumbnail_goes_with_the_texts_in_it():
    data = told("JPEG", exif=b"", comment=b"", xmp=b"")
    at = data.index(b"JFIF\0") - 4
    size = int.from_bytes(data[at + 2 : at + 4])
    thumb = data[at + 4 : at + 16] + b"\x01\x01" + b"abc"
    head = b"\xff\xe0" + struct.pack(">H", len(thumb) + 2) + thumb
    fat = data[:at] + head + data[at + 2 + size :]
    assert same(fat) == same(data)


def test_a_phone_picture_with_a_second_view_keeps_the_first():
    buffer = io.BytesIO()
    noise().save(buffer, "MPO", save_all=True, append_images=[noise("L").convert("RGB")])
    first = same(buffer.getvalue())
    assert len(first) < len(buffer.getvalue()) / 2
    assert Image.open(io.BytesIO(first)).format == "JPEG"


def test_a_film_stays_a_film():
    frames = [noise(), noise("L").convert("RGB")]
    for format in ("GIF", "PNG", "WEBP"):
        data = told(format, image=frames[0], save_all=True, append_images=frames[1:], loop=3)
        stripped = bare(data)
        assert SECRET not in stripped
        then, now = (Image.open(io.BytesIO(each)) for each in (data, stripped))
        assert now.n_frames == then.n_frames == 2
        assert now.info.get("loop") == then.info.get("loop") == 3
        now.seek(1)
        then.seek(1)
        assert now.convert("RGB").tobytes() == then.convert("RGB").tobytes()


def test_other_formats_and_files_that_are_cut_off_are_refused():
    for format in FORMATS:
        data = told(format)[: -len(SECRET)]
        for length in (13, 60, len(data) // 2, len(data) - 1):
            with pytest.raises(UnreadableImage):
                bare(data[:length])
    for format in ("TIFF", "BMP"):
        buffer = io.BytesIO()
        noise().save(buffer, format)
        with pytest.raises(UnreadableImage, match="neither PNG, JPEG, WebP nor GIF"):
            bare(buffer.getvalue())
    with pytest.raises(UnreadableImage):
        bare(b"")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.sampled_from([1, 6]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=3),
)
def test_damage_anywhere_gives_the_same_picture_or_a_reason(format, orientation, changes):
    data = bytearray(told(format, orientation))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    with contextlib.suppress(UnreadableImage):
        picture = decode(bytes(data))
        stripped = bare(bytes(data))
        assert decode(stripped) == picture
        assert bare(stripped) == stripped


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(FORMATS), st.binary(max_size=80))
def test_any_bytes_behind_the_first_ones_give_a_file_or_a_reason(format, tail):
    data = told(format)[:14] + tail
    with contextlib.suppress(UnreadableImage):
        bare(data)
