"""Results as pictures: accuracy over shots, a small panel a task, the same axes for all.

Equal results give equal bytes, in PNG and in SVG; text in the SVG is text.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isekai import report
from isekai.types import Result

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, apart for every common kind of colour vision; the darker ones first."""

MARKERS = "osD^vPX"
INK, FAINT = "#222222", "#8A8A8A"

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "isekai",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
}


def curves(results: Sequence[Result]) -> Mapping[str, bytes]:
    """`png` and `svg` -> the file: a line with its interval band for every model and task."""
    with mpl.rc_context(_STYLE):
        figure = draw(results)
        return {"png": _saved(figure, "png"), "svg": _saved(figure, "svg")}


def draw(results: Sequence[Result]) -> Figure:
    """The panels side by side."""
    tasks = list(dict.fromkeys(result.task for result in results))
    models = list(dict.fromkeys(result.model for result in results))
    looks = {
        model: (COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)])
        for number, model in enumerate(models)
    }
    figure = Figure(figsize=(1.0 + 3.7 * len(tasks), 3.7), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for task, axes in zip(tasks, panels, strict=True):
        own = [result for result in results if result.task == task]
        _frame(axes, task, own)
        names = [(own[0].chance, f"chance {report.share(own[0].chance)}", FAINT)]
        silent = []
        for (_, model), cells in report.curves(own).items():
            height = _line(axes, list(cells.values()), *looks[model])
            if height is None:
                silent.append(model)
            else:
                names.append((height, model, looks[model][0]))
        _names(axes, names)
        if silent:
            note = f"no answer: {', '.join(silent)}"
            place = {"transform": axes.transAxes, "color": FAINT, "fontsize": 8}
            axes.text(0.02, 0.03, note, parse_math=False, **place)
    panels[0].set_ylabel("accuracy")
    figure.suptitle(
        "Accuracy by support images a label, with 95 % intervals over clusters",
        x=0.01,
        ha="left",
        fontsize=9,
        color=FAINT,
    )
    return figure


def place(shots: int) -> float:
    """Where a shot count stands on the x axis: doublings apart, and 0 a step before 1."""
    return math.log2(shots) + 1 if shots else 0.0


def _frame(axes: Axes, task: str, results: Sequence[Result]) -> None:
    shots = sorted({result.shots_per_class for result in results})
    clusters = max((r.metrics["accuracy"].clusters for r in results if r.metrics), default=0)
    behind = f"{clusters} cluster{'' if clusters == 1 else 's'}"
    axes.set_title(task, loc="left", fontweight="bold", fontsize=10)
    axes.set_title(behind, loc="right", color=FAINT, fontsize=8)
    axes.set_ylim(0, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".50", ".75", "1"])
    axes.grid(axis="y", color="#E8E8E8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(place(shots[0]) - 0.25, place(shots[-1]) + 0.25)
    axes.set_xticks([place(k) for k in shots], [str(k) for k in shots])
    axes.set_xlabel("shots")
    axes.axhline(results[0].chance, color=FAINT, linestyle=(0, (4, 3)), linewidth=1)


def _line(axes: Axes, results: Sequence[Result], colour: str, marker: str) -> float | None:
    """Draw one model; the height at which its line ends, None if it never answers.

    A shot count at which a model only abstains or fails is no point of its curve.
    """
    points = [
        (place(result.shots_per_class), result.metrics["accuracy"])
        for result in results
        if "accuracy" in result.metrics and result.metrics["abstain"].value < 1
    ]
    if not points:
        return None
    x = [at for at, _ in points]
    axes.fill_between(
        x, [e.low for _, e in points], [e.high for _, e in points], color=colour, alpha=0.15, lw=0
    )
    axes.plot(
        x,
        [e.value for _, e in points],
        color=colour,
        marker=marker,
        markersize=4.5,
        markeredgecolor="white",
        markeredgewidth=0.6,
        linewidth=1.6,
        clip_on=False,
    )
    if len(points) == 1:
        at, e = points[0]
        axes.vlines(at, e.low, e.high, color=colour, linewidth=1.2)
    return points[-1][1].value


def _names(axes: Axes, names: Sequence[tuple[float, str, str]]) -> None:
    """Write (height, name, colour) right of the panel, moved apart where lines end together."""
    gap = 0.065
    names = sorted(names, key=lambda name: name[0])
    heights = [height for height, _, _ in names]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + gap)
    ceiling = 1.0
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], ceiling)
        ceiling = heights[i] - gap
    for height, (_, name, colour) in zip(heights, names, strict=True):
        axes.annotate(
            name,
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
            parse_math=False,
        )


def _saved(figure: Figure, format: str) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Software": None} if format == "png" else {"Date": None, "Creator": None}
    figure.savefig(buffer, format=format, dpi=200, metadata=metadata)
    return buffer.getvalue()
