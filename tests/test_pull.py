"""Pulling datasets, and reading them in place: the real clients against a Hub on this machine."""

import copy
import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from isekai import card, pull, push
from isekai.dataset import Dataset, load
from isekai.errors import DataError
from isekai.hub.published import Address
from tests import dataset_folders
from tests.loopback_hub import Fault, Hub, Token, point, serve
from tests.loopback_repo import Repo, large, small

TOKEN = "hf_SecretThatNobodyMaySee"
REPO = "me/things"
SHARD = "things/support-00000-of-00001.parquet"
NOW = {"Retry-After": "0"}
# huggingface_hub's own call to httpx2
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("built") / "dataset"
    dataset_folders.write(root / "more", dataset_folders.groups(1))
    dataset_folders.write(root / "things")
    card.write(root)
    return root


@pytest.fixture(scope="module")
def pushed(root, tmp_path_factory) -> Repo:
    """The repository after a push, tagged v1."""
    with serve(tokens={TOKEN: Token()}) as hub, pytest.MonkeyPatch.context() as patch:
        point(patch, hub, tmp_path_factory.mktemp("maker"), TOKEN)
        push.run(root, REPO, tag="v1")
        return hub.dataset(REPO)


@pytest.fixture
def hub(pushed, tmp_path, monkeypatch):
    """A Hub with the datasets; the client has no login, and its cache is empty."""
    with serve(tokens={TOKEN: Token(), "hf_other": Token(user="you")}) as hub:
        hub.repos["datasets", REPO] = copy.deepcopy(pushed)
        point(monkeypatch, hub, tmp_path / "home", "")
        monkeypatch.chdir(tmp_path)
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


def head(hub: Hub) -> dict:
    """The files of the last commit, to be changed."""
    repo = hub.dataset(REPO)
    return repo.commits[repo.branches["main"]]


def refused(call, *args, **given) -> str:
    with pytest.raises(DataError) as caught:
        call(*args, **given)
    told = str(caught.value)
    assert "\n" not in told
    assert TOKEN not in told
    return told


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"home"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a/b", ("a/b", "main", "")),
        ("hf://a/b", ("a/b", "main", "")),
        ("hf://datasets/a/b@v1", ("a/b", "v1", "")),
        ("a/b@v1/isekai-20", ("a/b", "v1", "isekai-20")),
        ("a/b/isekai-20", ("a/b", "main", "isekai-20")),
        ("a/b@refs/pr/3/isekai-20", ("a/b", "refs/pr/3", "isekai-20")),
        ("a/b@mine%2Fown", ("a/b", "mine/own", "")),
        ("a/b/", ("a/b", "main", "")),
    ],
)
def test_an_address_names_a_repository_and_maybe_a_revision_and_a_dataset(text, found):
    address = Address.parse(text)
    assert (address.repo, address.revision, address.config) == found


@pytest.mark.parametrize("text", ["", "a", "a/b/c/d", "hf://a", "../b", "a/b@", "models/a/b/c/d"])
def test_what_is_no_address_is_told(text):
    with pytest.raises(DataError, match="is no address; expected hf://owner/name"):
        Address.parse(text)


def test_a_repository_is_pulled_whole_and_then_is_there(hub, root, tmp_path):
    out = pull.run(REPO)
    assert out == Path("things")
    assert hashes(out) == hashes(root)
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert left(tmp_path) == {"things"}
    hub.asked.clear()
    assert pull.run(f"hf://{REPO}@v1") == out
    assert not hub.sent


def test_of_several_datasets_the_one_that_is_named_is_fetched_with_a_card_of_its_own(hub, tmp_path):
    out = pull.run(f"{REPO}@v1/more", tmp_path / "x" / "mine")
    assert {name.split("/")[0] for name in hub.sent} == {"more"}
    assert not (out / "things").exists()
    assert 'config_name: "more"' in (out / "README.md").read_text()
    assert Dataset.open(out).name == "more"
    hub.asked.clear()
    pull.run(f"{REPO}/more", out)
    assert not hub.sent


def test_a_folder_with_other_files_is_replaced_only_if_asked(hub, root, tmp_path):
    out = tmp_path / "mine"
    (out / "x").mkdir(parents=True)
    assert refused(pull.run, REPO, out).startswith(f"{out}: holds other files; give --force")
    pull.run(REPO, out, force=True)
    assert hashes(out) == hashes(root)
    assert left(tmp_path) == {"mine"}


