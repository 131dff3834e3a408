"""Where models are: folders of this disk, and repositories of a real server on this machine."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from isekai.errors import DataError
from isekai.sources.diffusers import origin
from isekai.sources.diffusers.origin import Origin
from tests.loopback_hub import COMMIT, Hub, serve
from tests.pipelines import build, built, library

INDEX = {
    "_class_name": "SomePipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}
LOADED = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
]
TOKEN = "hf_SecretThatNobodyMaySee"
REPO = "someone/model"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights(path: Path, count: int, kind: type = np.float32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": np.zeros((count, 2), kind), "b": np.ones(3, kind)}, path)


def write(folder: Path, *, index: dict[str, object] = INDEX) -> Path:
    """A model of the layout, with what else lies in repositories beside it."""
    weights(folder / "unet/diffusion_pytorch_model.safetensors", 500, np.float16)
    weights(folder / "text_encoder/model.safetensors", 200)
    weights(folder / "everything.safetensors", 900)
    for name in ("scheduler/scheduler_config.json", "unet/config.json", "text_encoder/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'{{"of": "{name}"}}')
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "unet/code.py").write_text("raise SystemExit('strangers run code')")
    (folder / "README.md").write_text("a model")
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def model(tmp_path) -> Path:
    return write(tmp_path / "model")


def refused(folder: Path, **options) -> str:
    with pytest.raises(DataError) as caught:
        origin.find(str(folder), **options).fetch()
    told = str(caught.value)
    assert "\n" not in told
    return told


# ---------------------------------------------------------------- folders


def test_a_folder_is_found_with_the_bytes_of_what_will_be_loaded(model):
    found = origin.find(str(model))
    assert (found.pipeline_class, found.commit, found.variant) == ("SomePipeline", "", "")
    assert list(found.layout.files) == LOADED
    sizes = {name: (model / name).stat().st_size for name in LOADED if "safetensors" in name}
    assert found.component_bytes() == {name.split("/")[0]: size for name, size in sizes.items()}
    assert found.files["everything.safetensors"] > 900 * 8
    assert found.component_widths() == {"text_encoder": 4, "unet": 2}
    assert found.fetch() == model


def test_the_revision_of_a_folder_is_that_of_what_is_loaded_wherever_it_lies(model, tmp_path):
    first = origin.find(str(model)).revision
    assert len(first) == 64
    (model / "README.md").write_text("other words")
    weights(model / "everything.safetensors", 10)
    copy = shutil.copytree(model, tmp_path / "copy")
    assert origin.find(str(model)).revision == origin.find(str(copy)).revision == first
    for name in LOADED[1:]:
        changed = shutil.copytree(model, tmp_path / name.replace("/", "-"))
        data = (changed / name).read_bytes()
        (changed / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert origin.find(str(changed)).revision != first


def test_weights_are_read_once_and_anew_when_they_change(model):
    path = model / "unet/diffusion_pytorch_model.safetensors"
    for name in LOADED:
        os.utime(model / name, (1e9, 1e9))
    first = origin.find(str(model)).revision
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"x")
    os.utime(path, (1e9, 1e9))
    assert origin.find(str(model)).revision == first  # size and time are those it was read at
    os.utime(path, (1e9, 1e9 + 1))
    assert origin.find(str(model)).revision != first


def test_what_has_just_changed_is_not_taken_for_known(model):
    path = model / "unet/diffusion_pytorch_model.safetensors"
    first = origin.find(str(model)).revision
    told = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, ns=(told.st_atime_ns, told.st_mtime_ns))
    assert origin.find(str(model)).revision != first


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "no diffusers pipeline (model_index.json is missing); give a text-to-image model"),
        (("model.safetensors",), "model.safetensors is a checkpoint of one file"),
        (("pytorch_lora_weights.safetensors",), "looks like a LoRA: give it as lora="),
        (("modular_model_index.json",), "modular pipelines can't be drawn with"),
    ],
)
def test_what_is_no_pipeline_is_told_with_what_it_is(tmp_path, names, said):
    for name in names:
        (tmp_path / name).write_text("")
    told = refused(tmp_path)
    assert told.startswith(f"{tmp_path}: ")
    assert said in told


def test_a_damaged_index_is_told(model):
    (model / "model_index.json").write_text('{"_class_name": ')
    assert "not JSON" in refused(model)
    (model / "model_index.json").write_text("[1, 2]")
    assert "model_index.json: this is [1, 2]: expected a valid dictionary" in refused(model)


def test_shards_that_name_others_files_are_refused(model):
    unet = model / "unet"
    weights(unet / "diffusion_pytorch_model-00001-of-00001.safetensors", 5)
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    own = "diffusion_pytorch_model-00001-of-00001.safetensors"
    index.write_text(json.dumps({"weight_map": {"a": own}}))
    assert origin.find(str(model)).fetch() == model
    for strange in ("../../../other.safetensors", "diffusion_pytorch_model.safetensors", ["x"]):
        index.write_text(json.dumps({"weight_map": {"a": own, "b": strange}}))
        assert f"names {strange!r} where a shard" in refused(model)
    index.write_text("{}")
    assert "names None where a shard" in refused(model)


def test_weights_cut_short_are_told(model):
    path = model / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"unet.*is no whole safetensors file; get it again"):
        origin.find(str(model)).component_widths()


# ---------------------------------------------------------------- pipelines of the library


def only(found: Origin, folder: Path) -> Path:
    """A copy of nothing but what is loaded."""
    for name in found.layout.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(found.folder / name, folder / name)
    return folder


def opened(folder: Path, **options):
    return library().DiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, **options
    )


@pytest.mark.parametrize("kind", ["sd15-checked", "flux", "qwen-image"])
def test_what_is_chosen_is_all_that_the_library_needs(kind, tmp_path, tmp_path_factory):
    found = origin.find(str(built(kind, tmp_path_factory)))
    pipeline = opened(only(found, tmp_path / "only"))
    assert type(pipeline).__name__ == found.pipeline_class
    sizes = found.component_bytes()
    for name, part in pipeline.components.items():
        if hasattr(part, "parameters"):
            stored = sum(one.numel() * one.element_size() for one in part.parameters())
            assert 0 <= sizes.pop(name) - stored < 40_000  # headers
    assert not sizes


def test_a_variant_in_shards_is_chosen_as_the_library_writes_it(tmp_path, tmp_path_factory):
    pipeline = opened(built("sd15", tmp_path_factory))
    both, half = tmp_path / "both", tmp_path / "half"
    pipeline.save_pretrained(both)
    pipeline.to(torch.float16).save_pretrained(half, variant="fp16", max_shard_size=20_000)
    shutil.copytree(half, both, dirs_exist_ok=True)
    found = origin.find(str(both), variant="fp16")
    assert found.variant == "fp16"
    assert sum("-of-" in name for name in found.layout.files) > 2
    assert set(found.component_widths().values()) == {2}
    assert opened(only(found, tmp_path / "only"), variant="fp16").unet is not None
    assert origin.find(str(both)).component_widths()["unet"] == 4


def test_what_holds_pickle_alone_is_refused(tmp_path):
    told = refused(build("sd15", tmp_path / "old", pickle=True))
    assert "unet/diffusion_pytorch_model.bin" in told
    assert "only safetensors are loaded" in told


# ---------------------------------------------------------------- the Hub

# The client reads its settings as it is imported: each test asks from a process of its own.
PROGRAM = """
import json, sys
from isekai.errors import IsekaiError
from isekai.sources.diffusers import origin
for given in json.loads(sys.argv[1]):
    fetch, widths = given.pop("fetch", False), given.pop("widths", False)
    try:
        found = origin.find(**given)
        told = {"revision": found.revision, "bytes": found.component_bytes()}
        told["files"], told["loaded"] = dict(found.files), found.layout.files
        if widths:
            told["widths"] = found.component_widths()
        if fetch:
            told["folder"] = str(found.fetch())
    except IsekaiError as error:
        told = str(error)
    print(json.dumps(told))
