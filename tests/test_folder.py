"""Pictures of one's own: the layout explained, every picture right or refused with its reason."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isekai.errors import DataError
from isekai.images import encode
from isekai.protocols import Catalog, ImageSource, Rejected
from isekai.sources.folder import FolderSource
from isekai.types import Concept, ImageRequest

RED = Image.new("RGB", (40, 20), (255, 0, 0))


def put(path: Path, data: bytes | Image.Image = RED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else encode(data))
    return path


def drawn(source: FolderSource, concept: Concept, size: int = 64) -> list[Image.Image | Rejected]:
    requests = [
        ImageRequest(concept=concept, index=index, size=size, seed=0)
        for index in range(source.count(concept))
    ]
    return list(source.draw(requests))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two groups, one with a foil."""
    for name in ("b.png", "a.PNG", "C.png"):
        put(tmp_path / "Hogs" / "cacti_hog" / name)
    put(tmp_path / "Hogs" / "hedgehog.foil" / "1.png")
    put(tmp_path / "rocks" / "airstone" / "1.png")
    return tmp_path


def told(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        FolderSource(folder)
    return str(caught.value)


def test_folder_names_become_groups_and_concepts(root):
    source = FolderSource(root)
    assert isinstance(source, ImageSource)
    assert isinstance(source, Catalog)
    hogs, rocks = source.groups()
    assert [(c.id, c.name, c.role) for c in hogs.concepts] == [
        ("hogs/cacti-hog", "cacti hog", "novel"),
        ("hogs/hedgehog", "hedgehog", "foil"),
    ]
    assert (hogs.title, rocks.id) == ("Hogs", "rocks")
    assert [source.count(concept) for concept in hogs.concepts] == [3, 1]


def test_pictures_come_in_the_order_of_their_names(tmp_path):
    for shade, name in enumerate(("2.png", "10.png", "a.png", ".hidden.png", "note.txt")):
        put(tmp_path / "g" / "c" / name, Image.new("RGB", (4, 4), (shade, 0, 0)))
    source = FolderSource(tmp_path)
    pictures = drawn(source, source.groups()[0].concepts[0])
    assert [picture.getpixel((0, 0))[0] for picture in pictures] == [1, 0, 2]


def test_large_pictures_are_shrunk_in_proportion_and_small_ones_left(tmp_path):
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (20, 40, 3), dtype=np.uint8))
    put(tmp_path / "g" / "c" / "1.png", small)
    put(tmp_path / "g" / "c" / "2.png", Image.new("RGB", (300, 100), (9, 200, 30)))
    put(tmp_path / "g" / "c" / "3.png", Image.new("RGB", (1, 3000)))
    source = FolderSource(tmp_path)
    first, second, third = drawn(source, source.groups()[0].concepts[0])
    assert first.tobytes() == small.tobytes()
    assert second.size == (64, 21)
    assert set(second.get_flattened_data()) == {(9, 200, 30)}
    assert third.size == (1, 64)


def test_a_picture_that_cannot_be_used_gives_its_name_and_reason(root):
    folder = root / "rocks" / "airstone"
    put(folder / "2.png", b"")
    put(folder / "3.jpg", b"no picture")
    put(folder / "4.png", encode(RED)[:60])
    (folder / "5.png").symlink_to("nowhere")
    (folder / "6.png").symlink_to("/etc/hostname")
    (folder / "7.png").symlink_to(root / "Hogs" / "cacti_hog" / "b.png")
    os.mkfifo(folder / "8.png")
    moving = io.BytesIO()
    RED.save(moving, "GIF", save_all=True, append_images=[Image.new("RGB", RED.size)])
    put(folder / "9.gif", moving.getvalue())
    source = FolderSource(root)
    pictures = drawn(source, source.groups()[1].concepts[0])
    reasons = [p.reason if isinstance(p, Rejected) else p.getpixel((0, 0)) for p in pictures]
    assert reasons[0] == reasons[6] == (255, 0, 0)
    for reason, part in zip(
        (reasons[n] for n in (1, 2, 3, 4, 5, 7, 8)),
        (
            "2.png: empty file",
            "3.jpg: not a picture",
            "4.png: damaged",
            "5.png: not a file",
            "6.png: a link that leads out",
            "8.png: not a file",
            "9.gif: animated: 2 frames",
        ),
        strict=True,
    ):
        assert reason.startswith(part)


