"""Results as tables: the same cells in the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from isekai.markdown import escape
from isekai.types import Result

if TYPE_CHECKING:
    from rich.console import Group

TITLE = "Accuracy with its 95 % interval, by shots: support images a label (and in all)"


def cell(result: Result) -> tuple[str, ...]:
    """`.83`, `[.78, .88]`, and the shares of abstentions and failures where there are any."""
    accuracy = result.metrics.get("accuracy")
    asked = sum(result.outcomes.values())
    abstained, failed = result.outcomes["abstain"], result.outcomes["failed"]
    words = []
    if accuracy and abstained == accuracy.n:
        words.append("abstains")
    elif accuracy:
        words += [share(accuracy.value), f"[{share(accuracy.low)}, {share(accuracy.high)}]"]
        if abstained:
            words.append(f"{_percent(abstained, accuracy.n)} abstain")
    if failed:
        words.append(f"{_percent(failed, asked)} failed")
    return tuple(words)


def share(value: float) -> str:
    """Two decimals, without the zero in front of the point."""
    return f"{value:.2f}".removeprefix("0")


def markdown(results: Sequence[Result]) -> str:
    """One table, a row for each task and model, and below it what its numbers rest on."""
    shots = sorted({result.shots_per_class for result in results})
    header = ["task", "model", *(_heading(results, k) for k in shots), "n (clusters)"]
    lines = [
        f"{TITLE}.",
        "",
        _row(header),
        _row(["---", "---", *["---:"] * (len(header) - 2)]),
    ]
    for (task, model), line in curves(results).items():
        cells = [" ".join(cell(line[k])) if k in line else "" for k in shots]
        lines.append(_row([escape(task), escape(model), *cells, _behind(list(line.values()))]))
    return "\n".join([*lines, "", _chance(results), *notes(results)]) + "\n"


def table(results: Sequence[Result]) -> "Group":
    """The same cells for the terminal: a table for each task, intervals below their number."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    tables: list[Table | Text] = [Text(f"{TITLE}.\n", style="dim")]
    for task in dict.fromkeys(result.task for result in results):
        own = [result for result in results if result.task == task]
        shots = sorted({result.shots_per_class for result in own})
        drawn = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
        drawn.add_column(Text(task, style="bold not dim"), overflow="fold", min_width=9)
        for k in shots:
            drawn.add_column(_heading(own, k), justify="right", no_wrap=True, min_width=10)
        for (_, model), line in curves(own).items():
            drawn.add_row(model, *("\n".join(cell(line[k])) if k in line else "" for k in shots))
        below = f"n (clusters) {_behind(own)}, chance {share(own[0].chance)}\n"
        tables += [drawn, Text(below, style="dim")]
    return Group(*tables, Text("\n".join(notes(results)), style="dim"))


def curves(results: Sequence[Result]) -> Mapping[tuple[str, str], Mapping[int, Result]]:
    """(task, model) -> shots -> result, in the order in which they come."""
    found: dict[tuple[str, str], dict[int, Result]] = {}
    for result in results:
        found.setdefault((result.task, result.model), {})[result.shots_per_class] = result
    return found


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader has to know to believe the cells, a sentence each."""
    said = [
        "n counts the answers behind a cell, clusters the groups they are about. Intervals are t "
        "intervals over clusters, Wilson's of as many answers as clusters where these don't "
        "differ; of twenty intervals about one misses the truth."
    ]
    if any(result.outcomes["abstain"] for result in results):
        said.append("An abstention is not a correct answer: a cell that abstains has accuracy .00.")
    if any(result.outcomes["failed"] for result in results):
        said.append("Failed queries count neither for nor against a model.")
    return said


def _chance(results: Sequence[Result]) -> str:
    chances = {result.task: share(result.chance) for result in results}
    if len(set(chances.values())) == 1:
        return f"Chance is {next(iter(chances.values()))}."
    return f"Chance is {', '.join(f'{chance} on {task}' for task, chance in chances.items())}."


def _percent(count: int, of: int) -> str:
    """Whole percents, but never 0 % of something and never 100 % of less than all."""
    return f"{min(max(round(100 * count / of), 1), 100 if count == of else 99)} %"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _heading(results: Sequence[Result], shots: int) -> str:
    images = [r.n_support_images for r in results if r.shots_per_class == shots]
    return f"{shots} ({_range(images)})"


def _behind(results: Sequence[Result]) -> str:
    """How many answers a cell rests on, and how many clusters."""
    accuracies = [r.metrics["accuracy"] for r in results if "accuracy" in r.metrics]
    if not accuracies:
        return "0"
    return f"{_range([a.n for a in accuracies])} ({_range([a.clusters for a in accuracies])})"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low}–{high}"
