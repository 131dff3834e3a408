"""Reading a dataset folder: what is there, and one clear line for whatever is wrong."""

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isekai import files, parquet
from isekai.dataset import Dataset, Entry, Listed, fingerprint, load
from isekai.errors import DataError, IsekaiError, PluginError
from isekai.parquet import SPLITS, Row
from isekai.types import Concept, Group, ImageRecord
from tests.conftest import PER_CONCEPT, tiny_groups


@pytest.fixture
def copy(tiny_dataset: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_dataset, tmp_path / "copy"))


def support(folder: Path) -> Path:
    return folder / parquet.file("support")


def rewrite(path: Path, change) -> None:
    """The Parquet file again, its table changed."""
    pq.write_table(change(pq.read_table(path)), path, row_group_size=20)


def swap_manifest(folder: Path, **changes) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    files.write_json(folder / "manifest.json", {**manifest, **changes})


def test_entries_are_all_pictures_in_the_order_of_the_groups(tiny_dataset):
    dataset = Dataset.open(tiny_dataset)
    assert dataset.groups == tiny_groups()
    wanted = [c.id for g in tiny_groups() for c in g.concepts for _ in range(PER_CONCEPT)]
    assert [entry.concept for entry in dataset.entries] == wanted
    assert [entry.index for entry in dataset.entries] == list(range(PER_CONCEPT)) * 9
    assert Counter(entry.split for entry in dataset.entries) == {"support": 54, "query": 54}
    assert {e.role for e in dataset.entries if e.concept == "fruit/orange"} == {"foil"}


def test_ids_are_those_of_the_split_by_index(tiny_dataset):
    dataset = Dataset.open(tiny_dataset)
    by_id = {entry.image_id: entry for entry in dataset.entries}
    for split in SPLITS:
        found = [by_id[id] for id in dataset.ids("stone/pebble", split)]
        assert {(entry.concept, entry.split) for entry in found} == {("stone/pebble", split)}
        assert [entry.index for entry in found] == sorted(entry.index for entry in found)
    assert len(dataset.ids("stone/pebble", "support")) == 6


def test_images_are_the_bytes_that_were_drawn(tiny_dataset, tiny_images):
    dataset = Dataset.open(tiny_dataset)
    for entry in dataset.entries[::7]:
        image = dataset.image(entry.image_id)
        assert image.id == entry.image_id
        path = tiny_images / f"{entry.concept}/{entry.index:04d}.png"
        assert image.data == path.read_bytes()


def test_concepts_are_found_by_id_and_near_misses_are_told(tiny_dataset):
    dataset = Dataset.open(tiny_dataset)
    assert dataset.concept("fruit/orange").name == "orange"
    with pytest.raises(DataError, match="no concept 'fruit/ornge'; did you mean 'fruit/orange'"):
        dataset.concept("fruit/ornge")
    with pytest.raises(DataError, match="no concept"):
        dataset.ids("fruit/ornge", "query")
    with pytest.raises(DataError, match="no image has the id 'abc'"):
        dataset.image("abc")


def test_pictures_are_read_when_asked_and_few_are_kept(tiny_dataset, monkeypatch):
    monkeypatch.setattr("isekai.shards._CACHE_BYTES", 1)
    dataset = Dataset.open(tiny_dataset)
    cache = dataset._fetch.__self__._cache
    assert not cache
    for entry in dataset.entries[::13]:
        assert files.sha256(dataset.image(entry.image_id).data) == entry.image_id
        assert len(cache) == 1


def test_many_threads_may_read_pictures_at_once(tiny_dataset, monkeypatch):
    monkeypatch.setattr("isekai.shards._CACHE_BYTES", 1)
    dataset = Dataset.open(tiny_dataset)
    ids = [entry.image_id for entry in dataset.entries] * 3
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(dataset.image, ids))
    assert [files.sha256(image.data) for image in images] == ids


# ---------------------------------------------------------------- pictures that lie elsewhere

