"""Results as pictures: accuracy over shots, and what controls make of it, in panels.

Equal results give equal bytes, in PNG and in SVG; text in the SVG is text.
"""

import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from isekai.reports import headings, tables
from isekai.reports.headings import PLAIN
from isekai.reports.panels import INK, STYLE, Band, Panel, Series, sheet
from isekai.types import Estimate, Result

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, apart for every common kind of colour vision; the darker ones first."""

MARKERS = "osD^vPXh"

_OF_CONTROL = {
    "blind": "#0072B2", "text": "#56B4E9", "swap": "#D55E00", "order": "#009E73",
    "zero": "#E69F00", "false": "#8F6B00", "words": "#CC79A7",
}  # fmt: skip
"""The same control has the same colour in every panel."""

_OTHERS = tuple(colour for colour in COLOURS if colour != "#000000")

_TITLE = "Accuracy by support images a label, with 95 % intervals over clusters"
_CONTROLS = f"{_TITLE}: plain and under controls"
_SELECT = "select="


def curves(
    results: Sequence[Result], formats: Sequence[str] = ("png", "svg")
) -> Mapping[str, bytes]:
    """`png` and `svg` -> the file: a line with its interval band for every model and task.

    Of the plain episodes: `controls` draws the others.
    """
    return _saved([Band(panels=_curves(results))], _TITLE, formats)


def draw(results: Sequence[Result]) -> Figure:
    """The figure of `curves`."""
    return _figure([Band(panels=_curves(results))], _TITLE)


def controls(
    results: Sequence[Result], formats: Sequence[str] = ("png", "svg")
) -> Mapping[str, bytes]:
    """`png` and `svg` -> the file; empty if no control was asked.

    Under each task: a panel for each model with its controls beside the plain line, another where
    controls were asked on other words; then accuracy over the rate of false labels, if there are
    three rates (plain is 0); then the strategies of support selection.
    """
    bands = list(_controls(results))
    return _saved(bands, _CONTROLS, formats) if bands else {}


def draw_controls(results: Sequence[Result]) -> Figure:
    """The figure of `controls`, which some control has to be in."""
    return _figure(list(_controls(results)), _CONTROLS)


def place(shots: int) -> float:
    """Where a shot count stands on the x axis: doublings apart, and 0 a step before 1."""
    return math.log2(shots) + 1 if shots else 0.0


def _figure(bands: Sequence[Band], title: str) -> Figure:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is boxes in the PNG, and itself in the SVG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        return sheet(bands, title)


def _saved(bands: Sequence[Band], title: str, formats: Sequence[str]) -> dict[str, bytes]:
    figure = _figure(bands, title)
    found = {}
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        for format in formats:
            buffer = io.BytesIO()
            unsaid = ("Software",) if format == "png" else ("Date", "Creator")
            figure.savefig(buffer, format=format, dpi=200, metadata=dict.fromkeys(unsaid))
            found[format] = buffer.getvalue()
    return found


# ---------------------------------------------------------------- results as panels


def _curves(results: Sequence[Result]) -> tuple[Panel, ...]:
    """One a task, of the plain episodes; all models keep their looks."""
    looks = _looks(results)
    plain = [result for result in results if result.control == PLAIN]
    panels = []
    for task in dict.fromkeys(result.task for result in plain):
        own = [result for result in plain if result.task == task]
        drawn = {
            model: _points([result for result in own if result.model == model])
            for model in dict.fromkeys(result.model for result in own)
        }
        series = [
            Series(name=model, points=points, colour=looks[model][0], marker=looks[model][1])
            for model, points in drawn.items()
            if points
        ]
        silent = ", ".join(model for model, points in drawn.items() if not points)
        note = f"no answer: {silent}" if silent else ""
        panels.append(_panel(task, own, series, _clusters(own), note))
    return tuple(panels)


def _looks(results: Sequence[Result]) -> dict[str, tuple[str, str]]:
    """Model -> colour and marker."""
    models = dict.fromkeys(result.model for result in results)
    return {
        model: (COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        for number, model in enumerate(models)
    }


def _panel(
    title: str, results: Sequence[Result], series: Sequence[Series], beside: str, note: str = ""
) -> Panel:
    """Accuracy over shots; 0 shots stand on the axis wherever some line has them."""
    shots = tables.shot_counts(results)
    return Panel(
        title=title,
        beside=beside,
        series=tuple(series),
        chance=results[0].chance,
        chance_name=f"chance {tables.share(results[0].chance)}",
        ticks=tuple((place(k), str(k)) for k in shots),
        axis="shots",
        note=note,
    )


def _clusters(results: Sequence[Result]) -> str:
    count = max((r.metrics["accuracy"].clusters for r in results if r.metrics), default=0)
    return f"{count} cluster{'' if count == 1 else 's'}"


def _points(results: Sequence[Result]) -> tuple[tuple[float, Estimate], ...]:
    """A shot count at which a model only abstains or fails is no point of its curve."""
    return tuple(
        (place(result.shots_per_class), result.metrics["accuracy"])
        for result in sorted(results, key=lambda result: result.shots_per_class)
        if "accuracy" in result.metrics and result.metrics["abstain"].value < 1
    )


# ---------------------------------------------------------------- controls


def _controls(results: Sequence[Result]) -> Iterator[Band]:
    looks = _looks(results)
    for task in dict.fromkeys(result.task for result in results):
        own = [result for result in results if result.task == task]
        groups = [*_families(own), *_dials(own, looks), *_selections(own)]
        if len(looks) == 1:
            groups = [[panel for group in groups for panel in group]]
        for number, panels in enumerate(group for group in groups if group):
            yield Band(heading="" if number else task, panels=tuple(panels))


def _families(results: Sequence[Result]) -> Iterator[list[Panel]]:
    """Controls of the plain words; then of other words, if they have controls of their own."""
    names = dict.fromkeys(result.control for result in results)
    turned = {control for dial in _rates(results).values() for control in dial.values()}
    rest = [name for name in names if name not in turned and not name.startswith(_SELECT)]
    others = {head: None for name in rest if (head := _words(name)) and name != head}
    for base in (PLAIN, *others):
        own = [
            name
            for name in rest
            if name != base and (_words(name) if _words(name) in others else PLAIN) == base
        ]
        if own:
            beside = "controls" if base == PLAIN else headings.meaning(base)
            yield _of_models(results, (base, *own), beside, f"{base}+")


def _words(control: str) -> str:
    """`words=true` of `words=true+swap`; empty where a control keeps the words."""
    head = control.partition("+")[0]
    return head if head.startswith("words=") else ""


def _selections(results: Sequence[Result]) -> Iterator[list[Panel]]:
    names = dict.fromkeys(r.control for r in results if r.control.startswith(_SELECT))
    if names:
        yield _of_models(results, (PLAIN, *names), "support selection", _SELECT)


def _of_models(
    results: Sequence[Result], controls: Sequence[str], beside: str, unsaid: str
) -> list[Panel]:
    """A panel for each model: a line for each control, the first one bold.

    `unsaid` begins the names of the others, and is left out.
    """
    panels = []
    for model in dict.fromkeys(result.model for result in results):
        own = [r for r in results if r.model == model and r.control in controls]
        drawn = {name: _points([r for r in own if r.control == name]) for name in controls}
        series = [
            Series(
                name=("plain" if name == PLAIN else name).removeprefix(unsaid),
                points=points,
                colour=_colour(name, number),
                marker=MARKERS[number % len(MARKERS)],
                dashed=number > 0 and "+" in name.removeprefix(unsaid),
                strong=number == 0,
            )
            for number, (name, points) in enumerate(drawn.items())
            if points
        ]
        if own:
            panels.append(_panel(model, own, series, beside))
    return panels


def _colour(control: str, number: int) -> str:
    """Ink for the first line of a panel; what a control is known by, or the next of the palette."""
    key = control.rpartition("+")[2].partition("=")[0]
    return _OF_CONTROL.get(key, _OTHERS[number % len(_OTHERS)]) if number else INK


def _rates(results: Sequence[Result]) -> dict[str, dict[float, str]]:
    """What is asked with false labels -> their rate -> control, where there are three rates."""
    names = dict.fromkeys(result.control for result in results)
    found: dict[str, dict[float, str]] = {}
    for name in names:
        if turned := headings.false_rate(name):
            base, rate = turned
            found.setdefault(base, {0.0: base} if base in names else {})[rate] = name
    return {base: dict(sorted(dial.items())) for base, dial in found.items() if len(dial) >= 3}


def _dials(
    results: Sequence[Result], looks: Mapping[str, tuple[str, str]]
) -> Iterator[list[Panel]]:
    """Accuracy over the rate of false labels at the most shots, a line for each model."""
    panels = []
    for base, dial in _rates(results).items():
        shots = max(r.shots_per_class for r in results if r.control in dial.values())
        series = []
        for model in dict.fromkeys(result.model for result in results):
            own = [r for r in results if (r.model, r.shots_per_class) == (model, shots)]
            points = tuple(
                (rate, result.metrics["accuracy"])
                for rate, name in dial.items()
                for result in own
                if result.control == name and _points([result])
            )
            if points:
                colour, marker = looks[model]
                series.append(Series(name=model, points=points, colour=colour, marker=marker))
        chance = results[0].chance
        panels.append(
            Panel(
                title="false labels",
                beside=("" if base == PLAIN else f"{headings.meaning(base)}, ") + f"{shots} shots",
                series=tuple(series),
                chance=chance,
                chance_name=f"chance {tables.share(chance)}",
                ticks=tuple((rate, f"{rate:g}".removeprefix("0") or "0") for rate in dial),
                axis="share of the support set with a false label",
            )
        )
    if panels:
        yield panels
