"""Exports write what they say, only where they may, the same again, and nothing that harms."""

import base64
import io
import json
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from isekai import dataset as datasets
from isekai import export, files, metadata, templates, variants
from isekai.errors import BusyError, DataError, IsekaiError, PluginError
from isekai.exports import conversation, keys, names, writing
from isekai.exports.cells import task_ids
from isekai.images import decode, encode
from isekai.types import EncodedImage
from model_adapters.openai_api import OpenAI
from tests.conftest import seal
from tests.exporting import CONTROLS, KEY, small, small_run
from tests.loopback import serve

FORMATS = sorted(export.FORMATS)


def make(dataset: Path, out: Path, to: str, **asked) -> Path:
    few = {"models": ("mixed",), "controls": ("none", "blind"), "hub_dataset": "me/isekai-20"}
    return export.run(small_run(dataset), **{"to": to, "out": out, **few, **asked})


def content(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


# ---------------------------------------------------------------- the step


@pytest.mark.parametrize("to", FORMATS)
def test_an_export_is_whole_listed_in_its_manifest_and_the_same_when_it_is_made_again(
    tiny_dataset, tmp_path, to
):
    first = content(make(tiny_dataset, tmp_path / "a", to))
    manifest = json.loads(first["export.json"])
    assert (manifest["complete"], manifest["to"]) == (True, to)
    assert manifest["sha256"] == {
        name: files.sha256(data) for name, data in first.items() if name != "export.json"
    }
    assert content(make(tiny_dataset, tmp_path / "b", to)) == first
    assert content(make(tiny_dataset, tmp_path / "a", to)) == first
    assert not list(tmp_path.rglob(".isekai-part-*"))


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_that_looks_like_a_key_leaves(tiny_dataset, tmp_path, to):
    import inspect_ai.log  # noqa: F401  lets zipfile read what logs are compressed with

    texts = []
    for name, data in content(make(tiny_dataset, tmp_path / "out", to)).items():
        if name.endswith(".eval"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                texts += [archive.read(member).decode() for member in archive.namelist()]
        elif name.endswith(".parquet"):
            texts.append(str(pq.read_table(io.BytesIO(data)).to_pylist()))
        elif not name.startswith("images/"):
            texts.append(data.decode())
    whole = "\n".join(texts)
    assert KEY not in whole
    assert '0123456789"' not in whole
    assert str(tiny_dataset) not in whole  # where things lie here is nobody's business
    assert to not in ("lm-eval", "inspect-log") or keys.REMOVED in whole


def test_the_default_place_is_in_the_folder_of_the_run(tiny_dataset, tmp_path):
    folder = shutil.copytree(small_run(tiny_dataset), tmp_path / "run")
    out = export.run(folder, to="lm-eval")
    assert out == folder / "exports" / "lm-eval"
    assert {"mixed.json", "chance-7.json"} <= set(content(out))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"to": "inspect-logs"}, "no export is called 'inspect-logs'; did you mean 'inspect-log'"),
        (
            {"to": "lm-eval", "models": ("mixd",)},
            "no model is called 'mixd' here; did you",
        ),
        (
            {"to": "lm-eval", "controls": ("blnd",)},
            "no control is called 'blnd' here; did",
        ),
        ({"to": "hub-results", "hub_dataset": ""}, "--hub-dataset NAME/DATASET"),
        ({"to": "hub-results", "hub_dataset": "me"}, "'me'; ids on the Hub are of the form"),
        ({"to": "hub-results", "hub_dataset": "a/b/c"}, "'a/b/c'; ids on the Hub are of the form"),
        ({"to": "hub-results", "controls": ("blind",)}, "has no accuracy on plain episodes"),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(tiny_dataset, tmp_path, asked, told):
    with pytest.raises(IsekaiError) as refused:
        make(tiny_dataset, tmp_path / "out", **asked)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_that_is_no_run_and_a_busy_one_are_refused(tiny_dataset, tmp_path):
    with pytest.raises(DataError, match="no run"):
        export.run(tmp_path, to="lm-eval", out=tmp_path / "out")
    with files.lock(tmp_path / "out"), pytest.raises(BusyError):
        make(tiny_dataset, tmp_path / "out", "lm-eval")