DATA = {files.sha256(data): data for data in (b"one", b"two", b"three")}
ONE, TWO, THREE = DATA
ASKED = Listed(
    line=0,
    query=THREE,
    concept="fruit/orange",
    labels=("fruit/orange", "fruit/blimel"),
    positives=(ONE,),
    negatives=(TWO,),
)


def elsewhere(fetch=DATA.__getitem__, **changes) -> Dataset:
    entry = Entry(image_id=ONE, concept="fruit/orange", role="foil", split="support", index=0)
    asked = {"path": Path("x/y"), "groups": tiny_groups(), "entries": [entry], "lists": (ASKED,)}
    return Dataset(fingerprint="", fetch=fetch, **{**asked, **changes})


def test_pictures_may_lie_anywhere_and_those_of_published_questions_need_no_entry():
    dataset = elsewhere()
    assert [dataset.image(id).data for id in (ONE, TWO, THREE)] == [b"one", b"two", b"three"]
    assert (dataset.name, elsewhere(name="z").name) == ("y", "z")
    with pytest.raises(DataError, match="no image has the id"):
        elsewhere(lists=()).image(TWO)


def test_bytes_that_are_not_those_of_the_id_are_told_wherever_they_come_from():
    with pytest.raises(DataError, match=r"x/y: the bytes of image \w{12} are damaged; build or"):
        elsewhere(fetch=lambda id: b"else").image(ONE)


def test_published_questions_belong_to_the_identity():
    entries = elsewhere().entries
    told = fingerprint(tiny_groups(), entries)
    listed = fingerprint(tiny_groups(), entries, [ASKED])
    others = [
        replace(ASKED, line=1),
        replace(ASKED, query=TWO),
        replace(ASKED, concept="fruit/blimel"),
        replace(ASKED, labels=ASKED.labels[::-1]),
        replace(ASKED, positives=(TWO,)),
        replace(ASKED, positives=(ONE, TWO), negatives=()),
        replace(ASKED, positives=(), negatives=(ONE, TWO)),
    ]
    different = {fingerprint(tiny_groups(), entries, [other]) for other in others}
    assert len({told, listed, *different}) == 2 + len(others)


