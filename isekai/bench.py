"""The bench step: shows episodes to models, keeps what they said, and turns it into results.

A run is a folder: config.json (what was asked for, as resolved), episodes.jsonl (complete before
the first model is asked), predictions.jsonl (grows by whole episodes), then results.json, table.md,
curve.png, curve.svg and, last, manifest.json.
"""

import inspect
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol

from isekai import files, metrics, plugins, report, templates
from isekai.dataset import Dataset
from isekai.errors import DataError, IsekaiError, PluginError, did_you_mean
from isekai.files import read_json, read_jsonl
from isekai.protocols import ModelAdapter, Task
from isekai.scoring import malformed, outcome
from isekai.templates import Template
from isekai.types import Episode, LabelWords, Prediction, Response, Result, Sweep

OUTPUTS = ("results.json", "table.md", "curve.png", "curve.svg")
FILES = ("config.json", "episodes.jsonl", "predictions.jsonl", *OUTPUTS, "manifest.json")

_PACKAGES = ("numpy", "scipy", "pyarrow", "pillow", "torch", "timm", "scikit-learn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All that the predictions of a run depend on: config.json. Equal configs, equal bytes."""

    dataset: Mapping[str, str]
    """Its name and fingerprint; where it lies does not matter."""
    models: Sequence[str]
    adapters: Mapping[str, Mapping[str, object]]
    """Model -> its adapter's provenance."""
    tasks: Sequence[str]
    shots: Sequence[int]
    episodes: int
    queries: int
    labels: LabelWords
    template: Template
    seed: int


@dataclass(slots=True)
class _Clock:
    """What this process did, as opposed to the runs that it goes on from."""

    seconds: dict[str, float] = field(default_factory=dict)
    predictions: dict[str, int] = field(default_factory=dict)


def run(
    *,
    models: Sequence[str | ModelAdapter],
    tasks: Sequence[str],
    shots: Sequence[int],
    data: Path,
    out: Path,
    episodes: int = 4,
    queries: int = 4,
    labels: LabelWords = "fantasy",
    seed: int = 0,
    options: Mapping[str, object] | None = None,
    template: str = "plain",
    force: bool = False,
) -> Path:
    """Measure `models` on `tasks` and return `out`, the folder of the run.

    `models` are names, also `name:argument`, built with those of the `options` that they have; or
    adapters that are built. `shots` are support images a label, `episodes` are those of each unit
    of a task (a group, a concept, a pair), `queries` those of each label of an episode. Everything
    is checked before a model is asked. A run of the same config goes on where it stopped, and asks
    again what failed; one of another config is refused, unless `force` removes it.
    """
    models = list(dict.fromkeys(models))
    tasks = list(dict.fromkeys(tasks))
    shots = sorted(set(shots))
    _refuse_numbers(models, tasks, shots, episodes, queries)
    families: list[Task] = [plugins.load("tasks", task) for task in tasks]
    wording = templates.read(template)
    dataset = Dataset.open(data)
    drawn = [
        episode
        for family in families
        for episode in family(
            dataset, shots=shots, queries=queries, episodes=episodes, labels=labels, seed=seed
        )
    ]
    _refuse_foreign(out)
    adapters = _build(models, options or {})
    config = Config(
        dataset={"name": dataset.name, "fingerprint": dataset.fingerprint},
        models=list(adapters),
        adapters={name: adapter.provenance for name, adapter in adapters.items()},
        tasks=tasks,
        shots=shots,
        episodes=episodes,
        queries=queries,
        labels=labels,
        template=wording,
        seed=seed,
    )
    with files.lock(out), files.explained(out):
        files.sweep_temporaries(out)
        if _settle(out, config, drawn, force=force):
            _tell(f"{out}: complete, nothing to do")
            return out
        clock = _evaluate(out, adapters, drawn, dataset, wording)
        _conclude(out, config, drawn, dataset, clock)
    return out


def results(out: Path) -> list[Result]:
    """The results of a run that is complete."""
    found = read_json(out / "results.json", dict[str, object])
    return files.parse(list[Result], found.get("results"), str(out / "results.json"))


def shot_counts(text: str) -> list[int]:
    """`0,1,2,4` as numbers."""
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise IsekaiError(f"--shots is '{text}'; it takes numbers with commas: 0,1,2,4") from None


# ---------------------------------------------------------------- before a model is asked


def _refuse_numbers(
    models: Sequence[object],
    tasks: Sequence[str],
    shots: Sequence[int],
    episodes: int,
    queries: int,
) -> None:
    if not models or not tasks or not shots:
        raise IsekaiError("a run takes at least one model, one task and one number of shots")
    if shots[0] < 0:
        raise IsekaiError(f"{shots[0]} shots; 0 is the least")
    if episodes < 1 or queries < 1:
        raise IsekaiError(f"{episodes} episodes and {queries} queries; at least 1 each is needed")


def _build(
    models: Sequence[str | ModelAdapter], options: Mapping[str, object]
) -> dict[str, ModelAdapter]:
    """Each model's adapter by name. An option goes to every model that has it."""
    built: dict[str, ModelAdapter] = {}
    known: set[str] = set()
    for model in models:
        if not isinstance(model, str):
            name = type(model).__name__.lower()
            if name in built:
                raise PluginError(f"two of the models are called '{name}'")
            built[name] = model
            continue
        own = options
        if len(models) > 1:
            factory = plugins.load("adapters", model.partition(":")[0])
            parameters = inspect.signature(factory).parameters
            known.update(parameters)
            own = {key: value for key, value in options.items() if key in parameters}
        built[model] = plugins.build("adapters", model, own)
    for key in options:
        if len(models) > 1 and key not in known:
            raise PluginError(
                f"none of these models has an option '{key}'{did_you_mean(key, known)}"
            )
    return built


def _refuse_foreign(out: Path) -> None:
    """Never write among files that are not a run's."""
    with files.explained(out):
        if not out.is_dir() or (out / "config.json").exists():
            return
        others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
    if others:
        raise DataError(
            f"{out}: holds '{others[0]}' but no config.json of a run; give --out a new or empty "
            "folder"
        )


def _settle(out: Path, config: Config, episodes: Sequence[Episode], *, force: bool) -> bool:
    """Make `out` the folder of this very run; True if the run is there and complete."""
    path = out / "config.json"
    if force:
        for name in reversed(FILES):
            (out / name).unlink(missing_ok=True)
    if path.exists():
        different = _difference(read_json(path, dict[str, object]), files.plain(config))
        if different:
            raise DataError(
                f"{out}: holds another run: {different}; choose another --out, or --force to start "
                "over"
            )
        saved = out / "episodes.jsonl"
        if saved.exists() and read_jsonl(saved, Episode) != list(episodes):
            raise DataError(
                f"{saved}: another version drew these episodes for the same config; choose another "
                "--out, or --force to start over"
            )
    else:
        files.write_json(path, config)
    files.write_jsonl(out / "episodes.jsonl", episodes)
    if not all((out / name).exists() for name in FILES):
        return False
    failed: object = read_json(out / "manifest.json", dict[str, object]).get("failed")
    return failed == 0


def _difference(there: object, here: object, key: str = "its config") -> str:
    """The first setting in which two configs differ, with both values; empty if none does."""
    if isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            path = name if key == "its config" else f"{key}.{name}"
            if found := _difference(there.get(name), here.get(name), path):
                return found
        return ""
    return f"{key} is {there!r} there and {here!r} here" if there != here else ""


# ---------------------------------------------------------------- asking


def _evaluate(
    out: Path,
    adapters: dict[str, ModelAdapter],
    episodes: Sequence[Episode],
    dataset: Dataset,
    wording: Template,
) -> _Clock:
    """Ask every model what it hasn't answered yet; predictions.jsonl ends complete and in order.

    An adapter is let go when its turn is over, so that models need not fit into memory together.
    """
    path = out / "predictions.jsonl"
    done = _answered(read_jsonl(path, Prediction), adapters, episodes)
    files.write_jsonl(path, [row for rows in done.values() for row in rows])
    clock = _Clock()
    names = list(adapters)
    with files.Journal(path) as journal, _progress(len(names) * len(episodes)) as advance:
        for name in names:
            adapter, started = adapters.pop(name), time.monotonic()
            clock.predictions[name] = 0
            for episode in episodes:
                if (name, episode.id) not in done:
                    sweep = templates.fold(episode, wording, dataset.image)
                    rows = predict(name, adapter, episode, sweep)
                    journal.append(rows)
                    done[name, episode.id] = rows
                    clock.predictions[name] += len(rows)
                advance(name)
            clock.seconds[name] = round(time.monotonic() - started, 3)
    in_order = [done[name, episode.id] for name in names for episode in episodes]
    files.write_jsonl(path, [row for rows in in_order for row in rows])
    return clock


def _answered(
    predictions: Sequence[Prediction], models: Mapping[str, object], episodes: Sequence[Episode]
) -> dict[tuple[str, str], list[Prediction]]:
    """The complete answers to an episode that are there; what failed is asked again."""
    found: dict[tuple[str, str], list[Prediction]] = {}
    for row in predictions:
        found.setdefault((row.model, row.episode_id), []).append(row)
    expected = {
        episode.id: [(shots, q) for shots in episode.shots for q in range(len(episode.queries))]
        for episode in episodes
    }
    return {
        (model, id): rows
        for (model, id), rows in found.items()
        if model in models
        and [(row.shots, row.query) for row in rows] == expected.get(id)
        and all(row.outcome != "failed" for row in rows)
    }


def predict(model: str, adapter: ModelAdapter, episode: Episode, sweep: Sweep) -> list[Prediction]:
    """Put one episode to a model and score what it says: a prediction a shot count and query.

    An exception of the adapter makes the predictions that it left out fail, with its reason; an
    IsekaiError is for the user to mend and goes up. Too many or too few responses all fail: whose
    they are cannot be known.
    """
    asked = [(shots, query) for shots in episode.shots for query in range(len(episode.queries))]
    said: list[Prediction] = []
    problem = ""
    try:
        for response in islice(adapter.respond(sweep), len(asked) + 1):
            place = asked[min(len(said), len(asked) - 1)]
            said.append(_prediction(model, episode, sweep, place, response))
    except IsekaiError:
        raise
    except Exception as error:  # one broken episode must not end a run
        problem = f"{type(error).__name__}: {error}"
    if not problem and len(said) != len(asked):
        count = len(said) if len(said) < len(asked) else "more"
        problem = f"{count} responses to {len(asked)} questions"
        said = []
    for place in asked[len(said) :]:
        failure = Response(text="", error=problem)
        said.append(_prediction(model, episode, sweep, place, failure))
    return said[: len(asked)]


def _prediction(
    model: str, episode: Episode, sweep: Sweep, place: tuple[int, int], response: Response
) -> Prediction:
    shots, query = place
    target = episode.labels[episode.queries[query].concept]
    scores, error = response.label_logprobs, response.error or malformed(response, sweep.labels)
    response = Response(
        text=response.text.encode(errors="replace").decode(),  # half a surrogate pair has no bytes
        label_logprobs={k: float(v) for k, v in scores.items()} if scores and not error else None,
        usage={k: float(v) for k, v in response.usage.items()} if response.usage else None,
        error=error,
    )
    answer, result = outcome(response, sweep.labels, target)
    return Prediction(
        model=model,
        episode_id=episode.id,
        shots=shots,
        query=query,
        target=target,
        answer=answer,
        outcome=result,
        text=response.text,
        label_logprobs=response.label_logprobs,
        usage=response.usage,
        error=error,
    )


# ---------------------------------------------------------------- after the last answer


def summarise(
    predictions: Sequence[Prediction], episodes: Sequence[Episode], models: Sequence[str]
) -> list[Result]:
    """A result for every task, model and shot count, in that order."""
    known = {episode.id: episode for episode in episodes}
    asked: dict[tuple[str, str, int], list[Prediction]] = {}
    for row in predictions:
        asked.setdefault((known[row.episode_id].task, row.model, row.shots), []).append(row)
    found = []
    for task in dict.fromkeys(episode.task for episode in episodes):
        way = len(next(episode for episode in episodes if episode.task == task).labels)
        for model in models:
            for shots in sorted({k for t, m, k in asked if (t, m) == (task, model)}):
                rows = asked[task, model, shots]
                outcomes = [(known[row.episode_id].cluster, row.outcome) for row in rows]
                measured = {
                    "accuracy": metrics.accuracy(outcomes),
                    "abstain": metrics.abstain_share(outcomes),
                }
                found.append(
                    Result(
                        model=model,
                        task=task,
                        shots_per_class=shots,
                        n_support_images=way * shots,
                        metrics={name: value for name, value in measured.items() if value},
                        outcomes=metrics.tally(outcomes),
                        chance=1 / way,
                    )
                )
    return found


def _conclude(
    out: Path, config: Config, episodes: Sequence[Episode], dataset: Dataset, clock: _Clock
) -> None:
    """Write the results, then the table and the curves, then the manifest."""
    from isekai import plots  # half a second that a refused command need not wait for

    predictions = read_jsonl(out / "predictions.jsonl", Prediction)
    cells = summarise(predictions, episodes, config.models)
    reasons = Counter(f"{row.model}: {row.error}" for row in predictions if row.error)
    hashes = {
        name: files.sha256((out / name).read_bytes())
        for name in ("config.json", "episodes.jsonl", "predictions.jsonl")
    }
    files.write_json(
        out / "results.json",
        {
            "results": cells,
            "failures": dict(sorted(reasons.items())),
            "provenance": {
                "dataset": {**config.dataset, "path": dataset.path},
                "adapters": config.adapters,
                "seed": config.seed,
                "environment": files.environment(*_PACKAGES),
            },
            "wall": {"seconds": clock.seconds, "predictions": clock.predictions},
        },
    )
    files.write_text(out / "table.md", report.markdown(cells))
    for suffix, drawn in plots.curves(cells).items():
        files.write_bytes(out / f"curve.{suffix}", drawn)
    files.write_json(
        out / "manifest.json",
        {
            "kind": "run",
            "complete": True,
            "episodes": len(episodes),
            "predictions": len(predictions),
            "failed": sum(row.outcome == "failed" for row in predictions),
            "sha256": hashes,
        },
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Advance(Protocol):
    def __call__(self, model: str) -> None: ...


@contextmanager
def _progress(total: int) -> Iterator[_Advance]:
    """A bar of episodes with the model at work and the time left; nothing off a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda model: None
        return
    model_at_work = TextColumn("{task.description}")
    columns = (model_at_work, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda model: bar.update(task, advance=1, description=model)
