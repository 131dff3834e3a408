"""Embeddings on disk: whole or absent, shared by processes, readable without torch."""

import os
import pickle
import threading
from pathlib import Path

import pytest
import torch

from isekai.files import sha256
from isekai.sources.diffusers.embedding_cache import Element, Shelf

KEY = sha256(b"a text")


def embedding(length: int = 5) -> dict[int, Element]:
    generator = torch.Generator().manual_seed(length)
    drawn = torch.randn(1, length, 8, generator=generator)
    return {
        0: Element("rows", drawn.to(torch.bfloat16)),
        2: Element("list", torch.arange(length)),
        3: Element("bare", torch.ones(length, 3, dtype=torch.bool)),
    }


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(
        a[n].kind == b[n].kind
        and a[n].tensor.dtype == b[n].tensor.dtype
        and torch.equal(a[n].tensor, b[n].tensor)
        for n in a
    )


def test_what_is_put_comes_back_to_the_bit_also_in_another_process(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.put(KEY, embedding())
    for reader in (shelf, Shelf(tmp_path), pickle.loads(pickle.dumps(shelf))):
        assert same(reader.get(KEY), embedding())
    assert shelf.path(KEY) == tmp_path / KEY[:2] / f"{KEY}.safetensors"
    assert not list(tmp_path.rglob("*.pkl"))


def test_shapes_are_read_from_the_head_alone(tmp_path):
    Shelf(tmp_path).put(KEY, embedding(7))
    assert Shelf(tmp_path).shape(KEY) == (
        ("0.rows", "BF16", (1, 7, 8)),
        ("2.list", "I64", (7,)),
        ("3.bare", "BOOL", (7, 3)),
    )
    assert Shelf(tmp_path).shape(sha256(b"another")) is None


@pytest.mark.parametrize("left", [0, 4, 8, 60, -40, -1])
def test_a_file_that_was_cut_off_is_as_good_as_absent(tmp_path, left):
    shelf = Shelf(tmp_path)
    shelf.put(KEY, embedding())
    path = shelf.path(KEY)
    path.write_bytes(path.read_bytes()[:left])
    fresh = Shelf(tmp_path)
    assert fresh.shape(KEY) is None
    assert fresh.get(KEY) is None
    fresh.put(KEY, embedding())
    assert same(Shelf(tmp_path).get(KEY), embedding())


def test_a_flipped_bit_is_noticed_and_the_file_removed(tmp_path):
    shelf = Shelf(tmp_path)
    shelf.put(KEY, embedding())
    path = shelf.path(KEY)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    fresh = Shelf(tmp_path)
    assert fresh.shape(KEY) is not None
    assert fresh.get(KEY) is None
    assert fresh.shape(KEY) is None
    assert not path.exists()


def test_a_file_under_another_s_name_is_not_taken_for_it(tmp_path):
    other = sha256(b"another text")
    shelf = Shelf(tmp_path)
    shelf.put(other, embedding())
    shelf.path(KEY).parent.mkdir(exist_ok=True)
    os.link(shelf.path(other), shelf.path(KEY))
    assert Shelf(tmp_path).get(KEY) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04\x95pickle",
        b"\xff" * 100,
        b"\x02" + bytes(7) + b"[]",
        b"\x02" + bytes(7) + b"{}",
    ],
)
def test_bytes_that_are_no_embedding_are_as_good_as_absent(tmp_path, data):
    shelf = Shelf(tmp_path)
    shelf.path(KEY).parent.mkdir()
    shelf.path(KEY).write_bytes(data)
    assert shelf.shape(KEY) is None
    assert shelf.get(KEY) is None


def test_notes_are_kept_and_a_damaged_one_is_as_good_as_absent(tmp_path):
    shelf = Shelf(tmp_path)
    assert shelf.note(KEY) is None
    shelf.put_note(KEY, {"calls": [1, None]})
    assert Shelf(tmp_path).note(KEY) == {"calls": [1, None]}
    path = next(Path(tmp_path).rglob("*.json"))
    path.write_bytes(path.read_bytes()[:-4])
    assert Shelf(tmp_path).note(KEY) is None


def test_one_alone_works_on_a_part_and_no_two_wait_for_each_other(tmp_path):
    keys = [sha256(bytes([n])) for n in range(8)]
    inside, most = [], []

    def work(own: list[str]) -> None:
        shelf = Shelf(tmp_path)
        for _ in range(10):
            with shelf.alone(*own, keys[0]):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work, args=(keys[n:] + keys[:n],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert len(most) == 40
    assert max(most) == 1
