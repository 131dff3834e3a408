"""Drawing: the same bytes whatever happens on the way, and one clear line when it can't go on."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from pickle import PicklingError

import numpy as np
import pytest
from PIL import Image

from isekai import choosing, files, generate, spec
from isekai.errors import BusyError, DataError, IsekaiError
from isekai.images import decode, encode
from isekai.ledger import Refusal
from isekai.sources.folder import FolderSource
from isekai.types import Group, ImageRecord

PLUGIN = Path(__file__).parent / "data" / "plugin"

ISEKAI = (sys.executable, "-c", "from isekai.cli import main; main()")

SPEC = """
title = "{0}"
parent = "thing"
prompts.style = ["a photo", "a drawing"]
prompts.template = "{{style}} of {{subject}}"
concepts = [
  {{name = "{0}-one", role = "novel", novelty = "form", definition = "x", prompts.subject = "1"}},
  {{name = "{0}-two", role = "foil", definition = "x", prompts.subject = "2", sketch = ["b"]}},
]
parts.b = {{shape = "ball", size = [1]}}
"""


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    """A folder with a spec of two groups, and a stranger's source that is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    Path("spec").mkdir()
    for name in ("ab", "cd"):
        Path(f"spec/{name}.toml").write_text(SPEC.format(name))


def draw(out: str = "images", **how) -> Path:
    given = {"spec": Path("spec"), "source": "tiny", "per_concept": 6, "size": 32, "workers": 1}
    return generate.run(**{**given, **how}, out=Path(out))


