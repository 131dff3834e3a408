"""From a folder of images to a dataset: what stays, what goes and why, and nothing half done."""

import io
import itertools
import json
import resource
import shutil
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from isekai import build, check, cli, files, parquet
from isekai.dataset import Dataset
from isekai.errors import BusyError, DataError, IsekaiError
from isekai.parquet import SPLITS, Row
from isekai.types import Concept, ImageRecord
from tests.conftest import PER_CONCEPT, write_images

SMALL = 4
FAST = {"size": 64}
"""Options that make the embedder quick; four pictures a concept stay apart at this size."""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("small") / "images", per_concept=SMALL)


@pytest.fixture(scope="module")
def built(small, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "dataset"
    return build.run(images=small, out=out, options=FAST).parent


@pytest.fixture
def images(small, tmp_path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "images"))


def ledger(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def put(folder: Path, record: dict, data: bytes) -> None:
    """Another file for a row of the ledger, told truthfully."""
    (folder / record["path"]).write_bytes(data)
    rows = [
        {**row, "id": files.sha256(data)} if row["path"] == record["path"] else row
        for row in ledger(folder)
    ]
    files.write_jsonl(folder / "ledger.jsonl", rows)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def home(folder: Path) -> Path:
    """The one dataset's own folder."""
    return Dataset.open(folder).path


def rejected(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- what it makes


def test_every_picture_is_in_one_split_byte_for_byte(tiny_dataset, tiny_images):
    dataset = Dataset.open(tiny_dataset)
    assert len(dataset.entries) == len(ledger(tiny_images))
    for row in ledger(tiny_images)[::5]:
        assert dataset.image(row["id"]).data == (tiny_images / row["path"]).read_bytes()
    counts = Counter((entry.concept, entry.split) for entry in dataset.entries)
    assert set(counts.values()) == {PER_CONCEPT // 2}
    assert not rejected(home(tiny_dataset))


def test_the_nearest_pictures_of_the_two_splits_are_no_duplicates(tiny_dataset):
    told = json.loads((home(tiny_dataset) / "manifest.json").read_text())
    assert (
        0.5 < told["checks"]["closest_cosine_across_splits"] < told["settings"]["limits"]["cosine"]
    )
    in_split = {}
    for entry in Dataset.open(tiny_dataset).entries:
        in_split[f"{entry.concept}/{entry.index:04d}.png"] = entry.split
    pair = told["checks"]["closest_pair_across_splits"]
    assert {in_split[path] for path in pair} == {"support", "query"}


def test_the_folder_holds_all_that_it_should(built):
    assert set(contents(built)) == {
        "CITATION.cff",
        "README.md",
        "contact_sheet.png",
        "croissant.json",
        *(
            f"images/{name}"
            for name in (
                "contact_sheet.html",
                "contact_sheet.png",
                "episodes/foil.jsonl",
                "episodes/pair.jsonl",
                "episodes/settings.json",
                "episodes/twin.jsonl",
                "groups.json",
                "manifest.json",
                "novelty.json",
                "query-00000-of-00001.parquet",
                "rejected.jsonl",
                "support-00000-of-00001.parquet",
            )
        ),
    }
    assert not (built / ".staging").exists()
    assert check.run(built).is_well


def test_the_same_pictures_give_the_same_bytes_in_whatever_order_they_were_drawn(
    small, built, images, tmp_path
):
    rows = [{**row, "drawn_at": "2030-01-01T00:00:00Z"} for row in ledger(images)]
    files.write_jsonl(images / "ledger.jsonl", rows[::-1])
    again = build.run(images=images, out=tmp_path / "again", options=FAST).parent
    assert contents(again) == contents(built)


def test_another_seed_and_share_move_pictures(images, built, tmp_path):
    other = build.run(images=images, out=tmp_path / "other", options=FAST, seed=1, query_share=0.25)
    dataset = Dataset.open(other)
    counts = Counter((entry.concept, entry.split) for entry in dataset.entries)
    assert {counts[c, s] for c, s in counts if s == "query"} == {1}
    assert {counts[c, s] for c, s in counts if s == "support"} == {3}
    assert dataset.fingerprint != Dataset.open(built).fingerprint


# ---------------------------------------------------------------- what it leaves out


def test_each_picture_left_out_has_its_reason_and_the_one_that_stays(images, tmp_path):
    rows = {row["path"]: row for row in ledger(images)}
    first = (images / "fruit/blimel/0000.png").read_bytes()
    picture = Image.open(io.BytesIO(first))
    webp = io.BytesIO()
    picture.save(webp, "WEBP", lossless=True)
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=90)
    put(images, rows["fruit/blimel/0001.png"], first)
    put(images, rows["fruit/quorrin/0001.png"], webp.getvalue())
    put(images, rows["fruit/orange/0003.png"], jpeg.getvalue())
    put(images, rows["stone/gravvel/0000.png"], first[: len(first) // 2])
    put(images, rows["stone/gravvel/0001.png"], b"no picture")
    (images / "stone/pebble/0002.png").unlink()
    (images / "stone/pebble/0003.png").write_bytes(first)
    refusal = {"concept": "plant/verrade", "index": 4, "reason": "hidden part", "given": {}}
    files.write_jsonl(images / "rejected.jsonl", [refusal])

    out = build.run(images=images, out=tmp_path / "out", options=FAST)
    found = {row["path"]: row for row in rejected(home(out))}
    reasons = {path: row["reason"].split(":")[0] for path, row in found.items()}
    assert reasons == {
        "fruit/blimel/0001.png": "same bytes",
        "fruit/quorrin/0001.png": "same pixels",
        "fruit/orange/0003.png": "same picture by perceptual hash",
        "stone/gravvel/0000.png": "unreadable",
        "stone/gravvel/0001.png": "unreadable",
        "stone/pebble/0002.png": "file is missing",
        "stone/pebble/0003.png": "file is not the one in the ledger",
        None: "not drawn",
    }
    for path in ("fruit/blimel/0001.png", "fruit/quorrin/0001.png", "fruit/orange/0003.png"):
        assert found[path]["other"] == "fruit/blimel/0000.png"
    assert found["stone/pebble/0002.png"]["image_id"] == rows["stone/pebble/0002.png"]["id"]
    dataset = Dataset.open(out)
    assert len(dataset.entries) == 9 * SMALL - 7
    kept = {f"{entry.concept}/{entry.index:04d}.png" for entry in dataset.entries}
    assert kept == set(rows) - set(found)
    card = (out.parent / "README.md").read_text()
    assert "| same bytes | 1 |" in card
    assert "| not drawn: hidden part | 1 |" in card


def test_a_concept_with_too_few_pictures_left_is_named_with_the_reasons(images, tmp_path):
    for index in range(SMALL - 1):
        (images / f"plant/mossip/{index:04d}.png").unlink()
    with pytest.raises(
        DataError,
        match="plant/mossip has 1 usable images and needs at least 2; 3 left out: file is",
    ):
        build.run(images=images, out=tmp_path / "out", options=FAST)
    with pytest.raises(DataError, match="no manifest"):
        Dataset.open(tmp_path / "out")


# ---------------------------------------------------------------- splits


def row(number: int) -> Row:
    concept = Concept(id="g/c", name="c", role="foil")
    record = ImageRecord(
        id=files.sha256(str(number).encode()),
        path=f"g/c/{number:04d}.png",
        concept="g/c",
        index=number,
        width=1,
        height=1,
        seed=0,
        prompt="",
        source="",
        model="",
        revision="",
        settings={},
        drawn_at="",
    )
    return Row(record, concept)


@settings(max_examples=50, deadline=None)
@given(
    numbers=st.sets(st.integers(0, 200), min_size=2, max_size=60),
    more=st.sets(st.integers(201, 400), max_size=5),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_a_split_is_exact_and_more_pictures_move_few(numbers, more, share, seed):
    rows = [row(number) for number in sorted(numbers)]
    before = build.split(rows, share, seed)
    assert sorted([*before["support"], *before["query"]], key=lambda r: r.record.index) == rows
    wanted = min(max(round(len(rows) * share), 1), len(rows) - 1)
    assert len(before["query"]) == wanted
    assert {r.record.id for r in build.split(rows[::-1], share, seed)["query"]} == {
        r.record.id for r in before["query"]
    }
    after = build.split(rows + [row(number) for number in more], share, seed)
    moved = sum(
        (one in before[split]) and (one not in after[split]) for split in SPLITS for one in rows
    )
    assert moved <= len(more)


# ---------------------------------------------------------------- what it refuses


def edited_ledger(change):
    def damage(folder: Path) -> None:
        rows = ledger(folder)
        files.write_jsonl(folder / "ledger.jsonl", change(rows))

    return damage


def groups_with(change):
    def damage(folder: Path) -> None:
        groups = json.loads((folder / "groups.json").read_text())
        change(groups)
        files.write_json(folder / "groups.json", groups)

    return damage


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def bare(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_manifest, r"not finished \(no manifest.json\); run the same `isekai generate`"),
        (bare, "not a folder of drawn images"),
        (shutil.rmtree, "no such folder of images"),
        (lambda f: files.write_json(f / "manifest.json", {"kind": "run"}), "finished images"),
        (edited_ledger(lambda rows: []), "no images"),
        (edited_ledger(lambda rows: [*rows, rows[0]]), "fruit/blimel has two images 0"),
        (
            edited_ledger(lambda rows: [{**rows[0], "path": "../../etc/passwd"}, *rows[1:]]),
            "leads out of the folder",
        ),
        (
            edited_ledger(lambda rows: [{**rows[0], "path": "/etc/passwd"}, *rows[1:]]),
            "leads out of the folder",
        ),
        (
            edited_ledger(lambda rows: [{**rows[0], "concept": "fruit/else"}, *rows[1:]]),
            "shows 'fruit/else', not in groups.json",
        ),
        (edited_ledger(lambda rows: [{**rows[0], "sed": 3}, *rows[1:]]), "did you mean 'seed'"),
        (
            groups_with(lambda groups: groups[0]["concepts"].append(groups[0]["concepts"][0])),
            "the concept 'fruit/blimel' is there twice",
        ),
        (
            groups_with(lambda groups: groups[0].update(id="fruits")),
            "the concept 'fruit/blimel' is in the group 'fruits'",
        ),
    ],
)
def test_an_images_folder_that_cannot_be_used_is_told_and_nothing_is_written(
    images, tmp_path, damage, told
):
    damage(images)
    with pytest.raises(DataError, match=told):
        build.run(images=images, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"query_share": 0.0}, "between 0 and 1"),
        ({"query_share": 1.0}, "between 0 and 1"),
        ({"license": "MIT\nevil: yes"}, "no license identifier"),
        ({"embedder": "lite1"}, "did you mean 'lite0'"),
    ],
)
def test_senseless_settings_are_refused(small, tmp_path, given, told):
    with pytest.raises(IsekaiError, match=told):
        build.run(images=small, out=tmp_path / "out", **given)


