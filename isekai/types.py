"""The nouns: frozen records that the steps hand to each other through files.

Only the standard library is imported here. Records that are read from files refuse unknown keys:
`__pydantic_config__` is read by `isekai.files.parse`, nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

Role = Literal["novel", "foil"]
Novelty = Literal["blend", "material", "form"]
"""How a concept is new: two shapes joined, a shape in a foreign material, or no known shape."""
Split = Literal["support", "query"]
Outcome = Literal["correct", "wrong", "abstain", "failed"]
LabelWords = Literal["true", "fantasy", "conflict"]
"""The concepts' names, new words each episode, or common words for quite other things."""
Protocol = Literal["isekai", "paper"]
"""One nested support sequence shared by all queries; or one shuffled anew for every query."""
Ranking = Literal["sum", "mean", "prior"]
"""How labels are ranked by log-likelihood: as it is, a token, or less what they have unseen."""
Intervals = Literal["t", "bootstrap"]
"""How 95 % intervals over clusters are made: `isekai.statistics.metrics.share` or `bootstrap`."""
Shown = Literal["picture", "grey", "nothing"]
"""What a control shows in the place of an image: itself, an even grey of its size, or nothing."""

DigitalSource = Literal["trainedAlgorithmicMedia", "algorithmicMedia", ""]
"""IPTC's word for what made a picture: a trained model, an algorithm alone, or nothing is said.

https://cv.iptc.org/newscodes/digitalsourcetype/
"""

IMAGE = "<image>"
"""Where the image stands in a turn's question; a question without the mark has it in front."""

_STRICT: dict[str, object] = {"extra": "forbid"}
_FINITE: dict[str, object] = {"extra": "forbid", "allow_inf_nan": False}


