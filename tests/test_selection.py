"""A selection changes which support images an episode shows, and nothing else."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isekai import files, plugins, templates
from isekai.dataset import Dataset, Entry, Listed
from isekai.dedup import Limits
from isekai.embeddings import Embeddings
from isekai.episodes import Unit, draw
from isekai.errors import DataError, IsekaiError
from isekai.images import decode, encode
from isekai.selection import names, select
from isekai.tasks.foil import foil
from isekai.tasks.twin import twin
from isekai.types import Concept, Episode, Group

SHARED = [name for name in names() if name != "nearest"]
"""Strategies whose support set all queries share."""
FILLING = [name for name in SHARED if name != "random"]
CONCEPTS = ("g/one", "g/two", "g/foil")
OFF = Limits(cosine=2.0)


class Pixels:
    """How the pixels of small pictures lie about middle grey, as a direction."""

    model, revision = "pixels", "1"

    def embed_images(self, images):
        rows = np.stack([np.asarray(image, np.float32).ravel() - 127.5 for image in images])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Shelf:
    """Pictures of 2 x 3 pixels, drawn about a look of each concept, and the dataset of them."""

    def __init__(self, folder: Path, support: int = 8, query: int = 4) -> None:
        self.embeddings = Embeddings(Pixels(), folder)
        self.pictures: dict[str, bytes] = {}
        self.entries: list[Entry] = []
        rng = np.random.default_rng(0)
        for concept in CONCEPTS:
            look = rng.integers(60, 196, (2, 3, 3))
            for split, count in (("support", support), ("query", query)):
                for index in range(count):
                    pixels = look + rng.normal(0, 40, look.shape)
                    self.add(concept, split, index, pixels.clip(0, 255).astype(np.uint8))

    def add(self, concept: str, split: str, index: int, pixels) -> str:
        data = encode(Image.fromarray(pixels))
        id = files.sha256(data)
        self.pictures[id] = data
        role = "foil" if concept == "g/foil" else "novel"
        entry = Entry(image_id=id, concept=concept, role=role, split=split, index=index)
        self.entries.append(entry)
        return id

    def lighter(self, id: str):
        """The picture, all of it a little lighter."""
        return np.minimum(np.asarray(decode(self.pictures[id])), 253) + np.uint8(2)

    def dataset(self, order=None) -> Dataset:
        entries = self.entries if order is None else [self.entries[i] for i in order]
        concepts = tuple(
            Concept(id=id, name=id, role="foil" if id == "g/foil" else "novel") for id in CONCEPTS
        )
        return Dataset(
            path=Path("shelf"),
            fingerprint="",
            groups=(Group(id="g", title="", concepts=concepts),),
            entries=entries,
            fetch=self.pictures.__getitem__,
        )

    def episodes(self, **asked) -> list[Episode]:
        asked = {"shots": (1, 2, 4), "queries": 2, "episodes": 1, "seed": 0, **asked}
        unit = Unit(name="g", cluster="g", concepts=CONCEPTS)
        return list(draw(self.dataset(), "any", (unit,), labels="fantasy", **asked))

    def select(self, episode: Episode, name: str, **other) -> list[Episode]:
        given = {"dataset": self.dataset(), "embeddings": self.embeddings, **other}
        return list(select(episode, name, **given))

    def row(self, id: str) -> np.ndarray:
        return self.embeddings.of([id], self.dataset().image)[0].astype(float)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    """Don't add to it."""
    return Shelf(tmp_path_factory.mktemp("shelf"))


def shown(episode: Episode) -> list[str]:
    return [example.image_id for example in episode.support]


def standing(episode: Episode) -> list[str]:
    return [example.concept for example in episode.support]


# ---------------------------------------------------------------- one support set for all queries


@given(st.integers(0, 2**40), st.sampled_from(SHARED))
@settings(max_examples=60, deadline=None)
def test_only_the_support_changes_and_every_prefix_stays_as_balanced_as_it_was(shelf, seed, name):
    (episode,) = shelf.episodes(seed=seed)
    (asked,) = shelf.select(episode, name)
    assert replace(asked, support=episode.support) == episode
    assert len(set(shown(asked))) == len(episode.support)
    dataset = shelf.dataset()
    assert all(one.image_id in dataset.ids(one.concept, "support") for one in asked.support)
    if name != "random":
        assert standing(asked) == standing(episode)


@given(st.integers(0, 2**40), st.sampled_from(SHARED))
@settings(max_examples=40, deadline=None)
def test_fewer_shots_show_the_beginning_of_what_more_shots_show(shelf, seed, name):
    few, many = (
        shelf.select(shelf.episodes(seed=seed, shots=shots)[0], name)[0].support
        for shots in ((0, 1, 3), (2, 3, 7))
    )
    assert many[: len(few)] == few


