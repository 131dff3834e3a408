"""The bench step: shows episodes to models and keeps what they said, in the folder of a run."""

import inspect
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from isekai import (
    asking,
    files,
    paper,
    plugins,
    progress,
    results,
    runs,
    templates,
    variants,
)
from isekai import dataset as datasets
from isekai.dataset import Dataset
from isekai.embeddings import Embeddings
from isekai.errors import IsekaiError, PluginError, did_you_mean
from isekai.protocols import Foretelling, Informed, ModelAdapter, Probing, Task, Telling
from isekai.setup import Setup, resolve
from isekai.types import Episode, Prediction, Protocol, Sweep


def run(
    setup: Setup, *, out: Path, adapters: Sequence[ModelAdapter] = (), force: bool = False
) -> Path:
    """Measure the models of `setup`, and `adapters` that are built; return `out`, the run's folder.

    Everything is checked before a model is asked. A run of the same setup goes on where it stopped,
    and asks again what failed; one of another setup is refused, unless `force` removes it.
    """
    work = prepare(setup, adapters)
    runs.refuse_foreign(out)
    with files.lock(out), files.explained(out):
        files.sweep_temporaries(out)
        if runs.settle(out, work.config, work.episodes, force=force):
            progress.tell(f"{out}: complete, nothing to do")
            return out
        wall = _evaluate(out, work)
        where = {"name": work.dataset.name, "path": setup.data}
        runs.conclude(
            out,
            work.config,
            work.episodes,
            files.read_jsonl(out / "predictions.jsonl", Prediction),
            provenance=runs.provenance(work.config, where),
            wall=wall,
        )
    return out


# ---------------------------------------------------------------- before a model is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A run that was checked and drawn, and asks nothing yet."""

    config: runs.Config
    dataset: Dataset
    episodes: Sequence[Episode]
    adapters: dict[str, ModelAdapter]
    fold: asking.Fold
    probe: bool


def prepare(setup: Setup, adapters: Sequence[ModelAdapter] = ()) -> Work:
    """Check a setup whole, draw its episodes and build its models."""
    setup = resolve(setup)
    models = list(dict.fromkeys(setup.models))
    tasks = list(dict.fromkeys(setup.tasks))
    if not (models or adapters) or not tasks:
        raise IsekaiError("a run takes at least one model and one task")
    families: list[Task] = [plugins.load("tasks", task) for task in tasks]
    wording = templates.read(setup.template)
    dataset = datasets.load(setup.data)
    changes = variants.controls(setup.controls, dataset)
    embedder: Mapping[str, object] = {}
    if setup.select:
        look = Embeddings(plugins.build("embedders", setup.embedder))
        embedder = {"model": look.embedder.model, "revision": look.embedder.revision}
        changes += variants.selections(setup.select, dataset, look)
    episodes = _draw(setup, families, dataset, changes)
    if setup.ranking == "prior":
        results.refuse_without_prior(episodes)
    built = _build([*adapters, *models], setup.options)
    config = runs.Config(
        dataset=dataset.fingerprint,
        models=list(built),
        adapters={name: adapter.provenance for name, adapter in built.items()},
        tasks=tasks,
        protocol=setup.protocol,
        shots=setup.shots,
        episodes=setup.episodes,
        queries=setup.queries,
        labels=setup.labels or "fantasy",
        controls=setup.controls,
        selections=setup.select,
        embedder=embedder,
        template=wording,
        seeds=setup.seeds,
        limit=setup.limit,
        ranking=setup.ranking,
    )
    return Work(
        config=config,
        dataset=dataset,
        episodes=episodes,
        adapters=built,
        fold=partial(_fold, wording=wording, dataset=dataset),
        probe=setup.probe,
    )


def _draw(
    setup: Setup,
    families: Sequence[Task],
    dataset: Dataset,
    changes: Sequence[variants.Variant],
) -> list[Episode]:
    """The plain episodes of all tasks and seeds, then each control of all of them."""
    plain: list[Episode] = []
    for family in families:
        drawn = [
            episode
            for seed in setup.seeds
            for episode in family(
                dataset,
                shots=setup.shots,
                queries=setup.queries,
                episodes=setup.episodes,
                labels=setup.labels or "fantasy",
                seed=seed,
            )
        ]
        plain += drawn if setup.limit is None else _spread(drawn, setup.limit)
    episodes = _asked(plain, setup.protocol)
    for variant in changes:
        made = [one for episode in plain for one in variant.of(episode)]
        episodes += made if variant.ordered else _asked(made, setup.protocol)
    return episodes


