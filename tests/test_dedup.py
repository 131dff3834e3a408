"""Which pictures are the same, and which of them stays."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from isekai import copies, dedup, files, nearby, neighbours
from isekai.alterations import altered
from isekai.dedup import Duplicate, Limits, Print
from isekai.embedders.lite0 import Lite0
from isekai.images import decode, encode
from tests.conftest import PICTURES, picture
from tests.test_copies import textured


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
        small=copies.small(image),
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
            "same picture, cropped, mirrored or turned",
        ),
        "g/a/0009.png": (
            encode(first.crop((9, 12, 180, 183))),
            "same picture, cropped, mirrored or turned",
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


def test_hashes_as_unit_rows_tell_the_same_distances():
    rng = np.random.default_rng(2)
    words = rng.integers(0, 2**64, (9, 4), dtype=np.uint64)
    rows = dedup.signs(words)
    assert np.array_equal((1 - rows @ rows.T) * 128, dedup.distances(words, words))


def test_no_pictures_are_no_duplicates():
    assert dedup.find([], np.zeros((0, 4), np.float32)) == []


def test_what_a_person_protects_stays_and_goes_before_all_else():
    prints = [
        bare("large", area=90),
        replace(bare("wanted", area=1), keep=True),
        replace(bare("wanted, too", area=2), keep=True),
    ]
    found = dedup.find(prints)
    assert found == [Duplicate(0, 2, "same picture by perceptual hash")]


def test_of_pictures_that_are_alike_the_one_with_the_highest_score_stays():
    prints = [replace(bare(name, area=9 - n), score=n / 9) for n, name in enumerate("abc")]
    assert [(one.position, one.kept) for one in dedup.find(prints)] == [(0, 2), (1, 2)]


def test_embeddings_thin_a_concept_and_not_two():
    far = [np.full(4, 2**64 - 1, np.uint64), np.zeros(4, np.uint64)]
    prints = [
        bare("a", hash=far[0]),
        replace(bare("b", hash=far[1]), concept="other"),
    ]
    assert dedup.find(prints, unit([[1, 0], [1, 0]])) == []
    prints[1] = replace(prints[1], concept="c")
    found = dedup.find(prints, unit([[1, 0], [1, 0]]))
    assert found == [Duplicate(1, 0, "near-duplicate by embedding")]


def test_a_copy_is_found_whichever_is_asked_first_and_names_the_one_that_stays():
    first = textured(1)
    pictures = [altered(first, "a", "crop_side"), textured(2), first, altered(first, "a", "mirror")]
    prints = [seen(encode(one), f"g/a/{n}.png", n) for n, one in enumerate(pictures)]
    features = unit([[1, 0, 0.1], [0, 1, 0], [1, 0, 0], [1, 0, -0.1]])
    wanted = [Duplicate(n, 2, "same picture, cropped, mirrored or turned") for n in (0, 3)]
    limits = Limits(cosine=1.0)
    assert dedup.find(prints, features, limits) == wanted
    for order in ([3, 2, 1, 0], [1, 0, 3, 2]):
        found = dedup.find([prints[n] for n in order], features[order], limits)
        assert {(order[d.position], order[d.kept], d.reason) for d in found} == set(wanted)
    bare_of = [replace(one, small=None) for one in prints]
    assert dedup.find(bare_of, features, limits) == []


def test_what_goes_names_a_picture_that_stays_even_behind_an_equal_one():
    """x has the pixels of y, which is left out for z: x is left out for z, not for y."""
    z = bare("z", area=9)
    y = replace(bare("y", area=5), pixels="same")
    x = replace(bare("x", area=1), pixels="same")
    found = dedup.find([x, y, z])
    assert [(one.position, one.kept) for one in found] == [(0, 2), (1, 2)]


def test_beyond_what_is_compared_pair_by_pair_buckets_find_the_same_and_tell_their_recall(
    monkeypatch,
):
    rng = np.random.default_rng(9)
    words = rng.integers(0, 2**64, (60, 4), dtype=np.uint64)
    words[50:] = words[:10] ^ np.uint64(1)
    features = unit(rng.normal(size=(60, 8)))
    features[40:50] = features[:10]
    prints = [bare(f"{n:02}", hash=words[n]) for n in range(60)]
    exact = dedup.thin(prints, features)
    assert exact.recall == {}
    assert len(exact.duplicates) == 20
    monkeypatch.setattr(neighbours, "EXACT", 59)
    monkeypatch.setattr(neighbours, "_HOMES", 8)
    beyond = dedup.thin(prints, features)
    assert beyond.recall["hash"].value == 1
    assert beyond.recall["embedding"].value == 1
    assert beyond.duplicates == exact.duplicates


# ---------------------------------------------------------------- leaks


def test_leaks_are_counted_across_splits_and_concepts_and_the_worst_come_first():
    angles = np.array([0, 0.01, 0.5, 0.503, 1.2, 1.2])
    rows = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    splits = ["support", "query", "support", "support", "query", "query"]
    concepts = ["a", "a", "a", "b", "b", "b"]
    told = dedup.leaks(rows, splits, concepts, Limits(cosine=0.9999))
    assert (told.across_splits, told.across_concepts) == (1, 1)
    assert [(one.i, one.j) for one in told.worst] == [(2, 3), (0, 1)]
    assert told.closest_across_splits[:2] == (0, 1)
    assert told.closest_across_concepts[:2] == (2, 3)
    assert told.recall is None
    assert len(dedup.leaks(rows, splits, concepts, Limits(cosine=0.9999), most=1).worst) == 1


def test_nothing_leaks_where_there_is_one_split_and_one_concept():
    told = dedup.leaks(np.eye(3, dtype=np.float32), ["query"] * 3, ["a"] * 3)
    assert told.closest_across_splits is None
    assert told.closest_across_concepts is None
    assert told.worst == []


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(1, 4), st.integers(1, 4), st.integers(0, 9))
def test_leaks_are_those_of_brute_force(count, splits, concepts, seed):
    rng = np.random.default_rng(seed)
    rows = unit(rng.normal(size=(count, 3)))
    split, concept = rng.integers(splits, size=count), rng.integers(concepts, size=count)
    told = dedup.leaks(rows, list(map(str, split)), list(map(str, concept)), Limits(cosine=0.8))
    i, j = np.nonzero(np.triu(rows @ rows.T >= 0.8, 1))
    assert told.across_splits == (split[i] != split[j]).sum()
    assert told.across_concepts == (concept[i] != concept[j]).sum()
    apart = (split[i] != split[j]) | (concept[i] != concept[j])
    assert {(one.i, one.j) for one in told.worst} == set(
        zip(i[apart].tolist(), j[apart].tolist(), strict=True)
    )
    assert [one.cosine for one in told.worst] == sorted(one.cosine for one in told.worst)[::-1]


# ---------------------------------------------------------------- laws


crowds = st.lists(
    st.tuples(
        st.sampled_from("abc"),  # bytes
        st.integers(0, 3),  # pixels
        st.integers(0, 2**9 - 1),  # hash
        st.integers(0, 5),  # direction of the embedding
        st.integers(1, 3),  # area
        st.sampled_from("cd"),  # concept
        st.sampled_from((False, False, False, True)),  # protected
        st.integers(0, 2),  # score
    ),
    max_size=24,
)


def crowd(rows) -> tuple[list[Print], np.ndarray]:
    prints = [
        Print(
            path=f"{number:03d}",
            concept=concept,
            index=number % 5,
            area=area,
            data=f"{data}{pixels}{bits}",
            pixels=f"{pixels}{bits}",
            hash=np.array([bits, 0, 0, 0], np.uint64),
            keep=keep,
            score=score,
        )
        for number, (data, pixels, bits, _, area, concept, keep, score) in enumerate(rows)
    ]
    angles = np.array([row[3] for row in rows]) * 0.2
    return prints, np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def alike(a: Print, b: Print, cosine: float, limits: Limits) -> bool:
    bits = dedup.distances(a.hash[None], b.hash[None])[0, 0]
    same = a.data == b.data or a.pixels == b.pixels
    near = a.concept == b.concept and cosine >= limits.cosine
    return bool(same or bits <= limits.hash_distance or near)


@settings(max_examples=60, deadline=None)
@given(rows=crowds, tile=st.integers(1, 30), shuffle=st.randoms(use_true_random=False))
def test_the_kept_are_unlike_each_other_and_every_other_has_a_kept_match(rows, tile, shuffle):
    limits = Limits(hash_distance=1, cosine=0.999)
    prints, features = crowd(rows)
    before = neighbours.TILE, nearby._BLOCK
    neighbours.TILE, nearby._BLOCK = tile, 1 + tile // 2
    try:
        found = dedup.find(prints, features, limits)
        order = list(range(len(prints)))
        shuffle.shuffle(order)
        again = dedup.find([prints[i] for i in order], features[order], limits)
    finally:
        neighbours.TILE, nearby._BLOCK = before
    named = {(prints[d.position].path, prints[d.kept].path, d.reason) for d in found}
    assert named == {
        (prints[order[d.position]].path, prints[order[d.kept]].path, d.reason) for d in again
    }

    gone = {one.position for one in found}
    kept = [position for position in range(len(prints)) if position not in gone]
    assert len(gone) == len(found)
    cosines = features @ features.T
    for one in found:
        assert one.kept in kept
        assert not prints[one.position].keep
        assert alike(
            prints[one.position], prints[one.kept], cosines[one.position, one.kept], limits
        )
        assert prints[one.kept].rank < prints[one.position].rank
    for i in kept:
        for j in kept:
            wanted = prints[i].keep and prints[j].keep
            assert i == j or wanted or not alike(prints[i], prints[j], cosines[i, j], limits)
