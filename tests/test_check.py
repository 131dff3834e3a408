"""What `isekai check` says: of a dataset as it should be, of every damage, and of ill will."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isekai import card, check, episode_lists, files, parquet
from isekai.dataset import Dataset
from isekai.errors import DataError
from isekai.findings import FEW
from isekai.parquet import SPLITS
from tests import stored
from tests.conftest import write_images

SUPPORT, QUERY = (parquet.file(split) for split in SPLITS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, its episodes and its card. Don't write into it."""
    folder = tmp_path_factory.mktemp("check")
    images = write_images(folder / "images", per_concept=6, size=32)
    config = stored.write(folder / "root" / "tiny", images)
    episode_lists.write(config)
    return stored.write_card(folder / "root", "tiny")


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "root"))


def told(path: Path) -> list[str]:
    """The problems, each as its file's name and what is wrong with it."""
    report = check.run(path)
    assert report.is_well == (not report.problems)
    assert report.count >= len([p for p in report.problems if "more like these" not in p.what])
    for line in report.text().splitlines():
        assert line.isprintable()
    return [f"{Path(problem.path).name}: {problem.what}" for problem in report.problems]


def rewrite(path: Path, change, *, metadata: bool = True, row_group_size: int = 25) -> None:
    """The Parquet file again, its table changed."""
    table = change(pq.read_table(path))
    if not metadata:
        table = table.replace_schema_metadata({})
    pq.write_table(table, path, row_group_size=row_group_size)


def column(path: Path, name: str, change, kind: pa.DataType | None = None) -> None:
    """The Parquet file again, with a function of the column's values in the place of these."""

    def swapped(table: pa.Table) -> pa.Table:
        place = table.schema.get_field_index(name)
        values = change(table[name].to_pylist())
        return table.set_column(
            place, name, pa.array(values, kind or table.schema.field(name).type)
        )

    rewrite(path, swapped)


# ---------------------------------------------------------------- as it should be


def test_a_dataset_as_it_should_be_is_summed_up(whole):
    report = check.run(whole)
    assert report.is_well
    (found,) = report.datasets
    assert found.splits == {"support": 26, "query": 27}
    assert (found.name, found.concepts, found.files, found.lists) == ("tiny", 9, 2, 3)
    assert found.bytes == sum((whole / "tiny" / name).stat().st_size for name in (SUPPORT, QUERY))
    first, last = report.text().splitlines()
    assert first.startswith("tiny: 26 support, 27 query pictures of 9 concepts; 2 files, 2 row gr")
    assert last == f"{whole}: as it should be"
    summed = json.loads(json.dumps(check.summary(report)))
    assert (summed["well"], summed["problems"]) == (True, [])
    assert summed["datasets"][0]["splits"] == {"support": 26, "query": 27}


def test_a_dataset_may_be_looked_at_by_itself_and_under_another_name(whole, tmp_path):
    assert not told(whole / "tiny")
    assert not told(Path(shutil.copytree(whole / "tiny", tmp_path / "Other")))


def test_all_datasets_of_a_folder_are_looked_at(root):
    shutil.copytree(root / "tiny", root / "more")
    stored.change_json(root / "more/manifest.json", name="more")
    stored.write_card(root, "more", "tiny")
    report = check.run(root)
    assert [found.name for found in report.datasets] == ["more", "tiny"]
    assert not report.problems
    (root / "more" / QUERY).unlink()
    assert {Path(problem.path).parent.name for problem in check.run(root).problems} == {
        "more",
        "root",
    }


@pytest.mark.parametrize("name", ["nothing", "file", "empty", "images"])
def test_where_there_is_no_dataset_that_is_told(name, tmp_path, tiny_images):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "images").symlink_to(tiny_images)
    with pytest.raises(DataError, match=f"{name}: "):
        check.run(tmp_path / name)


# ---------------------------------------------------------------- what can be wrong


