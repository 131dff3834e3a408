"""Which models of two runs are compared, and whether both were asked the same."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from isekai.episodes import digest
from isekai.errors import DataError, did_you_mean
from isekai.reports.headings import PLAIN
from isekai.runs import Run
from isekai.types import Episode

Block = tuple[str, str]
"""Task and control."""

# ---------------------------------------------------------------- which models


def pairs(a: Run, b: Run, models: Sequence[str] | None) -> Sequence[tuple[str, str]]:
    """The (model of a, model of b) to compare: those named, else the only ones that make sense.

    Two runs are compared model by model if they hold the same ones, or one each; a run with itself
    if it holds two. DataError, with the models that are there, for what is left open.
    """
    same = a.folder.resolve() == b.folder.resolve()
    if models is not None:
        if len(models) not in (1, 2) or (same and len(set(models)) == 1):
            told = "name two different ones" if same else "name one of each run"
            raise DataError(f"--models {','.join(models)}: {told}, as in --models a,b")
        return [(chosen(a, models[0]), chosen(b, models[-1]))]
    there, here = a.config.models, b.config.models
    if same:
        if len(there) == 2:
            return [(there[0], there[1])]
    elif len(there) == len(here) == 1:
        return [(there[0], here[0])]
    elif set(there) == set(here):
        return [(model, model) for model in there]
    held = f"{a.folder} holds {', '.join(there)}"
    if same and len(there) == 1:
        raise DataError(f"{held} alone: name another run to compare it with")
    if not same:
        held += f", {b.folder} holds {', '.join(here)}"
    raise DataError(f"{held}: say which two to compare, as in --models {there[0]},{here[-1]}")


def chosen(run: Run, model: str | None) -> str:
    """The model, which has to be there; for None the only one."""
    models = run.config.models
    if model is None and len(models) == 1:
        return models[0]
    if model is None:
        raise DataError(f"{run.folder} holds {', '.join(models)}: say which of them")
    if model not in models:
        raise DataError(f"{run.folder} holds no model '{model}'{did_you_mean(model, models)}")
    return model


# ---------------------------------------------------------------- the same episodes


def shared(a: Run, b: Run) -> Mapping[Block, Sequence[int]]:
    """Task and control -> the shot counts of both runs, all with the same episodes.

    DataError for the first episode that differs, and in what; or if nothing is shared.
    """
    left, right = _levels(a.episodes), _levels(b.episodes)
    found: dict[Block, list[int]] = defaultdict(list)
    for (block, shots), here in left.items():
        there = right.get((block, shots))
        if there is not None:
            _refuse_different(a.folder, b.folder, shots, here, there)
            found[block].append(shots)
    if not found:
        raise DataError(f"{a.folder} and {b.folder} have no task, control and shot count in common")
    return {block: sorted(shots) for block, shots in found.items()}


def _levels(episodes: Iterable[Episode]) -> Mapping[tuple[Block, int], Mapping[str, Episode]]:
    """Task, control and shots -> the episodes asked there, by id."""
    found: dict[tuple[Block, int], dict[str, Episode]] = defaultdict(dict)
    for episode in episodes:
        for shots in episode.shots:
            found[(episode.task, episode.control), shots][episode.id] = episode
    return found


def _refuse_different(
    a: Path, b: Path, shots: int, here: Mapping[str, Episode], there: Mapping[str, Episode]
) -> None:
    for id in [*here, *there]:
        if id not in here or id not in there:
            different = f"episode {id} is only in {a if id in here else b}"
        elif not _same(here[id], there[id], shots):
            different = f"episode {id} differs in its {_part(here[id], there[id], shots)}"
        else:
            continue
        raise DataError(
            f"{a} and {b} did not ask the same at {shots} shots: {different}; compare runs of the "
            "same dataset, seeds, --episodes, --queries and --labels"
        )


def _same(a: Episode, b: Episode, shots: int) -> bool:
    """By digest, which is spared where the episodes are equal in all, to the labels' order."""
    return (a == b and list(a.labels) == list(b.labels)) or digest(a, shots) == digest(b, shots)


def _part(a: Episode, b: Episode, shots: int) -> str:
    if list(a.labels.items()) != list(b.labels.items()):
        return "labels"
    shown = slice(len(a.labels) * shots)
    return "support set" if a.support[shown] != b.support[shown] else "queries"


def notes(a: Run, b: Run, shared: Mapping[Block, Sequence[int]]) -> Iterable[str]:
    """What else is different between the runs, and what only one of them has."""
    for name, one, other in (
        ("ranking of labels", a.config.ranking, b.config.ranking),
        ("template", a.config.template, b.config.template),
        ("protocol", a.config.protocol, b.config.protocol),
    ):
        if one != other:
            told = f" ({one} and {other})" if isinstance(one, str) else ""
            yield f"The runs differ in their {name}{told}, and a difference may come from it."
    for run in dict.fromkeys((a.folder, b.folder)):
        own = _levels((a if run == a.folder else b).episodes)
        alone = [
            f"{task} {'plain' if control == PLAIN else control} at {shots}"
            for (task, control), shots in own
            if shots not in shared.get((task, control), ())
        ]
        if alone:
            yield f"Only {run} has, and is not compared: {'; '.join(alone)}."