# ---------------------------------------------------------------- a folder that holds something


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def test_built_again_with_the_same_settings_nothing_is_written(small, copy):
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*") if path.name != ".lock"}
    assert build.run(images=small, out=copy, options=FAST) == copy / "images"
    assert before == {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.name != ".lock"}


def test_other_settings_and_other_pictures_need_force(small, images, built, copy):
    with pytest.raises(DataError, match=r"built otherwise \(other seed\); give --force"):
        build.run(images=small, out=copy, options=FAST, seed=1)
    (images / "fruit/orange/0000.png").unlink()
    with pytest.raises(DataError, match=r"built otherwise \(other images\); give --force"):
        build.run(images=images, out=copy, options=FAST)
    assert contents(copy) == contents(built)

    (copy / "images/support-00001-of-00002.parquet").write_bytes(b"left over")
    build.run(images=images, out=copy, options=FAST, force=True)
    assert len(Dataset.open(copy).entries) == 9 * SMALL - 1
    assert len(list((copy / "images").glob("*.parquet"))) == 2


def test_force_keeps_the_old_dataset_when_the_new_one_cannot_be_made(images, built, copy):
    for path in (images / "fruit/orange").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="fruit/orange has 0 usable images"):
        build.run(images=images, out=copy, options=FAST, force=True)
    assert contents(copy) == contents(built)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_things_is_never_touched(small, images, tmp_path, force):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match=r"holds 'thesis.tex', which is no dataset"):
        build.run(images=small, out=home, options=FAST, force=force)
    assert set(contents(home)) == {"thesis.tex"}
    before = contents(images)
    with pytest.raises(DataError, match="holds 'images', not a dataset"):
        build.run(images=images, out=images, options=FAST, force=force)
    assert contents(images) == before


