"""Puts pictures into the sequence that the language model reads."""

from collections.abc import Sequence
from typing import Literal

import torch

from isekai.errors import DataError
from model_adapters.lcl_shikra.tokens import Marks

Splice = Literal["last", "all"]
"""Which pictures of a sequence the language model is shown.

`all` is what the method means. `last` is what the released code does: for each picture it starts
again from the untouched sequence, so that the last one, the query's, alone remains, and all others
stay as many times the embedding of `<im_patch>`. The released checkpoints were probably trained so.
"""


def slots(ids: Sequence[int], marks: Marks, patches: int) -> list[int]:
    """Where the places of pictures begin: the position of each first patch.

    DataError where starts and ends don't belong together, or are otherwise far apart.
    """
    starts = [at for at, id in enumerate(ids) if id == marks.start]
    ends = [at for at, id in enumerate(ids) if id == marks.end]
    if ends != [at + patches + 1 for at in starts]:
        raise DataError(
            f"the places of pictures begin at tokens {starts} and end at {ends}; the vision tower "
            f"gives {patches} features a picture, which lie between: take the tower that the "
            "checkpoint was trained with"
        )
    return [at + 1 for at in starts]


def splice(
    embeddings: torch.Tensor,
    ids: Sequence[int],
    features: torch.Tensor,
    marks: Marks,
    how: Splice = "all",
) -> torch.Tensor:
    """[T, D]: `embeddings` of the T ids, with [N, P, D] features in the N places of pictures.

    DataError where there are more or fewer places than pictures.
    """
    count, patches, _ = features.shape
    places = slots(ids, marks, patches)
    if len(places) != count:
        raise DataError(f"{count} pictures for {len(places)} places in the prompt; they must agree")
    shown = embeddings.clone()
    chosen = list(zip(places, features, strict=True))
    for at, feature in chosen if how == "all" else chosen[-1:]:
        shown[at : at + patches] = feature
    return shown
