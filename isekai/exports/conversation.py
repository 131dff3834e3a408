"""A question with its whole episode as chat messages, and its pictures as files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from isekai import templates
from isekai.exports import cells
from isekai.exports.keys import without_keys
from isekai.files import sha256
from isekai.images import UnreadableImage, bare, decode, encode
from isekai.images import media_type as media_type_of
from isekai.types import EncodedImage, Episode, Sweep, Turn

if TYPE_CHECKING:
    from isekai.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a message: a text, or a picture by its content."""

    text: str = ""
    picture: EncodedImage | None = None
    stored: str = ""
    """The picture's id before it was made `portable`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One query behind one support set: all that is asked, and what would be right."""

    cell: str
    """The task id under which it counts."""
    episode: Episode
    shots: int
    query: int
    messages: tuple[Message, ...]
    target: str

    @property
    def facts(self) -> dict[str, object]:
        """What is known of it beside the messages, as JSON knows it."""
        way = len(self.episode.labels)
        return {
            "cell": self.cell,
            "episode": self.episode.id,
            "task": self.episode.task,
            "control": self.episode.control,
            "shots_per_class": self.shots,
            "n_support_images": way * self.shots,
            "query": self.query,
            "cluster": self.episode.cluster,
            "labels": [without_keys(label) for label in self.episode.labels.values()],
            "chance": 1 / way,
        }


def questions(
    run: "Run", image: Callable[[str], EncodedImage], only: str | None = None
) -> Iterator[Question]:
    """Every question of the run in its own words, or those of one cell; `image` fetches a picture.

    In the order of the episodes, then shots, then queries.
    """
    ids = cells.task_ids((one.task, one.control, one.shots_per_class) for one in run.results)
    for episode in run.episodes:
        asked = {shots: ids[episode.task, episode.control, shots] for shots in episode.shots}
        if only is not None and only not in asked.values():
            continue
        sweep = templates.fold(episode, run.config.template, image)
        for (shots, cell), cut in zip(asked.items(), sweep.cuts, strict=True):
            for number, query in enumerate(sweep.queries if only in (None, cell) else ()):
                yield Question(
                    cell=cell,
                    episode=episode,
                    shots=shots,
                    query=number,
                    messages=messages(sweep, cut, query),
                    target=without_keys(episode.labels[episode.queries[number].concept]),
                )


def messages(sweep: Sweep, cut: int, query: Turn) -> tuple[Message, ...]:
    """The instruction, the support set as turns that were answered, and the question."""
    said: list[Message] = []
    if sweep.instruction:
        said.append(Message(role="system", parts=_parts(sweep.instruction)))
    for turn in sweep.support[:cut]:
        said.append(Message(role="user", parts=_asked(turn)))
        said.append(Message(role="assistant", parts=_parts(turn.answer or "")))
    said.append(Message(role="user", parts=_asked(query, sweep.query_instruction)))
    return tuple(said)


def _asked(turn: Turn, first: str = "") -> tuple[Part, ...]:
    """A question, with its picture where it wants it. Blanks are left out: some refuse them."""
    before, after = turn.around
    if turn.image is None:
        return _parts(first + before + after)
    shown = Part(picture=portable(turn.image), stored=turn.image.id)
    return (*_parts(first + before), shown, *_parts(after))


def _parts(text: str) -> tuple[Part, ...]:
    return (Part(text=without_keys(text)),) if text.strip() else ()


# ---------------------------------------------------------------- pictures


def file_name(picture: EncodedImage) -> str:
    """SHA-256 of the bytes and the format's ending: the same picture, the same file."""
    return f"{picture.id}.{_format(picture.data)}"


def media_type(picture: EncodedImage) -> str:
    return f"image/{_format(picture.data)}"


def portable(picture: EncodedImage) -> EncodedImage:
    """The picture's own bytes where every tool reads them, else the same pixels as PNG.

    Without what its file tells of it: that names the concept, which is the answer.
    """
    try:
        data = bare(picture.data) if media_type_of(picture.data) else encode(decode(picture.data))
    except UnreadableImage:  # can be seen, but not taken apart
        data = encode(decode(picture.data))
    return picture if data == picture.data else EncodedImage(id=sha256(data), data=data)


def _format(data: bytes) -> str:
    return (media_type_of(data) or "").removeprefix("image/")