@pytest.mark.parametrize("status", [401, 503])
def test_what_stops_in_the_middle_goes_on_there(hub, tmp_path, status):
    hub.faults.append(Fault(request="GET .*parquet", status=status, times=99, skip=2))
    assert f"the Hub answers {status}" in refused(pull.run, REPO)
    assert left(tmp_path) == set()
    before = set(hub.sent)
    hub.faults.clear()
    hub.asked.clear()
    pull.run(REPO)
    again = [name for name in hub.sent if name in before and not name.endswith(".parquet")]
    assert not again
    assert sum(name.endswith(".parquet") for name in hub.sent) == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault(request="GET .*parquet", status=429, headers=NOW),
        Fault(request="GET .*parquet", drop=True),
        Fault(request="GET .*parquet", status=200, delay=0.2),
    ],
    ids=["429", "cut off", "slow"],
)
def test_what_passes_is_waited_for(hub, root, fault):
    hub.faults.append(fault)
    assert hashes(pull.run(REPO)) == hashes(root)
    assert not fault.times


def test_bytes_that_are_not_those_of_their_hash_are_thrown_away(hub, root, tmp_path):
    tree = head(hub)
    good = tree[SHARD]
    bad = good.read()[:-1] + b"x"
    tree[SHARD] = large(good.sha256, good.size, bad)
    assert refused(pull.run, REPO).startswith(f"{REPO}: {SHARD} came damaged and was thrown away")
    assert left(tmp_path) == set()
    tree[SHARD] = good
    assert hashes(pull.run(REPO)) == hashes(root)


def test_a_dataset_that_contradicts_itself_never_appears(hub, tmp_path):
    tree = head(hub)
    manifest = json.loads(tree["things/manifest.json"].read())
    tree["things/manifest.json"] = small(json.dumps({**manifest, "images": 3}).encode())
    told = refused(pull.run, REPO)
    assert told.startswith(f"{REPO}: things/manifest.json: says 3 images, where ")
    assert told.endswith("whoever pushed it has to mend it")
    assert left(tmp_path) == set()


@pytest.mark.parametrize("name", ["../evil.json", "/evil.json", "things/../../evil.json"])
def test_a_list_of_files_that_leads_elsewhere_is_refused(hub, tmp_path, name):
    head(hub)[name] = small(b"{}")
    assert "which leads elsewhere; don't use this data set" in refused(pull.run, REPO)
    assert left(tmp_path) == set()


def test_strangers_code_and_hidden_files_are_not_fetched(hub, root):
    for name in ("things.py", "things/run.py", "things/.hidden.json", "other/x.json", ".x.json"):
        head(hub)[name] = small(b"raise SystemExit('strangers run code')")
    assert hashes(pull.run(REPO)) == hashes(root)
    assert not [name for name in hub.sent if name.endswith(".py") or "/." in name]


def test_data_of_the_hub_is_read_in_place_and_without_a_network_then(hub, root, monkeypatch):
    found = load(f"hf://{REPO}/more")
    here = Dataset.open(root / "more")
    assert found.fingerprint == here.fingerprint
    commit = hub.dataset(REPO).branches["main"]
    assert found.name == f"{REPO}@{commit[:12]}/more"
    assert {name.split("/")[0] for name in hub.sent} == {"more"}
    for entry in here.entries:
        assert found.image(entry.image_id).data == here.image(entry.image_id).data
    hub.asked.clear()
    assert load(f"hf://datasets/{REPO}@v1/more").name == found.name
    assert not hub.sent
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert load(f"hf://{REPO}@v1/more").fingerprint == found.fingerprint
    assert not hub.asked
    assert refused(load, f"hf://{REPO}/things").endswith(
        "forbids asking the Hub; correct the name, or unset it"
    )


def test_of_several_datasets_one_has_to_be_named(hub):
    told = refused(load, f"hf://{REPO}")
    assert told == (
        f"{REPO}: holds several datasets; give one: hf://{REPO}/more, hf://{REPO}/things"
    )
    assert refused(load, f"hf://{REPO}/thing").endswith("did you mean 'things'?")


