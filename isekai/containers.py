"""The pieces of PNG, JPEG, WebP and GIF files: what shows the picture, and what only tells of it.

No pixel is decoded here. A piece is a name and its raw bytes, checksum and padding included;
pieces that stay are copied as they are.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Literal

MediaType = Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
Piece = tuple[bytes, bytes]

PNG = b"\x89PNG\r\n\x1a\n"
MAX_PACKET = 1_000_000
"""Bytes of an XMP packet that are read at most, unpacked."""

_PNG_SHOWN = frozenset(
    b"tRNS cHRM gAMA iCCP sBIT sRGB cICP mDCV cLLI bKGD pHYs acTL fcTL fdAT".split()
)
"""Ancillary chunks that change how it looks; critical ones, in capitals, always stay."""

_WEBP_SHOWN = frozenset((b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ICCP", b"ANIM", b"ANMF"))
_WEBP_EXIF, _WEBP_XMP = 0x08, 0x04
"""Flags in the first byte of VP8X."""

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""What ends the coded data of a JPEG scan: no stuffed 0xFF, no restart."""

_JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP = b"XML:com.adobe.xmp"


def media_type(data: bytes) -> MediaType | None:
    """What the first bytes say, if it is a format that is taken apart here: names may lie."""
    if data.startswith(PNG):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    return "image/webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def pieces(data: bytes) -> list[Piece]:
    """The file's pieces in order; what follows its end is left out. ValueError for damage.

    Names are PNG's and WebP's chunk types, JPEG's markers, and what begins a GIF's block.
    """
    split = {
        "image/png": _png_pieces,
        "image/jpeg": _jpeg_pieces,
        "image/gif": _gif_pieces,
        "image/webp": _webp_pieces,
    }
    kind = media_type(data)
    if kind is None:
        raise ValueError("neither PNG, JPEG, WebP nor GIF")
    return list(split[kind](data))


def shown(data: bytes, exif: bytes = b"") -> bytes:
    """The file with what changes how it looks alone; `exif` (TIFF bytes) takes the old one's place.

    ValueError for damage. GIF has no place for `exif`.
    """
    kind, found = media_type(data), pieces(data)
    if kind == "image/png":
        return _png_shown(found, exif)
    if kind == "image/jpeg":
        return _jpeg_shown(found, exif)
    return _webp_shown(found, exif) if kind == "image/webp" else _gif_shown(found)


def xmp(data: bytes) -> bytes:
    """The XMP packet of a PNG, JPEG or WebP file; empty if there is none. ValueError for damage."""
    kind = media_type(data)
    for name, raw in pieces(data):
        packet = b""
        if kind == "image/png" and name == b"iTXt":
            packet = _itxt(raw[8:-4])
        elif kind == "image/jpeg" and name == b"\xe1" and raw[4:].startswith(_JPEG_XMP):
            packet = raw[4 + len(_JPEG_XMP) :]
        elif kind == "image/webp" and name == b"XMP ":
            packet = raw[8 : 8 + int.from_bytes(raw[4:8], "little")]
        if len(packet) > MAX_PACKET:
            raise ValueError(f"an XMP packet of more than {MAX_PACKET:,} bytes")
        if packet:
            return packet
    return b""


def without_pixels(data: bytes) -> bytes:
    """A PNG of one pixel with the metadata of this one, so that reading it decodes nothing.

    Of other files the bytes themselves: their headers can be read alone.
    """
    if media_type(data) != "image/png":
        return data
    told = [raw for name, raw in pieces(data) if name in (b"eXIf", b"tEXt", b"zTXt", b"iTXt")]
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = png_chunk(b"IDAT", zlib.compress(b"\0\0"))
    end = png_chunk(b"IEND", b"")
    return b"".join([PNG, png_chunk(b"IHDR", header), *told, pixel, end])


# ---------------------------------------------------------------- PNG


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_pieces(data: bytes) -> Iterator[Piece]:
    place = len(PNG)
    while True:
        end = place + 12 + int.from_bytes(data[place : place + 4])
        name = data[place + 4 : place + 8]
        if end > len(data) or len(name) < 4:
            raise ValueError("the PNG file is cut off")
        yield name, data[place:end]
        if name == b"IEND":
            return
        place = end


def _png_shown(found: list[Piece], exif: bytes) -> bytes:
    kept = [(name, raw) for name, raw in found if name in _PNG_SHOWN or name[:1].isupper()]
    if exif:
        first = next((i for i, (name, _) in enumerate(kept) if name == b"IDAT"), len(kept) - 1)
        kept.insert(first, (b"eXIf", png_chunk(b"eXIf", exif)))
    return PNG + b"".join(raw for _, raw in kept)


