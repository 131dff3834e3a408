"""Each picture is embedded once, whoever asks for it and whatever else they ask for."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isekai import files, vectors
from isekai.embedders.lite0 import Lite0
from isekai.embeddings import Embeddings
from isekai.errors import DataError, PluginError
from isekai.images import decode, encode
from isekai.types import EncodedImage
from isekai.vectors import Vectors


class Angles:
    """Pictures of one grey: the shade is an angle, and its direction the embedding."""

    model, revision = "angles", "1"

    def __init__(self) -> None:
        self.seen = 0

    def embed_images(self, images):
        self.seen += len(images)
        angles = [np.deg2rad(image.getpixel((0, 0))[0]) for image in images]
        return np.array([[np.cos(a), np.sin(a)] for a in angles], np.float32)


class Packs(Angles):
    """Takes several at a time, and texts; keeps what it was given."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch
        self.given: list[list[object]] = []

    def embed_images(self, images):
        self.given.append([image.getpixel((0, 0))[0] for image in images])
        return super().embed_images(images)

    def embed_texts(self, texts):
        self.given.append(list(texts))
        return np.array([[len(text), 1] for text in texts], np.float32)


def shade(degrees: int) -> EncodedImage:
    data = encode(Image.new("RGB", (2, 2), (degrees,) * 3))
    return EncodedImage(id=files.sha256(data), data=data)


def noise(count: int, size: int = 40) -> list[EncodedImage]:
    rng = np.random.default_rng(0)
    images = []
    for _ in range(count):
        data = encode(Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)))
        images.append(EncodedImage(id=files.sha256(data), data=data))
    return images


def test_each_picture_is_embedded_once_and_never_again_by_the_next_run(tmp_path):
    images = [shade(degrees) for degrees in (1, 2, 3, 2)]
    first = Embeddings(Angles(), tmp_path)
    rows = first.rows(images)
    assert first.embedder.seen == 3
    assert np.array_equal(first.rows(images[::-1]), rows[::-1])
    second = Embeddings(Angles(), tmp_path)
    assert np.array_equal(second.rows(images[:2]), rows[:2])
    assert (first.embedder.seen, second.embedder.seen) == (3, 0)
    for name in ("model", "revision"):
        changed = Angles()
        setattr(changed, name, "2")
        Embeddings(changed, tmp_path).rows(images)
        assert changed.seen == 3


def test_one_file_under_two_names_is_embedded_once(tmp_path):
    embeddings = Embeddings(Angles(), tmp_path)
    rows = embeddings.rows([EncodedImage(id=name, data=shade(30).data) for name in "ab"])
    assert embeddings.embedder.seen == 1
    assert np.array_equal(rows[0], rows[1])


# ---------------------------------------------------------------- the numbers


def test_rows_are_halves_brought_back_to_length_one_fresh_or_kept(tmp_path):
    images = [shade(degrees) for degrees in range(91)]
    made = Angles().embed_images([decode(image.data) for image in images])
    fresh = Embeddings(Angles(), tmp_path).rows(images)
    kept = Embeddings(Angles(), tmp_path).rows(images)
    halves = made.astype(np.float16).astype(np.float64)
    expected = halves / np.linalg.norm(halves, axis=1, keepdims=True)
    assert fresh.dtype == np.float32
    assert np.array_equal(fresh, kept)
    np.testing.assert_allclose(fresh, expected, rtol=1e-7)
    np.testing.assert_allclose(np.linalg.norm(fresh, axis=1), 1, atol=1e-6)
    assert 0 < abs(fresh - made).max() < 2**-11


def test_cosines_of_a_network_move_by_less_than_what_anyone_reads_off_them(tmp_path):
    images = noise(6)
    embedder = Lite0(size=32)
    made = embedder.embed_images([decode(image.data) for image in images])
    rows = Embeddings(embedder, tmp_path).rows(images)
    assert abs(rows @ rows.T - made @ made.T).max() < 3e-4


def test_a_row_does_not_depend_on_what_else_is_asked_for_to_the_last_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "default"))
    images = noise(11)
    embedder = Lite0(size=32)
    assert embedder.batch == 8
    together = Embeddings(embedder, tmp_path / "a").rows(images)
    alone = Embeddings(embedder).rows(images[9:10])
    backwards = Embeddings(embedder, tmp_path / "b").rows(images[::-1])
    assert np.array_equal(together[9], alone[0])
    assert np.array_equal(together, backwards[::-1])
    assert (tmp_path / "default" / "vectors.sqlite").exists()


@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 70), asked=st.lists(st.lists(st.integers(0, 99), min_size=1), max_size=4)
)
def test_an_embedder_is_given_as_many_as_it_likes_whoever_asks_for_what(
    tmp_path_factory, batch, asked
):
    folder = tmp_path_factory.mktemp("cache")
    embeddings = Embeddings(Packs(batch), folder)
    for degrees in asked:
        rows = embeddings.rows([shade(one) for one in degrees])
        angles = np.degrees(np.arctan2(rows[:, 1], rows[:, 0]))
        np.testing.assert_allclose(angles, degrees, atol=0.06)
    assert all(len(some) == batch for some in embeddings.embedder.given)
    shown = [one for some in embeddings.embedder.given for one in dict.fromkeys(some)]
    assert sorted(shown) == sorted({one for degrees in asked for one in degrees})


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_vectors_that_have_no_direction_are_refused_and_not_kept(tmp_path, value):
    class Broken(Angles):
        def embed_images(self, images):
            return super().embed_images(images) * np.float32(value)

    with pytest.raises(DataError, match=r"^angles: its vectors are no numbers, or all zeros; "):
        Embeddings(Broken(), tmp_path).rows([shade(40)])
    assert Embeddings(Angles(), tmp_path).rows([shade(40)]).shape == (1, 2)


