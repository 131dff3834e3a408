"""Results as tables: their rows, and these in the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isekai import files
from isekai.markdown import code, escape
from isekai.reports import headings
from isekai.reports.headings import PLAIN
from isekai.types import Estimate, Intervals, Result

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

TITLE = "Accuracy with its 95 % interval, by shots: support images a label (and in all)"

RELEASED = "LCL's metric"
"""What a row of `accuracy_lcl` is called."""

Verdicts = Mapping[str, Mapping[str, Mapping[str, object]]]
"""Task -> model -> `verdict`, `words` and `tests`, as results.json holds them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table: a model on a task, under one control, by one metric."""

    task: str
    model: str
    control: str
    metric: str
    results: Mapping[int, Result]
    """Shots -> the result; not all shot counts of the table need be there."""

    @property
    def plain(self) -> bool:
        return self.control == PLAIN and self.metric == "accuracy"

    @property
    def heading(self) -> str:
        """The model; or, in the rows below it, the control or the metric or both."""
        if self.plain:
            return self.model
        words = [self.control] if self.control != PLAIN else []
        return ", ".join([*words, *([RELEASED] if self.metric != "accuracy" else [])])

    def cell(self, shots: int) -> tuple[str, ...]:
        return cell(self.results[shots], self.metric) if shots in self.results else ()

    @property
    def behind(self) -> str:
        return behind(list(self.results.values()), self.metric)


def rows(results: Sequence[Result]) -> list[Row]:
    """A model's plain row first, its controls below it, in the order in which they come."""
    lines: dict[tuple[str, str], dict[str, dict[int, Result]]] = {}
    for result in results:
        own = lines.setdefault((result.task, result.model), {PLAIN: {}})
        own.setdefault(result.control, {})[result.shots_per_class] = result
    return [
        Row(task=task, model=model, control=control, metric=metric, results=line)
        for (task, model), controls in lines.items()
        for control, line in controls.items()
        for metric in ("accuracy", "accuracy_lcl")
        if metric == "accuracy" or any(metric in result.metrics for result in line.values())
    ]


def cell(result: Result, metric: str = "accuracy") -> tuple[str, ...]:
    """`.83`, `[.78, .88]`, and what else there is to say: abstentions, failures, orders."""
    measured = result.metrics.get(metric)
    asked = sum(result.outcomes.values())
    abstained, failed = result.outcomes["abstain"], result.outcomes["failed"]
    if metric != "accuracy":
        return _estimate(measured) if measured else ()
    words: list[str] = []
    if measured and abstained == measured.n:
        words.append("abstains")
    elif measured:
        words += _estimate(measured)
        if result.spread is not None:
            words.append(f"sd {share(result.spread)}")
        if flips := result.metrics.get("flips"):
            words.append(f"{_percent(round(flips.value * flips.n), flips.n)} flip")
        if abstained:
            words.append(f"{_percent(abstained, measured.n)} abstain")
    if failed:
        words.append(f"{_percent(failed, asked)} failed")
    return tuple(words)


def _estimate(estimate: Estimate) -> tuple[str, str]:
    return share(estimate.value), f"[{share(estimate.low)}, {share(estimate.high)}]"


def share(value: float) -> str:
    """Two decimals, without the zero in front of the point."""
    return f"{value:.2f}".removeprefix("0")


def shot_counts(results: Sequence[Result]) -> list[int]:
    return sorted({result.shots_per_class for result in results})


def heading(results: Sequence[Result], shots: int) -> str:
    """`2 (4)`: shots, and support images in all."""
    return (
        f"{shots} ({_range([r.n_support_images for r in results if r.shots_per_class == shots])})"
    )


def behind(results: Sequence[Result], metric: str = "accuracy") -> str:
    """How many answers a cell rests on, and how many clusters."""
    found = [result.metrics[metric] for result in results if metric in result.metrics]
    if not found:
        return "0"
    return f"{_range([e.n for e in found])} ({_range([e.clusters for e in found])})"


def verdicts_of(told: Mapping[str, object]) -> Verdicts:
    """The verdicts in what results.json told; none where no control asked for them."""
    found = told.get("verdicts") or {}
    return files.parse(dict[str, dict[str, dict[str, object]]], found, "results.json: verdicts")


def verdict_lines(verdicts: Verdicts | None) -> list[tuple[str, str, str]]:
    """(model, task, the verdict in words), in their order."""
    return [
        (model, task, str(told.get("words") or told.get("verdict", "")))
        for task, models in (verdicts or {}).items()
        for model, told in models.items()
    ]


