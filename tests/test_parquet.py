"""The Parquet files of a dataset: what viewers ask of them, and what an edit leaves as it was."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isekai import files, parquet
from isekai.errors import DataError
from isekai.parquet import FEWEST, MOST, Row
from isekai.types import Concept, Group, ImageRecord
from tests.conftest import tiny_groups

RECORD = ImageRecord(
    id="",
    path="",
    concept="",
    index=0,
    width=1,
    height=2,
    seed=0,
    prompt="",
    source="s",
    model="m",
    revision="r",
    settings={},
    drawn_at="",
)


class Pictures:
    """Rows of one concept after another, and bytes to go with them."""

    def __init__(self, counts: list[int], *, size: int = 100, groups=None, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.groups = groups or tiny_groups()
        self.stored = {}
        self.rows = []
        concepts = [concept for group in self.groups for concept in group.concepts]
        for concept, count in zip(concepts, counts, strict=False):
            for index in range(count):
                data = rng.bytes(size)
                id = files.sha256(data)
                self.stored[id] = data
                path = f"{concept.id}/{index:04d}.png"
                record = replace(RECORD, id=id, path=path, concept=concept.id, index=index)
                self.rows.append(Row(record, concept))

    def write(self, folder: Path, rows=None, **options) -> list[Path]:
        rows = self.rows if rows is None else rows
        return parquet.write(folder, "query", rows, self.groups, self.read, **options)

    def read(self, record: ImageRecord) -> bytes:
        return self.stored[record.id]


def row_groups(path: Path) -> list[tuple[str, int]]:
    """A digest of the bytes of each row group, and its rows."""
    data, told = path.read_bytes(), pq.read_metadata(path)
    found = []
    for number in range(told.num_row_groups):
        group = told.row_group(number)
        columns = [group.column(place) for place in range(group.num_columns)]
        starts = [column.dictionary_page_offset or column.data_page_offset for column in columns]
        end = min(starts) + sum(column.total_compressed_size for column in columns)
        found.append((hashlib.sha256(data[min(starts) : end]).hexdigest(), group.num_rows))
    return found


# ---------------------------------------------------------------- what stands in a row


def test_a_row_tells_all_of_its_picture(tmp_path):
    pictures = Pictures([1])
    (row,) = pictures.rows
    record = replace(
        row.record,
        prompt="a ü",
        negative_prompt="blur",
        settings={"b": [1, 2], "a": "é"},
        scores={"clip.own": 0.5},
        seed=2**63 - 1,
    )
    originals = {record.id: "0" * 64}
    (path,) = pictures.write(tmp_path, [Row(record, row.concept)], originals=originals)
    assert pq.read_table(path).to_pylist() == [
        {
            "image": {"bytes": pictures.stored[record.id], "path": "fruit/blimel/0000.png"},
            "image_id": record.id,
            "group": 0,
            "concept": 0,
            "name": "blimel",
            "role": 0,
            "novelty": "form",
            "definition": "A fruit shape called blimel in the tests.",
            "index": 0,
            "seed": 2**63 - 1,
            "prompt": "a ü",
            "negative_prompt": "blur",
            "source": "s",
            "model": "m",
            "revision": "r",
            "settings": '{"a": "é", "b": [1, 2]}',
            "scores": '{"clip.own": 0.5}',
            "width": 1,
            "height": 2,
            "original_id": "0" * 64,
        }
    ]


def test_a_picture_stored_as_it_was_drawn_has_no_original(tmp_path):
    (path,) = Pictures([1]).write(tmp_path)
    assert pq.read_table(path)["original_id"].to_pylist() == [None]


hostile = st.text(max_size=20)
drawings = st.lists(
    st.tuples(st.integers(0, 8), st.binary(max_size=60), hostile, st.integers(0, 2**63 - 1)),
    max_size=60,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(drawn=drawings, title=hostile, definition=hostile)
def test_whatever_is_written_is_read_back(tmp_path_factory, drawn, title, definition):
    groups = tuple(
        Group(
            id=f"g{n}",
            title=title,
            concepts=tuple(
                Concept(id=f"g{n}/c{m}", name=title, role="foil", definition=definition)
                for m in range(3)
            ),
        )
        for n in range(3)
    )
    pictures = Pictures([], groups=groups)
    concepts = [concept for group in groups for concept in group.concepts]
    for number, (label, data, text, seed) in enumerate(sorted(drawn)):
        id = files.sha256(data + bytes([number]))
        pictures.stored[id] = data
        told = {"id": id, "index": number, "seed": seed, "prompt": text, "negative_prompt": text}
        record = replace(RECORD, **told, settings={text: seed})
        pictures.rows.append(Row(record, concepts[label]))
    folder = tmp_path_factory.mktemp("parquet")
    (path,) = pictures.write(folder)
    back = pq.read_table(path).to_pylist()
    for row, (record, concept) in zip(back, pictures.rows, strict=True):
        assert row["image"]["bytes"] == pictures.stored[record.id]
        assert concepts[row["concept"]] is concept
        assert (row["prompt"], row["seed"]) == (record.prompt, record.seed)
        assert row["negative_prompt"] == record.negative_prompt
        assert json.loads(row["settings"]) == record.settings
        assert (row["name"], row["definition"]) == (title, definition)
    (again,) = pictures.write(folder / "again")
    assert again.read_bytes() == path.read_bytes()


# ---------------------------------------------------------------- what viewers ask of a file


def test_pictures_are_not_packed_twice_texts_are_and_what_is_searched_has_statistics(tmp_path):
    (path,) = Pictures([30, 30]).write(tmp_path)
    group = pq.read_metadata(path).row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    packed = {name: column.compression for name, column in columns.items()}
    assert packed.pop("image.bytes") == "UNCOMPRESSED"
    assert set(packed.values()) == {"ZSTD"}
    assert all(column.has_offset_index for column in columns.values())
    searched = {name for name, column in columns.items() if column.has_column_index}
    assert {"image_id", "group", "concept", "role", "seed", "original_id"} <= searched
    assert not searched & {"image.bytes", "prompt", "settings", "definition"}
    assert columns["index"].statistics.max == 29


def test_the_metadata_tells_the_datasets_library_what_the_columns_are(tmp_path):
    (path,) = Pictures([1]).write(tmp_path)
    told = pq.read_schema(path).metadata
    features = json.loads(told[b"huggingface"])["info"]["features"]
    assert list(features) == list(parquet.COLUMNS)
    assert features["image"] == {"_type": "Image"}
    assert features["group"] == {"names": ["fruit", "stone", "plant"], "_type": "ClassLabel"}
    assert features["seed"] == {"dtype": "int64", "_type": "Value"}
    chunks = json.loads(pq.read_metadata(path).metadata[b"content_defined_chunking"])
    assert chunks["max_chunk_size"] == 1024 * 1024


def test_pages_end_by_content_so_that_a_lost_picture_moves_few_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr("isekai.parquet.ONE_IN", 2**70)
    pictures = Pictures([MOST], size=40_000)
    (whole,) = pictures.write(tmp_path / "whole")
    (fewer,) = pictures.write(tmp_path / "fewer", pictures.rows[1:])
    one, other = map(pixels, (whole, fewer))
    headers = len(one) - MOST * (4 + 40_000)
    assert headers > 5 * 40  # without chunks there is one page, whose header is shorter
    same = next(n for n in range(len(other)) if one[-n - 1] != other[-n - 1])
    assert same > 0.6 * len(other)


def pixels(path: Path) -> bytes:
    """The pages of the only row group's pictures, as they are stored."""
    column = pq.read_metadata(path).row_group(0).column(0)
    start = column.data_page_offset
    return path.read_bytes()[start : start + column.total_compressed_size]


