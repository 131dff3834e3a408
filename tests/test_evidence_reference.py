"""Nearest pictures of a reference folder: found, told, and nothing outside it opened."""

import pytest

from isekai.embeddings import Embeddings
from isekai.errors import DataError
from isekai.evidence import reference, weighing
from isekai.evidence.records import Evidence
from isekai.evidence.space import Space
from tests.evidence_data import SIZE, Planted, axis, damaged, dataset, showing

PLACES = {"one": 0, "two": 1, "foil": 2}


def drawn(concept, rng):
    return showing(axis(PLACES[concept.split("/")[1]]) + 0.1 * rng.random(SIZE))


@pytest.fixture
def space(tmp_path):
    look = Embeddings(Planted({}), tmp_path / "cache")
    found = dataset(drawn)
    return found, look, Space.of(found, look)


def test_pictures_nearer_than_the_threshold_are_copies_and_the_nearest_is_named(space, tmp_path):
    found, look, rows = space
    folder = tmp_path / "known"
    (folder / "deep").mkdir(parents=True)
    showing(axis(0)).save(folder / "deep" / "kettle.PNG")
    showing(axis(9)).save(folder / "other.png")
    told = reference.measure(rows, look, folder, threshold=0.8)
    one, two = told.concepts["g0/one"], told.concepts["g0/two"]
    assert {match.path for match in one.nearest} == {"deep/kettle.PNG"}
    assert len(one.nearest) == 3
    assert [m.cosine for m in one.nearest] == sorted((m.cosine for m in one.nearest), reverse=True)
    assert one.nearest[0].image_id in found.ids("g0/one", "query") + found.ids("g0/one", "support")
    assert (one.copies.value, one.copies.n, two.copies.value) == (1, 16, 0)
    assert told.overall.value == pytest.approx(1 / 3)
    assert (told.pictures, told.left_out) == (2, {})
    assert str(tmp_path) not in str(told)
    weak = Evidence(dataset="x", reference=told)
    assert weighing.weak_points(weak, found.concept("g0/one")) == ("copies",)
    assert weighing.weak_points(weak, found.concept("g0/two")) == ()


def test_damaged_files_are_told_links_are_not_followed_and_hidden_files_are_passed_over(
    space, tmp_path
):
    _, look, rows = space
    outside = tmp_path / "outside"
    outside.mkdir()
    showing(axis(0)).save(outside / "secret.png")
    folder = tmp_path / "known"
    (folder / ".hidden").mkdir(parents=True)
    showing(axis(0)).save(folder / ".hidden" / "kettle.png")
    showing(axis(9)).save(folder / "fine.png")
    (folder / "half.png").write_bytes(damaged())
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    (folder / "link.png").symlink_to(outside / "secret.png")
    (folder / "away").symlink_to(outside)
    (folder / "loop").symlink_to(folder)
    told = reference.measure(rows, look, folder, threshold=0.8)
    assert told.pictures == 1
    assert told.overall.value == 0
    assert set(told.left_out) == {"half.png", "empty.jpg", "link.png", "away", "loop"}
    assert told.left_out["empty.jpg"] == "empty file (0 bytes)"
    assert "damaged" in told.left_out["half.png"]
    assert told.left_out["away"] == "a link; links are not followed"


def test_equal_files_count_once_and_an_empty_or_missing_folder_is_refused(space, tmp_path):
    _, look, rows = space
    folder = tmp_path / "known"
    with pytest.raises(DataError, match="no such folder; --reference takes a folder of pictures"):
        reference.measure(rows, look, folder, threshold=0.8)
    folder.mkdir()
    with pytest.raises(DataError, match="no pictures for reference"):
        reference.measure(rows, look, folder, threshold=0.8)
    (folder / "half.png").write_bytes(damaged())
    with pytest.raises(DataError, match="1 files could not be used"):
        reference.measure(rows, look, folder, threshold=0.8)
    showing(axis(0)).save(folder / "a.png")
    showing(axis(0)).save(folder / "b.png")
    told = reference.measure(rows, look, folder, threshold=0.8)
    assert told.pictures == 1
    assert told.concepts["g0/one"].nearest[0].path == "a.png"
