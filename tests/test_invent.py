"""Inventing groups: the stated distance, names, determinism, and sketches that can be drawn."""

import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai import anatomy, invent, spec
from isekai.errors import DataError, IsekaiError
from isekai.sources.procedural.scene import VISIBLE, compose
from isekai.sources.procedural.solid import loose
from isekai.spec import parse_group


def parsed(count: int, seed: int, distance: int = 2) -> list:
    return [
        parse_group(id, tomllib.loads(text), f"{id}.toml")
        for id, text in invent.groups(count, seed, distance)
    ]


@given(seed=st.integers(0, 2**32), distance=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_twin_and_foil_differ_from_the_concept_by_exactly_the_distance(seed: int, distance: int):
    rng = np.random.default_rng(seed)
    foil, concept, twin = invent._makes(rng, distance)
    assert len(invent.differences(concept, anatomy.FOILS[foil])) == distance
    assert len(invent.differences(concept, twin)) == distance
    assert len(invent.differences(twin, anatomy.FOILS[foil])) >= distance


@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None)
def test_invented_groups_are_valid_specs_with_two_novel_concepts_and_a_foil(seed: int):
    for group in parsed(3, seed):
        assert [c.role for c in group.concepts] == ["novel", "novel", "foil"]
        assert group.concepts[2].name == group.parent
        for concept in group.concepts:
            assert concept.definition.endswith(".")
            assert "  " not in spec.expand(concept, 0)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_every_invented_sketch_hangs_together(seed: int):
    for group in parsed(2, seed):
        for concept in group.concepts:
            assert concept.sketch is not None
            assert loose(concept.sketch) == (), concept.definition


@pytest.mark.parametrize("part", sorted(anatomy.FEET | anatomy.CROWNS | anatomy.FLANKS))
def test_every_limb_holds_on_to_every_body(part: str):
    for body in anatomy.BODIES:
        for position, table in ((1, anatomy.FEET), (2, anatomy.CROWNS), (3, anatomy.FLANKS)):
            if part not in table:
                continue
            make = [body, "none", "none", "none", "plain"]
            make[position] = part
            raw = {
                f"{attribute}-{number}": solid
                for attribute, solids in anatomy.solids(tuple(make)).items()
                for number, solid in enumerate(solids)
            }
            group = parse_group(
                "x",
                {
                    "title": "x", "parent": "x", "parts": raw,
                    "concepts": [{"name": "x", "role": "foil", "definition": "x",
                                  "sketch": list(raw)}],
                },
                "x.toml",
            )  # fmt: skip
            sketch = group.concepts[0].sketch
            assert sketch is not None
            assert loose(sketch) == (), f"{part} on {body}"


def test_every_diagnostic_part_can_be_shown():
    for group in parsed(12, 5):
        for concept in group.concepts:
            assert concept.sketch is not None
            for seed in range(3):
                compose(concept.sketch, np.random.default_rng(seed))  # HiddenPart fails the test
    assert VISIBLE > 0


def test_the_same_seed_gives_the_same_groups_whatever_the_count():
    assert invent.groups(2, 7, 2) == invent.groups(5, 7, 2)[:2]
    assert invent.groups(2, 7, 2) != invent.groups(2, 8, 2)


def test_many_groups_never_repeat_a_name_or_a_thing():
    groups = parsed(60, 1)
    novel = [c for g in groups for c in g.concepts if c.role == "novel"]
    assert len({c.name for c in novel}) == 120
    assert len({c.definition for c in novel}) == 120


def test_names_of_other_specs_are_avoided():
    taken = [c.name for g in parsed(5, 3) for c in g.concepts]
    again = [id for id, _ in invent.groups(5, 3, 2, avoid=taken)]
    assert not set(again) & set(taken)


def test_a_folder_with_other_groups_is_left_alone(tmp_path):
    invent.run(count=2, seed=0, out=tmp_path / "a")
    invent.run(count=2, seed=0, out=tmp_path / "a")  # the same again is no harm
    before = sorted(path.read_bytes() for path in (tmp_path / "a").glob("*.toml"))
    with pytest.raises(DataError, match="other group files"):
        invent.run(count=2, seed=1, out=tmp_path / "a")
    assert before == sorted(path.read_bytes() for path in (tmp_path / "a").glob("*.toml"))


@pytest.mark.parametrize(("count", "distance"), [(0, 2), (1, 0), (1, 5)])
def test_impossible_wishes_are_refused_in_one_line(tmp_path, count: int, distance: int):
    with pytest.raises(IsekaiError) as caught:
        invent.run(count=count, seed=0, distance=distance, out=tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()
