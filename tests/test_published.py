"""The task `published` asks the lists beside a dataset, and nothing else."""

from pathlib import Path

import pytest

from isekai import bench, episode_lists, runs
from isekai.dataset import Dataset
from isekai.errors import DataError, IsekaiError
from isekai.setup import Setup
from isekai.tasks.published import published
from isekai.tasks.twin import twin
from isekai.work import prepare
from tests import dataset_folders

ASKED = {"shots": (0, 1, 2), "queries": 4, "episodes": 4, "labels": "fantasy", "seed": 0}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = dataset_folders.write(tmp_path_factory.mktemp("published") / "isekai-20")
    episode_lists.write(folder)
    return folder


def test_the_episodes_are_those_that_their_tasks_would_draw(config):
    dataset = Dataset.open(config)
    asked = [one for one in published(dataset, **ASKED) if one.task == "twin"]
    assert asked == list(twin(dataset, **{**ASKED, "queries": 2}))


def test_any_shot_count_that_the_longest_support_set_has_room_for_can_be_asked(config):
    dataset = Dataset.open(config)
    for episode in published(dataset, **{**ASKED, "shots": (1, 3)}):
        assert episode.shots == (1, 3)
        assert len(episode.support) == 3 * len(episode.labels)


def test_how_many_episodes_or_queries_are_asked_for_changes_nothing(config):
    dataset = Dataset.open(config)
    more = published(dataset, **{**ASKED, "queries": 1, "episodes": 9})
    assert list(more) == list(published(dataset, **ASKED))


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"shots": (0, 1, 8)}, "show 4 images a label and --shots asks for 8; give --shots 0,1"),
        ({"shots": (8,)}, "give --shots 4"),
        ({"labels": "true"}, "ask them with --labels fantasy, or add --controls words=true"),
        ({"seed": 3}, "were drawn from seed 0, given --seeds 3"),
    ],
)
def test_what_would_be_other_episodes_is_refused(config, asked, problem):
    with pytest.raises(DataError, match=problem):
        published(Dataset.open(config), **{**ASKED, **asked})


def test_a_run_of_the_published_episodes_has_the_results_of_one_that_draws_them(config, tmp_path):
    usual = {"models": ("chance",), "data": str(config), "shots": (0, 1, 4), "queries": 2}
    drawn = bench.run(Setup(tasks=("twin", "foil", "pair"), **usual), out=tmp_path / "drawn")
    listed = bench.run(Setup(tasks=("published",), **usual), out=tmp_path / "listed")
    assert runs.results(listed) == runs.results(drawn)
    assert {result.task for result in runs.results(listed)} == {"twin", "foil", "pair"}
    assert runs.read(listed).episodes == runs.read(drawn).episodes


def test_controls_are_asked_of_published_episodes(config):
    setup = Setup(
        models=("chance",), tasks=("published",), data=str(config), shots=(1,), controls=("swap",)
    )
    episodes = prepare(setup).episodes
    assert {episode.control for episode in episodes} == {"none", "swap"}
    assert len(episodes) == 2 * 44


def test_an_answer_never_counts_as_two(config):
    with pytest.raises(IsekaiError, match="the task twin are asked for twice; 'published' holds"):
        prepare(
            Setup(
                models=("chance",),
                tasks=("twin", "published"),
                data=str(config),
                shots=(1,),
                queries=2,
            )
        )


def test_a_limit_is_one_of_each_task(config):
    made = prepare(
        Setup(models=("chance",), tasks=("published",), data=str(config), shots=(1,), limit=2)
    )
    assert sorted(one.task for one in made.episodes) == ["foil"] * 2 + ["pair"] * 2 + ["twin"] * 2
