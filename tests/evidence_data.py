"""Datasets in memory with planted pictures, and embedders whose answers are known."""

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from isekai import files
from isekai.dataset import Dataset, Entry, fingerprint
from isekai.images import encode
from isekai.types import Concept, Group, Response, Sweep

SIZE = 32

Draw = Callable[[str, np.random.Generator], Image.Image]
"""A concept's id and a stream of its own -> a picture."""


def group(id: str = "g0", names: Mapping[str, str] | None = None) -> Group:
    """A novel `one` and `two` and a `foil`; `names` gives them others."""
    names = names or {}
    return Group(
        id=id,
        title=id,
        parent="hedgehog",
        concepts=tuple(
            Concept(
                id=f"{id}/{key}",
                name=names.get(key, f"{key}{id}"),
                role="foil" if key == "foil" else "novel",
                novelty=None if key == "foil" else "blend",
                parents=("hedgehog",) if key == "foil" else ("cactus", "hedgehog"),
                definition=f"A thing called {key}.",
            )
            for key in ("one", "two", "foil")
        ),
    )


def dataset(draw: Draw, groups: tuple[Group, ...] = (group(),), *, each: int = 8) -> Dataset:
    """`each` pictures a concept in either split."""
    data: dict[str, bytes] = {}
    entries = []
    for concept in (concept for group in groups for concept in group.concepts):
        for index in range(2 * each):
            rng = np.random.default_rng([index, *concept.id.encode()])
            picture = encode(draw(concept.id, rng))
            id = files.sha256(picture)
            data[id] = picture
            entries.append(
                Entry(
                    image_id=id,
                    concept=concept.id,
                    role=concept.role,
                    split="support" if index < each else "query",
                    index=index,
                )
            )
    return Dataset(
        path=Path("nowhere"),
        fingerprint=fingerprint(groups, entries),
        groups=groups,
        entries=entries,
        fetch=data.__getitem__,
    )


def noise(_: str, rng: np.random.Generator) -> Image.Image:
    """The same for all concepts: nothing tells them apart."""
    low = rng.integers(60, 200, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(low).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def tinted(concept: str, rng: np.random.Generator) -> Image.Image:
    """The concept `one` is redder and as bright; nothing else tells."""
    pixels = np.asarray(noise(concept, rng)).astype(int)
    pixels[..., 0] += 40 * concept.endswith("/one")
    pixels[..., 1] -= round(40 * 0.299 / 0.587) * concept.endswith("/one")
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


class Planted:
    """Reads a vector off the first row of a picture, and off a table of texts."""

    model = "planted"
    revision = "1"

    def __init__(self, texts: Mapping[str, np.ndarray]) -> None:
        self.texts = texts

    def embed_images(self, images):
        rows = np.stack([np.asarray(one)[0, :, 0].astype(np.float32) - 128 for one in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def embed_texts(self, texts):
        return np.stack([self.texts[text] for text in texts]).astype(np.float32)


def axis(number: int, size: int = SIZE) -> np.ndarray:
    return np.eye(size, dtype=np.float32)[number]


def showing(vector: np.ndarray) -> Image.Image:
    """A picture that `Planted` embeds as (nearly) this direction."""
    row = np.rint(128 + 100 * vector).clip(0, 255).astype(np.uint8)
    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    pixels[0] = row[:, None]
    return Image.fromarray(pixels)


class Names:
    """A model that says what a table has for the concept; it counts what it was asked."""

    def __init__(self, said: Mapping[str, str], shown: Mapping[str, str], version: int = 1) -> None:
        self.said = said
        self.shown = shown
        self.asked: list[Sweep] = []
        self.version = version

    @property
    def provenance(self) -> Mapping[str, object]:
        return {"version": self.version}

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        self.asked.append(sweep)
        image = sweep.queries[0].image
        assert image is not None
        text = self.said[self.shown[image.id]]
        yield Response(text="", error=text[1:]) if text.startswith("!") else Response(text=text)


def shown(dataset: Dataset) -> dict[str, str]:
    """Image id -> concept."""
    return {entry.image_id: entry.concept for entry in dataset.entries}


def damaged() -> bytes:
    """The first half of a PNG."""
    buffer = io.BytesIO()
    noise("", np.random.default_rng(0)).save(buffer, "PNG")
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]
