"""Zero-shot naming: what models call a concept's pictures, asked without support and labels.

What was said is kept as it was said, in naming.jsonl beside the dataset, a row a question: what it
names is read again each time. A row is found again by model, settings, wording and picture, so that
a killed run goes on and a rebuilt dataset pays for new pictures alone. Failures are asked again.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import ClassVar

from isekai import asking, files, progress, templates
from isekai.answers import read_answer, spelling
from isekai.dataset import Dataset
from isekai.errors import IsekaiError
from isekai.evidence.records import Named, Naming
from isekai.evidence.space import filled, others, part, pictures
from isekai.gates import wording
from isekai.protocols import Foretelling, ModelAdapter, Telling
from isekai.statistics import metrics
from isekai.templates import Template
from isekai.types import Concept, Episode, Estimate, Example, Group, Prediction, Sweep

FILE = "naming.jsonl"
QUESTION = "What is this? Answer with its name."
PICTURES = 8
"""Asked of each concept."""

KINDS = ("name", "parent", "both", "foil", "twin", "other")

_WORDING = Template(support_question=QUESTION, support_answer="{label}", query_question=QUESTION)
_SHOWN, _LENGTH = 3, 60
"""How many of the commonest answers are told, and how many characters of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer of a model: a row of naming.jsonl."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    model: str
    question: str
    """Concept, picture and a digest of model, settings and wording."""
    concept: str
    text: str
    finish: str | None = None
    error: str | None = None
    usage: Mapping[str, float] | None = None


# ---------------------------------------------------------------- what is asked


def questions(
    dataset: Dataset, model: str, adapter: ModelAdapter, *, count: int, seed: int
) -> list[Episode]:
    """One question a picture, of at most so many pictures of each concept, drawn by the seed."""
    asked = json.dumps(files.plain([model, adapter.provenance, QUESTION]), sort_keys=True)
    key = files.sha256(asked.encode())[:12]
    return [
        Episode(
            id=f"{concept.id}/{id[:16]}/{key}",
            task="naming",
            cluster=group.id,
            labels={concept.id: concept.id},  # kept from the model: see `fold`
            support=(),
            shots=(0,),
            queries=(Example(image_id=id, concept=concept.id),),
            seed=seed,
        )
        for group, concept in filled(dataset)
        for id in _drawn(pictures(dataset, concept.id), seed)[:count]
    ]


def _drawn(ids: Iterable[str], seed: int) -> list[str]:
    """In an order in which each picture has its own place, whatever others there are."""
    return sorted(ids, key=lambda id: blake2b(f"{seed}/{id}".encode()).digest())


def fold(episode: Episode, dataset: Dataset) -> Sweep:
    """The question with its picture, and neither label nor support."""
    return replace(templates.fold(episode, _WORDING, dataset.image), labels=())


def foretell(
    dataset: Dataset, adapter: ModelAdapter, episodes: Sequence[Episode]
) -> dict[str, float]:
    """How many `questions` these are and, where the adapter can tell, about what they take."""
    total: Counter[str] = Counter({"questions": len(episodes)})
    if isinstance(adapter, Foretelling):
        for episode in episodes:
            total.update(adapter.foretell(fold(episode, dataset)))
    return dict(total)


# ---------------------------------------------------------------- asking


def unasked(
    folder: Path, model: str, episodes: Sequence[Episode]
) -> tuple[list[Episode], dict[str, Said]]:
    """What is still to be asked, and the answers that are there, by question."""
    rows = files.read_jsonl(folder / FILE, Said)
    done = {row.question: row for row in rows if row.model == model and row.error is None}
    return [one for one in episodes if one.id not in done], done


def ask(
    dataset: Dataset, folder: Path, model: str, adapter: ModelAdapter, episodes: Sequence[Episode]
) -> Iterator[Said]:
    """Every question's answer, those that are there already first; new ones are kept at once.

    An IsekaiError of the adapter, such as that its money is spent, goes up; what was answered by
    then is kept.
    """
    todo, done = unasked(folder, model, episodes)
    yield from (done[one.id] for one in episodes if one.id in done)
    if not todo:
        return
    with (
        files.Journal(folder / FILE) as journal,
        progress.bar(len(episodes), len(episodes) - len(todo)) as advance,
    ):
        for episode, (said,) in asking.ask(
            model, adapter, todo, lambda one: fold(one, dataset), "sum"
        ):
            row = _row(model, episode, said)
            journal.append([row])
            told = f" · {adapter.status()}" if isinstance(adapter, Telling) else ""
            advance(what=model + told)
            yield row
    if isinstance(adapter, Telling):
        progress.tell(f"{model}: {adapter.status()}")


def _row(model: str, episode: Episode, said: Prediction) -> Said:
    return Said(
        model=model,
        question=episode.id,
        concept=episode.queries[0].concept,
        text=said.text,
        finish=said.finish,
        error=said.error,
        usage=said.usage,
    )


