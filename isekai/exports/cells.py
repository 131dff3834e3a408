"""The cells of a table as tasks of their own, which is how other harnesses count shots."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from isekai.exports.names import slugs
from isekai.reports.headings import PLAIN
from isekai.types import Estimate, Prediction, Result

if TYPE_CHECKING:
    from isekai.runs import Run

Cell = tuple[str, str, int]
"""Task, control, shots."""


def task_ids(cells: Iterable[Cell]) -> dict[Cell, str]:
    """`isekai_twin_2shot`, `isekai_twin_blind_2shot`: shots are images a label."""
    cells = list(dict.fromkeys(cells))
    tasks = slugs({task for task, _, _ in cells})
    controls = slugs({control for _, control, _ in cells})
    named = {}
    for task, control, shots in cells:
        changed = [] if control == PLAIN else [controls[control]]
        named[task, control, shots] = "_".join(["isekai", tasks[task], *changed, f"{shots}shot"])
    return named


def results(run: "Run", model: str) -> dict[str, Result]:
    """Task id -> the model's result, in the order of the run."""
    cells = {(one.task, one.control, one.shots_per_class): one for one in run.results}
    ids = task_ids(cells)
    own = [one for one in run.results if one.model == model]
    return {ids[one.task, one.control, one.shots_per_class]: one for one in own}


def predictions(run: "Run", model: str) -> Mapping[str, list[Prediction]]:
    """Task id -> the model's predictions, in the order of the run."""
    known = {episode.id: episode for episode in run.episodes}
    ids = task_ids((one.task, one.control, one.shots_per_class) for one in run.results)
    found: dict[str, list[Prediction]] = defaultdict(list)
    for row in run.predictions:
        if row.model == model:
            episode = known[row.episode_id]
            found[ids[episode.task, episode.control, row.shots]].append(row)
    return found


def words(result: Result) -> str:
    """The accuracy with all that it rests on, on one line."""
    asked = sum(result.outcomes.values())
    failed = result.outcomes.get("failed", 0)
    shown = f"images a label: {result.shots_per_class} ({result.n_support_images} in all)"
    accuracy = result.metrics.get("accuracy")
    if accuracy is None:
        return f"all {asked} queries failed; {shown}"
    told = f"accuracy {interval(accuracy)}; chance {result.chance:.3f}; {shown}"
    abstained = result.outcomes.get("abstain", 0)
    told += f"; {abstained} abstained, which is not correct" if abstained else ""
    return told + (f"; {failed} of {asked} queries failed and count nowhere" if failed else "")


def interval(estimate: Estimate) -> str:
    return (
        f"{estimate.value:.3f}, 95 % interval {estimate.low:.3f} to {estimate.high:.3f}, "
        f"n {estimate.n} in {estimate.clusters} clusters"
    )
