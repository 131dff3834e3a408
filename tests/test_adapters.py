"""The baselines do what their names say, and tell what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from isekai import files, plugins
from isekai.errors import DataError, PluginError
from isekai.images import encode
from isekai.types import EncodedImage, Sweep, Turn
from model_adapters.chance import Chance
from model_adapters.scripted import Scripted


class Angles:
    """Pictures of one grey: the shade is an angle, and its direction the embedding."""

    model, revision = "angles", "1"

    def __init__(self) -> None:
        self.seen = 0

    def embed_images(self, images):
        self.seen += len(images)
        angles = [np.deg2rad(image.getpixel((0, 0))[0]) for image in images]
        return np.array([[np.cos(a), np.sin(a), 0] for a in angles], np.float32)


def shade(degrees: int, label: str | None = None) -> Turn:
    data = encode(Image.new("RGB", (2, 2), (degrees,) * 3))
    return Turn(image=EncodedImage(id=files.sha256(data), data=data), question="?", label=label)


def sweep(support: list[tuple[int, str]], queries: list[int], labels="ab", cuts=None) -> Sweep:
    return Sweep(
        episode_id="e",
        support=tuple(shade(degrees, label) for degrees, label in support),
        cuts=cuts or (len(support),),
        queries=tuple(shade(degrees) for degrees in queries),
        labels=tuple(labels),
    )


@pytest.fixture
def metric(tmp_path, monkeypatch):
    """Builds a metric adapter on angles, with a cache of its own."""
    angles = Angles()
    monkeypatch.setattr("model_adapters.metric.build", lambda seam, name: angles)
    return lambda name, **options: plugins.build("adapters", name, {"cache": tmp_path, **options})


def answers(adapter, asked: Sweep) -> str:
    return "".join(response.text or "-" for response in adapter.respond(asked))


SUPPORT = [(10, "a"), (80, "b"), (20, "a"), (90, "b"), (75, "a"), (100, "b")]


def test_prototype_takes_the_nearest_centre(metric):
    asked = sweep(SUPPORT[:4], [0, 40, 60, 120], cuts=(0, 2, 4))
    assert answers(metric("prototype"), asked) == "----" + "aabb" + "aabb"
    scores = list(metric("prototype").respond(asked))[-1].label_logprobs
    gap = (np.cos(np.deg2rad(120 - 85)) - np.cos(np.deg2rad(120 - 15))) / 0.05
    assert scores["b"] - scores["a"] == pytest.approx(gap, abs=5e-3)


def test_neighbours_are_as_many_as_asked(metric):
    asked = sweep(SUPPORT, [74, 12])
    assert answers(metric("knn"), asked) == "aa"
    assert answers(metric("knn", k=3), asked) == "ba"
    assert answers(metric("knn", k=99), asked) == "ba"


def test_an_equal_distance_is_a_tie_and_no_guess(metric):
    response = next(metric("prototype").respond(sweep([(10, "a"), (80, "b")], [45])))
    assert len(set(response.label_logprobs.values())) == 1


def test_logistic_regression_agrees_with_a_fit_in_all_dimensions(metric):
    from sklearn.linear_model import LogisticRegression

    asked = sweep(SUPPORT, [30, 60])
    rows = Angles().embed_images([Image.new("RGB", (1, 1), (d,) * 3) for d, _ in SUPPORT])
    fit = LogisticRegression(C=2.0, tol=1e-8).fit(rows, [label for _, label in SUPPORT])
    queries = Angles().embed_images([Image.new("RGB", (1, 1), (d,) * 3) for d in (30, 60)])
    expected = expit(fit.decision_function(queries))
    for response, b in zip(metric("logreg", C=2.0).respond(asked), expected, strict=True):
        assert np.exp(response.label_logprobs["b"]) == pytest.approx(b, abs=1e-3)


@pytest.mark.parametrize("name", ["prototype", "knn", "logreg"])
def test_a_label_that_was_never_shown_is_all_but_ruled_out(metric, name):
    for support in ([(10, "a"), (80, "b")], [(10, "a")]):
        response = next(metric(name).respond(sweep(support, [12], labels="abc")))
        assert response.text == "a"
        assert -40 < response.label_logprobs["c"] < -20


def test_chance_guesses_evenly_and_anew_for_every_episode_cut_and_seed():
    asked = sweep([(1, "a"), (2, "b")], [0] * 400, cuts=(0, 2))
    guesses = answers(Chance(), asked)
    assert 340 < guesses.count("a") < 460
    assert guesses[:400] != guesses[400:]
    assert answers(Chance(seed=1), asked) != guesses


@pytest.fixture
def script(tmp_path):
    def written(*rows: dict[str, object]) -> Path:
        path = tmp_path / "answers.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return written


ROW = {"episode_id": "e", "shots": 1, "query": 0, "text": "It's a."}


def test_scripted_replays_answers_and_lets_the_missing_ones_fail(script):
    adapter = Scripted(
        script(ROW, {**ROW, "query": 1, "text": "", "error": "HTTP 500", "extra": 1})
    )
    said = list(adapter.respond(sweep([(1, "a"), (2, "b")], [0, 0, 0], cuts=(2,))))
    assert [(r.text, r.error) for r in said] == [
        ("It's a.", None),
        ("", "HTTP 500"),
        ("", "no answer for 1 shots, query 2"),
    ]


def test_scripted_knows_its_answers_by_their_content(script):
    first = Scripted(script(ROW)).provenance
    assert Scripted(script(ROW)).provenance == first
    assert Scripted(script({**ROW, "text": "b"})).provenance != first


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ((ROW, ROW), "line 2 answers e, 1 shots, query 0 a second time"),
        (({**ROW, "shots": "few"},), "line 1: shots is 'few'"),
        (({"text": "a"},), "line 1: episode_id is missing"),
    ],
)
def test_scripted_refuses_a_file_that_says_too_much_or_too_little(script, rows, told):
    with pytest.raises(DataError, match=told):
        Scripted(script(*rows))


def test_what_is_not_there_and_what_makes_no_sense_is_refused(metric, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        plugins.build("adapters", f"scripted:{tmp_path}/none.jsonl")
    with pytest.raises(PluginError, match="k of at least 1, given 0"):
        metric("knn", k=0)
    with pytest.raises(PluginError, match="C above 0, given -1"):
        metric("logreg", C=-1)
    with pytest.raises(PluginError, match="no option 'kk'; did you mean 'k'"):
        metric("knn", kk=1)
