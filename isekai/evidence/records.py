"""What is found out about the novelty of concepts: records that go to novelty.json and back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from isekai.types import Estimate

_STRICT: dict[str, object] = {"extra": "forbid", "allow_inf_nan": False}

Against = Literal["twin", "foil"]
"""What a novel concept is told from: another novel one of its group, or the everyday one."""

AGAINST: tuple[Against, ...] = ("twin", "foil")

ALL = "all"
"""The key of what a probe finds with every support picture that both sides have."""

Made = Mapping[str, object]
"""What made a kind of evidence: embedder or model, seed, settings and versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean over pictures with its 95 % interval."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    value: float
    low: float
    high: float
    n: int


# ---------------------------------------------------------------- probes and style


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How often a probe tells the pictures of two concepts apart; chance is one half."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    other: str
    """The other concept's id."""
    accuracy: Mapping[str, Estimate]
    """Support pictures a concept (`1`, `4`, ... and `all`) -> share right, clustered by picture."""
    support: int
    """How many pictures a concept `all` stands for."""
    families: Mapping[str, Estimate] = field(default_factory=dict)
    """Family of style features -> share right with these alone, at `all`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What few-shot probes tell of each novel concept, and over all of them."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    made: Made
    concepts: Mapping[str, Mapping[Against, Comparison]]
    overall: Mapping[Against, Mapping[str, Estimate]]
    """By support pictures a concept, clustered by group; each pair of concepts counts once."""
    families: Mapping[Against, Mapping[str, Estimate]] = field(default_factory=dict)
    """By family of style features, at `all`, clustered by group."""


# ---------------------------------------------------------------- diversity


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How different the pictures of one concept are from each other."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    n: int
    distance: float
    """Mean cosine distance over all pairs, 0 for equal pictures."""
    vendi: float
    """Vendi score: how many wholly different pictures they are worth, 1 to n."""
    nearest: tuple[str, str]
    """Image ids of the two that are most alike."""
    nearest_cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """The spread within each concept that has two pictures or more."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    made: Made
    concepts: Mapping[str, Spread]


# ---------------------------------------------------------------- vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A name of the vocabulary that lies near a concept's pictures."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    name: str
    cosine: float
    """The mean over the pictures."""
    share: Estimate
    """Of the pictures, to how many it is the nearest name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a vocabulary has to say of one concept."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    nearest: tuple[Near, ...]
    """The nearest first."""
    margins: Mapping[str, Mean]
    """`name`, `definition`, `parent: …`, `foil: …` -> how much nearer it is than the nearest name
    of the vocabulary: cosine with that text less cosine with that name, picture by picture."""
    rank: int
    """Names of the vocabulary that are nearer than the concept's own name, and 1."""
    collision: bool
    """The concept's own name is in the vocabulary, whatever it means there."""
    beyond_foil: Mean | None = None
    """Cosine with the nearest name, less that of its foil's pictures with theirs (Welch)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Nearest names in an open vocabulary."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    made: Made
    concepts: Mapping[str, Names]


# ---------------------------------------------------------------- naming


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a model called the pictures of one concept."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    shares: Mapping[str, Estimate]
    """Of the answers, how many name its `name`, a `parent`, `both` parents, the `foil`, the `twin`;
    `other` for none of these. One answer may count under several. Wilson intervals."""
    answers: int
    failed: int
    """Questions without an answer; they count nowhere else."""
    said: Mapping[str, int] = field(default_factory=dict)
    """The commonest answers, shortened, and how often they came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Zero-shot naming by one model: no support set, no list of labels."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    made: Made
    concepts: Mapping[str, Named]
    overall: Mapping[str, Mapping[str, Estimate]]
    """Role -> shares over all concepts of it, clustered by group."""


# ---------------------------------------------------------------- reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A picture of the dataset and the reference picture that is nearest to it."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    image_id: str
    path: str
    """Relative to the reference folder."""
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """The nearest reference pictures of one concept."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    nearest: tuple[Match, ...]
    copies: Estimate
    """The share of pictures that come nearer to a reference picture than the copy threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Nearest neighbours in a folder of reference pictures."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    made: Made
    pictures: int
    left_out: Mapping[str, str]
    """Relative path -> why the file was not looked at."""
    concepts: Mapping[str, Matches]
    overall: Estimate
    """The share of copies over all concepts, clustered by group."""


# ---------------------------------------------------------------- all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Every kind of evidence there is for a dataset; None or empty for what was not measured."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    dataset: str
    """The fingerprint of the dataset that it is about."""
    kind: Literal["novelty"] = "novelty"
    probes: Probes | None = None
    style: Probes | None = None
    diversity: Diversity | None = None
    vocabulary: Vocabulary | None = None
    naming: Mapping[str, Naming] = field(default_factory=dict)
    """By model."""
    reference: Reference | None = None
