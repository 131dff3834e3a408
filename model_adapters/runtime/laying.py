"""An episode as strips: what is read on the way to each cut, and the queries behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from isekai.errors import IsekaiError
from isekai.types import Sweep
from model_adapters.runtime.features import Features
from model_adapters.runtime.seam import Decoder, Piece, Pieces
from model_adapters.runtime.strips import Strip, joined, strip


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """Every image is encoded, every piece embedded."""

    stretches: tuple[Strip | None, ...]
    """For each cut what is read between it and the one before; None for nothing."""
    queries: tuple[Strip, ...]

    @property
    def room(self) -> int:
        """Tokens of the longest prefix."""
        return sum(len(one) for one in self.stretches if one is not None)


def lay(decoder: Decoder, pieces: Pieces, cuts: Sequence[int], features: Features) -> Laid:
    """All strips have as many axes of positions as the one that has most."""
    opening = [] if pieces.opening is None else [pieces.opening]
    ends = [0, *(len(opening) + cut for cut in cuts)]
    read = [*opening, *pieces.support]
    stretches = [read[start:end] for start, end in pairwise(ends)]
    features.of([image for one in (*read, *pieces.queries) for image in one.images])

    def laid(piece: Piece) -> Strip:
        return strip(decoder, piece, features.of(piece.images))

    axes = max(_axes(piece) for piece in (*read, *pieces.queries))
    return Laid(
        stretches=tuple(
            _wide(joined([laid(piece) for piece in some]), axes) if some else None
            for some in stretches
        ),
        queries=tuple(_wide(laid(query), axes) for query in pieces.queries),
    )


def _axes(piece: Piece) -> int:
    return 1 if piece.positions is None else len(piece.positions)


def _wide(one: Strip, axes: int) -> Strip:
    return replace(one, positions=one.positions.expand(axes, -1))


def checked(pieces: Pieces, sweep: Sweep, context: int | None) -> Pieces:
    """The same pieces, if they are the sweep's and fit into the model's context.

    IsekaiError with the largest cut that does.
    """
    counts = len(pieces.support), len(pieces.queries)
    if counts != (len(sweep.support), len(sweep.queries)):
        raise ValueError(
            f"{counts[0]} support pieces and {counts[1]} queries for {len(sweep.support)} and "
            f"{len(sweep.queries)} turns"
        )
    if pieces.labels and tuple(pieces.labels) != sweep.labels:
        raise ValueError(f"pieces rank {list(pieces.labels)}, the labels are {list(sweep.labels)}")
    if context is not None:
        _fitting(pieces, sweep, context)
    return pieces


def _fitting(pieces: Pieces, sweep: Sweep, context: int) -> None:
    longest = max((len(query.ids) for query in pieces.queries), default=0)
    label = max((len(told.ids) for told in pieces.labels.values()), default=1)
    start = longest + label - 1 + (len(pieces.opening.ids) if pieces.opening else 0)
    needed = {
        cut: start + sum(len(piece.ids) for piece in pieces.support[:cut]) for cut in sweep.cuts
    }
    fitting = [cut for cut, tokens in needed.items() if tokens <= context]
    if len(fitting) == len(needed):
        return
    cut, way = max(needed), max(1, len(sweep.labels))
    most = f"at most --shots {fitting[-1] // way}" if fitting else "shorter words"
    raise IsekaiError(
        f"a prompt with {cut} support images takes {needed[cut]} tokens, and the model reads "
        f"{context}; take {most}"
    )
