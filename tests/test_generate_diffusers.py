"""The whole command on tiny real pipelines: every kind, killed workers, full disks, no model."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isekai import files, generate, metadata, spec, verify
from isekai.choosing import choose
from isekai.errors import DataError, IsekaiError
from isekai.images import decode
from isekai.types import ImageRecord
from tests import pipelines

ISEKAI = (sys.executable, "-c", "from isekai.cli import main; main()")

KINDS = sorted(set(pipelines.PIPELINES) - {"sdxl-refiner"})


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def draw(model: Path, out: str = "images", **how) -> Path:
    own = {"model": str(model), "steps": 2, "devices": "cpu", "batch": 2, **how.pop("options", {})}
    given = {"groups": "cactihog", "per_concept": 2, "size": 64, "gates": (), "workers": 1}
    return generate.run(source="diffusers", options=own, **{**given, **how}, out=Path(out))


def ledger(out: str = "images") -> list[ImageRecord]:
    return files.read_jsonl(Path(out) / "ledger.jsonl", ImageRecord)


def ids(out: str = "images") -> dict[str, str]:
    return {row.path: row.id for row in ledger(out)}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pipeline_draws_and_tells_how(kind, tmp_path_factory):
    folder = pipelines.built(kind, tmp_path_factory)
    draw(folder)
    rows = ledger()
    assert len(rows) == 6
    assert len({row.id for row in rows}) == 6
    for row in rows:
        data = (Path("images") / row.path).read_bytes()
        assert np.asarray(decode(data)).std() > 1
        assert decode(data).size == (64, 64)
        told = metadata.read(data)
        assert told == metadata.of(row)
        assert (told["prompt"], told["seed"]) == (row.prompt, row.seed)
        assert metadata.digital_source(data) == "trainedAlgorithmicMedia"
        assert row.settings["steps"] == 2
        assert {"device", "seconds"} <= row.made.keys()
        assert row.made["called"]["num_inference_steps"] == 2
        assert isinstance(row.made["called"]["guidance_scale"], float | None)
        assert row.prompt == spec.expand(
            next(c for g in spec.load(None, "cactihog") for c in g.concepts if c.id == row.concept),
            row.index,
        )


def test_a_second_run_has_nothing_to_do_and_loads_nothing(tmp_path_factory, capsys):
    folder = pipelines.built("sd15", tmp_path_factory)
    draw(folder)
    before = {path: path.stat().st_mtime_ns for path in Path("images").rglob("*.*")}
    done = subprocess.run(
        [*words(folder), "--out=images", "--workers=1"], capture_output=True, text=True
    )
    assert "complete, nothing to do" in done.stderr
    assert before == {path: path.stat().st_mtime_ns for path in Path("images").rglob("*.*")}


def test_what_was_drawn_is_drawn_again_to_the_same_bytes(tmp_path_factory):
    draw(pipelines.built("sd15", tmp_path_factory), options={"batch": 1})
    report = verify.run(Path("images"), regenerate=3)
    assert report.is_well
    told = verify.summary(report)
    assert [row["outcome"] for row in told["redrawn"]] == ["same bytes"] * 3, told


def test_a_spec_gives_single_concepts_settings_of_their_own(tmp_path_factory, capsys):
    """Even another model: one is let go before the next is loaded."""
    other = pipelines.built("sdxl", tmp_path_factory)
    Path("spec").mkdir()
    text = (spec.folder() / "isekai-20" / "cactihog.toml").read_text()
    own = f'[concepts.generator.diffusers]\nguidance = 3.5\nmodel = "{other}"\n[concepts.prompts]'
    Path("spec/cactihog.toml").write_text(text.replace("[concepts.prompts]", own, 1))
    source = choose("diffusers", {"steps": 2, "devices": "cpu", "batch": 1})
    first = pipelines.built("sd15", tmp_path_factory)
    text = Path("spec/cactihog.toml").read_text()
    text = text.replace("[prompts]", f'[generator.diffusers]\nmodel = "{first}"\n[prompts]', 1)
    Path("spec/cactihog.toml").write_text(text)
    generate.run(spec=Path("spec"), source="diffusers", gates=(), per_concept=2, size=64, workers=1,
                 options=dict(source.asked["options"]), out=Path("images"))  # fmt: skip
    told = {row.concept: (row.settings["pipeline"], row.settings["guidance"]) for row in ledger()}
    assert told == {
        "cactihog/cactihog": ("StableDiffusionXLPipeline", 3.5),
        "cactihog/prismog": ("StableDiffusionPipeline", None),
        "cactihog/hedgehog": ("StableDiffusionPipeline", None),
    }
    for row in ledger():
        assert metadata.read((Path("images") / row.path).read_bytes()) == metadata.of(row)
    report = verify.run(Path("images"), regenerate=6)
    assert {one.outcome for one in report.redrawn} == {"same bytes"}


# ---------------------------------------------------------------- several workers, and their end


def words(model: Path, steps: int = 2) -> list[str]:
    options = [f"steps={steps}", "devices=cpu", "batch=1"]
    return [
        *ISEKAI,
        "generate",
        "--source=diffusers",
        f"--model={model}",
        "--groups=cactihog",
        "--per-concept=2",
        "--size=64",
        "--gate=none",
        *(word for option in options for word in ("-o", option)),
    ]


def children(pid: int) -> list[int]:
    """Processes whose parent this is, by the kernel's own list."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in task.read_text().split()]
    return found


