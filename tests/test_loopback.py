"""Data sets by their names on a Hub: real clients against a real server on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loopback_hub import COMMIT, Hub, serve

GOLDEN = Path(__file__).parent / "data" / "golden" / "lcl"
TOKEN = "hf_SecretThatNobodyMaySee"

# The clients read their settings as they are imported: each test asks from a process of its own.
PROGRAM = """
import json, sys
from isekai.dataset import load
from isekai.errors import IsekaiError
for spec in sys.argv[1:]:
    try:
        found = load(spec)
        for entry in found.entries:
            found.image(entry.image_id)
        told = [found.name, str(found.path), len(found.entries), len(found.lists)]
        told.append(found.fingerprint)
    except IsekaiError as error:
        told = str(error)
    print(json.dumps(told))
"""


@pytest.fixture
def ask(tmp_path):
    """What each spec loads as, or the error it ends with."""

    def run(hub: Hub | None, *specs: str, **settings: str) -> list[list[object] | str]:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint if hub else "http://127.0.0.1:9",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": TOKEN,
            "ISEKAI_CACHE": str(tmp_path / "cache"),
            **settings,
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, *specs],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


@pytest.fixture
def lists(tmp_path) -> Path:
    """A repository of published lists, with code beside them."""
    folder = tmp_path / "lists"
    shutil.copytree(GOLDEN / "images", folder / "images")
    shutil.copy(GOLDEN / "isekai_tiny.jsonl", folder / "ISEKAI-10.json")
    (folder / "ISEKAI-10.py").write_text("raise SystemExit('strangers run code')")
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-2.0\n---\n")
    return folder


@pytest.fixture
def tables(tmp_path) -> Path:
    """A repository of a Parquet file of two classes."""
    paths = sorted((GOLDEN / "images").glob("p0_*.png"))
    folder = tmp_path / "tables"
    folder.mkdir()
    kinds = ["query" if "query" in path.name else path.name[3:6] for path in paths]
    data = pa.array([path.read_bytes() for path in paths], pa.binary())
    pq.write_table(pa.table({"image": data, "label": kinds}), folder / "test.parquet")
    return folder


def test_published_lists_are_downloaded_once_by_name_and_no_code_with_them(ask, lists, tmp_path):
    name = "ISEKAI-Portal/ISEKAI-10"
    with serve(name, lists) as hub:
        found, pinned, local, wrong, unknown = ask(
            hub,
            f"lists:{name}",
            f"lists:{name}?revision=v1",
            f"lists:{lists}",
            f"lists:{name}?revision=v9",
            "lists:ISEKAI-Portal/ISEKAI-11",
        )
        assert found == pinned == [name, name, 20, 4, found[-1]]
        assert found[-1] == local[-1]
        page = f"{hub.endpoint}/datasets/{name}"
        assert wrong == f"{name}: has no branch, tag or commit 'v9'; see {page}/tree/main"
        assert unknown.startswith("ISEKAI-Portal/ISEKAI-11: no such folder here, and no such data")
        assert hub.logins == {f"Bearer {TOKEN}"}
        downloads = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
        wanted = 1 + len(list((lists / "images").iterdir()))
        assert len(downloads) == len(set(downloads)) == wanted
    assert not list((tmp_path / "hf").rglob("*.py"))
    (offline,) = ask(None, f"lists:{name}", HF_HUB_OFFLINE="1")
    assert offline == found


def test_a_table_is_loaded_by_name_revision_and_columns(ask, tables):
    with serve("me/mine", tables) as hub:
        found, pinned, column, wrong, unknown = ask(
            hub,
            "hub:me/mine",
            f"hub:me/mine?revision={COMMIT}",
            "hub:me/mine?label=lable",
            "hub:me/mine?revision=v9",
            "hub:me/other",
        )
    assert found == pinned == ["me/mine", "me/mine", 10, 0, found[-1]]
    assert column == "me/mine: option label=lable: no such column; did you mean 'label'?"
    assert wrong.startswith("me/mine: has no branch, tag or commit 'v9'; see http://127.0.0.1:")
    assert wrong.endswith("/datasets/me/mine/tree/main")
    assert unknown.startswith("me/other: no such folder here, and no such data set on the Hub")


def test_a_repository_of_class_folders_is_loaded_by_name(ask, tmp_path):
    for path in sorted((GOLDEN / "images").glob("p?_???[0-9].png")):
        to = tmp_path / "repo" / "test" / path.name[:6] / path.name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    with serve("me/folders", tmp_path / "repo") as hub:
        found, local = ask(hub, "hub:me/folders", f"hub:{tmp_path / 'repo'}")
    assert found[2:] == local[2:]
    assert found[2] == 16


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (404, "RepoNotFound", "no such folder here, and no such data set on the Hub, or a private"),
        (401, "", "the Hub answers 401; the login is not accepted: renew it with `hf auth login`"),
        (401, "GatedRepo", "gated, and this login has no access; ask for it on http://127.0.0.1:"),
        (403, "", "the Hub answers 403; the login is not accepted"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line_without_the_token(ask, lists, status, code, told):
    with serve("me/mine", lists, status=status, error=code) as hub:
        for answer in ask(hub, "lists:me/mine", "hub:me/mine"):
            assert answer.startswith("me/mine: ")
            assert told in answer
            assert "\n" not in answer


def test_a_hub_that_cannot_be_reached_is_told(ask):
    offline = ask(None, "lists:me/mine", "hub:me/mine", HF_HUB_OFFLINE="1")
    refused = ask(None, "lists:me/mine")  # `datasets` tries again for half a minute
    for answer in offline:
        assert answer.startswith("me/mine: no such folder here, not in the Hub's cache, and $HF_")
        assert "\n" not in answer
    assert refused == [
        "me/mine: no such folder here, and the Hub can't be reached; correct the path, or go online"
    ]
