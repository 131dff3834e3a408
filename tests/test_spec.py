"""Prompt specs: read strictly, told completely, expanded the same way for ever."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai import spec
from isekai.errors import IsekaiError, SpecError
from isekai.files import parse, plain
from isekai.types import Concept, Group, Prompts

GOOD = """
title = "Hogs"
parent = "hedgehog"
prompts.style = {"a photo" = 3, "a drawing" = 1}
prompts.setting = ["on a lawn", "in a box"]
prompts.template = "{style} of {subject}, {setting}"

[[concepts]]
name = "Cacti Hög"
role = "novel"
novelty = "blend"
parents = ["cactus", "hedgehog"]
definition = "A hedgehog that is a cactus."
prompts.subject = "a cactus hedgehog"
sketch = ["body", "spines"]
diagnostic = ["spines"]

[[concepts]]
name = "hedgehog"
role = "foil"
definition = "A small animal."
prompts = {subject = "a hedgehog", setting = "in a hand"}
sketch = ["body"]

[parts.body]
shape = "ball"
size = [1]

[parts.spines]
shape = "cone"
size = [0.1, 0, 0.4, 0]
cover = 60
"""


def written(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return folder


def problems(folder: Path) -> tuple[str, ...]:
    with pytest.raises(SpecError) as caught:
        spec.load(folder)
    return caught.value.problems


def test_a_group_file_becomes_a_group(tmp_path):
    (group,) = spec.load(written(tmp_path, hogs=GOOD))
    novel, foil = group.concepts
    assert (group.id, group.title, group.parent) == ("hogs", "Hogs", "hedgehog")
    assert (novel.id, novel.name, novel.group) == ("hogs/cacti-hog", "Cacti Hög", "hogs")
    assert (foil.role, foil.novelty) == ("foil", None)
    assert [part.name for part in novel.sketch.parts] == ["body", "spines"]
    assert novel.sketch.parts[1].cover == 60
    assert foil.prompts.axes["setting"] == {"in a hand": 1}


def test_a_group_survives_the_way_through_json(tmp_path):
    groups = spec.load(written(tmp_path, hogs=GOOD))
    assert parse(tuple[Group, ...], plain(groups), "groups.json") == groups


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ('title = "Hogs"\n', "", "title is missing"),
        ("parent =", "parnt =", "parnt is not a field; did you mean 'parent'"),
        ("parents =", "parrents =", "concepts[0].parrents is not a field; did you mean 'parents'"),
        ('"novel"', '"nvel"', "concepts[0].role is 'nvel': expected 'novel' or 'foil'"),
        ('novelty = "blend"\n', "", "concepts[0].novelty is missing"),
        ('"Cacti Hög"', '"日本"', "concepts[0].name is '日本'; add an id"),
        ('"Cacti Hög"', '"Hedgehog"', "2 concepts have the name 'hedgehog'"),
        ('"Cacti Hög"', '"hedge-hog"\nid = "hedgehog"', "2 concepts have the id 'hogs/hedgehog'"),
        ("= 3,", "= 0,", "prompts.style is {'a photo': 0, 'a drawing': 1}: expected a text, a"),
        ('["on a lawn", "in a box"]', "[]", "prompts.setting is []: expected"),
        ('["on a lawn", "in a box"]', "[[1]]", "prompts.setting is [[1]]: expected"),
        ("prompts.setting", 'prompts."a b"', "an axis is a word of letters"),
        ("prompts.setting", "prompts.seting", "the axis 'setting', which has no wordings; did"),
        (", {setting}", "", "prompts.setting is an axis that the template never names"),
        (", {setting}", ", {setting} {}", "stray brace"),
        (", {setting}", ", {setting!r}", "stray brace"),
        ('"{style} of {subject}, {setting}"', "4", "the template is 4: expected a text"),
        ('["body", "spines"]', '["boddy", "spines"]', "'boddy'; did you mean 'body'?"),
        ('["spines"]', '["spikes"]', "'spikes', which its sketch does not use; did"),
        ('"cone"', '"con"', "parts.spines.shape is 'con'; did you mean 'cone'"),
        ("[0.1, 0, 0.4, 0]", "[0.1]", "parts.spines.size has 1 numbers; a cone takes 4: foot"),
        ("size = [1]", "size = [-1]", "parts.body.size is [-1.0]: lengths must be above zero"),
        ("size = [1]", "size = [inf]", "parts.body: size[0] is inf: expected a finite number"),
        ("size = [1]", "sise = [1]", "parts.body: sise is not a field; did you mean 'size'?"),
        ("cover = 60", "cover = 9999", "parts.spines.cover is 9999; 1 to 200"),
        ("cover = 60", 'material = "metl"', "material is 'metl'; did you mean 'metal'"),
        ("cover = 60", 'pattern = "dot"', "pattern is 'dot'; did you mean 'dots'"),
        ("cover = 60", "paint = 5", "paint is 5; slots are 0 to 4"),
        ("cover = 60", 'name = "x"', "parts.spines.name is not a field"),
        ("parent =", "parent", "not TOML"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_place(tmp_path, good, bad, told):
    assert good in GOOD
    found = problems(written(tmp_path / "my-spec", hogs=GOOD.replace(good, bad, 1)))
    assert all(problem.startswith("my-spec/hogs.toml: ") for problem in found)
    assert any(told in problem for problem in found), found


def test_all_problems_of_all_files_are_told_at_once(tmp_path):
    found = problems(
        written(
            tmp_path,
            one=GOOD.replace("parent =", "parnt =").replace('"cone"', '"con"').replace("3,", "0,"),
            two=GOOD.replace('["spines"]', '["spikes"]'),
            Three=GOOD,
        )
    )
    assert len(found) == 6
    assert {problem.split(": ")[0].split("/")[1] for problem in found} == {
        "one.toml",
        "two.toml",
        "Three.toml",
    }


def test_a_novel_name_belongs_to_one_group(tmp_path):
    folder = written(tmp_path, one=GOOD, two=GOOD.replace("Cacti Hög", "CACTI HÖG"))
    assert problems(folder) == ("'CACTI HÖG' is the name of both one/cacti-hog and two/cacti-hog",)


def test_a_folder_without_specs_and_odd_files_are_told(tmp_path):
    assert "no group files" in problems(tmp_path)[0]
    assert "no group files" in problems(tmp_path / "none")[0]
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "dangling.toml").symlink_to("nowhere")
    (tmp_path / "binary.toml").write_bytes(b"\xff")
    (tmp_path / "._hidden.toml").write_bytes(b"\xff")
    assert [problem.rsplit(".toml: ")[1] for problem in problems(tmp_path)] == [
        "not UTF-8 text (byte 0)",
        "no such file",
        "this is a folder, not a file; choose another path",
    ]


def test_groups_are_chosen_by_name_in_the_order_asked(tmp_path):
    other = GOOD.replace("Cacti Hög", "prismog")
    groups = spec.load(written(tmp_path, hogs=GOOD, rocks=other))
    assert [g.id for g in spec.select(groups, "rocks, hogs,rocks")] == ["rocks", "hogs"]
    assert spec.select(groups, "all") == groups
    with pytest.raises(IsekaiError, match="no group is called 'rock'; did you mean 'rocks'"):
        spec.select(groups, "rock,hogs")
    with pytest.raises(IsekaiError, match="no group is named"):
        spec.select(groups, " ,")


axes = st.dictionaries(
    st.sampled_from(["style", "subject", "place"]),
    st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 4), min_size=1, max_size=3),
    min_size=1,
)


@given(axes=axes, blocks=st.integers(1, 3))
def test_every_whole_block_of_prompts_keeps_the_quotas(axes, blocks):
    template = "|".join(f"{{{name}}}" for name in axes)
    concept = Concept(
        id="a/b", name="b", role="novel", prompts=Prompts(template=template, axes=axes)
    )
    for name, axis in axes.items():
        alone = Concept(
            id="a/b",
            name="b",
            role="novel",
            prompts=Prompts(template=f"{{{name}}}", axes={name: axis}),
        )
        drawn = Counter(spec.expand(alone, i) for i in range(blocks * sum(axis.values())))
        assert drawn == {wording: blocks * quota for wording, quota in axis.items()}
    assert spec.expand(concept, 0) == spec.expand(concept, 0)


def test_prompts_vary_combinations_and_do_not_change_with_other_axes(tmp_path):
    (group,) = spec.load(written(tmp_path, hogs=GOOD))
    prompts = [spec.expand(group.concepts[0], index) for index in range(32)]
    assert len(set(prompts)) == 4
    assert prompts[0] == "a photo of a cactus hedgehog, on a lawn"
    assert spec.expand(Concept(id="a/b", name="b", role="foil"), 3) == ""


@given(st.text(max_size=5), st.integers(0, 9), st.integers(0, 9))
def test_seeds_come_from_the_identity_alone_and_differ(concept, index, base):
    seed = spec.seed(concept, index, base)
    assert 0 <= seed < 2**63
    assert seed == spec.seed(concept, index, base)
    assert seed != spec.seed(concept, index + 1, base) != spec.seed(concept, index, base + 1)


def test_the_seed_of_an_image_never_changes():
    assert spec.seed("cactihog/cactihog", 0, 0) == 2184035977266013157


def test_a_slug_is_plain_ascii():
    assert spec.slug("Cacti  Hög!") == "cacti-hog"
    assert spec.slug("Ice·Mic 2") == "ice-mic-2"
    assert spec.slug("日本") == ""


def test_mistakes_in_keys_words_and_names_are_all_told_at_once(tmp_path):
    folder = written(
        tmp_path,
        hogs="""