def cut_off(config: Path) -> None:
    data = (config / SUPPORT).read_bytes()
    (config / SUPPORT).write_bytes(data[: len(data) // 2])


def in_three(config: Path) -> None:
    table = pq.read_table(config / SUPPORT)
    (config / SUPPORT).unlink()
    pq.write_table(table.slice(0, 13), config / parquet.file("support", 1, 3))


def flipped(config: Path, name: str, near: bytes) -> None:
    """One bit of the file changed, in what follows these bytes."""
    data = bytearray((config / name).read_bytes())
    data[data.find(near) + len(near) + 40] ^= 1
    (config / name).write_bytes(data)


def no_picture(config: Path) -> None:
    """The first row's bytes are no picture, and its id is theirs."""
    data = b"GIF89a no picture"
    column(config / SUPPORT, "image", lambda old: [{"bytes": data, "path": "x"}, *old[1:]])
    column(config / SUPPORT, "image_id", lambda old: [files.sha256(data), *old[1:]])


def in_both(config: Path) -> None:
    first = pq.read_table(config / QUERY).slice(0, 1)
    rewrite(config / SUPPORT, lambda table: pa.concat_tables([table, first]))


def without(config: Path, name: str) -> None:
    rewrite(config / SUPPORT, lambda table: table.drop_columns([name]))


def episodes(config: Path, change) -> None:
    path = config / "episodes/twin.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    files.write_jsonl(path, rows)


def unknown_picture(rows: list[dict]) -> None:
    rows[1]["support"][0]["image_id"] = "f" * 64


def unknown_concept(rows: list[dict]) -> None:
    rows[0]["labels"]["fruit/durian"] = "florp"


def query_as_support(rows: list[dict]) -> None:
    rows[0]["support"][0] = rows[0]["queries"][0]


def words_alike(rows: list[dict]) -> None:
    rows[2]["labels"] = dict.fromkeys(rows[2]["labels"], "florp")


def groups(config: Path, change) -> None:
    path = config / "groups.json"
    told = json.loads(path.read_text())
    change(told)
    files.write_json(path, told)


def manifest(config: Path, **changes: object) -> None:
    stored.change_json(config / "manifest.json", **changes)


def rejections(config: Path, change) -> None:
    path = config / "rejected.jsonl"
    path.write_text(change(path.read_text()))


DAMAGES = {
    "a truncated file": (cut_off, ["support-00000-of-00001.parquet: damaged"]),
    "an empty file": (
        lambda c: (c / QUERY).write_bytes(b""),
        ["query-00000-of-00001.parquet: damaged"],
    ),
    "missing files of several": (
        in_three,
        [
            "support-00000-of-00003.parquet: no such file",
            "support-00002-of-00003.parquet: no such file",
        ],
    ),
    "a missing split": (
        lambda c: (c / QUERY).unlink(),
        ["query-00000-of-00001.parquet: no such file"],
    ),
    "a file too many": (
        lambda c: shutil.copy(c / QUERY, c / "query-old.parquet"),
        ["query-old.parquet: its name does not go with"],
    ),
    "a missing column": (
        lambda c: without(c, "prompt"),
        ["has no column 'prompt'"],
    ),
    "a missing column that is needed": (
        lambda c: without(c, "image_id"),
        ["has no column 'image_id'", "its rows can't be told without image_id"],
    ),
    "a column of another type": (
        lambda c: column(c / SUPPORT, "seed", lambda old: [str(v) for v in old], pa.string()),
        ["column 'seed' is string, expected int64"],
    ),
    "a column too many": (
        lambda c: rewrite(c / QUERY, lambda t: t.append_column("more", t["seed"])),
        ["column 'more' is none of a dataset's"],
    ),
    "no features": (
        lambda c: rewrite(c / QUERY, lambda t: t, metadata=False),
        ["its metadata has no features for the `datasets` library"],
    ),
    "features of another dataset": (
        lambda c: groups(c, lambda g: g[0].update(id="fruits")),
        [
            "the features in its metadata are not those of its columns and of groups.json: group",
            "the features in its metadata are not those",
            "its group is not that of fruit/blimel",
            "the concept 'fruit/blimel' is in the group 'fruits'",
            "its fingerprint is not that",
        ],
    ),
    "a picture twice": (
        lambda c: rewrite(c / SUPPORT, lambda t: pa.concat_tables([t, t.slice(3, 1)])),
        [
            "row 26: image",
            "is in the dataset twice, first in support-00000-of-00001.parquet, row 3",
        ],
    ),
    "a picture in both splits": (
        in_both,
        ["is in the dataset twice, first in support-00000-of-00001.parquet, row 26"],
    ),
    "a flipped bit in a picture": (
        lambda c: flipped(c, SUPPORT, b"\x89PNG"),
        ["support-00000-of-00001.parquet: damaged (could not verify page integrity"],
    ),
    "bytes of another picture": (
        lambda c: column(c / SUPPORT, "image", lambda old: [old[1], *old[1:]]),
        ["row 0: image", "is damaged: its id is not that of its bytes"],
    ),
    "bytes that are no picture": (no_picture, ["can't be shown: ", "its fingerprint is not"]),
    "another size": (
        lambda c: column(c / SUPPORT, "width", lambda old: [31, *old[1:]]),
        ["is 32x32 pixels, not 31x32"],
    ),
    "settings that are no JSON": (
        lambda c: column(c / QUERY, "settings", lambda old: ["[" * 99_999, "{", "[]", *old[3:]]),
        ["row 0: its settings are no JSON object", "row 1: its set", "row 2: its settings"],
    ),
    "an original that is the picture itself": (
        lambda c: column(c / QUERY, "original_id", lambda old: ids(c, QUERY)),
        ["row 0: its original_id is its own id", "and 7 more like these"],
    ),
    "labels that groups.json lacks": (
        lambda c: column(c / QUERY, "concept", lambda old: [9, -1, *old[2:]]),
        ["row 0: concept 9 is not in groups.json", "row 1: concept -1 is not in groups.json"],
    ),
    "no label": (
        lambda c: column(c / QUERY, "concept", lambda old: [None, *old[1:]]),
        ["row 0: has no id, concept or index"],
    ),
    "another role": (
        lambda c: column(c / QUERY, "role", lambda old: [1 - old[0], *old[1:]]),
        ["row 0: its role is not that of fruit/blimel in groups.json"],
    ),
    "a lost row": (
        lambda c: rewrite(c / QUERY, lambda t: t.slice(1)),
        ["says 27 query pictures, where 26 are", "says 53 images, where 52 are", "fingerprint"],
    ),
    "a long row group": (
        lambda c: rewrite(c / QUERY, lambda t: pa.concat_tables([t] * 8), row_group_size=999),
        ["row group 0 has 216 rows, expected at most 200"],
    ),
    "another fingerprint": (
        lambda c: manifest(c, fingerprint="0" * 64),
        ["manifest.json: its fingerprint is not that of the pictures and groups"],
    ),
    "wrong counts": (
        lambda c: manifest(c, images=54, splits={"support": 27}),
        ["says 54 images, where 53", "says 27 support", "says None query"],
    ),
    "another name": (
        lambda c: manifest(c, name="else"),
        ["manifest.json: its name is 'else', expected that of its folder"],
    ),
    "no manifest": (lambda c: (c / "manifest.json").unlink(), ["manifest.json: no such file"]),
    "a manifest of little": (
        lambda c: files.write_json(c / "manifest.json", {"kind": "dataset", "complete": True}),
        ["manifest.json: name is missing", "manifest.json: images is missing"],
    ),
    "an unfinished dataset": (lambda c: manifest(c, complete=False), ["tiny: not finished; run"]),
    "no groups": (lambda c: (c / "groups.json").unlink(), ["groups.json: no such file"]),
    "groups that are no JSON": (
        lambda c: (c / "groups.json").write_text("[{]"),
        ["groups.json: not JSON (line 1"],
    ),
    "a concept twice": (
        lambda c: groups(c, lambda g: g[0]["concepts"].append(g[0]["concepts"][0])),
        ["groups.json: 'fruit/blimel' is there twice"],
    ),
    "no rejections": (lambda c: (c / "rejected.jsonl").unlink(), ["rejected.jsonl: no such file"]),
    "fewer rejections": (
        lambda c: rejections(c, lambda text: ""),
        ["rejected.jsonl: 0 pictures, where manifest.json says 1"],
    ),
    "rejections cut off": (
        lambda c: rejections(c, lambda text: text[:-9]),
        ["rejected.jsonl: its last line has no end"],
    ),
    "other JSON": (
        lambda c: (c / "novelty.json").write_bytes(b"\xff"),
        ["novelty.json: not UTF-8 text"],
    ),
    "an episode of an unknown picture": (
        lambda c: episodes(c, unknown_picture),
        ["twin.jsonl: line 2: names 'ffffffffffff', which is no support picture"],
    ),
    "an episode of an unknown concept": (
        lambda c: episodes(c, unknown_concept),
        ["twin.jsonl: line 1: names the concept 'fruit/durian', which is not in groups.json"],
    ),
    "an episode that shows what it asks": (
        lambda c: episodes(c, query_as_support),
        ["which is no support picture"],
    ),
    "an episode that was not drawn from it": (
        lambda c: episodes(c, words_alike),
        ["twin.jsonl: not the file that settings.json tells of"],
    ),
    "an episode of other fields": (
        lambda c: episodes(c, lambda rows: rows[0].pop("labels")),
        ["twin.jsonl: line 1: labels is missing"],
    ),
}


def ids(config: Path, name: str) -> list[str]:
    return pq.read_table(config / name)["image_id"].to_pylist()


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named(root, damage):
    work, wanted = DAMAGES[damage]
    work(root / "tiny")
    found = told(root / "tiny") if damage != "another name" else told(root)
    for part in wanted:
        assert any(part in line for line in found), found


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_opens_a_dataset_agrees_on_the_worst_of_it(root, damage):
    """Whatever does not open is a problem; `check` is not milder than `Dataset.open`."""
    DAMAGES[damage][0](root / "tiny")
    try:
        Dataset.open(root / "tiny")
    except DataError:
        assert told(root / "tiny")


def test_everything_is_named_in_one_go(root):
    config = root / "tiny"
    cut_off(config)
    column(config / QUERY, "width", lambda old: [1, *old[1:]])
    (config / "groups.json").unlink()
    (config / "rejected.jsonl").write_text("{}\n")
    (root / "README.md").unlink()
    found = told(root)
    assert {line.split(": ")[0] for line in found} == {
        *("groups.json", SUPPORT, QUERY, "rejected.jsonl", "README.md")
    }


def test_what_follows_from_a_damage_is_not_named_as_well(root):
    cut_off(root / "tiny")
    (line,) = told(root)
    assert line.startswith(f"{SUPPORT}: damaged")


def test_a_row_group_that_no_viewer_reads_is_named_and_not_read(root, monkeypatch):
    monkeypatch.setattr("isekai.shard_check.READABLE_BYTES", 20_000)
    (one, two) = told(root / "tiny")
    assert one.startswith(f"{SUPPORT}: row group 0 takes ")
    assert two.endswith(" bytes; viewers read at most 20,000")


# ---------------------------------------------------------------- card and Croissant


def head(root: Path, change) -> None:
    _, text, rest = (root / "README.md").read_text().split("---\n", 2)
    value = json.loads(text)
    change(value)
    (root / "README.md").write_text(f"---\n{json.dumps(value)}\n---\n{rest}")


CARDS = {
    "no config": (
        lambda told: told["configs"].clear(),
        ["lists no config 'tiny', so that this dataset is not found"],
    ),
    "a config too many": (
        lambda told: told["configs"].append({"config_name": "other"}),
        ["lists the config 'other', which is not there"],
    ),
    "a config twice": (
        lambda told: told["configs"].append(told["configs"][0]),
        ["lists the config 'tiny' twice"],
    ),
    "files that are not there": (
        lambda told: told["configs"][0]["data_files"][0].update(path="data/support-*.parquet"),
        ["names data/support-*.parquet, which is not there", f"leaves out tiny/{SUPPORT} of the"],
    ),
    "files of the other split": (
        lambda told: told["configs"][0]["data_files"][0].update(path="tiny/*.parquet"),
        [f"config 'tiny' names tiny/{QUERY} for the split support"],
    ),
    "a split too many": (
        lambda told: told["configs"][0]["data_files"].append({"split": "test", "path": "x"}),
        ["has a split 'test', which is not there"],
    ),
    "other sizes": (
        lambda told: told["dataset_info"][0]["splits"][0].update(num_examples=3),
        ["'tiny' has 26 rows in support, not 3 as it says"],
    ),
    "no tables": (
        lambda told: told.update(configs=[["x"], 3], dataset_info={"splits": "x"}),
        ["lists no config 'tiny'"],
    ),
}


@pytest.mark.parametrize("wrong", CARDS)
def test_a_card_that_does_not_go_with_its_datasets_is_named(root, wrong):
    change, wanted = CARDS[wrong]
    head(root, change)
    assert told(root) == [f"README.md: {line}" for line in told_of_card(root)]
    for part in wanted:
        assert any(part in line for line in told(root))


def told_of_card(root: Path) -> list[str]:
    return [problem.what for problem in check.run(root).problems]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("# No head\n", "has no YAML at its head"),
        ("---\n[1, 2\n---\n", "its head is no YAML"),
        ("---\n- 1\n---\n", "its head is no YAML"),
        ("---\na: &a [*a]\nconfigs: *a\n---\n", "lists no config 'tiny'"),
    ],
)
def test_a_card_without_a_head_is_named(root, text, wanted):
    (root / "README.md").write_text(text)
    (line,) = told(root)
    assert line.startswith("README.md: ")
    assert wanted in line