# ---------------------------------------------------------------- where row groups end


def test_a_row_group_has_25_to_200_rows_and_they_stand_in_their_order(tmp_path):
    pictures = Pictures([900, 0, 0, 700, 0, 0, 400])
    (path,) = pictures.write(tmp_path)
    sizes = [rows for _, rows in row_groups(path)]
    assert all(FEWEST <= size <= MOST for size in sizes[:-1])
    assert sum(sizes) == 2000
    assert len(sizes) > 15
    ids = pq.read_table(path, columns=["image_id"])["image_id"].to_pylist()
    assert ids == [row.record.id for row in pictures.rows]


def test_a_row_group_ends_with_a_group_of_concepts_unless_that_is_small(tmp_path):
    pictures = Pictures([20, 20, 20, 2, 2, 2, 10, 10, 10])
    (path,) = pictures.write(tmp_path)
    file = pq.ParquetFile(path)
    labels = [
        Counter(file.read_row_group(n, columns=["group"])["group"].to_pylist())
        for n in range(file.metadata.num_row_groups)
    ]
    assert labels[0].keys() == {0}
    assert sum((found[0] for found in labels), 0) == 60
    assert not any(found[0] and found[2] for found in labels)


@pytest.mark.parametrize("at", [0, 700, 1500])
def test_new_rows_leave_the_bytes_of_most_row_groups_as_they_were(tmp_path, at):
    pictures = Pictures([1500], size=2_000)
    more = Pictures([12], size=2_000, seed=1)
    (before,) = pictures.write(tmp_path / "before")
    pictures.stored |= more.stored
    rows = [*pictures.rows[:at], *more.rows, *pictures.rows[at:]]
    (after,) = pictures.write(tmp_path / "after", rows)
    old, new = row_groups(before), row_groups(after)
    kept = set(old) & set(new)
    assert sum(rows for _, rows in kept) >= 0.75 * 1500
    assert len(old) > 10