def test_a_picture_that_may_not_be_read_is_refused(root):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    os.chmod(root / "rocks" / "airstone" / "1.png", 0)
    source = FolderSource(root)
    (picture,) = drawn(source, source.groups()[1].concepts[0])
    assert picture == Rejected("1.png: Permission denied")


def test_the_revision_follows_names_and_contents_not_the_place_or_time(root, tmp_path_factory):
    first = FolderSource(root).revision
    moved = tmp_path_factory.mktemp("new") / "place"
    root.rename(moved)
    os.utime(moved / "rocks" / "airstone" / "1.png", (0, 0))
    assert FolderSource(moved).revision == first
    put(moved / "rocks" / "airstone" / "1.png", Image.new("RGB", (40, 20)))
    changed = FolderSource(moved).revision
    assert changed != first
    (moved / "Hogs" / "cacti_hog" / "b.png").rename(moved / "Hogs" / "cacti_hog" / "z.png")
    assert FolderSource(moved).revision not in (first, changed)


def test_mistakes_of_the_layout_are_explained(tmp_path):
    assert "no such folder; expected <folder>/<group>/<concept>" in told(tmp_path / "none")
    assert "empty; expected <folder>/<group>/<concept>" in told(tmp_path)
    put(tmp_path / "1.png")
    assert "pictures lie directly in the folder" in told(tmp_path)
    (tmp_path / "1.png").unlink()
    put(tmp_path / "cats" / "1.png")
    assert f"{tmp_path}/cats: pictures lie in the group's folder" in told(tmp_path)
    (tmp_path / "cats" / "1.png").unlink()
    assert "cats: a group without concept folders" in told(tmp_path)
    put(tmp_path / "cats" / "lynx" / "1.heic")
    assert "lynx: only .heic here; pictures end in .png" in told(tmp_path)
    put(tmp_path / "cats" / "lynx" / "2.png")
    put(tmp_path / "cats" / "lynx" / "more" / "3.png")
    assert "lynx/more: a folder inside a concept's folder" in told(tmp_path)


def test_names_that_cannot_be_told_apart_are_refused(root):
    put(root / "Hogs" / "Hedgehog" / "1.png")
    put(root / "hogs!" / "x" / "1.png")
    put(root / "日本" / "x" / "1.png")
    lines = told(root).split("\n")
    assert len(lines) == 3
    assert "two concept folders are called 'hogs/hedgehog'" in "\n".join(lines)
    assert "two group folders are called 'hogs'" in "\n".join(lines)
    assert "日本: the name has no letter a-z" in "\n".join(lines)


def test_a_folder_linked_from_outside_is_refused(root, tmp_path_factory):
    put(tmp_path_factory.mktemp("other") / "c" / "1.png")
    (root / "rocks" / "linked").symlink_to(tmp_path_factory.getbasetemp())
    assert "linked: a link that leads out of" in told(root)


def test_a_concept_that_the_folder_lacks_is_told(root):
    with pytest.raises(DataError, match="no folder for 'hogs/cactihog'; did you mean 'hogs/cacti"):
        FolderSource(root).count(Concept(id="hogs/cactihog", name="cactihog", role="novel"))


def test_a_loop_of_links_and_a_name_of_raw_bytes_cost_one_picture_each(tmp_path):
    concept = tmp_path / "group" / "concept"
    concept.mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(concept / "a.png")
    (concept / "loop.png").symlink_to(concept / "loop.png")
    raw = os.fsencode(concept) + b"/bad\xff.png"
    try:
        with open(raw, "wb") as file:
            file.write(b"not a picture")
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")
    source = FolderSource(tmp_path)
    assert source.revision
    (only,) = source.groups()[0].concepts
    requests = [ImageRequest(concept=only, index=i, size=8, seed=0) for i in range(3)]
    drawn = list(source.draw(requests))
    refused = [one.reason for one in drawn if isinstance(one, Rejected)]
    assert len(refused) == 2
    "".join(refused).encode()  # can be written
