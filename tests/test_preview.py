"""A sheet of a few images, drawn again where its spec changes, and never among other files."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from isekai import choosing, files, generate, preview
from isekai.errors import DataError, IsekaiError
from isekai.types import ImageRecord

from .test_generate import PLUGIN, SPEC

ISEKAI = (sys.executable, "-c", "from isekai.cli import main; main()")


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    Path("spec").mkdir()
    for name in ("ab", "cd"):
        Path(f"spec/{name}.toml").write_text(SPEC.format(name))


def wanted(**how) -> preview.Wanted:
    chosen = choosing.choose("tiny", how.pop("options", None))
    return preview.Wanted(**{"chosen": chosen, "spec": Path("spec"), "size": 32, **how})


def drawn(folder: str = "sheet") -> dict[str, str]:
    rows = files.read_jsonl(Path(folder, "drawings/ledger.jsonl"), ImageRecord)
    return {row.path: row.drawn_at for row in rows}


def test_four_images_of_each_concept_are_laid_out_on_one_sheet():
    sheet = preview.run(wanted(), Path("sheet"))
    assert sheet == Path("sheet/contact_sheet.png")
    assert len(drawn()) == 16
    with Image.open(sheet) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    page = Path("sheet/contact_sheet.html").read_text()
    assert page.count("<img") == 16
    assert "tiny, seed 0" in page


def test_only_a_concept_whose_group_file_changed_is_drawn_again():
    preview.run(wanted(), Path("sheet"))
    before = drawn()
    path = Path("spec/ab.toml")
    path.write_text(path.read_text().replace('prompts.subject = "1"', 'prompts.subject = "a 3"'))
    preview.run(wanted(), Path("sheet"))
    changed = {path for path, when in drawn().items() if before[path] != when}
    assert {path.rpartition("/")[0] for path in changed} == {"ab/ab-one"}


def test_what_a_gate_turns_down_is_missing_on_the_sheet_and_not_drawn_again():
    preview.run(wanted(gates=["even"], per_concept=8), Path("sheet"))
    assert 3 < len(drawn()) < 29
    page = Path("sheet/contact_sheet.html").read_text()
    assert page.count("<img") == len(drawn())


def test_a_folder_of_something_else_is_left_alone():
    generate.run(source="tiny", spec=Path("spec"), size=32, per_concept=1, out=Path("images"))
    with pytest.raises(DataError, match=r"images: holds 'ab'; give --out a new folder"):
        preview.run(wanted(), Path("images"))
    assert len(list(Path("images").rglob("*.png"))) == 4


def test_a_spec_that_is_wrong_from_the_start_ends_the_watch():
    Path("spec/ab.toml").write_text("title = 3")
    with pytest.raises(IsekaiError, match="title"):
        next(preview.watch(wanted(), Path("sheet")))


def test_watching_draws_again_on_a_change_tells_of_errors_and_ends_with_ctrl_c():
    words = ["preview", "--spec=spec", "--source=tiny", "--size=32", "--out=sheet", "--watch"]
    process = subprocess.Popen(
        [*ISEKAI, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    path, good = Path("spec/ab.toml"), Path("spec/ab.toml").read_text()
    assert process.stdout.readline() == "sheet/contact_sheet.png\n"
    before = drawn()
    path.write_text("title = ")
    while "not TOML" not in (line := process.stderr.readline()):
        assert line
    path.write_text(good.replace('prompts.subject = "1"', 'prompts.subject = "a 3"'))
    assert process.stdout.readline() == "sheet/contact_sheet.png\n"
    changed = {path for path, when in drawn().items() if before[path] != when}
    assert {path.rpartition("/")[0] for path in changed} == {"ab/ab-one"}
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err.splitlines()[-1] == "isekai: no longer watching"
