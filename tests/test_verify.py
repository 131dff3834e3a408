"""An images folder held to its ledger, and some of it drawn again."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from rich.console import Console

from isekai import containers, files, generate, intake, metadata, redrawing, verify
from isekai.errors import DataError, IsekaiError
from isekai.images import decode, encode
from isekai.types import ImageRecord

from .test_generate import PLUGIN, SPEC

COLOURS = PLUGIN.parent / "colours"

WOBBLY = '''
"""A source that never draws the same twice, and one that grows."""

import numpy as np
from PIL import Image


class Wobbly:
    model = "wobbly"
    revision = "1"
    processes = False

    def __init__(self, grow: int = 0, trust_remote_code: bool = False):
        self.settings = {}
        self._grow = grow

    def draw(self, requests):
        for request in requests:
            shape = (request.size + self._grow, request.size, 3)
            grey = np.random.default_rng(request.seed).integers(20, 220, shape)
            grey += np.random.default_rng().integers(-1, 2, shape)
            yield Image.fromarray(grey.astype(np.uint8))
'''


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    """A folder with a spec, and strangers' sources and embedder that are installed."""
    monkeypatch.chdir(tmp_path)
    info = Path("plugin/wobbly-1.0.dist-info")
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wobbly\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[isekai.sources]\nwobbly = wobbly:Wobbly\n")
    Path("plugin/wobbly.py").write_text(WOBBLY)
    for folder in (PLUGIN, COLOURS, tmp_path / "plugin"):
        monkeypatch.syspath_prepend(folder)
    Path("spec").mkdir()
    for name in ("ab", "cd"):
        Path(f"spec/{name}.toml").write_text(SPEC.format(name))


def draw(**how: object) -> Path:
    given = {"spec": Path("spec"), "source": "tiny", "per_concept": 3, "size": 32, "workers": 1}
    return generate.run(**{**given, **how}, out=Path("images"))


def problems(report: verify.Report) -> list[tuple[str, str]]:
    return [(problem.path, problem.what) for problem in report.problems]


def ledger() -> list[ImageRecord]:
    return files.read_jsonl(Path("images/ledger.jsonl"), ImageRecord)


def put(row: ImageRecord, **changes: object) -> None:
    """Write another row in the place of `row`."""
    rows = [{**files.plain(each), **(changes if each == row else {})} for each in ledger()]
    files.write_jsonl(Path("images/ledger.jsonl"), rows)


def retell(**changes: object) -> None:
    told = json.loads(Path("images/manifest.json").read_text())
    files.write_json(Path("images/manifest.json"), {**told, **changes})


def shown(report: verify.Report) -> str:
    console = Console(width=150, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
    with console.file:
        console.print(verify.table(report))
    return console.export_text()


# ---------------------------------------------------------------- files


def test_a_folder_as_it_was_drawn_is_well():
    report = verify.run(draw())
    assert report.is_well
    assert (report.images, report.problems, report.redrawn) == (12, (), ())
    assert report.summary() == "images: 12 images; all files as the ledger says"
    assert shown(report).strip() == ""


def test_changed_swapped_missing_and_surplus_files_are_all_named():
    draw()
    one, two, three, four = (Path("images") / row.path for row in ledger()[:4])
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b)
    two.write_bytes(a)
    three.unlink()
    four.write_bytes(four.read_bytes()[:-1] + b"!")
    Path("images/ab/notes.txt").write_text("mine")
    Path("images/ab/[red]\x1b[31m.png").symlink_to("/etc/passwd")
    Path("images/.hidden").write_text("not ours to judge")
    report = verify.run(Path("images"))
    assert not report.is_well
    changed, surplus = "file is not the one in the ledger", "no row of the ledger speaks of it"
    assert problems(report) == [
        ("ab/ab-one/0000.png", changed),
        ("ab/ab-one/0001.png", changed),
        ("ab/ab-one/0002.png", "file is missing"),
        ("ab/ab-two/0000.png", changed),
        ("ab/[red]\x1b[31m.png", surplus),
        ("ab/notes.txt", surplus),
    ]
    assert report.images == 12
    assert report.summary() == (
        "images: 12 images; file is not the one in the ledger: 3, file is missing: 1, "
        "no row of the ledger speaks of it: 2"
    )
    assert "\x1b" not in shown(report)
    assert "[red]\\x1b[31m.png" in shown(report)


def test_a_drawing_that_was_put_aside_is_missed_and_is_no_surplus():
    draw(gates=["even"], options={"tone": 255}, tries=2)
    aside = sorted(Path("images/rejected").rglob("*.png"))
    assert aside, "the gate has to turn something down for this to be a test"
    assert verify.run(Path("images")).is_well
    aside[0].unlink()
    report = verify.run(Path("images"))
    assert problems(report) == [(str(aside[0].relative_to("images")), "file is missing")]


