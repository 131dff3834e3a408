"""Small panels of lines with interval bands, laid out in inches so that no text meets another."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from isekai.reports import headings
from isekai.reports.lettering import POINT, SIZE, readable, spread, wide
from isekai.types import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#222222", "#767676", "#E8E8E8"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "isekai",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.edgecolor": FAINT,
    "axes.axisbelow": True,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}

_CEILING = 1.02
"""Where the axis of accuracy ends: a marker at 1 is whole."""
_SMALL = 7
_LINE = 1.28 * SIZE * POINT
"""Height of a line of text."""
_WIDTH, _HEIGHT = 2.45, 2.15
"""Inches of a panel; it grows where its names need more height."""
_LEFT, _TOP, _BETWEEN, _BELOW = 0.42, 0.42, 0.3, 0.55
_REACH = 16 * POINT
"""From a panel's edge to the names of its lines."""
_NAME = 1.45
"""Width at which a name is broken."""
_ACROSS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A line of a panel with its name at its end; `points` are (x, estimate), x ascending."""

    name: str
    points: tuple[tuple[float, Estimate], ...]
    colour: str
    marker: str = "o"
    dashed: bool = False
    strong: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What one pair of axes shows; accuracy goes up from 0 to 1 in all of them."""

    title: str
    beside: str = ""
    """Said faintly at the end of the title's line."""
    series: tuple[Series, ...]
    chance: float
    chance_name: str
    ticks: tuple[tuple[float, str], ...]
    axis: str
    note: str = ""
    """Said faintly at the bottom of the panel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Panels under one heading; more than three of them take several lines."""

    heading: str = ""
    panels: tuple[Panel, ...]


def sheet(bands: Sequence[Band], title: str) -> "Figure":
    """All bands below each other, columns aligned."""
    from matplotlib.figure import Figure

    lines = [line for band in bands for line in _lines(band)]
    lefts, width = _columns(lines)
    width = max(width, wide(title) + 0.2)
    height = _TOP + sum(_head(line) + _tall(line) + _BELOW for line in lines)
    figure = Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.12 / height, title, va="top", color=FAINT)
    top = height - _TOP
    for line in lines:
        if line.heading:
            at = (0.1 / width, top / height)
            figure.text(*at, headings.line(line.heading), va="top", fontsize=11, weight="bold")
        top -= _head(line) + _tall(line)
        for left, panel in zip(lefts, line.panels, strict=False):
            box = (left / width, top / height, _WIDTH / width, _tall(line) / height)
            _draw(figure.add_axes(box), panel, _tall(line), first=left == _LEFT)
        top -= _BELOW
    return figure


def _columns(lines: Sequence[Band]) -> tuple[list[float], float]:
    """The left edges of the columns, each as wide as the names in it need, and their total."""
    lefts, edge = [], _LEFT
    for column in itertools.zip_longest(*(line.panels for line in lines)):
        names = [name for panel in column if panel for name in _names(panel)]
        widest = max(wide(text, bold=name.strong) for name in names for text in name.lines)
        lefts.append(edge)
        edge += _WIDTH + _REACH + widest + _BETWEEN
    return lefts, edge


def _lines(band: Band) -> list[Band]:
    """The band in lines of at most three panels, as even as can be."""
    count = len(band.panels)
    across = -(-count // -(-count // _ACROSS))
    return [
        Band(heading="" if start else band.heading, panels=band.panels[start : start + across])
        for start in range(0, count, across)
    ]


def _head(line: Band) -> float:
    """Inches above the panels of a line."""
    titles = max(len(_title(panel)) for panel in line.panels)
    return (0.24 if line.heading else 0) + titles * 1.12 * _LINE + 0.12


def _tall(line: Band) -> float:
    """Inches of the panels of a line: the names at the ends of their lines find room."""
    needed = (sum(name.height for name in _names(panel)) for panel in line.panels)
    return max(_HEIGHT, *(height * _CEILING + 0.1 for height in needed))


def _title(panel: Panel) -> list[str]:
    beside = wide(panel.beside, _SMALL) + 0.15 if panel.beside else 0
    return headings.broken(panel.title, _WIDTH - beside, partial(wide, size=9, bold=True))


# ---------------------------------------------------------------- one panel


def _draw(axes: "Axes", panel: Panel, tall: float, *, first: bool) -> None:
    _frame(axes, panel, first=first)
    axes.axhline(panel.chance, color=FAINT, linestyle=(0, (4, 3)), linewidth=1, zorder=1.5)
    panel = _aside(panel)
    for series in panel.series:
        _line(axes, series)
    names = _names(panel)
    heights = spread([name.at for name in names], [name.height / tall * _CEILING for name in names])
    for name, height in zip(names, heights, strict=True):
        _write(axes, name, height)
    if panel.note:
        lines = headings.broken(panel.note, _WIDTH - 0.1, partial(wide, size=_SMALL))
        place: dict[str, Any] = {"transform": axes.transAxes, "color": FAINT, "fontsize": _SMALL}
        axes.text(0.02, 0.03, "\n".join(lines), **place)


def _frame(axes: "Axes", panel: Panel, *, first: bool) -> None:
    lines = "\n".join(_title(panel))
    axes.set_title(lines, loc="left", fontweight="bold", fontsize=9, pad=5, linespacing=1.1)
    axes.set_title(panel.beside, loc="right", color=FAINT, fontsize=_SMALL, pad=5)
    axes.set_ylim(0, _CEILING)
    ticks = ["0", ".25", ".50", ".75", "1"] if first else [""] * 5
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ticks)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    places = [place for place, _ in panel.ticks]
    margin = 0.1 * (places[-1] - places[0]) or 0.25
    axes.set_xlim(places[0] - margin, places[-1] + margin)
    axes.set_xticks(places, [text for _, text in panel.ticks])
    axes.set_xlabel(panel.axis, labelpad=2)


