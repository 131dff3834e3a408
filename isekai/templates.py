"""How a model is asked: reads prompts/templates/*.toml and puts episodes into their words."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from isekai.errors import SpecError, did_you_mean
from isekai.files import explained, parse
from isekai.spec import folder
from isekai.types import EncodedImage, Episode, Example, Sweep, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The wording of an episode. Special tokens and roles belong to the adapter, not here."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    support_question: str
    support_answer: str
    """Carries the label word at `{label}`, exactly once."""
    query_question: str


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

    def shown(example: Example) -> Turn:
        label = episode.labels[example.concept]
        return Turn(
            image=image(example.image_id),
            question=template.support_question,
            answer=template.support_answer.replace("{label}", label),
            label=label,
        )

    return Sweep(
        episode_id=episode.id,
        support=tuple(shown(example) for example in episode.support),
        cuts=tuple(len(episode.labels) * shots for shots in episode.shots),
        queries=tuple(
            Turn(image=image(query.image_id), question=template.query_question)
            for query in episode.queries
        ),
        labels=tuple(episode.labels.values()),
    )


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
        if "{label}" in text:
            problems.append(f"{where}: {field} gives the answer away: only support_answer has it")
    return problems