def command(*words: str, before: str = "") -> subprocess.Popen[str]:
    """`isekai generate` in a session of its own; `before` is code to run first."""
    return subprocess.Popen(
        [
            *ISEKAI[:2],
            before + ISEKAI[2],
            "generate",
            "--spec=spec",
            "--source=tiny",
            "--size=32",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def content(out: str | Path) -> dict[str, object]:
    """Every file's bytes; of the ledger all but the times, of the manifest all but the options."""
    found: dict[str, object] = {}
    for path in sorted(Path(out).rglob("*")):
        if path.is_file() and path.name != ".lock":
            found[str(path.relative_to(out))] = path.read_bytes()
    rows = [json.loads(line) for line in bytes(found["ledger.jsonl"]).splitlines()]
    found["ledger.jsonl"] = [{**row, "drawn_at": None, "made": None} for row in rows]
    if "manifest.json" in found:
        told = json.loads(bytes(found["manifest.json"]))
        found["manifest.json"] = {**told, "asked": {**told["asked"], "options": None}}
    return found


def ledger(out: str = "images") -> list[ImageRecord]:
    return files.read_jsonl(Path(out) / "ledger.jsonl", ImageRecord)


def is_gone(group: int) -> bool:
    """True once no process of the group is left; waits a little for them to go."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


# ---------------------------------------------------------------- the same bytes


def test_an_images_folder_tells_all_that_it_holds():
    assert draw() == Path("images")
    rows = ledger()
    assert [(row.concept, row.index) for row in rows] == [
        (f"{group}/{group}-{concept}", index)
        for group in ("ab", "cd")
        for concept in ("one", "two")
        for index in range(6)
    ]
    for row in rows:
        data = (Path("images") / row.path).read_bytes()
        assert row.id == files.sha256(data)
        assert decode(data).size == (row.width, row.height) == (32, 32)
        noise = np.random.default_rng(row.seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        assert np.array_equal(np.asarray(decode(data)), noise)
    assert rows[0].path == "ab/ab-one/0000.png"
    assert {row.prompt for row in rows[:6]} == {"a photo of 1", "a drawing of 1"}
    assert (rows[0].source, rows[0].model, rows[0].revision) == ("tiny", "tiny", "1")
    assert rows[0].settings == {"tone": 255, "size": 32, "format": "png"}
    manifest = files.read_json(Path("images/manifest.json"), dict)
    assert (manifest["kind"], manifest["complete"], manifest["images"]) == ("images", True, 24)
    groups = files.read_json(Path("images/groups.json"), tuple[Group, ...])
    assert [group.id for group in groups] == ["ab", "cd"]
    assert not Path("images/rejected.jsonl").exists()


def test_workers_and_the_order_of_groups_do_not_change_the_images():
    draw("one", workers=1)
    draw("three", workers=3)
    assert content("one") == content("three")
    draw("other", groups="cd,ab", options={"processes": False})
    images = {name: data for name, data in content("one").items() if name.endswith(".png")}
    assert images.items() <= content("other").items()


def test_webp_holds_the_same_pixels():
    draw("png", per_concept=1)
    draw("webp", per_concept=1, format="webp")
    for one, other in zip(ledger("png"), ledger("webp"), strict=True):
        assert other.path.endswith(".webp")
        pixels = [
            decode(Path(folder, row.path).read_bytes()).tobytes()
            for folder, row in (("png", one), ("webp", other))
        ]
        assert pixels[0] == pixels[1]


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes():
    draw("whole")
    rng = np.random.default_rng(3)
    words = ("--per-concept=6", "--out=killed", "--workers=2", "-o", "wait=0.03")
    seen = []
    for _ in range(3):
        process = command(*words)
        while not Path("killed/ledger.jsonl").exists():
            time.sleep(0.01)
        before = len(ledger("killed"))
        while len(ledger("killed")) == before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        assert is_gone(process.pid)
        assert not Path("killed/manifest.json").exists()
        seen.append(len(ledger("killed")))
    assert 0 < seen[0] <= seen[1] <= seen[2] < 24
    times = {row.id: row.drawn_at for row in ledger("killed")}
    draw("killed")
    assert content("killed") == content("whole")
    assert times.items() <= {row.id: row.drawn_at for row in ledger("killed")}.items()


def test_a_finished_folder_is_left_as_it_is(capsys):
    draw()
    before = {path: path.stat().st_mtime_ns for path in Path("images").rglob("*.*")}
    draw()
    draw(workers=2)
    assert "complete, nothing to do" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in Path("images").rglob("*.*")}


def test_more_images_or_groups_are_added_to_what_is_there():
    draw(groups="ab", per_concept=2)
    first = {row.id: row.drawn_at for row in ledger()}
    draw(per_concept=6)
    assert first.items() <= {row.id: row.drawn_at for row in ledger()}.items()
    draw("whole")
    assert content("images") == content("whole")


def test_lost_and_damaged_images_are_drawn_again():
    draw("whole")
    draw()
    Path("images/ab/ab-one/0001.png").unlink()
    Path("images/ab/ab-one/0002.png").write_bytes(b"damaged")
    Path("images/manifest.json").unlink()
    with Path("images/ledger.jsonl").open("ab") as file:
        file.write(b'{"id": "torn')
    draw()
    assert content("images") == content("whole")


# ---------------------------------------------------------------- another request


def without(part: str, text: str) -> None:
    path = Path("spec/ab.toml")
    assert part in path.read_text()
    path.write_text(path.read_text().replace(part, text))


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"size": 64}, "size 32, now 64"),
        ({"seed": 1}, "another seed"),
        ({"options": {"tone": 9}}, "tone 255, now 9"),
        ({"format": "webp"}, "format png, now webp"),
        ({"per_concept": 4}, "holds 8 images that this command does not ask for, such as ab/ab-o"),
        ({"groups": "cd"}, "holds 12 images"),
    ],
)
def test_another_request_is_refused_until_it_is_forced(how, told):
    draw()
    before = content("images")
    with pytest.raises(DataError, match=told):
        draw(**how)
    assert content("images") == before
    draw(**how, force=True)
    draw("fresh", **how)
    assert content("images") == content("fresh")


@pytest.mark.parametrize(
    ("part", "text", "told"),
    [
        ("size = [1]", "size = [2]", "the spec of ab/ab-two has changed"),
        ('"a drawing"', '"a sculpture"', "another prompt"),
    ],
)
def test_a_changed_spec_is_refused_until_it_is_forced(part, text, told):
    draw()
    without(part, text)
    with pytest.raises(DataError, match=told):
        draw()
    draw(force=True)
    draw("fresh")
    assert content("images") == content("fresh")


def test_only_what_has_changed_is_drawn_again():
    draw()
    times = {(row.concept, row.index): row.drawn_at for row in ledger()}
    without("size = [1]", "size = [2]")
    draw(force=True)
    again = {
        (row.concept, row.index)
        for row in ledger()
        if times[row.concept, row.index] != row.drawn_at
    }
    assert {concept for concept, _ in again} == {"ab/ab-two"}


def test_a_better_definition_does_not_cost_a_redraw():
    draw()
    times = [row.drawn_at for row in ledger()]
    without('definition = "x"', 'definition = "y"')
    draw()
    assert times == [row.drawn_at for row in ledger()]
    groups = files.read_json(Path("images/groups.json"), tuple[Group, ...])
    assert groups[0].concepts[0].definition == "y"


# ---------------------------------------------------------------- what could not be drawn


def test_refused_images_are_told_and_not_tried_again(capsys):
    draw(options={"refuse": 3}, workers=2)
    rows = files.read_jsonl(Path("images/rejected.jsonl"), Refusal)
    assert [(row.concept, row.index) for row in rows] == [
        (f"{group}/{group}-{concept}", 3) for group in ("ab", "cd") for concept in ("one", "two")
    ]
    assert rows[0].reason == "refused on request"
    assert rows[0].given["settings"]["size"] == 32
    assert len(ledger()) == 20
    assert "4 could not be drawn; see images/rejected.jsonl" in capsys.readouterr().err
    before = content("images")
    draw(options={"refuse": 3})
    assert "complete, nothing to do" in capsys.readouterr().err
    assert content("images") == before


def test_a_forced_redraw_leaves_no_picture_of_what_it_refuses():
    draw()
    without("size = [1]", "size = [2]")
    draw(options={"refuse": 4}, force=True)
    assert [row.index for row in ledger() if row.concept == "ab/ab-two"] == [0, 1, 2, 3, 5]
    assert not Path("images/ab/ab-two/0004.png").exists()


def test_a_spec_that_cannot_be_drawn_at_all_is_an_error_until_it_is_mended(capsys):
    without('sketch = ["b"]', "sketch = []")
    how = {"source": "procedural", "groups": "ab", "per_concept": 2}
    for _ in range(2):
        with pytest.raises(DataError, match="no image could be drawn; the first: ab/ab-one has"):
            draw(**how)
    assert len(files.read_jsonl(Path("images/rejected.jsonl"), Refusal)) == 4
    without("sketch = []", 'sketch = ["b"]')
    draw(**how)
    assert [row.path for row in ledger()] == ["ab/ab-two/0000.png", "ab/ab-two/0001.png"]
    assert content("images").keys() - {"rejected.jsonl"} == {
        "ab/ab-two/0000.png",
        "ab/ab-two/0001.png",
        "groups.json",
        "ledger.jsonl",
        "manifest.json",
    }


def test_pictures_of_ones_own_are_taken_in(capsys):
    rng = np.random.default_rng(0)
    for group, concept, count in (("hogs", "cactihog", 40), ("hogs", "hedgehog.foil", 2)):
        for index in range(count):
            noise = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            path = Path("mine", group, concept, f"{index}.png")
            files.write_bytes(path, encode(Image.fromarray(noise)))
    Path("mine/hogs/cactihog/7.png").write_bytes(b"")
    draw(source="folder:mine", spec=None, per_concept=None, workers=2)
    assert len(ledger()) == 41
    (refusal,) = files.read_jsonl(Path("images/rejected.jsonl"), Refusal)
    assert refusal.reason == "7.png: empty file (0 bytes)"
    (group,) = files.read_json(Path("images/groups.json"), tuple[Group, ...])
    assert [concept.role for concept in group.concepts] == ["novel", "foil"]
    names = sorted(path.name for path in Path("mine/hogs/cactihog").iterdir())
    first = decode(Path("images/hogs/cactihog/0001.png").read_bytes())
    assert first.tobytes() == decode(Path("mine/hogs/cactihog", names[1]).read_bytes()).tobytes()
    Path("mine/hogs/cactihog/new.png").write_bytes(encode(first))
    with pytest.raises(DataError, match="revision"):
        draw(source=FolderSource(Path("mine")), spec=None, per_concept=None)


def test_a_bug_of_a_source_is_not_hidden_and_lets_the_folder_go():
    for workers in (1, 2):
        with pytest.raises(RuntimeError, match="a bug of the source"):
            draw(options={"fail": True}, workers=workers)
    draw()


# ---------------------------------------------------------------- what stops a run


def test_ctrl_c_leaves_a_folder_to_go_on_with_and_no_process():
    process = command("--per-concept=40", "--workers=2", "-o", "wait=0.05")
    while not Path("images/ledger.jsonl").exists() or not ledger():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[1:] == ["isekai: interrupted; run the same command again to go on"]
    assert out == ""
    assert is_gone(process.pid)
    assert 0 < len(ledger()) < 160
    assert not Path("images/manifest.json").exists()


def test_ctrl_c_while_workers_start_is_as_quiet():
    process = command("--per-concept=40", "--workers=2", "-o", "wait=0.05")
    while not Path("images/groups.json").exists():
        time.sleep(0.005)
    time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.splitlines()[1:] == ["isekai: interrupted; run the same command again to go on"]
    assert is_gone(process.pid)


def test_a_worker_that_dies_is_told_and_another_takes_up_its_images(capsys):
    Path("fatal").write_bytes(b"x")
    draw(workers=2, options={"die": "fatal"})
    assert Path("fatal").read_bytes() == b""
    assert "a worker process died; another one takes up its images" in capsys.readouterr().err
    draw("whole")
    assert content("images") == content("whole")


def test_workers_that_keep_dying_end_the_run_in_one_line_and_it_goes_on_later():
    Path("fatal").write_bytes(b"x" * 20)
    with pytest.raises(IsekaiError, match="3 worker processes died, one after the other"):
        draw(workers=2, options={"die": "fatal"})
    Path("fatal").write_bytes(b"")
    draw(workers=2, options={"die": "fatal"})
    draw("whole")
    assert content("images") == content("whole")


@pytest.mark.parametrize("weight", [0, 300_000])
def test_workers_that_die_before_their_first_image_are_told_apart(weight):
    """A script without a guard: each worker runs it again and dies of that."""
    script = f"""
from pathlib import Path
from pickle import PicklingError
from isekai import choosing, generate
generate.run(source="tiny", options={{"weight": {weight}}}, spec=Path("spec"), size=32, workers=2)
"""
    Path("script.py").write_text(script)
    ended = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True)
    assert "3 worker processes died before their first image" in ended.stderr
    assert ended.returncode == 1
    draw(options={"weight": weight}, workers=2)


def test_a_source_that_cannot_be_handed_to_a_worker_says_why():
    class Local(type(choosing.choose("tiny").source)):
        pass

    with pytest.raises((AttributeError, PicklingError), match="Local"):
        draw(source=Local(), workers=2)


# ---------------------------------------------------------------- gates


def refused(out: str = "images") -> list[Refusal]:
    return files.read_jsonl(Path(out) / "rejected.jsonl", Refusal)


def test_what_a_gate_turns_down_is_put_aside_and_drawn_again(capsys):
    draw(gates=["even"], tries=9)
    assert len(ledger()) == 24
    for row in ledger():
        red = decode((Path("images") / row.path).read_bytes()).getpixel((0, 0))[0]
        assert red % 2 == 0
        assert row.scores == {"even.red": red}
        assert row.seed == spec.seed(row.concept, row.index, 0, row.attempt)
    assert {row.attempt for row in ledger()} > {0, 1}
    for row in refused():
        red = decode((Path("images") / row.path).read_bytes()).getpixel((0, 0))[0]
        assert row.reason == f"even: {red} is odd"
        assert row.path.startswith(f"rejected/{row.concept}/000{row.index}-{row.attempt}")
    assert len(refused()) == sum(row.attempt for row in ledger())
    told = capsys.readouterr().err
    assert f"{len(refused())} of {24 + len(refused())} drawings were turned down; taken" in told
    manifest = files.read_json(Path("images/manifest.json"), dict)
    assert [sum(c) for c in zip(*manifest["acceptance"].values(), strict=True)] == [
        24,
        24 + len(refused()),
    ]


def test_after_as_many_tries_a_place_is_given_up_until_more_are_allowed(capsys):
    draw(gates=["even"], tries=1)
    given_up = 24 - len(ledger())
    assert 3 < given_up < 21
    assert f"{given_up} could not be drawn" in capsys.readouterr().err
    draw(gates=["even"], tries=1)
    assert "complete, nothing to do" in capsys.readouterr().err
    draw(gates=["even"], tries=9)
    draw("whole", gates=["even"], tries=9)
    assert content("images") == content("whole")


def test_other_gates_are_another_request():
    draw(gates=["even"], tries=9)
    with pytest.raises(DataError, match=r"gates .*'parity': 0.*, now .*'parity': 1"):
        draw(gates=["even?parity=1"], tries=9)
    with pytest.raises(DataError, match=r"gates .*, now None"):
        draw()
    draw(gates=["even?parity=1"], tries=9, force=True)
    draw("whole", gates=["even?parity=1"], tries=9)
    assert content("images") == content("whole")


def test_pictures_of_a_concept_are_compared_in_their_order_whatever_order_they_came_in():
    draw("one", gates=["even", "apart"], tries=12, per_concept=8)
    assert any(row.reason.startswith("apart: ") for row in refused("one"))
    draw("two", gates=["even", "apart"], tries=12, per_concept=8, workers=2)
    assert content("one") == content("two")


def test_killed_between_gates_and_redraws_it_goes_on_to_the_same_bytes():
    how = ("--per-concept=8", "--gate=even", "--gate=apart", "--tries=12")
    draw("whole", gates=["even", "apart"], tries=12, per_concept=8)
    rng = np.random.default_rng(5)
    for _ in range(6):
        process = command(*how, "--out=killed", "--workers=1", "-o", "wait=0.01")
        while not Path("killed/ledger.jsonl").exists() and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0.02, 0.4))
        process.kill()
        process.communicate()
    draw("killed", gates=["even", "apart"], tries=12, per_concept=8)
    assert content("killed") == content("whole")


def test_what_a_gate_cannot_judge_is_told_before_anything_is_touched():
    draw()
    before = content("images")
    without('definition = "x"', 'definition = "odd"')
    for force in (False, True):
        with pytest.raises(DataError, match="ab/ab-one is defined as odd"):
            draw(gates=["knows"], force=force)
    assert content("images") == before


def test_what_a_gate_knows_is_part_of_the_request():
    draw(gates=["knows"])
    without('definition = "x"', 'definition = "y"')
    with pytest.raises(DataError, match="what its gates know of ab has changed"):
        draw(gates=["knows"])
    times = {row.path: row.drawn_at for row in ledger()}
    draw(gates=["knows"], force=True)
    changed = {row.path for row in ledger() if times[row.path] != row.drawn_at}
    assert {path.partition("/")[0] for path in changed} == {"ab"}


def test_images_that_no_row_speaks_of_are_removed_and_other_files_are_not():
    draw(per_concept=2)
    orphans = [Path("images/ab/ab-one/0007.png"), Path("images/rejected/ab/ab-one/0001-0.png")]
    for path in orphans:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left behind by a kill")
    Path("images/ab/ab-one/notes.txt").touch()
    Path("images/manifest.json").unlink()
    draw(per_concept=2)
    assert not any(path.exists() for path in orphans)
    assert Path("images/ab/ab-one/notes.txt").exists()


def test_a_kill_while_images_are_taken_back_loses_nothing(monkeypatch):
    """The steps of taking back, each cut short in turn."""
    how = {"gates": ["apart"], "tries": 12, "per_concept": 8}
    draw("whole", **how)
    for step in range(6):
        calls = iter(range(step + 1))

        def write(path, data, calls=calls, real=files.write_bytes):
            if "rejected" in str(path) and next(calls, None) is None:
                raise KeyboardInterrupt
            real(path, data)

        with monkeypatch.context() as patched:
            patched.setattr(files, "write_bytes", write)
            with pytest.raises(KeyboardInterrupt):
                draw("cut", **how)
        draw("cut", **how)
        assert content("cut") == content("whole")
        shutil.rmtree("cut")


def test_a_full_disk_is_one_line_and_nothing_is_torn():
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (6_000, 6_000));"
    process = command("--per-concept=6", "--workers=1", before=limit)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("isekai: images/ledger.jsonl: the file grew past")
    assert "Traceback" not in err
    assert 0 < len(ledger()) < 24
    draw()
    draw("whole")
    assert content("images") == content("whole")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_fills_up_is_told_and_the_run_goes_on_when_there_is_space(small_disk):
    with pytest.raises(DataError, match="the disk is full; free some space and run the same"):
        draw(str(small_disk / "images"), per_concept=12)
    left = sorted(path.name for path in small_disk.rglob(".isekai-part-*"))
    assert left == []
    shutil.copytree(small_disk / "images", "moved")
    draw("moved", per_concept=12)
    draw("whole", per_concept=12)
    assert content("moved") == content("whole")


def test_a_place_that_may_not_be_written_is_told():
    Path("file").touch()
    with pytest.raises(DataError, match="file: this is a file, not a folder"):
        draw("file")
    with pytest.raises(DataError, match=r"not a folder|may write to"):
        draw("/dev/null/images")
    if os.geteuid() == 0:
        return  # root may write everywhere else
    Path("shut").mkdir(mode=0o500)
    with pytest.raises(DataError, match="permission denied"):
        draw("shut/images")


def test_files_of_someone_else_are_never_written_among():
    Path("photos").mkdir()
    Path("photos/me.png").touch()
    with pytest.raises(DataError, match=r"holds 'me\.png' but no ledger of images"):
        draw("photos", force=True)
    assert os.listdir("photos") == ["me.png"]


def test_a_ledger_that_points_elsewhere_is_refused():
    draw()
    Path("precious.png").touch()
    row = {**files.plain(ledger()[0]), "path": "../precious.png", "index": 99}
    files.write_jsonl(Path("images/ledger.jsonl"), [row])
    with pytest.raises(DataError, match=r"'\.\./precious\.png' is not the path of an image"):
        draw(force=True)
    assert Path("precious.png").exists()


def test_two_runs_in_one_folder_do_not_mix():
    with (
        files.lock(Path("images")),
        pytest.raises(BusyError, match="images: another isekai process works here"),
    ):
        draw()


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"groups": "abb"}, "no group is called 'abb'; did you mean 'ab'"),
        ({"source": "tinny"}, "no source is called 'tinny'; did you mean 'tiny'"),
        ({"gates": ["evem"]}, "no gate is called 'evem'; did you mean 'even'"),
        ({"gates": ["even", "even"]}, "the gate 'even' is asked for twice; once is enough"),
        ({"gates": ["none", "even"]}, "'none' stands alone, but others are given with it"),
        ({"gates": ["even?party=1"]}, "gate 'even' has no option 'party'; did you mean 'parity'"),
        ({"tries": 0}, "0 tries; at least 1"),
        ({"spec": Path("none")}, "no group files"),
        ({"per_concept": 0}, "0 images a concept; at least 1"),
        ({"workers": 0}, "0 workers; at least 1"),
        ({"size": 5}, "a size of 5 pixels; 16 to 4096"),
        ({"format": "jpg"}, "the format 'jpg' is not written here; give png or webp"),
        ({"source": "folder:none"}, "none: no such folder"),
    ],
)
def test_a_wrong_request_is_told_before_anything_is_written(how, told):
    with pytest.raises(IsekaiError, match=told):
        draw(**how)
    assert not Path("images").exists()


# ---------------------------------------------------------------- what is told


def test_the_source_and_the_reason_for_it_are_told(capsys):
    draw()
    assert "24 images from the source 'tiny' (as asked)" in capsys.readouterr().err
    told = generate.forecast(generate.plan(spec=Path("spec"), source="tiny", per_concept=3))
    assert told.splitlines()[0].startswith("ab/ab-one: a ")
    assert "12 images of 4 concepts in 2 groups\nsource: tiny (as asked), tiny\ngates: none" in told
    assert told.splitlines()[-1] == "8 distinct prompts"


def test_a_terminal_shows_a_bar_and_a_file_does_not():
    ours, theirs = pty.openpty()
    words = [*ISEKAI, "generate", "--spec=spec", "--source=tiny", "--size=32", "--per-concept=6"]
    environment = {**os.environ, "TERM": "xterm"}
    with subprocess.Popen(words, stderr=theirs, stdout=subprocess.PIPE, env=environment) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                seen += os.read(ours, 4096)
            except OSError:
                break
        assert process.stdout.read() == b"images\n"
    os.close(ours)
    assert b"/24" in seen
    assert b"/s" in seen
    shutil.rmtree("images")
    _, err = command("--per-concept=6").communicate()
    assert len(err.splitlines()) == 2
