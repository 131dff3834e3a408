"""Looks through a dataset's Parquet files for all that is wrong with them.

They may come from anyone. What is in memory at a time is a row group as it is stored, whose size
the file's footer tells, and one row.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from isekai import files, parquet
from isekai.dataset import Entry
from isekai.errors import DataError
from isekai.findings import Findings
from isekai.images import UnreadableImage, decode
from isekai.parquet import COLUMNS, MOST, READABLE_BYTES, ROLES, SPLITS
from isekai.progress import Advance
from isekai.shards import listing, readable
from isekai.types import Concept, Group, Split

_NEEDED = ("image", "image_id", "concept", "index")


@dataclass(slots=True)
class Rows:
    """What the files hold."""

    entries: list[Entry] = field(default_factory=list)
    splits: dict[Split, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    """Rows that were read."""
    files: int = 0
    bytes: int = 0
    row_groups: int = 0
    is_whole: bool = True
    """False if some row could not be read: then it is not known what else there is."""


def look(
    config: Path, groups: Sequence[Group] | None, findings: Findings, advance: Advance
) -> Rows:
    """Every row of the dataset in `config`; `groups` is None if these can't be read."""
    rows = Rows()
    looked = _Look(groups, findings, rows, advance)
    for split in SPLITS:
        found, missing, odd = listing(config, split)
        for name in missing:
            findings.add(config / name, "no such file", kind=f"missing {split}")
        for name in odd:
            what = f"its name does not go with the other files of {split}"
            findings.add(config / name, what)
        rows.is_whole = rows.is_whole and not missing
        for path in found:
            looked.at(path, split)
    return rows


