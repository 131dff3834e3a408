"""What a picture's file tells of how it came to be: written, read, and harmless."""

import contextlib
import io
import xml.etree.ElementTree as ET
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isekai import containers, metadata
from isekai.errors import IsekaiError
from isekai.images import UnreadableImage, bare, decode, encode
from isekai.types import ImageRecord

FACTS = {
    "prompt": 'a <b>"cactihog"</b> & {x} ]]> \\(soft\\)',
    "negative_prompt": "",
    "seed": 2**63 - 1,
    "attempt": 1,
    "concept": "cactihog/cactihog",
    "index": 7,
    "source": "diffusers",
    "model": "owner/model",
    "revision": "abc",
    "settings": {"steps": 4, "guidance": 3.5, "lora": None, "sizes": [1, 2], "größe": "groß"},
}
NASTY = st.text(st.characters(codec=None), max_size=60) | st.sampled_from(
    [
        "\x00",
        "\r\n\r",
        "\t \n",
        "\ud800",
        "\ufffe\uffff",
        "\x85\u2028",
        "]]>",
        "&amp;&#0;",
        "json:",
        'json:"x"',
        "<!DOCTYPE a>",
        "<?xpacket end='w'?>",
        'tiff:Orientation="6"',
        "tiff:Orientation>6",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NASTY, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def noise(size: int = 12) -> Image.Image:
    rng = np.random.default_rng(size)
    return Image.fromarray(rng.integers(0, 256, (size, size + 3, 3), dtype=np.uint8))


def with_packet(packet: bytes, format: str = "PNG") -> bytes:
    """A file with whatever packet, as a stranger would write it."""
    buffer = io.BytesIO()
    how = {"lossless": True} if format == "WEBP" else {}
    if format == "PNG":
        data = encode(noise())
        body = b"XML:com.adobe.xmp\0\0\0\0\0" + packet
        return data[:33] + containers.png_chunk(b"iTXt", body) + data[33:]
    noise().save(buffer, format, xmp=packet, **how)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["png", "webp"])
def test_facts_come_back_from_the_file_and_its_pixels_are_the_same(format):
    data = encode(noise(), format, metadata.packet(FACTS, kind="trainedAlgorithmicMedia"))
    assert metadata.read(data) == FACTS
    assert decode(data).tobytes() == noise().tobytes()
    assert metadata.read(encode(noise(), format)) == {}
    assert metadata.read(bare(data)) == {}


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "prompt": NASTY,
            "concept": NASTY,
            "model": NASTY,
            "seed": st.integers(0, 2**63),
            "settings": st.dictionaries(NASTY, JSON, max_size=3),
        },
    ),
    st.sampled_from(["png", "webp"]),
)
def test_whatever_texts_say_they_come_back_and_change_nothing(facts, format):
    packet = metadata.packet(facts, kind="algorithmicMedia")
    data = encode(noise(), format, packet)
    assert metadata.read(data) == facts
    assert decode(data).tobytes() == noise().tobytes()
    ET.fromstring(packet.decode())


def test_the_same_facts_in_another_order_have_the_same_bytes():
    turned = dict(reversed(FACTS.items()))
    turned["settings"] = dict(reversed(FACTS["settings"].items()))
    assert metadata.packet(turned, kind="") == metadata.packet(FACTS, kind="")


