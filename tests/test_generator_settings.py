"""What a spec says of the generator itself: options of a source, for a group or one concept."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from isekai import cli, files, generate, redrawing, spec, verify
from isekai.choosing import choose
from isekai.errors import DataError, IsekaiError, SpecError
from isekai.images import decode
from isekai.types import Group, ImageRecord

PLUGIN = Path(__file__).parent / "data" / "plugin"

FILE = """
title = "ab"
parent = "thing"
prompts.subject = ["a thing"]
prompts.template = "{subject}"
%s
[[concepts]]
name = "one"
role = "novel"
novelty = "form"
definition = "x"
%s
[[concepts]]
name = "two"
role = "foil"
definition = "x"
"""


@pytest.fixture(autouse=True)
def _workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.setenv("PYTHONPATH", str(PLUGIN))
    Path("spec").mkdir()


def write(group: str = "", concept: str = "") -> None:
    Path("spec/ab.toml").write_text(FILE % (group, concept))


def draw(**how) -> list[ImageRecord]:
    given = {"spec": Path("spec"), "source": "tiny", "per_concept": 3, "size": 32, "workers": 1}
    generate.run(**{**given, **how}, out=Path("images"))
    return files.read_jsonl(Path("images/ledger.jsonl"), ImageRecord)


def tones(rows: list[ImageRecord]) -> dict[str, object]:
    return {row.concept: row.settings["tone"] for row in rows}


def test_a_concept_goes_before_its_group_and_the_user_before_both():
    write("generator.tiny.tone = 7", "generator.tiny.tone = 9")
    assert tones(draw()) == {"ab/one": 9, "ab/two": 7}
    assert tones(draw(options={"tone": 5}, force=True)) == {"ab/one": 5, "ab/two": 5}
    write("generator.folder.path = 'elsewhere'", "generator.tiny.tone = 9")
    assert tones(draw(force=True)) == {"ab/one": 9, "ab/two": 255}


def test_the_pictures_are_drawn_with_what_the_ledger_says():
    write("", "generator.tiny.tone = 9")
    for row in draw():
        drawn = np.asarray(decode((Path("images") / row.path).read_bytes()))
        assert drawn.max() < row.settings["tone"]
    told = json.loads(Path("images/manifest.json").read_text())["request"]
    assert told["settings"]["tone"] == 255
    [other] = told["variants"]
    assert (other["concepts"], other["settings"]["tone"]) == (["ab/one"], 9)


def test_only_what_is_set_otherwise_is_drawn_again():
    write("", "generator.tiny.tone = 9")
    before = {row.path: row.drawn_at for row in draw()}
    write("", "generator.tiny.tone = 10")
    with pytest.raises(DataError, match="tone 9, now 10"):
        draw()
    after = {row.path: row.drawn_at for row in draw(force=True)}
    assert {path for path in before if before[path] == after[path]} == {
        f"ab/two/{index:04d}.png" for index in range(3)
    }


def test_several_workers_draw_the_same(tmp_path):
    write("", "generator.tiny.tone = 9")
    alone = [row.id for row in draw(per_concept=12)]
    (tmp_path / "images").rename(tmp_path / "before")
    assert [row.id for row in draw(per_concept=12, workers=2)] == alone


def test_a_dry_run_tells_which_concepts_are_drawn_otherwise():
    write("", "generator.tiny.tone = 9")
    told = generate.forecast(
        generate.plan(spec=Path("spec"), source="tiny", per_concept=1, size=32)
    ).splitlines()
    sources = [line for line in told if line.startswith("source:")]
    assert len(sources) == 2
    assert sources[1].endswith(", tone=9 for ab/one")


def test_verify_draws_again_with_the_settings_of_the_concept():
    write("", "generator.tiny.tone = 9")
    draw()
    report = verify.run(Path("images"), regenerate=6)
    assert [one.outcome for one in report.redrawn] == ["same bytes"] * 6


def test_a_strangers_folder_can_not_run_code_by_its_generator_settings():
    write()
    [row, *_] = draw()
    groups = files.read_json(Path("images/groups.json"), list[dict[str, object]])
    groups[0]["concepts"][0]["generator"] = {"tiny": {"trust_remote_code": True}}  # type: ignore[index]
    files.write_json(Path("images/groups.json"), groups)
    with pytest.raises(DataError, match="trust_remote_code; if you trust"):
        verify.run(Path("images"), regenerate=6)
    assert row.concept == "ab/one"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("generator.tny.tone = 9", "generator.tny: no source is called so; did you mean 'tiny'"),
        ("generator.diffusers.trust_remote_code = true", "can't be given by a file; give it with"),
        ("generator.openai.base_url = 'http://x'", "base_url can't be given by a file"),
        ("generator.tiny = 9", "generator"),
    ],
)
def test_what_a_file_can_not_say_is_told_for_groups_and_concepts(text, told):
    for given in ((text, ""), ("", text)):
        write(*given)
        with pytest.raises(SpecError, match=told):
            spec.load(Path("spec"))


def test_a_setting_that_the_source_does_not_have_is_told_with_its_concept():
    write("", "generator.tiny.tine = 9")
    told = r"ab/one: its generator settings: .*'tine'; did you mean"
    with pytest.raises(IsekaiError, match=told):
        draw()
    assert not Path("images").exists()
    write("", "generator.tiny.tone = 'loud'")
    with pytest.raises(IsekaiError, match=r"ab/one: its generator settings: .*option tone='loud'"):
        draw()


def test_what_stands_after_the_colon_goes_before_the_spec():
    chosen = choose("tiny:0.01", {})
    assert chosen.having({"wait": 9.0}) is chosen.source


def test_the_same_settings_give_the_same_source():
    chosen = choose("tiny", {})
    assert chosen.having({"tone": 3}) is chosen.having({"tone": 3})
    assert chosen.having({}) is chosen.source


def test_groups_of_a_folder_of_images_come_back_with_their_settings():
    write("", "generator.tiny.tone = 9")
    draw()
    [group] = files.read_json(Path("images/groups.json"), tuple[Group, ...])
    assert group.concepts[0].generator == {"tiny": {"tone": 9}}
    assert "variants" not in redrawing.NOT_OF_THE_SOURCE


def test_a_dry_run_tells_only_what_is_heeded():
    write("", "generator.tiny.tone = 9\ngenerator.tiny.wait = 0.5")
    work = generate.plan(
        spec=Path("spec"), source="tiny", options={"tone": 5}, per_concept=1, size=32
    )
    assert [variant.options for variant in work.variants] == [{}, {"wait": 0.5}]


def test_the_command_line_shows_the_settings():
    write("", "generator.tiny.tone = 9")
    words = ["generate", "--spec=spec", "--source=tiny", "--per-concept=1", "--dry-run"]
    told = CliRunner().invoke(cli.app, words)
    assert told.exit_code == 0, told.output
    assert "tone=9 for ab/one" in told.output
