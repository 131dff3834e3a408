"""Drawing with a model of the Hub that can't be had: one line, and nothing is written."""

from pathlib import Path

import pytest

from isekai import cli
from tests.loopback_hub import Hub, point, serve

REPO = "someone/model"


@pytest.fixture
def model(tmp_path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "SomePipeline"}')
    return folder


def generate(hub: Hub, model: str, *options: str, tmp_path, monkeypatch, capfd) -> str:
    """What the command tells of a model, for which it has to end with status 1."""
    point(monkeypatch, hub, tmp_path / "home")
    out = tmp_path / "images"
    words = ["generate", "--source", "diffusers", "--model", model, "--out", str(out), *options]
    monkeypatch.setattr("sys.argv", ["isekai", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 1
    assert not out.exists()
    told = capfd.readouterr()
    assert told.out == ""
    [line] = told.err.splitlines()
    return line


def test_a_repository_that_is_not_there_is_told(model, tmp_path, monkeypatch, capfd):
    with serve(REPO, model, kind="models") as hub:
        line = generate(
            hub, "someone/else", tmp_path=tmp_path, monkeypatch=monkeypatch, capfd=capfd
        )
    assert line == (
        "isekai: someone/else: no such folder here, and no such model on the Hub, or a private "
        "one; correct the name, or log in with `hf auth login` or $HF_TOKEN"
    )


def test_a_gated_repository_without_a_login_is_told(model, tmp_path, monkeypatch, capfd):
    with serve(REPO, model, kind="models", members={"hf_member"}) as hub:
        line = generate(hub, REPO, tmp_path=tmp_path, monkeypatch=monkeypatch, capfd=capfd)
        assert not hub.sent
        assert line == (
            f"isekai: {REPO}: gated; accept its terms on {hub.endpoint}/{REPO}, then log in with "
            "`hf auth login` or $HF_TOKEN"
        )


def test_a_revision_that_is_not_there_is_told(model, tmp_path, monkeypatch, capfd):
    with serve(REPO, model, kind="models") as hub:
        line = generate(
            hub,
            REPO,
            *("-o", "revision=v9"),
            tmp_path=tmp_path,
            monkeypatch=monkeypatch,
            capfd=capfd,
        )
        page = f"{hub.endpoint}/{REPO}/tree/main"
        assert line == f"isekai: {REPO}: has no branch, tag or commit 'v9'; see {page}"
