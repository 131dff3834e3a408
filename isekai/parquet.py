"""The Parquet files of a dataset: their columns, and how rows become files that viewers like.

Pictures are stored as the bytes they were drawn into. A row group holds pictures of one group of
concepts, at most `ROWS` of them: whoever wants one picture reads few others, and adding pictures to
one group leaves the bytes of the other groups' rows as they were.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from isekai.files import explained
from isekai.types import Concept, Group, ImageRecord, Split

SPLITS: tuple[Split, ...] = ("support", "query")
ROLES = ("novel", "foil")
ROWS = 96

_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})

COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "image": (_IMAGE, "the picture's file, byte for byte as it was drawn"),
    "image_id": (pa.string(), "SHA-256 of that file"),
    "group": (pa.int64(), "the group of concepts it belongs to (class label)"),
    "concept": (pa.int64(), "what it shows, as `<group>/<concept>` (class label)"),
    "name": (pa.string(), "the concept's name"),
    "role": (pa.int64(), "`novel` or `foil` (class label)"),
    "novelty": (pa.string(), "how a novel concept is new: `blend`, `material` or `form`"),
    "definition": (pa.string(), "the concept in a sentence"),
    "index": (pa.int32(), "the picture's number within its concept"),
    "seed": (pa.int64(), "the seed it was drawn from"),
    "prompt": (pa.string(), "the generator's text; empty if the source takes none"),
    "source": (pa.string(), "what kind of source drew it"),
    "model": (pa.string(), "the model or renderer"),
    "revision": (pa.string(), "its revision"),
    "width": (pa.int32(), "pixels"),
    "height": (pa.int32(), "pixels"),
}
"""Column -> its type and what it says, for the dataset card."""

_REPEATED = [
    *("group", "concept", "name", "role", "novelty", "definition"),
    *("prompt", "source", "model", "revision", "width", "height"),
]


class Row(NamedTuple):
    """A picture of the dataset: its record, and the concept it shows."""

    record: ImageRecord
    concept: Concept


def file(split: Split, folder: Path = Path("data")) -> Path:
    """Where a split lies; one file a split, named as the Hub names shards."""
    return folder / f"{split}-00000-of-00001.parquet"


def schema(groups: Sequence[Group]) -> pa.Schema:
    """Columns and types, with what the `datasets` library needs to know in the metadata."""
    names = {
        "group": [group.id for group in groups],
        "concept": [concept.id for group in groups for concept in group.concepts],
        "role": list(ROLES),
    }
    features: dict[str, object] = {}
    for column, (kind, _) in COLUMNS.items():
        if column in names:
            features[column] = {"names": names[column], "_type": "ClassLabel"}
        elif column == "image":
            features[column] = {"_type": "Image"}
        else:
            features[column] = {"dtype": str(kind), "_type": "Value"}
    fields = [pa.field(column, kind) for column, (kind, _) in COLUMNS.items()]
    return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": features}})})


def write(
    path: Path, rows: Sequence[Row], groups: Sequence[Group], read: Callable[[ImageRecord], bytes]
) -> None:
    """Write `rows`, which come sorted by group; `read` gives a picture's bytes, one at a time.

    Equal rows give equal bytes.
    """
    columns = schema(groups)
    compression = dict.fromkeys([*COLUMNS, "image.path"], "zstd") | {"image.bytes": "none"}
    del compression["image"]
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            with pq.ParquetWriter(
                out,
                columns,
                compression=compression,
                use_dictionary=_REPEATED,
                write_statistics=[name for name in COLUMNS if name != "image"],
            ) as writer:
                for chunk in _row_groups(rows):
                    table = _table(chunk, groups, columns, read)
                    writer.write_table(table, row_group_size=len(chunk))
            out.flush()
            os.fsync(out.fileno())


def _row_groups(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    start = 0
    for end in range(1, len(rows) + 1):
        if (
            end == len(rows)
            or end - start == ROWS
            or rows[end].concept.group != rows[start].concept.group
        ):
            yield rows[start:end]
            start = end


def _table(
    rows: Sequence[Row],
    groups: Sequence[Group],
    columns: pa.Schema,
    read: Callable[[ImageRecord], bytes],
) -> pa.Table:
    group_label = {group.id: label for label, group in enumerate(groups)}
    concepts = (concept.id for group in groups for concept in group.concepts)
    concept_label = {id: label for label, id in enumerate(concepts)}
    return pa.Table.from_pylist(
        [
            {
                "image": {"bytes": read(record), "path": record.path},
                "image_id": record.id,
                "group": group_label[concept.group],
                "concept": concept_label[concept.id],
                "name": concept.name,
                "role": ROLES.index(concept.role),
                "novelty": concept.novelty,
                "definition": concept.definition,
                "index": record.index,
                "seed": record.seed,
                "prompt": record.prompt,
                "source": record.source,
                "model": record.model,
                "revision": record.revision,
                "width": record.width,
                "height": record.height,
            }
            for record, concept in rows
        ],
        schema=columns,
    )
