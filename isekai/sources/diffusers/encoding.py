"""Encodes each text once, apart from drawing, and hands the embeddings to the pipeline later.

No table of model families is needed. The `__call__` of a pipeline asks its own `encode_prompt` for
embeddings: it is called once and left at the first thing that it does after that. So it is known
which calls of `encode_prompt` it makes, with which arguments. Then each text is encoded alone, in a
batch of one, so that its embedding depends on nothing else. While images are drawn, a `Reader`
stands in the place of `encode_prompt`.
"""

import inspect
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import wraps
from itertools import zip_longest
from typing import Any, Literal, NamedTuple, NoReturn

from isekai.errors import IsekaiError
from isekai.sources.diffusers.calling import explained
from isekai.sources.diffusers.embedding_cache import Element, Embedding
from isekai.sources.diffusers.texts import Asking, Call, Pair, Role, Text, Texts

FLAG = "do_classifier_free_guidance"
"""The parameter by which pipelines ask for the embeddings of negative prompts in the same call."""

_GIVEN = ("device", "num_images_per_prompt", FLAG)
"""Arguments that are ours to choose whenever a text is encoded."""

Answer = tuple[Any, ...]


class Misfit(Exception):
    """A pipeline whose texts cannot be encoded apart from drawing; the text says why."""


class Encoder:
    """The text half of a pipeline at work."""

    def __init__(
        self, pipeline: Any, texts: Texts, device: Any, arguments: Callable[[Pair], dict[str, Any]]
    ) -> None:
        """`arguments` are those of the pipeline's `__call__` for one image."""
        self._pipeline = pipeline
        self._texts = texts
        self._device = device
        self._arguments = arguments
        self.encoded = 0
        """Embeddings made."""
        self.cut = 0
        """Texts that were longer than what the model reads."""

    def encode(self, pairs: Sequence[Pair]) -> None:
        """Encode what is missing of the pairs; Misfit if that can't be done apart from drawing."""
        import torch

        with torch.no_grad(), _counting_cuts() as cut:
            for negative in (True, False):
                alike = [pair for pair in pairs if (pair.negative is not None) is negative]
                if alike:
                    for call in self._asking(negative, alike).calls:
                        self._encode(call, alike)
        self.cut = len(cut)

    def _asking(self, negative: bool, pairs: Sequence[Pair]) -> Asking:
        """What the pipeline asks for, listened to by one process alone."""
        with self._texts.shelf.alone(self._texts.name(negative)):
            asking = self._texts.asking(negative)
            if asking is None:
                try:
                    asking = Asking(calls=tuple(self._listen(pairs)))
                except Misfit as misfit:
                    asking = Asking(misfit=str(misfit))
                self._texts.learn(negative, asking)
        if asking.misfit:
            raise Misfit(asking.misfit)
        return asking

    def _listen(self, pairs: Sequence[Pair]) -> Iterator[Call]:
        pair = pairs[0]
        heard = _listened(self._pipeline, self._arguments(pair), self._device)
        if not heard:
            raise Misfit("it never asks for embeddings")
        if pair.prompt not in heard[0][0].texts.values():
            raise Misfit("it rewrites prompts before they are encoded")
        for number, (asked, answer) in enumerate(heard):
            call = _call(asked, answer, pair, first=number == 0)
            if call.guided:
                call = self._told_apart(call, answer, pairs)
            self._keep(call, call.roles, answer, pair)
            yield call

    def _told_apart(self, call: Call, answer: Answer, pairs: Sequence[Pair]) -> Call:
        """The call with the positions of the negative prompt: they are empty without guidance.

        To see that, another prompt is encoded that is due anyway; the same again if there is none.
        """
        own = call.texts_of("prompt", pairs[0])
        pair = next((p for p in pairs if call.texts_of("prompt", p) != own), pairs[0])
        alone = self._ask(call, call.texts_of("prompt", pair), guided=False)
        if len(alone) != len(answer):
            raise Misfit("what it answers has another form without guidance")
        negatives = [n for n, value in enumerate(alone) if _nothing(value) != _nothing(answer[n])]
        if not negatives:
            raise Misfit("it gives prompts and negative prompts in one")
        empty = tuple(_empty(value) for value in alone)
        call = replace(call, empty=empty, negatives=tuple(negatives))
        if pair is not pairs[0]:
            self._keep(call, ("prompt",), alone, pair)
        return call

    def _encode(self, call: Call, pairs: Sequence[Pair]) -> None:
        """Text by text. A negative prompt is encoded along with a prompt that is due, too."""
        due = {role: self._due(call, role, pairs) for role in call.roles}
        for prompt, negative in zip_longest(due["prompt"], due.get("negative_prompt", ())):
            wanted: dict[Role, Pair] = {}
            if prompt:
                wanted["prompt"] = prompt
            if negative:
                wanted["negative_prompt"] = negative
            keys = [self._texts.key(call, role, pair) for role, pair in wanted.items()]
            with self._texts.shelf.alone(*keys):
                self._make(call, wanted)

    def _make(self, call: Call, wanted: Mapping[Role, Pair]) -> None:
        """At most one text a role, less what another process has encoded by now."""
        due = {role: pair for role, pair in wanted.items() if self._due(call, role, [pair])}
        if not due:
            return
        guided = "negative_prompt" in due
        prompt = due.get("prompt", next(iter(due.values())))  # a negative prompt never goes alone
        texts = call.texts_of("prompt", prompt)
        if guided:
            texts |= call.texts_of("negative_prompt", due["negative_prompt"])
        answer = self._ask(call, texts, guided=guided)
        for role, pair in due.items():
            self._keep(call, (role,), answer, pair)

    def _due(self, call: Call, role: Role, pairs: Sequence[Pair]) -> list[Pair]:
        """One pair for each text of the role that has no embedding yet."""
        by_key = {self._texts.key(call, role, pair): pair for pair in reversed(pairs)}
        shelf = self._texts.shelf
        return [pair for key, pair in reversed(by_key.items()) if shelf.get(key) is None]

    def _keep(self, call: Call, roles: Sequence[Role], answer: Answer, pair: Pair) -> None:
        for role in roles:
            key = self._texts.key(call, role, pair)
            if self._texts.shelf.get(key) is None:
                places = call.positions(role)
                self._texts.shelf.put(key, _embedding({n: answer[n] for n in places}))
                self.encoded += 1

    def _ask(self, call: Call, texts: Mapping[str, str | None], *, guided: bool) -> Answer:
        """What the text encoders make of one text a parameter."""
        own = inspect.signature(self._pipeline.encode_prompt).parameters
        given = dict(zip(_GIVEN, (self._device, 1, guided), strict=True))
        return _as_tuple(
            self._pipeline.encode_prompt(
                **{name: _restored(value) for name, value in call.options.items()},
                **{name: None if text is None else [text] for name, text in texts.items()},
                **{name: value for name, value in given.items() if name in own},
            )
        )


