"""The novelty step: adds evidence to a dataset that costs more than building it does.

Each kind is written as soon as it is there, and stays until it is measured anew: nearest names with
another embedder, what models call the pictures, nearest neighbours in a folder.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isekai import card, evidence, files, plugins, progress
from isekai.dataset import Dataset, manifest
from isekai.dedup import Limits
from isekai.embeddings import Embeddings
from isekai.errors import IsekaiError, PluginError, did_you_mean
from isekai.evidence import naming
from isekai.evidence import reference as references
from isekai.evidence import vocabulary as vocabularies
from isekai.evidence.records import Evidence
from isekai.evidence.space import Space
from isekai.evidence.vocabulary import Lexicon
from isekai.protocols import ModelAdapter, Probing
from isekai.types import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A model and the questions to it."""

    name: str
    adapter: ModelAdapter
    episodes: Sequence[Episode]


def run(
    dataset: Path,
    *,
    embedder: str = "",
    models: Sequence[str] = (),
    adapters: Sequence[ModelAdapter] = (),
    reference: Path | None = None,
    vocabulary: Path | None = None,
    options: Mapping[str, object] | None = None,
    pictures: int = naming.PICTURES,
    threshold: float | None = None,
    seed: int = 0,
    probe: bool = True,
) -> Path:
    """Measure what is asked for, put it into the dataset's novelty.json, and return that.

    `embedder` measures probes, style, diversity and, if it embeds texts, nearest names, in
    `vocabulary` or in ImageNet-22k; `reference` is searched with it, or with lite0, for pictures
    nearer than `threshold`. `models`, and `adapters` that are built, are shown at most so many
    `pictures` of each concept. An option goes to every one of embedder and models that has it.
    What is there of other kinds stays. The card is written again at the end.
    """
    words = vocabularies.read(vocabulary) if vocabulary else None
    root = root_of(Dataset.open(dataset).path)
    with files.lock(root), files.explained(root):  # as a build does
        found = Dataset.open(dataset)
        look, asked = _prepare(
            found, embedder, models, adapters, reference, words, options, pictures, seed
        )
        limit = _limit(found, look, threshold) if look and reference else None
        files.sweep_temporaries(found.path)
        card.withdraw(root)
        try:
            if look and (embedder or words):
                _add(found, evidence.measure(found, look, seed=seed, lexicon=words))
            if look and reference and limit:
                _add(found, _compared(found, look, reference, limit))
            for one in asked:
                _add(found, _named(found, one, probe=probe))
        finally:
            card.write(root)
    return found.path / evidence.FILE


