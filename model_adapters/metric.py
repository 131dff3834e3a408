"""Metric learning: what a frozen embedder and a little geometry reach without any language model.

These are the baselines that learning from context has to beat. They bind by construction: only the
support set tells them what a label means.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from isekai.embeddings import Embeddings
from isekai.errors import PluginError
from isekai.plugins import build
from isekai.types import Response, Sweep, Turn

TEMPERATURE = 0.05
"""Cosines are divided by this before the softmax: it sets how sure the log-probabilities sound,
never which label is the largest of `prototype`."""

UNSEEN = -30.0
"""The log-odds against a label that the support set doesn't show, or not among the neighbours."""


class _Metric(ABC):
    def __init__(self, embedder: str, cache: Path | None) -> None:
        self._embeddings = Embeddings(build("embedders", embedder), cache)

    @property
    def provenance(self) -> Mapping[str, object]:
        embedder = self._embeddings.embedder
        return {"embedder": embedder.model, "revision": embedder.revision, **self._settings()}

    def respond(self, sweep: Sweep) -> Iterator[Response]:
        """Without support images there is no metric to learn: all cuts without any abstain."""
        queries = self._rows(sweep.queries)
        support = self._rows(sweep.support)
        shown = np.array([sweep.labels.index(turn.label or "") for turn in sweep.support], int)
        for cut in sweep.cuts:
            if not len(support[:cut]) or len(queries) < len(sweep.queries):
                yield from [Response(text="")] * len(sweep.queries)
                continue
            logits = self._logits(support[:cut], shown[:cut], len(sweep.labels), queries)
            logits = np.maximum(logits, logits.max(axis=1, keepdims=True) + UNSEEN)
            for row in log_softmax(logits, axis=1):
                logprobs = {
                    label: round(float(value), 6)
                    for label, value in zip(sweep.labels, row, strict=True)
                }
                yield Response(text=sweep.labels[int(row.argmax())], label_logprobs=logprobs)

    def _rows(self, turns: Sequence[Turn]) -> NDArray[np.float64]:
        """[N, D]: what the turns show; no rows if they show no pictures."""
        pictures = [turn.image for turn in turns if turn.image]
        if len(pictures) < len(turns) or not turns:
            return np.zeros((0, 1))
        return self._embeddings.rows(pictures).astype(float)

    def _settings(self) -> Mapping[str, object]:
        return {"temperature": TEMPERATURE}

    @abstractmethod
    def _logits(
        self,
        support: NDArray[np.float64],
        shown: NDArray[np.int_],
        way: int,
        queries: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """[Q, way] from [S, D] and [Q, D] unit rows and the label number of each support row."""


class Prototype(_Metric):
    """Nearest centroid: the label whose mean support embedding has the largest cosine."""

    def __init__(self, embedder: str = "lite0", cache: Path | None = None) -> None:
        super().__init__(embedder, cache)

    def _logits(
        self,
        support: NDArray[np.float64],
        shown: NDArray[np.int_],
        way: int,
        queries: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        logits = np.full((len(queries), way), -np.inf)
        for label in set(shown.tolist()):
            centre = support[shown == label].mean(axis=0)
            logits[:, label] = queries @ centre / np.linalg.norm(centre) / TEMPERATURE
        return logits


class NearestNeighbours(_Metric):
    """Nearest neighbours: the label of the `k` most similar support images, by summed weight."""

    def __init__(self, k: int = 1, embedder: str = "lite0", cache: Path | None = None) -> None:
        if k < 1:
            raise PluginError(f"model 'knn' takes k of at least 1, given {k}")
        super().__init__(embedder, cache)
        self.k = k

    def _settings(self) -> Mapping[str, object]:
        return {"k": self.k, "temperature": TEMPERATURE}

    def _logits(
        self,
        support: NDArray[np.float64],
        shown: NDArray[np.int_],
        way: int,
        queries: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        weights = queries @ support.T / TEMPERATURE
        nearest = np.argsort(-weights, axis=1, kind="stable")[:, : self.k]
        votes = np.full((len(queries), way, nearest.shape[1]), -np.inf)
        for place, column in enumerate(nearest.T):
            rows = np.arange(len(queries))
            votes[rows, shown[column], place] = weights[rows, column]
        summed: NDArray[np.float64] = logsumexp(votes, axis=2)
        return summed


class LogisticRegression(_Metric):
    """Logistic regression on the support embeddings, anew for each support set.

    On unit vectors with C = 1, as in "Rethinking few-shot image classification: a good embedding
    is all you need?" (arXiv:2003.11539).
    """

    def __init__(self, C: float = 1.0, embedder: str = "lite0", cache: Path | None = None) -> None:
        from sklearn.linear_model import LogisticRegression as Fit

        if C <= 0:
            raise PluginError(f"model 'logreg' takes C above 0, given {C}")
        super().__init__(embedder, cache)
        self.C = C
        self._fit = Fit(C=C, max_iter=1000, solver="newton-cholesky")

    def _settings(self) -> Mapping[str, object]:
        return {"C": self.C}

    def _logits(
        self,
        support: NDArray[np.float64],
        shown: NDArray[np.int_],
        way: int,
        queries: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        logits = np.full((len(queries), way), -np.inf)
        present = sorted(set(shown.tolist()))
        if len(present) == 1:
            logits[:, present] = 0.0
        else:
            # The solution is a combination of the support rows: S dimensions hold it, not D.
            basis, _ = np.linalg.qr(support.T)
            fit = self._fit.fit(support @ basis, shown)
            with np.errstate(divide="ignore"):  # a probability of 0 is what UNSEEN is for
                logits[:, present] = fit.predict_log_proba(queries @ basis)
        return logits