class Reader:
    """Answers a pipeline that asks for embeddings while it draws; `encode_prompt` for the while."""

    def __init__(self, pipeline: Any, texts: Texts, device: Any) -> None:
        self._signature = inspect.signature(pipeline.encode_prompt)
        self._texts = texts
        self._device = device
        self._pairs: Sequence[Pair] = ()
        self._asking = Asking()
        self._turn = 0
        pipeline.encode_prompt = self

    def begin(self, pairs: Sequence[Pair]) -> None:
        """These are drawn next, all with a negative prompt or all without."""
        asking = self._texts.asking(pairs[0].negative is not None)
        if asking is None:
            raise LookupError("nothing is known of what the pipeline asks for")
        self._pairs, self._asking, self._turn = pairs, asking, 0

    def __call__(self, *args: Any, **given: Any) -> Answer:
        call = self._asking.calls[self._turn]
        self._turn += 1
        asked = _asked(_flat(self._signature.bind(*args, **given)))
        texts = {text.parameter: text.of(self._pairs[0]) for text in call.texts}
        if asked != _Asked(texts, dict(call.options), call.guided):
            raise LookupError(f"the pipeline asks for {asked}, encoded was {call}")
        answer: list[Any] = [None if kind == "none" else [] for kind in call.empty]
        for role in call.roles:
            found = [self._texts.embedding(call, role, pair) for pair in self._pairs]
            embeddings = [embedding for embedding in found if embedding is not None]
            if len(embeddings) < len(self._pairs):
                raise LookupError(f"an embedding of {call.texts_of(role, self._pairs[0])} is gone")
            for place in embeddings[0]:
                elements = [embedding[place] for embedding in embeddings]
                answer[place] = _together(elements, self._device)
        return tuple(answer)


# ---------------------------------------------------------------- listening to a pipeline


class _Enough(Exception):
    """Raised where a pipeline has asked for all of its embeddings."""


class _Asked(NamedTuple):
    """The arguments of `encode_prompt`, less those that are ours to choose."""

    texts: dict[str, str | None]
    """The first of each batch."""
    options: dict[str, Any]
    guided: bool


