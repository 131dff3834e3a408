"""Every question that a model got wrong, with its pictures: the data behind the HTML report."""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from isekai.images import UnreadableImage, decode
from isekai.reports.headings import line, visible
from isekai.runs import Run
from isekai.types import Episode, Example, Outcome, Prediction

Key = tuple[str, int, int]
"""Episode id, shots and query: what is one question, whoever was asked."""

_SHOWN = {"picture": 0, "grey": 1, "nothing": 2}
_QUERY, _SUPPORT = 160, 104
"""Pixels of the longer side at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistakes:
    """Questions that some model did not get right."""

    data: Mapping[str, object]
    """What `_templates/page.js` reads: tables, and rows that point into them by position."""
    questions: int
    """How many there are; `data` holds `shown` of them."""
    shown: int
    outcomes: Mapping[Outcome, int]
    """How the answers to all of them came out, right ones left out."""


def collect(run: Run, images: Callable[[str], bytes], *, most: int) -> Mistakes:
    """At most `most` questions, spread evenly over tasks, controls and shot counts."""
    asked: dict[Key, list[Prediction]] = {}
    for row in run.predictions:
        asked.setdefault((row.episode_id, row.shots, row.query), []).append(row)
    missed = {key: rows for key, rows in asked.items() if any(r.outcome != "correct" for r in rows)}
    known = {episode.id: episode for episode in run.episodes}
    kept = _spread(missed, known, most)
    counts = Counter(row.outcome for rows in missed.values() for row in rows)
    return Mistakes(
        data=_Data(known, images).of({key: missed[key] for key in kept}),
        questions=len(missed),
        shown=len(kept),
        outcomes={name: counts[name] for name in ("wrong", "abstain", "failed") if counts[name]},
    )


def _spread(keys: Iterable[Key], known: Mapping[str, Episode], most: int) -> list[Key]:
    """The first of each cell of the table, then the second, in the order given."""
    seen: Counter[tuple[str, str, int]] = Counter()
    ranked = []
    for place, (id, shots, query) in enumerate(keys):
        cell = (known[id].task, known[id].control, shots)
        ranked.append((seen[cell], place, (id, shots, query)))
        seen[cell] += 1
    return [key for _, _, key in sorted(sorted(ranked)[:most], key=lambda one: one[1])]


class _Data:
    """Tables that grow while questions are written down."""

    def __init__(self, known: Mapping[str, Episode], images: Callable[[str], bytes]) -> None:
        self._known = known
        self._images = images
        self._texts: dict[str, int] = {}
        self._pictures: dict[str, int] = {}
        self._episodes: dict[str, int] = {}
        self._longest: Counter[str] = Counter()

    def of(self, asked: Mapping[Key, Sequence[Prediction]]) -> Mapping[str, object]:
        questions = [self._question(key, rows) for key, rows in asked.items()]
        queries = {self._known[id].queries[query].image_id for id, _, query in asked}
        episodes = [self._episode(self._known[id]) for id in self._episodes]
        return {
            "questions": questions,
            "episodes": episodes,
            "texts": list(self._texts),
            "pictures": [
                _thumbnail(self._images(id), _QUERY if id in queries else _SUPPORT)
                for id in self._pictures
            ],
        }

    def _question(self, key: Key, rows: Sequence[Prediction]) -> dict[str, object]:
        id, shots, number = key
        episode = self._known[id]
        cut = len(episode.labels) * shots
        self._longest[id] = max(self._longest[id], cut)
        return {
            "episode": self._episodes.setdefault(id, len(self._episodes)),
            "shots": shots,
            "cut": cut,
            "query": self._example(episode, episode.queries[number]),
            "shows": self._text(line(episode.queries[number].concept)),
            "target": self._text(line(rows[0].target)),
            "answers": [self._answer(row) for row in rows],
        }

    def _answer(self, row: Prediction) -> dict[str, object]:
        """Of a right one no more than who gave it."""
        told: dict[str, object] = {"model": self._text(line(row.model)), "outcome": row.outcome}
        if row.outcome == "correct":
            return told
        if row.answer is not None:
            told["answer"] = self._text(line(row.answer))
        if row.text:
            told["text"] = visible(row.text)
        if row.error or row.outcome == "failed":
            told["error"] = visible(row.error or "cut off before it answered")
        if row.finish not in (None, "stop", "end_turn"):
            told["finish"] = line(row.finish or "")
        if row.label_logprobs:
            told["scores"] = [
                [line(label), round(value, 3)] for label, value in row.label_logprobs.items()
            ]
        return told

    def _episode(self, episode: Episode) -> dict[str, object]:
        return {
            "id": visible(episode.id),
            "task": self._text(line(episode.task)),
            "control": self._text(line(episode.control)),
            "words": [self._text(line(word)) for word in episode.labels.values()],
            "support": [
                self._example(episode, example)
                for example in episode.support[: self._longest[episode.id]]
            ],
        }

    def _example(self, episode: Episode, example: Example) -> list[int]:
        """Picture (-1 for none), word, how it is shown, 1 if the word is a false one."""
        picture = -1
        if example.shown == "picture":
            picture = self._pictures.setdefault(example.image_id, len(self._pictures))
        own = episode.labels[example.concept]
        word = own if example.word is None else example.word
        return [picture, self._text(line(word)), _SHOWN[example.shown], int(word != own)]

    def _text(self, text: str) -> int:
        return self._texts.setdefault(text, len(self._texts))


def _thumbnail(data: bytes, side: int) -> str:
    """A data URL; what cannot be decoded is an empty one, and the page says so."""
    try:
        picture = decode(data)
    except UnreadableImage:
        return ""
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=74, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