def swap(row: ImageRecord, data: bytes) -> None:
    """Put another file in the place of a picture, and its hash into the ledger."""
    (Path("images") / row.path).write_bytes(data)
    put(row, id=files.sha256(data))


def told(row: ImageRecord, **lacking: object) -> bytes:
    """The packet of a row's facts, without some."""
    facts = {key: value for key, value in metadata.of(row).items() if key not in lacking}
    return metadata.packet(facts, kind="algorithmicMedia")


def test_a_picture_put_in_the_place_of_another_is_named_even_where_the_ledger_has_its_hash():
    draw()
    grey = Image.new("RGB", (32, 32), "grey")
    one, two, three, four, five = ledger()[:5]
    swap(one, encode(grey))
    swap(two, encode(grey, "png", told(two, seed=None, model=None)))
    swap(three, encode(Image.new("RGB", (48, 32)), "png", told(three)))
    swap(four, encode(grey, "webp", told(four)))
    whole = encode(grey, "png", told(five))
    swap(five, whole[:16] + b"\0" * 8 + whole[24:])  # a header of no pixels
    *found, (path, damage) = problems(verify.run(Path("images")))
    assert found == [
        (one.path, "its file does not tell how it came to be"),
        (two.path, "its file does not tell its seed, model"),
        (three.path, "the file has another width"),
        (four.path, "the file has another format"),
    ]
    assert path == five.path
    assert damage.startswith("its header can't be read: ")


@pytest.mark.parametrize("name", ["ab/ab-one/0007.png", "0000.png", "ab/ab-two/0000.png.png"])
def test_a_picture_elsewhere_than_its_concept_and_index_say_is_named(name):
    draw()
    row = ledger()[0]
    (Path("images") / row.path).rename(Path("images") / name)
    put(row, path=name)
    assert problems(verify.run(Path("images"))) == [(name, "the ledger tells another path")]


@pytest.mark.parametrize(
    "path",
    [
        "../outside.png",
        "/etc/passwd",
        "ab/ab-one/0000.png",
        "rejected/ab/../../../outside.png",
        "rejected/a/b/0000-0.png\n",
        "rejected/a/b/0000-0.png/",
        "rejected/a/\0/0000-0.png",
    ],
)
def test_no_file_is_looked_for_where_no_rejected_drawing_can_be(path, monkeypatch):
    draw(gates=["even"], tries=2)
    Path("outside.png").write_bytes(b"")
    rows = [json.loads(line) for line in Path("images/rejected.jsonl").read_text().splitlines()]
    kept = rows[0]["path"]
    files.write_jsonl(Path("images/rejected.jsonl"), [{**rows[0], "path": path}, *rows[1:]])
    looked: list[str] = []
    look = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda self: looked.append(str(self)) or look(self))
    report = verify.run(Path("images"))
    assert problems(report) == [
        (path, "not where a rejected drawing is kept"),
        (kept, "no row of the ledger speaks of it"),
    ]
    assert report.summary().count("\n") == 0
    assert looked.count(str(Path("images") / path)) == (path == ledger()[0].path)


def test_a_row_of_rejected_drawings_hides_no_surplus_file():
    draw(gates=["even"], tries=2)
    Path("images/notes.txt").write_text("mine")
    rows = [json.loads(line) for line in Path("images/rejected.jsonl").read_text().splitlines()]
    files.write_jsonl(Path("images/rejected.jsonl"), [*rows, {**rows[0], "path": "notes.txt"}])
    assert problems(verify.run(Path("images"))) == [
        ("notes.txt", "not where a rejected drawing is kept"),
        ("notes.txt", "no row of the ledger speaks of it"),
    ]


def test_a_file_that_tells_another_story_than_the_ledger_is_named():
    draw()
    row = ledger()[2]
    facts = {**metadata.of(row), "prompt": "a cat", "seed": 1}
    path = Path("images") / row.path
    image = decode(path.read_bytes())
    good = encode(image, "png", metadata.packet(metadata.of(row), kind="algorithmicMedia"))
    path.write_bytes(good)
    put(row, id=files.sha256(good))
    assert verify.run(Path("images")).is_well
    lie = encode(image, "png", metadata.packet(facts, kind="algorithmicMedia"))
    path.write_bytes(lie)
    put(ledger()[2], id=files.sha256(lie))
    assert problems(verify.run(Path("images"))) == [
        (row.path, "the file tells another prompt, seed")
    ]
    bad = encode(image)
    bad = bad[:33] + containers.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<a") + bad[33:]
    path.write_bytes(bad)
    put(ledger()[2], id=files.sha256(bad))
    ((where, what),) = problems(verify.run(Path("images")))
    assert where == row.path
    assert what.startswith("its metadata can't be read")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 5}, "seed"),
        ({"prompt": "a cat"}, "prompt"),
        ({"negative_prompt": "a dog"}, "negative_prompt"),
        ({"attempt": 1}, "seed"),
        ({"model": "other", "settings": {}}, "model, settings"),
    ],
)
def test_a_row_that_contradicts_its_place_or_the_manifest_is_named(change, what):
    draw()
    row = ledger()[4]
    put(row, **change)
    found = problems(verify.run(Path("images")))
    assert (row.path, f"the ledger tells another {what}") in found
    assert {path for path, _ in found} == {row.path}