def _listened(
    pipeline: Any, arguments: Mapping[str, Any], device: Any
) -> list[tuple[_Asked, Answer]]:
    """Every call of `encode_prompt` that `__call__` makes, and what it answered."""
    encode = pipeline.encode_prompt
    signature = inspect.signature(encode)
    heard: list[tuple[_Asked, Answer]] = []
    failed: list[BaseException] = []

    def listen(*args: Any, **given: Any) -> Answer:
        own = _flat(signature.bind(*args, **given))
        if "device" in own:
            own["device"] = device
        asked = _asked(own)  # before the call, since some write into the lists they are given
        try:
            answer = _as_tuple(encode(**own))
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


def _call(asked: _Asked, answer: Answer, pair: Pair, *, first: bool) -> Call:
    return Call(
        texts=tuple(_text(name, text, pair, first) for name, text in asked.texts.items()),
        options=asked.options,
        guided=asked.guided,
        empty=tuple(_empty(value) for value in answer),
    )


def _text(parameter: str, text: str | None, pair: Pair, first: bool) -> Text:
    """Which text that is. Where both are the same, the second call is about the negative one."""
    negative = parameter.startswith("negative") or (not first and text == pair.negative)
    if text is not None and text == (pair.negative if negative else pair.prompt):
        return Text(parameter=parameter, source="negative" if negative else "prompt")
    if text is not None and text == pair.negative:
        return Text(parameter=parameter, source="negative")
    return Text(parameter=parameter, source="constant", constant=text)


def _asked(arguments: Mapping[str, Any]) -> _Asked:
    texts: dict[str, str | None] = {}
    options: dict[str, Any] = {}
    for name, value in arguments.items():
        if name in _GIVEN or (value is None and name.endswith(("_embeds", "_mask"))):
            continue
        is_text = name.startswith(("prompt", "negative_prompt"))
        if is_text and isinstance(value, list) and value and isinstance(value[0], str):
            texts[name] = value[0]
        elif is_text and (value is None or isinstance(value, str)):
            texts[name] = value
        else:
            options[name] = _as_json(name, value)
    return _Asked(texts, options, bool(arguments.get(FLAG, False)))


def _flat(bound: inspect.BoundArguments) -> dict[str, Any]:
    """All arguments by name, defaults and what `**kwargs` took included."""
    bound.apply_defaults()
    arguments = dict(bound.arguments)
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name)
    return arguments


def _as_json(name: str, value: Any) -> Any:
    if type(value).__module__ == "torch":  # a dtype
        return str(value)
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        raise Misfit(f"it asks with {name}={type(value).__name__}") from None


def _restored(value: Any) -> Any:
    import torch

    is_dtype = isinstance(value, str) and value.startswith("torch.")
    return getattr(torch, value.removeprefix("torch.")) if is_dtype else value


# ---------------------------------------------------------------- what it answers


def _as_tuple(answer: Any) -> Answer:
    return answer if isinstance(answer, tuple) else (answer,)


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and not value)


def _empty(value: Any) -> Literal["none", "list"]:
    return "list" if isinstance(value, list) else "none"


def _embedding(values: Mapping[int, Any]) -> Embedding:
    """The elements of an answer for one text, checked to be numbers."""
    import torch

    embedding = {}
    for place, value in values.items():
        if _nothing(value):
            continue
        element = _element(value)
        tensor = element.tensor
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise IsekaiError(
                f"the text encoder gives numbers that are not finite in {str(tensor.dtype)[6:]}; "
                "try -o dtype=bfloat16 or -o dtype=float32"
            )
        embedding[place] = element
    return embedding


def _element(value: Any) -> Element:
    import torch

    if isinstance(value, torch.Tensor):
        batched = value.ndim > 0 and value.shape[0] == 1
        return Element("rows" if batched else "bare", value.cpu())
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], torch.Tensor):
        return Element("list", value[0].cpu())
    raise Misfit(f"it answers with a {type(value).__name__}")


def _together(elements: Sequence[Element], device: Any) -> Any:
    """One batch of several of one."""
    import torch

    tensors = [element.tensor for element in elements]
    if elements[0].kind == "rows":
        return torch.cat(tensors).to(device)
    if elements[0].kind == "list":
        return [tensor.to(device, copy=True) for tensor in tensors]
    if not all(torch.equal(tensors[0], tensor) for tensor in tensors):
        raise LookupError("texts of one batch have parts that differ, but no place for each")
    return tensors[0].to(device, copy=True)


@contextmanager
def _counting_cuts() -> Iterator[set[str]]:
    """What diffusers says of texts that it cuts off, a line each; it is silent otherwise."""
    cut: set[str] = set()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "truncated" in (told := record.getMessage()):
                cut.add(told)

    logger, handler = logging.getLogger("diffusers"), Listening(logging.WARNING)
    level, handlers = logger.level, logger.handlers
    logger.handlers, propagate, logger.propagate = [handler], logger.propagate, False
    logger.setLevel(logging.WARNING)
    try:
        yield cut
    finally:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
