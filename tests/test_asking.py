"""Sweeps are asked one after the other or at once, and an early end loses no answer."""

import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from isekai.asking import ask
from isekai.errors import IsekaiError
from isekai.types import Response, Sweep
from tests.test_controls import folded, two_way

EPISODES = two_way(episodes=4)  # 24 of them


class Crowd:
    """Answers several sweeps at once; counts them, and may stop or break at one of them."""

    provenance: ClassVar[dict[str, object]] = {}

    def __init__(self, sweeps: int, stop: str = "", problem: BaseException | None = None) -> None:
        self.sweeps, self.stop, self.problem = sweeps, stop, problem
        self.lock, self.inside, self.peak, self.asked, self.closed = threading.Lock(), 0, 0, [], 0

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        with self.lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
            self.asked.append(sweep.episode_id)
        time.sleep(0.005)
        with self.lock:
            self.inside -= 1
        if sweep.episode_id == self.stop and self.problem:
            raise self.problem
        for _ in range(len(sweep.cuts) * len(sweep.queries)):
            yield Response(text=sweep.labels[0])

    def close(self) -> None:
        self.closed += 1


def answered(adapter) -> dict[str, list]:
    return {e.id: rows for e, rows in ask("crowd", adapter, EPISODES, folded, "sum")}


def test_one_or_many_at_once_give_the_same_answers():
    one, many = Crowd(1), Crowd(8)
    assert answered(one) == answered(many)
    assert set(answered(many)) == {episode.id for episode in EPISODES}
    assert one.peak == 1
    assert 4 <= many.peak <= 8
    assert many.closed == 2


def test_no_more_episodes_are_in_memory_than_are_being_asked():
    made, adapter = [], Crowd(4)

    def fold(episode):
        made.append(episode.id)
        assert len(made) - len(done) <= 4
        return folded(episode)

    done = []
    for episode, _ in ask("crowd", adapter, EPISODES, fold, "sum"):
        done.append(episode.id)
    assert sorted(done) == sorted(made)


def test_a_problem_to_mend_ends_the_run_after_the_answers_under_way():
    adapter = Crowd(6, stop=EPISODES[8].id, problem=IsekaiError("no more money"))
    done = []
    with pytest.raises(IsekaiError, match="no more money"):
        done.extend(episode.id for episode, _ in ask("crowd", adapter, EPISODES, folded, "sum"))
    assert set(done) == set(adapter.asked) - {adapter.stop}  # whatever was asked came out
    assert len(adapter.asked) < len(EPISODES)
    assert adapter.closed == 1


def test_a_bug_of_the_adapter_fails_its_episode_alone():
    adapter = Crowd(6, stop=EPISODES[8].id, problem=ValueError("a bug"))
    rows = answered(adapter)
    assert len(rows) == len(EPISODES)
    assert {row.error for row in rows[adapter.stop]} == {"ValueError: a bug"}
    assert not any(row.error for id, own in rows.items() if id != adapter.stop for row in own)


def test_an_interrupt_waits_for_nothing():
    adapter = Crowd(6, stop=EPISODES[0].id, problem=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        answered(adapter)
    assert adapter.closed == 1
