"""What a run is asked to do: the keys of bench.toml, and what they mean when left out."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, TypeVar

from isekai import files, paper, selection, variants
from isekai.errors import DataError, IsekaiError
from isekai.types import Intervals, LabelWords, Protocol, Ranking

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a run asks, and whom: each field is a key of bench.toml, and most are options."""

    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    models: tuple[str, ...] = ("prototype",)
    """Names, also `name:argument`, built with those of the `options` that they have."""
    tasks: tuple[str, ...] = ("twin",)
    data: str = "dataset"
    """A dataset folder, or `reader:argument`."""
    protocol: Protocol = "isekai"
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    """Support images a label."""
    n_images: tuple[int, ...] = ()
    """Instead of `shots`: support images in all, as the paper counts, of two labels."""
    episodes: int = 4
    """Of each unit of a task: a group, a concept, a pair."""
    queries: int = 4
    """A label, in each episode."""
    labels: LabelWords | None = None
    """By default `fantasy`, and `true` under the paper's protocol."""
    controls: tuple[str, ...] = ()
    """Names such as `blind` and `words=true+swap`, or `all`."""
    false_labels: tuple[float, ...] = ()
    """Rates of false labels, each a control."""
    orders: int = 0
    """How many orders of the same support set to show; 0 for the one."""
    select: tuple[str, ...] = ()
    """Strategies of support selection, or `all`."""
    embedder: str = "lite0"
    """What selects support images."""
    template: str = ""
    """By default `plain`, and `lcl` under the paper's protocol."""
    seeds: tuple[int, ...] = (0,)
    limit: int | None = None
    """Episodes of each task at most, spread over its units."""
    ranking: Ranking = "sum"
    intervals: Intervals = "t"
    options: Mapping[str, object] = field(default_factory=dict)
    probe: bool = True
    """Ask a model behind a server, before the run, whether it takes the longest support set."""


def read(config: Path | None, given: Mapping[str, object]) -> Setup:
    """The setup of a bench.toml, if there is one, with what was `given` beside it in its place."""
    written: dict[str, object] = {}
    if config is not None:
        try:
            written = tomllib.loads(files.read_text(config))
        except tomllib.TOMLDecodeError as error:
            raise DataError(f"{config}: not TOML: {error}") from None
        files.parse(Setup, written, str(config))
    if "shots" in given and "n_images" in given:
        raise IsekaiError("--shots and --n-images both count support images; give one of them")
    if "shots" in given:
        written.pop("n_images", None)
    return files.parse(Setup, {**written, **given}, "bench")


def numbers(option: str, text: str | None, kind: type[N]) -> tuple[N, ...] | None:
    """`0,1,2,4` as numbers; None for None."""
    if text is None:
        return None
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        example = "0,1,2,4" if kind is int else "0.25,0.5,1"
        raise IsekaiError(
            f"{option} is '{text}'; it takes numbers with commas: {example}"
        ) from None


def words(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Words given one by one or with commas; None for None."""
    if given is None:
        return None
    return tuple(word.strip() for one in given for word in one.split(",") if word.strip())


def resolve(setup: Setup) -> Setup:
    """The setup with defaults and short forms written out; IsekaiError for impossible numbers."""
    published = setup.protocol == "paper"
    labels: LabelWords = setup.labels or (paper.LABELS if published else "fantasy")
    shots = setup.shots
    if setup.n_images:
        odd = [count for count in setup.n_images if count % 2]
        if odd:
            raise IsekaiError(
                f"--n-images {odd[0]}: the paper shows each of two labels equally often; give even "
                "numbers"
            )
        shots = tuple(count // 2 for count in setup.n_images)
    if not shots or not setup.seeds:
        raise IsekaiError("a run takes at least one number of shots and one seed")
    if min(shots) < 0:
        raise IsekaiError(f"{min(shots)} shots; 0 is the least")
    if min(setup.seeds) < 0:
        raise IsekaiError(f"seed {min(setup.seeds)}; 0 is the least")
    if setup.episodes < 1 or setup.queries < 1:
        raise IsekaiError(
            f"{setup.episodes} episodes and {setup.queries} queries; at least 1 each is needed"
        )
    if setup.limit is not None and setup.limit < 1:
        raise IsekaiError(f"--limit {setup.limit}; 1 is the least")
    rates = [rate for rate in setup.false_labels if rate]  # a rate of 0 is the plain episode
    controls: list[str] = []
    for name in setup.controls:
        if name == "all":
            controls += variants.all_controls(labels, rates or (0.5, 1.0), setup.orders or 3)
        elif name:
            controls.append(name)
    controls += [f"false={rate:g}" for rate in rates]
    controls += [f"order={setup.orders}"] if setup.orders else []
    if 0 in shots:
        controls = [name for name in controls if name != "zero"]  # the plain episode has it
    select = [name for one in setup.select for name in (_strategies() if one == "all" else [one])]
    return replace(
        setup,
        labels=labels,
        shots=tuple(sorted(set(shots))),
        n_images=(),
        controls=tuple(dict.fromkeys(controls)),
        false_labels=(),
        orders=0,
        select=tuple(dict.fromkeys(select)),
        template=setup.template or (paper.TEMPLATE if published else "plain"),
        seeds=tuple(dict.fromkeys(setup.seeds)),
    )


def _strategies() -> list[str]:
    return [name for name in selection.names() if name != "balanced"]  # the plain episode is that
