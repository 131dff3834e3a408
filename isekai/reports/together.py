"""Several runs shown as one: names made unique, episodes kept apart, differences told."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isekai.reports import tables
from isekai.reports.headings import PLAIN
from isekai.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """One run that holds the answers of several, those runs, and what to beware of."""

    run: Run
    origins: tuple[Run, ...]
    notes: tuple[str, ...]


def together(runs: Sequence[Run]) -> Together:
    """The runs as one, in their order. A model that several of them hold is named by its folder."""
    if len(runs) == 1:
        return Together(run=runs[0], origins=tuple(runs), notes=())
    parts = _apart(_renamed(runs))
    results = [result for part in parts for result in part.results]
    tasks = list(dict.fromkeys(result.task for result in results))
    merged = Run(
        folder=runs[0].folder,
        config=replace(
            runs[0].config,
            models=[model for part in parts for model in part.config.models],
            tasks=tasks,
        ),
        episodes=tuple({e.id: e for part in parts for e in part.episodes}.values()),
        predictions=tuple(row for part in parts for row in part.predictions),
        results=tuple(sorted(results, key=lambda result: tasks.index(result.task))),
        told=_told(parts),
    )
    return Together(run=merged, origins=tuple(runs), notes=tuple(_notes(runs)))


def _renamed(runs: Sequence[Run]) -> list[Run]:
    """The runs with no model name twice among them."""
    counts = Counter(model for run in runs for model in run.config.models)
    renamed = []
    for run, label in zip(runs, labels([run.folder for run in runs]), strict=True):
        names = {m: f"{m} ({label})" if counts[m] > 1 else m for m in run.config.models}
        verdicts = tables.verdicts_of(run.told)
        renamed.append(
            replace(
                run,
                config=replace(run.config, models=list(names.values())),
                predictions=tuple(replace(p, model=names[p.model]) for p in run.predictions),
                results=tuple(replace(r, model=names[r.model]) for r in run.results),
                told={
                    **run.told,
                    "verdicts": {
                        task: {names[model]: told for model, told in models.items()}
                        for task, models in verdicts.items()
                    },
                },
            )
        )
    return renamed


def labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(path[-length:]) for path in parts]
        if len(set(ends)) == len(set(parts)):
            break
    return ends


def _apart(runs: Sequence[Run]) -> list[Run]:
    """The runs; an episode that an earlier one holds otherwise under the same id has another id."""
    known: dict[str, object] = {}
    apart = []
    for number, run in enumerate(runs, start=1):
        names = {}
        for episode in run.episodes:
            other = known.setdefault(episode.id, episode) != episode
            names[episode.id] = f"{episode.id} (run {number})" if other else episode.id
        apart.append(
            replace(
                run,
                episodes=tuple(replace(e, id=names[e.id]) for e in run.episodes),
                predictions=tuple(
                    replace(p, episode_id=names[p.episode_id]) for p in run.predictions
                ),
            )
        )
    return apart


def _told(parts: Sequence[Run]) -> Mapping[str, object]:
    verdicts: dict[str, dict[str, object]] = defaultdict(dict)
    for part in parts:
        for task, models in tables.verdicts_of(part.told).items():
            verdicts[task] |= models
    return {"verdicts": dict(verdicts)}


# ---------------------------------------------------------------- what sets runs apart


def _notes(runs: Sequence[Run]) -> Iterator[str]:
    digests: dict[tuple[str, str, int], list[str]] = defaultdict(list)
    for run in runs:
        asked = {(r.task, r.control, r.shots_per_class): r.episodes for r in run.results}
        for cell, digest in asked.items():
            digests[cell].append(digest)
    shared = {cell: found for cell, found in digests.items() if len(found) > 1}
    for task in dict.fromkeys(task for task, _, _ in shared):
        own = {cell: found for cell, found in shared.items() if cell[0] == task}
        other = [cell for cell, found in own.items() if len(set(found)) > 1 or "" in found]
        if other:
            where = "" if len(other) == len(own) else f" ({_cells(other)})"
            yield f"{task}{where}: not the same questions in all runs; don't compare their numbers."
    for name in ("template", "protocol", "ranking"):
        if any(getattr(run.config, name) != getattr(runs[0].config, name) for run in runs):
            yield f"The runs differ in {name}: the same questions, put or read in another way."


def _cells(cells: Sequence[tuple[str, str, int]]) -> str:
    """`plain at 1, 2 shots; blind at 1 shots`."""
    shots: dict[str, list[int]] = defaultdict(list)
    for _, control, k in cells:
        shots["plain" if control == PLAIN else control].append(k)
    return "; ".join(
        f"{control} at {', '.join(map(str, sorted(ks)))} shots" for control, ks in shots.items()
    )
