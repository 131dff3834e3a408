"""Pictures from strangers: the right colours the right way up, or a reason."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from isekai.images import FORMATS, MAX_PIXELS, MAX_SIDE, UnreadableImage, decode, encode

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def saved(image: Image.Image, format: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **how)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode(data)
    assert image.mode == "RGB"
    assert not image.info
    return np.asarray(image).astype(int)


def close(found: np.ndarray, wanted: object, within: int = 0) -> None:
    assert np.abs(found - np.asarray(wanted)).max() <= within, found


def quarters() -> Image.Image:
    """Red, green / blue, white: every rotation and reflection looks different."""
    image = Image.new("RGB", (48, 32))
    for place, colour in (((0, 0), RED), ((24, 0), GREEN), ((0, 16), BLUE), ((24, 16), WHITE)):
        image.paste(colour, (*place, place[0] + 24, place[1] + 16))
    return image


def corners(found: np.ndarray) -> list[tuple[int, ...]]:
    y, x = found.shape[0] - 4, found.shape[1] - 4
    return [tuple(found[place]) for place in ((3, 3), (3, x), (y, 3), (y, x))]


@pytest.mark.parametrize("format", ["png", "webp"])
def test_encoding_loses_nothing_and_depends_on_the_pixels_alone(format):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (17, 23, 3), dtype=np.uint8))
    data = encode(image, format)
    close(pixels(data), np.asarray(image))
    marked = Image.open(io.BytesIO(saved(image, dpi=(72, 72), icc_profile=SRGB)))
    assert encode(marked, format) == data
    how = {"lossless": True, "quality": 50, "method": 3}
    written = saved(image, compress_level=3) if format == "png" else saved(image, "WEBP", **how)
    assert data == written == encode(image, format, b"")


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_keeps_its_colours(format):
    image = quarters().quantize(4) if format == "GIF" else quarters()
    how = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    how = {"lossless": True} if format == "WEBP" else how
    wanted = [RED, GREEN, BLUE, WHITE]
    close(np.array(corners(pixels(saved(image, format, **how)))), wanted, within=2)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_camera_held_sideways_gives_an_upright_picture(format, orientation):
    # What has to be done to the upright picture so that this orientation undoes it.
    undo = (None, None, 0, 3, 1, 5, 2, 6, 4)[orientation]
    stored = quarters() if undo is None else quarters().transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    found = pixels(saved(stored, format, exif=exif, **how))
    assert found.shape == (32, 48, 3)
    close(np.array(corners(found)), [RED, GREEN, BLUE, WHITE], within=2)


def test_16_bit_greys_are_scaled_not_clipped():
    values = np.array([[0, 1000, 20000, 32768, 65535]], dtype=np.uint16)
    wanted = (values[0] / 257).round()
    close(pixels(saved(Image.fromarray(values)))[0, :, 0], wanted)
    close(pixels(saved(Image.fromarray(values), "TIFF"))[0, :, 2], wanted)
    zero_is_white = saved(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    close(pixels(zero_is_white)[0, :, 1], 255 - wanted)


def test_transparency_shows_white_whatever_way_it_is_written():
    rgba = Image.new("RGBA", (3, 1), (*BLUE, 255))
    rgba.putpixel((1, 0), (*BLUE, 0))
    rgba.putpixel((2, 0), (*BLUE, 128))
    wanted = [BLUE, WHITE, (127, 127, 255)]
    close(pixels(saved(rgba))[0], wanted, within=1)
    close(pixels(saved(rgba, "WEBP", lossless=True, exact=True))[0], wanted, within=1)
    close(pixels(saved(rgba, "TIFF"))[0], wanted, within=1)

    grey = Image.fromarray(np.array([[[10, 255], [10, 0]]], dtype=np.uint8), "LA")
    close(pixels(saved(grey))[0], [(10, 10, 10), WHITE])

    palette = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    palette.putpalette([*RED, *GREEN, *BLUE])
    close(pixels(saved(palette))[0], [RED, GREEN, BLUE])
    close(pixels(saved(palette, "GIF"))[0], [RED, GREEN, BLUE])
    close(pixels(saved(palette, transparency=1))[0], [RED, WHITE, BLUE])
    close(pixels(saved(palette, "GIF", transparency=1))[0], [RED, WHITE, BLUE])
    close(pixels(saved(palette, transparency=bytes([255, 0, 128])))[0, 1:], [WHITE, wanted[2]], 1)

    keyed = Image.fromarray(np.array([[RED, GREEN]], dtype=np.uint8))
    close(pixels(saved(keyed, transparency=GREEN))[0], [RED, WHITE])
    deep = Image.fromarray(np.array([[257, 514]], dtype=np.uint16))
    close(pixels(saved(deep, transparency=514))[0], [(1, 1, 1), WHITE])


def test_one_bit_pictures_are_black_and_white():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    for format in ("PNG", "TIFF", "BMP"):
        close(pixels(saved(image, format))[0], [(0, 0, 0), WHITE])


def test_cmyk_without_a_profile_is_not_inverted():
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    close(pixels(saved(ink, "TIFF")), RED)
    close(pixels(saved(ink, "JPEG", quality=100)), RED, within=3)


def test_cmyk_with_a_profile_is_converted_by_it():
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    profile = cmyk_profile(cyan=(60.0, -30.0, -40.0))
    wanted = srgb_of_lab(60.0, -30.0, -40.0)
    assert np.abs(wanted - (0, 255, 255)).max() > 30
    close(pixels(saved(ink, "TIFF", icc_profile=profile)), wanted, within=2)
    close(pixels(saved(ink, "JPEG", quality=100, icc_profile=profile)), wanted, within=4)


def test_the_profile_of_an_rgb_picture_is_applied_and_a_broken_one_is_not():
    orange = Image.new("RGB", (4, 4), (255, 160, 0))
    close(pixels(saved(orange, icc_profile=SRGB)), (255, 160, 0))
    swapped = SRGB.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    close(pixels(saved(orange, icc_profile=swapped)), (160, 255, 0), within=1)
    seen_through = Image.new("RGBA", (4, 4), (255, 160, 0, 255))
    close(pixels(saved(seen_through, icc_profile=swapped)), (160, 255, 0), within=1)
    for broken in (b"no profile", SRGB[:200], cmyk_profile(cyan=(60.0, -30.0, -40.0))):
        close(pixels(saved(orange, icc_profile=broken)), (255, 160, 0))


def test_a_linear_png_is_brightened_by_its_gamma():
    data = saved(Image.new("RGB", (2, 2), (55, 0, 255)))
    linear = data[:33] + chunk(b"gAMA", struct.pack(">I", 100000)) + data[33:]
    close(pixels(linear), (round(255 * (55 / 255) ** (1 / 2.2)), 0, 255))
    usual = data[:33] + chunk(b"gAMA", struct.pack(">I", 45455)) + data[33:]
    close(pixels(usual), (55, 0, 255))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_moving_pictures_are_refused_with_their_frames(format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = saved(frames[0], format, save_all=True, append_images=frames[1:])
    with pytest.raises(UnreadableImage, match=r"animated: 3 (frames|pages)"):
        decode(data)


def test_a_phone_picture_with_a_second_view_shows_the_first():
    views = [Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)]
    data = saved(views[0], "MPO", save_all=True, append_images=views[1:], quality=100)
    close(pixels(data), RED, within=2)


def chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


def bomb(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds almost nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("width", "height", "told"),
    [
        (30_000, 10, "30000x10"),
        (30_000, 30_000, "900,000,000"),
        (10_000, 10_000, "10000x10000"),
        (8_001, 8_000, "8001x8000"),
    ],
)
def test_pictures_too_large_are_refused_before_they_are_decoded(width, height, told):
    assert max(width, height) > MAX_SIDE or width * height > MAX_PIXELS
    with pytest.raises(UnreadableImage, match=told):
        decode(bomb(width, height))


def test_numbers_without_an_agreed_white_are_refused():
    for mode in ("F", "I"):
        with pytest.raises(UnreadableImage, match="save it with 8 or 16 bits"):
            decode(saved(Image.new(mode, (2, 2)), "TIFF"))


def test_what_is_no_picture_says_so():
    with pytest.raises(UnreadableImage, match="empty file"):
        decode(b"")
    for data in (b"hello", b"<svg/>", b"\x89PNG\r\n\x1a\n", b"%PDF-1.7"):
        with pytest.raises(UnreadableImage, match="not a picture"):
            decode(data)
    with pytest.raises(UnreadableImage, match="not a picture"):
        decode(saved(quarters(), "PPM"))


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_cut_off_file_is_refused(format):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), format)
    for share in (0.02, 0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImage):
            decode(data[: int(len(data) * share)])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FORMATS), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255))))
def test_damage_anywhere_gives_a_picture_or_a_reason(format, changes):
    exif = Image.Exif()
    exif[0x0112] = 6
    how = {} if format in ("GIF", "BMP") else {"exif": exif, "icc_profile": SRGB}
    data = bytearray(saved(quarters(), format, **how))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    with contextlib.suppress(UnreadableImage):
        assert decode(bytes(data)).mode == "RGB"


# ---------------------------------------------------------------- colour profiles made by hand

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def srgb_of_lab(lightness: float, a: float, b: float) -> np.ndarray:
    """CIE Lab (D50) as 8-bit sRGB, by the textbook formulas."""
    y = (lightness + 16) / 116
    f = np.array([y + a / 500, y, y - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1.0, 0.8249)
    to_linear = np.array(  # sRGB primaries adapted to D50 (Bradford)
        [
            [3.1338561, -1.6168667, -0.4906146],
            [-0.9787684, 1.9161415, 0.0334540],
            [0.0719453, -0.2289914, 1.4052427],
        ]
    )
    linear = np.clip(to_linear @ xyz, 0, 1)
    return np.round(
        255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    )


def cmyk_profile(*, cyan: tuple[float, float, float]) -> bytes:
    """A press whose full cyan has this Lab colour; other inks darken white towards black."""

    def lab16(lightness: float, a: float, b: float) -> bytes:
        scaled = (lightness / 100 * 0xFF00, (a + 128) * 256, (b + 128) * 256)
        return struct.pack(">3H", *(round(value) for value in scaled))

    corners = b""
    for corner in range(16):  # the first ink varies slowest
        c, m, y, k = (corner >> 3 & 1, corner >> 2 & 1, corner >> 1 & 1, corner & 1)
        if k or m + y == 2:
            corners += lab16(0, 0, 0)
        elif m or y:
            corners += lab16(50, 0, 0)
        else:
            corners += lab16(*cyan) if c else lab16(100, 0, 0)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    line = struct.pack(">2H", 0, 65535)
    table = (
        b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + struct.pack(">2H", 2, 2)
        + line * 4 + corners + line * 3
    )  # fmt: skip
    text = b"a press"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + bytes(1 + 78),
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": table,
    }
    offset, index, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        index += name + struct.pack(">2I", offset + len(body), len(data))
        body += data
    header = struct.pack(
        ">I4sI4s4s4s", offset + len(body), b"", 0x02400000, b"prtr", b"CMYK", b"Lab "
    )
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + index + body
