"""The command line: quick to answer, and clear when it can't."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ISEKAI = (sys.executable, "-c", "from isekai.cli import main; main()")

SPEC = """
title = "Hogs"
parent = "hedgehog"
[[concepts]]
name = "cactihog"
role = "novel"
novelty = "blend"
definition = "A hedgehog that is a cactus."
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "hogs.toml").write_text(SPEC)
    return tmp_path


def isekai(*words: object, **how) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ISEKAI, *map(str, words)], capture_output=True, text=True, **how)


def seconds(*words: str) -> float:
    """Processor time of a command: wall time would measure what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert isekai(*words).returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_answers_at_once():
    assert min(seconds("--help") for _ in range(3)) < 0.4


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from isekai.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True
    )
    heavy = "numpy torch pandas pyarrow PIL scipy sklearn matplotlib timm datasets pydantic"
    assert not set(heavy.split()) & {name.split(".")[0] for name in told.stderr.split()}


def test_every_command_says_what_it_does():
    from isekai.cli import app

    for command in app.registered_commands:
        assert command.callback.__doc__, command.callback.__name__
        assert command.callback.__doc__.splitlines()[0].endswith(".")


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert isekai("--version").stdout == f"isekai {version('isekai-bench')}\n"


def test_groups_are_listed_for_people_and_for_programs(spec):
    assert "cactihog" in isekai("groups", "--spec", spec).stdout
    assert json.loads(isekai("groups", "--spec", spec, "--json").stdout) == [
        {
            "id": "hogs",
            "title": "Hogs",
            "concepts": [
                {
                    "id": "hogs/cactihog",
                    "name": "cactihog",
                    "role": "novel",
                    "definition": "A hedgehog that is a cactus.",
                }
            ],
        }
    ]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["generat"], 2, "No such command 'generat'"),
        (["groups", "--spek", "x"], 2, "No such option: --spek"),
        (["generate", "--per-concept", "0"], 2, "--per-concept"),
        (["generate", "--format", "jpg"], 2, "--format"),
        (["groups", "--spec", "none"], 1, "isekai: none: no group files"),
        (["generate", "--groups", "hog"], 1, "no group is called 'hog'; did you mean 'hogs'?"),
        (["generate", "-o", "speed"], 1, "isekai: option 'speed' is not of the form key=value"),
        (["generate", "--source", "folder"], 1, "needs the option 'path': give it with -o path="),
    ],
)
def test_a_mistake_ends_with_its_status_and_no_traceback(spec, words, status, told):
    if words[0] == "generate":
        words = [*words, "--spec", "."]
    result = isekai(*words, cwd=spec)
    assert result.returncode == status
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_a_dry_run_tells_and_writes_nothing(spec):
    words = ("generate", "--spec", ".", "--groups", "hogs", "--per-concept", "3", "--dry-run")
    told = isekai(*words, cwd=spec)
    assert told.stdout.startswith("3 images of 1 concepts in 1 groups\nsource: procedural (auto: ")
    assert "disk: about" in told.stdout
    assert os.listdir(spec) == ["hogs.toml"]


def test_a_reader_that_leaves_early_gets_no_traceback(spec):
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(
        [*ISEKAI, "groups", "--spec", str(spec), "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        os.close(writing)
        assert "Error" not in process.stderr.read()
    assert process.returncode in (1, 141)


def test_the_text_of_a_strangers_spec_is_no_markup(tmp_path):
    spec = tmp_path / "spec"
    spec.mkdir()
    hostile = "A [/red] [bold]hog[/bold] of [x](y)."
    (spec / "hog.toml").write_text(
        'title = "x"\nparent = "x"\n[[concepts]]\nname = "hog"\nrole = "foil"\n'
        f'definition = "{hostile}"\n'
    )
    shown = isekai("groups", "--spec", str(spec))
    assert shown.returncode == 0, shown.stderr
    assert hostile in " ".join(shown.stdout.split())


@pytest.mark.parametrize("step", ["invent 1", "build images", "generate --groups cactihog"])
def test_an_output_folder_that_cannot_be_made_is_one_line(step, tmp_path):
    if not Path("/proc/self").exists():
        pytest.skip("no /proc here")
    ended = isekai(*step.split(), "--out", "/proc/nothing/here", cwd=tmp_path)
    assert ended.returncode == 1
    assert len(ended.stderr.strip().splitlines()) <= 2
    assert "Traceback" not in ended.stderr


def test_a_full_disk_behind_the_output_is_one_line():
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [*ISEKAI, "groups", "--json"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ended.returncode == 1
    assert ended.stderr == "isekai: the output could not be written: the disk is full\n"


def test_the_demo_leaves_a_folder_of_other_things_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    ended = isekai("demo", "--out", tmp_path)
    assert ended.returncode == 1
    assert "holds 'mine.txt'" in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_flag_and_an_option_that_contradict_each_other_are_refused(spec):
    words = ("generate", "--spec", spec, "--source", "diffusers", "--dry-run")
    told = isekai(*words, "--model", "one", "-o", "model=two")
    assert told.returncode == 1
    assert told.stderr == "isekai: --model one and -o model=two contradict each other\n"
