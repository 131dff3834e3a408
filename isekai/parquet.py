"""The Parquet files of a dataset: their columns, and how rows become files that viewers like.

Pictures are stored as the bytes of their files. Where a row group ends depends on the rows near its
end alone, so that adding, changing or dropping rows leaves the bytes of nearly all others as they
were, and whoever has these need not be sent them again.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from isekai.errors import DataError
from isekai.files import explained, plain
from isekai.types import Concept, Group, ImageRecord, Split

SPLITS: tuple[Split, ...] = ("support", "query")
ROLES = ("novel", "foil")

FEWEST, MOST, ONE_IN = 25, 200, 75
"""A row group has 25 to 200 rows. It ends with a group of concepts, which is read together, or
after a row that its id picks, as one in 75 is: rows far from an edit end the same row groups."""

ROW_GROUP_BYTES = 200_000_000
"""A row group ends early rather than take more: what 200 pictures of 1 MB are."""

READABLE_BYTES = 300_000_000
"""The Hub's viewer refuses larger row groups."""

SHARD_BYTES = 500_000_000
"""A file ends with the row group before this, as `datasets.config.MAX_SHARD_SIZE` has it."""

_CHUNKS = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
"""Where pages end, by content: `datasets.config.DEFAULT_CDC_OPTIONS`."""

_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})

COLUMNS: dict[str, tuple[pa.DataType, str]] = {
    "image": (_IMAGE, "the picture's file, byte for byte"),
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
    "negative_prompt": (pa.string(), "what the generator was told to avoid"),
    "source": (pa.string(), "what kind of source drew it"),
    "model": (pa.string(), "the model or renderer"),
    "revision": (pa.string(), "its revision"),
    "settings": (pa.string(), "how it was drawn, as JSON"),
    "scores": (pa.string(), "what was measured of it when it was drawn, as JSON"),
    "width": (pa.int32(), "pixels"),
    "height": (pa.int32(), "pixels"),
    "original_id": (pa.string(), "SHA-256 of the file as drawn, if it is stored smaller"),
}
"""Column -> its type and what it says, for the dataset card."""

_REPEATED = [
    *("group", "concept", "name", "role", "novelty", "definition", "prompt", "negative_prompt"),
    *("source", "model", "revision", "settings", "width", "height"),
]
_SEARCHED = [
    *("image_id", "group", "concept", "name", "role", "novelty", "index", "seed"),
    *("source", "model", "width", "height", "original_id"),
]
"""Columns with statistics; of long texts they would be long, and nobody looks for a range."""


class Row(NamedTuple):
    """A picture of the dataset: its record, and the concept it shows."""

    record: ImageRecord
    concept: Concept


def file(split: Split, number: int = 0, total: int = 1) -> str:
    """What the Hub calls a split's file."""
    return f"{split}-{number:05d}-of-{total:05d}.parquet"


def schema(groups: Sequence[Group]) -> pa.Schema:
    """Columns and types, with what the `datasets` library needs to know in the metadata."""
    fields = [pa.field(column, kind) for column, (kind, _) in COLUMNS.items()]
    told = {"info": {"features": features(groups)}}
    return pa.schema(fields, {"huggingface": json.dumps(told)})


def features(groups: Sequence[Group]) -> dict[str, object]:
    """The columns in the words of the `datasets` library."""
    names = {
        "group": [group.id for group in groups],
        "concept": [concept.id for group in groups for concept in group.concepts],
        "role": list(ROLES),
    }
    made: dict[str, object] = {}
    for column, (kind, _) in COLUMNS.items():
        if column in names:
            made[column] = {"names": names[column], "_type": "ClassLabel"}
        elif column == "image":
            made[column] = {"_type": "Image"}
        else:
            made[column] = {"dtype": str(kind), "_type": "Value"}
    return made