def test_the_card_and_the_croissant_file_of_the_house_are_as_they_should_be(root, capfd):
    (root / "tiny/contact_sheet.png").write_bytes(b"")
    card.write(root)
    assert (root / "croissant.json").exists()
    assert told(root) == []
    assert capfd.readouterr() == ("", "")


def test_a_croissant_file_is_held_to_its_format(root):
    (root / "tiny/contact_sheet.png").write_bytes(b"")
    card.write(root)
    path = root / "croissant.json"
    document = json.loads(path.read_text())
    files.write_json(path, {**document, "distribution": document["distribution"][:-1]})
    found = told(root)
    assert len(found) == FEW + 1
    assert all("Malformed source data: tiny/" in line for line in found[:-1])
    files.write_json(path, {**document, "recordSet": 3})
    (line,) = told(root)
    assert line.startswith("croissant.json: `record_sets` should have type ")
    path.write_text("{")
    assert [line.split(" (")[0] for line in told(root)] == ["croissant.json: not JSON"]


@pytest.mark.parametrize(
    "changes",
    [
        {"@context": "http://127.0.0.1:9/context"},
        {"@context": {"@import": "http://127.0.0.1:9/context"}},
        {"distribution": [{"@context": ["http://127.0.0.1:9/context"]}]},
    ],
)
def test_a_croissant_file_can_not_make_us_fetch_something(root, changes):
    (root / "tiny/contact_sheet.png").write_bytes(b"")
    card.write(root)
    document = json.loads((root / "croissant.json").read_text())
    files.write_json(root / "croissant.json", {**document, **changes})
    assert told(root) == [
        "croissant.json: names a context that has to be fetched; expected is one in the file"
    ]


