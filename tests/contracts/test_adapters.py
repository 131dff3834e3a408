"""What every adapter keeps: a stranger's is held to it beside the built-in ones.

A new adapter is in as soon as it is installed; one that needs options to be built says so here.
"""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isekai import files, plugins
from isekai.files import plain
from isekai.images import encode
from isekai.protocols import (
    Closing,
    Concurrent,
    Foretelling,
    ModelAdapter,
    Probing,
    Telling,
)
from isekai.scoring import malformed, outcome
from isekai.types import EncodedImage, Response, Sweep, Turn
from tests.conftest import picture
from tests.loopback import serve

PLUGIN = Path(__file__).parent.parent / "data" / "colours"
CUTS = (0, 2, 4, 8)
LABELS = ("dovrik", "tulmab")
COLOURS = {"dovrik": (226, 88, 60), "tulmab": (60, 90, 200)}


def turn(label: str, index: int, *, shown: bool) -> Turn:
    rng = np.random.default_rng([LABELS.index(label), index, shown])
    data = encode(picture(COLOURS[label], (240, 240, 230), 5, rng))
    return Turn(
        image=EncodedImage(id=files.sha256(data), data=data),
        question="What is this called?",
        answer=f"This is called {label}." if shown else None,
        label=label if shown else None,
    )


SWEEP = Sweep(
    episode_id="twin/fruit/000",
    support=tuple(turn(LABELS[i % 2], i, shown=True) for i in range(8)),
    cuts=CUTS,
    queries=tuple(turn(LABELS[i % 2], i, shown=False) for i in range(4)),
    labels=LABELS,
)


@pytest.fixture(scope="module")
def server():
    with serve() as running:
        yield running


@pytest.fixture(params=plugins.names("adapters"))
def build(request, server, tmp_path, monkeypatch):
    """Builds the adapter anew at every call."""
    monkeypatch.syspath_prepend(PLUGIN)
    answers = tmp_path / "answers.jsonl"
    files.write_jsonl(
        answers,
        [
            {"episode_id": SWEEP.episode_id, "shots": shots, "query": q, "text": f"{shots} {q}"}
            for shots in (0, 1, 2, 4)
            for q in range(4)
        ],
    )
    embedded = {"embedder": "colours", "cache": tmp_path / "cache"}
    options = {
        "scripted": {"answers": answers},
        "prototype": embedded,
        "knn": embedded,
        "logreg": embedded,
        "planted": {"strategy": "binder"},
        "openai": {"model": "tiny", "base_url": server.url, "cache": tmp_path / "openai"},
        "anthropic": {"model": "tiny", "base_url": server.root, "cache": False},
    }
    name = request.param
    return lambda: plugins.build("adapters", name, options.get(name))


def responses(adapter: ModelAdapter, sweep: Sweep = SWEEP) -> list[Response]:
    """What it says, without what that took: a second time may be cheaper."""
    return [replace(response, usage=None) for response in adapter.respond(sweep)]


def test_it_says_what_it_is_and_explains_itself(build):
    adapter = build()
    assert isinstance(adapter, ModelAdapter)
    assert json.loads(json.dumps(plain(adapter.provenance))) == plain(build().provenance)
    assert type(adapter).__doc__


def test_it_answers_every_query_behind_every_cut(build):
    said = responses(build())
    assert len(said) == len(CUTS) * len(SWEEP.queries)
    assert [response.error for response in said] == [None] * len(said)
    assert all(malformed(response, LABELS) is None for response in said)
    assert {outcome(r, LABELS, LABELS[0])[1] for r in said} <= {"correct", "wrong", "abstain"}


def test_its_log_probabilities_are_those_of_the_labels_alone(build):
    for response in responses(build()):
        if response.label_logprobs is not None:
            total = sum(math.exp(value) for value in response.label_logprobs.values())
            assert total == pytest.approx(1, abs=1e-4)


def test_a_response_depends_on_the_support_turns_before_its_cut_alone(build):
    adapter, said = build(), iter(responses(build()))
    for cut in CUTS:
        alone = replace(SWEEP, support=SWEEP.support[:cut], cuts=(cut,))
        assert responses(adapter, alone) == [next(said) for _ in SWEEP.queries]


def test_it_says_the_same_again_also_after_another_episode(build):
    adapter = build()
    first = responses(adapter)
    responses(adapter, replace(SWEEP, support=SWEEP.support[::-1], queries=SWEEP.queries[::-1]))
    assert responses(adapter) == first == responses(build())


def test_what_it_took_is_told_in_numbers_that_can_be_added_up(build):
    for response in build().respond(SWEEP):
        assert all(math.isfinite(value) and value >= 0 for value in (response.usage or {}).values())


def test_it_answers_each_of_several_sweeps_as_if_it_were_alone(build):
    adapter = build()
    sweeps = adapter.sweeps if isinstance(adapter, Concurrent) else 1
    other = replace(SWEEP, support=SWEEP.support[::-1], queries=SWEEP.queries[::-1])
    with ThreadPoolExecutor(sweeps) as pool:
        both = list(pool.map(lambda sweep: responses(adapter, sweep), (SWEEP, other)))
    assert both == [responses(build(), SWEEP), responses(build(), other)]


def test_what_it_does_beside_answering_changes_no_answer(build):
    adapter, expected = build(), responses(build())
    if isinstance(adapter, Probing):
        adapter.probe(SWEEP)
    if isinstance(adapter, Foretelling):
        assert all(value >= 0 for value in adapter.foretell(SWEEP).values())
    if isinstance(adapter, Telling):
        assert "\n" not in adapter.status()
    assert responses(adapter) == expected
    if isinstance(adapter, Closing):
        adapter.close()
        assert responses(adapter) == expected
