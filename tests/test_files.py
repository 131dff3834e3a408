"""Files at the border: whole or not at all, and every problem named."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isekai import files
from isekai.errors import BusyError, DataError

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
in_one_folder = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def limited(code: str, folder: Path, *, bytes: int) -> subprocess.CompletedProcess[str]:
    """Run code in a process whose files may not grow past a number of bytes."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}))\n"
    return subprocess.run(
        [sys.executable, "-c", limit + code], cwd=folder, capture_output=True, text=True
    )


def test_a_write_replaces_the_whole_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "file"
    files.write_bytes(path, b"first")
    files.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert os.listdir(path.parent) == ["file"]


def test_a_written_file_has_the_rights_that_the_user_wants(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_write_that_the_disk_refuses_leaves_the_old_file_and_one_line(tmp_path):
    files.write_bytes(tmp_path / "file", b"old")
    code = (
        "from pathlib import Path; from isekai import files, errors\n"
        "try: files.write_bytes(Path('file'), bytes(100_000))\n"
        "except errors.DataError as error: print(error)"
    )
    told = limited(code, tmp_path, bytes=10_000)
    assert told.stdout.startswith("file: the file grew past the limit"), told
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_what_the_system_refuses_is_told_with_the_name_that_was_meant(tmp_path, monkeypatch, error):
    def refuse(handle: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(DataError, match=r"images/a\.png: .*(free some space|you may write to)"):
        files.write_bytes(tmp_path / "images" / "a.png", b"x")
    assert os.listdir(tmp_path / "images") == []


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="folder: this is a folder"):
        files.write_bytes(tmp_path / "folder", b"x")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="not a folder"):
        files.write_bytes(tmp_path / "file" / "x", b"x")
    with pytest.raises(DataError, match="not a folder"), files.lock(tmp_path / "file"):
        pass


def test_a_bug_is_not_dressed_up_as_the_users_problem(tmp_path):
    with pytest.raises(OSError, match="Bad file descriptor"), files.explained(tmp_path):
        os.fstat(12345)


def test_what_a_killed_write_left_is_swept_and_nothing_else(tmp_path):
    code = (
        "import os; from pathlib import Path; from isekai import files\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), 9)\n"
        "files.write_bytes(Path('deep/file'), b'x')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path)
    (tmp_path / "deep" / ".part-of-mine").touch()
    assert len(os.listdir(tmp_path / "deep")) == 2
    files.sweep_temporaries(tmp_path)
    assert os.listdir(tmp_path / "deep") == [".part-of-mine"]


@in_one_folder
@given(rows=st.lists(json_values, max_size=4), cut=st.integers(0, 400), more=json_values)
def test_a_journal_cut_anywhere_keeps_its_whole_rows_and_goes_on(tmp_path, rows, cut, more):
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    with files.Journal(path) as journal:
        journal.append(rows)
    data = path.read_bytes()[:cut]
    path.write_bytes(data)
    whole = rows[: data.count(b"\n")]
    assert files.read_jsonl(path, object) == whole
    with files.Journal(path) as journal:
        journal.append([more])
    assert files.read_jsonl(path, object) == [*whole, more]


def test_a_journal_on_a_full_disk_gives_one_line_and_keeps_what_was_whole(tmp_path):
    code = (
        "from pathlib import Path; from isekai import files, errors\n"
        "try:\n"
        "    with files.Journal(Path('rows.jsonl')) as journal:\n"
        "        for n in range(100): journal.append([{'n': n, 'text': 'x' * 100}])\n"
        "except errors.DataError as error: print(error)"
    )
    told = limited(code, tmp_path, bytes=1_000)
    assert told.stdout.startswith("rows.jsonl: the file grew past"), told
    rows = files.read_jsonl(tmp_path / "rows.jsonl", dict[str, object])
    assert [row["n"] for row in rows] == list(range(8))


def test_a_folder_is_locked_for_one_process_until_it_dies(tmp_path):
    code = (
        "import sys; from pathlib import Path; from isekai import files\n"
        "with files.lock(Path('work')): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=-1, stdout=-1, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(BusyError, match="another isekai process"),
            files.lock(tmp_path / "work"),
        ):
            pass
        holder.kill()
    with files.lock(tmp_path / "work"):
        pass
    with files.lock(tmp_path / "work"):
        pass


def test_json_that_cannot_be_read_says_where(tmp_path):
    with pytest.raises(DataError, match="none: no such file"):
        files.read_json(tmp_path / "none", dict)
    (tmp_path / "bad").write_text('{"a": 1,\n}')
    with pytest.raises(DataError, match=r"bad: not JSON \(line 2"):
        files.read_json(tmp_path / "bad", dict)
    (tmp_path / "bad").write_bytes(b'"\xff"')
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 1\)"):
        files.read_json(tmp_path / "bad", str)
    (tmp_path / "bad").write_text('{"a": 1}\nnot json\n')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        files.read_jsonl(tmp_path / "bad", dict)
    assert files.read_jsonl(tmp_path / "none", dict) == []


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    spokes: int
    tint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cart:
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    name: str
    wheels: tuple[Wheel, ...] = ()
    spare: Wheel | None = None
    by_place: dict[str, Wheel] = field(default_factory=dict)


