"""The labels behind a query as one tree: what they share is read once."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from model_adapters.runtime.seam import Continuation


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Tokens to read behind a query so that every token of every label is foretold."""

    ids: tuple[int, ...]
    """Parents stand before their children."""
    parents: tuple[int, ...]
    """Which token stands before this one; -1 for the query's last."""
    paths: Mapping[str, tuple[int, ...]]
    """Label -> what foretells each of its tokens; -1 for the query's last token."""

    @property
    def depths(self) -> list[int]:
        """How many positions behind the query's last token each stands."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        return depths

    def mask(self, query: int) -> Tensor:
        """[query + tokens, query + tokens]: what sees what, behind a query of so many tokens."""
        mask = torch.ones((query + len(self.ids),) * 2, dtype=torch.bool).tril()
        mask[query:, query:] = False
        for token, parent in enumerate(self.parents):
            if parent >= 0:
                mask[query + token] = mask[query + parent]
            mask[query + token, query + token] = True
        return mask


def tree(labels: Mapping[str, Continuation]) -> Tree:
    """The labels' last tokens are foretold, never read. ValueError for a label without tokens."""
    ids: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    paths = {}
    for label, told in labels.items():
        if not 0 <= told.skip < len(told.ids):
            raise ValueError(f"label '{label}' has {len(told.ids)} tokens, {told.skip} uncounted")
        path = [-1]
        for token in told.ids[:-1]:
            place = path[-1], token
            if place not in children:
                children[place] = len(ids)
                ids.append(token)
                parents.append(path[-1])
            path.append(children[place])
        paths[label] = tuple(path)
    return Tree(ids=tuple(ids), parents=tuple(parents), paths=paths)
