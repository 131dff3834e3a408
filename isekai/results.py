"""From predictions to results: scores them again, and counts them into the cells of a table."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import stdev

from isekai.episodes import digest
from isekai.errors import IsekaiError
from isekai.scoring import accuracy_lcl, outcome
from isekai.statistics import metrics
from isekai.types import Episode, Intervals, Outcome, Prediction, Ranking, Response, Result

Cell = tuple[str, str, str, int]
"""Task, model, control, shots."""


def score(
    predictions: Sequence[Prediction], episodes: Sequence[Episode], ranking: Ranking
) -> list[Prediction]:
    """The predictions with answer and outcome as they follow from what was said.

    For the ranking `prior`, the log-likelihoods of the same labels behind the same words without
    pictures are taken off, as the control `text` measured them. IsekaiError where it was not asked;
    where the model gave none, its answer is no answer: it has failed.
    """
    if ranking == "prior":
        refuse_without_prior(episodes)
    known = {episode.id: episode for episode in episodes}
    priors = _priors(predictions, known) if ranking == "prior" else {}
    scored = []
    for row in predictions:
        episode = known[row.episode_id]
        prior = None
        if ranking == "prior" and row.label_logprobs is not None and row.error is None:
            prior = priors[row.model, *_question(episode, row.shots, row.query)]
            if prior is None:
                scored.append(replace(row, answer=None, outcome="failed"))
                continue
        said = Response(
            text=row.text,
            label_logprobs=row.label_logprobs,
            label_tokens=row.label_tokens,
            finish=row.finish,
            error=row.error,
        )
        labels = tuple(episode.labels.values())
        answer, result = outcome(said, labels, row.target, ranking=ranking, prior=prior)
        scored.append(replace(row, answer=answer, outcome=result))
    return scored


def refuse_without_prior(episodes: Sequence[Episode]) -> None:
    """IsekaiError if a question has no counterpart without pictures, for the ranking `prior`."""
    there = {
        _question(episode, shots, query)
        for episode in episodes
        if _is_text(episode)
        for shots in episode.shots
        for query in range(len(episode.queries))
    }
    for episode in episodes:
        for shots in episode.shots:
            if _question(episode, shots, 0) not in there:
                alike = "text" if episode.control == "none" else f"{episode.control}+text"
                mend = f"ask the control '{alike}', too"
                if episode.control.startswith("select="):  # has no text: random labels come up
                    mend = "leave it out, or take another ranking"
                raise IsekaiError(
                    f"--ranking prior has no prior for '{episode.control}' at {shots} shots, the "
                    f"same words in the same order without pictures: {mend}"
                )


def _priors(
    predictions: Iterable[Prediction], known: Mapping[str, Episode]
) -> dict[tuple[object, ...], Mapping[str, float] | None]:
    return {
        (row.model, *_question(known[row.episode_id], row.shots, row.query)): row.label_logprobs
        for row in predictions
        if _is_text(known[row.episode_id])
    }


def _is_text(episode: Episode) -> bool:
    return episode.control.split("+")[-1] == "text"


def _question(episode: Episode, shots: int, query: int) -> tuple[object, ...]:
    """What a question and its prior have in common: the query, and all words in their order."""
    labels = episode.labels
    said = tuple(one.word or labels[one.concept] for one in episode.support[: len(labels) * shots])
    return episode.task, episode.seed, tuple(labels.values()), said, episode.queries[query].image_id


# ---------------------------------------------------------------- cells


def summarise(
    predictions: Sequence[Prediction],
    episodes: Sequence[Episode],
    models: Sequence[str],
    *,
    released_metric: bool = False,
    intervals: Intervals = "t",
) -> list[Result]:
    """A result for every task, model, control and shot count, in that order.

    `released_metric` adds `accuracy_lcl`, the metric of Link-Context Learning's released code.
    """
    known = {episode.id: episode for episode in episodes}
    cells: dict[Cell, list[Prediction]] = defaultdict(list)
    for row in predictions:
        episode = known[row.episode_id]
        cells[episode.task, row.model, episode.control, row.shots].append(row)
    order = {control: n for n, control in enumerate(dict.fromkeys(e.control for e in episodes))}
    tasks = {task: n for n, task in enumerate(dict.fromkeys(e.task for e in episodes))}

    def place(cell: Cell) -> tuple[int, int, int, int]:
        task, model, control, shots = cell
        return tasks[task], models.index(model), order[control], shots

    return [
        _result(cell, cells[cell], known, released_metric, intervals)
        for cell in sorted(cells, key=place)
    ]


def hits(
    predictions: Iterable[Prediction], episodes: Mapping[str, Episode]
) -> list[tuple[str, bool]]:
    """(cluster, correct) of every prediction that did not fail."""
    return [
        (episodes[row.episode_id].cluster, row.outcome == "correct")
        for row in predictions
        if row.outcome != "failed"
    ]


def _result(
    cell: Cell,
    rows: Sequence[Prediction],
    known: Mapping[str, Episode],
    released_metric: bool,
    intervals: Intervals,
) -> Result:
    task, model, control, shots = cell
    outcomes: list[tuple[str, Outcome]] = [
        (known[row.episode_id].cluster, row.outcome) for row in rows
    ]
    way = len(known[rows[0].episode_id].labels)
    measured = {
        "accuracy": metrics.accuracy(outcomes, intervals),
        "abstain": metrics.abstain_share(outcomes, intervals),
        "accuracy_lcl": metrics.measure(_released(rows, known), intervals)
        if released_metric and way == 2
        else None,
        "flips": metrics.measure(_flips(rows, known), intervals),
    }
    asked = sorted({digest(known[id], shots) for id in {row.episode_id for row in rows}})
    return Result(
        model=model,
        task=task,
        shots_per_class=shots,
        n_support_images=way * shots,
        metrics={name: value for name, value in measured.items() if value},
        outcomes=metrics.tally(outcomes),
        chance=1 / way,
        control=control,
        episodes=hashlib.sha256("".join(asked).encode()).hexdigest(),
        intervals=intervals,
        spread=_spread(rows, known),
    )


def _released(rows: Iterable[Prediction], known: Mapping[str, Episode]) -> list[tuple[str, bool]]:
    """Of answers in words alone: the released metric reads text, not log-likelihoods."""
    found = []
    for row in rows:
        if row.outcome == "failed" or row.label_logprobs is not None:
            continue
        episode = known[row.episode_id]
        right = accuracy_lcl(row.text, row.target, tuple(episode.labels.values()))
        if right is not None:
            found.append((episode.cluster, right))
    return found


def _takes(rows: Iterable[Prediction], known: Mapping[str, Episode]) -> dict[int, list[Prediction]]:
    """Order of the support set -> its predictions; empty unless there are several orders."""
    takes: dict[int, list[Prediction]] = defaultdict(list)
    for row in rows:
        if row.outcome != "failed":
            takes[known[row.episode_id].take].append(row)
    return takes if len(takes) > 1 else {}


def _spread(rows: Iterable[Prediction], known: Mapping[str, Episode]) -> float | None:
    shares = [metrics.share(hits(take, known)) for take in _takes(rows, known).values()]
    values = [share.value for share in shares if share]
    return stdev(values) if len(values) > 1 else None


def _flips(rows: Iterable[Prediction], known: Mapping[str, Episode]) -> list[tuple[str, bool]]:
    """Of each query, whether its answer is not the same behind all orders of the support set."""
    answers: dict[tuple[int, str], set[str | None]] = defaultdict(set)
    clusters = {}
    for take in _takes(rows, known).values():
        for row in take:
            episode = known[row.episode_id]
            answers[episode.seed, row.image_id].add(row.answer)
            clusters[episode.seed, row.image_id] = episode.cluster
    return [(clusters[key], len(said) > 1) for key, said in answers.items()]
