"""A setup comes from bench.toml and options, is checked whole, and says what it resolves to."""

import pytest

from isekai import setup
from isekai.errors import IsekaiError
from isekai.setup import Setup, resolve


def written(tmp_path, text: str):
    path = tmp_path / "bench.toml"
    path.write_text(text)
    return path


def test_options_go_before_the_file_and_the_file_before_the_defaults(tmp_path):
    path = written(tmp_path, 'models = ["knn"]\nshots = [1, 2]\nseeds = [0, 1]\n[options]\nk = 3\n')
    read = setup.read(path, {"shots": (4,)})
    assert (read.models, read.shots, read.seeds) == (("knn",), (4,), (0, 1))
    assert (read.options, read.queries) == ({"k": 3}, 4)


def test_shots_that_are_given_stand_in_the_place_of_images_that_are_written(tmp_path):
    path = written(tmp_path, "n_images = [2, 4]")
    assert resolve(setup.read(path, {})).shots == (1, 2)
    assert resolve(setup.read(path, {"shots": (8,)})).shots == (8,)


def test_shots_and_images_in_all_are_not_both_taken():
    with pytest.raises(IsekaiError, match="--shots and --n-images both count support images"):
        setup.read(None, {"shots": (1,), "n_images": (2,)})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model = ['knn']", "model is not a field; did you mean 'models'"),
        ("shots = 'many'", "shots is 'many'"),
        ("protocol = 'papr'", "protocol is 'papr'"),
        ("shots = [1,", "not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(tmp_path, text, told):
    with pytest.raises(IsekaiError, match=told) as refused:
        setup.read(written(tmp_path, text), {})
    assert "bench.toml" in str(refused.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(IsekaiError, match="no such file"):
        setup.read(tmp_path / "none.toml", {})


def test_the_papers_protocol_brings_its_texts_and_the_true_names_unless_told_otherwise():
    published = resolve(Setup(protocol="paper"))
    assert (published.template, published.labels) == ("lcl", "true")
    own = resolve(Setup(protocol="paper", template="plain", labels="fantasy"))
    assert (own.template, own.labels) == ("plain", "fantasy")
    assert (resolve(Setup()).template, resolve(Setup()).labels) == ("plain", "fantasy")


def test_images_in_all_are_halved_into_shots():
    assert resolve(Setup(n_images=(16, 2, 0))).shots == (0, 1, 8)


def test_all_controls_are_written_out_with_the_rates_and_orders_given():
    assert resolve(Setup(controls=("all",))).controls == (
        *("blind", "text", "swap", "false=0.5", "false=1", "order=3"),
        *("words=true", "words=true+blind", "words=true+swap", "words=true+zero"),
        "words=conflict",
    )
    given = resolve(Setup(controls=("all",), false_labels=(0, 0.25), orders=5, shots=(1,)))
    assert {"false=0.25", "order=5", "zero"} <= set(given.controls)
    assert not {"false=0", "false=0.5", "order=3"} & set(given.controls)
    true = resolve(Setup(controls=("all",), labels="true")).controls
    assert {"words=fantasy", "words=conflict"} == {name for name in true if "words" in name}


def test_all_strategies_of_selection_are_written_out_but_the_plain_one():
    everything = resolve(Setup(select=("all",))).select
    assert {"random", "nearest", "herding", "prototype", "diverse", "hardest"} == set(everything)


def test_what_is_asked_twice_is_asked_once():
    twice = resolve(Setup(shots=(2, 1, 2), seeds=(1, 1), controls=("swap", "swap")))
    assert (twice.shots, twice.seeds, twice.controls) == ((1, 2), (1,), ("swap",))


def test_words_and_numbers_come_one_by_one_or_with_commas():
    assert setup.words(["twin, foil", "pair"]) == ("twin", "foil", "pair")
    assert setup.numbers("--shots", "0,1", int) == (0, 1)
    assert setup.numbers("--false-labels", "0,.5", float) == (0, 0.5)
    with pytest.raises(IsekaiError, match=r"--shots is '1,two'; it takes numbers with commas"):
        setup.numbers("--shots", "1,two", int)
