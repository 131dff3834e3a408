"""Anthropic's messages API, with the support set kept in its prompt cache."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import anthropic
from pydantic import Field

from isekai.files import parse
from isekai.types import Sweep
from model_adapters import address, line
from model_adapters.chat import Block, Chat, Style, answer_schema
from model_adapters.chatting import Chatting
from model_adapters.exchange import CONNECT, Reply, no_text
from model_adapters.pictures import Picture
from model_adapters.remote import Count, Counted, Dollars, Limits, Seconds
from model_adapters.spending import Tokens

CACHED = 0.1
"""A token read from the prompt cache costs that share of an input token (from its price list)."""


class Anthropic(Chatting):
    """`anthropic:MODEL`, through Anthropic's own client.

    The options are those of `openai`, where they make sense: the key comes from ANTHROPIC_API_KEY;
    `choice` is none or json (`output_config`); price_cached is a tenth of price_in unless given.
    """

    path = "/v1/messages"
    api = anthropic

    def __init__(
        self,
        model: str,
        base_url: str = "",
        api_key_env: str = "",
        max_tokens: Count = 64,
        temperature: Annotated[float, Field(ge=0)] | Literal["none"] = 0.0,
        choice: Literal["none", "json"] = "none",
        style: Style = "turns",
        max_side: Count | None = None,
        extra: dict[str, Any] | None = None,
        concurrency: Count = 8,
        timeout: Seconds = 300.0,
        retries: Annotated[int, Field(ge=0)] = 6,
        rpm: Count | None = None,
        tpm: Count | None = None,
        price_in: Dollars | None = None,
        price_out: Dollars | None = None,
        price_cached: Dollars | None = None,
        max_cost: Dollars | None = None,
        cache: bool | Path = True,
        served_as: str = "",
    ) -> None:
        usual = os.environ.get("ANTHROPIC_BASE_URL") or "https://api.anthropic.com"
        server = address.resolve(base_url, api_key_env, usual=usual, variable="ANTHROPIC_API_KEY")
        chat = AnthropicChat(
            model=model,
            max_tokens=max_tokens,
            temperature=temperature,
            choice=choice,
            style=style,
            max_side=max_side,
            extra=extra or {},
        )
        if price_cached is None and price_in is not None:
            price_cached = price_in * CACHED
        limits = Limits(
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            rpm=rpm,
            tpm=tpm,
            price_in=price_in,
            price_out=price_out,
            price_cached=price_cached,
            max_cost=max_cost,
            cache=cache,
            served_as=served_as,
        )
        super().__init__(chat, server, limits)

    def client(self) -> line.Client:
        return anthropic.AsyncAnthropic(
            api_key=self._address.key or "none",
            base_url=self._address.url,
            max_retries=0,
            timeout=anthropic.Timeout(None, connect=CONNECT),
            default_headers={"Accept-Encoding": "identity"},
            http_client=anthropic.DefaultAsyncHttpxClient(**line.http_options()),
        )

    def read(self, reply: object) -> Reply:
        told = parse(_Message, reply, "the answer")
        text = "".join(block.text for block in told.content if block.type == "text")
        cut_off = told.stop_reason in ("max_tokens", "model_context_window_exceeded")
        finish = "length" if cut_off else told.stop_reason
        thought = any("thinking" in block.type for block in told.content)
        return Reply(
            text=text,
            finish=finish,
            tokens=told.usage.tokens if told.usage else None,
            model=told.model,
            silence="" if text.strip() else no_text(finish, thought=thought),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnthropicChat(Chat):
    """Messages, with pictures in base64 and marks where the prompt cache is to keep a prefix."""

    choice: Literal["none", "json"]

    def settings(self, sweep: Sweep) -> Block:
        body: Block = {"model": self.model, "max_tokens": self.max_tokens}
        if sweep.instruction:
            body["system"] = sweep.instruction
        if self.temperature != "none":
            body["temperature"] = self.temperature
        if self.choice == "json":
            schema = {"type": "json_schema", "schema": answer_schema(sweep.labels)}
            body["output_config"] = {"format": schema}
        return body

    def opening(self, sweep: Sweep) -> list[Block]:
        return []

    def shown(self, picture: Picture) -> Block:
        source = {"type": "base64", "media_type": picture.media_type, "data": picture.data}
        return {"type": "image", "source": source}

    def answered(self, text: str, *, ends_cut: bool) -> Block:
        mark = {"cache_control": {"type": "ephemeral"}} if ends_cut else {}
        return {"type": "text", "text": text} | mark


# ---------------------------------------------------------------- what an answer holds for us


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    type: str
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    input_tokens: Counted | None = None
    output_tokens: Counted | None = None
    cache_read_input_tokens: Counted | None = None
    cache_creation_input_tokens: Counted | None = None

    @property
    def tokens(self) -> Tokens | None:
        """`input_tokens` are those that the cache has nothing to do with."""
        cached, written = self.cache_read_input_tokens or 0, self.cache_creation_input_tokens or 0
        prompt = (self.input_tokens or 0) + cached + written
        if not prompt:
            return None
        completion = self.output_tokens or 0
        return Tokens(prompt=prompt, completion=completion, cached=cached, written=written)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    content: list[_Block]
    stop_reason: str | None = None
    model: str | None = None
    usage: _Usage | None = None
