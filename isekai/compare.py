"""The compare step: two runs, or two models of one, paired on the same episodes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from isekai import pairing, runs
from isekai.pairing import Block
from isekai.reports.comparison import Cell, Comparison, Curves, Planned, Versus, markdown, table
from isekai.reports.headings import PLAIN
from isekai.runs import Run
from isekai.statistics import curve, metrics, paired, power
from isekai.statistics.curve import MARGIN
from isekai.types import Episode

__all__ = ["alone", "markdown", "run", "table"]

Question = tuple[str, int]
"""Episode id and position of the query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """What a model said to the questions of one task, control and shot count."""

    asked: dict[Question, Episode] = field(default_factory=dict)
    hits: dict[Question, tuple[str, bool]] = field(default_factory=dict)
    """(cluster, correct) where the question did not fail."""
    abstained: set[Question] = field(default_factory=set)

    @property
    def right(self) -> Mapping[Question, float]:
        """1 for each question that was answered correctly, 0 for the others that did not fail."""
        return {question: float(hit) for question, (_, hit) in self.hits.items()}


def run(
    a: Path,
    b: Path,
    *,
    models: Sequence[str] | None = None,
    plan: float | None = None,
    margin: float = MARGIN,
) -> Comparison:
    """Compare models of run folder `a` with those of `b`, which may be the same folder.

    `models` names one of a's and one of b's; without it see `pairing.pairs`. For every task,
    control and shot count in both runs the episodes have to be the same: DataError for the first
    that isn't. A question that fails on a side is left out on both. `plan` is a difference to plan
    for, `margin` what a plateau may still gain.
    """
    left, right = runs.read(a), runs.read(b)
    pairs, shared = pairing.pairs(left, right, models), pairing.shared(left, right)
    return Comparison(
        a=str(a),
        b=str(b),
        versus=tuple(_versus(left, right, pair, shared, plan, margin) for pair in pairs),
        notes=tuple(pairing.notes(left, right, shared)),
    )


def alone(folder: Path, difference: float, *, model: str | None = None) -> tuple[Planned, ...]:
    """What it takes to see a model of a run differ from chance by `difference`, for each task."""
    run = runs.read(folder)
    answers = _answers(run, pairing.chosen(run, model))
    found = []
    for task in dict.fromkeys(episode.task for episode in run.episodes):
        levels = {}
        for ((name, control), shots), said in answers.items():
            if (name, control) == (task, PLAIN):
                levels[shots] = _rows(said, {q: 1 / len(e.labels) for q, e in said.asked.items()})
        found += _planned(task, levels, difference, run)
    return tuple(found)


# ---------------------------------------------------------------- the numbers


def _versus(
    a: Run,
    b: Run,
    pair: tuple[str, str],
    shared: Mapping[Block, Sequence[int]],
    difference: float | None,
    margin: float,
) -> Versus:
    left, right = (_answers(run, model) for run, model in zip((a, b), pair, strict=True))
    cells: list[Cell] = []
    curves: list[Curves] = []
    plans: list[Planned] = []
    for block, levels in shared.items():
        both = [(left[block, shots], right[block, shots]) for shots in levels]
        cells += _cells(block, levels, both)
        curves += _curves(block, levels, both, margin)
        if difference is not None and block[1] == PLAIN:
            rows = {shots: _rows(left[block, shots], right[block, shots].right) for shots in levels}
            plans += _planned(block[0], rows, difference, a)
    return Versus(
        model_a=pair[0],
        model_b=pair[1],
        cells=tuple(cells),
        curves=tuple(curves),
        plans=tuple(plans),
        notes=tuple(_notes([left, right], shared)),
    )


def _answers(run: Run, model: str) -> Mapping[tuple[Block, int], _Answers]:
    known = {episode.id: episode for episode in run.episodes}
    found: dict[tuple[Block, int], _Answers] = defaultdict(_Answers)
    for row in run.predictions:
        if row.model == model:
            episode, question = known[row.episode_id], (row.episode_id, row.query)
            level = found[(episode.task, episode.control), row.shots]
            level.asked[question] = episode
            if row.outcome != "failed":
                level.hits[question] = episode.cluster, row.outcome == "correct"
            if row.outcome == "abstain":
                level.abstained.add(question)
    return found


