"""What a dataset's files tell of a picture beyond what it shows: scores, prompt, where it was."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from isekai import files
from isekai.errors import DataError
from isekai.parquet import SPLITS
from isekai.shards import of_split, readable

_COLUMNS = ("image_id", "original_id", "prompt", "scores", "image.path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    path: str = ""
    """In the folder of images that the dataset was built from."""
    original_id: str = ""
    """SHA-256 of the file there, if the dataset stores another one."""
    prompt: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


def read(folder: Path) -> dict[str, Detail]:
    """Image id -> details, from the Parquet files that `isekai build` wrote."""
    return {
        image_id: detail
        for split in SPLITS
        for shard in of_split(folder, split)
        for image_id, detail in _rows(shard)
    }


def _rows(shard: Path) -> Iterator[tuple[str, Detail]]:
    with readable(shard), pq.ParquetFile(shard) as file:
        missing = {name.split(".")[0] for name in _COLUMNS} - set(file.schema_arrow.names)
        if missing:
            raise DataError(f"{shard}: has no column '{min(missing)}'; build the dataset again")
        rows = file.read(columns=list(_COLUMNS)).to_pylist()
    for row in rows:
        yield (
            row["image_id"],
            Detail(
                path=row["image"]["path"] or "",
                original_id=row["original_id"] or "",
                prompt=row["prompt"] or "",
                scores=_scores(row["scores"], f"{shard}: image {row['image_id'][:12]}"),
            ),
        )


def _scores(text: str | None, where: str) -> dict[str, float]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        raise DataError(f"{where}: its scores are not JSON; build the dataset again") from None
    return files.parse(dict[str, float], value, f"{where}: scores")
