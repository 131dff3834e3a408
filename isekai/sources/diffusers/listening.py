"""Listens to what a pipeline asks of its text encoders, instead of a table of model families.

The `__call__` of a pipeline asks its own `encode_prompt` for embeddings. It is called once and left
at the first thing that it does after that: then it is known which calls of `encode_prompt` it
makes, and with which arguments.
"""

import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, Literal, NamedTuple, NoReturn

import torch

from isekai.errors import IsekaiError
from isekai.sources.diffusers.calling import explained
from isekai.sources.diffusers.texts import Call, Misfit, Pair, Text

FLAG = "do_classifier_free_guidance"
"""The parameter by which pipelines ask for the embeddings of negative prompts in the same call."""

GIVEN = ("device", "num_images_per_prompt", FLAG)
"""Arguments that are ours to choose whenever a text is encoded."""

Answer = tuple[Any, ...]


class _Enough(Exception):
    """Raised where a pipeline has asked for all of its embeddings."""


class Asked(NamedTuple):
    """The arguments of `encode_prompt`, less those that are ours to choose."""

    texts: dict[str, str | None]
    """The first of each batch."""
    options: dict[str, Any]
    guided: bool


def listened(pipeline: Any, arguments: Mapping[str, Any], device: Any) -> list[tuple[Asked, Any]]:
    """Every call of `encode_prompt` that `__call__` makes, and what it answered."""
    encode = pipeline.encode_prompt
    signature = inspect.signature(encode)
    heard: list[tuple[Asked, Any]] = []
    failed: list[BaseException] = []

    def listen(*args: Any, **given: Any) -> Any:
        own = flat(signature.bind(*args, **given))
        if "device" in own:
            own["device"] = device
        asked = sort_out(own)  # before the call, since some write into the lists they are given
        try:
            answer = encode(**own)
        except BaseException as error:
            failed.append(error)
            raise
        heard.append((asked, answer))
        return answer

    def enough(*args: Any, **given: Any) -> NoReturn:
        raise _Enough

    ends = [(pipeline, "prepare_latents"), (getattr(pipeline, "scheduler", None), "set_timesteps")]
    ends += [(part, "forward") for part in _without_weights(pipeline)]
    with ExitStack() as stack:
        stack.enter_context(_replaced(pipeline, "encode_prompt", listen))
        for owner, name in ends:
            if hasattr(owner, name):
                stack.enter_context(_replaced(owner, name, enough))
        try:
            with explained(pipeline):
                pipeline(**arguments)
        except _Enough:
            pass
        except Exception as error:
            if failed or isinstance(error, Misfit | IsekaiError):
                raise
            raise Misfit(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
    return heard


def _without_weights(pipeline: Any) -> list[Any]:
    """The networks of the pipeline that only have a configuration here."""
    parts = [part for part in pipeline.components.values() if hasattr(part, "forward")]
    return [part for part in parts if any(value.is_meta for value in part.parameters())]


@contextmanager
def _replaced(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put a function in the place of a method, with its signature, which pipelines look at."""
    setattr(owner, name, wraps(getattr(owner, name))(function))
    try:
        yield
    finally:
        delattr(owner, name)


def call_of(asked: Asked, answer: Any, pair: Pair, *, first: bool) -> Call:
    """`first`: of those that the pipeline makes for a batch."""
    return Call(
        texts=tuple(_text(name, text, pair, first) for name, text in asked.texts.items()),
        options=asked.options,
        guided=asked.guided,
        single=not isinstance(answer, tuple),
        empty=tuple(empty_form(value) for value in as_tuple(answer)),
    )


def _text(parameter: str, text: str | None, pair: Pair, first: bool) -> Text:
    """Which text that is. Where both are the same, the second call is about the negative one."""
    negative = parameter.startswith("negative") or (not first and text == pair.negative)
    if text is not None and text == (pair.negative if negative else pair.prompt):
        return Text(parameter=parameter, source="negative" if negative else "prompt")
    if text is not None and text == pair.negative:
        return Text(parameter=parameter, source="negative")
    return Text(parameter=parameter, source="constant", constant=text)


def sort_out(arguments: Mapping[str, Any]) -> Asked:
    texts: dict[str, str | None] = {}
    options: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in GIVEN or (value is None and name.endswith(("_embeds", "_mask"))):
            continue
        is_text = name.startswith(("prompt", "negative_prompt"))
        if is_text and isinstance(value, list) and value and isinstance(value[0], str):
            texts[name] = value[0]
        elif is_text and (value is None or isinstance(value, str)):
            texts[name] = value
        else:
            options[name] = _plain(name, value)
    return Asked(texts, options, bool(arguments.get(FLAG, False)))


def flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """All arguments by name, defaults and what `**kwargs` took included."""
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name)
    return arguments


def _plain(name: str, value: Any) -> Any:
    if type(value).__module__ == "torch":  # a dtype
        return str(value)
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise Misfit(f"it asks with {name}={type(value).__name__}") from None


def restored(value: Any) -> Any:
    is_dtype = isinstance(value, str) and value.startswith("torch.")
    return getattr(torch, value.removeprefix("torch.")) if is_dtype else value


def as_tuple(answer: Any) -> Answer:
    return answer if isinstance(answer, tuple) else (answer,)


def is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


def empty_form(value: Any) -> Literal["none", "list"]:
    return "list" if isinstance(value, list) else "none"
