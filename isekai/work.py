"""A run before it asks anything: its setup checked, its episodes drawn, its models built."""

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from isekai import asking, paper, plugins, results, runs, templates, variants
from isekai import dataset as datasets
from isekai.dataset import Dataset
from isekai.embeddings import Embeddings
from isekai.errors import IsekaiError, PluginError, did_you_mean
from isekai.protocols import ModelAdapter, Task
from isekai.setup import Setup, resolve
from isekai.types import Episode, Protocol, Sweep


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
        intervals=setup.intervals,
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
        for task in dict.fromkeys(episode.task for episode in drawn):
            own = [episode for episode in drawn if episode.task == task]
            plain += own if setup.limit is None else _spread(own, setup.limit)
    _refuse_twice(plain)
    episodes = _asked(plain, setup.protocol)
    for variant in changes:
        made = [one for episode in plain for one in variant.of(episode)]
        if not made:
            raise IsekaiError(
                f"control '{variant.name}' leaves nothing to ask at --shots "
                f"{','.join(map(str, setup.shots))}"
            )
        episodes += made if variant.ordered else _asked(made, setup.protocol)
    return episodes


def _refuse_twice(episodes: Sequence[Episode]) -> None:
    """An answer must not count as two."""
    counts = Counter(episode.id for episode in episodes)
    twice = {episode.task for episode in episodes if counts[episode.id] > 1}
    if twice:
        raise IsekaiError(
            f"the episodes of the task {', '.join(sorted(twice))} are asked for twice; 'published' "
            "holds those of twin, foil and pair: take it or these"
        )


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


def pictures(episode: Episode) -> int:
    """How many support pictures are shown at most."""
    return sum(example.shown != "nothing" for example in episode.support)