def _asked(episodes: Sequence[Episode], protocol: Protocol) -> list[Episode]:
    """The episodes as the protocol asks them."""
    if protocol == "paper":
        return [question for episode in episodes for question in paper.questions(episode)]
    return list(episodes)


def _spread(episodes: Sequence[Episode], limit: int) -> list[Episode]:
    """At most `limit` episodes: the first of each cluster, then the second, in the order given."""
    seen: Counter[str] = Counter()
    ranked = []
    for place, episode in enumerate(episodes):
        ranked.append((seen[episode.cluster], place))
        seen[episode.cluster] += 1
    return [episodes[place] for _, place in sorted(sorted(ranked)[:limit], key=lambda r: r[1])]


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


def _fold(episode: Episode, *, wording: templates.Template, dataset: Dataset) -> Sweep:
    return templates.fold(episode, wording, dataset.image)


# ---------------------------------------------------------------- asking


def _evaluate(out: Path, work: Work) -> Mapping[str, object]:
    """Ask every model what it hasn't answered yet; predictions.jsonl ends complete and in order.

    An adapter is let go when its turn is over, so that models need not fit into memory together.
    """
    path = out / "predictions.jsonl"
    done = runs.answered(out, work.adapters, work.episodes)
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
        adapter.probe(work.fold(max(todo, key=_pictures)))


def _pictures(episode: Episode) -> int:
    return sum(example.shown != "nothing" for example in episode.support)


# ---------------------------------------------------------------- asking nothing


def preview(setup: Setup, adapters: Sequence[ModelAdapter] = ()) -> dict[str, object]:
    """What a run would ask, and about what it would take: for `--dry-run`."""
    work = prepare(setup, adapters)
    counts = Counter((episode.task, episode.control) for episode in work.episodes)
    questions = sum(len(episode.shots) * len(episode.queries) for episode in work.episodes)
    return {
        "tasks": [
            {"task": task, "control": control, "episodes": count}
            for (task, control), count in counts.items()
        ],
        "episodes": len(work.episodes),
        "clusters": len({episode.cluster for episode in work.episodes}),
        "predictions": dict.fromkeys(work.adapters, questions),
        "pictures": len({one.image_id for e in work.episodes for one in (*e.support, *e.queries)}),
        "most_pictures_at_once": max(_pictures(episode) + 1 for episode in work.episodes),
        "about": {
            name: _foretold(adapter, work)
            for name, adapter in work.adapters.items()
            if isinstance(adapter, Foretelling)
        },
    }


def preview_words(told: Mapping[str, Any]) -> str:
    """The preview in sentences."""
    lines = [
        f"{row['episodes']:>7,} episodes  {row['task']}"
        + ("" if row["control"] == variants.PLAIN else f", {row['control']}")
        for row in told["tasks"]
    ]
    lines += [
        f"{told['episodes']:>7,} episodes in all, of {told['clusters']} clusters, with "
        f"{told['pictures']:,} pictures; at most {told['most_pictures_at_once']} at once"
    ]
    for model, questions in told["predictions"].items():
        about = told["about"].get(model, {})
        words = [f"{questions:,} questions to {model}"]
        if "prompt_tokens" in about:
            words.append(f"about {about['prompt_tokens']:,.0f} tokens in")
            words.append(f"{about.get('completion_tokens', 0):,.0f} out")
        if "cost" in about:
            words.append(f"about ${about['cost']:,.2f}, less what a prefix cache saves")
        elif about:
            words.append("no prices given, so no cost is known")
        lines.append(", ".join(words))
    return "\n".join(lines)


def _foretold(adapter: Foretelling, work: Work) -> dict[str, float]:
    total: Counter[str] = Counter()
    for episode in work.episodes:
        total.update(adapter.foretell(work.fold(episode)))
    return dict(total)
