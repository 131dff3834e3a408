"""How a picture came to be, told inside its file: an XMP packet, written and read.

What makes the pixels stands in the file, so that it goes where the picture goes. When and on what
device it was drawn does not: the same picture has the same bytes wherever and whenever it is drawn.
Time and device are in the ledger.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import get_args
from xml.sax.saxutils import escape

from isekai import __version__, containers
from isekai.errors import IsekaiError
from isekai.files import plain
from isekai.images import UnreadableImage
from isekai.types import DigitalSource, ImageRecord

FACTS = (
    "prompt",
    "negative_prompt",
    "seed",
    "attempt",
    "concept",
    "index",
    "source",
    "model",
    "revision",
    "settings",
)
"""What is told; an ImageRecord has fields of the same names."""

NAMESPACE = "urn:isekai-bench:image:1#"
_TEXTS = frozenset(("prompt", "negative_prompt", "concept", "source", "model", "revision"))
"""Facts that are texts and stand there as such; others are JSON."""
_JSON = "json:"
"""Stands before a text that XML could not hold as it is, or that begins like this itself."""

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write, whether escaped or not."""

_ESCAPED = {"\r": "&#13;", '"': "&quot;"}
"""Besides `&`, `<` and `>`. Parsers make a bare return a line feed; and some readers, Pillow among
them, look for `tiff:Orientation="6"` without parsing: no prompt may turn its picture."""

_PACKET = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="{rdf}">
<rdf:Description rdf:about=""
 xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/"
 xmlns:Iptc4xmpExt="{iptc}"
 xmlns:isekai="{own}">
{properties}
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def of(record: ImageRecord) -> dict[str, object]:
    """The facts of a row of the ledger, as `read` gives them back from its file."""
    facts: dict[str, object] = {name: plain(getattr(record, name)) for name in FACTS}
    return facts


def packet(facts: Mapping[str, object], *, kind: DigitalSource) -> bytes:
    """The XMP packet of `facts`, some or all of FACTS; nothing else goes into its bytes.

    `kind` is empty for pictures that a user brings. Texts may hold anything: what XML has no way
    to write is put down as JSON.
    """
    unknown = [name for name in facts if name not in FACTS]
    if unknown:
        raise ValueError(f"no fact of a picture: {', '.join(unknown)}")
    properties = [f"<xmp:CreatorTool>isekai {__version__}</xmp:CreatorTool>"]
    prompt = facts.get("prompt")
    if isinstance(prompt, str) and prompt:
        text = _element("rdf:li", _NO_XML.sub("\ufffd", prompt), ' xml:lang="x-default"')
        properties.append(f"<dc:description><rdf:Alt>{text}</rdf:Alt></dc:description>")
    if kind:
        properties.append(_element("Iptc4xmpExt:DigitalSourceType", uri(kind)))
    properties += [
        _element(f"isekai:{name}", _written(name, facts[name])) for name in FACTS if name in facts
    ]
    filled = _PACKET.format(rdf=_RDF, iptc=_IPTC, own=NAMESPACE, properties="\n".join(properties))
    written = filled.encode()
    if len(written) > containers.MAX_PACKET:
        raise IsekaiError(
            f"what is told of {facts.get('concept', 'a picture')} takes {len(written):,} bytes; "
            f"at most {containers.MAX_PACKET:,} fit into its file: shorten prompt and settings"
        )
    return written


def read(data: bytes) -> dict[str, object]:
    """The facts in a PNG, WebP or JPEG file; empty if it tells none of ours.

    UnreadableImage where the file or its packet is damaged, too large, or has a document type,
    which is how entities that grow without end come in.
    """
    told = _told(data, NAMESPACE)
    try:
        return {name: _meant(name, text) for name, text in told.items() if name in FACTS}
    except (ValueError, RecursionError) as error:
        raise UnreadableImage(f"its metadata can't be read: {error}") from None


def uri(kind: DigitalSource) -> str:
    """The word as IPTC's vocabulary names it."""
    return f"http://cv.iptc.org/newscodes/digitalsourcetype/{kind}"


def digital_source(data: bytes) -> DigitalSource:
    """What a file says of what made it; empty for nothing, or another of IPTC's words.

    UnreadableImage as for `read`.
    """
    told = _told(data, _IPTC).get("DigitalSourceType", "")
    words = get_args(DigitalSource)
    return next((word for word in words if word and told == uri(word)), "")


def _element(name: str, text: str, attributes: str = "") -> str:
    return f"<{name}{attributes}>{escape(text, _ESCAPED)}</{name}>"


def _written(name: str, value: object) -> str:
    if name in _TEXTS:
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}; expected a text")
        return _json(value, _JSON) if _NO_XML.search(value) or value.startswith(_JSON) else value
    return _json(plain(value))


def _json(value: object, mark: str = "") -> str:
    """Sorted, so that equal values have equal bytes; in ASCII where XML needs it."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return mark + (json.dumps(value, sort_keys=True) if _NO_XML.search(text) else text)


def _meant(name: str, told: str) -> object:
    if name not in _TEXTS:
        return json.loads(told)
    return json.loads(told.removeprefix(_JSON)) if told.startswith(_JSON) else told


def _told(data: bytes, namespace: str) -> dict[str, str]:
    """A namespace's properties: elements or, as other tools write them again, attributes."""
    try:
        text = containers.xmp(data).decode().strip("\0")
        if "<!DOCTYPE" in text:
            raise ValueError("an XMP packet with a document type")
        root = ET.fromstring(text) if text else ET.Element("nothing")
    except (ValueError, ET.ParseError) as error:
        raise UnreadableImage(f"its metadata can't be read: {error}") from None
    own = f"{{{namespace}}}"
    found: dict[str, str] = {}
    for description in root.iter(f"{{{_RDF}}}Description"):
        found |= description.attrib
        found |= {element.tag: element.text or "" for element in description}
    return {key.removeprefix(own): text for key, text in found.items() if key.startswith(own)}