@pytest.mark.parametrize("name", names())
def test_neither_the_order_of_rows_nor_what_is_known_already_changes_a_choice(
    shelf, name, tmp_path
):
    (episode,) = shelf.episodes(queries=4)
    expected = shelf.select(episode, name)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(shelf.entries))
        assert shelf.select(episode, name, dataset=shelf.dataset(order)) == expected
    assert shelf.select(episode, name, embeddings=Embeddings(Pixels(), tmp_path)) == expected


def test_a_balanced_selection_is_the_episode_itself(shelf):
    for episode in shelf.episodes(episodes=20):
        assert shelf.select(episode, "balanced") == [episode]


def test_a_random_selection_looks_at_no_label(shelf):
    counts = Counter()
    for episode in shelf.episodes(shots=(1,), episodes=600):
        (asked,) = shelf.select(episode, "random")
        counts[len(set(standing(asked)))] += 1
    every = (8 * 8 * 8) / (24 * 23 * 22 / 6)  # all three labels among three of 24 images
    assert counts[3] / 600 == pytest.approx(every, abs=0.08)
    assert counts[1] > 0


def test_the_label_shown_last_is_as_balanced_as_among_plain_episodes(shelf):
    episodes = shelf.episodes(shots=(1, 2), episodes=600)
    for name in (*FILLING, "nearest"):
        last = Counter(shelf.select(episode, name)[-1].support[-1].concept for episode in episodes)
        assert all(150 < last[concept] < 250 for concept in CONCEPTS)  # 4 standard deviations wide


def test_episodes_of_one_unit_differ_where_something_is_drawn(shelf):
    episodes = shelf.episodes(episodes=6)
    for name in SHARED:
        sets = {frozenset(shown(shelf.select(episode, name)[0])) for episode in episodes}
        assert (len(sets) > 1) == (name in ("random", "balanced", "diverse")), name


# ---------------------------------------------------------------- an episode for every query


def test_nearest_shows_each_query_the_most_similar_of_each_label_the_nearest_last(shelf):
    (episode,) = shelf.episodes(shots=(0, 1, 3), queries=3)
    asked = shelf.select(episode, "nearest")
    places = [(shots, number) for shots in (0, 1, 3) for number in range(9)]
    assert [one.id for one in asked] == [f"{episode.id}/{n:03d}@{k}" for k, n in places]
    dataset = shelf.dataset()
    for one, (shots, number) in zip(asked, places, strict=True):
        assert (one.shots, one.queries) == ((shots,), (episode.queries[number],))
        assert (one.labels, one.seed, one.cluster) == (episode.labels, episode.seed, "g")
        assert standing(one) == standing(episode)[: 3 * shots]
        query = shelf.row(episode.queries[number].image_id)
        for concept in CONCEPTS:
            ids = dataset.ids(concept, "support")
            best = sorted(ids, key=lambda id: shelf.row(id) @ query)[-shots or len(ids) :]
            assert [e.image_id for e in one.support if e.concept == concept] == best


def test_what_is_last_shown_tells_nothing_about_what_is_asked(shelf):
    """Each label is asked equally often, behind the same label: copying it scores chance."""
    for episode in shelf.episodes(episodes=10, queries=3):
        asked = shelf.select(episode, "nearest")
        hits = [one.support[-1].concept == one.queries[0].concept for one in asked]
        assert sum(hits) * 3 == len(hits)


# ---------------------------------------------------------------- near-duplicates


@pytest.fixture
def planted(tmp_path) -> tuple[Shelf, dict[str, str]]:
    """A shelf, and a query of each concept -> a support image that all but equals it."""
    shelf, copies = Shelf(tmp_path), {}
    for concept in CONCEPTS:
        query = shelf.dataset().ids(concept, "query")[0]
        copies[query] = shelf.add(concept, "support", 8, shelf.lighter(query))
        assert 0.99 < shelf.row(query) @ shelf.row(copies[query]) < 1
    return shelf, copies


def meetings(episodes: list[Episode], copies: dict[str, str]) -> int:
    """How often a query and its copy are in one episode."""
    return sum(
        copies.get(query.image_id) in shown(episode)
        for episode in episodes
        for query in episode.queries
    )


@pytest.mark.parametrize("name", names())
def test_a_query_never_meets_its_near_duplicate_though_it_would(planted, name):
    shelf, copies = planted
    for limits, often in ((OFF, True), (Limits(), False)):
        asked = [
            one
            for episode in shelf.episodes(queries=4, shots=(4,), episodes=5)
            for one in shelf.select(episode, name, limits=limits)
        ]
        assert bool(meetings(asked, copies)) == often


def test_another_query_may_see_it_where_each_has_a_support_of_its_own(planted):
    shelf, copies = planted
    asked = shelf.select(shelf.episodes(queries=4)[0], "nearest")
    assert {id for one in asked for id in shown(one)} & set(copies.values())


def test_a_balanced_selection_replaces_near_duplicates_alone(planted):
    shelf, copies = planted
    changed = 0
    for episode in shelf.episodes(queries=4, shots=(3,), episodes=30):
        (asked,) = shelf.select(episode, "balanced")
        gone = set(copies.values()) & set(shown(episode))
        assert set(shown(episode)) - set(shown(asked)) == gone
        assert len(set(shown(asked))) == 9
        assert standing(asked) == standing(episode)
        changed += bool(gone)
    assert 5 < changed < 30