# ---------------------------------------------------------------- ill will


def test_texts_beyond_all_measure_are_not_read(root):
    names = ("groups.json", "rejected.jsonl", "manifest.json", "episodes/settings.json")
    for name in (*(f"tiny/{name}" for name in names), "README.md"):
        with (root / name).open("r+b") as file:
            file.truncate(10**12)
    found = told(root)
    assert found.count("README.md: 1,000,000,000,000 bytes; at most 100,000,000 are read") == 1
    assert len([line for line in found if "1,000,000,000,000 bytes" in line]) == 5


def test_what_is_no_file_is_not_read(root):
    for name in ("groups.json", "manifest.json", SUPPORT):
        (root / "tiny" / name).unlink()
        os.mkfifo(root / "tiny" / name)
    found = told(root / "tiny")
    assert {"groups.json: is no file", "manifest.json: is no file"} <= set(found)
    assert f"{SUPPORT}: is no file" in found


def test_a_card_of_a_few_lines_that_is_endless_once_written_out_is_named(root):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(12)]
    lines += [
        "configs:",
        "- config_name: *a12",
        "- {config_name: tiny, data_files: [{split: *a12, path: *a12}]}",
        "dataset_info:",
        f"- {{config_name: tiny, splits: [{{name: query, num_examples: 0x{'f' * 9999}}}]}}",
    ]
    (root / "README.md").write_text("---\n" + "\n".join(lines) + "\n---\n")
    found = told(root)
    assert "README.md: lists the config '<list>', which is not there" in found
    assert "README.md: 'tiny' has 27 rows in query, not <int> as it says" in found