class _Look:
    """Goes from file to file and keeps what it has seen."""

    def __init__(
        self,
        groups: Sequence[Group] | None,
        findings: Findings,
        rows: Rows,
        advance: Advance,
    ) -> None:
        self._groups = groups
        self._concepts = [concept for group in groups or () for concept in group.concepts]
        self._findings = findings
        self._rows = rows
        self._advance = advance
        self._seen: dict[str, str] = {}
        """Image id -> the file and row that have it."""

    def at(self, path: Path, split: Split) -> None:
        read = False
        with self._findings.of(path), readable(path):
            if not path.is_file():
                raise DataError(f"{path}: is no file")
            self._rows.files += 1
            self._rows.bytes += path.stat().st_size
            with pq.ParquetFile(path, page_checksum_verification=True) as opened:
                self._file(path, split, opened)
            read = True
        self._rows.is_whole = self._rows.is_whole and read

    def _file(self, path: Path, split: Split, opened: pq.ParquetFile) -> None:
        right = self._columns(path, opened.schema_arrow)
        self._features(path, opened.schema_arrow.metadata or {})
        if missing := [name for name in _NEEDED if name not in right]:
            self._rows.is_whole = False
            self._findings.add(path, f"its rows can't be told without {', '.join(missing)}")
            return
        first = 0
        for number in range(opened.metadata.num_row_groups):
            row_group = opened.metadata.row_group(number)
            self._rows.row_groups += 1
            if self._is_too_large(path, number, row_group):
                self._rows.is_whole = False
            else:
                self._row_group(path, split, opened, number, first, right)
            first += row_group.num_rows

    def _row_group(
        self,
        path: Path,
        split: Split,
        opened: pq.ParquetFile,
        number: int,
        first: int,
        columns: Sequence[str],
    ) -> None:
        read = False
        with self._findings.of(path), readable(path):
            batches = opened.iter_batches(1, row_groups=[number], columns=columns)
            for row, batch in enumerate(batches, first):
                self._advance()
                self._rows.splits[split] += 1
                for kind, what in self._row(path, split, row, batch.to_pylist()[0]):
                    self._findings.add(path, f"row {row}: {what}", kind=kind)
            read = True
        self._rows.is_whole = self._rows.is_whole and read

    # ------------------------------------------------------------ what a file says of itself

    def _columns(self, path: Path, found: pa.Schema) -> list[str]:
        """Names of the columns that are as they should be."""
        right = []
        for name, (kind, _) in COLUMNS.items():
            places = found.get_all_field_indices(name)
            if len(places) != 1:
                what = "has several columns" if places else "has no column"
                self._findings.add(path, f"{what} '{name}'")
            elif (given := found.field(places[0]).type) != kind:
                self._findings.add(path, f"column '{name}' is {given}, expected {kind}")
            else:
                right.append(name)
        for name in found.names:
            if name not in COLUMNS:
                self._findings.add(path, f"column '{name}' is none of a dataset's", kind="column")
        return right

    def _features(self, path: Path, metadata: Mapping[bytes, bytes]) -> None:
        """What the `datasets` library is told has to be what the columns and the groups are."""
        try:
            told = json.loads(metadata.get(b"huggingface", b"null"))
            given = told["info"]["features"]
        except (ValueError, RecursionError, LookupError, TypeError):
            given = None
        if not isinstance(given, dict):
            self._findings.add(
                path, "its metadata has no features for the `datasets` library, which would show "
                "dicts in the place of pictures"
            )  # fmt: skip
        elif self._groups is not None:
            wanted = parquet.features(self._groups)
            different = sorted(
                name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name)
            )
            if different:
                self._findings.add(
                    path, "the features in its metadata are not those of its columns and of "
                    f"groups.json: {', '.join(different)}"
                )  # fmt: skip

    def _is_too_large(self, path: Path, number: int, row_group: pq.RowGroupMetaData) -> bool:
        stored = sum(
            row_group.column(place).total_compressed_size for place in range(row_group.num_columns)
        )
        size: int = max(row_group.total_byte_size, stored)
        if size > READABLE_BYTES:
            self._findings.add(
                path,
                f"row group {number} takes {size:,} bytes; viewers read at most {READABLE_BYTES:,}",
                kind="large",
            )
        count: int = row_group.num_rows
        if count > MOST:
            self._findings.add(
                path,
                f"row group {number} has {count:,} rows, expected at most {MOST}",
                kind="long",
            )
        return size > READABLE_BYTES or count > MOST

    # ------------------------------------------------------------ what a row says

    def _row(
        self, path: Path, split: Split, row: int, values: Mapping[str, Any]
    ) -> Iterator[tuple[str, str]]:
        """The kind of each problem of the row, and the problem."""
        id, label, index = (values[name] for name in ("image_id", "concept", "index"))
        if id is None or label is None or index is None:
            yield "empty", "has no id, concept or index"
            return
        if id in self._seen:
            yield "twice", f"image {id[:12]} is in the dataset twice, first in {self._seen[id]}"
        self._seen.setdefault(id, f"{path.name}, row {row}")
        yield from _of_picture(id, values)
        yield from _of_texts(id, values)
        if self._groups is None:
            return
        if not 0 <= label < len(self._concepts):
            yield "label", f"concept {label} is not in groups.json"
            return
        concept = self._concepts[label]
        yield from self._of_concept(concept, values)
        entry = Entry(image_id=id, concept=concept.id, role=concept.role, split=split, index=index)
        self._rows.entries.append(entry)

    def _of_concept(self, concept: Concept, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """What of the row is not as groups.json has it."""
        ids = [group.id for group in self._groups or ()]
        wanted = {
            "group": ids.index(concept.group) if concept.group in ids else None,
            "name": concept.name,
            "role": ROLES.index(concept.role),
            "novelty": concept.novelty,
            "definition": concept.definition,
        }
        for name, value in wanted.items():
            if name in values and values[name] != value:
                yield name, f"its {name} is not that of {concept.id} in groups.json"


def _of_picture(id: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data = (values["image"] or {}).get("bytes") or b""
    if files.sha256(data) != id:
        yield "bytes", f"image {id[:12]} is damaged: its id is not that of its bytes"
        return
    try:
        size = decode(data).size
    except UnreadableImage as error:
        yield "picture", f"image {id[:12]} can't be shown: {error}"
        return
    told = (values.get("width", size[0]), values.get("height", size[1]))
    if told != size:
        yield "size", f"image {id[:12]} is {size[0]}x{size[1]} pixels, not {told[0]}x{told[1]}"


def _of_texts(id: str, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("settings", "scores"):
        try:
            told = json.loads(values[name]) if name in values else {}
        except (ValueError, RecursionError, TypeError):
            told = None
        if not isinstance(told, dict):
            yield name, f"its {name} are no JSON object"
    if values.get("original_id") == id:
        yield "original", "its original_id is its own id, so that nothing was made smaller"