def _cells(
    block: Block, levels: Sequence[int], both: Sequence[tuple[_Answers, _Answers]]
) -> list[Cell]:
    found = []
    for shots, (left, right) in zip(levels, both, strict=True):
        a, b = paired.matched(left.hits, right.hits)
        one, other, difference = metrics.share(a), metrics.share(b), paired.difference(a, b)
        if one and other and difference:
            way = len(next(iter(left.asked.values())).labels)
            found.append(
                Cell(
                    task=block[0],
                    control=block[1],
                    shots=shots,
                    n_support_images=way * shots,
                    chance=1 / way,
                    a=one,
                    b=other,
                    difference=difference,
                    p_holm=1.0,
                    dropped=len(left.asked) - len(a),
                )
            )
    corrected = paired.holm([cell.difference.p for cell in found])
    return [replace(cell, p_holm=p) for cell, p in zip(found, corrected, strict=True)]


def _curves(
    block: Block,
    levels: Sequence[int],
    both: Sequence[tuple[_Answers, _Answers]],
    margin: float,
) -> list[Curves]:
    """One, or none where fewer than two shot counts have answers."""
    a, b = {}, {}
    for shots, (left, right) in zip(levels, both, strict=True):
        a[shots], b[shots] = paired.matched(left.hits, right.hits)
    areas = curve.area(a), curve.area(b)
    plateaus = curve.plateau(a, margin=margin), curve.plateau(b, margin=margin)
    difference = curve.difference(a, b)
    if not (areas[0] and areas[1] and difference and plateaus[0] and plateaus[1]):
        return []
    return [
        Curves(
            task=block[0],
            control=block[1],
            area_a=areas[0],
            area_b=areas[1],
            difference=difference,
            plateau_a=plateaus[0],
            plateau_b=plateaus[1],
        )
    ]


def _notes(
    sides: Sequence[Mapping[tuple[Block, int], _Answers]], shared: Mapping[Block, Sequence[int]]
) -> Iterable[str]:
    """Which levels have no cell, and how often each side abstained."""
    levels = [(block, shots) for block, counts in shared.items() for shots in counts]
    for (task, control), shots in levels:
        a, b = (side[(task, control), shots].hits for side in sides)
        if not a.keys() & b.keys():
            name = f"{task}, {'plain' if control == PLAIN else control}"
            yield f"{name}, at {shots} shots: every question failed on a side."
    for letter, side in zip("ab", sides, strict=True):
        abstained = sum(len(side[level].abstained) for level in levels)
        if abstained:
            asked = sum(len(side[level].asked) for level in levels)
            yield f"{letter} abstained from {abstained} of {asked} questions: not correct."


# ---------------------------------------------------------------- the plan


def _rows(answers: _Answers, less: Mapping[Question, float]) -> list[tuple[str, object, float]]:
    """(cluster, episode, difference) of every question that both sides have.

    An episode is known by its seed: the published protocol makes one of each query of it.
    """
    return [
        (cluster, answers.asked[question].seed, hit - less[question])
        for question, (cluster, hit) in answers.hits.items()
        if question in less
    ]


def _planned(
    task: str,
    levels: Mapping[int, Sequence[tuple[str, object, float]]],
    difference: float,
    run: Run,
) -> list[Planned]:
    """One, or none where nothing was answered. Shot counts of at least 1 go before 0 shots."""
    told = {shots: rows for shots, rows in levels.items() if rows}
    if not told:
        return []
    spread = power.measured([rows for shots, rows in told.items() if shots or len(told) == 1])
    whole = run.config.episodes * len(run.config.seeds)
    units = 1 if run.config.limit else max(1, round(spread.episodes / whole))
    return [Planned(task=task, plan=power.plan(difference, spread, units=units))]
