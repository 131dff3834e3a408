"""What a person, a gate, a size and a copy do to a picture on its way into a dataset."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from isekai import build, check, decisions, files
from isekai.dataset import Dataset, configs, load
from isekai.decisions import Row
from isekai.embeddings import Embeddings
from isekai.errors import DataError, IsekaiError
from isekai.images import decode
from isekai.intake import Rejection
from isekai.types import ImageRecord
from tests.conftest import write_images

FAST = {"size": 64}
SMALL = 4


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("small") / "images", per_concept=SMALL)


@pytest.fixture
def images(small, tmp_path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "images"))


def ledger(folder: Path) -> dict[str, ImageRecord]:
    return {r.path: r for r in files.read_jsonl(folder / "ledger.jsonl", ImageRecord)}


def put(folder: Path, path: str, data: bytes) -> str:
    """Another file for a row of the ledger, told truthfully; its id."""
    (folder / path).write_bytes(data)
    rows = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    for row in rows:
        if row["path"] == path:
            row["id"] = files.sha256(data)
    files.write_jsonl(folder / "ledger.jsonl", rows)
    return files.sha256(data)


def made(images: Path, out: Path, **how) -> tuple[Dataset, dict[str, str]]:
    """The dataset, and the reason of each picture that was left out."""
    built = Dataset.open(build.run(images=images, out=out, options=FAST, **how))
    rows = files.read_jsonl(built.path / "rejected.jsonl", Rejection)
    return built, {row.path or "": row.reason for row in rows}


def shown(dataset: Dataset, concept: str) -> set[str]:
    return {entry.image_id for entry in dataset.entries if entry.concept == concept}


# ---------------------------------------------------------------- a person


def test_the_next_build_obeys_what_a_person_decided(images, tmp_path):
    rows = ledger(images)
    dropped, moved, nothing = (
        rows[f"{concept}/0001.png"].id
        for concept in ("fruit/blimel", "fruit/orange", "stone/pebble")
    )
    dataset, reasons = made(images, tmp_path / "out")
    assert not reasons
    with files.Journal(dataset.path / decisions.FILE) as journal:
        journal.append(
            [
                Row(image_id=dropped, verdict="drop", note="two of them"),
                Row(image_id=moved, verdict="concept", concept="fruit/quorrin"),
                Row(image_id=nothing, verdict="concept"),
                Row(image_id="0" * 64, verdict="drop"),
            ]
        )
    dataset, reasons = made(images, tmp_path / "out")
    assert reasons == {
        "fruit/blimel/0001.png": "dropped by a reviewer",
        "stone/pebble/0001.png": "shows none of the concepts by a reviewer",
    }
    assert moved in shown(dataset, "fruit/quorrin")
    assert moved not in shown(dataset, "fruit/orange")
    indices = [entry.index for entry in dataset.entries if entry.concept == "fruit/quorrin"]
    assert sorted(indices) == list(range(SMALL + 1))
    assert (dataset.path / decisions.FILE).exists()
    assert check.run(tmp_path / "out").is_well


def test_decisions_of_another_file_are_obeyed_too(images, tmp_path):
    one = ledger(images)["fruit/blimel/0001.png"].id
    files.write_jsonl(tmp_path / "mine.jsonl", [Row(image_id=one, verdict="drop")])
    _, reasons = made(images, tmp_path / "out", review=tmp_path / "mine.jsonl")
    assert list(reasons) == ["fruit/blimel/0001.png"]


def test_a_picture_that_a_person_keeps_stays_whatever_it_is_like(images, tmp_path):
    first = (images / "fruit/blimel/0000.png").read_bytes()
    copy = put(images, "fruit/blimel/0003.png", mirrored(first))
    _, reasons = made(images, tmp_path / "plain")
    assert list(reasons) == ["fruit/blimel/0003.png"]
    files.write_jsonl(tmp_path / "mine.jsonl", [Row(image_id=copy, verdict="keep")])
    dataset, reasons = made(images, tmp_path / "out", review=tmp_path / "mine.jsonl")
    assert list(reasons) == ["fruit/blimel/0000.png"]
    assert copy in shown(dataset, "fruit/blimel")


def test_a_concept_that_is_not_there_can_not_be_obeyed(images, tmp_path):
    one = ledger(images)["fruit/blimel/0001.png"].id
    row = Row(image_id=one, verdict="concept", concept="fruit/pear")
    files.write_jsonl(tmp_path / "mine.jsonl", [row])
    with pytest.raises(DataError, match="to 'fruit/pear', which is no concept here"):
        made(images, tmp_path / "out", review=tmp_path / "mine.jsonl")


# ---------------------------------------------------------------- gates


def test_what_a_gate_turns_down_is_left_out_with_its_scores_kept_of_the_others(images, tmp_path):
    grey = io.BytesIO()
    Image.new("RGB", (96, 96), (90, 90, 90)).save(grey, "PNG")
    put(images, "stone/pebble/0002.png", grey.getvalue())
    dataset, reasons = made(images, tmp_path / "out", gates=["flat"])
    assert list(reasons) == ["stone/pebble/0002.png"]
    assert reasons["stone/pebble/0002.png"].startswith("flat: ")
    import pyarrow.parquet as pq

    scores = pq.read_table(dataset.path / "query-00000-of-00001.parquet")["scores"].to_pylist()
    assert all("flat.deviation" in json.loads(one) for one in scores)


def test_a_gate_that_compares_is_not_needed(images, tmp_path):
    with pytest.raises(IsekaiError, match="'duplicate' compares pictures with each other"):
        made(images, tmp_path / "out", gates=["duplicate"])


# ---------------------------------------------------------------- copies and sizes


def mirrored(data: bytes) -> bytes:
    out = io.BytesIO()
    ImageOps.mirror(decode(data)).save(out, "PNG")
    return out.getvalue()


def test_large_pictures_are_stored_smaller_and_say_what_they_were(images, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (800, 800, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    was = put(images, "stone/pebble/0002.png", out.getvalue())
    dataset, _ = made(images, tmp_path / "out")
    import pyarrow.parquet as pq

    rows = [
        row
        for shard in sorted(dataset.path.glob("*.parquet"))
        for row in pq.read_table(shard).to_pylist()
        if row["original_id"]
    ]
    [row] = rows
    assert row["original_id"] == was
    assert row["image"]["path"] == "stone/pebble/0002.webp"
    assert len(row["image"]["bytes"]) <= 1_000_000
    assert dataset.image(row["image_id"]).data == row["image"]["bytes"]
    assert decode(row["image"]["bytes"]).size == (row["width"], row["height"])
    whole, _ = made(images, tmp_path / "whole", originals=True)
    assert whole.image(was).data == out.getvalue()
    assert check.run(tmp_path / "out").is_well


def test_limits_are_picked_and_measured_where_that_is_asked_for(tiny_images, tmp_path, capsys):
    out = build.run(images=tiny_images, out=tmp_path / "out", options=FAST, calibrate=True)
    told = json.loads((Dataset.open(out).path / "manifest.json").read_text())["settings"]
    assert told["precision"] == 0.99
    assert told["calibration"]["limits"] == told["limits"]
    assert "recall" in capsys.readouterr().err
    card = (out.parent / "README.md").read_text()
    assert "other pairs those that are taken for copies" in " ".join(card.split())


# ---------------------------------------------------------------- datasets side by side


def test_several_datasets_share_a_folder_and_a_card(images, small, tmp_path):
    out = tmp_path / "out"
    made(images, out, name="isekai-20")
    build.run(images=small, out=out, name="invented-7", options=FAST, seed=3)
    assert set(configs(out)) == {"isekai-20", "invented-7"}
    card = (out / "README.md").read_text()
    assert 'config_name: "isekai-20"' in card
    assert 'config_name: "invented-7"' in card
    assert load(str(out / "invented-7")).name == "invented-7"
    with pytest.raises(DataError, match="invented-7"):
        load(str(out))
    assert check.run(out).is_well


@pytest.mark.parametrize("name", ["../x", "A b", ".hidden", "a/b"])
def test_a_name_can_not_lead_elsewhere(images, tmp_path, name):
    with pytest.raises(IsekaiError, match="no name for a dataset"):
        made(images, tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_a_dataset_is_called_as_the_spec_it_was_drawn_from(images, tmp_path):
    told = json.loads((images / "manifest.json").read_text())
    files.write_json(images / "manifest.json", {**told, "asked": {"spec": "Invented 7"}})
    assert made(images, tmp_path / "out")[0].name == "invented-7"


# ---------------------------------------------------------------- what must not go unnoticed


def test_a_file_of_decisions_that_is_not_there_is_told(images, tmp_path):
    with pytest.raises(DataError, match="no such file of decisions"):
        made(images, tmp_path / "out", review=tmp_path / "typo.jsonl")


def test_a_concept_of_which_nothing_is_left_is_named_even_if_nothing_is_left_at_all(
    images, tmp_path
):
    rows = [Row(image_id=row.id, verdict="drop") for row in ledger(images).values()]
    files.write_jsonl(tmp_path / "mine.jsonl", rows)
    with pytest.raises(DataError, match=r"fruit/orange has 0 usable .* 4 left out: dropped by"):
        made(images, tmp_path / "out", review=tmp_path / "mine.jsonl")


def test_a_reviewers_note_goes_nowhere_else(images, tmp_path):
    one = ledger(images)["fruit/blimel/0001.png"].id
    row = Row(image_id=one, verdict="drop", note="my own business")
    files.write_jsonl(tmp_path / "mine.jsonl", [row])
    made(images, tmp_path / "out", review=tmp_path / "mine.jsonl")
    for path in (tmp_path / "out").rglob("*.*"):
        assert b"my own business" not in path.read_bytes(), path


def test_pictures_that_are_moved_to_a_concept_count_for_it(images, tmp_path):
    rows = ledger(images)
    gone = [rows[f"fruit/orange/000{index}.png"] for index in range(3)]
    for row in gone:
        (images / row.path).unlink()
    files.write_jsonl(images / "ledger.jsonl", [row for row in rows.values() if row not in gone])
    with pytest.raises(DataError, match="fruit/orange has 1 usable"):
        made(images, tmp_path / "out")
    moved = Row(
        image_id=rows["fruit/blimel/0001.png"].id, verdict="concept", concept="fruit/orange"
    )
    files.write_jsonl(tmp_path / "mine.jsonl", [moved])
    dataset, _ = made(images, tmp_path / "out", review=tmp_path / "mine.jsonl")
    assert len(shown(dataset, "fruit/orange")) == 2


def test_a_card_that_was_not_finished_is_made_again(images, tmp_path, monkeypatch):
    out = tmp_path / "out"
    made(images, out, license="mit")
    whole = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != ".lock"}
    really = files.write_bytes

    class Killed(BaseException):
        pass

    for count in range(4):
        made(images, out, license="cc0-1.0", force=True)
        left = [count]

        def write(path, data, left=left):
            if path.parent == out:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
            really(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(files, "write_bytes", write)
            with pytest.raises(Killed):
                made(images, out, license="mit", force=True)
        assert not check.run(out).is_well
        made(images, out, license="mit")
        again = {p.name: p.read_bytes() for p in out.iterdir() if p.is_file() and p.name != ".lock"}
        assert again == whole


def test_a_precision_without_a_calibration_is_refused(images, tmp_path):
    with pytest.raises(IsekaiError, match="give --calibrate, too"):
        made(images, tmp_path / "out", precision=0.95)


def test_where_a_user_keeps_a_model_is_not_published(tmp_path, monkeypatch):
    class Kept:
        model, revision = str(tmp_path / "secret place" / "dino"), "1"

    assert Embeddings(Kept()).told == {"model": "dino", "revision": "1"}


def test_a_licence_beside_the_datasets_may_stay(images, tmp_path):
    made(images, tmp_path / "out")
    (tmp_path / "out" / "LICENSE").write_text("CC0")
    made(images, tmp_path / "out", seed=3, force=True)
    assert (tmp_path / "out" / "LICENSE").exists()


def test_check_finds_evidence_and_digests_of_other_pictures(images, tmp_path):
    dataset, _ = made(images, tmp_path / "out")
    told = json.loads((dataset.path / "novelty.json").read_text())
    files.write_json(dataset.path / "novelty.json", {**told, "dataset": "0" * 64})
    text = (tmp_path / "out" / "croissant.json").read_text()
    digest = files.sha256((dataset.path / "query-00000-of-00001.parquet").read_bytes())
    (tmp_path / "out" / "croissant.json").write_text(text.replace(digest, "1" * 64))
    report = check.run(tmp_path / "out")
    assert {problem.what.split(";")[0] for problem in report.problems} == {
        "tells of other pictures",
        "has another SHA-256 for images/query-00000-of-00001.parquet",
    }