def test_a_missing_package_names_the_extra_that_brings_it(tiny_dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(PluginError, match=r"--to hub-results needs .*isekai-bench\[hub\]"):
        make(tiny_dataset, tmp_path / "out", "hub-results")


# ---------------------------------------------------------------- whose files


def test_files_of_others_and_changed_ones_are_never_touched(tiny_dataset, tmp_path):
    out = tmp_path / "out"
    files.write_text(out / "notes.txt", "mine")
    with pytest.raises(DataError, match=r"holds 'notes.txt' but no export.json"):
        make(tiny_dataset, out, "lm-eval")
    (out / "notes.txt").unlink()
    make(tiny_dataset, out, "lm-eval")
    files.write_text(out / "notes.txt", "mine")
    files.write_text(out / "chance-7.json", "mine, too")
    with pytest.raises(DataError, match=r"chance-7.json: not written by an export"):
        make(tiny_dataset, out, "lm-eval", models=())
    with pytest.raises(DataError, match="holds an export to lm-eval"):
        make(tiny_dataset, out, "hub-results")
    (out / "chance-7.json").unlink()
    files.write_text(out / "mixed.json", "{}")
    with pytest.raises(DataError, match=r"mixed.json: changed since it was exported"):
        make(tiny_dataset, out, "lm-eval")
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "mixed.json").read_text() == "{}"


def test_what_an_export_no_longer_makes_goes(tiny_dataset, tmp_path):
    out = make(tiny_dataset, tmp_path / "out", "lm-eval", models=())
    assert (out / "chance-7.json").exists()
    make(tiny_dataset, out, "lm-eval")
    assert not (out / "chance-7.json").exists()
    assert (out / "mixed.json").exists()


def test_an_export_killed_at_any_file_goes_on_and_ends_the_same(tmp_path):
    def made(bad: int | None):
        def make(place: int) -> bytes:
            if place == bad:
                raise KeyboardInterrupt
            return f"file {place}".encode()

        return {f"deep/{place}.txt": lambda place=place: make(place) for place in range(4)}

    writing.write(whole := _folder(tmp_path / "whole"), "lm-eval", made(None))
    for bad in range(4):
        out = _folder(tmp_path / str(bad))
        with pytest.raises(KeyboardInterrupt):
            writing.write(out, "lm-eval", made(bad))
        writing.write(out, "lm-eval", made(None))
        assert content(out) == content(whole)


def test_a_manifest_that_points_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "precious").write_text("mine")
    out = _folder(tmp_path / "out")
    for name in ("../precious", str(tmp_path / "precious")):
        told = {"kind": "export", "complete": False, "to": "lm-eval", "environment": {}}
        files.write_json(out / "export.json", {**told, "sha256": {name: ""}})
        with pytest.raises(DataError, match="lies outside the folder"):
            writing.write(out, "lm-eval", {})
    assert (tmp_path / "precious").read_text() == "mine"


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


# ---------------------------------------------------------------- the dataset


def test_a_dataset_that_was_moved_is_found_with_data_and_another_one_refused(
    tiny_dataset, tmp_path
):
    folder = shutil.copytree(small_run(tiny_dataset), tmp_path / "run")
    told = json.loads((folder / "results.json").read_text())
    told["provenance"]["dataset"]["path"] = str(tmp_path / "gone")
    files.write_json(folder / "results.json", told)
    seal(folder)
    asked = {"to": "inspect-task", "controls": ("none",)}
    with pytest.raises(DataError, match=r"gone: no such folder.*--data"):
        export.run(folder, out=tmp_path / "a", **asked)
    there = shutil.copytree(tiny_dataset, tmp_path / "moved")
    assert (export.run(folder, out=tmp_path / "b", data=str(there), **asked) / "task.py").exists()
    config = json.loads((folder / "config.json").read_text())
    files.write_json(folder / "config.json", {**config, "dataset": "0" * 64})
    seal(folder)
    with pytest.raises(DataError, match=r"not the dataset of this run"):
        export.run(folder, out=tmp_path / "c", data=str(there), **asked)
    assert (export.run(folder, out=tmp_path / "d", to="lm-eval") / "mixed.json").exists()


# ---------------------------------------------------------------- the messages


def sent(sweeps) -> list[list[dict]]:
    """The messages that the adapter for OpenAI-compatible servers sends for these."""
    with serve(answer=lambda support, query: "this") as server:
        adapter = OpenAI("tiny", base_url=server.url, cache=False)
        for sweep in sweeps:
            assert not [one.error for one in adapter.respond(sweep) if one.error]
        adapter.close()
        return [asked.body["messages"] for asked in server.asked]


def as_openai(messages) -> list[dict]:
    def block(part) -> dict:
        if part.picture is None:
            return {"type": "text", "text": part.text}
        data = base64.b64encode(part.picture.data).decode()
        url = f"data:{conversation.media_type(part.picture)};base64,{data}"
        return {"type": "image_url", "image_url": {"url": url}}

    return [
        {
            "role": message.role,
            "content": [block(part) for part in message.parts]
            if message.role == "user"
            else message.parts[0].text,
        }
        for message in messages
    ]


