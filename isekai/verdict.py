"""Says in a line whether a model binds, names or guesses, and which tests say so.

All shot counts of at least 1 count together, so that none is picked after the fact. Tests are
two-sided, over clusters, and Holm-corrected for each model and task.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from isekai.reports.tables import share
from isekai.statistics import metrics, paired
from isekai.types import Difference, Episode, LabelWords, Prediction

Word = Literal["binds", "names", "binds and names", "guesses", "undecided"]

LEVEL = 0.05
NEAR_CHANCE = 0.10
"""A model guesses if its whole interval lies less than this above chance. Otherwise more answers
are needed to tell: the verdict is `undecided`."""

CONSTANT = 0.95
"""So large a share of episodes in which all queries get one and the same answer is guessing, too:
as each label is asked for equally often, that is chance exactly, whatever the interval."""

Hits = list[tuple[str, bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """One question that decides, with the difference that answers it; `p` is Holm-corrected."""

    about: str
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """`words` is the line, `tests` what stands behind it."""

    verdict: Word
    words: str
    tests: tuple[Test, ...]


def verdicts(
    predictions: Sequence[Prediction],
    episodes: Sequence[Episode],
    models: Sequence[str],
    labels: LabelWords,
) -> dict[str, dict[str, Verdict]]:
    """Task -> model -> verdict, for each task that was asked with the control `blind`."""
    known = {episode.id: episode for episode in episodes}
    cells: dict[tuple[str, str], dict[str, Hits]] = defaultdict(lambda: defaultdict(list))
    answered: set[tuple[str, str, str]] = set()
    for row in predictions:
        episode = known[row.episode_id]
        control = episode.control if row.shots else _without_support(episode.control)
        if row.outcome != "failed":
            hit = (episode.cluster, row.outcome == "correct")
            cells[episode.task, row.model][control].append(hit)
            if row.answer is not None:
                answered.add((episode.task, row.model, control))
    way = {episode.task: len(episode.labels) for episode in episodes}
    controls = {(episode.task, episode.control) for episode in episodes}
    return {
        task: {
            model: judge(
                cells[task, model],
                1 / way[task],
                labels,
                constant=_constant(predictions, known, task, model),
                silent={c for t, c in controls if t == task and (t, model, c) not in answered},
            )
            for model in models
            if cells[task, model].get("none")
        }
        for task in way
        if (task, "blind") in controls
    }


def _without_support(control: str) -> str:
    """The name under which 0 shots of a control count: they are its `zero`."""
    if control.split("+")[-1] == "zero":
        return control
    return "zero" if control == "none" else f"{control}+zero"


def _constant(
    predictions: Sequence[Prediction], known: Mapping[str, Episode], task: str, model: str
) -> float:
    """The share of plain support sets behind which all queries get the same answer.

    Of those alone that were asked for more than one label: elsewhere one answer can be right.
    """
    said: dict[tuple[int, int], set[str | None]] = defaultdict(set)
    wanted: dict[tuple[int, int], set[str]] = defaultdict(set)
    for row in predictions:
        episode = known[row.episode_id]
        plain = episode.task == task and episode.control == "none" and row.shots > 0
        if plain and row.model == model and row.outcome != "failed":
            said[episode.seed, row.shots].add(row.answer)
            wanted[episode.seed, row.shots].add(row.target)
    told = [len(said[shown]) == 1 for shown, targets in wanted.items() if len(targets) > 1]
    return sum(told) / max(1, len(told))


def judge(
    asked: Mapping[str, Hits],
    chance: float,
    labels: LabelWords,
    *,
    constant: float = 0.0,
    silent: Collection[str] = (),
) -> Verdict:
    """The verdict from the (cluster, correct) of each control; `none` holds the plain episodes.

    binds  the support pictures make a difference (plain against `blind`), what comes of it is above
           chance and, where `swap` was asked, the swap is followed above chance;
    names  right above chance by the true names although the support pictures are grey or absent,
           or wrong more often than chance where the true names are swapped;
    guesses  neither, and plainly so: the interval lies near chance, or a share of `constant` of the
           support sets gets one answer to all queries.

    In the `silent` controls the model says nothing at all: the line tells so.
    """
    tests = _corrected(_tests(asked, chance, labels))
    significant = {
        test.about: (test.difference.value > 0) - (test.difference.value < 0)
        for test in tests
        if test.difference.p < LEVEL
    }
    swapped = _SWAP not in {test.about for test in tests} or significant.get(_SWAP) == 1
    binds = significant.get(_SUPPORT) == 1 and significant.get(_CHANCE) == 1 and swapped
    names = any(significant.get(about) == 1 for about in _NAMING) or (
        significant.get(_TRUE_SWAP) == -1
    )
    plain = metrics.share(asked["none"])
    assert plain is not None
    word: Word
    if binds or names:
        word = "binds and names" if binds and names else "binds" if binds else "names"
    else:
        sure = plain.high < chance + NEAR_CHANCE or constant >= CONSTANT
        word = "guesses" if sure else "undecided"
    told = _told(word, asked, tests, chance, labels, silent)
    if word == "undecided" and plain.clusters < paired.LEAST_CLUSTERS:
        told += f"; nothing is significant in fewer than {paired.LEAST_CLUSTERS} clusters"
    if constant >= 0.5:
        told += f"; one answer to all queries behind {round(100 * constant)} % of support sets"
    return Verdict(verdict=word, words=told, tests=tests)


_SUPPORT = "the support pictures make a difference (plain - blind)"
_CHANCE = "above chance (plain - chance)"
_SWAP = "follows swapped labels (swap - chance)"
_NAMING = (
    "true names without support pictures (words=true+blind - chance)",
    "true names without a support set (words=true+zero - chance)",
)
_TRUE_SWAP = "follows swapped true names (words=true+swap - chance)"


def _tests(asked: Mapping[str, Hits], chance: float, labels: LabelWords) -> list[Test]:
    """Every test that the controls allow; where the plain words are the true names, these are."""
    prefix = "" if labels == "true" else "words=true+"
    found = [
        (_SUPPORT, paired.difference(asked["none"], asked["blind"]) if asked.get("blind") else None)
    ]
    for about, control in (
        (_CHANCE, "none"),
        (_SWAP, "swap"),
        (_NAMING[0], f"{prefix}blind"),
        (_NAMING[1], f"{prefix}zero"),
        (_TRUE_SWAP, f"{prefix}swap"),
    ):
        if asked.get(control):
            found.append((about, paired.against(asked[control], chance)))
    return [Test(about=about, difference=found) for about, found in found if found]


def _corrected(tests: Sequence[Test]) -> tuple[Test, ...]:
    corrected = paired.holm([test.difference.p for test in tests])
    return tuple(
        replace(test, difference=replace(test.difference, p=p))
        for test, p in zip(tests, corrected, strict=True)
    )


def _told(
    word: Word,
    asked: Mapping[str, Hits],
    tests: Sequence[Test],
    chance: float,
    labels: LabelWords,
    silent: Collection[str],
) -> str:
    """The verdict with the few numbers that it hangs on."""
    by_name = {test.about: test.difference for test in tests}
    plain, blind = metrics.share(asked["none"]), metrics.share(asked.get("blind", []))
    assert plain is not None
    parts = [f"{share(plain.value)} [{share(plain.low)}, {share(plain.high)}] plain"]
    if blind:
        scored = "no answer" if "blind" in silent else share(blind.value)
        parts.append(f"{scored} with grey support pictures{_p(by_name[_SUPPORT])}")
    if swap := metrics.share(asked.get("swap", [])):
        parts.append(f"{share(swap.value)} where labels are swapped")
    if labels != "true":
        for about, what, control in (
            (_NAMING[0], "by true names with grey support pictures", "words=true+blind"),
            (_TRUE_SWAP, "where true names are swapped", "words=true+swap"),
        ):
            if about in by_name and control not in silent:
                difference = by_name[about]
                parts.append(f"{share(difference.value + chance)} {what}{_p(difference)}")
    return f"{word}: {', '.join(parts)}; chance {share(chance)}"


def _p(difference: Difference) -> str:
    if difference.p < 0.001:
        return " (p < .001)"
    return f" (p {f'{difference.p:.3f}'.removeprefix('0')})" if difference.p < 1 else " (p 1)"