def test_other_tools_find_the_prompt_the_program_and_what_kind_of_picture_it_is():
    names = {
        "dc": "http://purl.org/dc/elements/1.1/",
        "xmp": "http://ns.adobe.com/xap/1.0/",
        "iptc": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
        "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    }
    root = ET.fromstring(metadata.packet(FACTS, kind="trainedAlgorithmicMedia").decode())
    assert root.findtext(".//dc:description/rdf:Alt/rdf:li", None, names) == FACTS["prompt"]
    assert root.findtext(".//xmp:CreatorTool", None, names).startswith("isekai ")
    told = root.findtext(".//iptc:DigitalSourceType", None, names)
    assert told == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    own = ET.fromstring(metadata.packet(FACTS, kind="").decode())
    assert own.find(".//iptc:DigitalSourceType", names) is None
    assert own.find(".//rdf:Description", names).get(f"{{{names['rdf']}}}about") == ""


@pytest.mark.parametrize("format", ["png", "webp"])
def test_the_packet_lies_where_pillow_looks_for_it(format):
    packet = metadata.packet(FACTS, kind="")
    found = Image.open(io.BytesIO(encode(noise(), format, packet))).info["xmp"]
    assert found == packet


def test_what_kind_of_picture_it_is_is_read_back():
    for kind in ("trainedAlgorithmicMedia", "algorithmicMedia", ""):
        data = encode(noise(), "webp", metadata.packet(FACTS, kind=kind))
        assert metadata.digital_source(data) == kind
    assert metadata.digital_source(encode(noise())) == ""
    other = metadata.packet({}, kind="algorithmicMedia").replace(b"algorithmicM", b"humanM")
    assert metadata.digital_source(with_packet(other)) == ""
    with pytest.raises(UnreadableImage, match="document type"):
        metadata.digital_source(with_packet(LAUGHS))


def test_a_row_of_the_ledger_tells_the_facts_of_its_file():
    row = ImageRecord(
        id="", path="a/b/0000.png", width=1, height=1, drawn_at="2026-01-01T00:00:00+00:00",
        **FACTS, made={"device": "cuda:0"},
    )  # fmt: skip
    assert metadata.of(row) == FACTS
    packet = metadata.packet(metadata.of(row), kind="")
    assert b"2026" not in packet
    assert b"cuda" not in packet


def test_facts_that_do_not_exist_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="drawn_at"):
        metadata.packet({"drawn_at": "now"}, kind="")
    with pytest.raises(TypeError, match="prompt"):
        metadata.packet({"prompt": 3}, kind="")
    with pytest.raises(IsekaiError, match=r"a/b takes 2,\d{3},\d{3} bytes"):
        metadata.packet({"prompt": "x" * 1_000_000, "concept": "a/b"}, kind="")


def test_properties_that_another_tool_wrote_as_attributes_are_read():
    told = (
        f'<r:RDF xmlns:r="{metadata._RDF}"><r:Description xmlns:i="{metadata.NAMESPACE}" '
        'i:seed="4" i:prompt="a cat" i:other="no fact"/></r:RDF>'
    )
    for format in ("PNG", "WEBP", "JPEG"):
        assert metadata.read(with_packet(told.encode(), format)) == {"seed": 4, "prompt": "a cat"}


def test_a_packed_packet_is_read_but_only_so_far():
    def packed(packet: bytes) -> bytes:
        data = encode(noise())
        body = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(packet)
        return data[:33] + containers.png_chunk(b"iTXt", body) + data[33:]

    assert metadata.read(packed(metadata.packet(FACTS, kind=""))) == FACTS
    with pytest.raises(UnreadableImage, match="more than 1,000,000"):
        metadata.read(packed(b" " * 100_000_000))


LAUGHS = b"""<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description>&b;</r:Description>
</r:RDF>"""


@pytest.mark.parametrize(
    ("packet", "told"),
    [
        (LAUGHS, "document type"),
        (LAUGHS.replace(b'"ha"', b'SYSTEM "file:///etc/passwd"'), "document type"),
        (LAUGHS.decode().encode("utf-16"), "decode"),
        (b"<a>" * 5, "no element|unclosed|not well-formed"),
        (b"<a>&undefined;</a>", "undefined entity"),
        (b"<" * 1_100_000, "more than 1,000,000"),
        (metadata.packet({"seed": 1}, kind="").replace(b">1<", b">one<"), "Expecting value"),
        (
            metadata.packet({"seed": 1}, kind="").replace(b">1<", b">" + b"[" * 99_999 + b"<"),
            "recursion",
        ),
        (
            metadata.packet({"seed": 1}, kind="").replace(b">1<", b">" + b"9" * 9_999 + b"<"),
            "digits",
        ),
    ],
)
def test_a_hostile_packet_is_refused_in_one_line(packet, told):
    with pytest.raises(UnreadableImage, match=told) as caught:
        metadata.read(with_packet(packet))
    assert "\n" not in str(caught.value)


def test_a_deep_packet_is_no_danger():
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    assert metadata.read(with_packet(deep)) == {}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["png", "webp"]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1),
)
def test_damage_anywhere_gives_facts_or_a_reason(format, changes):
    data = bytearray(encode(noise(), format, metadata.packet(FACTS, kind="")))
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    with contextlib.suppress(UnreadableImage):
        assert metadata.read(bytes(data)).keys() <= set(metadata.FACTS)


def test_a_file_that_is_cut_off_is_refused():
    for format in ("png", "webp"):
        data = encode(noise(), format, metadata.packet(FACTS, kind=""))
        for length in (20, 40, len(data) // 2):
            with pytest.raises(UnreadableImage):
                metadata.read(data[:length])
    with pytest.raises(UnreadableImage, match="neither"):
        metadata.read(b"hello")
