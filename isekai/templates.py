"""How a model is asked: reads prompts/templates/*.toml and puts episodes into their words."""

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from isekai.episodes import generator
from isekai.errors import DataError, SpecError, did_you_mean
from isekai.files import explained, parse
from isekai.images import grey_like
from isekai.spec import folder
from isekai.types import IMAGE, EncodedImage, Episode, Example, Sweep, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The wording of an episode. Special tokens and roles belong to the adapter, not here.

    `{image}` says where the picture stands in a question (else in front), `{label}` the word,
    `{number}` counts the support pictures from 1, `{labels}` lists the words of the episode.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    support_question: str
    support_answer: str
    """Carries the label word at `{label}`, exactly once."""
    query_question: str
    instruction: str = ""
    """Said once, before everything."""
    query_instruction: str = ""
    """Said between the support set and the query."""


_MAY_HOLD = {
    "support_question": ("image", "number"),
    "support_answer": ("label", "number"),
    "query_question": ("image", "labels"),
    "instruction": ("labels",),
    "query_instruction": ("labels",),
}
"""Field -> what it may name in braces."""


def names() -> list[str]:
    return sorted(path.stem for path in (folder() / "templates").glob("*.toml"))


def read(name: str) -> Template:
    """The built-in template of this name, or the one in a file whose name ends in .toml."""
    if name.endswith(".toml"):
        path = Path(name)
    elif name in names():
        path = folder() / "templates" / f"{name}.toml"
    else:
        near = did_you_mean(name, names())
        raise SpecError([f"no template is called '{name}' (a file's name ends in .toml){near}"])
    try:
        with explained(path):
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SpecError([f"{path}: no such file"]) from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError([f"{path}: not TOML: {error}"]) from None
    except UnicodeDecodeError as error:
        raise SpecError([f"{path}: not UTF-8 text (byte {error.start})"]) from None
    template: Template = parse(Template, raw, path.name, problem=SpecError)
    problems = _problems(template, path.name)
    if problems:
        raise SpecError(problems)
    return template


def fold(episode: Episode, template: Template, image: Callable[[str], EncodedImage]) -> Sweep:
    """The episode in the template's words, with the bytes of its images (`image` fetches them)."""
    # The order of an episode's labels may tell: published questions have the positive one first.
    told = sorted(episode.labels.values())
    words = tuple(told[i] for i in generator(episode.seed, "listed").permutation(len(told)))
    for word in words:
        if IMAGE in word or "{" in word:
            raise DataError(f"the label '{word}' holds '{IMAGE}' or a brace; take --labels fantasy")

    def say(text: str, **marks: str) -> str:
        for mark, value in {"image": IMAGE, "labels": _either(words), **marks}.items():
            text = text.replace(f"{{{mark}}}", value)
        return text

    def shown(number: int, example: Example) -> Turn:
        label = example.word or episode.labels[example.concept]
        return Turn(
            image=_picture(example, image),
            question=say(template.support_question, number=str(number)),
            answer=say(template.support_answer, number=str(number), label=label),
            label=label,
        )

    question = say(template.query_question)
    return Sweep(
        episode_id=episode.id,
        support=tuple(shown(place, one) for place, one in enumerate(episode.support, start=1)),
        cuts=tuple(len(words) * shots for shots in episode.shots),
        queries=tuple(
            Turn(image=_picture(query, image), question=question) for query in episode.queries
        ),
        labels=words,
        instruction=say(template.instruction),
        query_instruction=say(template.query_instruction),
    )


def _picture(example: Example, image: Callable[[str], EncodedImage]) -> EncodedImage | None:
    if example.shown == "nothing":
        return None
    picture = image(example.image_id)
    return grey_like(picture) if example.shown == "grey" else picture


def _either(words: tuple[str, ...]) -> str:
    """`a or b`, `a, b or c`."""
    return " or ".join([*filter(None, [", ".join(words[:-1])]), words[-1]])


def _problems(template: Template, where: str) -> list[str]:
    problems = []
    if template.support_answer.count("{label}") != 1:
        problems.append(
            f"{where}: support_answer is '{template.support_answer}': it names the label once, "
            "as {label}"
        )
    for field in ("support_question", "query_question"):
        text = getattr(template, field)
        if not text.strip():
            problems.append(f"{where}: {field} is empty")
        if text.count("{image}") > 1 or IMAGE in text:
            problems.append(f"{where}: {field} says where the picture stands once, as {{image}}")
    for field, known in _MAY_HOLD.items():
        for mark in re.findall(r"\{(\w*)\}", getattr(template, field)):
            if mark == "label" and "label" not in known:
                told = "gives the answer away: only support_answer has it"
            elif mark not in known:
                told = f"has {{{mark}}}; known here: {', '.join(f'{{{one}}}' for one in known)}"
            else:
                continue
            problems.append(f"{where}: {field} {told}")
    return problems
