"""Which pictures are the same, and which of them stays."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from isekai import dedup, files, neighbours
from isekai.dedup import Duplicate, Limits, Print
from isekai.embedders.lite0 import Lite0
from isekai.images import decode, encode
from tests.conftest import PICTURES, picture


@pytest.fixture(scope="module")
def lite0() -> Lite0:
    return Lite0()


def seen(data: bytes, path: str, index: int = 0) -> Print:
    image = decode(data)
    return Print(
        path=path,
        concept=path.rsplit("/", 1)[0],
        index=index,
        area=image.width * image.height,
        data=files.sha256(data),
        pixels=dedup.pixels_hash(image),
        hash=dedup.perceptual_hash(image),
    )


def bare(path: str, *, hash=None, area: int = 1, index: int = 0) -> Print:
    words = np.zeros(4, np.uint64) if hash is None else hash
    return Print(path=path, concept="c", index=index, area=area, data=path, pixels=path, hash=words)


def unit(rows) -> np.ndarray:
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def drawn(number: int, tips: int = 5) -> Image.Image:
    _, body, mark, _ = PICTURES["fruit"][0]
    return picture(body, mark, tips, np.random.default_rng(number), size=192)


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def test_each_kind_of_copy_is_found_and_views_of_one_concept_are_not(lite0):
    first = drawn(2)
    copies = {
        "g/a/0000.png": (encode(first), ""),
        "g/a/0001.png": (encode(drawn(1)), ""),
        "g/a/0002.png": (encode(drawn(0)), ""),
        "g/a/0003.png": (encode(first), "same bytes"),
        "g/a/0004.webp": (encode(first, "webp"), "same pixels"),
        "g/a/0005.jpg": (jpeg(first, 60), "same picture by perceptual hash"),
        "g/a/0006.png": (encode(first.resize((96, 96))), "same picture by perceptual hash"),
        "g/a/0007.png": (
            encode(ImageEnhance.Brightness(first).enhance(1.1)),
            "same picture by perceptual hash",
        ),
        "g/a/0008.png": (
            encode(first.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
            "near-duplicate by embedding",
        ),
    }
    prints = [seen(data, path, index) for index, (path, (data, _)) in enumerate(copies.items())]
    features = lite0.embed_images([decode(data) for data, _ in copies.values()])
    found = {prints[one.position].path: one.reason for one in dedup.find(prints, features)}
    assert found == {path: reason for path, (_, reason) in copies.items() if reason}


def test_the_larger_picture_stays_then_the_lower_index():
    prints = [
        bare("small", area=10, index=0),
        bare("large, late", area=20, index=5),
        bare("large, early", area=20, index=4),
    ]
    found = dedup.find(prints, unit([[1, 0]] * 3))
    assert [(one.position, one.kept) for one in found] == [(0, 2), (1, 2)]


def test_what_is_left_out_is_alike_to_what_stays_not_to_what_went():
    # A chain: each is 20 bits from the next, 40 from the one after. The middle one goes; the last
    # is alike to the middle one only, and stays.
    words = np.zeros((3, 4), np.uint64)
    words[1, 0] = 2**20 - 1
    words[2, 0], words[2, 1] = 2**20 - 1, 2**20 - 1
    prints = [bare(f"p{n}", hash=words[n], index=n) for n in range(3)]
    found = dedup.find(prints, unit(np.eye(3)), Limits(hash_distance=24))
    assert found == [Duplicate(1, 0, "same picture by perceptual hash")]


def test_a_chain_over_both_rules_leaves_nothing_out_that_is_like_nothing_that_stays():
    """a is like b by hash, b is like c by embedding, a is nothing like c: a has to stay."""
    near, far = np.zeros(4, np.uint64), np.full(4, 2**64 - 1, np.uint64)
    hashes = {"a": near, "b": near, "c": far}
    prints = [bare(name, hash=hashes[name], area=area) for area, name in enumerate("abc")]
    features = unit([[1, 0], [0, 1], [0, 1]])
    assert dedup.find(prints, features) == [Duplicate(1, 2, "near-duplicate by embedding")]


def test_distances_count_differing_bits():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (7, dedup.HASH_BITS), dtype=np.uint8)
    words = np.packbits(bits, axis=1).view(np.uint64)
    counted = (bits[:, None] != bits[None, :4]).sum(axis=2)
    assert np.array_equal(dedup.distances(words, words[:4]), counted)


@pytest.mark.parametrize("tile", [1, 3, 64])
def test_closest_is_the_highest_cosine_of_all_pairs(monkeypatch, tile):
    monkeypatch.setattr(neighbours, "TILE", tile)
    rng = np.random.default_rng(1)
    a, b = unit(rng.normal(size=(10, 5))), unit(rng.normal(size=(7, 5)))
    cosine, i, j = dedup.closest(a, b)
    assert cosine == pytest.approx((a @ b.T).max())
    assert (i, j) == np.unravel_index((a @ b.T).argmax(), (10, 7))


def test_no_pictures_are_no_duplicates():
    assert dedup.find([], np.zeros((0, 4), np.float32)) == []


crowds = st.lists(
    st.tuples(
        st.sampled_from("abc"),  # bytes
        st.integers(0, 3),  # pixels
        st.integers(0, 2**9 - 1),  # hash
        st.integers(0, 5),  # direction of the embedding
        st.integers(1, 3),  # area
    ),
    max_size=24,
)


def crowd(rows) -> tuple[list[Print], np.ndarray]:
    prints = [
        Print(
            path=f"{number:03d}",
            concept="c",
            index=number % 5,
            area=area,
            data=f"{data}{pixels}{bits}",
            pixels=f"{pixels}{bits}",
            hash=np.array([bits, 0, 0, 0], np.uint64),
        )
        for number, (data, pixels, bits, _, area) in enumerate(rows)
    ]
    angles = np.array([row[3] for row in rows]) * 0.2
    return prints, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def alike(a: Print, b: Print, cosine: float, limits: Limits) -> bool:
    bits = dedup.distances(a.hash[None], b.hash[None])[0, 0]
    same = a.data == b.data or a.pixels == b.pixels
    return bool(same or bits <= limits.hash_distance or cosine >= limits.cosine)


@settings(max_examples=60, deadline=None)
@given(rows=crowds, tile=st.integers(1, 30), shuffle=st.randoms(use_true_random=False))
def test_the_kept_are_unlike_each_other_and_every_other_has_a_kept_match(rows, tile, shuffle):
    limits = Limits(hash_distance=1, cosine=0.999)
    prints, features = crowd(rows)
    before = neighbours.TILE
    neighbours.TILE = tile
    try:
        found = dedup.find(prints, features, limits)
        order = list(range(len(prints)))
        shuffle.shuffle(order)
        again = dedup.find([prints[i] for i in order], features[order], limits)
    finally:
        neighbours.TILE = before
    named = {(prints[d.position].path, prints[d.kept].path, d.reason) for d in found}
    assert named == {
        (prints[order[d.position]].path, prints[order[d.kept]].path, d.reason) for d in again
    }

    gone = {one.position for one in found}
    kept = [position for position in range(len(prints)) if position not in gone]
    assert len(gone) == len(found)
    cosines = features @ features.T
    for one in found:
        assert alike(
            prints[one.position], prints[one.kept], cosines[one.position, one.kept], limits
        )
        assert prints[one.kept].rank < prints[one.position].rank
    for i in kept:
        for j in kept:
            assert i == j or not alike(prints[i], prints[j], cosines[i, j], limits)