def write(
    folder: Path,
    split: Split,
    rows: Sequence[Row],
    groups: Sequence[Group],
    read: Callable[[ImageRecord], bytes],
    *,
    originals: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a split's files into `folder`, which has none of it yet, and return their paths.

    `rows` come in the order in which they are to stand, those of a group together. `read` gives a
    picture's bytes, one at a time; those of one row group are in memory at once. `originals` has
    the id of a picture as it was drawn for the id of the smaller one that is stored in its place.
    Equal input gives equal bytes.
    """
    make = _Maker(groups, read, originals or {})
    parts: list[Path] = []
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            _write(_row_groups(rows, make), schema(groups), folder / f".{split}", parts)
            named = [folder / file(split, number, len(parts)) for number in range(len(parts))]
            for part, path in zip(parts, named, strict=True):
                part.replace(path)
        except BaseException:
            for part in parts:
                part.unlink(missing_ok=True)
            raise
    return named


def _write(
    row_groups: Iterator["_RowGroup"], columns: pa.Schema, stem: Path, parts: list[Path]
) -> None:
    """Write as many files as it takes; their paths are in `parts` as soon as they are there."""
    filled = 0
    with ExitStack() as opened:
        for row_group in row_groups:
            if not parts or filled + row_group.size > SHARD_BYTES:
                opened.close()
                parts.append(stem.with_name(f"{stem.name}-{len(parts):05d}.part"))
                writer = opened.enter_context(_writer(parts[-1], columns))
                filled = 0
            table = row_group.table(columns)
            writer.write_table(table, row_group_size=max(table.num_rows, 1))
            filled += row_group.size
            del row_group, table  # before the next pictures are read


@contextmanager
def _writer(path: Path, columns: pa.Schema) -> Iterator[pq.ParquetWriter]:
    compression = dict.fromkeys([*COLUMNS, "image.path"], "zstd") | {"image.bytes": "none"}
    del compression["image"]
    with path.open("wb") as out:
        with pq.ParquetWriter(
            out,
            columns,
            compression=compression,
            use_dictionary=_REPEATED,
            write_statistics=_SEARCHED,
            write_page_index=True,
            write_page_checksum=True,
            use_content_defined_chunking=_CHUNKS,
        ) as writer:
            writer.add_key_value_metadata({"content_defined_chunking": json.dumps(_CHUNKS)})
            yield writer
        out.flush()
        os.fsync(out.fileno())


def _row_groups(rows: Sequence[Row], make: "_Maker") -> Iterator["_RowGroup"]:
    """At least one, which has no rows if there are none."""
    taken = _RowGroup()
    for place, row in enumerate(rows):
        data, values = make(row)
        size = len(data) + sum(map(_bytes, values.values()))
        if size > READABLE_BYTES:
            raise DataError(
                f"{row.record.path}: {size:,} bytes; viewers read at most {READABLE_BYTES:,} at "
                "once: store it smaller"
            )
        if taken.size and taken.size + size > ROW_GROUP_BYTES:
            yield taken
            taken = _RowGroup()
        taken.add(data, values, size)
        if taken.rows == MOST or (taken.rows >= FEWEST and _may_end(rows, place)):
            yield taken
            taken = _RowGroup()
    if taken.rows or not rows:
        yield taken


def _may_end(rows: Sequence[Row], place: int) -> bool:
    """True behind a row that its id picks, and behind the last row of a group of concepts."""
    record, concept = rows[place]
    picked = int.from_bytes(blake2b(record.id.encode(), digest_size=8).digest()) % ONE_IN == 0
    return picked or (place + 1 < len(rows) and rows[place + 1].concept.group != concept.group)


def _bytes(value: object) -> int:
    return len(value.encode()) if isinstance(value, str) else 8


class _RowGroup:
    """Rows on their way into a file; their pictures are in memory once."""

    def __init__(self) -> None:
        self.size = 0
        self._values: list[dict[str, Any]] = []
        self._pictures = bytearray()
        self._ends = [0]

    @property
    def rows(self) -> int:
        return len(self._values)

    def add(self, data: bytes, values: dict[str, Any], size: int) -> None:
        self._values.append(values)
        self._pictures += data
        self._ends.append(len(self._pictures))
        self.size += size

    def table(self, columns: pa.Schema) -> pa.Table:
        """Nothing can be added afterwards."""
        ends = pa.array(self._ends, pa.int32()).buffers()[1]
        pictures = pa.Array.from_buffers(
            pa.binary(), self.rows, [None, ends, pa.py_buffer(self._pictures)]
        )
        paths = pa.array([values.pop("path") for values in self._values], pa.string())
        image = pa.StructArray.from_arrays([pictures, paths], fields=list(_IMAGE))
        others = pa.Table.from_pylist(self._values, schema=columns.remove(0))
        return pa.Table.from_arrays([image, *others.columns], schema=columns)


class _Maker:
    """Makes the values of a row, and its picture."""

    def __init__(
        self,
        groups: Sequence[Group],
        read: Callable[[ImageRecord], bytes],
        originals: Mapping[str, str],
    ) -> None:
        self._read = read
        self._originals = originals
        self._groups = {group.id: label for label, group in enumerate(groups)}
        concepts = (concept.id for group in groups for concept in group.concepts)
        self._concepts = {id: label for label, id in enumerate(concepts)}

    def __call__(self, row: Row) -> tuple[bytes, dict[str, Any]]:
        record, concept = row
        return self._read(record), {
            "path": record.path,
            "image_id": record.id,
            "group": self._groups[concept.group],
            "concept": self._concepts[concept.id],
            "name": concept.name,
            "role": ROLES.index(concept.role),
            "novelty": concept.novelty,
            "definition": concept.definition,
            "index": record.index,
            "seed": record.seed,
            "prompt": record.prompt,
            "negative_prompt": record.negative_prompt,
            "source": record.source,
            "model": record.model,
            "revision": record.revision,
            "settings": _json(record.settings),
            "scores": _json(record.scores),
            "width": record.width,
            "height": record.height,
            "original_id": self._originals.get(record.id),
        }


def _json(value: Mapping[str, object]) -> str:
    """Sorted, so that equal values have equal bytes."""
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False, allow_nan=False)
