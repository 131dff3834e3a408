"""The report as one HTML file: verdicts, table, curves, how it was made, and every wrong answer.

It loads nothing and runs nothing but its own script, whose hash stands in its security policy:
texts of models and datasets are text wherever they are shown.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from xml.etree import ElementTree

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isekai.files import plain
from isekai.reports import headings, plots, tables
from isekai.reports.mistakes import Mistakes, collect
from isekai.runs import Run

MOST = 5000
"""Questions with a wrong answer that are shown at most, unless it is told otherwise."""

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"

Facts = list[tuple[str, str]]


def html(
    run: Run,
    images: Callable[[str], bytes],
    *,
    most: int = MOST,
    origins: Sequence[Run] = (),
    warnings: Sequence[str] = (),
) -> str:
    """The whole page. `images` gives a picture's file by its id.

    `origins` are the runs that `run` was put together from, if it was; `warnings` stand on top.
    """
    origins = origins or (run,)
    style, script = _asset("page.css"), _asset("page.js")
    missed = collect(run, images, most=most)
    results, verdicts = run.results, tables.verdicts_of(run.told)
    names = ", ".join(headings.line(origin.folder.resolve().name) for origin in origins)
    page = _environment().get_template("page.html")
    return page.render(
        title=f"isekai: {names}",
        lead=_lead(run),
        policy=_policy(script),
        style=Markup(style),
        script=Markup(script),
        warnings=[headings.line(warning) for warning in warnings],
        verdicts=list(_verdicts(verdicts)),
        table_title=tables.TITLE,
        tables=[_table(run, task) for task in dict.fromkeys(r.task for r in results)],
        legend=headings.legend(result.control for result in results),
        notes=tables.notes(results),
        curves=inline(plots.curves(results, ["svg"])["svg"], "curves"),
        controls=_controls(run),
        origins=[_made(origin) for origin in origins],
        missed=_missed(missed),
        shown=missed.shown,
        data=Markup(inert_json(missed.data)),
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("isekai.reports", "_templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _asset(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _policy(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def inert_json(value: object) -> str:
    """JSON that ends no element and begins none: what HTML reads as markup is spelt as \\u003c."""
    text = json.dumps(value, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


# ---------------------------------------------------------------- what stands on top


def _lead(run: Run) -> str:
    dataset = _at(run.told, "provenance", "dataset")
    models = len({result.model for result in run.results})
    clusters = len({episode.cluster for episode in run.episodes})
    parts = [
        f"{_counted(models, 'model')} on {_list(run.config.tasks)}",
        f"{_counted(len(run.episodes), 'episode')} about {_counted(clusters, 'cluster')}",
        f"{_counted(len(run.predictions), 'answer')}",
    ]
    name = headings.line(str(dataset.get("name", "")))
    return "; ".join([*parts, *([f"dataset '{name}'"] if name else [])]) + "."


def _verdicts(verdicts: tables.Verdicts) -> Iterator[dict[str, str]]:
    kinds = {"binds and names": "both"}
    for model, task, words in tables.verdict_lines(verdicts):
        word, _, numbers = headings.line(words).partition(":")
        yield {
            "model": headings.line(model),
            "task": headings.line(task),
            "word": word,
            "kind": kinds.get(word, word if word in ("binds", "names", "guesses") else "undecided"),
            "numbers": numbers.strip(),
        }


def _table(run: Run, task: str) -> dict[str, object]:
    own = [result for result in run.results if result.task == task]
    shots = tables.shot_counts(own)
    return {
        "task": headings.line(task),
        "headings": [tables.heading(own, k) for k in shots],
        "chance": tables.share(own[0].chance),
        "rows": [
            {
                "plain": row.plain,
                "heading": headings.line(row.heading),
                "cells": [row.cell(k) for k in shots],
                "behind": row.behind,
            }
            for row in tables.rows(own)
        ],
    }


def _controls(run: Run) -> Markup:
    drawn = plots.controls(run.results, ["svg"])
    return inline(drawn["svg"], "controls") if drawn else Markup()


def inline(svg: bytes, name: str) -> Markup:
    """One of our own SVG files as an element of a page, its ids set apart from other drawings'.

    White grounds become clear, so that a dark page can turn the colours round.
    """
    root = ElementTree.fromstring(svg)
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if "id" in element.attrib:
            element.set("id", f"{name}-{element.attrib['id']}")
        if link := element.attrib.pop(_LINK, None):
            element.set("href", link.replace("#", f"#{name}-"))
        for key, value in element.attrib.items():
            if key in ("clip-path", "style"):
                value = value.replace("url(#", f"url(#{name}-")
                element.set(key, value.replace("fill: #ffffff", "fill: none"))
    root.attrib |= {"role": "img", "aria-label": f"{name}; the table holds the same numbers"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


# ---------------------------------------------------------------- how it was made


def _made(run: Run) -> dict[str, object]:
    told = run.told
    environment = _at(told, "provenance", "environment")
    hardware = _at(told, "provenance", "hardware")
    config = {
        "folder": run.folder,
        "dataset": _at(told, "provenance", "dataset"),
        **{key: value for key, value in plain(run.config).items() if key not in _ELSEWHERE},
    }
    return {
        "name": headings.line(run.folder.resolve().name),
        "asked": list(_facts(config)),
        "models": [_model(run, model) for model in run.config.models],
        "wording": list(_facts(plain(run.config.template))),
        "environment": list(_facts({**environment, **hardware})),
        "failures": [(headings.line(str(k)), v) for k, v in _at(told, "failures").items()],
    }


_ELSEWHERE = {"models", "adapters", "template", "dataset"}


def _model(run: Run, model: str) -> dict[str, object]:
    used = _at(run.told, "usage", model)
    seconds = _at(run.told, "last_process", "seconds").get(model)
    asked = _at(run.told, "last_process", "predictions").get(model)
    took = [f"{value:g} US dollars" for key, value in used.items() if key == "cost"]
    took += [
        f"{value:,.0f} {key.replace('_', ' ')}" for key, value in used.items() if key != "cost"
    ]
    if isinstance(seconds, int | float) and asked:
        took.append(f"{seconds:,.1f} s for {asked:,} answers in the last process")
    return {
        "name": headings.line(model),
        "took": ", ".join(took),
        "facts": list(_facts(plain(run.config.adapters.get(model, {})))),
    }


def _facts(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as lines of `key.key` and value."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _facts(item, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        yield headings.line(key), ", ".join(headings.visible(str(item)) for item in value) or "none"
    else:
        yield headings.line(key), "none" if value in (None, "") else headings.visible(str(value))


def _at(told: Mapping[str, object], *keys: str) -> Mapping[str, object]:
    """The mapping at this place of results.json; empty if another version wrote none."""
    found: object = told
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


# ---------------------------------------------------------------- wrong answers


def _missed(missed: Mistakes) -> str:
    """What the list holds, and what was left out of it."""
    if not missed.questions:
        return "Every question was answered right by every model."
    names = {"wrong": "wrong answer", "abstain": "abstention", "failed": "failure"}
    counts = [_counted(count, names[outcome]) for outcome, count in missed.outcomes.items()]
    said = f"{_list(counts)} to {_counted(missed.questions, 'question')}."
    if missed.shown < missed.questions:
        said += (
            f" Shown are {missed.shown:,} of the questions, the first of each task, control and "
            f"shot count; {missed.questions - missed.shown:,} are left out, and are in "
            "predictions.jsonl."
        )
    return said


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _list(words: Sequence[str]) -> str:
    shown = [headings.line(word) for word in words]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)