def test_a_data_set_is_named_by_its_folder_though_that_holds_a_colon(tiny_dataset, tmp_path):
    assert load(tiny_dataset).fingerprint == load(str(tiny_dataset)).fingerprint
    odd = shutil.copytree(tiny_dataset, tmp_path / "lists:odd?a=b")
    assert load(str(odd)).path == odd
    assert load(odd).path == odd


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("list:x", "no reader is called 'list'; did you mean 'lists'"),
        ("nothing", "nothing: no such folder; make a dataset with `isekai build`"),
        ("lists:", "reader 'lists' needs the option 'path'"),
        ("classes:x?per_clas=3", "no option 'per_clas'; did you mean 'per_class'"),
        ("classes:x?per_class=many", "option per_class='many'"),
        ("classes:x?per_class", "data 'classes:x.per_class': what follows the . is not key=value"),
        ("classes:x?names=%ff", "what follows the . is not key=value"),
        ("classes:x?per_class=3&per_class=4", "an option is given twice"),
        ("classes:x?group=all", "option group='all'"),
        ("classes:a+b", r"a\+b: no such folder"),
        ("pairs:x?images=a+b%20c", r"a\+b c: no such folder"),
    ],
)
def test_what_is_wrong_with_the_name_of_a_data_set_is_told(spec, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((DataError, PluginError, IsekaiError), match=told) as caught:
        load(spec)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- what can be wrong


def truncated(folder: Path) -> None:
    data = support(folder).read_bytes()
    support(folder).write_bytes(data[: len(data) // 2])


def emptied(folder: Path) -> None:
    support(folder).write_bytes(b"")


def one_picture_damaged(folder: Path) -> None:
    data = bytearray(support(folder).read_bytes())
    start = data.find(b"\x89PNG")
    data[start + 2000 : start + 2010] = bytes(10)
    support(folder).write_bytes(data)


def row_twice(folder: Path) -> None:
    rewrite(support(folder), lambda table: pa.concat_tables([table, table.slice(3, 1)]))


def in_both_splits(folder: Path) -> None:
    query = pq.read_table(folder / parquet.file("query"))
    rewrite(support(folder), lambda table: pa.concat_tables([table, query.slice(0, 1)]))


def row_lost(folder: Path) -> None:
    rewrite(support(folder), lambda table: table.slice(1))


def column_lost(folder: Path) -> None:
    rewrite(support(folder), lambda table: table.drop_columns(["concept"]))


def column_of_text(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index("concept")
        return table.set_column(place, "concept", table["concept"].cast(pa.string()))

    rewrite(support(folder), change)


def concept_beyond(folder: Path) -> None:
    groups = json.loads((folder / "groups.json").read_text())
    groups[-1]["concepts"].pop()
    files.write_json(folder / "groups.json", groups)


def renamed_concept(folder: Path) -> None:
    groups = json.loads((folder / "groups.json").read_text())
    groups[0]["concepts"][0]["name"] = "else"
    files.write_json(folder / "groups.json", groups)


def no_split(folder: Path) -> None:
    support(folder).unlink()


def no_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def no_groups(folder: Path) -> None:
    (folder / "groups.json").unlink()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncated, "support-00000-of-00001.parquet: damaged"),
        (emptied, "support-00000-of-00001.parquet: damaged"),
        (row_twice, "in the dataset twice"),
        (in_both_splits, "in the dataset twice"),
        (row_lost, "its files are not those it was built with"),
        (column_lost, "has no column 'concept'"),
        (column_of_text, "column 'concept' is string, expected int64"),
        (concept_beyond, "concept 8 is not in groups.json"),
        (renamed_concept, "its files are not those it was built with"),
        (no_split, r"support-\*.parquet is missing"),
        (no_manifest, r"not a dataset \(no manifest.json\)"),
        (no_groups, "groups.json: no such file"),
        (lambda folder: swap_manifest(folder, complete=False), "not finished; run the same"),
        (lambda folder: swap_manifest(folder, kind="images"), "a folder of images; turn it into"),
        (lambda folder: swap_manifest(folder, kind="run"), "kind is 'run', expected 'dataset'"),
        (lambda folder: swap_manifest(folder, fingerprint=3), "fingerprint is 3"),
        (shutil.rmtree, "no such folder; make a dataset with"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(copy, damage, told):
    damage(copy)
    with pytest.raises(DataError, match=told) as caught:
        Dataset.open(copy)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file, not a folder"):
        Dataset.open(tmp_path / "file")


def test_a_damaged_picture_is_found_when_it_is_read(copy):
    one_picture_damaged(copy)
    dataset = Dataset.open(copy)
    told = []
    for entry in dataset.entries:
        try:
            assert files.sha256(dataset.image(entry.image_id).data) == entry.image_id
        except DataError as error:
            told.append(str(error))
    assert len(told) == 1
    assert "are damaged; build or download the dataset again" in told[0]


def test_a_file_that_vanished_after_opening_is_told(copy):
    dataset = Dataset.open(copy)
    shutil.rmtree(copy / "data")
    with pytest.raises(DataError, match=r"parquet: no such file; build or download"):
        dataset.image(dataset.entries[0].image_id)


# ---------------------------------------------------------------- identity and format


def test_the_fingerprint_is_of_content_not_of_order():
    groups = tiny_groups()
    entries = [
        Entry(image_id=f"{n}", concept="fruit/orange", role="foil", split="query", index=n)
        for n in range(3)
    ]
    told = fingerprint(groups, entries)
    assert fingerprint(groups, entries[::-1]) == told
    moved = Entry(image_id="0", concept="fruit/orange", role="foil", split="support", index=0)
    assert fingerprint(groups, [moved, *entries[1:]]) != told
    assert fingerprint(groups[:2], entries) != told


def test_the_datasets_library_reads_pictures_and_labels(tiny_dataset, tiny_images, tmp_path):
    loaded = datasets.load_dataset(str(tiny_dataset), cache_dir=str(tmp_path))
    assert set(loaded) == set(SPLITS)
    features = loaded["support"].features
    assert features["image"] == datasets.Image()
    assert features["group"].names == ["fruit", "stone", "plant"]
    assert features["concept"].names == [c.id for g in tiny_groups() for c in g.concepts]
    assert features["role"].names == ["novel", "foil"]
    row = loaded["query"][0]
    assert row["image"].size == (row["width"], row["height"])
    concept = features["concept"].int2str(row["concept"])
    assert concept == "fruit/blimel"
    assert (row["name"], row["novelty"]) == ("blimel", "form")

    bare = loaded["query"].cast_column("image", datasets.Image(decode=False))[0]
    path = tiny_images / bare["image"]["path"]
    assert bare["image"]["bytes"] == path.read_bytes()
    assert files.sha256(bare["image"]["bytes"]) == bare["image_id"]


def test_the_datasets_library_streams_it(tiny_dataset):
    stream = datasets.load_dataset(str(tiny_dataset), split="support", streaming=True)
    rows = list(stream)
    dataset = Dataset.open(tiny_dataset)
    assert [row["image_id"] for row in rows] == [
        entry.image_id for entry in dataset.entries if entry.split == "support"
    ]
    assert rows[0]["image"].mode == "RGB"


def test_row_groups_stay_within_a_group_and_pictures_are_not_packed_twice(tiny_dataset):
    for split in SPLITS:
        file = pq.ParquetFile(tiny_dataset / parquet.file(split))
        for number in range(file.metadata.num_row_groups):
            group = file.metadata.row_group(number)
            assert group.num_rows <= parquet.ROWS
            table = file.read_row_group(number, columns=["group"])
            assert len(set(table["group"].to_pylist())) == 1
            codecs = {
                group.column(i).path_in_schema: group.column(i).compression
                for i in range(group.num_columns)
            }
            assert codecs.pop("image.bytes") == "UNCOMPRESSED"
            assert set(codecs.values()) == {"ZSTD"}


hostile = st.text(max_size=20)
pictures = st.lists(
    st.tuples(st.integers(0, 8), st.binary(max_size=60), hostile, st.integers(0, 2**63 - 1)),
    max_size=60,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=pictures, title=hostile, definition=hostile)
def test_whatever_is_written_is_read_back(tmp_path_factory, drawn, title, definition):
    concepts = [
        Concept(id=f"g{n // 3}/c{n}", name=title, role="foil", definition=definition)
        for n in range(9)
    ]
    groups = [
        Group(id=f"g{n}", title=title, concepts=tuple(concepts[3 * n : 3 * n + 3]))
        for n in range(3)
    ]
    stored = {}
    rows = []
    for number, (label, data, prompt, seed) in enumerate(sorted(drawn)):
        id = files.sha256(data + bytes([number]))
        stored[id] = data
        record = ImageRecord(
            id=id,
            path=f"{concepts[label].id}/{number:04d}.png",
            concept=concepts[label].id,
            index=number,
            width=1,
            height=2,
            seed=seed,
            prompt=prompt,
            source="s",
            model="m",
            revision="r",
            settings={},
            drawn_at="",
        )
        rows.append(Row(record, concepts[label]))
    path = tmp_path_factory.mktemp("parquet") / "x.parquet"
    parquet.write(path, rows, groups, lambda record: stored[record.id])
    back = pq.read_table(path).to_pylist()
    assert [row["image"]["bytes"] for row in back] == [stored[row.record.id] for row in rows]
    for row, (record, concept) in zip(back, rows, strict=True):
        assert row["concept"] == concepts.index(concept)
        assert (row["prompt"], row["seed"]) == (record.prompt, record.seed)
        assert (row["name"], row["definition"]) == (title, definition)
    again = path.with_name("again.parquet")
    parquet.write(again, rows, groups, lambda record: stored[record.id])
    assert again.read_bytes() == path.read_bytes()