def test_a_damaged_dataset_is_made_whole(small, built, copy):
    (copy / "images" / parquet.file("query")).unlink()
    build.run(images=small, out=copy, options=FAST)
    assert contents(copy) == contents(built)


def test_two_builds_in_one_folder_are_refused(small, tmp_path):
    out = tmp_path / "out"
    with files.lock(out), pytest.raises(BusyError, match="another isekai process"):
        build.run(images=small, out=out, options=FAST)


def test_a_disk_without_room_is_told_and_the_old_dataset_stays(images, built, copy):
    (images / "fruit/orange/0000.png").unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(DataError, match="grew past the limit") as caught:
            build.run(images=images, out=copy, options=FAST, force=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert contents(copy) == contents(built)


class Killed(BaseException):
    """Stands for kill -9: nothing that would catch it may run."""


def test_killed_between_any_two_renames_it_is_old_or_unfinished_or_new_and_can_go_on(
    small, built, images, tmp_path, monkeypatch
):
    (images / "fruit/orange/0000.png").unlink()
    old = build.run(images=images, out=tmp_path / "old", options=FAST).parent
    states = []
    really = build.os.replace
    for renames in range(20):
        out = Path(shutil.copytree(old, tmp_path / f"out{renames}"))
        shutil.copytree(built / "images", out / ".staging" / "images")
        left = [renames]

        def replace(source, target, left=left):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            really(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(build.os, "replace", replace)
            try:
                build._put_in_place(out / ".staging" / "images", out)
                finished = True
            except Killed:
                finished = False
        try:
            opened = Dataset.open(out).fingerprint
            states.append("old" if opened == Dataset.open(old).fingerprint else "new")
        except DataError as error:
            states.append("unfinished" if "not finished" in str(error) else str(error))
        if finished:
            break
        if renames == 4:
            build.run(images=small, out=out, options=FAST)
            assert contents(out) == contents(built)
    assert [state for state, _ in itertools.groupby(states)] == ["old", "unfinished", "new"]
    assert len(states) > 6


def test_a_half_written_staging_folder_is_swept(small, built, tmp_path):
    out = tmp_path / "out"
    (out / ".staging/images").mkdir(parents=True)
    (out / ".staging/images/support-00000-of-00001.parquet").write_bytes(b"PAR1")
    (out / ".isekai-part-abc").write_bytes(b"torn")
    build.run(images=small, out=out, options=FAST)
    assert contents(out) == contents(built)


# ---------------------------------------------------------------- the command


def test_the_command_prints_the_path_or_a_summary(small, copy):
    words = ["build", str(small), "--out", str(copy), "-o", "size=64"]
    plain = CliRunner().invoke(cli.app, words)
    assert (plain.exit_code, plain.stdout) == (0, f"{copy / 'images'}\n")
    told = json.loads(CliRunner().invoke(cli.app, [*words, "--json"]).stdout)
    assert told["splits"] == {"support": 18, "query": 18}
    assert told["fingerprint"] == Dataset.open(copy).fingerprint


def test_building_from_a_dataset_says_what_it_is(built, tmp_path):
    with pytest.raises(DataError, match="a dataset already"):
        build.run(images=home(built), out=tmp_path / "out", options=FAST)
