"""A small run with every outcome in it, made by the bench step on the tiny dataset."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from isekai import bench, runs
from isekai.setup import Setup
from isekai.types import Response, Sweep

KEY = "sk-" + "proj0123456789abcdef"
HOSTILE = f"<script>alert('x')</script> {{{{7*7}}}} ../../etc [a](javascript:b) \"' | # : {KEY}"
CONTROLS = ("blind", "text", "words=true+swap")


class Mixed:
    """Right, wrong, silent and broken in turn; what it says is meant to do harm."""

    @property
    def provenance(self) -> Mapping[str, object]:
        return {"base_url": f"https://me:{KEY}@example.org/v1", "api_key": "0123456789"}

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        usage = {"prompt_tokens": 100.0, "cached_tokens": 40.0, "completion_tokens": 2.0}
        for place in range(len(sweep.cuts) * len(sweep.queries)):
            if place % 7 == 3:
                yield Response(text="", error=f"503 for Bearer {KEY}")
            elif place % 7 == 6:
                yield Response(text="Let me think", usage=usage, finish="length")
            elif place % 5 == 4:
                yield Response(text=HOSTILE, usage=usage)
            else:
                yield Response(text=sweep.labels[place % 3 % 2], usage=usage, finish="stop")


@cache
def small_run(dataset: Path) -> Path:
    """The folder of a run of `mixed` and `chance:7`; don't write into it."""
    setup = Setup(
        models=("chance:7",),
        tasks=("twin",),
        shots=(0, 1),
        episodes=2,
        queries=2,
        controls=CONTROLS,
        data=str(dataset),
    )
    return bench.run(setup, out=dataset.parent / "exported run", adapters=[Mixed()])


def small(dataset: Path) -> runs.Run:
    return runs.read(small_run(dataset))
