"""Signed copies of an images folder, which itself stays to the byte what it was."""

import io
from pathlib import Path

import c2pa
import pytest

from isekai import files, generate, metadata, sign, verify
from isekai.errors import DataError, IsekaiError
from isekai.images import decode, encode
from isekai.types import DigitalSource, ImageRecord

from . import certificates
from .test_generate import PLUGIN, SPEC


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    """Drawn images whose files say that an algorithm made them, and two certificates."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PLUGIN)
    Path("spec").mkdir()
    Path("spec/ab.toml").write_text(SPEC.format("ab"))
    generate.run(
        spec=Path("spec"), source="tiny", per_concept=2, size=32, workers=1, out=Path("images")
    )
    told("algorithmicMedia")
    for name in ("mine", "other"):
        certificates.write(Path(name))


def told(kind: DigitalSource) -> None:
    """Write into each file what made it."""
    rows = []
    for row in files.read_jsonl(Path("images/ledger.jsonl"), ImageRecord):
        path = Path("images") / row.path
        packet = metadata.packet(metadata.of(row), kind=kind)
        data = encode(decode(path.read_bytes()), "png", packet)
        path.write_bytes(data)
        rows.append({**files.plain(row), "id": files.sha256(data)})
    files.write_jsonl(Path("images/ledger.jsonl"), rows)


def run(who: str = "mine", **how: object) -> Path:
    chain, key = Path(who, "chain.pem"), Path(who, "key.pem")
    return sign.run(Path("images"), certificate=chain, key=key, **how)


def content(folder: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def rows() -> list[sign.Signed]:
    return files.read_jsonl(Path("signed/signed.jsonl"), sign.Signed)


def test_copies_are_signed_and_the_images_stay_what_they_were():
    before = content("images")
    assert run() == Path("signed")
    assert content("images") == before
    assert verify.run(Path("images")).is_well
    ledger = files.read_jsonl(Path("images/ledger.jsonl"), ImageRecord)
    assert [(row.path, row.image_id) for row in rows()] == [(row.path, row.id) for row in ledger]
    for row, image in zip(rows(), ledger, strict=True):
        data = Path("signed", row.path).read_bytes()
        assert row.id == files.sha256(data) != image.id
        with c2pa.Reader("image/png", io.BytesIO(data)) as reader:
            assert reader.get_validation_state() == "Valid"
            told = {a["label"]: a["data"] for a in reader.get_active_manifest()["assertions"]}
        assert told["isekai.image"] == metadata.of(image)
        assert told["c2pa.actions.v2"]["actions"][0]["when"] == image.drawn_at
    manifest = files.read_json(Path("signed/manifest.json"), dict[str, object])
    assert (manifest["kind"], manifest["images"]) == ("signed images", 4)
    assert manifest["certificate"] == rows()[0].certificate


def test_it_goes_on_where_it_stopped_and_signs_nothing_twice():
    run()
    first = content("signed")
    run()
    assert content("signed") == first
    lost, changed = (row.path for row in rows()[1:3])
    Path("signed", lost).unlink()
    Path("signed", changed).write_bytes(b"")
    ledger = Path("signed/signed.jsonl")
    ledger.write_bytes(ledger.read_bytes()[:-20])  # a kill in the middle of the last row
    Path("signed/manifest.json").unlink()
    run()
    second = content("signed")
    again = {path for path in first if first[path] != second[path]}
    assert again == {lost, changed, rows()[3].path, "signed.jsonl"}
    assert {row.id for row in rows()} == {
        files.sha256(second[path]) for path in second if path.endswith(".png")
    }


def test_another_certificate_or_image_needs_force():
    run()
    with pytest.raises(DataError, match=r"by another certificate; give --force"):
        run("other")
    run("other", force=True)
    assert len({row.certificate for row in rows()}) == 1
    generate.run(
        spec=Path("spec"), source="tiny", per_concept=1, size=32, workers=1, out=Path("images"),
        force=True,
    )  # fmt: skip
    told("trainedAlgorithmicMedia")
    with pytest.raises(DataError, match="another image"):
        run("other")
    run("other", force=True)
    there = {path for path in content("signed") if path.endswith(".png")}
    assert there == {row.path for row in rows()} == {"ab/ab-one/0000.png", "ab/ab-two/0000.png"}


def test_pictures_whose_files_do_not_say_what_made_them_are_not_signed():
    told("")
    with pytest.raises(DataError, match="does not say whether a model or an algorithm made it"):
        run()
    assert not list(Path("signed").rglob("*.png"))


def test_changed_images_and_places_among_other_files_are_refused():
    for out in (Path("images"), Path("images/signed"), Path("signed/../images/x")):
        with pytest.raises(IsekaiError, match="lies in the images folder"):
            run(out=out)
    Path("mine/notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        run(out=Path("mine"))
    first = sorted(Path("images").rglob("*.png"))[0]
    first.write_bytes(b"changed")
    with pytest.raises(DataError, match=r"0000.png: file is not the one in the ledger; `isekai v"):
        run()
    assert not Path("signed").exists()


def test_a_ledger_that_points_elsewhere_removes_nothing():
    run()
    precious = Path("precious.png")
    precious.write_bytes(b"keep")
    wicked = {**files.plain(rows()[0]), "path": "../precious.png"}
    files.write_jsonl(Path("signed/signed.jsonl"), [wicked])
    with pytest.raises(DataError, match=r"'../precious.png' is not the path of an image"):
        run(force=True)
    assert precious.read_bytes() == b"keep"