heavy = {"torch", "diffusers", "transformers"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.fixture
def ask(tmp_path):
    """What each model is found as, or the line that it is refused with."""

    def run(hub: Hub | None, *models: dict[str, object], **settings: str) -> list:
        environment = {
            **os.environ,
            "HF_ENDPOINT": hub.endpoint if hub else "http://127.0.0.1:9",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            **settings,
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", PROGRAM, json.dumps(models)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert not [told for told in answers if isinstance(told, str) and "\n" in told]
        return answers

    return run


ASKED = {"model": REPO}
FETCHED = {"model": REPO, "fetch": True}


def test_a_repository_is_known_before_its_weights_are_downloaded_and_then_only_these(ask, model):
    with serve(REPO, model, kind="models") as hub:
        found, wrong, unknown = ask(
            hub, ASKED, {"model": REPO, "revision": "v9"}, {"model": "someone/else"}
        )
        assert hub.sent == ["model_index.json"]
        assert found["revision"] == COMMIT
        assert found["bytes"] == origin.find(str(model)).component_bytes()
        assert found["files"] == dict(origin.find(str(model)).files)
        told = f"{REPO}: has no branch, tag or commit 'v9'; see {hub.endpoint}/{REPO}/tree/main"
        assert wrong == told
        assert unknown.startswith("someone/else: no such folder here, and no such model on the Hub")
        fetched, again = ask(hub, FETCHED, {**FETCHED, "revision": COMMIT})
        assert sorted(hub.sent) == LOADED
        assert fetched == again == {**found, "folder": fetched["folder"]}
    folder = Path(fetched["folder"])
    there = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert there == LOADED
    assert {name: (folder / name).read_bytes() for name in LOADED} == {
        name: (model / name).read_bytes() for name in LOADED
    }
    alone, forbidden = ask(None, FETCHED), ask(None, FETCHED, HF_HUB_OFFLINE="1")
    assert alone == forbidden == [fetched]


def test_how_wide_weights_are_is_known_from_their_first_bytes(ask, model):
    weights(model / "unet/diffusion_pytorch_model.safetensors", 200_000, np.float16)
    with serve(REPO, model, kind="models") as hub:
        [before] = ask(hub, {**ASKED, "widths": True})
        assert before["widths"] == {"text_encoder": 4, "unet": 2}
        assert hub.sent == ["model_index.json", LOADED[3], LOADED[5]]
        assert hub.ranges == ["bytes=0-100000"] * 2
        ask(hub, FETCHED)
        hub.asked.clear()
        [after] = ask(hub, {**ASKED, "widths": True})
        assert (after, hub.sent) == (before, [])
        (model / LOADED[3]).write_bytes(b"x" * 99)
    shutil.rmtree(model.parent / "hf")
    with serve(REPO, model, kind="models") as hub:
        [told] = ask(hub, {**ASKED, "widths": True})
    assert told == f"{REPO}: {LOADED[3]} is no whole safetensors file; get it again"


def test_a_file_that_is_not_whole_is_downloaded_again_and_no_other(ask, model):
    with serve(REPO, model, kind="models") as hub:
        [first] = ask(hub, FETCHED)
        torn, gone = (Path(first["folder"]) / name for name in (LOADED[3], LOADED[5]))
        torn.resolve().write_bytes(b"half")
        gone.resolve().unlink()
        hub.asked.clear()
        assert ask(hub, FETCHED) == [first]
        assert sorted(hub.sent) == [LOADED[3], LOADED[5]]
        assert torn.read_bytes() == (model / LOADED[3]).read_bytes()


def test_a_gated_repository_says_what_to_do_with_and_without_a_login(ask, model):
    with serve(REPO, model, kind="models", members={TOKEN}) as hub:
        page = f"{hub.endpoint}/{REPO}"
        [told] = ask(hub, FETCHED, HF_TOKEN="")
        assert told == (
            f"{REPO}: gated; accept its terms on {page}, then log in with `hf auth login` or "
            "$HF_TOKEN"
        )
        [told] = ask(hub, FETCHED, HF_TOKEN="hf_another")
        assert told == f"{REPO}: gated, and this login has no access; ask for it on {page}"
        [found] = ask(hub, FETCHED, HF_TOKEN=TOKEN)
        assert found["revision"] == COMMIT


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "no such folder here, and no such model on the Hub, or a private"),
        (401, "", "the Hub answers 401; the login is not accepted: renew it"),
        (403, "", "the Hub answers 403; the login is not accepted: renew it"),
        (500, "", "the Hub answers 500; try again later"),
    ],
)
def test_what_the_hub_refuses_is_told_in_one_line_without_the_token(ask, model, status, code, said):
    with serve(REPO, model, kind="models", status=status, error=code) as hub:
        [told] = ask(hub, ASKED, HF_TOKEN=TOKEN)
    assert told.startswith(f"{REPO}: {said}")


