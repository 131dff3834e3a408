"""Evidence that a dataset's concepts are new, can be learned, and cannot be told by a shortcut.

Each kind is measured by a module of its own, and none proves anything by itself:

    vocabulary.py   nearest names in an open vocabulary     reference.py   nearest known pictures
    naming.py       what models call the pictures           diversity.py   one picture, or many
    probes.py       can it be learned from few pictures     style.py       or told by style alone

    records.py      what goes to novelty.json               space.py       pictures as rows
    weighing.py     where the evidence is weak              section.py     the card's section
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isekai import files, progress
from isekai.dataset import Dataset
from isekai.embeddings import Embeddings
from isekai.errors import DataError, PluginError
from isekai.evidence import diversity, probes, style, vocabulary
from isekai.evidence.records import Evidence
from isekai.evidence.section import section
from isekai.evidence.space import Space
from isekai.evidence.vocabulary import Lexicon
from isekai.protocols import TextEmbedder

__all__ = ["FILE", "Evidence", "measure", "merged", "read", "section", "write"]

FILE = "novelty.json"

_DIGITS = 5
"""Of every number written: what lies behind them depends on the machine that computed it."""


def measure(
    dataset: Dataset,
    embeddings: Embeddings,
    *,
    seed: int = 0,
    shots: tuple[int, ...] = probes.SHOTS,
    styles: Mapping[str, NDArray[np.float64]] | None = None,
    lexicon: Lexicon | None = None,
) -> Evidence:
    """What pictures and an embedder alone tell: probes, style, diversity, and nearest names.

    `styles` holds `style.describe` of pictures that were decoded before, by image id; the others
    are decoded here. Names are looked up in `lexicon`, or in that of ImageNet-22k if the embedder
    embeds texts and timm is installed.
    """
    space = Space.of(dataset, embeddings)
    rivals = probes.choose(space)
    words = lexicon or _usual(embeddings)
    return Evidence(
        dataset=dataset.fingerprint,
        probes=probes.measure(space, embeddings, rivals, shots=shots, seed=seed),
        style=style.measure(dataset, styles or {}, rivals, shots=shots, seed=seed),
        diversity=diversity.measure(space, embeddings),
        vocabulary=vocabulary.measure(space, embeddings, words) if words else None,
    )


def _usual(embeddings: Embeddings) -> Lexicon | None:
    """The built-in vocabulary, where it can be asked."""
    if not isinstance(embeddings.embedder, TextEmbedder):
        return None
    try:
        return vocabulary.imagenet()
    except PluginError as error:
        progress.tell(f"novelty: no names were looked up: {error}")
        return None


def merged(old: Evidence | None, new: Evidence) -> Evidence:
    """The new evidence, and the old where there is no new: each kind, and each model, by itself.

    What is told of another dataset is dropped.
    """
    if old is None or old.dataset != new.dataset:
        return new
    kinds = {
        name: getattr(new, name) or getattr(old, name)
        for name in ("probes", "style", "diversity", "vocabulary", "reference")
    }
    return replace(new, naming={**old.naming, **new.naming}, **kinds)


def write(folder: Path, evidence: Evidence) -> None:
    """Put it into the folder of a dataset, its numbers rounded."""
    files.write_json(folder / FILE, _rounded(files.plain(evidence)))


def read(folder: Path) -> Evidence:
    """The evidence in the folder of a dataset; DataError if there is none or it is damaged."""
    if not (folder / FILE).exists():
        raise DataError(f"{folder}: no {FILE}; make it with `isekai novelty`")
    return files.read_json(folder / FILE, Evidence)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
