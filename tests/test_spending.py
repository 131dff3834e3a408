"""No order of requests and prices spends more than the cap, or stops while something fits."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai.errors import IsekaiError, PluginError
from model_adapters.spending import CAUTION, Spending, Tokens


def priced(cap=None, **prices) -> Spending:
    given = {"price_in": 1.0, "price_out": 1.0, "price_cached": None, **prices}
    return Spending(cap=cap, **given)


def tokens(prompt: float, completion: float = 0.0, **more: float) -> Tokens:
    return Tokens(prompt=prompt, completion=completion, **more)


def test_each_kind_of_token_has_its_price():
    spending = priced(price_in=4, price_out=10, price_cached=1)
    assert spending.cost(tokens(1e6)) == 4
    assert spending.cost(tokens(1e6, cached=1e6)) == 1
    assert spending.cost(tokens(1e6, written=1e6)) == 5
    assert spending.cost(tokens(0, 1e6)) == 10
    assert priced(price_in=4).cost(tokens(1e6, cached=1e6)) == 4


def test_a_picture_has_a_price_of_its_own_beside_its_tokens():
    alone = priced(price_in=None, price_out=None, price=0.04)
    assert alone.priced
    assert alone.cost(tokens(1e6, 1e6, pictures=2)) == pytest.approx(0.08)
    both = priced(price_in=5, price_out=40, price=0.01)
    assert both.cost(tokens(100, 1000, pictures=1)) == pytest.approx(0.0505)


def test_what_pictures_take_is_learned_from_the_first():
    spending, took = priced(cap=0.010), []

    async def work():
        while True:
            await asks(spending, tokens(0, pictures=1), tokens(0, 900, pictures=1))
            took.append(spending.spent)

    with pytest.raises(IsekaiError, match=r"the next request may cost \$0.001800"):
        asyncio.run(work())
    assert took == pytest.approx([0.0009 * n for n in range(1, 11)])
    with pytest.raises(IsekaiError, match=r"the next request may cost \$0.008192"):
        asyncio.run(asks(priced(cap=0.008), tokens(0, pictures=1), None))


def test_prices_that_cannot_be_reckoned_with_are_refused():
    with pytest.raises(PluginError, match="max_cost needs prices"):
        priced(cap=1, price_in=None, price_out=None)
    for one in ({"price_in": None}, {"price_out": None}):
        with pytest.raises(PluginError, match="go together"):
            priced(**one)


async def asks(spending: Spending, expected: Tokens, counted: Tokens | None) -> None:
    reserved = await spending.reserve(expected)
    await asyncio.sleep(0)
    spending.settle(reserved, expected, counted)


@settings(max_examples=60, deadline=None)
@given(
    cap=st.floats(0, 0.02),
    counts=st.lists(st.integers(1, 4000), min_size=1, max_size=30),
    width=st.integers(1, 8),
)
def test_the_cap_holds_whatever_comes_in_whatever_order(cap, counts, width):
    """As long as a server counts at most CAUTION times what was expected."""
    spending = priced(cap=cap)

    async def work():
        slots = asyncio.Semaphore(width)

        async def one(count):
            async with slots:
                await asks(spending, tokens(count, 20), tokens(count * CAUTION, 20))

        return await asyncio.gather(*map(one, counts), return_exceptions=True)

    ended = asyncio.run(work())
    assert spending.spent <= cap + 1e-12
    stopped = [problem for problem in ended if problem is not None]
    assert all(isinstance(problem, IsekaiError) for problem in stopped)
    total = sum(count * CAUTION + 20 for count in counts) / 1e6
    if abs(total - cap) > 1e-9:
        assert bool(stopped) == (total > cap)


def test_a_count_far_above_what_was_expected_is_learned_from():
    spending = priced(cap=0.010)

    async def work():
        await asks(spending, tokens(100), tokens(2000))
        await asks(spending, tokens(100), tokens(2000))
        for _ in range(9):
            await asks(spending, tokens(100), tokens(2000))

    with pytest.raises(IsekaiError, match=r"\$0.010000 are spent, and the next request may cost"):
        asyncio.run(work())
    assert spending.spent == pytest.approx(0.010)


def test_with_a_cap_the_first_request_goes_alone():
    spending = priced(cap=1)

    async def work():
        first = await spending.reserve(tokens(10))
        others = [asyncio.create_task(spending.reserve(tokens(10))) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(other.done() for other in others)
        spending.settle(first, tokens(10), tokens(10))
        await asyncio.wait_for(asyncio.gather(*others), 1)

    asyncio.run(work())


def test_without_a_cap_nobody_waits_and_without_counts_the_estimate_is_spent():
    spending = priced()

    async def work():
        reserved = [await spending.reserve(tokens(1000)) for _ in range(3)]
        spending.settle(reserved[0], tokens(1000), None)
        spending.release(reserved[1])
        spending.release(reserved[2], spent=reserved[2])

    asyncio.run(work())
    assert spending.spent == pytest.approx(2 * CAUTION * 1000 / 1e6)
    assert spending.tokens == 0