title = "Hogs"
parent = "hedgehog"
[[concepts]]
name = "cactihog"
role = "fiol"
definition = "x"
sketch = ["body", "arm-tipz"]
diagnostic = ["arm-tips", "ribz"]
[parts.body]
shape = "eggg"
turnn = [0, 0, 0]
[parts.arm-tips]
shape = "ball"
size = [0.1]
""",
    )
    with pytest.raises(SpecError) as caught:
        spec.load(folder)
    told = "\n".join(caught.value.problems)
    for needed in (
        "concepts[0].role is 'fiol'", "did you mean 'foil'?",
        "parts.body: turnn is not a field; did you mean 'turn'?",
        "parts.body.shape is 'eggg'; did you mean 'egg'?",
        "concepts[0].sketch names the part 'arm-tipz'; did you mean 'arm-tips'?",
        "concepts[0].diagnostic names 'ribz'",
    ):  # fmt: skip
        assert needed in told
    assert "diagnostic names 'arm-tips'" not in told  # that follows from the misspelt sketch


def test_a_name_that_no_path_can_carry_asks_for_an_id_and_control_characters_are_refused(tmp_path):
    text = """
title = "x"
parent = "x"
[[concepts]]
name = "日本"
role = "foil"
definition = "a\\u001bb"
"""
    with pytest.raises(SpecError) as caught:
        spec.load(written(tmp_path, x=text))
    told = "\n".join(caught.value.problems)
    assert "concepts[0].name is '日本'; add an id" in told
    assert "concepts[0].definition holds a control character" in told
