"""The bench step: shows episodes to models and keeps what they said, in the folder of a run."""

import inspect
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from isekai import files, plugins, progress, runs, templates
from isekai.dataset import Dataset
from isekai.errors import IsekaiError, PluginError, did_you_mean
from isekai.protocols import ModelAdapter, Task
from isekai.scoring import malformed, outcome
from isekai.templates import Template
from isekai.types import Episode, LabelWords, Prediction, Response, Sweep


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
    names = list(dict.fromkeys(model for model in models if isinstance(model, str)))
    models = [*(model for model in models if not isinstance(model, str)), *names]
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
    runs.refuse_foreign(out)
    adapters = _build(models, options or {})
    config = runs.Config(
        dataset=dataset.fingerprint,
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
        if runs.settle(out, config, drawn, force=force):
            progress.tell(f"{out}: complete, nothing to do")
            return out
        wall = _evaluate(out, adapters, drawn, dataset, wording)
        where = {"name": dataset.name, "path": dataset.path}
        runs.conclude(out, config, drawn, dataset=where, wall=wall)
    return out


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
        if model in built:
            raise PluginError(f"two of the models are called '{model}'")
        built[model] = plugins.build("adapters", model, own)
    for key in options:
        if len(models) > 1 and key not in known:
            raise PluginError(
                f"none of these models has an option '{key}'{did_you_mean(key, known)}"
            )
    return built


# ---------------------------------------------------------------- asking


def _evaluate(
    out: Path,
    adapters: dict[str, ModelAdapter],
    episodes: Sequence[Episode],
    dataset: Dataset,
    wording: Template,
) -> Mapping[str, object]:
    """Ask every model what it hasn't answered yet; predictions.jsonl ends complete and in order.

    An adapter is let go when its turn is over, so that models need not fit into memory together.
    """
    path = out / "predictions.jsonl"
    done = runs.answered(out, adapters, episodes)
    files.write_jsonl(path, [row for rows in done.values() for row in rows])
    seconds: dict[str, float] = {}
    asked: dict[str, int] = {}
    names = list(adapters)
    with files.Journal(path) as journal, progress.bar(len(names) * len(episodes)) as advance:
        for name in names:
            adapter, started = adapters.pop(name), time.monotonic()
            asked[name] = 0
            for episode in episodes:
                if (name, episode.id) not in done:
                    sweep = templates.fold(episode, wording, dataset.image)
                    rows = predict(name, adapter, episode, sweep)
                    journal.append(rows)
                    done[name, episode.id] = rows
                    asked[name] += len(rows)
                advance(what=name)
            seconds[name] = round(time.monotonic() - started, 3)
    in_order = [done[name, episode.id] for name in names for episode in episodes]
    files.write_jsonl(path, [row for rows in in_order for row in rows])
    return {"seconds": seconds, "predictions": asked}


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
