"""Ranks labels with the faults of OpenFlamingo's evaluation, one prompt at a time."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from isekai.types import EncodedImage, Sweep
from model_adapters.flamingo.decoding import FlamingoDecoder
from model_adapters.flamingo.plainly import Prompt, rank_cached
from model_adapters.runtime.features import Features
from model_adapters.runtime.seam import Piece, Pieces


class Faulty:
    """Nothing is shared between prompts. `features` holds what was made of the pictures already.

    A prompt by itself isn't filled up: of the two faults only the one that MPT has is left.
    """

    def __init__(self, decoder: FlamingoDecoder, features: Features) -> None:
        self._decoder, self._features = decoder, features
        # transformers' networks keep to a cache; those that upstream ran MPT with appended to it.
        self._in_place = decoder.model.config.model_type == "mpt"

    def rank(self, sweep: Sweep) -> Iterator[Mapping[str, float]]:
        """Label -> log-likelihood, for every cut and query as an adapter answers them.

        Labels follow each other in the sweep's order, which is drawn anew for each episode.
        """
        pieces = self._decoder.pieces(sweep)
        skip = min((one.skip for one in pieces.labels.values()), default=0)
        for cut in sweep.cuts:
            for query in pieces.queries:
                sums = rank_cached(
                    self._decoder.network,
                    self._prompt(_read(pieces, cut, query)),
                    [one.ids for one in pieces.labels.values()],
                    in_place=self._in_place,
                    skip=skip,
                )
                yield dict(zip(pieces.labels, sums[0].tolist(), strict=True))

    def _prompt(self, read: list[Piece]) -> Prompt:
        network = self._decoder.network
        tokens = torch.tensor([[token for one in read for token in one.ids]], device=network.device)
        return Prompt(
            tokens=tokens,
            mask=torch.ones_like(tokens),
            media=self._media([image for one in read for image in one.images]),
            image=self._decoder.prompts.words.image,
        )

    def _media(self, images: list[EncodedImage]) -> Tensor:
        if not images:
            return torch.zeros(1, 0, device=self._decoder.network.device)
        with torch.inference_mode():
            return torch.stack(self._features.of(images))[None]


def _read(pieces: Pieces, cut: int, query: Piece) -> list[Piece]:
    opening = [] if pieces.opening is None else [pieces.opening]
    return [*opening, *pieces.support[:cut], query]
