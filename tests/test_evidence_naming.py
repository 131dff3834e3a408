"""What answers name, how they are counted, and that no question is paid for twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai import files
from isekai.errors import IsekaiError
from isekai.evidence import naming, weighing
from isekai.evidence.records import Evidence
from tests.evidence_data import Names, dataset, group, noise, shown

GROUP = group("g0", {"one": "cactihog", "two": "prismog", "foil": "hedgehog"})
ONE = GROUP.concepts[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A cactus.", {"parent"}),
        ("hedgehog", {"parent", "foil"}),
        ("A HEDGEHOG", {"parent", "foil"}),
        ("ｈｅｄｇｅｈｏｇ", {"parent", "foil"}),
        ("Two hedgehogs.", {"parent", "foil"}),
        ("A cactus-hedgehog hybrid", {"parent", "both", "foil"}),
        ("hedgehog/cactus", {"parent", "both", "foil"}),
        ("This is a hedgehog with a cactus on its back.", {"parent", "both", "foil"}),
        ("It looks like a cactus, but it is a hedgehog.", {"parent", "foil"}),
        ("This is not a hedgehog but a cactus.", {"parent"}),
        ("This is not a hedgehog.", {"other"}),
        ("It is neither a cactus nor a hedgehog.", {"other"}),
        ("A cactihog!", {"name"}),
        ("cactihogs", {"name"}),
        ("<think>a hedgehog? a cactus?</think>A prismog", {"twin"}),
        ("<think>a hedgehog", {"other"}),
        ("A porcupine", {"other"}),
        ("hedgehoglet", {"other"}),
        ("", {"other"}),
        ("Error 500: hedgehog", {"other"}),
    ],
)
def test_an_answer_counts_under_what_it_asserts(text, expected):
    assert naming.kinds(GROUP, ONE, text) == expected


def test_a_short_name_inside_a_longer_one_is_not_named():
    reader = naming.Reader.of(["fox", "kit fox", "stone", "airstone"])
    assert reader.named("A kit fox.") == {"kit fox"}
    assert reader.named("A kit fox and an airstone.") == {"kit fox", "airstone"}
    assert reader.named("An airstone") == {"airstone"}


def test_of_a_foil_its_name_alone_counts():
    foil = GROUP.concepts[2]
    assert naming.kinds(GROUP, foil, "A hedgehog") == {"name"}
    assert naming.kinds(GROUP, foil, "A cactus") == {"other"}


@given(st.text())
def test_any_text_counts_under_something_and_other_stands_alone(text):
    found = naming.kinds(GROUP, ONE, text)
    assert found
    assert "other" not in found or found == {"other"}


def test_names_without_a_letter_or_spelled_alike_are_no_trouble():
    odd = group("g0", {"one": "!!!", "two": "Hedge-Hog", "foil": "hedge hog"})
    assert naming.kinds(odd, odd.concepts[0], "a hedge hog") == {"foil", "twin"}


# ---------------------------------------------------------------- asking

SAID = {"g0/one": "A cactus.", "g0/two": "A hedgehog with a cactus.", "g0/foil": "A hedgehog."}


def asked(found, model, folder, count=4):
    episodes = naming.questions(found, "names", model, count=count, seed=0)
    return list(naming.ask(found, folder, "names", model, episodes))


def test_a_model_is_shown_one_picture_and_neither_labels_nor_support(tmp_path):
    found = dataset(noise, (GROUP,))
    model = Names(SAID, shown(found))
    asked(found, model, tmp_path)
    assert len(model.asked) == 3 * 4
    for sweep in model.asked:
        assert (sweep.labels, sweep.support, sweep.cuts, sweep.instruction) == ((), (), (0,), "")
        (turn,) = sweep.queries
        assert turn.around[1].strip() == "" or turn.around[1] == naming.QUESTION
        assert "hog" not in turn.question


def test_shares_have_n_and_wilson_intervals_and_failures_count_apart(tmp_path):
    found = dataset(noise, (GROUP,))
    model = Names(SAID | {"g0/foil": "!HTTP 500: hedgehog"}, shown(found))
    told = naming.summarise(found, asked(found, model, tmp_path), made={})
    one, two, foil = (told.concepts[id] for id in SAID)
    assert (one.shares["parent"].value, one.shares["both"].value) == (1, 0)
    assert (one.shares["parent"].low, one.shares["parent"].n) == (pytest.approx(0.51, abs=0.01), 4)
    assert (two.shares["both"].value, two.shares["foil"].value) == (1, 1)
    assert (foil.answers, foil.failed, foil.shares) == (0, 4, {})
    assert one.said == {"A cactus.": 4}
    assert told.overall["novel"]["both"].value == 0.5
    assert told.overall["novel"]["both"].clusters == 1
    assert "foil" not in told.overall or not told.overall["foil"]


def test_what_was_cut_off_before_it_named_anything_has_failed():
    found = dataset(noise, (GROUP,))

    def row(text, number):
        return naming.Said(
            model="m", question=str(number), concept="g0/one", text=text, finish="length"
        )

    said = [row("A cactus on", 0), row("This is an image of", 1)]
    one = naming.summarise(found, said, made={}).concepts["g0/one"]
    assert (one.answers, one.failed) == (1, 1)


def test_a_model_that_knows_the_invented_name_makes_it_weak(tmp_path):
    found = dataset(noise, (GROUP,))
    model = Names(SAID | {"g0/two": "A Prismog"}, shown(found))
    told = naming.summarise(found, asked(found, model, tmp_path), made={})
    weak = Evidence(dataset="x", naming={"names": told})
    assert weighing.weak_points(weak, GROUP.concepts[0]) == ()
    assert weighing.weak_points(weak, GROUP.concepts[1]) == ("named",)


class Killed(Names):
    """Dies after so many answers."""

    left = 5

    def respond(self, sweep):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().respond(sweep)


def test_a_killed_run_goes_on_and_pays_for_no_answer_twice(tmp_path):
    found = dataset(noise, (GROUP,))
    killed = Killed(SAID, shown(found))
    with pytest.raises(KeyboardInterrupt):
        asked(found, killed, tmp_path)
    with (tmp_path / naming.FILE).open("ab") as file:
        file.write(b'{"model": "names", "quest')  # torn by the kill
    again = Names(SAID, shown(found))
    said = asked(found, again, tmp_path)
    assert (len(killed.asked), len(again.asked), len(said)) == (5, 7, 12)
    fresh = Names(SAID, shown(found))
    whole = asked(found, fresh, tmp_path / "other")
    assert naming.summarise(found, said, made={}) == naming.summarise(found, whole, made={})
    asked(found, again, tmp_path)
    assert len(again.asked) == 7


def test_failures_are_asked_again_and_so_is_a_model_with_other_settings(tmp_path):
    found = dataset(noise, (GROUP,))
    asked(found, Names(SAID | {"g0/one": "!busy"}, shown(found)), tmp_path)
    again = Names(SAID, shown(found))
    asked(found, again, tmp_path)
    assert len(again.asked) == 4
    other = Names(SAID, shown(found), version=2)
    asked(found, other, tmp_path)
    assert len(other.asked) == 12


def test_a_dataset_built_anew_pays_for_its_new_pictures_alone(tmp_path):
    asked(small := dataset(noise, (GROUP,), each=2), Names(SAID, shown(small)), tmp_path, count=99)
    larger = dataset(noise, (GROUP,), each=3)
    model = Names(SAID, shown(larger))
    asked(larger, model, tmp_path, count=99)
    assert len(model.asked) == 3 * 2


def test_a_model_that_answers_nothing_is_no_evidence(tmp_path):
    found = dataset(noise, (GROUP,))
    said = asked(found, Names(dict.fromkeys(SAID, "!no labels"), shown(found)), tmp_path)
    with pytest.raises(IsekaiError, match=r"none of 12 questions was answered \(no labels\)"):
        naming.refuse_silent("names", said)
    naming.refuse_silent("names", [])


def test_rows_on_disk_are_read_strictly(tmp_path):
    files.write_jsonl(tmp_path / naming.FILE, [{"model": "names", "text": "x"}])
    found = dataset(noise, (GROUP,))
    with pytest.raises(IsekaiError, match="line 1: question is missing"):
        asked(found, Names(SAID, shown(found)), tmp_path)