def test_the_query_itself_is_left_out_however_wide_the_limit(tmp_path):
    shelf = Shelf(tmp_path)
    queries = [entry for entry in shelf.entries if entry.split == "query"]
    shelf.entries += [replace(query, split="support", index=9) for query in queries]
    for name in names():
        asked = shelf.select(shelf.episodes(queries=4)[0], name, limits=OFF)
        assert not meetings(asked, {query.image_id: query.image_id for query in queries})


# ---------------------------------------------------------------- refusals and edges


@pytest.mark.parametrize("name", names())
def test_too_few_images_are_refused_at_once_with_what_fits(planted, name):
    shelf, _ = planted
    with pytest.raises(DataError) as refused:
        select(
            shelf.episodes(queries=4, shots=(2, 9))[0],
            name,
            dataset=shelf.dataset(),
            embeddings=shelf.embeddings,
        )
    told = str(refused.value)
    who, asked, left = ("any label", 27, 24) if name == "random" else ("g/", 9, 8)
    assert f"selection '{name}' asks for {asked} images of {who}" in told
    assert f"{left} are no near-duplicates of what is asked about" in told
    assert told.endswith("the largest that fits is --shots 8")
    assert "\n" not in told
    assert shelf.select(shelf.episodes(queries=4, shots=(2, 8))[0], name)


class Blind(Pixels):
    model = "blind"

    def embed_images(self, images):
        return np.tile(np.array([[1.0, 0.0]], np.float32), (len(images), 1))


def test_an_embedder_to_which_all_is_alike_is_refused(shelf, tmp_path):
    blind = Embeddings(Blind(), tmp_path)
    with pytest.raises(DataError, match=r"0 are no near-duplicates .*; take another embedder$"):
        shelf.select(shelf.episodes()[0], "nearest", embeddings=blind)


def test_an_unknown_strategy_is_refused_with_what_was_meant(shelf):
    with pytest.raises(IsekaiError, match="called 'herdin'; did you mean 'herding'"):
        shelf.select(shelf.episodes()[0], "herdin")


@pytest.mark.parametrize("name", names())
def test_without_shots_there_is_nothing_to_choose_and_nothing_is_embedded(shelf, name):
    (episode,) = shelf.episodes(shots=(0,))
    asked = shelf.select(episode, name, embeddings=None)
    assert all(one.support == () for one in asked)
    assert [query for one in asked for query in one.queries] == list(episode.queries)


def test_images_that_only_a_published_list_names_can_be_chosen_too(shelf):
    """Such an episode shows pictures that the dataset's splits don't have."""
    (episode,) = shelf.episodes(shots=(8,))
    fewer = [i for i, entry in enumerate(shelf.entries) if entry.split == "query"]
    listed = Dataset(
        path=Path("lists"),
        fingerprint="",
        groups=shelf.dataset().groups,
        entries=[shelf.entries[i] for i in fewer],
        fetch=shelf.pictures.__getitem__,
        lists=(
            Listed(
                line=0,
                query=episode.queries[0].image_id,
                concept="g/one",
                labels=("g/one", "g/two"),
                positives=tuple(shown(episode)),
                negatives=(),
            ),
        ),
    )
    assert shelf.select(episode, "balanced", dataset=listed) == [episode]
    (asked,) = shelf.select(episode, "herding", dataset=listed)
    assert sorted(shown(asked)) == sorted(shown(episode))


# ---------------------------------------------------------------- what it is for


@pytest.fixture
def accuracy(tiny_dataset, tmp_path, monkeypatch):
    """The accuracy of nearest centroids on support sets that a strategy selected."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "data" / "colours")
    dataset, wording = Dataset.open(tiny_dataset), templates.read("plain")
    embeddings = Embeddings(plugins.build("embedders", "colours"), tmp_path)
    adapter = plugins.build("adapters", "prototype", {"embedder": "colours", "cache": tmp_path})

    def measured(name: str, shots: int) -> float:
        hits = []
        for task in (twin, foil):
            for episode in task(
                dataset, shots=(shots,), queries=6, episodes=4, labels="fantasy", seed=0
            ):
                for asked in select(episode, name, dataset=dataset, embeddings=embeddings):
                    said = adapter.respond(templates.fold(asked, wording, dataset.image))
                    hits += [
                        response.text == asked.labels[query.concept]
                        for response, query in zip(said, asked.queries, strict=True)
                    ]
        return float(np.mean(hits))

    return measured


def test_typical_images_teach_more_than_the_hardest_and_similar_ones_more_than_chance(accuracy):
    one = {name: accuracy(name, 1) for name in names()}
    assert one["prototype"] > one["hardest"] + 0.05
    assert one["nearest"] > one["balanced"] + 0.05
    assert one["balanced"] > one["random"] + 0.05  # half of its support sets show one label alone