def test_all_problems_are_named_at_once_with_their_place_and_a_suggestion():
    given = {
        "nmae": "x",
        "wheels": [{"spokes": 3}, {"spoks": "four"}],
        "spare": {"spokes": "many"},
        "by_place": {"left": {"spokes": 1, "tinnt": "red"}},
    }
    with pytest.raises(DataError) as caught:
        files.parse(Cart, given, "cart.json")
    assert str(caught.value).split("\n") == [
        "cart.json: name is missing",
        "cart.json: wheels[1].spokes is missing",
        "cart.json: wheels[1].spoks is not a field; did you mean 'spokes'?",
        "cart.json: spare.spokes is 'many': expected a valid integer, unable to parse string as "
        "an integer",
        "cart.json: by_place.left.tinnt is not a field; did you mean 'tint'?",
        "cart.json: nmae is not a field; did you mean 'name'?",
    ]


def test_records_come_back_as_they_were_written(tmp_path):
    cart = Cart(
        name="日本", wheels=(Wheel(spokes=3),), by_place={"left": Wheel(spokes=1, tint="é")}
    )
    files.write_json(tmp_path / "cart.json", cart)
    files.write_jsonl(tmp_path / "carts.jsonl", [cart, cart])
    assert files.read_json(tmp_path / "cart.json", Cart) == cart
    assert files.read_jsonl(tmp_path / "carts.jsonl", Cart) == [cart, cart]
    assert json.loads((tmp_path / "cart.json").read_text())["name"] == "日本"


def test_an_output_can_tell_what_made_it():
    told = files.environment("numpy", "no-such-package")
    assert told["python"] == ".".join(map(str, sys.version_info[:3]))
    assert told["no-such-package"] == "absent"


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000])
def test_json_beyond_all_measure_is_told_in_one_line(tmp_path, text):
    for read, name in ((files.read_json, "a.json"), (files.read_jsonl, "a.jsonl")):
        (tmp_path / name).write_text(text + "\n")
        with pytest.raises(DataError, match="not JSON"):
            read(tmp_path / name, dict[str, object])


def test_a_row_that_fails_half_way_is_taken_off_again(tmp_path):
    """On a full disk the first bytes of a row are written, the others not."""
    path = tmp_path / "rows.jsonl"

    class Short:
        def __init__(self, file) -> None:
            self._file, self._left = file, 1

        def __getattr__(self, name: str):
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            if self._left:
                self._left = 0
                return self._file.write(data[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    with files.Journal(path) as journal:
        journal.append([{"row": 1}])
        whole = journal._file
        journal._file = Short(whole)
        with pytest.raises(DataError, match="the disk is full"):
            journal.append([{"row": 2}])
        journal._file = whole
        journal.append([{"row": 3}])
    assert path.read_text() == '{"row":1}\n{"row":3}\n'
