"""The README's commands run as they stand, and its tree names files that exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    whole = (block.replace("\\\n", "") for block in blocks)
    lines = [line.split("#")[0].strip() for block in whole for line in block.splitlines()]
    return [line for line in lines if line]


def test_every_command_of_the_readme_runs_in_order(tmp_path):
    environment = os.environ | {
        "ISEKAI_CACHE": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    assert len(commands()) >= 6
    for command in commands():
        ended = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, f"{command}\n{ended.stderr}"
    assert (tmp_path / "runs" / "first" / "table.md").exists()


def test_every_option_that_the_readme_names_exists():
    from typer.main import get_command

    from isekai.cli import app

    known = {"--help"} | {
        option
        for command in get_command(app).commands.values()
        for parameter in command.params
        for option in parameter.opts
    }
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)):
        assert option in known, option


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"])
def test_paths_in_the_papers_exist(name: str):
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(
        r"`((?:isekai|tests|prompts|benchmarks|model_adapters)/[\w./-]+)`", text
    ):
        assert (ROOT / path).exists(), path


def test_the_tree_names_every_module():
    tree = README.split("## The tree")[1]
    for module in (ROOT / "isekai").glob("*.py"):
        if module.name != "__init__.py":
            assert module.name in tree, module.name
