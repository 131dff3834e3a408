"""Each picture is embedded once, whoever asks for it and whatever else they ask for."""

import numpy as np
import pytest
from PIL import Image

from isekai import files
from isekai.embedders.lite0 import Lite0
from isekai.embeddings import Embeddings
from isekai.errors import DataError
from isekai.images import encode
from isekai.types import EncodedImage


class Angles:
    """Pictures of one grey: the shade is an angle, and its direction the embedding."""

    model, revision = "angles", "1"

    def __init__(self) -> None:
        self.seen = 0

    def embed_images(self, images):
        self.seen += len(images)
        angles = [np.deg2rad(image.getpixel((0, 0))[0]) for image in images]
        return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


def shade(degrees: int) -> EncodedImage:
    data = encode(Image.new("RGB", (2, 2), (degrees,) * 3))
    return EncodedImage(id=files.sha256(data), data=data)


def test_each_picture_is_embedded_once_and_never_again_by_the_next_run(tmp_path):
    images = [shade(degrees) for degrees in (1, 2, 3, 2)]
    first = Embeddings(Angles(), tmp_path)
    rows = first.rows(images)
    assert first.embedder.seen == 3
    assert np.array_equal(first.rows(images[::-1]), rows[::-1])
    second = Embeddings(Angles(), tmp_path)
    assert np.array_equal(second.rows(images[:2]), rows[:2])
    assert (first.embedder.seen, second.embedder.seen) == (3, 0)
    changed = Angles()
    changed.revision = "2"
    Embeddings(changed, tmp_path).rows(images)
    assert changed.seen == 3


def test_a_row_does_not_depend_on_what_else_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "default"))
    rng = np.random.default_rng(0)
    images = []
    for _ in range(3):
        noise = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        data = encode(Image.fromarray(noise))
        images.append(EncodedImage(id=files.sha256(data), data=data))
    embedder = Lite0(size=32)
    together = Embeddings(embedder, tmp_path / "a").rows(images)
    alone = Embeddings(embedder).rows(images[2:])
    assert np.array_equal(together[2], alone[0])
    assert (tmp_path / "default" / "embeddings.sqlite").exists()


def test_a_damaged_cache_and_one_that_cannot_be_written_are_told_in_one_line(tmp_path):
    (tmp_path / "embeddings.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="not a database; delete this file"):
        Embeddings(Angles(), tmp_path).rows([shade(1)])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        Embeddings(Angles(), tmp_path / "file").rows([shade(1)])


def test_only_what_is_new_is_fetched_by_id_and_a_cut_off_run_keeps_what_it_embedded(tmp_path):
    images = {image.id: image for image in map(shade, range(200))}
    ids, fetched = list(images), []

    def image(id: str) -> EncodedImage:
        if len(fetched) == 150:
            raise KeyboardInterrupt
        fetched.append(id)
        return images[id]

    embeddings = Embeddings(Angles(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        embeddings.of(ids, image)
    assert embeddings.embedder.seen == 128
    fetched.clear()
    rows = embeddings.of(ids, image)
    assert fetched == ids[128:]
    assert np.array_equal(rows, Embeddings(Angles(), tmp_path).rows(list(images.values())))
    again = Embeddings(Angles(), tmp_path)
    assert np.array_equal(again.of(ids[::-1], images.__getitem__), rows[::-1])
    assert again.embedder.seen == 0
