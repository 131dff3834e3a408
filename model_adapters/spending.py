"""What requests cost, and the cap that stops before it could be passed."""

import asyncio
from dataclasses import dataclass, replace

from isekai.errors import IsekaiError, PluginError

CACHE_WRITE = 1.25
"""Input tokens that a token written to a cache costs, where writing has a price of its own
(Anthropic, for five minutes)."""

CAUTION = 2.0
"""A prompt may hold so many times the tokens we expect; more, if the server once counted so. So
many times the tokens of the longest that was drawn, a picture may take."""

FIRST_PICTURE = 8192
"""Tokens that a picture may take before one was counted; those of gpt-image-1 take 272 to 6240."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a server counted for one request, or what is expected."""

    prompt: float
    """All of the prompt, cached or not."""
    completion: float
    cached: float = 0.0
    """Those of the prompt that were read from the server's prefix cache."""
    written: float = 0.0
    """Those of the prompt that were written to a cache at a price of their own."""
    pictures: float = 0.0
    """How many were drawn. What each takes is part of `completion` only once it was counted."""

    @property
    def total(self) -> float:
        return self.prompt + self.completion


class Spending:
    """Adds up what was spent. Prices are US dollars a million tokens, and `price` is for a picture;
    without any, cost is unknown.

    Before a request is sent, what it may cost is set aside; an answer puts the true cost in its
    place. What may have been charged for, though no answer came, stays spent.
    """

    def __init__(
        self,
        *,
        price_in: float | None,
        price_out: float | None,
        price_cached: float | None,
        price: float | None = None,
        cap: float | None,
    ) -> None:
        if (price_in is None) != (price_out is None):
            raise PluginError("price_in and price_out go together: US dollars a million tokens")
        self.priced = price_in is not None or price is not None
        if cap is not None and not self.priced:
            raise PluginError(
                "max_cost needs prices: give price_in and price_out, US dollars a million tokens"
            )
        self.spent = 0.0
        self.tokens = 0.0
        """All that were counted, of prompts and completions."""
        self._cap = cap
        self._in, self._out, self._picture = price_in or 0.0, price_out or 0.0, price or 0.0
        self._cached = self._in if price_cached is None else price_cached
        self._set_aside = 0.0
        self._under_way = 0
        self._caution = CAUTION
        self._counted = False
        self._picture_tokens = 0.0
        """The most that one took."""
        self._waiting: list[asyncio.Future[None]] = []

    def cost(self, tokens: Tokens) -> float:
        """US dollars."""
        plain = tokens.prompt - tokens.cached - tokens.written
        counted = (
            plain * self._in
            + tokens.cached * self._cached
            + tokens.written * self._in * CACHE_WRITE
            + tokens.completion * self._out
        ) / 1e6
        return counted + tokens.pictures * self._picture

    async def reserve(self, expected: Tokens) -> float:
        """Set aside what a request may cost, in US dollars; IsekaiError if that could pass the cap.

        With others under way it waits for what they really cost, so that a run stops at the same
        place whatever the concurrency; with a cap, the first request is under way alone.
        """
        while self._cap is not None:
            most = self._most(expected)
            fits = self.spent + self._set_aside + most <= self._cap
            if fits and (self._counted or not self._under_way):
                break
            if not self._under_way:
                raise IsekaiError(
                    f"max_cost is ${self._cap:g}: ${self.spent:.6f} are spent, and the next "
                    f"request may cost ${most:.6f}; raise -o max_cost to go on"
                )
            settled = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        most = self._most(expected)
        self._under_way += 1
        self._set_aside += most
        return most

    def settle(self, reserved: float, expected: Tokens, counted: Tokens | None) -> None:
        """A request is answered. Without a count, all that was set aside is taken for spent."""
        self._counted = True
        if counted is None:
            self.release(reserved, spent=reserved)
            return
        self.tokens += counted.total
        self._caution = max(self._caution, counted.prompt / max(1.0, expected.prompt))
        if counted.pictures:
            each = counted.completion / counted.pictures
            self._picture_tokens = max(self._picture_tokens, each)
        self.release(reserved, spent=self.cost(counted))

    def release(self, reserved: float, *, spent: float = 0.0) -> None:
        """A request is over, and this is what it cost."""
        self._under_way -= 1
        self._set_aside = self._set_aside - reserved if self._under_way else 0.0
        self.spent += spent
        waiting, self._waiting = self._waiting, []
        for settled in waiting:
            if not settled.done():
                settled.set_result(None)

    def _most(self, expected: Tokens) -> float:
        each = CAUTION * self._picture_tokens or FIRST_PICTURE
        prompt = expected.prompt * self._caution
        completion = expected.completion + expected.pictures * each
        return self.cost(replace(expected, prompt=prompt, completion=completion))