def test_what_the_hub_does_not_give_is_one_line(hub, monkeypatch, tmp_path):
    page = f"{hub.endpoint}/datasets/{REPO}"
    for call in (load, pull.run):
        assert refused(call, "hf://me/other").startswith(
            "me/other: no such data set on the Hub, or a private one; correct the name, or log in"
        )
        assert refused(call, f"hf://{REPO}@v9") == (
            f"{REPO}: has no branch, tag or commit 'v9'; see {page}/tree/main"
        )
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert "the Hub answers 401; the login is not accepted" in refused(load, f"hf://{REPO}")
    assert left(tmp_path) == set()


def test_private_and_gated_repositories_open_to_those_who_may(hub, root, monkeypatch, tmp_path):
    hub.dataset(REPO).private = True
    for token in ("", "hf_other"):
        monkeypatch.setenv("HF_TOKEN", token)
        assert refused(pull.run, REPO).startswith(f"{REPO}: no such data set on the Hub, or a priv")
    hub.dataset(REPO).private = False
    hub.dataset(REPO).members = {TOKEN}
    page = f"{hub.endpoint}/datasets/{REPO}"
    told = refused(pull.run, REPO)
    assert told == f"{REPO}: gated, and this login has no access; ask for it on {page}"
    monkeypatch.setenv("HF_TOKEN", "")
    assert refused(pull.run, REPO).startswith(f"{REPO}: gated; accept its terms on {page}, then")
    assert left(tmp_path) == set()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.dataset(REPO).private = True
    assert hashes(pull.run(REPO)) == hashes(root)


def test_a_repository_of_something_else_is_told(hub):
    repo = hub.dataset(REPO)
    repo.commits[repo.branches["main"]] = {"data.csv": small(b"a,b\n")}
    assert refused(load, f"hf://{REPO}").startswith(f"{REPO}: holds no dataset that `isekai push`")


# The client of `datasets` reads its settings as it is imported.
READING = """
import hashlib, json, sys
import datasets
repo, config = sys.argv[1:]
told = {}
for streaming in (False, True):
    for split in ("support", "query"):
        rows = datasets.load_dataset(repo, config, split=split, streaming=streaming)
        told[f"{split} {streaming}"] = [
            [row["image_id"], hashlib.sha256(row["image"].convert("RGB").tobytes()).hexdigest()]
            for row in rows
        ]
print(json.dumps(told))
"""


def test_load_dataset_gives_the_same_pixels_plain_and_streaming(hub, root, tmp_path):
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", READING, REPO, "things"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    here = Dataset.open(root / "things")
    for split in ("support", "query"):
        assert told[f"{split} True"] == told[f"{split} False"]
        wanted = {entry.image_id for entry in here.entries if entry.split == split}
        assert {image_id for image_id, _ in told[f"{split} True"]} == wanted
        for image_id, pixels in told[f"{split} True"]:
            image = Image.open(io.BytesIO(here.image(image_id).data)).convert("RGB")
            assert pixels == hashlib.sha256(image.tobytes()).hexdigest()


def test_what_a_killed_pull_had_put_aside_comes_back(hub, tmp_path):
    """Killed between the two renames, and then stopped by the Hub."""
    mine = tmp_path / "things"
    (mine / "things").mkdir(parents=True)
    (mine / "things" / "review.jsonl").write_text("years of work\n")
    aside = tmp_path / ".things.pulling"
    aside.mkdir()
    mine.rename(aside / "old")
    hub.faults.append(Fault(request="GET .*/resolve/", times=99))
    refused(pull.run, REPO, force=True)
    assert (mine / "things" / "review.jsonl").read_text() == "years of work\n"
    assert left(tmp_path) == {"things"}


def test_what_a_person_decided_stays_when_a_dataset_is_replaced(hub, tmp_path):
    out = pull.run(REPO)
    (out / "things" / "review.jsonl").write_text("mine\n")
    assert pull.run(REPO) == out  # nothing to do, and no other files
    (out / "things" / "groups.json").write_text("[]")
    pull.run(REPO, force=True)
    assert (out / "things" / "review.jsonl").read_text() == "mine\n"


def test_a_pull_goes_into_the_folder_one_stands_in(hub, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    pull.run(REPO, Path("."))
    assert Dataset.open(tmp_path / "here" / "things").name == "things"
