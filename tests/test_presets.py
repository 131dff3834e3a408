"""Names of models: what the file says holds of the installed library, and what a name can be."""

import ast
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.errors import IsekaiError, PluginError, SpecError
from isekai.sources.diffusers import presets
from isekai.sources.diffusers.presets import Preset

PIPELINES = {
    "cogview4": "cogview4/pipeline_cogview4",
    "flux1": "flux/pipeline_flux",
    "flux2-dev": "flux2/pipeline_flux2",
    "flux2-klein": "flux2/pipeline_flux2_klein",
    "pixart": "pixart_alpha/pipeline_pixart_sigma",
    "qwen": "qwenimage/pipeline_qwenimage",
    "sana15": "sana/pipeline_sana",
    "sd15": "stable_diffusion/pipeline_stable_diffusion",
    "sd35": "stable_diffusion_3/pipeline_stable_diffusion_3",
    "sdxl": "stable_diffusion_xl/pipeline_stable_diffusion_xl",
    "z-image": "z_image/pipeline_z_image",
}
"""What a preset's name begins with -> the file of its pipeline, under diffusers/pipelines."""

CLIP = 77


def parameters(name: str) -> list[str]:
    """What the pipeline's call takes, as written in the installed source: it is slow to import."""
    [path] = {path for key, path in PIPELINES.items() if name.startswith(key)}
    package = find_spec("diffusers")
    assert package
    assert package.origin
    source = Path(package.origin).parent / "pipelines" / f"{path}.py"
    [call] = [
        node
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "__call__"
    ]
    return [argument.arg for argument in call.args.args]


@pytest.mark.parametrize("name", presets.load())
def test_a_preset_says_all_that_a_run_needs_and_its_pipeline_takes_it(name):
    preset, taken = presets.load()[name], parameters(name)
    assert preset.licence
    assert {"prompt", "height", "width", "num_inference_steps", "generator"} <= set(taken)
    assert preset.guidance is not None
    assert (preset.guidance_argument or "guidance_scale") in taken
    assert None not in (preset.size, preset.steps, preset.dtype, preset.tokens)
    if preset.negative_prompts:
        assert "negative_prompt" in taken
    else:
        assert preset.guidance <= 1 or "true_cfg_scale" in taken or "flux2" in name
    assert ("max_sequence_length" in taken) == (preset.tokens != CLIP)
    assert bool(preset.refiner) == ("denoising_end" in taken and preset.switch is not None)


def test_the_default_may_be_used_for_anything_and_is_asked_for_by_no_name():
    chosen = presets.load()[presets.default()]
    assert chosen.licence in ("apache-2.0", "mit")
    assert presets.resolve() == presets.resolve(presets.default()) == chosen


def test_a_repository_that_a_preset_names_is_run_as_the_preset_says_at_the_revision_asked_for():
    plain = presets.load()["sdxl"]
    assert presets.resolve(plain.repo) == plain
    assert presets.resolve(f"{plain.repo}@v1.2/x") == replace(plain, revision="v1.2/x")


def test_any_other_repository_or_folder_is_left_to_its_pipeline(tmp_path, monkeypatch):
    assert presets.resolve("someone/else@abc") == Preset(repo="someone/else", revision="abc")
    folder = tmp_path / "owner" / "name"
    folder.mkdir(parents=True)
    assert presets.resolve(str(folder)) == Preset(repo=str(folder), revision="")
    monkeypatch.chdir(tmp_path)
    assert presets.resolve("owner/name") == Preset(repo="owner/name", revision="")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert presets.resolve("~/owner").repo == str(tmp_path / "owner")


def test_settings_override_and_nothing_does_not():
    got = presets.resolve("sd15", steps=20, guidance=3, scheduler="DDIMScheduler", size=None)
    assert got == replace(presets.load()["sd15"], steps=20, guidance=3.0, scheduler="DDIMScheduler")


def outcome(model: str) -> Preset | str:
    """What is found, or what is said."""
    try:
        return presets.resolve(model)
    except PluginError as error:
        return str(error)


@given(text=st.text(max_size=400))
def test_whatever_is_asked_for_is_found_or_refused_in_one_line(text):
    found = outcome(text)
    assert isinstance(found, Preset) or (
        found.startswith(f"model {text!r}: no preset") and len(found.splitlines()) == 1
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("zimage-turbo", "did you mean 'z-image-turbo'"),
        ("black-forest-labs", "not of the form owner/name"),
        ("../up/and/away", "no folder here"),
        ("owner/..", "not of the form owner/name"),
        ("owner/name@", "after the '@'"),
        ("owner/name@a b", "not of the form owner/name"),
    ],
)
def test_what_is_no_model_is_told_in_one_line(model, said):
    with pytest.raises(PluginError) as caught:
        presets.resolve(model)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"stepz": 3}, "no setting 'stepz'; did you mean 'steps'?"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": "many"}, "steps is 'many'"),
        ({"dtype": "bfloat"}, "did you mean 'bfloat16'"),
        ({"guidance": -1}, "guidance is -1.0"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"scheduler": "os.system"}, "scheduler is 'os.system'"),
        ({"variant": "../x"}, "variant is '../x'"),
        ({"switch": 0.5}, "no refiner is named"),
        ({"refiner": "a/b"}, "switch is missing"),
        ({"refiner": "a/b", "switch": 1.0}, "switch is 1.0"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(settings, said):
    with pytest.raises(IsekaiError) as caught:
        presets.resolve("sd15", **settings)
    assert said in str(caught.value)


def test_every_problem_of_the_file_is_told_at_once(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text('default = "a"\n[models.a]\nstepz = 1\nsize = "x"\n[models.b]\nrepo = 3\n')
    with pytest.raises(SpecError) as caught:
        presets.load(path)
    assert [problem.split(": ")[1] for problem in caught.value.problems] == [
        "models.a.repo is missing",
        "models.a.size is 'x'",
        "models.a.stepz is not a field; did you mean 'steps'?",
        "models.b.repo is 3",
    ]
    path.write_text('default = "c"\n[models.B]\nrepo = "b"\nsteps = 0\n[models.a]\nrepo = "o/a"\n')
    with pytest.raises(SpecError) as caught:
        presets.load(path)
    assert [problem.split(": ", 1)[1] for problem in caught.value.problems] == [
        "models.B: a name is lower-case letters, digits, '.' and '-'",
        "models.B.repo is 'b': expected owner/name",
        "models.B.steps is 0: expected a whole number from 1",
        "default is 'c', which is no model here; known: B, a",
    ]
    path.write_text("default =")
    with pytest.raises(SpecError, match="not TOML"):
        presets.load(path)