def test_dropped_rows_leave_the_bytes_of_other_row_groups_as_they_were(tmp_path):
    pictures = Pictures([1500], size=2_000)
    (before,) = pictures.write(tmp_path / "before")
    (after,) = pictures.write(tmp_path / "after", pictures.rows[5:])
    kept = set(row_groups(before)) & set(row_groups(after))
    assert sum(rows for _, rows in kept) >= 0.75 * 1500


def test_large_pictures_make_short_row_groups_one_in_memory_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("isekai.parquet.ROW_GROUP_BYTES", 10_000)
    pictures = Pictures([40], size=3_000)
    (path,) = pictures.write(tmp_path)
    assert [rows for _, rows in row_groups(path)] == [3] * 13 + [1]


def test_a_picture_that_no_viewer_reads_is_refused_and_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("isekai.parquet.READABLE_BYTES", 5_000)
    monkeypatch.setattr("isekai.parquet.SHARD_BYTES", 5_000)
    pictures = Pictures([60], size=1_000)
    last = pictures.rows[-1].record
    pictures.stored[last.id] = bytes(6_000)
    with pytest.raises(DataError, match=r"blimel/0059.png: 6,\d+ bytes; viewers read at most 5,00"):
        pictures.write(tmp_path)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- files


def test_files_end_with_a_row_group_and_are_numbered_as_the_hub_does(tmp_path, monkeypatch):
    pictures = Pictures([400], size=1_000)
    (whole,) = pictures.write(tmp_path / "whole")
    monkeypatch.setattr("isekai.parquet.SHARD_BYTES", 150_000)
    paths = pictures.write(tmp_path / "cut")
    assert len(paths) > 2
    assert [path.name for path in paths] == [
        f"query-{number:05d}-of-{len(paths):05d}.parquet" for number in range(len(paths))
    ]
    assert sorted((tmp_path / "cut").iterdir()) == paths
    assert [found for path in paths for found in row_groups(path)] == row_groups(whole)
    sizes = [path.stat().st_size for path in paths]
    assert max(sizes) < 170_000 or any(len(row_groups(path)) == 1 for path in paths)


def test_a_split_of_no_rows_is_a_file_of_no_rows(tmp_path):
    (path,) = Pictures([]).write(tmp_path)
    assert path.name == "query-00000-of-00001.parquet"
    assert pq.read_table(path).num_rows == 0
    assert pq.read_schema(path).names == list(parquet.COLUMNS)


def test_no_part_stays_where_reading_a_picture_fails(tmp_path):
    pictures = Pictures([80])
    del pictures.stored[pictures.rows[70].record.id]
    with pytest.raises(KeyError):
        pictures.write(tmp_path)
    assert not list(tmp_path.iterdir())
