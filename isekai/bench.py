"""The bench step: shows episodes to models and keeps what they said, in the folder of a run."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from isekai import asking, files, progress, recording
from isekai.protocols import Informed, ModelAdapter, Probing, Telling
from isekai.setup import Setup
from isekai.types import Episode, Prediction
from isekai.work import Work, pictures, prepare


def run(
    setup: Setup, *, out: Path, adapters: Sequence[ModelAdapter] = (), force: bool = False
) -> Path:
    """Measure the models of `setup`, and `adapters` that are built; return `out`, the run's folder.

    Everything is checked before a model is asked. A run of the same setup goes on where it stopped,
    and asks again what failed; one of another setup is refused, unless `force` removes it.
    """
    work = prepare(setup, adapters)
    recording.refuse_foreign(out)
    with files.lock(out), files.explained(out):
        files.sweep_temporaries(out)
        if recording.settle(out, work.config, work.episodes, force=force):
            progress.tell(f"{out}: complete, nothing to do")
            return out
        wall = _evaluate(out, work)
        where = {"name": work.dataset.name, "path": setup.data}
        recording.conclude(
            out,
            work.config,
            work.episodes,
            files.read_jsonl(out / "predictions.jsonl", Prediction),
            provenance=recording.provenance(work.config, where),
            wall=wall,
        )
    return out


# ---------------------------------------------------------------- asking


def _evaluate(out: Path, work: Work) -> Mapping[str, object]:
    """Ask every model what it hasn't answered yet; predictions.jsonl ends complete and in order.

    An adapter is let go when its turn is over, so that models need not fit into memory together.
    """
    path = out / "predictions.jsonl"
    done = recording.answered(out, work.adapters, work.episodes)
    files.write_jsonl(path, [row for rows in done.values() for row in rows])
    seconds: dict[str, float] = {}
    asked: dict[str, int] = {}
    names = list(work.adapters)
    total, there = len(names) * len(work.episodes), len(done)
    with files.Journal(path) as journal, progress.bar(total, there) as advance:
        for name in names:
            adapter, started = work.adapters.pop(name), time.monotonic()
            asked[name] = 0
            todo = [episode for episode in work.episodes if (name, episode.id) not in done]
            _introduce(adapter, work, todo)
            for episode, rows in asking.ask(name, adapter, todo, work.fold, work.config.ranking):
                journal.append(rows)
                done[name, episode.id] = rows
                asked[name] += len(rows)
                told = f" · {adapter.status()}" if isinstance(adapter, Telling) else ""
                advance(what=name + told)
            if asked[name] and isinstance(adapter, Telling):
                progress.tell(f"{name}: {adapter.status()}")
            seconds[name] = round(time.monotonic() - started, 3)
    in_order = [done[name, episode.id] for name in names for episode in work.episodes]
    files.write_jsonl(path, [row for rows in in_order for row in rows])
    return {"seconds": seconds, "predictions": asked}


def _introduce(adapter: ModelAdapter, work: Work, todo: Sequence[Episode]) -> None:
    """What an adapter is told or tries before its first sweep."""
    if isinstance(adapter, Informed):
        shown = work.dataset
        adapter.inform({entry.image_id: shown.concept(entry.concept) for entry in shown.entries})
    if todo and work.probe and isinstance(adapter, Probing):
        adapter.probe(work.fold(max(todo, key=pictures)))
