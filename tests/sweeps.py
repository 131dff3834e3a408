"""Sweeps of plain pictures that say by their colour what they are, for adapters behind servers."""

from typing import Any

from PIL import Image

from isekai import files
from isekai.images import encode
from isekai.types import EncodedImage, Sweep, Turn

LABELS = ("dovrik", "tulmab")
COLOURS = ((226, 88, 60), (60, 90, 200))


def plain(which: int, side: int) -> EncodedImage:
    """A square of the label's colour: no two sides, no two files."""
    data = encode(Image.new("RGB", (side, side), COLOURS[which]))
    return EncodedImage(id=files.sha256(data), data=data)


def sweep(cuts: tuple[int, ...] = (0, 2, 4), queries: int = 4, **changes: Any) -> Sweep:
    """Labels take turns, in the support set and in the queries."""
    support = [
        Turn(
            image=plain(i % 2, 8 + i),
            question="What is this called?",
            answer=f"This is called {LABELS[i % 2]}.",
            label=LABELS[i % 2],
        )
        for i in range(cuts[-1])
    ]
    asked = [
        Turn(image=plain(i % 2, 100 + i), question="What is this called?") for i in range(queries)
    ]
    told: dict[str, Any] = {
        "episode_id": "twin/fruit/000",
        "support": tuple(support),
        "cuts": cuts,
        "queries": tuple(asked),
        "labels": LABELS,
    }
    return Sweep(**told | changes)


def truth(asked: Sweep) -> list[str]:
    """What a server says that binds: nothing without a support set."""
    return [
        f"This is called {LABELS[i % 2]}." if cut else "I don't know."
        for cut in asked.cuts
        for i in range(len(asked.queries))
    ]