def _aside(panel: Panel) -> Panel:
    """The panel; where all its lines are points at one place, these stand side by side."""
    if len(panel.ticks) > 1:
        return panel
    step = 0.36 / len(panel.series) if panel.series else 0
    start = -step * (len(panel.series) - 1) / 2
    moved = (
        replace(one, points=tuple((x + start + number * step, e) for x, e in one.points))
        for number, one in enumerate(panel.series)
    )
    return replace(panel, series=tuple(moved))


def _line(axes: "Axes", series: Series) -> None:
    """A line with its band; a single point with its interval."""
    x = [at for at, _ in series.points]
    low, high = [e.low for _, e in series.points], [e.high for _, e in series.points]
    alpha, above = (0.16, 3) if series.strong else (0.1, 2)
    axes.fill_between(x, low, high, color=series.colour, alpha=alpha, lw=0, zorder=above - 0.3)
    axes.plot(
        x,
        [e.value for _, e in series.points],
        color=series.colour,
        linestyle=(0, (3, 1.5)) if series.dashed else "-",
        linewidth=1.9 if series.strong else 1.1,
        marker=series.marker,
        markersize=4.5 if series.strong else 3.8,
        markeredgecolor="white",
        markeredgewidth=0.6 if series.strong else 0.3,
        clip_on=False,
        zorder=above,
    )
    if len(x) == 1:
        axes.vlines(x, low, high, color=series.colour, linewidth=1.2, zorder=above - 0.1)


# ---------------------------------------------------------------- names at the ends of lines


@dataclass(frozen=True, slots=True, kw_only=True)
class _Name:
    lines: tuple[str, ...]
    colour: str
    strong: bool
    x: float | None
    """Where the line ends; None for one that crosses the panel."""
    at: float
    """The height at which it ends."""

    @property
    def height(self) -> float:
        return len(self.lines) * _LINE


def _names(panel: Panel) -> list[_Name]:
    chance = _Name(lines=(panel.chance_name,), colour=FAINT, strong=False, x=None, at=panel.chance)
    return [
        chance,
        *(
            _Name(
                lines=tuple(headings.broken(series.name, _NAME, partial(wide, bold=series.strong))),
                colour=series.colour,
                strong=series.strong,
                x=series.points[-1][0],
                at=series.points[-1][1].value,
            )
            for series in panel.series
        ),
    ]


def _write(axes: "Axes", name: _Name, height: float) -> None:
    """A name right of the panel, tied to the end of its line."""
    left, right = axes.get_xlim()
    edge = right + (right - left) * (_REACH - 3 * POINT) / _WIDTH
    from_line = [right if name.x is None else name.x, right, edge]
    axes.plot(
        from_line,
        [name.at, name.at, height],
        color=name.colour,
        linewidth=0.6,
        alpha=0.7,
        linestyle=(0, (1, 1.5)),
        clip_on=False,
        zorder=1.8,
    )
    axes.annotate(
        "\n".join(name.lines),
        (1.0, height),
        xycoords=("axes fraction", "data"),
        xytext=(_REACH / POINT, 0),
        textcoords="offset points",
        va="center",
        color=readable(name.colour),
        weight="bold" if name.strong else "normal",
        linespacing=1.1,
        annotation_clip=False,
    )
