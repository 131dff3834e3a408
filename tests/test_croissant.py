"""croissant.json as mlcroissant reads it: without complaints, and down to the pictures."""

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from isekai import card, parquet
from isekai.card import facts
from isekai.dataset import Dataset
from isekai.parquet import COLUMNS
from tests import dataset_folders
from tests.test_card import HOSTILE


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """mlcroissant calls rdflib and pandas in ways that these announce the end of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "ConjunctiveGraph is deprecated")
        warnings.filterwarnings("ignore", "The inplace keyword in DataFrame")
        yield


def opened(root: Path):
    """As mlcroissant has it; everything but the date that no file knows is as it recommends."""
    import mlcroissant

    found = mlcroissant.Dataset(jsonld=str(root / "croissant.json"))
    assert not found.metadata.ctx.issues.errors
    (only,) = found.metadata.ctx.issues.warnings
    assert "datePublished" in only
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    dataset_folders.write(tmp_path / "invented-7", dataset_folders.groups(2))
    dataset_folders.write(tmp_path / "isekai-20")
    card.write(tmp_path)
    return tmp_path


def test_mlcroissant_finds_nothing_wrong_and_every_dataset(root):
    metadata = opened(root).metadata
    assert metadata.conforms_to == ["http://mlcommons.org/croissant/1.1"]
    assert metadata.version == f"1.0.0+{facts.version(facts.read(root))}"
    assert metadata.license == ["https://spdx.org/licenses/CC0-1.0"]
    assert [one.id for one in metadata.record_sets] == [
        f"{config}/{name}"
        for config in ("invented-7", "isekai-20")
        for name in ("group-labels", "concept-labels", "role-labels", "support", "query")
    ]
    assert metadata.data_biases
    assert metadata.data_use_cases


def test_every_file_is_there_with_its_hash_and_size(root):
    told = {one.content_url: one for one in opened(root).metadata.file_objects}
    there = {path.relative_to(root).as_posix(): path for path in root.glob("*/*.parquet")}
    assert told.keys() == there.keys()
    for name, path in there.items():
        assert told[name].sha256 == facts.files.sha256(path.read_bytes())
        assert told[name].content_size == f"{path.stat().st_size} B"


def test_records_are_read_through_it_with_their_pictures(root):
    dataset = Dataset.open(root / "isekai-20")
    rows = list(opened(root).records("isekai-20/query"))
    assert len(rows) == 18
    names = [concept.id for group in dataset.groups for concept in group.concepts]
    for row in rows:
        values = {key.removeprefix("isekai-20/query/"): value for key, value in row.items()}
        assert set(values) == {"split", *COLUMNS}
        assert values["split"] == b"query"
        id = values["image_id"].decode()
        assert id in dataset.ids(names[values["concept"]], "query")
        stored = Image.open(io.BytesIO(dataset.image(id).data))
        assert values["image"].tobytes() == stored.tobytes()


def test_labels_say_what_the_numbers_stand_for(root):
    rows = list(opened(root).records("isekai-20/concept-labels"))
    groups = Dataset.open(root / "isekai-20").groups
    assert {
        row["isekai-20/concept-labels/number"]: row["isekai-20/concept-labels/name"] for row in rows
    } == dict(enumerate(concept.id for group in groups for concept in group.concepts))


def test_a_split_of_several_files_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "SHARD_BYTES", 1)
    dataset_folders.write(tmp_path / "many", dataset_folders.groups(2), support=40)
    assert len(list((tmp_path / "many").glob("support-*.parquet"))) > 1
    card.write(tmp_path)
    ids = {row["many/support/image_id"] for row in opened(tmp_path).records("many/support")}
    assert len(ids) == 240


def test_a_changed_file_is_not_read(root):
    path = root / "isekai-20" / "query-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Exception, match="query-00000-of-00001"):
        list(opened(root).records("isekai-20/query"))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(tmp_path, text):
    dataset_folders.write(tmp_path / "odd", text=text)
    card.write(tmp_path)
    opened(tmp_path)
    assert json.loads((tmp_path / "croissant.json").read_text())["name"] == text