def test_a_hub_that_cannot_be_reached_is_told(ask):
    [told] = ask(None, ASKED)
    assert told == (
        f"{REPO}: no such folder here, and the Hub can't be reached; correct the path, or go online"
    )
    [told] = ask(None, ASKED, HF_HUB_OFFLINE="1")
    assert told == (
        f"{REPO}: no such folder here, not in the Hub's cache, and $HF_HUB_OFFLINE forbids asking "
        "the Hub; correct the path, or unset it"
    )


def test_what_does_not_fit_on_the_disk_is_told_before_the_download(ask, model):
    huge = model / "unet/diffusion_pytorch_model.safetensors"
    os.truncate(huge, 10 * 10**12)  # a file with a hole: it takes no space here
    with serve(REPO, model, kind="models") as hub:
        found, told = ask(hub, ASKED, FETCHED)
        assert found["bytes"]["unet"] == 10**13
        assert hub.sent == ["model_index.json"]
    assert told.startswith(f"{REPO}: 10000.0 GB are still to be downloaded and ")
    assert "GB are free in " in told
    assert "$HF_HOME" in told


@pytest.mark.parametrize("name", ["../../evil.json", "/evil.json"])
def test_a_list_of_files_that_leads_elsewhere_is_refused(ask, model, name):
    with serve(REPO, model, kind="models", also=(f"unet/{name}", name)) as hub:
        [told] = ask(hub, FETCHED)
    assert "which leads elsewhere; don't use this model" in told


def test_a_repository_that_runs_code_is_refused_and_its_code_is_not_downloaded(ask, tmp_path):
    folder = write(tmp_path / "own", index={**INDEX, "unet": ["code", "UNet"]})
    with serve(REPO, folder, kind="models") as hub:
        told, found = ask(hub, FETCHED, {**FETCHED, "trust_remote_code": True})
        assert told.startswith(f"{REPO}: runs code of its own (unet/code.py); read it")
        assert "unet/code.py" in found["loaded"]
        assert sorted(hub.sent) == sorted((*LOADED, "unet/code.py"))
