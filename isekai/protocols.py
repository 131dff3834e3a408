"""The seams: what a source, an embedder, an adapter and a task have to offer, and no more."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from isekai.types import (
    Concept,
    DigitalSource,
    Episode,
    Group,
    ImageRequest,
    LabelWords,
    Response,
    Sweep,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from isekai.dataset import Dataset


@dataclass(frozen=True, slots=True)
class Rejected:
    """Stands in the place of an image that could not be drawn or must not be used."""

    reason: str
    again: bool = False
    """True where another seed may do better."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image with what its source knows of it."""

    image: "Image"
    scores: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, object] = field(default_factory=dict)
    """Where and with what it was drawn, JSON-able; the pixels do not depend on it."""


@runtime_checkable
class ImageSource(Protocol):
    """Draws images (entry-point group `isekai.sources`)."""

    @property
    def model(self) -> str:
        """What draws, as recorded in the ledger."""

    @property
    def revision(self) -> str:
        """Changes whenever the same request would give other pixels."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Everything else that the pixels depend on, JSON-able."""

    @property
    def processes(self) -> bool:
        """True if copies in several processes are faster than one: then it can be pickled."""

    def draw(self, requests: Sequence[ImageRequest]) -> "Iterator[Image | Picture | Rejected]":
        """One RGB image, or the reason why not, for each request, in order."""


@runtime_checkable
class Accelerated(Protocol):
    """A source that draws on devices, several images at a time."""

    @property
    def devices(self) -> Sequence[str]:
        """Where it draws, such as `cuda:0`: one worker each."""

    @property
    def chunk(self) -> int:
        """How many requests a worker is best handed at a time; fewer towards the end."""

    def on(self, device: str) -> ImageSource:
        """A copy that draws on this device alone; it can be pickled and is itself Accelerated."""

    def prepare(self, requests: Sequence[ImageRequest]) -> None:
        """Do what many requests share, such as encoding prompts, and keep it on disk.

        Copies on several devices may each be given a part; all are done before any draws.
        """

    def arrange(self, requests: Sequence[ImageRequest]) -> Sequence[ImageRequest]:
        """The same requests with those that can be drawn together side by side."""


@runtime_checkable
class Suggesting(Protocol):
    """A source that has its own idea of what is usual."""

    @property
    def size(self) -> int:
        """Pixels of the longer side if the user names none."""

    @property
    def gates(self) -> Sequence[str]:
        """Gates that its pictures pass through if the user names none."""


@runtime_checkable
class Synthetic(Protocol):
    """A source that makes pictures rather than taking a user's own, and says so in their files."""

    @property
    def digital_source(self) -> DigitalSource: ...


@runtime_checkable
class Releasing(Protocol):
    """A source that keeps a model loaded from one `draw` to the next."""

    def release(self) -> None:
        """Give its memory back; it is loaded again when it is needed."""


@runtime_checkable
class Estimating(Protocol):
    """A source that can tell what requests take without drawing them."""

    def estimate(self, requests: Sequence[ImageRequest]) -> Sequence[str]:
        """A line for each thing that is spent, such as `about 1.2 hours on one H100`."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a gate says of a picture."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """Named `<gate>.<what>`."""
    reason: str = ""
    """Why the picture is turned down; empty if it passes."""


@runtime_checkable
class Gate(Protocol):
    """Looks at each picture as it is drawn (`isekai.gates`): what it turns down is drawn again."""

    @property
    def settings(self) -> Mapping[str, object]:
        """Everything that its judgements depend on, JSON-able."""

    def judge(self, request: ImageRequest, image: "Image") -> Judgement:
        """Called from several threads, one picture at a time, whatever their order."""


@runtime_checkable
class Catalog(Protocol):
    """A source that brings its own concepts, such as a folder of images."""

    def groups(self) -> tuple[Group, ...]: ...

    def count(self, concept: Concept) -> int:
        """How many images of the concept there are."""


@runtime_checkable
class Knowing(Protocol):
    """A gate that has to know what else there is to be told from."""

    def inform(self, groups: Sequence[Group]) -> None:
        """All groups of the run, before the first judgement."""


@runtime_checkable
class Comparing(Protocol):
    """A gate that compares the pictures of a concept with each other."""

    def repeats(self, images: "Iterable[tuple[str, Image]]") -> Mapping[str, Judgement]:
        """Of pictures with their names: name -> why it is turned down.

        Of two that are alike the later one goes.
        """


@runtime_checkable
class Embedder(Protocol):
    """Turns images into vectors (`isekai.embedders`)."""

    @property
    def model(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def embed_images(self, images: "Sequence[Image]") -> NDArray[np.float32]:
        """[N, D], each row of length 1."""


@runtime_checkable
class TextEmbedder(Protocol):
    """An embedder that puts texts into the space of its images."""

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D], each row of length 1."""


@runtime_checkable
class ModelAdapter(Protocol):
    """Puts a sweep to a model (`isekai.adapters`)."""

    @property
    def provenance(self) -> Mapping[str, object]:
        """Model, revision and every setting that answers depend on, JSON-able."""

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        """A response for every cut and query: all queries of the first cut, then of the next."""


@runtime_checkable
class Concurrent(Protocol):
    """An adapter that answers several sweeps at once, each asked from a thread of its own."""

    @property
    def sweeps(self) -> int:
        """How many sweeps may be in `respond` at a time."""


@runtime_checkable
class Probing(Protocol):
    """An adapter that can find out before a run whether it would be refused."""

    def probe(self, sweep: Sweep) -> None:
        """Try the longest support set of a sweep; IsekaiError with what doesn't fit and what would.

        `bench` hands over the sweep of the run that shows most images.
        """


@runtime_checkable
class Foretelling(Protocol):
    """An adapter that can tell what a sweep takes without asking it."""

    def foretell(self, sweep: Sweep) -> Mapping[str, float]:
        """About how many `prompt_tokens`, `completion_tokens` and US dollars (`cost`, if known)."""


@runtime_checkable
class Telling(Protocol):
    """An adapter that has something to say while it works, such as what was spent."""

    def status(self) -> str:
        """A few words for the progress bar."""


@runtime_checkable
class Closing(Protocol):
    """An adapter or a gate that holds something which has to be let go."""

    def close(self) -> None:
        """Let go at once; also called while it is asked something in other threads."""


@runtime_checkable
class Informed(Protocol):
    """An adapter that is told the truth: oracles, planted to prove the harness."""

    def inform(self, concepts: Mapping[str, Concept]) -> None:
        """Image id -> what the image shows, for every image of the dataset; before the first sweep.

        No model may be given this: it is the answer.
        """


class Control(Protocol):
    """Changes one thing about an episode (`isekai.controls`): a plain function of this signature.

    It yields the episodes to ask in its place. `isekai.variants` writes the control into their ids;
    only a function that yields several has to make these differ. `value` is what the user wrote
    after `=`, empty for nothing: IsekaiError for one that can't be taken.
    """

    def __call__(
        self, episode: Episode, *, dataset: "Dataset", value: str
    ) -> Iterator[Episode]: ...


class Task(Protocol):
    """Makes the episodes of one family (`isekai.tasks`): a plain function of this signature."""

    def __call__(
        self,
        dataset: "Dataset",
        *,
        shots: Sequence[int],
        queries: int,
        episodes: int,
        labels: LabelWords,
        seed: int,
    ) -> Iterator[Episode]:
        """`episodes` episodes a unit (group or pair), each asking `queries` images a label."""