def test_counts_of_the_manifest_are_held_to_the_ledger():
    draw(options={"refuse": 1})
    assert verify.run(Path("images")).is_well
    retell(images=9, rejected=0)
    assert problems(verify.run(Path("images"))) == [
        ("manifest.json", "tells of 9 images, not 8"),
        ("manifest.json", "tells of 0 rejected, not 4"),
    ]


def test_a_folder_that_is_none_or_unfinished_is_refused():
    with pytest.raises(DataError, match="no such folder"):
        verify.run(Path("images"))
    draw()
    Path("images/manifest.json").unlink()
    with pytest.raises(DataError, match="not finished"):
        verify.run(Path("images"))


# ---------------------------------------------------------------- drawn again


@pytest.mark.parametrize("format", ["png", "webp"])
def test_the_procedural_source_draws_the_same_bytes_again(format):
    draw(source="procedural", spec=None, groups="cactihog", per_concept=2, size=48, format=format)
    report = verify.run(Path("images"), regenerate=3, seed=1, embedder="colours")
    assert report.is_well
    assert [row.outcome for row in report.redrawn] == ["same bytes"] * 3
    assert all(row.psnr is None and row.largest == 0 for row in report.redrawn)
    assert all(row.cosine == pytest.approx(1) for row in report.redrawn)
    assert report.summary().endswith("3 drawn again; same bytes: 3")
    assert "same bytes" in shown(report)


def test_pictures_are_chosen_by_the_seed_and_told_in_the_order_of_the_ledger():
    draw()
    paths = [row.path for row in ledger()]

    def chosen(count: int, seed: int, workers: int = 1) -> list[str]:
        report = verify.run(Path("images"), regenerate=count, seed=seed, workers=workers)
        assert {row.outcome for row in report.redrawn} == {"same bytes"}
        return [row.path for row in report.redrawn]

    assert chosen(4, 0) == chosen(4, 0) == sorted(chosen(4, 0), key=paths.index)
    assert len({tuple(chosen(4, seed)) for seed in range(5)}) > 1
    assert chosen(99, 0) == chosen(99, 0, workers=2) == paths


def test_a_file_with_facts_inside_is_drawn_again_to_the_byte():
    draw()
    row = ledger()[0]
    image = decode((Path("images") / row.path).read_bytes())
    data = encode(image, "png", metadata.packet(metadata.of(row), kind=""))
    (Path("images") / row.path).write_bytes(data)
    put(row, id=files.sha256(data))
    report = verify.run(Path("images"), regenerate=12)
    assert {one.outcome for one in report.redrawn} == {"same bytes"}


def test_the_same_pixels_in_other_bytes_are_told_apart():
    draw()
    row = ledger()[0]
    path = Path("images") / row.path
    image, told = decode(path.read_bytes()), PngInfo()
    told.add_itxt("XML:com.adobe.xmp", containers.xmp(path.read_bytes()).decode())
    image.save(path, "PNG", compress_level=9, pnginfo=told)
    put(row, id=files.sha256(path.read_bytes()))
    report = verify.run(Path("images"), regenerate=12)
    assert report.is_well
    outcomes = {one.path: one.outcome for one in report.redrawn}
    assert outcomes.pop(row.path) == "same pixels"
    assert set(outcomes.values()) == {"same bytes"}


def test_a_source_that_wobbles_is_measured_and_fails_only_below_the_bound():
    draw(source="wobbly")
    report = verify.run(Path("images"), regenerate=5, embedder="colours")
    assert report.is_well
    assert [row.outcome for row in report.redrawn] == ["other pixels"] * 5
    for row in report.redrawn:
        assert 46 < row.psnr < 50  # a difference of two errors from -1, 0, 1: mean square 4/3
        assert row.largest == 2
        assert 0.9 < row.cosine < 1
    assert verify.run(Path("images"), regenerate=5, psnr=45).is_well
    short = verify.run(Path("images"), regenerate=5, psnr=60)
    assert not short.is_well
    assert short.summary().endswith("5 drawn again; other pixels: 5; below 60 dB or not drawn: 5")
    assert "other pixels" in shown(short)


