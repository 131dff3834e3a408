"""Pushing datasets: the real client against a Hub on this machine that takes uploads and fails."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isekai import card, files, push
from isekai.errors import DataError
from tests import dataset_folders
from tests.loopback_hub import Fault, Hub, Token, point, serve
from tests.loopback_repo import small

TOKEN = "hf_SecretThatNobodyMaySee"
REPO = "me/things"
SHARD = "things/support-00000-of-00001.parquet"
NOW = {"Retry-After": "0"}
# huggingface_hub's own call to httpx2
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("built") / "dataset"
    dataset_folders.write(root / "things")
    card.write(root)
    (root / "croissant.json").unlink()  # to check one takes longer than all the rest
    return root


@pytest.fixture
def root(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "dataset"))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serve(tokens={TOKEN: Token(), "hf_read": Token(may_write=False)}) as hub:
        point(monkeypatch, hub, tmp_path / "home", TOKEN)
        yield hub


@pytest.fixture(autouse=True)
def nobody_sees_the_token(capfd):
    yield
    told = capfd.readouterr()
    assert TOKEN not in told.out + told.err


def hashes(root: Path) -> dict[str, str]:
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def there(hub: Hub, revision: str = "main", repo: str = REPO) -> dict[str, str]:
    tree = hub.dataset(repo).tree(revision)
    del tree[".gitattributes"]
    return {name: hashlib.sha256(file.read()).hexdigest() for name, file in tree.items()}


def refused(*args, **given) -> str:
    with pytest.raises(DataError) as caught:
        push.run(*args, **given)
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


def commits(hub: Hub) -> int:
    return len(hub.dataset(REPO).messages) - 1


def test_a_dataset_is_sent_in_one_commit_and_is_there_as_it_is_here(hub, root):
    page = push.run(root, REPO)
    assert page == f"{hub.endpoint}/datasets/{REPO}"
    assert there(hub) == hashes(root)
    assert not hub.dataset(REPO).private
    assert hub.dataset(REPO).messages[1:] == ["Send things"]


def test_a_second_push_sends_nothing_and_an_edit_what_changed(hub, root, capfd):
    push.run(root, REPO)
    sent = list(hub.received)
    push.run(root, REPO)
    assert (hub.received, commits(hub)) == (sent, 1)
    assert "everything is there, nothing to do" in capfd.readouterr().err
    shutil.rmtree(root / "things")
    dataset_folders.write(root / "things", support=5)
    card.write(root)
    push.run(root, REPO)
    assert there(hub) == hashes(root)
    assert commits(hub) == 2


def test_a_dry_run_tells_what_would_be_sent_and_sends_nothing(hub, root):
    told = push.run(root, REPO, dry_run=True)
    assert told.splitlines()[-1] == f"{REPO} would be made; nothing was sent"
    assert f"+ {SHARD}  " in told
    assert not hub.repos
    push.run(root, REPO)
    (root / "CITATION.cff").unlink()
    (root / "LICENSE").write_text("mine")
    before = there(hub)
    told = push.run(root, REPO, dry_run=True).splitlines()
    assert told[:2] == ["+ LICENSE  4 bytes", "- CITATION.cff"]
    assert told[2] == f"1 new, 0 changed, 1 removed, {len(before) - 1} the same; to send: 4 bytes"
    assert there(hub) == before


def test_what_is_private_or_half_made_stays_here(hub, root):
    (root / "things/review.jsonl").write_text("")
    for name in (".staging/x.json", "things/.lock", "things/.isekai-part-1.json", "notes.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("{}")
    push.run(root, REPO)
    names = set(there(hub))
    assert SHARD in names
    assert not {n for n in names if "review" in n or "notes" in n or "/." in n or n[0] == "."}


def test_a_link_is_not_followed(hub, root, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (root / "things/more.json").symlink_to(tmp_path / "secret.json")
    assert "a link; it could lead to a file" in refused(root, REPO)
    assert not hub.repos


def test_a_damaged_dataset_is_not_sent(hub, root):
    (root / SHARD).write_bytes((root / SHARD).read_bytes()[:-40])
    told = refused(root, REPO)
    assert SHARD in told
    assert told.endswith("nothing was sent")
    assert not hub.repos


def test_one_dataset_of_a_folder_is_told_where_its_card_is(hub, root):
    assert refused(root / "things", REPO).endswith(f"which has the card: {root}")


def test_shards_that_are_no_part_of_a_dataset_any_more_go(hub, root):
    push.run(root, REPO)
    tree = hub.dataset(REPO).commits[hub.dataset(REPO).branches["main"]]
    tree["things/support-00001-of-00002.parquet"] = tree[SHARD]
    tree["elsewhere/support-00001-of-00002.parquet"] = tree[SHARD]
    push.run(root, REPO)
    assert there(hub).keys() - hashes(root) == {"elsewhere/support-00001-of-00002.parquet"}


def test_datasets_that_are_only_in_the_repository_stay_with_their_entries(hub, root, tmp_path):
    other = tmp_path / "other"
    dataset_folders.write(other / "more", dataset_folders.groups(1))
    card.write(other)
    push.run(other, REPO)
    first = there(hub)
    told = push.run(root, REPO, dry_run=True)
    assert "  more/ stays, which is not in this folder" in told
    push.run(root, REPO)
    now = there(hub)
    assert {n: h for n, h in now.items() if n.startswith("more/")} == {
        n: h for n, h in first.items() if n.startswith("more/")
    }
    text = hub.dataset(REPO).tree()["README.md"].read().decode()
    head = yaml.safe_load(text.split("---")[1])
    assert [one["config_name"] for one in head["configs"]] == ["things", "more"]
    assert [one["config_name"] for one in head["dataset_info"]] == ["things", "more"]
    assert [one.get("default") for one in head["configs"]] == [True, None]
    assert text.split("---", 2)[2] == (root / "README.md").read_text().split("---", 2)[2]
    done = commits(hub)
    push.run(root, REPO)
    assert commits(hub) == done


def test_what_others_put_into_a_repository_is_not_overwritten_unasked(hub, root):
    push.run(root, REPO)
    tree = hub.dataset(REPO).commits[hub.dataset(REPO).branches["main"]]
    tree["README.md"] = small(b"---\nlicense: mit\n---\n# My own words\n")
    assert refused(root, REPO).startswith(f"{REPO}: its README.md is not from `isekai push`")
    push.run(root, REPO, force=True)
    assert there(hub) == hashes(root)
    tree = hub.dataset(REPO).commits[hub.dataset(REPO).branches["main"]]
    tree["README.md"] = small(b"---\nlicense: mit\n---\n")
    push.run(root, REPO)
    assert there(hub) == hashes(root)


def test_a_private_repository_is_made_private_and_a_public_one_is_not_taken_for_one(hub, root):
    push.run(root, REPO, private=True)
    assert hub.dataset(REPO).private
    push.run(root, REPO, private=True)
    push.run(root, "me/open")
    assert refused(root, "me/open", private=True).startswith("me/open: is public; make it private")


def test_a_branch_is_made_and_the_main_one_stays(hub, root):
    push.run(root, REPO)
    (root / "LICENSE").write_text("mine")
    page = push.run(root, REPO, revision="next")
    assert page == f"{hub.endpoint}/datasets/{REPO}/tree/next"
    assert there(hub, "next") == hashes(root)
    assert "LICENSE" not in there(hub)


def test_a_tag_marks_what_was_sent_and_never_moves(hub, root):
    push.run(root, REPO, tag="v1")
    assert hub.dataset(REPO).tags == {"v1": hub.dataset(REPO).branches["main"]}
    push.run(root, REPO, tag="v1")
    (root / "LICENSE").write_text("mine")
    told = refused(root, REPO, tag="v1")
    assert told == f"{REPO}: the tag 'v1' is there already, at another commit; choose another name"
    assert "LICENSE" not in there(hub)


def test_a_pull_request_is_opened_once_and_the_main_branch_stays(hub, root):
    push.run(root, REPO)
    (root / "LICENSE").write_text("mine")
    page = push.run(root, REPO, create_pr=True)
    assert page == f"{hub.endpoint}/datasets/{REPO}/discussions/1"
    assert there(hub, "refs/pr/1") == hashes(root)
    assert "LICENSE" not in there(hub)
    hub.faults.append(Fault(request="/commit/", status=403))
    (root / "LICENSE").write_text("ours")
    assert refused(root, REPO, create_pr=True).endswith("; go on with --revision refs/pr/2")
    push.run(root, REPO, revision="refs/pr/2")
    assert there(hub, "refs/pr/2") == hashes(root)


@pytest.mark.parametrize(
    ("repo", "options", "told"),
    [
        ("things", {}, "'things' names no repository; expected owner/name"),
        (REPO, {"tag": "a b"}, "'a b' can't be the name of a tag"),
        (REPO, {"revision": "../x"}, "'../x' can't be the name of a revision"),
        (REPO, {"revision": "0" * 40}, f"{REPO}: {'0' * 40} is a commit; give a branch to add to"),
        (REPO, {"create_pr": True, "revision": "x"}, "a pull request is made against main"),
        (REPO, {"create_pr": True, "tag": "v1"}, "a pull request gets no tag"),
        ("you/things", {}, "you/things: this login may not write there"),
    ],
)
def test_what_can_not_be_is_told_before_anything_is_sent(hub, root, repo, options, told):
    assert told in refused(root, repo, **options)
    assert not hub.repos


def test_without_a_login_one_line_says_how_to_get_one(hub, root, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    assert refused(root, REPO) == (
        f"{REPO}: no login; log in with `hf auth login`, or set $HF_TOKEN to a token that may write"
    )
    assert not hub.asked


def test_a_login_that_may_only_read_or_is_none_is_told(hub, root, monkeypatch):
    push.run(root, REPO)
    (root / "LICENSE").write_text("mine")
    monkeypatch.setenv("HF_TOKEN", "hf_read")
    assert "this login may not write there" in refused(root, REPO)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "the Hub answers 401; the login is not accepted: renew it" in refused(root, REPO)


# ---------------------------------------------------------------- faults

PASSING = {
    "429 on a commit": Fault(request="/commit/", status=429, headers=NOW),
    "503 on a commit": Fault(request="/commit/", status=503, headers=NOW, times=3),
    "504 on a commit that was made": Fault(
        request="/commit/", status=504, headers=NOW, applied=True
    ),
    "a commit without an answer": Fault(request="/commit/", drop=True, applied=True),
    "a commit that never arrived": Fault(request="/commit/", drop=True),
    "429 on a file": Fault(request="PUT /lfs/", status=429, headers=NOW),
    "a slow file": Fault(request="PUT /lfs/", status=200, delay=0.3),
    "a file that is cut off": Fault(request="PUT /lfs/", drop=True),
    "503 on the list of files": Fault(request="/tree/", status=503, headers=NOW),
    "502 on the card": Fault(request="/validate-yaml", status=502, headers=NOW),
    "500 on the tag": Fault(request="/tag/", status=500, headers=NOW),
    "503 on the new repository": Fault(request="/repos/create", headers=NOW, applied=True),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_waited_for(hub, root, fault):
    hub.faults.append(fault)
    push.run(root, REPO, tag="v1")
    assert not fault.times
    assert there(hub) == hashes(root)
    assert commits(hub) == 1
    assert hub.dataset(REPO).tags == {"v1": hub.dataset(REPO).branches["main"]}


LASTING = {
    "503 on commits": (
        Fault(request="/commit/", headers=NOW, times=99),
        "the Hub answers 503; try again later; what was transferred is kept",
    ),
    "429 for an hour": (
        Fault(request="/commit/", status=429, headers={"Retry-After": "3600"}, times=99),
        "the Hub answers 429; try again later; what was transferred is kept",
    ),
    "a card that is refused": (
        Fault(
            request="/validate-yaml",
            status=400,
            body=b'{"errors": [{"message": "no such licence"}]}',
        ),
        "the Hub refuses it: Invalid metadata in README.md. - no such licence",
    ),
    "a login that ends": (
        Fault(request="/commit/", status=401, times=99),
        "the Hub answers 401; the login is not accepted: renew it",
    ),
}


@pytest.mark.parametrize(("fault", "told"), LASTING.values(), ids=LASTING)
def test_what_does_not_pass_is_one_line_and_the_rest_is_sent_later(hub, root, fault, told):
    hub.faults.append(fault)
    assert told in refused(root, REPO)
    assert there(hub) == {}
    sent = len(hub.received)
    assert sent == sum(name.endswith((".parquet", ".png")) for name in hashes(root))
    hub.faults.clear()
    push.run(root, REPO)
    assert there(hub) == hashes(root)
    assert len(hub.received) == sent


@pytest.mark.parametrize("uses", [1, 2, 3, 5, 7, 9])
def test_a_login_may_end_at_any_moment(hub, root, uses):
    hub.tokens[TOKEN].uses = uses
    told = refused(root, REPO)
    assert "the Hub answers 401; the login is not accepted: renew it" in told
    hub.tokens[TOKEN].uses = None
    push.run(root, REPO)
    assert there(hub) == hashes(root)
    assert commits(hub) == 1


def test_of_two_pushes_at_once_one_is_told_to_go_again(hub, root):
    push.run(root, REPO)
    (root / "LICENSE").write_text("mine")

    def another() -> None:
        line = {"key": "file", "value": {"path": "x.txt", "content": ""}}
        hub.dataset(REPO).commit("main", [{"key": "header", "value": {"summary": "x"}}, line], {})

    hub.faults.append(Fault(request="/commit/", status=200, then=another))
    assert refused(root, REPO) == (
        f"{REPO}: another commit came to 'main' meanwhile; run the same command again"
    )
    push.run(root, REPO)
    assert there(hub).keys() - hashes(root) == {"x.txt"}


# The client reads its settings as it is imported: a push that is to be killed has a process.
PUSHING = """
import sys
from pathlib import Path
from isekai import push
push.run(Path(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.parametrize("moment", ["PUT /lfs/", "/commit/"])
def test_a_push_that_is_killed_sends_what_is_missing_when_it_runs_again(
    hub, root, moment, tmp_path
):
    """The first file has arrived, or all have and the commit is missing."""
    doomed: list[subprocess.Popen] = []
    skip = 1 if "PUT" in moment else 0
    hub.faults.append(Fault(request=moment, skip=skip, drop=True, then=lambda: doomed[0].kill()))
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
    }
    doomed.append(
        subprocess.Popen([sys.executable, "-c", PUSHING, str(root), REPO], env=environment)
    )
    assert doomed[0].wait(60) == -signal.SIGKILL
    assert there(hub) == {}
    arrived = list(hub.received)
    assert arrived
    push.run(root, REPO)
    assert there(hub) == hashes(root)
    again = hub.received[len(arrived) :]
    assert not set(again) & set(arrived)
    assert bool(again) == bool(skip)


# ---------------------------------------------------------------- chunks


@pytest.fixture
def chunked(tmp_path, monkeypatch):
    """A Hub that leaves large files to the client's hf_xet, which stores them on this disk."""
    store = tmp_path / "store"
    store.mkdir()
    with serve(tokens={TOKEN: Token()}, xet=store) as hub:
        point(monkeypatch, hub, tmp_path / "home", TOKEN)
        yield hub


def stored(hub: Hub) -> int:
    return sum(path.stat().st_size for path in hub.xet.rglob("xorbs/default.*[0-9a-f]"))


def test_chunks_that_the_hub_has_are_not_sent_again(chunked, root):
    shutil.rmtree(root / "things")
    dataset_folders.write(root / "things", support=120)
    card.write(root)
    told = push.run(root, REPO, dry_run=True).splitlines()[-2]
    assert told.endswith(", less the chunks that the Hub has already")
    push.run(root, REPO, tag="v1")
    tree = chunked.dataset(REPO).tree()
    sizes = {n: (root / n).stat().st_size for n in hashes(root)}
    assert {name: file.size for name, file in tree.items() if name in sizes} == sizes
    assert tree[SHARD].sha256 == hashes(root)[SHARD]
    before = stored(chunked)
    data = (root / SHARD).read_bytes()
    assert before > len(data) / 2
    (root / "things/again").mkdir()
    files.write_bytes(root / "things/again/more.parquet", data[: len(data) // 2] + b"end")
    push.run(root, REPO)
    assert stored(chunked) - before < len(data) / 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_where_chunks_are_refused_the_status_is_told(chunked, root, status):
    chunked.faults.append(Fault(request="xet-write-token", status=status, times=99))
    assert f"the Hub answers {status}" in refused(root, REPO)
    chunked.faults.clear()
    push.run(root, REPO)
    assert SHARD in chunked.dataset(REPO).tree()