def test_names_steer_no_terminal(root):
    groups(
        root / "tiny", lambda told: told[0]["concepts"][0].update(id="fruit/\x1b[2J\nx", name="")
    )
    assert any("fruit/\ufffd[2J\ufffdx" in line for line in told(root / "tiny"))


_BOMB = """
import resource, sys
from pathlib import Path
from isekai import check
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert not check.run(Path(sys.argv[1])).is_well
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_small_file_of_large_rows_takes_no_more_memory_than_one_of_them(root):
    """200 rows of one picture and one text, of 1.5 MB each, which the file holds once: 0.6 GB."""
    table = pq.read_table(root / "tiny" / QUERY).slice(0, 1)
    large = {"image": pa.array([bytes(1_500_000)]), "prompt": pa.array(["x" * 1_500_000])}
    columns = []
    for name in table.column_names:
        values = large.get(name, table[name].combine_chunks())
        if name == "image":
            repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 200), values)
            path = pa.array([""] * 200)
            columns.append(pa.StructArray.from_arrays([repeated, path], ["bytes", "path"]))
        elif name == "prompt":
            columns.append(pa.DictionaryArray.from_arrays(pa.array([0] * 200), values))
        else:
            columns.append(values.take(pa.array([0] * 200)))
    pq.write_table(
        pa.table(columns, names=table.column_names),
        root / "tiny" / QUERY,
        dictionary_pagesize_limit=10**8,
        store_schema=False,
        compression="zstd",
    )
    assert (root / "tiny" / QUERY).stat().st_size < 200_000
    answer = subprocess.run(
        [sys.executable, "-c", _BOMB, root / "tiny"], capture_output=True, text=True, check=True
    )
    assert int(answer.stdout.split()[-1]) < 150_000  # KiB


def test_no_change_of_bytes_makes_it_fail(root):
    choose = random.Random(0)
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    for _ in range(25):
        path = choose.choice(paths)
        before = path.read_bytes()
        data = bytearray(before)
        for _ in range(choose.randrange(1, 6)):
            data[choose.randrange(max(len(data) - 9_000, 0), len(data))] = choose.randrange(256)
        path.write_bytes(data)
        assert isinstance(check.run(root).text(), str)
        path.write_bytes(before)
    assert check.run(root).is_well
