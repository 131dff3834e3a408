"""Which concepts each built-in task puts against each other."""

from dataclasses import replace

from isekai.dataset import Dataset
from isekai.tasks.foil import foil
from isekai.tasks.pair import pair
from isekai.tasks.twin import twin
from tests.test_episodes import listed

ASKED = {"shots": (1,), "queries": 1, "episodes": 2, "labels": "true", "seed": 0}


def units(episodes):
    """(name, cluster, concepts) of each unit, in order."""
    return list(
        dict.fromkeys(
            (e.id.split("/", 1)[1].rsplit("/", 1)[0], e.cluster, tuple(sorted(e.labels)))
            for e in episodes
        )
    )


def test_twin_asks_the_two_novel_concepts_of_each_group():
    assert units(twin(listed(2), **ASKED)) == [
        ("g0", "g0", ("g0/one", "g0/two")),
        ("g1", "g1", ("g1/one", "g1/two")),
    ]


def test_foil_asks_each_novel_concept_against_its_foil():
    assert units(foil(listed(1), **ASKED)) == [
        ("g0/one", "g0", ("g0/foil", "g0/one")),
        ("g0/two", "g0", ("g0/foil", "g0/two")),
    ]


def test_pair_matches_whole_groups_and_uses_each_novel_concept_once():
    for seed in range(5):
        found = units(pair(listed(6), **{**ASKED, "seed": seed}))
        assert len(found) == 6
        concepts = [concept for _, _, both in found for concept in both]
        assert len(set(concepts)) == len(concepts) == 12
        for name, cluster, (a, b) in found:
            assert cluster == f"{a.split('/')[0]}+{b.split('/')[0]}"
            assert a.split("/")[0] != b.split("/")[0]
            assert name == f"{cluster}/{a.split('/')[1]}+{b.split('/')[1]}"
            assert not a.endswith("foil")
            assert not b.endswith("foil")
        assert len({cluster for _, cluster, _ in found}) == 3


def test_pair_matches_alike_for_every_seed_and_lets_one_of_an_odd_number_sit_out():
    """Or runs over several seeds would count clusters that share concepts as independent."""
    matchings = {tuple(units(pair(listed(7), **{**ASKED, "seed": s}))) for s in range(8)}
    (matching,) = matchings
    assert len(matching) == 6


def test_a_group_without_a_foil_has_no_foil_unit_and_three_novel_concepts_make_three_twins():
    dataset = listed(2)
    first, second = dataset.groups
    novel = tuple(replace(concept, role="novel") for concept in first.concepts)
    changed = Dataset(
        path=dataset.path,
        fingerprint="",
        groups=(replace(first, concepts=novel), second),
        entries=dataset.entries,
        fetch=lambda id: b"",
    )
    assert [cluster for _, cluster, _ in units(foil(changed, **ASKED))] == ["g1", "g1"]
    assert [name for name, _, _ in units(twin(changed, **ASKED))] == [
        "g0/foil+one",
        "g0/foil+two",
        "g0/one+two",
        "g1",
    ]