def _itxt(body: bytes) -> bytes:
    """The text of an iTXt chunk if it is the XMP packet, unpacked; empty for other texts."""
    keyword, _, rest = body.partition(b"\0")
    if keyword != _PNG_XMP or len(rest) < 4:
        return b""
    packed, method = rest[0], rest[1]
    text = rest[2:].split(b"\0", 2)[2:]  # behind the language and the translated keyword
    if not text or (packed and method):
        raise ValueError("a damaged XMP chunk")
    if not packed:
        return text[0]
    try:
        return zlib.decompressobj().decompress(text[0], MAX_PACKET + 1)
    except zlib.error as error:
        raise ValueError(f"a damaged XMP chunk ({error})") from None


# ---------------------------------------------------------------- JPEG


def _jpeg_pieces(data: bytes) -> Iterator[Piece]:
    """Segments; one that begins a scan holds its coded data as well."""
    yield b"\xd8", data[:2]
    place = 2
    while True:
        while data[place : place + 2] == b"\xff\xff":  # fill bytes
            place += 1
        marker = data[place + 1 : place + 2]
        if data[place : place + 1] != b"\xff" or not marker:
            raise ValueError("the JPEG file is cut off or damaged")
        if marker == b"\xd9":
            yield marker, data[place : place + 2]
            return
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4])
        if end < place + 4 or end > len(data):
            raise ValueError("the JPEG file is cut off or damaged")
        if marker == b"\xda":
            found = _NEXT_MARKER.search(data, end)
            if found is None:
                raise ValueError("the JPEG file is cut off")
            end = found.start()
        yield marker, data[place:end]
        place = end


def _jpeg_shown(found: list[Piece], exif: bytes) -> bytes:
    kept = []
    for name, raw in found:
        body = raw[4:]
        if name == b"\xe0" and body.startswith(b"JFIF\0") and len(body) >= 14:
            kept.append(_segment(name, body[:12] + b"\0\0"))  # no thumbnail
        elif name == b"\xee" and body.startswith(b"Adobe"):
            kept.append(_segment(name, body[:12]))  # how colours are coded
        elif (name == b"\xe2" and body.startswith(b"ICC_PROFILE\0")) or (
            b"\xc0" <= name <= b"\xdf" and name != b"\xc8"
        ):
            kept.append(raw)
    if exif:
        kept.insert(1, _segment(b"\xe1", b"Exif\0\0" + exif))
    return b"".join(kept)


def _segment(marker: bytes, body: bytes) -> bytes:
    return b"\xff" + marker + struct.pack(">H", len(body) + 2) + body


# ---------------------------------------------------------------- WebP


def _webp_pieces(data: bytes) -> Iterator[Piece]:
    place, end = 12, 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("the WebP file is cut off")
    while place < end:
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        after = place + 8 + size + size % 2
        if place + 8 + size > end:
            raise ValueError("the WebP file is cut off")
        yield data[place : place + 4], data[place:after]
        place = after


def _webp_shown(found: list[Piece], exif: bytes) -> bytes:
    kept = [(name, raw) for name, raw in found if name in _WEBP_SHOWN]
    if kept and kept[0][0] == b"VP8X":
        kept[0] = b"VP8X", _flagged(kept[0][1], bool(exif))
        if exif:
            kept.append((b"EXIF", _webp_chunk(b"EXIF", exif)))
        elif len(kept) == 2 and kept[0][1][8] == 0:
            del kept[0]  # it announces nothing any more: the plain form says the same
    body = b"WEBP" + b"".join(raw for _, raw in kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _flagged(raw: bytes, exif: bool) -> bytes:
    """A VP8X chunk without the flag of XMP, and with that of EXIF if there is any."""
    flags = raw[8] & ~(_WEBP_XMP | _WEBP_EXIF) | (_WEBP_EXIF if exif else 0)
    return raw[:8] + bytes([flags]) + raw[9:]


def _webp_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)


# ---------------------------------------------------------------- GIF


def _gif_pieces(data: bytes) -> Iterator[Piece]:
    """The head with its palette, then each block; an extension's name holds its label."""
    place = 13 + _palette(data, 10)
    yield b"GIF", data[:place]
    while True:
        name, start = data[place : place + 1], place
        if name == b"!":
            name = data[place : place + 2]
            place += 2
        elif name == b",":
            place += 10 + _palette(data, place + 9) + 1  # and the size of a code
        elif name == b";":
            yield name, name
            return
        else:
            raise ValueError("the GIF file is cut off or damaged")
        while size := data[place : place + 1]:
            place += 1 + size[0]
            if size == b"\0":
                break
        if place > len(data) or not size:
            raise ValueError("the GIF file is cut off")
        yield name, data[start:place]


def _palette(data: bytes, place: int) -> int:
    """Bytes of the palette that the flags at `place` announce."""
    flags = data[place] if place < len(data) else 0
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_shown(found: list[Piece]) -> bytes:
    """Without comments, texts and what applications wrote, apart from how often a film loops."""
    return b"".join(
        raw
        for name, raw in found
        if name in (b"GIF", b"!\xf9", b",", b";")
        or (name == b"!\xff" and raw[3:14] in (b"NETSCAPE2.0", b"ANIMEXTS1.0") and len(raw) == 19)
    )
