"""What every reader keeps: a stranger's is held to it beside the built-in ones."""

import json
import shutil
from collections import Counter
from pathlib import Path

import datasets
import pytest

from isekai import files, plugins
from isekai.dataset import Dataset, fingerprint, load
from isekai.errors import PluginError
from isekai.images import decode
from isekai.scoring import spelling

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "lcl"


def class_folders(folder: Path) -> Path:
    """The golden pictures but for the queries, a class a folder."""
    for path in sorted((GOLDEN / "images").glob("p?_???[0-9].png")):
        to = folder / "test" / path.name[:6] / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    return folder


# Reader -> what it is asked to read, below the folder that is given.
SPECS = {
    "lists": lambda folder: f"lists:{shutil.copytree(GOLDEN, folder / 'lcl')}",
    "pairs": lambda folder: (
        f"pairs:{GOLDEN / 'test100_tiny.jsonl'}"
        f"?images={shutil.copytree(GOLDEN / 'images', folder / 'images')}"
    ),
    "classes": lambda folder: f"classes:{class_folders(folder) / 'test'}",
    "hub": lambda folder: f"hub:{class_folders(folder)}",
}

every_reader = pytest.mark.parametrize("name", plugins.names("readers"))


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


@pytest.fixture
def read(tmp_path):
    """What a reader makes of its pictures in a folder of the name."""

    def run(name: str, where: str = "here") -> Dataset:
        (tmp_path / where).mkdir()
        return load(SPECS[name](tmp_path / where))

    return run


def test_every_installed_reader_is_held_to_this_contract():
    assert set(plugins.names("readers")) <= set(SPECS)


@every_reader
def test_its_groups_and_entries_hang_together(name, read):
    dataset = read(name)
    assert isinstance(dataset, Dataset)
    assert dataset.name
    concepts = {c.id: c for group in dataset.groups for c in group.concepts}
    assert len(concepts) == sum(len(group.concepts) for group in dataset.groups) >= 2
    for group in dataset.groups:
        assert all(concept.group == group.id for concept in group.concepts)
    assert all(spelling(concept.name) for concept in concepts.values())
    assert dataset.entries
    for entry in dataset.entries:
        assert concepts[entry.concept].role == entry.role
    keys = Counter((entry.concept, entry.index) for entry in dataset.entries)
    assert set(keys.values()) == {1}
    splits = {(entry.image_id, entry.split) for entry in dataset.entries}
    assert len(splits) == len({image_id for image_id, _ in splits})
    json.dumps(files.plain([dataset.groups, dataset.entries, dataset.lists]))


@every_reader
def test_its_pictures_are_files_that_can_be_decoded_named_by_their_content(name, read):
    dataset = read(name)
    there = {path.read_bytes() for path in (GOLDEN / "images").iterdir()}
    ids = {entry.image_id for entry in dataset.entries}
    for one in dataset.lists:
        ids.update((one.query, *one.positives, *one.negatives))
    for image_id in ids:
        data = dataset.image(image_id).data
        assert files.sha256(data) == image_id
        assert data in there
        decode(data)


@every_reader
def test_its_questions_ask_one_of_two_names_that_differ(name, read):
    dataset = read(name)
    assert len({one.line for one in dataset.lists}) == len(dataset.lists)
    for one in dataset.lists:
        assert one.concept in one.labels
        names = {spelling(dataset.concept(label).name) for label in one.labels}
        assert len(names) == 2
        assert len({dataset.concept(label).group for label in one.labels}) == 1


@every_reader
def test_its_identity_is_its_content_and_does_not_depend_on_where_it_lies(name, read):
    one, two = read(name, "one"), read(name, "two")
    assert one.fingerprint == two.fingerprint
    assert one.fingerprint == fingerprint(one.groups, one.entries, one.lists)
    assert [one.groups, one.entries, one.lists] == [two.groups, two.entries, two.lists]


@every_reader
def test_some_task_can_ask_it(name, read):
    dataset = read(name)
    task = plugins.load("tasks", "lists" if dataset.lists else "pair")
    asked = {"shots": (0, 1, 2), "queries": 1, "episodes": 1, "labels": "fantasy", "seed": 0}
    assert list(task(dataset, **asked))


@every_reader
def test_an_option_that_it_does_not_have_is_told(name, tmp_path):
    with pytest.raises(PluginError, match=f"reader '{name}' has no option 'frobnicate'"):
        load(f"{name}:{tmp_path}/nothing?frobnicate=1")