def forecast(
    dataset: Path,
    *,
    embedder: str = "",
    models: Sequence[str] = (),
    adapters: Sequence[ModelAdapter] = (),
    reference: Path | None = None,
    vocabulary: Path | None = None,
    options: Mapping[str, object] | None = None,
    pictures: int = naming.PICTURES,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """What is still to be asked: model -> `questions` and, where it can tell, what they take."""
    words = vocabularies.read(vocabulary) if vocabulary else None
    found = Dataset.open(dataset)
    _, asked = _prepare(
        found, embedder, models, adapters, reference, words, options, pictures, seed
    )
    todo = [(one, naming.unasked(found.path, one.name, one.episodes)[0]) for one in asked]
    return {one.name: naming.foretell(found, one.adapter, rest) for one, rest in todo}


def words(told: Mapping[str, Mapping[str, float]]) -> str:
    """The forecast in sentences, a line a model."""
    lines = []
    for model, about in told.items():
        said = [f"{about['questions']:,.0f} questions to {model}"]
        if "prompt_tokens" in about:
            said.append(f"about {about['prompt_tokens']:,.0f} tokens in")
            said.append(f"{about.get('completion_tokens', 0):,.0f} out")
        if "cost" in about:
            said.append(f"about ${about['cost']:,.2f}")
        lines.append(", ".join(said))
    return "\n".join(lines)


def root_of(dataset: Path) -> Path:
    """The folder whose card tells of this dataset: the one around a dataset's own folder."""
    return dataset.parent if (dataset / "manifest.json").exists() else dataset


# ---------------------------------------------------------------- what is asked


def _prepare(
    found: Dataset,
    embedder: str,
    models: Sequence[str],
    adapters: Sequence[ModelAdapter],
    reference: Path | None,
    words: Lexicon | None,
    options: Mapping[str, object] | None,
    pictures: int,
    seed: int,
) -> tuple[Embeddings | None, list[Asked]]:
    """Everything built and drawn, before anything is measured or paid for."""
    if pictures < 1:
        raise IsekaiError(f"{pictures} pictures a concept; at least 1 is asked")
    look = embedder or ("lite0" if reference else "open_clip" if words else "")
    if not (look or models or adapters):
        raise IsekaiError("nothing to measure; give --embedder, --model or --reference")
    wanted: list[tuple[plugins.Seam, str]] = [("adapters", name) for name in dict.fromkeys(models)]
    wanted += [("embedders", look)] if look else []
    built = _build(wanted, options or {})
    known: dict[str, ModelAdapter] = {type(one).__name__.lower(): one for one in adapters}
    known |= {name: built["adapters", name] for seam, name in wanted if seam == "adapters"}
    asked = [
        Asked(
            name=name,
            adapter=adapter,
            episodes=naming.questions(found, name, adapter, count=pictures, seed=seed),
        )
        for name, adapter in known.items()
    ]
    return Embeddings(built["embedders", look]) if look else None, asked


def _build(
    wanted: Sequence[tuple[plugins.Seam, str]], options: Mapping[str, object]
) -> dict[tuple[plugins.Seam, str], Any]:
    """Each plugin, built with those of the options that it has."""
    known: set[str] = set()
    built = {}
    for seam, name in wanted:
        factory = plugins.load(seam, name.partition(":")[0])
        parameters = inspect.signature(factory).parameters
        known.update(parameters)
        own = {key: value for key, value in options.items() if key in parameters}
        built[seam, name] = plugins.build(seam, name, own)
    for key in options:
        if key not in known:
            raise PluginError(f"none of these has an option '{key}'{did_you_mean(key, known)}")
    return built


# ---------------------------------------------------------------- what is measured


def _add(found: Dataset, new: Evidence) -> None:
    there = evidence.read(found.path) if (found.path / evidence.FILE).exists() else None
    if there and there.dataset != found.fingerprint:
        progress.tell(f"{found.path / evidence.FILE}: told of other pictures, and is replaced")
    evidence.write(found.path, evidence.merged(there, new))


def _limit(found: Dataset, look: Embeddings, threshold: float | None) -> float:
    """The cosine of a copy: as given, as the build calibrated it, or as it is known of lite0."""
    settings = manifest(found.path).settings
    built, limits = settings.get("embedder"), settings.get("limits")
    if threshold is None and isinstance(limits, Mapping) and built == look.told:
        threshold = float(str(limits["cosine"]))
    if threshold is None and look.embedder.model == "efficientnet-lite0":
        threshold = Limits().cosine
    if threshold is None:
        raise IsekaiError(
            f"how near a copy is for {look.told['model']} is not known; give --threshold, such as "
            "the cosine that `isekai build --calibrate` picks with this embedder"
        )
    if not 0 < threshold <= 1:
        raise IsekaiError(
            f"a copy threshold of {threshold:g}; a cosine above 0 and at most 1 is meant"
        )
    return threshold


def _compared(found: Dataset, look: Embeddings, folder: Path, limit: float) -> Evidence:
    told = references.measure(Space.of(found, look), look, folder, threshold=limit)
    for path, why in told.left_out.items():
        progress.tell(f"{folder}/{path}: not looked at: {why}")
    return Evidence(dataset=found.fingerprint, reference=told)


def _named(found: Dataset, asked: Asked, *, probe: bool) -> Evidence:
    """What one model calls the pictures. Its answers are kept as they come; it is let go after."""
    adapter, name = asked.adapter, asked.name
    todo, _ = naming.unasked(found.path, name, asked.episodes)
    if todo and probe and isinstance(adapter, Probing):
        adapter.probe(naming.fold(todo[0], found))
    said = list(naming.ask(found, found.path, name, adapter, asked.episodes))
    naming.refuse_silent(name, said)
    made = {
        "adapter": adapter.provenance,
        "question": naming.QUESTION,
        "pictures": len({row.question for row in said}),
        "usage": naming.usage(said),
        "environment": files.environment("numpy", "scipy", "openai", "anthropic"),
    }
    told = naming.summarise(found, said, made=made)
    failed = sum(one.failed for one in told.concepts.values())
    progress.tell(f"{name}: {len(said)} questions, {failed} without an answer")
    return Evidence(dataset=found.fingerprint, naming={name: told})
