"""What the folder of a finished dataset tells, for its card, citation and Croissant file."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from isekai import dataset, episode_lists, files
from isekai.dataset import Dataset, Manifest
from isekai.errors import DataError
from isekai.intake import Rejection
from isekai.parquet import COLUMNS, SPLITS
from isekai.shards import of_split, readable
from isekai.types import Concept, Group, Split

NOVELTY = "novelty.json"

_LIGHT = ("source", "model", "revision", "width", "height")


class Shard(NamedTuple):
    """A Parquet file of a dataset."""

    name: str
    split: Split
    rows: int
    size: int
    """Bytes."""
    unpacked: int
    """Bytes of its columns, uncompressed."""
    sha256: str


class Maker(NamedTuple):
    """Who drew a picture."""

    source: str
    model: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One dataset, without its pictures; nothing in it is made up elsewhere."""

    folder: Path
    manifest: Manifest
    groups: tuple[Group, ...]
    shards: tuple[Shard, ...]
    counts: Mapping[tuple[str, Split], int]
    """(concept, split) -> pictures."""
    makers: Mapping[Maker, int]
    """Who drew -> pictures."""
    sizes: Mapping[tuple[int, int], int]
    """(width, height) in pixels -> pictures."""
    left_out: Mapping[str, int]
    """Reason -> pictures."""
    novelty: bool
    """Whether evidence of it was measured, as the folder's novelty.json."""
    lists: episode_lists.Settings | None
    """How the episodes that lie beside the pictures were drawn."""

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def license(self) -> str:
        return str(self.manifest.settings.get("license", "unknown"))

    @property
    def concepts(self) -> tuple[Concept, ...]:
        return tuple(concept for group in self.groups for concept in group.concepts)

    def of(self, split: Split) -> tuple[Shard, ...]:
        return tuple(shard for shard in self.shards if shard.split == split)


def read(root: Path) -> tuple[Facts, ...]:
    """The facts of every finished dataset in the folder, by name.

    One that is being built, or was given up, is passed over: it has no facts yet. DataError if none
    is finished, or if what one holds contradicts itself.
    """
    found = []
    for folder in dataset.configs(root).values():
        told = files.read_json(folder / "manifest.json", dict[str, object])
        if told.get("complete"):
            found.append(_facts(folder))
    if not found:
        raise DataError(f"{root}: holds no finished dataset; make one with `isekai build`")
    return tuple(found)


def version(all_facts: Sequence[Facts]) -> str:
    """Twelve digits that change with any picture, concept or split, and with nothing else."""
    if len(all_facts) == 1:
        return all_facts[0].manifest.fingerprint[:12]
    lines = "".join(f"{one.name} {one.manifest.fingerprint}\n" for one in all_facts)
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def title(all_facts: Sequence[Facts]) -> str:
    """The first dataset's title, and how many more there are."""
    more = len(all_facts) - 1
    return all_facts[0].manifest.title + (f", and {more} more" if more else "")


def authors(all_facts: Sequence[Facts]) -> tuple[str, ...]:
    """Whom the builds name as authors, each once; often nobody."""
    named = (one.manifest.settings.get("authors") for one in all_facts)
    return tuple(
        dict.fromkeys(str(who) for some in named if isinstance(some, list) for who in some)
    )


def _facts(folder: Path) -> Facts:
    opened = Dataset.open(folder)
    manifest = dataset.manifest(folder)
    if manifest.name != folder.name:
        raise DataError(
            f"{folder}: its manifest.json calls it {manifest.name!r}; name the folder so, or build "
            "the dataset again"
        )
    shards = [(split, path) for split in SPLITS for path in of_split(folder, split)]
    light = Counter(row for _, path in shards for row in _light(path))
    makers: Counter[Maker] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    for (source, model, revision, width, height), count in light.items():
        makers[Maker(source or "", model or "", revision or "")] += count
        sizes[width or 0, height or 0] += count
    rejected = files.read_jsonl(folder / "rejected.jsonl", Rejection)
    return Facts(
        folder=folder,
        manifest=manifest,
        groups=opened.groups,
        shards=tuple(_shard(split, path) for split, path in shards),
        counts=Counter((entry.concept, entry.split) for entry in opened.entries),
        makers=dict(sorted(makers.items())),
        sizes=dict(sorted(sizes.items())),
        left_out=dict(sorted(Counter(one.reason for one in rejected).items())),
        novelty=(folder / NOVELTY).exists(),
        lists=episode_lists.settings(folder),
    )


def _light(path: Path) -> Iterator[tuple[str, str, str, int, int]]:
    """Source, model, revision, width and height of each row."""
    with readable(path), pq.ParquetFile(path) as opened:
        there = opened.schema_arrow
        for name in _LIGHT:
            if name not in there.names or there.field(name).type != COLUMNS[name][0]:
                raise DataError(f"{path}: has no column '{name}' as expected; build it again")
        table: pa.Table = opened.read(columns=list(_LIGHT))
    yield from zip(*(table[name].to_pylist() for name in _LIGHT), strict=True)


def _shard(split: Split, path: Path) -> Shard:
    with readable(path):
        footer = pq.read_metadata(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    groups = (footer.row_group(number) for number in range(footer.num_row_groups))
    return Shard(
        name=path.name,
        split=split,
        rows=footer.num_rows,
        size=path.stat().st_size,
        unpacked=sum(group.total_byte_size for group in groups),
        sha256=digest,
    )