_INTERVALS: Mapping[Intervals, str] = {"t": "t", "bootstrap": "bootstrap-t"}


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader has to know to believe the cells, a sentence each."""
    kinds = " or ".join(sorted({_INTERVALS[result.intervals] for result in results}))
    said = [
        "n counts the answers behind a cell, clusters the groups they are about. Intervals are "
        f"{kinds} intervals over clusters, Wilson's of as many answers as clusters where these "
        "don't differ; of twenty intervals about one misses the truth."
    ]
    if any(result.outcomes["abstain"] for result in results):
        said.append("An abstention is not a correct answer: a cell that abstains has accuracy .00.")
    if any(result.outcomes["failed"] for result in results):
        said.append("Failed queries count neither for nor against a model.")
    if any(result.spread is not None or "flips" in result.metrics for result in results):
        said.append(
            "sd is the standard deviation of the accuracy over the orders of a support set, flip "
            "the share of queries that are answered differently behind another order."
        )
    if any("accuracy_lcl" in result.metrics for result in results):
        said.append(
            f"{RELEASED} counts as the released code of Link-Context Learning (arXiv:2308.07891) "
            "does: the name anywhere in the text, letter by letter, and the other one nowhere."
        )
    return said


def chance_line(results: Sequence[Result]) -> str:
    chances = {result.task: share(result.chance) for result in results}
    if len(set(chances.values())) == 1:
        return f"Chance is {next(iter(chances.values()))}."
    return f"Chance is {', '.join(f'{chance} on {task}' for task, chance in chances.items())}."


def _percent(count: int, of: int) -> str:
    """Whole percents, but 0 % and 100 % of nothing else than none and all."""
    least, most = (1 if count else 0), (100 if count == of else 99)
    return f"{min(max(round(100 * count / of), least), most)} %"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}–{high}"


# ---------------------------------------------------------------- Markdown


def markdown(
    results: Sequence[Result], verdicts: Verdicts | None = None, warnings: Sequence[str] = ()
) -> str:
    """One table, a row for each task, model and control, and below it what its numbers rest on."""
    shots, found = shot_counts(results), rows(results)
    below = not all(row.plain for row in found)
    header = ["task", "model", *(["control"] if below else [])]
    lines = [line for warning in warnings for line in (f"**{escape(warning)}**", "")]
    lines += [f"{TITLE}.", ""]
    lines.append(_row([*header, *(heading(results, k) for k in shots), "n (clusters)"]))
    lines.append(_row([*["---"] * len(header), *["---:"] * (len(shots) + 1)]))
    for row in found:
        name = [escape(row.task), escape(row.model)] if row.plain or not below else ["", ""]
        control = ["plain" if row.plain else _marked(row)] if below else []
        cells = [" ".join(row.cell(k)) for k in shots]
        lines.append(_row([*name, *control, *cells, row.behind]))
    lines += ["", escape(chance_line(results)), *notes(results)]
    if told := headings.legend(row.control for row in found):
        lines += ["", *(f"- {code(control)}: {words}" for control, words in told.items())]
    lines += [""] if verdicts else []
    for model, task, words in verdict_lines(verdicts):
        lines.append(f"- **{escape(model)}** ({escape(task)}) {escape(words)}")
    return "\n".join(lines) + "\n"


def _marked(row: Row) -> str:
    if row.metric == "accuracy":
        return code(row.control)
    return RELEASED if row.control == PLAIN else f"{code(row.control)}, {RELEASED}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


# ---------------------------------------------------------------- the terminal

_WIDTH, _NAME = 80, 14
"""Columns of a terminal, and of them at least for the names of rows."""


def table(results: Sequence[Result], verdicts: Verdicts | None = None) -> "Group":
    """The same rows for the terminal: a table for each task, intervals below their number."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    shown: list[Table | Text | Padding] = [Text(f"{TITLE}.\n", style="dim")]
    for task in dict.fromkeys(result.task for result in results):
        own = [result for result in results if result.task == task]
        shots = shot_counts(own)
        widest = max(10, *(len(word) for row in rows(own) for k in shots for word in row.cell(k)))
        fit = max((_WIDTH - _NAME) // (widest + 1), 1)
        across = -(-len(shots) // -(-len(shots) // fit))  # parted evenly where they don't fit
        for start in range(0, len(shots), across):
            part = shots[start : start + across]
            shown += [_block(task, own, part, _WIDTH - across * (widest + 1)), Text()]
        below = f"n (clusters) {behind(own)}, chance {share(own[0].chance)}\n"
        shown[-1] = Text(below, style="dim")
    if told := headings.legend(result.control for result in results):
        legend = Table.grid(padding=(0, 2, 0, 0))
        for control, words in told.items():
            legend.add_row(Text(control, style="dim"), Text(words, style="dim"))
        shown += [legend, Text()]
    for model, task, words in verdict_lines(verdicts):
        verdict, _, numbers = headings.line(words).partition(": ")
        who = f"{headings.line(model)} ({headings.line(task)}) "
        shown += [
            Text.assemble(who, (verdict, "bold")),
            Padding(Text(numbers, "dim"), (0, 0, 0, 2)),
        ]
    if verdicts:
        shown.append(Text())
    return Group(*shown, Text("\n".join(notes(results)), style="dim"))


def _block(task: str, results: Sequence[Result], shots: Sequence[int], width: int) -> "Table":
    """Some columns of a task's table, with names of rows in at most `width` columns."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    drawn.add_column(Text(headings.line(task), style="bold not dim"), min_width=9)
    for k in shots:
        drawn.add_column(heading(results, k), justify="right", no_wrap=True, min_width=10)
    for row in rows(results):
        if not row.plain and not any(row.cell(k) for k in shots):
            continue
        indent = "" if row.plain else "  "
        lines = headings.broken(row.heading, width - 1 - len(indent))
        name = "\n".join(indent + line for line in lines)
        cells = (Text("\n".join(row.cell(k))) for k in shots)
        drawn.add_row(Text(name, style="" if row.plain else "dim"), *cells)
    return drawn