@pytest.mark.parametrize("template", templates.names())
def test_an_export_asks_what_the_adapter_for_servers_asks(tiny_dataset, template):
    """Every template, every control: roles, words, pictures and their order."""
    run = small(tiny_dataset)
    one_each = {episode.control: episode for episode in run.episodes}
    run = replace(
        run,
        config=replace(run.config, template=templates.read(template)),
        episodes=tuple(one_each.values()),
    )
    image = datasets.load(tiny_dataset).image
    asked = [as_openai(one.messages) for one in conversation.questions(run, image)]
    there = sent([templates.fold(one, run.config.template, image) for one in run.episodes])
    assert len(asked) == 8 * (1 + len(CONTROLS))
    assert sorted(map(json.dumps, asked)) == sorted(map(json.dumps, there))


def test_pictures_that_not_every_tool_reads_become_png_of_the_same_pixels(tiny_dataset):
    run = small(tiny_dataset)
    image = datasets.load(tiny_dataset).image

    def bitmap(id: str) -> EncodedImage:
        buffer = io.BytesIO()
        decode(image(id).data).save(buffer, "BMP")
        return EncodedImage(id=id, data=buffer.getvalue())

    question = next(iter(conversation.questions(run, bitmap, "isekai_twin_0shot")))
    (picture,) = [part.picture for part in question.messages[0].parts if part.picture]
    assert conversation.media_type(picture) == "image/png"
    assert conversation.file_name(picture) == f"{files.sha256(picture.data)}.png"
    original = image(run.episodes[0].queries[0].image_id)
    assert decode(picture.data).tobytes() == decode(original.data).tobytes()


# ---------------------------------------------------------------- names and keys


@given(st.sets(st.text(max_size=120), max_size=8))
def test_names_of_files_are_plain_short_and_never_alike(given_names):
    found = names.slugs(given_names)
    assert set(found) == given_names
    assert len(set(found.values())) == len(given_names)
    for slug in found.values():
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,99}", slug), slug
        assert ".." not in Path(slug).parts


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        "hf_" + "abcdefghijklmnopqrstuvwxyz",
        "ghp_" + "abcdefghijklmnopqrst",
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "AIza" + "SyA1234567890abcdefghijklmnopqrstu",
        "eyJhbGciOiJI" + ".eyJzdWIiOiIx" + ".c2lnbmF0dXJl",
        "Bearer abcdefghijklmnop",
        "api_key=abc123def456",
        'password": "hunter2hunter2"',
        "https://user:pass@example.org/",
    ],
)
def test_what_looks_like_a_key_is_removed_wherever_it_stands(key):
    kept = keys.without_keys(f"before {key} after")
    assert key not in kept
    assert keys.REMOVED in kept
    assert kept.startswith("before ")
    assert kept.endswith(" after")
    assert keys.cleaned({"said": [key, 1, None]}) == {"said": [keys.without_keys(key), 1, None]}


@pytest.mark.parametrize(
    "text",
    [
        "This is called blorp.",
        "a secret: the token is a task-specific risk-averse disk-image",
        "prompt_tokens: 100000000, label_tokens",
        "https://example.org/a@b",
        "data:image/png;base64,iVBORw0KGgo=",
        "The password is: cactihog",
    ],
)
def test_what_people_and_models_say_stays_as_it_is(text):
    assert keys.without_keys(text) == text


def test_controls_are_told_apart_by_the_names_of_their_tasks(tiny_dataset):
    known = variants.all_controls("fantasy", (0.0, 0.25, 0.5, 1.0), 3)
    cells = [("twin", control, 2) for control in ["none", *known]]
    ids = task_ids(cells)
    assert len(set(ids.values())) == len(cells)
    assert ids["twin", "none", 2] == "isekai_twin_2shot"
    assert ids["twin", "words=true+swap", 2] == "isekai_twin_words-true-swap_2shot"
    assert ids["twin", "false=0.25", 2] == "isekai_twin_false-0.25_2shot"


def test_a_picture_leaves_without_what_its_file_tells_of_it():
    bare = encode(Image.new("RGB", (9, 7), "teal"))
    told = metadata.packet({"concept": "hogs/cactihog", "prompt": "a cactihog"}, kind="")
    for form in ("png", "webp"):
        data = encode(Image.new("RGB", (9, 7), "teal"), form, told)
        assert b"cactihog" in data
        shown = conversation.portable(EncodedImage(id=files.sha256(data), data=data))
        assert b"cactihog" not in shown.data
        assert shown.id == files.sha256(shown.data)
        assert decode(shown.data).tobytes() == decode(data).tobytes()
    picture = EncodedImage(id="as stored", data=bare)
    assert conversation.portable(picture) is picture
