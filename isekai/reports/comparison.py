"""What a comparison of two runs holds, and how it is told: in the terminal and in Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isekai.markdown import code, escape
from isekai.reports import headings
from isekai.reports.headings import PLAIN
from isekai.reports.tables import share
from isekai.statistics import curve, power
from isekai.statistics.curve import Plateau
from isekai.statistics.paired import LEAST_CLUSTERS
from isekai.statistics.power import Plan
from isekai.types import Difference, Estimate

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Both models at one shot count, on the questions that neither failed."""

    task: str
    control: str
    shots: int
    n_support_images: int
    chance: float
    a: Estimate
    b: Estimate
    difference: Difference
    """a - b."""
    p_holm: float
    """Corrected for the shot counts of this task and control."""
    dropped: int
    """Questions left out because one of the two failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Both n-shot curves of a task and control as a whole, over the shot counts of its cells."""

    task: str
    control: str
    area_a: Estimate
    area_b: Estimate
    difference: Difference
    plateau_a: Plateau
    plateau_b: Plateau


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a difference takes on a task, at any one of its shot counts."""

    task: str
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """Two models compared on everything that both were asked."""

    model_a: str
    model_b: str
    cells: tuple[Cell, ...]
    curves: tuple[Curves, ...]
    plans: tuple[Planned, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Runs `a` and `b`, two folders that may be one, model by model."""

    a: str
    b: str
    versus: tuple[Versus, ...]
    notes: tuple[str, ...]
    """What a reader has to know about the two runs, a sentence each."""


# ---------------------------------------------------------------- rows

HEADER = ("shots", "a", "b", "a - b", "p", "p Holm")

EXPLAINED = (
    "a - b is paired over clusters, with its 95 % interval; p is the two-sided sign-flip test over "
    "clusters, and p Holm holds for all shots of a task and control together. Where all clusters "
    "agree, intervals are as wide as for one answer a cluster. area is the mean height of a curve "
    "over doublings of the shots."
)

Row = tuple[str, str, str, str, str, str]


def rows(versus: Versus, task: str, control: str) -> Iterator[Row]:
    """The cells of a task and control under HEADER, and the area below them."""
    for cell in versus.cells:
        if (cell.task, cell.control) == (task, control):
            shots = f"{cell.shots} ({cell.n_support_images})"
            told = (_estimate(cell.a), _estimate(cell.b), _difference(cell.difference))
            yield (shots, *told, p_value(cell.difference.p), p_value(cell.p_holm))
    for both in versus.curves:
        if (both.task, both.control) == (task, control):
            areas = (_estimate(both.area_a), _estimate(both.area_b))
            yield ("area", *areas, _difference(both.difference), p_value(both.difference.p), "")


def below(versus: Versus, task: str, control: str) -> list[str]:
    """What stands behind the cells, and where the curves level off: sentences."""
    cells = [cell for cell in versus.cells if (cell.task, cell.control) == (task, control)]
    answers = _range([cell.difference.n for cell in cells])
    clusters = _range([cell.difference.clusters for cell in cells])
    told = [f"n {answers}, clusters {clusters}, chance {share(cells[0].chance)}."]
    dropped = sum(cell.dropped for cell in cells)
    if dropped:
        told.append(f"Left out as failed on a side: {dropped}.")
    shots = [cell.shots for cell in cells]
    for both in versus.curves:
        if (both.task, both.control) == (task, control):
            ends = [curve.words(end, shots) for end in (both.plateau_a, both.plateau_b)]
            told.append(f"Shots: a {ends[0]}; b {ends[1]}.")
    return told


def notes(comparison: Comparison) -> list[str]:
    """What holds for all tables, a sentence each."""
    fewest = min(
        (cell.difference.clusters for v in comparison.versus for cell in v.cells),
        default=LEAST_CLUSTERS,
    )
    told = [EXPLAINED, *comparison.notes]
    if fewest < LEAST_CLUSTERS:
        told.append(
            f"With {fewest} clusters no p can be below {2.0 ** (1 - fewest):g}: under "
            f"{LEAST_CLUSTERS} clusters nothing is significant."
        )
    return told


def _blocks(versus: Versus) -> list[tuple[str, str]]:
    return list(dict.fromkeys((cell.task, cell.control) for cell in versus.cells))


def _sides(comparison: Comparison, versus: Versus) -> list[str]:
    return [
        f"a: {versus.model_a} in {comparison.a}",
        f"b: {versus.model_b} in {comparison.b}",
    ]


def _planned(versus: Versus) -> list[str]:
    return [f"{planned.task}: {power.words(planned.plan)}" for planned in versus.plans]


def _estimate(estimate: Estimate) -> str:
    return f"{share(estimate.value)} [{share(estimate.low)}, {share(estimate.high)}]"


def _difference(difference: Difference) -> str:
    value, low, high = (signed(x) for x in (difference.value, difference.low, difference.high))
    return f"{value} [{low}, {high}]"


def signed(value: float) -> str:
    """`+.05`, `-.12`, `.00`."""
    rounded = round(value, 2)
    return f"{'+' if rounded > 0 else '-' if rounded < 0 else ''}{share(abs(rounded))}"


def p_value(p: float) -> str:
    """Three decimals, and never 0."""
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}–{high}"


# ---------------------------------------------------------------- told


def markdown(comparison: Comparison) -> str:
    """A table for each pair of models, task and control."""
    lines = []
    for versus in comparison.versus:
        lines += [f"- {escape(side)}" for side in _sides(comparison, versus)] + [""]
        for task, control in _blocks(versus):
            title = escape(task) + ("" if control == PLAIN else f", {code(control)}")
            lines += [f"**{title}**", "", _line(HEADER), _line(["---", *["---:"] * 5])]
            lines += [_line(row) for row in rows(versus, task, control)]
            lines += ["", " ".join(below(versus, task, control)), ""]
        lines += [f"{escape(told)}\n" for told in (*_planned(versus), *versus.notes)]
    legend = headings.legend(cell.control for v in comparison.versus for cell in v.cells)
    lines += [f"- {code(control)}: {words}" for control, words in legend.items()]
    lines += [""] if legend else []
    return "\n".join([*lines, *(escape(note) for note in notes(comparison))]) + "\n"


def table(comparison: Comparison) -> "Group":
    """The same tables for the terminal, within 80 columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: list[Table | Text] = []
    for versus in comparison.versus:
        for side in _sides(comparison, versus):
            shown.append(Text(headings.line(side), style="bold"))
        for task, control in _blocks(versus):
            name = headings.line(task if control == PLAIN else f"{task}, {control}")
            drawn = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
            for title in HEADER:
                drawn.add_column(title, justify="right", no_wrap=True)
            for row in rows(versus, task, control):
                drawn.add_row(*row)
            shown += [Text(f"\n{name}", style="bold"), drawn]
            shown.append(Text(" ".join(below(versus, task, control)), style="dim"))
        told = [headings.line(told) for told in (*_planned(versus), *versus.notes)]
        shown += [Text(f"\n{one}") for one in told] + [Text()]
    legend = headings.legend(cell.control for v in comparison.versus for cell in v.cells)
    shown += [Text(f"{control}: {words}", style="dim") for control, words in legend.items()]
    return Group(*shown, *(Text(headings.line(note), style="dim") for note in notes(comparison)))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
