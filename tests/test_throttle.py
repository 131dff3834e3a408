"""The throttle widens by one a round, halves once for those under way together, and keeps time."""

import asyncio
import time

import pytest

from isekai.errors import IsekaiError
from model_adapters.throttle import Throttle


def play(work):
    """Run a coroutine that may take two seconds."""
    return asyncio.run(asyncio.wait_for(work, 2))


async def enter(throttle, log, name, rank=0, tokens=0.0, seconds=0.01):
    async with throttle.slot(rank, tokens):
        log.append((name, time.monotonic(), throttle.flying))
        await asyncio.sleep(seconds)


def test_at_most_so_many_are_under_way_and_the_lowest_rank_is_next():
    async def work():
        throttle, log = Throttle(2, rpm=None, tpm=None), []
        ranks = [5, 5, 3, 9, 1, 3]
        await asyncio.gather(
            *(enter(throttle, log, f"{rank}{n}", rank) for n, rank in enumerate(ranks))
        )
        assert [name for name, _, _ in log] == ["50", "51", "14", "32", "35", "93"]
        assert max(flying for _, _, flying in log) == 2
        assert throttle.flying == 0

    play(work())


def test_it_halves_once_for_those_under_way_together_and_grows_by_one_a_round():
    async def work():
        throttle, log = Throttle(64, rpm=None, tpm=None), []
        sent = time.monotonic()
        crowd = [asyncio.create_task(enter(throttle, log, n)) for n in range(16)]
        await asyncio.sleep(0.001)
        for _ in range(16):
            throttle.overloaded(sent)
        await asyncio.gather(*crowd)
        assert (throttle.backoffs, await width(throttle)) == (1, 8)  # half of what was under way
        for backoffs in (2, 3):
            async with throttle.slot(0, 0):
                throttle.overloaded(time.monotonic())
            assert (throttle.backoffs, await width(throttle)) == (backoffs, 1)  # one always asks
        for round_of in (1, 2, 3):
            for _ in range(round_of):
                throttle.answered(0)
        assert await width(throttle) == 3  # a round ends a little short: 1/w is added at each step
        for _ in range(3000):
            throttle.answered(0)
        assert await width(throttle) == 64

    play(work())


async def width(throttle) -> int:
    """How many get in at once."""
    log = []
    tasks = [asyncio.create_task(enter(throttle, log, n, seconds=9)) for n in range(80)]
    await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert throttle.flying == 0
    return len(log)


@pytest.mark.parametrize(
    ("rpm", "tpm", "tokens"), [(600, None, 9), (None, 60_000, 100), (6000, 60_000, 100)]
)
def test_requests_and_tokens_a_minute_are_kept_by_spacing(rpm, tpm, tokens):
    async def work():
        throttle, log = Throttle(9, rpm=rpm, tpm=tpm), []
        began = time.monotonic()
        await asyncio.gather(*(enter(throttle, log, n, tokens=tokens) for n in range(4)))
        return [at - began for _, at, _ in log]

    for place, at in enumerate(play(work())):
        assert place * 0.1 <= at < place * 0.1 + 0.3


def test_what_a_request_took_corrects_the_pace():
    async def work(surplus):
        throttle, log = Throttle(1, rpm=None, tpm=60_000), []
        await enter(throttle, log, 0, tokens=100, seconds=0)
        throttle.answered(surplus)
        await enter(throttle, log, 1, tokens=100, seconds=0)
        return log[1][1] - log[0][1]

    assert play(work(200)) > 0.29
    assert play(work(-100)) < 0.09


def test_a_pause_holds_all_also_those_that_wait_already():
    async def work():
        throttle, log = Throttle(2, rpm=None, tpm=6000), []
        started = time.monotonic()
        first = asyncio.create_task(enter(throttle, log, 0, tokens=5))
        second = asyncio.create_task(enter(throttle, log, 1, tokens=5))
        await asyncio.sleep(0.01)
        throttle.pause(0.2)
        await asyncio.gather(first, second, enter(throttle, log, 2))
        return [at - started for _, at, _ in log]

    at = play(work())
    assert at[0] < 0.05
    assert min(at[1:]) >= 0.2


def test_a_stop_reaches_everyone_at_once():
    async def work():
        throttle, log = Throttle(1, rpm=1, tpm=None), []
        await enter(throttle, log, 0)
        waiting = [asyncio.create_task(enter(throttle, log, n)) for n in (1, 2, 3)]
        asleep = asyncio.create_task(throttle.sleep(60))
        await asyncio.sleep(0.01)
        throttle.stop(IsekaiError("the first reason"))
        throttle.stop(IsekaiError("another"))
        ended = await asyncio.gather(*waiting, asleep, return_exceptions=True)
        assert [str(problem) for problem in ended] == ["the first reason"] * 4
        with pytest.raises(IsekaiError, match="the first reason"):
            await enter(throttle, log, 4)
        assert len(log) == 1
        assert throttle.flying == 0

    play(work())


def test_who_gives_up_waiting_takes_no_place():
    async def work():
        throttle, log = Throttle(1, rpm=None, tpm=None), []
        first = asyncio.create_task(enter(throttle, log, 0))
        gone = asyncio.create_task(enter(throttle, log, 1))
        late = asyncio.create_task(enter(throttle, log, 2))
        await asyncio.sleep(0.001)
        gone.cancel()
        await asyncio.gather(first, gone, late, return_exceptions=True)
        assert [name for name, _, _ in log] == [0, 2]
        # The hardest moment: leave was just given when the one who waits is cancelled.
        held = throttle.slot(0, 0)
        await held.__aenter__()
        gone = asyncio.create_task(enter(throttle, log, 3))
        late = asyncio.create_task(enter(throttle, log, 4))
        await asyncio.sleep(0)
        await held.__aexit__(None, None, None)
        gone.cancel()
        await asyncio.gather(gone, late, return_exceptions=True)
        assert [name for name, _, _ in log] == [0, 2, 4]
        assert throttle.flying == 0

    play(work())
