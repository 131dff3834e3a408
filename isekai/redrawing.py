"""Draws pictures of an images folder again, and measures how near the new ones come."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import containers, plugins
from isekai.drawing import Drawing
from isekai.errors import DataError
from isekai.files import plain
from isekai.images import decode, encode
from isekai.intake import Images
from isekai.parquet import Row
from isekai.protocols import Closing, Embedder, ImageSource, Picture, Rejected
from isekai.types import Concept, ImageRecord, ImageRequest

Outcome = Literal["same bytes", "same pixels", "other pixels", "not drawn"]

NOT_OF_THE_SOURCE = ("size", "format", "gates")
"""Settings that the ledger adds to the source's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrawn:
    """One picture of the ledger beside what the same request gives now."""

    path: str
    outcome: Outcome
    psnr: float | None = None
    """Peak signal-to-noise ratio in dB over all values; None where nothing differs or was drawn."""
    largest: int | None = None
    """The largest difference of a value, of 255."""
    cosine: float | None = None
    """Of the two embeddings, if an embedder looks."""
    reason: str = ""
    """Why nothing was drawn."""


def sources_of(
    images: Images,
    rows: Sequence[Row],
    asked: Mapping[str, object],
    *,
    given: str = "",
    options: Mapping[str, object] | None = None,
) -> list[tuple[ImageSource, list[Row]]]:
    """The sources that drew these rows of `images`, each with its rows.

    They are built as `asked`, or as a user has `given` it, with what the spec gave for the concept.
    DataError for one that isn't that of the ledger: another model, revision or setting gives other
    pictures, and to compare these would say nothing.
    """
    found: dict[str, tuple[ImageSource, list[Row]]] = {}
    for row in rows:
        own = row.concept.generator.get(row.record.source, {})
        key = json.dumps(plain(own), sort_keys=True)
        if key not in found:
            found[key] = (_source(images, row, asked, own, given, options or {}), [])
        found[key][1].append(row)
    return list(found.values())


def _source(
    images: Images,
    row: Row,
    asked: Mapping[str, object],
    own: Mapping[str, object],
    given: str,
    options: Mapping[str, object],
) -> ImageSource:
    told = asked.get("options")
    manifest = told if isinstance(told, dict) and not given else {}
    before = {**own, **manifest}
    for key in plugins.CONFIRMED:
        if before.get(key) and key not in options:
            raise DataError(
                f"{images.folder}: its manifest builds the source with {key}; if you trust what it "
                f"says there, give it yourself with -o {key}=…"
            )
    name = given or asked.get("source")
    if not isinstance(name, str):
        raise DataError(
            f"{images.folder}: its manifest does not say how its source was built; give --source "
            "and -o as they were then"
        )
    source: ImageSource = plugins.build("sources", name, {**before, **options})
    if isinstance(source, Closing) and not given:
        raise DataError(
            f"{images.folder}: was drawn through a server, which may cost money; to draw there "
            f"again, say so with --source {name} and its -o"
        )
    differences = _differences(row.record, source)
    if differences:
        raise DataError(
            f"{images.folder}: was drawn with {'; '.join(differences)}; give --source and -o as "
            "they were then"
        )
    return source


def redraw(
    images: Images,
    rows: Sequence[Row],
    source: ImageSource,
    *,
    embedder: Embedder | None = None,
    workers: int = 1,
) -> Iterator[Redrawn]:
    """Each row's picture drawn again and compared, as they come."""
    place = {(row.record.concept, row.record.index): row for row in rows}
    with Drawing(source, images=len(rows), workers=workers) as drawing:
        for request, drawn in drawing.draw([_request(row) for row in rows]):
            row = place[request.concept.id, request.index]
            yield _compared(images, row, drawn, embedder)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float | None:
    """Peak signal-to-noise ratio of two pictures of one size, in dB; None if they are equal."""
    error = float(np.mean((a.astype(np.float64) - b) ** 2))
    return 10 * float(np.log10(255**2 / error)) if error else None


def request_of(record: ImageRecord, concept: Concept, size: tuple[int, int]) -> ImageRequest:
    """What a picture of this width and height was drawn for, as gates are told."""
    return ImageRequest(
        concept=concept,
        index=record.index,
        size=max(size),
        seed=record.seed,
        prompt=record.prompt,
        attempt=record.attempt,
    )


def _request(row: Row) -> ImageRequest:
    record = row.record
    size = record.settings.get("size")
    if not isinstance(size, int):
        raise DataError(f"{record.path}: its row in the ledger has no size in whole pixels")
    return request_of(record, row.concept, (size, size))


def _compared(
    images: Images, row: Row, drawn: Picture | Rejected, embedder: Embedder | None
) -> Redrawn:
    path = row.record.path
    if isinstance(drawn, Rejected):
        return Redrawn(path=path, outcome="not drawn", reason=drawn.reason)
    data = images.read(row.record)
    before, now = decode(data), drawn.image
    if before.size != now.size:
        then, size = ("x".join(map(str, image.size)) for image in (before, now))
        return Redrawn(path=path, outcome="not drawn", reason=f"{size} pixels, then {then}")
    old, new = np.asarray(before), np.asarray(now)
    outcome: Outcome = "same pixels" if np.array_equal(old, new) else "other pixels"
    if outcome == "same pixels" and _encoded(now, data) == data:
        outcome = "same bytes"
    return Redrawn(
        path=path,
        outcome=outcome,
        psnr=psnr(old, new),
        largest=int(np.abs(old.astype(np.int16) - new).max()),
        cosine=_cosine(embedder, before, now) if embedder else None,
    )


def _encoded(image: Image.Image, like: bytes) -> bytes:
    """The picture as a file of the same format that tells the same."""
    webp = containers.media_type(like) == "image/webp"
    return encode(image, "webp" if webp else "png", containers.xmp(like))


def _cosine(embedder: Embedder, *pictures: Image.Image) -> float:
    """One at a time: in a batch the last bits of a row depend on the others."""
    a, b = (embedder.embed_images([picture])[0].astype(np.float64) for picture in pictures)
    return float(a @ b)


def _differences(record: ImageRecord, source: ImageSource) -> list[str]:
    """In what the source is another one than the ledger's, in words."""
    then = {key: value for key, value in record.settings.items() if key not in NOT_OF_THE_SOURCE}
    then |= {"model": record.model, "revision": record.revision}
    now = {**plain(source.settings), "model": source.model, "revision": source.revision}
    return [
        f"{key} {then.get(key)}, now {now.get(key)}"
        for key in sorted({*then, *now})
        if then.get(key) != now.get(key)
    ]
