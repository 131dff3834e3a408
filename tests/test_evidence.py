"""Probes, style, diversity and nearest names on planted pictures; what is written and told."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai import evidence, files
from isekai.dataset import Dataset
from isekai.embeddings import Embeddings
from isekai.errors import DataError, PluginError
from isekai.evidence import diversity, probes, style, vocabulary, weighing
from isekai.evidence.records import ALL, Evidence
from isekai.evidence.space import Space, every
from isekai.evidence.vocabulary import Lexicon
from isekai.images import decode
from tests.evidence_data import (
    SIZE,
    Planted,
    axis,
    dataset,
    group,
    noise,
    showing,
    tinted,
)

GROUPS = (group("g0"), group("g1"))


def styled(found, seed=0):
    styles = described(found)
    space = Space.put(found, list(styles), np.stack(list(styles.values())))
    return style.measure(found, styles, probes.choose(space), shots=(1, 4), seed=seed)


def described(found):
    return {id: style.describe(decode(found.image(id).data)) for id in every(found)}


# ---------------------------------------------------------------- probes and style


def test_a_concept_told_by_its_colour_alone_is_flagged_as_a_shortcut_and_its_family_named():
    found = dataset(tinted, GROUPS)
    told = styled(found)
    one = told.concepts["g0/one"]["twin"]
    assert one.other == "g0/two"
    assert one.accuracy[ALL].low > 0.5
    assert one.families["colour"].value > 0.9
    assert one.families["frame"].low < 0.5
    assert told.overall["twin"][ALL].value > 0.9
    flagged = Evidence(dataset=found.fingerprint, style=told)
    concept = found.concept("g0/one")
    assert weighing.weak_points(flagged, concept) == ("shortcut",)
    assert weighing.telling_families(flagged, "g0/one") == ["colour"]
    assert "| oneg0 | shortcut (colour) |" in evidence.section(flagged, found.groups)
    assert weighing.weak_points(flagged, found.concept("g0/foil")) == ()


def test_pictures_that_nothing_tells_apart_are_at_chance():
    groups = tuple(group(f"g{n}") for n in range(6))
    told = styled(dataset(noise, groups))
    for against in ("twin", "foil"):
        share = told.overall[against][ALL]
        assert share.low < 0.5 < share.high
    flagged = [
        id for id in told.concepts
        if weighing.styled(Evidence(dataset="x", style=told), id)["twin"].low > 0.5
    ]  # fmt: skip
    assert len(flagged) <= 2


def test_two_twins_are_told_equally_well_and_the_draws_depend_on_seeds_alone():
    found = dataset(noise, GROUPS)
    told = styled(found)
    assert told.concepts["g0/one"]["twin"].accuracy == told.concepts["g0/two"]["twin"].accuracy
    shuffled = dataset(noise, GROUPS[::-1])
    assert styled(shuffled).concepts == told.concepts
    assert styled(found, seed=1).concepts != told.concepts


def test_equal_features_tell_exactly_half_of_the_queries():
    found = dataset(noise, GROUPS)
    ids = every(found)
    space = Space.put(found, ids, np.ones((len(ids), 3)))
    said = probes.ask(space, probes.choose(space), shots=(1,), seed=0)
    for one in said.values():
        assert np.mean([right for _, right in one.hits[ALL]]) == 0.5


def test_a_probe_on_features_that_hold_the_concept_is_always_right_and_chance_is_below():
    found = dataset(noise, GROUPS)
    ids = every(found)
    names = sorted({entry.concept for entry in found.entries})
    place = {entry.image_id: names.index(entry.concept) for entry in found.entries}
    space = Space.put(found, ids, np.stack([axis(place[id]) for id in ids]))
    rivals = probes.choose(space)
    said = probes.comparisons(probes.ask(space, rivals, shots=(1, 4, 99), seed=0), rivals)
    one = said["g0/one"]["foil"]
    assert list(one.accuracy) == ["1", "4", ALL]
    assert one.support == 8
    assert all(share.value == 1 and share.low > 0.5 for share in one.accuracy.values())
    assert one.accuracy["1"].n == probes.DRAWS * 16
    assert one.accuracy["1"].clusters == one.accuracy[ALL].n == 16


def test_of_several_foils_the_nearest_is_asked_against():
    three = group("g0")
    more = replace(three.concepts[2], id="g0/other", name="other")
    found = dataset(noise, (replace(three, concepts=(*three.concepts, more)),))
    ids = every(found)
    rows = {"g0/one": 0.0, "g0/two": 5.0, "g0/foil": 3.0, "g0/other": 1.0}
    where = {entry.image_id: rows[entry.concept] for entry in found.entries}
    space = Space.put(found, ids, np.array([[where[id]] for id in ids]))
    assert probes.choose(space)["g0/one"] == {"twin": "g0/two", "foil": "g0/other"}


def test_the_families_of_features_are_as_long_as_they_say():
    picture = noise("", np.random.default_rng(0))
    pixels = np.asarray(picture.resize((style.SIDE, style.SIDE)), np.float64) / 255
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    parts = {
        "colour": style._colour(pixels),
        "brightness": style._brightness(luma),
        "texture": style._texture(luma),
        "frame": style._frame(pixels, picture.size),
    }
    sizes = {name: own.stop - own.start for name, own in style.FAMILIES.items()}
    assert sizes == {name: len(part) for name, part in parts.items()}
    assert len(style.describe(picture)) == sum(sizes.values())


def test_features_of_an_even_picture_are_numbers_and_size_and_brightness_move_their_own_family():
    even = noise("", np.random.default_rng(0)).point(lambda value: 99)
    assert np.isfinite(style.describe(even)).all()
    away = style.describe(even.resize((2 * SIZE, SIZE))) - style.describe(even)
    assert {name for name, own in style.FAMILIES.items() if np.abs(away[own]).max() > 1e-6} == {
        "frame"
    }
    away = style.describe(even.point(lambda value: 150)) - style.describe(even)
    assert {name for name, own in style.FAMILIES.items() if np.abs(away[own]).max() > 1e-6} == {
        "brightness"
    }


def test_pictures_described_before_are_not_fetched_again():
    found = dataset(tinted)
    styles = described(found)
    space = Space.put(found, list(styles), np.stack(list(styles.values())))
    rivals = probes.choose(space)
    without_pictures = Dataset(
        path=found.path,
        fingerprint=found.fingerprint,
        groups=found.groups,
        entries=found.entries,
        fetch={}.__getitem__,
    )
    told = style.measure(without_pictures, styles, rivals, shots=(1,), seed=0)
    assert told == style.measure(found, {}, rivals, shots=(1,), seed=0)
    with pytest.raises(KeyError):
        style.measure(without_pictures, {}, rivals, shots=(1,), seed=0)


# ---------------------------------------------------------------- diversity


@pytest.mark.parametrize(
    ("rows", "vendi", "distance"),
    [
        (np.eye(4)[[0, 0, 0, 0]], 1.0, 0.0),
        (np.eye(4), 4.0, 1.0),
        (np.eye(4)[[0, 0, 1, 1]], 2.0, 2 / 3),
    ],
)
def test_the_vendi_score_counts_wholly_different_pictures(rows, vendi, distance):
    found = diversity.spread(["a", "b", "c", "d"], rows)
    assert found.vendi == pytest.approx(vendi)
    assert found.distance == pytest.approx(distance)


def test_the_nearest_pair_is_named():
    rows = np.array([[1, 0], [0, 1], [0.8, 0.6]])
    found = diversity.spread(["a", "b", "c"], rows)
    assert (found.nearest, found.nearest_cosine) == (("a", "c"), pytest.approx(0.8))


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_the_vendi_score_lies_between_one_and_n(n, seed):
    rows = np.random.default_rng(seed).normal(size=(n, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert 1 - 1e-9 <= diversity.vendi(rows @ rows.T) <= n + 1e-9


# ---------------------------------------------------------------- vocabulary

WORDS = Lexicon(
    source="planted", things=(("teapot", "kettle"), ("cactus", "cacti"), ("spoon",), ("onefoo",))
)
PLACES = {
    "a photo of a teapot": axis(9),
    "a photo of a kettle": axis(0),
    "a photo of a cactus": axis(1),
    "a photo of a cacti": axis(8),
    "a photo of a spoon": axis(2),
    "a photo of an onefoo": axis(7),
    "a photo of a hedgehog": axis(3),
    "a photo of a twog0": axis(4),
    "a photo of a foilg0": axis(2),
    "a photo of a thing called one": axis(5),
    "a photo of a thing called two": axis(5),
    "a photo of a thing called foil": axis(2),
}


def drawn(concept, rng):
    """`one` looks like a kettle, `two` like its definition and a little like a cactus."""
    looks = {
        "one": axis(0),
        "two": 0.9 * axis(5) + 0.2 * axis(1),
        "foil": axis(2),
    }[concept.split("/")[1]]
    return showing(looks + 0.05 * np.abs(rng.normal(size=SIZE)) * (np.arange(SIZE) > 9))


@pytest.fixture
def looked_up(tmp_path):
    found = dataset(drawn, (group("g0", {"one": "Onefoo"}),))
    look = Embeddings(Planted(PLACES | {"a photo of an Onefoo": axis(7)}), tmp_path)
    return found, vocabulary.measure(Space.of(found, look), look, WORDS)


def test_pictures_that_equal_a_words_vector_have_that_name_by_its_nearest_lemma(looked_up):
    _, told = looked_up
    one = told.concepts["g0/one"]
    assert one.nearest[0].name == "kettle"
    assert one.nearest[0].cosine > 0.95
    assert one.nearest[0].share.value == 1
    assert one.nearest[0].share.n == 16
    assert told.made["names"] == 6
    assert told.made["things"] == 4


def test_margins_say_how_much_nearer_a_text_is_than_the_nearest_name(looked_up):
    _, told = looked_up
    one, two = told.concepts["g0/one"].margins, told.concepts["g0/two"].margins
    assert set(one) == {"name", "definition", "parent: cactus", "parent: hedgehog", "foil: foilg0"}
    assert one["definition"].high < -0.8
    assert two["definition"].low > 0.5
    assert two["parent: cactus"].value == pytest.approx(0, abs=1e-3)
    assert one["name"].n == 16


def test_a_name_that_is_in_the_vocabulary_collides_whatever_its_case(looked_up):
    found, told = looked_up
    assert told.concepts["g0/one"].collision
    assert not told.concepts["g0/two"].collision
    weak = Evidence(dataset="x", vocabulary=told)
    assert weighing.weak_points(weak, found.concept("g0/one")) == ("collision", "near a known name")
    assert weighing.weak_points(weak, found.concept("g0/two")) == ()


def test_a_foil_is_a_yardstick_its_own_name_is_the_nearest_and_it_has_no_foil(looked_up):
    _, told = looked_up
    foil = told.concepts["g0/foil"]
    assert (foil.nearest[0].name, foil.rank, foil.beyond_foil) == ("spoon", 1, None)
    assert told.concepts["g0/two"].beyond_foil.high < 0


def test_the_vocabulary_that_timm_ships_has_its_21841_things_with_their_lemmas():
    words = vocabulary.imagenet()
    assert len(words.things) == 21_841
    assert ("organism", "being") in words.things
    assert any("hedgehog" in names for names in words.things)
    assert not any("" in names for names in words.things)


def test_a_vocabulary_of_ones_own_has_a_name_a_line_each_once(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufefficе cream\n\n  Tea  Pot \ntea-pot\n---\n", encoding="utf-8")
    assert vocabulary.read(path).things == (("icе cream",), ("Tea Pot",))
    path.write_text("\n \n")
    with pytest.raises(DataError, match="no names; a vocabulary has one name a line"):
        vocabulary.read(path)


def test_an_embedder_without_texts_is_refused_for_a_vocabulary_and_measures_the_rest(tmp_path):
    class Mute:
        model, revision = "mute", "1"
        embed_images = Planted({}).embed_images

    found = dataset(drawn)
    look = Embeddings(Mute(), tmp_path)
    with pytest.raises(PluginError, match="embeds no texts"):
        evidence.measure(found, look, lexicon=WORDS)
    told = evidence.measure(found, look)
    assert told.vocabulary is None
    assert told.probes.concepts["g0/one"]["twin"].accuracy[ALL].value == 1
    assert told.diversity.concepts["g0/one"].n == 16


# ---------------------------------------------------------------- in files, and on the card


@pytest.fixture
def whole(tmp_path):
    found = dataset(drawn, (group("g0", {"one": "Onefoo"}),))
    look = Embeddings(Planted(PLACES | {"a photo of an Onefoo": axis(7)}), tmp_path)
    return found, evidence.measure(found, look, lexicon=WORDS)


def test_what_is_written_is_read_again_and_the_same_pictures_give_the_same_bytes(whole, tmp_path):
    found, told = whole
    evidence.write(tmp_path, told)
    first = (tmp_path / evidence.FILE).read_bytes()
    again = evidence.read(tmp_path)
    assert again.vocabulary.concepts["g0/one"].nearest[0].name == "kettle"
    evidence.write(tmp_path, again)
    assert (tmp_path / evidence.FILE).read_bytes() == first
    look = Embeddings(Planted(PLACES | {"a photo of an Onefoo": axis(7)}), tmp_path)
    evidence.write(tmp_path, evidence.measure(found, look, lexicon=WORDS))
    assert (tmp_path / evidence.FILE).read_bytes() == first


def test_evidence_that_is_not_there_or_damaged_is_told(tmp_path):
    with pytest.raises(DataError, match="make it with `isekai novelty`"):
        evidence.read(tmp_path)
    files.write_json(tmp_path / evidence.FILE, {"dataset": "x", "vocabulry": None})
    with pytest.raises(DataError, match="did you mean 'vocabulary'"):
        evidence.read(tmp_path)


def test_kinds_that_are_not_measured_anew_stay_unless_the_pictures_are_others(whole):
    _, told = whole
    only = replace(told, vocabulary=None, style=None)
    both = evidence.merged(told, only)
    assert (both.vocabulary, both.style) == (told.vocabulary, told.style)
    assert evidence.merged(told, replace(only, dataset="other")).vocabulary is None
    assert evidence.merged(None, only) == only


def test_the_section_lists_the_weakest_concepts_first_with_n_intervals_and_limits(whole):
    found, told = whole
    text = evidence.section(told, found.groups)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| concept | weak points | told from twin |")
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| Onefoo", "| twog0"]
    assert "collision, near a known name" in rows[2]
    assert "100 % (81 % to 100 %, n = 16)" in rows[2]
    assert "planted (revision 1)" in text
    assert "What this does not prove" in text
    assert "of 1 foils, 1 have their own name among the 5 nearest" in text


def test_the_section_shows_text_of_strangers_without_its_markup(tmp_path):
    class Look(Planted):
        model = "a|b<img>"

    found = dataset(noise, (group("g0", {"one": "<script>[x](http://e.vil)|"}),))
    look = Embeddings(Look({}), tmp_path)
    spread = diversity.measure(Space.of(found, look), look)
    text = evidence.section(Evidence(dataset="x", diversity=spread), found.groups)
    assert "| \\<script\\>\\[x\\](http\\://e.vil)\\| | none found |" in text
    assert "a\\|b\\<img\\>" in text
