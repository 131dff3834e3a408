"""A guess for every query: what a model that learns nothing from the context scores."""

from collections.abc import Iterator, Mapping
from hashlib import blake2b

from isekai.types import Response, Sweep


class Chance:
    """Guesses one of the labels at random, from the seed and the query's place alone."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    @property
    def provenance(self) -> Mapping[str, object]:
        return {"seed": self.seed}

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        for cut in sweep.cuts:
            for query in range(len(sweep.queries)):
                place = f"{self.seed}/{sweep.episode_id}/{cut}/{query}"
                draw = int.from_bytes(blake2b(place.encode(), digest_size=8).digest())
                yield Response(text=sweep.labels[draw % len(sweep.labels)])