def workers_of(pid: int) -> list[int]:
    return [
        child
        for child in children(pid)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_workers_that_are_killed_at_random_leave_the_same_set_of_images(tmp_path_factory):
    folder = pipelines.built("sd15", tmp_path_factory)
    slow = 30  # steps: so that there is something left to do when a worker dies
    draw(folder, "whole", per_concept=8, options={"batch": 1, "steps": slow})
    command = [*words(folder, slow), "--workers=2", "--out=chaos", "--per-concept=8"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    rng, killed = random.Random(7), 0
    while process.poll() is None and killed < 2:
        time.sleep(rng.uniform(0.02, 0.1))
        rows = Path("chaos/ledger.jsonl")
        drawn = rows.read_bytes().count(b"\n") if rows.exists() else 0
        alive = workers_of(process.pid)
        if alive and drawn >= 2 * killed + 1:
            os.kill(rng.choice(alive), signal.SIGKILL)
            killed += 1
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    assert killed == 2
    assert told.count("a worker process died; another one takes up its images") >= 2
    assert ids("chaos") == ids("whole")


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scheduler": "EulerDiscretScheduler"}, "did you mean 'EulerDiscreteScheduler'"),
        ({"steps": 0}, "steps"),
        ({"dtype": "float17"}, "dtype"),
        ({"lora": "nothing.safetensors"}, "nothing.safetensors"),
    ],
)
def test_a_wrong_option_is_one_line_before_anything_is_drawn(options, told, tmp_path_factory):
    with pytest.raises(IsekaiError) as caught:
        draw(pipelines.built("sd15", tmp_path_factory), options=options)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(Path().rglob("*.png"))


def test_a_folder_with_pickles_alone_is_refused(tmp_path_factory):
    folder = pipelines.built("sd15", tmp_path_factory, pickle=True)
    with pytest.raises(IsekaiError, match="safetensors"):
        draw(folder)


def test_a_decoder_that_gives_no_numbers_ends_the_run_in_one_line(tmp_path_factory):
    with pytest.raises(IsekaiError, match="is finite in float32") as caught:
        draw(pipelines.built("sd15", tmp_path_factory, nan_vae=True), per_concept=4)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_nowhere_is_refused_at_once():
    with pytest.raises(IsekaiError, match="nowhere"):
        draw(Path("nowhere/at/all"))


def test_a_dry_run_tells_prompts_counts_hours_and_disk_without_a_model(tmp_path_factory):
    folder = pipelines.built("sd15", tmp_path_factory)
    done = subprocess.run([*words(folder), "--dry-run"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "6 images of 3 concepts in 1 groups" in done.stdout
    assert "disk: about" in done.stdout
    assert "hour" in done.stdout or "second" in done.stdout or "minute" in done.stdout
    assert done.stdout.count("hedgehog") > 3
    assert not Path("images").exists()


def test_the_ledger_has_what_json_can_hold(tmp_path_factory):
    draw(pipelines.built("sd15-checked", tmp_path_factory))
    for row in ledger():
        json.dumps(files.plain(row), allow_nan=False)
        assert row.scores["safety.flagged"] in (0.0, 1.0)
        assert np.asarray(decode((Path("images") / row.path).read_bytes())).std() > 1


def test_a_gate_that_passes_nothing_is_an_error_with_the_first_reason(tmp_path_factory):
    with pytest.raises(DataError, match="no image could be drawn; the first: flat"):
        draw(
            pipelines.built("sd15", tmp_path_factory),
            gates=("flat?min_deviation=120",),
            tries=2,
        )
    assert len(list(Path("images/rejected").rglob("*.png"))) == 12


def test_code_of_a_model_runs_only_if_the_user_says_so(tmp_path_factory):
    shutil.copytree(pipelines.built("sd15", tmp_path_factory), "foreign")
    Path("foreign/own.py").write_text("raise RuntimeError('it ran')")
    index = json.loads(Path("foreign/model_index.json").read_text())
    index["_class_name"] = ["own", "OwnPipeline"]
    Path("foreign/model_index.json").write_text(json.dumps(index))
    told = subprocess.run(words(Path("foreign")), capture_output=True, text=True)
    assert told.returncode == 1
    assert "runs code of its own (own.py)" in told.stderr
    trusted = [*words(Path("foreign")), "--trust-remote-code"]
    assert "it ran" in subprocess.run(trusted, capture_output=True, text=True).stderr