# ---------------------------------------------------------------- what an answer names


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Which of a concept's names an answer asserts."""

    words: Mapping[str, frozenset[str]]
    """A label as it may be written -> the names, as `spelling` has them, that it stands for."""

    @classmethod
    def of(cls, names: Iterable[str]) -> "Reader":
        """Each name, its plural in s, and two of them as one compound ("cactus-hedgehog")."""
        plain = sorted({spelling(name) for name in names} - {""})
        words = {name: frozenset([name]) for name in plain}
        for name in plain:
            words.setdefault(f"{name}s", frozenset([name]))
        for one in plain:
            for other in plain:
                if one != other:
                    words.setdefault(f"{one} {other}", frozenset([one, other]))
        return cls(words=words)

    def named(self, text: str) -> frozenset[str]:
        """The names that the text gives to the picture, by the rules of `read_answer`.

        If it doesn't decide for one label, each that it asserts when asked for alone counts, but
        for those that are only words of a longer one.
        """
        labels = list(self.words)
        one = read_answer(text, labels)
        found = [one] if one else [label for label in labels if read_answer(text, [label])]
        whole = [a for a in found if not any(a != b and f" {a} " in f" {b} " for b in found)]
        return frozenset(name for label in whole for name in self.words[label])


def kinds(group: Group, concept: Concept, text: str) -> frozenset[str]:
    """Of `KINDS`, under which an answer about the concept counts."""
    own = {spelling(concept.name)}
    parents = {spelling(name) for name in wording.parents(concept)} - {""}
    foils, twins = (
        {spelling(one.name) for one in others(group, concept, role)}
        if concept.role == "novel"
        else set()
        for role in ("foil", "novel")
    )
    named = Reader.of({*own, *parents, *foils, *twins}).named(text)
    found = {
        "name": bool(named & own),
        "parent": bool(named & parents),
        "both": len(parents) > 1 and named >= parents,
        "foil": bool(named & foils),
        "twin": bool(named & twins),
        "other": not named,
    }
    return frozenset(kind for kind, counts in found.items() if counts)


def summarise(dataset: Dataset, said: Sequence[Said], *, made: Mapping[str, object]) -> Naming:
    """Counts of the answers, by concept and by role."""
    by_concept: dict[str, list[Said]] = defaultdict(list)
    for row in said:
        by_concept[row.concept].append(row)
    concepts: dict[str, Named] = {}
    hits: dict[str, dict[str, list[tuple[str, bool]]]] = {}
    for group, concept in filled(dataset):
        rows = by_concept.get(concept.id, [])
        read = [(row.text, _read(group, concept, row)) for row in rows]
        told = [found for _, found in read if found]
        concepts[concept.id] = Named(
            shares={
                kind: part(sum(kind in one for one in told), len(told)) for kind in KINDS if told
            },
            answers=len(told),
            failed=len(rows) - len(told),
            said=_commonest(text for text, found in read if found),
        )
        of_role = hits.setdefault(concept.role, {kind: [] for kind in KINDS})
        for kind in KINDS:
            of_role[kind] += [(group.id, kind in one) for one in told]
    return Naming(made=made, concepts=concepts, overall=_overall(hits))


def _read(group: Group, concept: Concept, row: Said) -> frozenset[str]:
    """The kinds under which an answer counts; none if it failed.

    What was cut off before it named anything might still have, and has failed, too.
    """
    if row.error is not None:
        return frozenset()
    found = kinds(group, concept, row.text)
    return frozenset() if row.finish == "length" and "other" in found else found


def _overall(
    hits: Mapping[str, Mapping[str, list[tuple[str, bool]]]],
) -> dict[str, dict[str, Estimate]]:
    shares = {
        role: {kind: metrics.share(those) for kind, those in of_role.items()}
        for role, of_role in hits.items()
    }
    return {
        role: {kind: share for kind, share in own.items() if share} for role, own in shares.items()
    }


def _commonest(texts: Iterable[str]) -> dict[str, int]:
    count = Counter(" ".join(text.split())[:_LENGTH] for text in texts)
    return dict(sorted(count.items(), key=lambda one: (-one[1], one[0]))[:_SHOWN])


def usage(said: Sequence[Said]) -> dict[str, float]:
    """The sum of what these answers took."""
    total: Counter[str] = Counter()
    for row in said:
        total.update(row.usage or {})
    return dict(sorted(total.items()))


def refuse_silent(model: str, said: Sequence[Said]) -> None:
    """IsekaiError if no question got a word of answer: that is no evidence."""
    problems = Counter(row.error or "empty" for row in said if row.error or not row.text.strip())
    if said and problems.total() == len(said):
        raise IsekaiError(
            f"{model}: none of {len(said)} questions was answered "
            f"({problems.most_common(1)[0][0]}); naming takes a model that answers in words of its "
            "own, without labels to choose from"
        )
