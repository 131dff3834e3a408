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

from isekai import files, parquet
from isekai.dataset import Dataset, Entry, Listed, configs, fingerprint, load, manifest
from isekai.errors import DataError, IsekaiError, PluginError
from isekai.images import decode
from isekai.parquet import SPLITS
from tests import stored
from tests.conftest import PER_CONCEPT, tiny_groups


@pytest.fixture(scope="module")
def tiny(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset in a folder of datasets, which has a card. Don't write into it."""
    root = tmp_path_factory.mktemp("stored")
    config = stored.write(root / "tiny", tiny_images)
    stored.write_card(root, "tiny")
    return config


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy"))


def support(folder: Path) -> Path:
    return folder / parquet.file("support")


def rewrite(path: Path, change) -> None:
    """The Parquet file again, its table changed."""
    pq.write_table(change(pq.read_table(path)), path, row_group_size=20)


def swap_manifest(folder: Path, **changes) -> None:
    stored.change_json(folder / "manifest.json", **changes)


def test_entries_are_all_pictures_in_the_order_of_the_groups(tiny):
    dataset = Dataset.open(tiny)
    assert dataset.groups == tiny_groups()
    wanted = [c.id for g in tiny_groups() for c in g.concepts for _ in range(PER_CONCEPT)]
    assert [entry.concept for entry in dataset.entries] == wanted[:-1]
    assert [entry.index for entry in dataset.entries] == (list(range(PER_CONCEPT)) * 9)[:-1]
    assert Counter(entry.split for entry in dataset.entries) == {"support": 53, "query": 54}
    assert {e.role for e in dataset.entries if e.concept == "fruit/orange"} == {"foil"}


def test_ids_are_those_of_the_split_by_index(tiny):
    dataset = Dataset.open(tiny)
    by_id = {entry.image_id: entry for entry in dataset.entries}
    for split in SPLITS:
        found = [by_id[id] for id in dataset.ids("stone/pebble", split)]
        assert {(entry.concept, entry.split) for entry in found} == {("stone/pebble", split)}
        assert [entry.index for entry in found] == sorted(entry.index for entry in found)
    assert len(dataset.ids("stone/pebble", "support")) == 6


def test_images_are_the_bytes_that_were_drawn(tiny, tiny_images):
    dataset = Dataset.open(tiny)
    for entry in dataset.entries[::7]:
        image = dataset.image(entry.image_id)
        assert image.id == entry.image_id
        path = tiny_images / f"{entry.concept}/{entry.index:04d}.png"
        assert image.data == path.read_bytes()


def test_concepts_are_found_by_id_and_near_misses_are_told(tiny):
    dataset = Dataset.open(tiny)
    assert dataset.concept("fruit/orange").name == "orange"
    with pytest.raises(DataError, match="no concept 'fruit/ornge'; did you mean 'fruit/orange'"):
        dataset.concept("fruit/ornge")
    with pytest.raises(DataError, match="no concept"):
        dataset.ids("fruit/ornge", "query")
    with pytest.raises(DataError, match="no image has the id 'abc'"):
        dataset.image("abc")


def test_pictures_are_read_when_asked_and_few_are_kept(tiny, monkeypatch):
    monkeypatch.setattr("isekai.shards._CACHE_BYTES", 1)
    dataset = Dataset.open(tiny)
    cache = dataset._fetch.__self__._cache
    assert not cache
    for entry in dataset.entries[::13]:
        assert files.sha256(dataset.image(entry.image_id).data) == entry.image_id
        assert len(cache) == 1


def test_many_threads_may_read_pictures_at_once(tiny, monkeypatch):
    monkeypatch.setattr("isekai.shards._CACHE_BYTES", 1)
    dataset = Dataset.open(tiny)
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


def test_a_data_set_is_named_by_its_folder_though_that_holds_a_colon(tiny, tmp_path):
    assert load(tiny).fingerprint == load(str(tiny)).fingerprint
    odd = shutil.copytree(tiny, tmp_path / "lists:odd?a=b")
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


def in_two(folder: Path) -> list[Path]:
    table = pq.read_table(support(folder))
    support(folder).unlink()
    paths = [folder / parquet.file("support", number, 2) for number in range(2)]
    pq.write_table(table.slice(0, 30), paths[0])
    pq.write_table(table.slice(30), paths[1])
    return paths


def one_shard_lost(folder: Path) -> None:
    in_two(folder)[1].unlink()


def first_shard_lost(folder: Path) -> None:
    in_two(folder)[0].unlink()


def shard_too_many(folder: Path) -> None:
    in_two(folder)
    shutil.copy(folder / parquet.file("query"), support(folder))


def badly_named(folder: Path) -> None:
    shutil.copy(support(folder), folder / "support-new.parquet")
    support(folder).unlink()


def no_text(folder: Path) -> None:
    def change(table: pa.Table) -> pa.Table:
        ids = pa.array([b"\xff\xfe"] * len(table)).view(pa.string())
        place = table.schema.get_field_index("image_id")
        return table.set_column(place, "image_id", ids)

    rewrite(support(folder), change)


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
        (no_split, r"copy: support-\*.parquet is missing; build or download it again"),
        (one_shard_lost, r"copy: support-00001-of-00002.parquet is missing; build or download it"),
        (first_shard_lost, r"copy: support-00000-of-00002.parquet is missing"),
        (shard_too_many, r"copy: support-00000-of-00001.parquet is none of its files"),
        (badly_named, r"copy: support-new.parquet is none of its files"),
        (no_text, "support-00000-of-00001.parquet: damaged"),
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
    support(copy).unlink()
    (copy / parquet.file("query")).unlink()
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


def test_the_datasets_library_reads_pictures_and_labels(tiny, tiny_images, tmp_path):
    loaded = datasets.load_dataset(str(tiny.parent), "tiny", cache_dir=str(tmp_path))
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
    assert json.loads(row["settings"]) == {"steps": 4, "sampler": "a, b"}
    assert (row["negative_prompt"], row["original_id"]) == ("text, frame", None)

    for split in SPLITS:
        bare = loaded[split].cast_column("image", datasets.Image(decode=False))
        for row, told in zip(loaded[split], bare, strict=True):
            data = (tiny_images / told["image"]["path"]).read_bytes()
            assert told["image"]["bytes"] == data
            assert row["image"].tobytes() == decode(data).tobytes()
            assert files.sha256(data) == row["image_id"]


def test_the_datasets_library_streams_it(tiny):
    dataset = Dataset.open(tiny)
    for split in SPLITS:
        stream = datasets.load_dataset(str(tiny.parent), "tiny", split=split, streaming=True)
        wanted = [entry for entry in dataset.entries if entry.split == split]
        names = stream.features["concept"].names
        for row, entry in zip(stream, wanted, strict=True):
            assert (row["image_id"], names[row["concept"]]) == (entry.image_id, entry.concept)
            shown = decode(dataset.image(entry.image_id).data)
            assert row["image"].tobytes() == shown.tobytes()


# ---------------------------------------------------------------- several in a folder


def test_a_folder_of_one_dataset_opens_it(tiny):
    whole = Dataset.open(tiny.parent)
    assert (whole.path, whole.name) == (tiny, "tiny")
    assert whole.fingerprint == Dataset.open(tiny).fingerprint
    assert configs(tiny.parent) == {"tiny": tiny}


def test_of_several_datasets_one_has_to_be_named(tiny, tmp_path):
    for name in ("one", "two.2"):
        shutil.copytree(tiny, tmp_path / name)
    with pytest.raises(DataError, match=r"holds several datasets; give one: \S*one, \S*two\.2$"):
        Dataset.open(tmp_path)
    assert Dataset.open(tmp_path / "one").name == "tiny"


def test_folders_of_other_steps_and_hidden_ones_are_no_datasets(tiny, tiny_images, tmp_path):
    for name in ("set", ".staging", "Upper"):
        shutil.copytree(tiny, tmp_path / name)
    shutil.copytree(tiny_images, tmp_path / "images")
    (tmp_path / "runs").mkdir()
    assert list(configs(tmp_path)) == ["set"]
    assert Dataset.open(tmp_path).path == tmp_path / "set"


def test_a_manifest_that_can_not_be_read_is_told_where_it_is_opened(copy):
    (copy / "manifest.json").write_text("{")
    assert configs(copy.parent) == {"copy": copy}
    with pytest.raises(DataError, match=r"copy/manifest.json: not JSON"):
        Dataset.open(copy.parent)


def test_an_unfinished_dataset_is_told_from_the_folder_above(copy):
    swap_manifest(copy, complete=False)
    with pytest.raises(DataError, match="copy: not finished; run the same `isekai build`"):
        Dataset.open(copy.parent)


def test_the_manifest_tells_how_the_dataset_came_about(tiny):
    told = manifest(tiny)
    assert (told.name, told.title, told.images) == ("tiny", "Tiny things", 107)
    assert told.splits == {"support": 53, "query": 54}
    assert told.settings == {"license": "cc0-1.0"}