# ---------------------------------------------------------------- what can be drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One solid of a sketch; the words are in `isekai/sketch.py`.

    Lengths are in sketch units: a sketch fits roughly into a ball of radius 1 around the origin,
    y points up, z towards the viewer. Angles are in degrees.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _FINITE

    name: str
    shape: str
    size: tuple[float, ...] = ()
    points: tuple[tuple[float, float, float, float], ...] = ()
    """For `path`: x, y, z and radius of each point."""
    at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Rotation about x, then y, then z, degrees."""
    paint: int = 0
    """Slot of the image's palette: 0 body, 1 second, 2 accent, 3 dark, 4 light."""
    material: str = "matte"
    pattern: str = ""
    """Surface pattern, painted in `paint2`; empty for none."""
    paint2: int = 1
    scale: float = 8.0
    """Pattern and relief periods a sketch unit."""
    relief: float = 0.0
    """Depth of the pattern's relief, 0 (flat) to 1."""
    melt: float = 0.0
    """Radius over which the part melts into the other melting parts; 0 keeps a sharp seam."""
    ring: int = 1
    """Copies turned evenly about the y axis (the part's place moves with them)."""
    cover: int = 1
    """Copies spread over the upper sphere of directions, from the part's own direction outwards."""
    mirror: bool = False
    """A second copy reflected at x = 0."""
    line: int = 1
    step: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """`line` copies, each shifted by `step` from the one before."""
    twist: float = 0.0
    """Degrees a unit about the part's own y axis."""
    taper: float = 0.0
    """How much narrower the part's top is than its foot: 0 none, 1 a point."""
    bend: float = 0.0
    """Degrees a unit by which the part's own y axis curves towards x; for slender parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A concept as solids, for the procedural source."""

    __pydantic_config__: ClassVar[dict[str, object]] = _FINITE

    parts: tuple[Part, ...]
    diagnostic: tuple[str, ...] = ()
    """Names of the parts that tell the concept from its twin and its foil."""
    lift: float = 0.0
    """Height of the lowest point above the ground, sketch units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """A generator's text as a template over axes; `isekai.spec.expand` gives the i-th prompt."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    template: str
    axes: Mapping[str, Mapping[str, int]]
    """Axis name -> wording -> quota: how often it comes up in every sum(quotas) images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One thing that can be drawn. `id` is `<group>/<slug>` and unique in a spec."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    id: str
    name: str
    role: Role
    novelty: Novelty | None = None
    parents: tuple[str, ...] = ()
    definition: str = ""
    prompts: Prompts | None = None
    negative_prompt: str = ""
    sketch: Sketch | None = None
    generator: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of a source -> options of it that this concept is drawn with."""

    @property
    def group(self) -> str:
        return self.id.split("/", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Concepts shown against each other: two novel ones that share a parent, and a foil."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    id: str
    title: str
    parent: str = ""
    concepts: tuple[Concept, ...] = ()


# ---------------------------------------------------------------- what was drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """One image to draw. The seed comes from the concept and the index, never from a batch."""

    concept: Concept
    index: int
    size: int
    """Pixels of the longer side."""
    seed: int
    prompt: str = ""
    attempt: int = 0
    """How often a drawing for this place was turned down before; each has a seed of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """One drawn image and how it came to be: a line of the ledger."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    id: str
    """SHA-256 of the file's bytes, hexadecimal."""
    path: str
    """Relative to the images folder, `/`-separated."""
    concept: str
    index: int
    width: int
    height: int
    seed: int
    prompt: str
    source: str
    model: str
    revision: str
    settings: Mapping[str, object]
    drawn_at: str
    """UTC, ISO 8601. This and `made` are all that differs between two otherwise equal runs."""
    negative_prompt: str = ""
    attempt: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    """What the source and the gates measured, such as `clip.own`."""
    made: Mapping[str, object] = field(default_factory=dict)
    """Where and with what: device, seconds, versions of packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """An image as the bytes of its file; `isekai.images.decode` turns it into pixels."""

    id: str
    data: bytes = field(repr=False)


# ---------------------------------------------------------------- how it is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An image of a dataset, by id, with the concept it shows."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    image_id: str
    concept: str
    word: str | None = None
    """What the support set calls it, where a control says another word than its concept's."""
    shown: Shown = "picture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """One ordered support sequence and the queries that share it.

    The k-shot support set is the first `len(labels) * k` examples. Each of these prefixes shows
    every label k times, unless the support was selected at random from all labels together.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    id: str
    task: str
    cluster: str
    """Episodes of one cluster share concepts; intervals resample clusters, not queries."""
    labels: Mapping[str, str]
    """Concept id -> the word used for it."""
    support: tuple[Example, ...]
    shots: tuple[int, ...]
    """Support images a label, ascending."""
    queries: tuple[Example, ...]
    seed: int
    control: str = "none"
    """What was changed about the episode that its id begins with; `none` for that one itself."""
    take: int = 0
    """Which of several orders of one and the same support set this is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One image, what is asked about it and, in a support set, the answer."""

    image: EncodedImage | None
    """None where a control shows no picture: the text stays what it is."""
    question: str
    """Holds `IMAGE` where the picture stands; read it with `around`."""
    answer: str | None = None
    label: str | None = None
    """The label word that `answer` carries, for adapters that don't read sentences."""

    @property
    def around(self) -> tuple[str, str]:
        """The question's text before and after its picture, as it is; either may be empty."""
        before, mark, after = self.question.partition(IMAGE)
        return (before, after) if mark else ("", before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """An episode put into words: what an adapter is asked in one call."""

    episode_id: str
    support: tuple[Turn, ...]
    cuts: tuple[int, ...]
    """Support turns shown at each shot count, ascending."""
    queries: tuple[Turn, ...]
    labels: tuple[str, ...]
    """In the order in which they are listed, which says nothing of what is right."""
    instruction: str = ""
    """Said once, before everything; empty for nothing."""
    query_instruction: str = ""
    """Said between the support set and each query."""


# ---------------------------------------------------------------- what came back


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a model said of one query behind one cut. An `error` makes the outcome `failed`."""

    text: str
    label_logprobs: Mapping[str, float] | None = None
    """Label -> log-likelihood, the sum over its tokens; all labels or None."""
    label_tokens: Mapping[str, int] | None = None
    """Label -> how many tokens that sum is over, for length-normalised ranking."""
    usage: Mapping[str, float] | None = None
    """What it took: `prompt_tokens`, `cached_tokens`, `completion_tokens`, `cost` (US dollars)."""
    finish: str | None = None
    """Why the text ends: `length` where it was cut off, else what the server says; None unknown."""
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One scored response: a row of predictions.jsonl."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    model: str
    episode_id: str
    shots: int
    query: int
    """Position in the episode's queries."""
    target: str
    answer: str | None
    outcome: Outcome
    text: str
    image_id: str = ""
    """The query's picture, by content hash."""
    label_logprobs: Mapping[str, float] | None = None
    label_tokens: Mapping[str, int] | None = None
    usage: Mapping[str, float] | None = None
    finish: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its 95 % interval, the n behind it and the clusters it came from."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    value: float
    low: float
    high: float
    n: int
    clusters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference of two shares over the same clusters, with its 95 % interval and p value."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    value: float
    low: float
    high: float
    p: float
    """Two-sided, of no difference."""
    n: int
    """Answers on each side."""
    clusters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One cell of a table."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    model: str
    task: str
    shots_per_class: int
    n_support_images: int
    metrics: Mapping[str, Estimate]
    """`accuracy`, `abstain`, and what else was measured, such as `accuracy_lcl` and `flips`."""
    outcomes: Mapping[str, int]
    chance: float
    control: str = "none"
    episodes: str = ""
    """A digest of what was asked: equal digests, equal questions; see `isekai.episodes.digest`."""
    intervals: Intervals = "t"
    spread: float | None = None
    """Standard deviation of the accuracy over the orders of one support set (control `order`)."""
