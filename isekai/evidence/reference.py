"""Nearest neighbours of a dataset's pictures in a folder of the user's: have they been seen there.

No link is followed and nothing outside the folder is opened; damaged files are told.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from isekai import files, neighbours
from isekai.embeddings import Embeddings
from isekai.errors import DataError
from isekai.evidence.records import Match, Matches, Reference
from isekai.evidence.space import Space, filled, made, part, pictures
from isekai.readers.naming import printable
from isekai.readers.pictures import Seen, Shelf, look_at
from isekai.sources.folder import SUFFIXES
from isekai.statistics import metrics
from isekai.types import EncodedImage

NEAREST = 3
"""Matches told of each concept."""


def measure(space: Space, embeddings: Embeddings, folder: Path, *, threshold: float) -> Reference:
    """How near the pictures of each concept come to those below the folder.

    From a cosine of `threshold` on, two pictures count as copies: it has to fit the embedder, as
    `isekai.dedup.Limits` says.
    """
    paths, left_out = find(folder)
    if not paths:
        told = f", {len(left_out)} files could not be used" if left_out else ""
        raise DataError(f"{folder}: no pictures for reference ({', '.join(SUFFIXES)}){told}")
    best_rows, best_cosines = neighbours.nearest(space.vectors, _embedded(embeddings, paths), 1)
    rows, cosines = best_rows[:, 0], best_cosines[:, 0]
    names = [paths[id] for id in paths]
    concepts: dict[str, Matches] = {}
    hits: list[tuple[str, bool]] = []
    for group, concept in filled(space.dataset):
        ids = pictures(space.dataset, concept.id)
        places = [space.places[id] for id in ids]
        near = cosines[places]
        hits += [(group.id, bool(hit)) for hit in near >= threshold]
        best = sorted(range(len(ids)), key=lambda place: (-near[place], ids[place]))[:NEAREST]
        concepts[concept.id] = Matches(
            nearest=tuple(
                Match(
                    image_id=ids[place],
                    path=_relative(folder, names[rows[places[place]]]),
                    cosine=float(near[place]),
                )
                for place in best
            ),
            copies=part(int(np.sum(near >= threshold)), len(ids)),
        )
    overall = metrics.share(hits)
    assert overall is not None  # a dataset has pictures
    return Reference(
        made=made(embeddings, threshold=threshold, folder=printable(folder.resolve().name)),
        pictures=len(paths),
        left_out={_relative(folder, path): why for path, why in sorted(left_out.items())},
        concepts=concepts,
        overall=overall,
    )


def find(folder: Path) -> tuple[dict[str, Path], dict[Path, str]]:
    """The pictures below the folder by their content, and what was not looked at, and why."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; --reference takes a folder of pictures")
    with files.explained(folder):
        there = list(_walk(folder))
    left_out = {path: "a link; links are not followed" for path in there if path.is_symlink()}
    paths: dict[str, Path] = {}
    for path, seen in look_at([path for path in there if path not in left_out], folder).items():
        if isinstance(seen, Seen):
            paths.setdefault(seen.id, path)
        else:
            left_out[path] = seen
    return paths, left_out


def _walk(folder: Path) -> Iterator[Path]:
    """Files that are called like pictures, and linked folders; hidden ones are passed over."""

    def refuse(error: OSError) -> None:
        raise error

    for root, inside, names in os.walk(folder, onerror=refuse, followlinks=False):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        here = Path(root)
        yield from (here / name for name in inside if (here / name).is_symlink())
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and (path.suffix.lower() in SUFFIXES):
                yield path


def _embedded(embeddings: Embeddings, paths: dict[str, Path]) -> NDArray[np.float32]:
    shelf = Shelf(paths)
    return embeddings.of(list(paths), lambda id: EncodedImage(id=id, data=shelf.fetch(id)))


def _relative(folder: Path, path: Path) -> str:
    return printable(path.relative_to(folder).as_posix())
