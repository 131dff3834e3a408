"""OpenAI-compatible chat servers: vLLM, SGLang, llama.cpp, Ollama and hosted ones."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import openai
from pydantic import Field

from isekai.errors import DataError
from isekai.files import parse
from isekai.types import Sweep
from model_adapters import address, line
from model_adapters.address import Address
from model_adapters.chat import Block, Chat, Style, answer_schema
from model_adapters.chatting import Chatting
from model_adapters.exchange import CONNECT, Reply, no_text
from model_adapters.pictures import Picture
from model_adapters.remote import Count, Counted, Dollars, Limits, Seconds
from model_adapters.spending import Tokens

Choice = Literal["none", "json", "vllm", "grammar"]
"""How a server is made to say nothing but a label: not at all; by a JSON schema (`response_format`:
OpenAI, vLLM, SGLang, llama.cpp, Ollama and most hosted ones); by vLLM's `structured_outputs`; by
llama.cpp's `grammar`."""


class OpenAI(Chatting):
    """`openai:MODEL` at OpenAI, or with `-o base_url=` at any server that speaks its chat API.

    model         as the server calls it; `served_as` if it answers under another name
    base_url      such as http://localhost:8000/v1; else $OPENAI_BASE_URL, else OpenAI
    api_key_env   the environment variable with the key: OPENAI_API_KEY, and none for servers on
                  this machine or in its network
    max_tokens    of an answer; models that think aloud need thousands
    temperature   `none` leaves it out, for models that refuse it
    seed          for servers that draw
    choice        none, json, vllm or grammar: the server lets the model say labels alone
    style         turns (support answers as the assistant's) or single (one message, interleaved)
    max_side      shrinks larger pictures, pixels
    detail        low, high or auto, for servers that know it
    extra         further fields of each request: -o 'extra={top_p = 1.0}'
    concurrency   requests, and sweeps, at a time; fewer while the server is overloaded
    timeout       seconds for one try, whatever it hangs on
    retries       further tries after a fault that may pass
    rpm, tpm      requests and tokens a minute at most
    price_in, price_out, price_cached   US dollars a million tokens
    max_cost      US dollars that this process may spend; it stops before the request that could
                  pass them
    cache         a folder for answers in the place of the usual one; false for none. What was
                  answered is asked again only if something of the question changes
    """

    path = "/chat/completions"
    api = openai

    def __init__(
        self,
        model: str,
        base_url: str = "",
        api_key_env: str = "",
        max_tokens: Count = 64,
        temperature: Annotated[float, Field(ge=0)] | Literal["none"] = 0.0,
        seed: int | None = None,
        choice: Choice = "none",
        style: Style = "turns",
        max_side: Count | None = None,
        detail: Literal["low", "high", "auto"] | None = None,
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
        server = resolve(base_url, api_key_env)
        chat = OpenAIChat(
            model=model,
            max_tokens=max_tokens,
            limit="max_completion_tokens" if server.is_openai else "max_tokens",
            temperature=temperature,
            seed=seed,
            choice=choice,
            style=style,
            max_side=max_side,
            detail=detail,
            extra=extra or {},
        )
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
        return client(self._address)

    def read(self, reply: object) -> Reply:
        told = parse(_Completion, reply, "the answer")
        if not told.choices:
            raise DataError("the answer has no choices")
        message, finish = told.choices[0].message, told.choices[0].finish_reason
        text = message.said or message.refusal or ""
        return Reply(
            text=text,
            finish=finish,
            tokens=told.usage.tokens if told.usage else None,
            model=told.model,
            silence="" if text.strip() else _silence(message, finish),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIChat(Chat):
    """Chat completions, with pictures as data URLs."""

    limit: Literal["max_tokens", "max_completion_tokens"]
    """The name of the field that limits an answer: OpenAI's newer models refuse the old one, and
    other servers may know no other."""
    seed: int | None
    choice: Choice
    detail: str | None

    def settings(self, sweep: Sweep) -> Block:
        body: Block = {"model": self.model, self.limit: self.max_tokens}
        if self.temperature != "none":
            body["temperature"] = self.temperature
        if self.seed is not None:
            body["seed"] = self.seed
        return body | _constraint(self.choice, sweep.labels)

    def opening(self, sweep: Sweep) -> list[Block]:
        return [{"role": "system", "content": sweep.instruction}] if sweep.instruction else []

    def shown(self, picture: Picture) -> Block:
        url = {"url": f"data:{picture.media_type};base64,{picture.data}"}
        return {
            "type": "image_url",
            "image_url": url | ({"detail": self.detail} if self.detail else {}),
        }


def resolve(base_url: str, api_key_env: str) -> Address:
    """Where a server of this protocol is: as said, else as OpenAI's own client finds it."""
    usual = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    return address.resolve(base_url, api_key_env, usual=usual, variable="OPENAI_API_KEY")


def client(server: Address, largest: int | None = None) -> line.Client:
    """The official client, for replies of at most so many bytes; `Remote` tries again for it."""
    return openai.AsyncOpenAI(
        api_key=server.key or "none",
        base_url=server.url,
        max_retries=0,
        timeout=openai.Timeout(None, connect=CONNECT),
        default_headers={"Accept-Encoding": "identity"},
        http_client=openai.DefaultAsyncHttpxClient(**line.http_options(largest)),
    )


def _constraint(choice: Choice, labels: Sequence[str]) -> Block:
    match choice:
        case "json":
            schema = {"name": "answer", "strict": True, "schema": answer_schema(labels)}
            return {"response_format": {"type": "json_schema", "json_schema": schema}}
        case "vllm":
            return {"structured_outputs": {"choice": list(labels)}}
        case "grammar":
            words = " | ".join(json.dumps(label, ensure_ascii=False) for label in labels)
            return {"grammar": f"root ::= {words}"}
        case "none":
            return {}


# ---------------------------------------------------------------- what an answer holds for us


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    content: str | list[_Part] | None = None
    refusal: str | None = None
    reasoning_content: Any = None
    reasoning: Any = None

    @property
    def said(self) -> str:
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    message: _Message
    finish_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Details:
    cached_tokens: Counted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Usage:
    prompt_tokens: Counted | None = None
    completion_tokens: Counted | None = None
    prompt_tokens_details: _Details | None = None

    @property
    def tokens(self) -> Tokens | None:
        if not self.prompt_tokens:
            return None
        details = self.prompt_tokens_details or _Details()
        return Tokens(
            prompt=self.prompt_tokens,
            completion=self.completion_tokens or 0.0,
            cached=min(details.cached_tokens or 0.0, self.prompt_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Completion:
    choices: list[_Choice]
    model: str | None = None
    usage: _Usage | None = None


def _silence(message: _Message, finish: str | None) -> str:
    if finish == "content_filter":
        return "no text: the server's content filter kept it back"
    return no_text(finish, thought=bool(message.reasoning_content or message.reasoning))