def test_a_picture_that_is_not_drawn_again_or_at_another_size_fails():
    draw(source="wobbly")
    report = verify.run(Path("images"), regenerate=1, options={"grow": 8})
    assert not report.is_well
    assert report.redrawn[0].outcome == "not drawn"
    assert report.redrawn[0].reason == "32x40 pixels, then 32x32"
    files.write_json(Path("unused.json"), verify.summary(report))
    assert json.loads(Path("unused.json").read_text())["well"] is False


def test_a_source_that_now_refuses_says_why():
    draw()
    report = verify.run(Path("images"), regenerate=12, options={"refuse": 2})
    reasons = {row.path: row.reason for row in report.redrawn if row.outcome == "not drawn"}
    assert set(reasons.values()) == {"refused on request"}
    assert len(reasons) == 4
    assert "not drawn: refused on request" in shown(report)


def test_only_intact_files_are_drawn_again():
    draw()
    for row in ledger()[:10]:
        (Path("images") / row.path).write_bytes(b"")
    report = verify.run(Path("images"), regenerate=5)
    assert [row.path for row in report.redrawn] == [row.path for row in ledger()[10:]]
    assert len(report.problems) == 10


def test_a_redrawing_takes_the_seed_of_the_attempt_that_passed():
    draw(gates=["even"], tries=4)
    assert any(row.attempt for row in ledger()), "no drawing was turned down"
    report = verify.run(Path("images"), regenerate=99)
    assert {row.outcome for row in report.redrawn} == {"same bytes"}


# ---------------------------------------------------------------- the source


def test_a_source_that_is_another_one_now_is_refused_with_what_differs(monkeypatch):
    draw(options={"tone": 100})
    assert verify.run(Path("images"), regenerate=1).is_well
    with pytest.raises(DataError, match=r"drawn with tone 100, now 7; give --source"):
        verify.run(Path("images"), regenerate=1, options={"tone": 7})
    with pytest.raises(DataError, match=r"model tiny, now procedural; tone 100, now None"):
        verify.run(Path("images"), regenerate=1, source="procedural")
    assert verify.run(Path("images"), regenerate=1, source="tiny", options={"tone": 100}).is_well
    from tiny_source import TinySource

    monkeypatch.setattr(TinySource, "revision", "2")
    with pytest.raises(DataError, match="revision 1, now 2"):
        verify.run(Path("images"), regenerate=1)


def test_a_folder_of_pictures_is_read_again_while_it_is_the_same():
    own = Path("mine/ab/one")
    own.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(3):
        noise = Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8))
        noise.save(own / f"{index}.png")
    draw(source="folder:mine", spec=None, per_concept=None)
    assert [row.outcome for row in verify.run(Path("images"), regenerate=3).redrawn] == [
        "same bytes"
    ] * 3
    (own / "3.png").write_bytes((own / "0.png").read_bytes())
    with pytest.raises(DataError, match="drawn with revision"):
        verify.run(Path("images"), regenerate=3)


def test_a_strangers_manifest_can_not_have_its_code_trusted():
    draw(source="wobbly", options={"trust_remote_code": True})
    with pytest.raises(DataError, match=r"builds the source with trust_remote_code; if you trust"):
        verify.run(Path("images"), regenerate=1)
    assert verify.run(Path("images"), regenerate=1, options={"trust_remote_code": True}).is_well
    assert verify.run(Path("images"), regenerate=1, options={"trust_remote_code": False}).is_well
    assert verify.run(Path("images")).is_well


def test_a_manifest_that_does_not_say_how_the_source_was_built_is_mended_by_the_user():
    draw()
    retell(asked=None)
    with pytest.raises(DataError, match="does not say how its source was built; give --source"):
        verify.run(Path("images"), regenerate=1)
    assert verify.run(Path("images"), regenerate=1, source="tiny").is_well
    with pytest.raises(IsekaiError, match="-1 pictures"):
        verify.run(Path("images"), regenerate=-1)


# ---------------------------------------------------------------- numbers


def test_psnr_is_that_of_the_textbook():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert redrawing.psnr(black, white) == pytest.approx(0)
    assert redrawing.psnr(black, black + 1) == pytest.approx(48.1308, abs=1e-4)
    assert redrawing.psnr(black + 1, black) == redrawing.psnr(black, black + 1)
    assert redrawing.psnr(white, white) is None


def test_a_file_that_changes_while_it_is_compared_is_no_measurement():
    draw()
    found = intake.read(Path("images"))
    row = found.rows[0]
    [(source, _)] = redrawing.sources_of(found, [row], {"source": "tiny"})
    (Path("images") / row.record.path).write_bytes(encode(Image.new("RGB", (32, 32))))
    with pytest.raises(DataError, match="changed while"):
        list(redrawing.redraw(found, [row], source))
