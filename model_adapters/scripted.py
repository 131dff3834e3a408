"""Answers from a file: score what any model said, wherever it said it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from isekai.errors import DataError
from isekai.files import read_jsonl, sha256
from isekai.types import Response, Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A line of the file. Other keys are passed over: one model's predictions.jsonl will do."""

    episode_id: str
    shots: int
    query: int
    """Position in the episode's queries."""
    text: str
    label_logprobs: Mapping[str, float] | None = None
    error: str | None = None


class Scripted:
    """Replays answers from a JSON Lines file: `scripted:answers.jsonl`, with {episode_id, shots,
    query, text} a line. A query that the file doesn't answer has failed.
    """

    def __init__(self, answers: Path) -> None:
        if not answers.exists():
            raise DataError(f"{answers}: no such file; it holds one answer a line")
        self._hash = sha256(answers.read_bytes())
        self._answers: dict[tuple[str, int, int], Response] = {}
        for number, row in enumerate(read_jsonl(answers, Answer), start=1):
            key = (row.episode_id, row.shots, row.query)
            if key in self._answers:
                raise DataError(
                    f"{answers}: line {number} answers {row.episode_id}, {row.shots} shots, "
                    f"query {row.query} a second time"
                )
            self._answers[key] = Response(
                text=row.text, label_logprobs=row.label_logprobs, error=row.error
            )

    @property
    def provenance(self) -> Mapping[str, object]:
        return {"answers": self._hash}

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        for cut in sweep.cuts:
            shots = cut // len(sweep.labels)
            for query in range(len(sweep.queries)):
                missing = Response(text="", error=f"no answer for {shots} shots, query {query}")
                yield self._answers.get((sweep.episode_id, shots, query), missing)