# ---------------------------------------------------------------- decoded pictures, texts


def test_pictures_that_are_decoded_already_share_what_files_have(tmp_path):
    images = [shade(degrees) for degrees in (7, 8, 9, 8)]
    pictures = [(image.id, decode(image.data)) for image in images]
    embeddings = Embeddings(Packs(2), tmp_path)
    rows = embeddings.rows_of(iter(pictures))
    assert embeddings.embedder.given == [[7, 8], [9, 9]]
    again = Embeddings(Packs(2), tmp_path)
    assert np.array_equal(again.rows(images), rows)
    assert np.array_equal(again.rows_of(pictures[::-1]), rows[::-1])
    assert not again.embedder.given


def test_decoded_pictures_are_taken_as_they_come(tmp_path):
    embeddings = Embeddings(Packs(8), tmp_path)
    behind = []

    def passing():
        for degrees in range(200):
            behind.append(degrees - embeddings.embedder.seen)
            image = shade(degrees)
            yield image.id, decode(image.data)

    assert len(embeddings.rows_of(passing())) == 200
    assert max(behind) <= 64


def test_texts_are_kept_like_pictures_and_apart_from_them(tmp_path):
    texts = ["a", "three", "a", "ünï"]
    embeddings = Embeddings(Packs(2), tmp_path)
    rows = embeddings.texts(texts)
    assert embeddings.embedder.given == [["a", "three"], ["ünï", "ünï"]]
    np.testing.assert_allclose(rows[:, 0] / rows[:, 1], [1, 5, 1, 3], rtol=1e-3)
    again = Embeddings(Packs(2), tmp_path)
    assert np.array_equal(again.texts(texts[::-1]), rows[::-1])
    assert not again.embedder.given
    with pytest.raises(PluginError, match="angles: embeds no texts; take an embedder that does"):
        Embeddings(Angles(), tmp_path).texts(["a"])


# ---------------------------------------------------------------- the file


def test_a_damaged_cache_and_one_that_cannot_be_written_are_told_in_one_line(tmp_path):
    (tmp_path / "vectors.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(DataError, match="not a database; delete this file"):
        Embeddings(Angles(), tmp_path).rows([shade(1)])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        Embeddings(Angles(), tmp_path / "file").rows([shade(1)])


def test_a_disk_without_room_is_told_in_one_line_and_keeps_what_was_there(tmp_path):
    kept = Vectors(tmp_path / "vectors.sqlite")
    kept.put({b"first": np.zeros(9, np.float16)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(DataError, match=r"vectors\.sqlite: .*; ") as caught:
            kept.put({b"second": np.zeros(90_000, np.float16)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert set(kept.get([b"first", b"second"])) == {b"first"}


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


def numbered(*numbers: int) -> dict[bytes, vectors.Vector]:
    return {number.to_bytes(2, "big"): np.full(1000, number, np.float16) for number in numbers}


def test_the_older_half_goes_when_a_run_begins_and_never_in_its_middle(tmp_path):
    path = tmp_path / "vectors.sqlite"
    running = Vectors(path, limit=100_000)
    keys = list(numbered(*range(100)))
    for start in range(0, 100, 10):
        running.put(numbered(*range(start, start + 10)))
    assert list(running.get(keys)) == keys
    size = path.stat().st_size
    assert size > 200_000
    assert list(Vectors(path, limit=100_000).get(keys)) == keys[50:]
    assert list(running.get(keys)) == keys[50:]
    running.put(numbered(*range(40)))
    assert path.stat().st_size <= size  # the room is used again
    assert list(Vectors(path, limit=10**6).get(keys)) == keys[:40] + keys[50:]
    assert vectors.LIMIT == 2_000_000_000


def test_a_file_within_its_limit_loses_nothing(tmp_path):
    for number in range(5):
        Vectors(tmp_path / "vectors.sqlite", limit=100_000).put(numbered(number))
    assert (
        len(Vectors(tmp_path / "vectors.sqlite", limit=100_000).get(list(numbered(*range(5))))) == 5
    )


WRITER = """
import sys
from pathlib import Path
import numpy as np
from isekai.vectors import Vectors
kept, first = Vectors(Path(sys.argv[1])), int(sys.argv[2])
for start in range(first, 60_000, 20):
    kept.put({n.to_bytes(2, "big"): np.full(500, n, np.float16) for n in range(start, start + 20)})
    print(start, flush=True)
"""


def writer(path: Path, first: int) -> "subprocess.Popen[str]":
    command: Sequence[str] = [sys.executable, "-c", WRITER, str(path), str(first)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_processes_that_write_at_once_and_are_killed_leave_whole_rows(tmp_path):
    path = tmp_path / "vectors.sqlite"
    workers = [writer(path, first) for first in (0, 30_000)]
    told = []
    for worker in workers:
        assert worker.stdout
        told.append([int(worker.stdout.readline()) for _ in range(5)][-1])
    time.sleep(0.05)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    for last, first in zip(told, (0, 30_000), strict=True):
        keys = [n.to_bytes(2, "big") for n in range(first, last + 2000)]
        rows = Vectors(path).get(keys)
        assert len(rows) >= last + 20 - first
        assert len(rows) % 20 == 0
        for key, row in rows.items():
            assert np.array_equal(row, np.full(500, int.from_bytes(key, "big"), np.float16))
    Vectors(path).put(numbered(29_999))
    assert len(Vectors(path).get(list(numbered(29_999)))) == 1
