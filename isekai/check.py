"""The check step: names everything that is wrong with a dataset's folder, in one go.

It reads downloads of strangers: what is large, damaged or made to mislead is a problem to name.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from isekai import dataset, episode_lists, files, progress, shard_check
from isekai.card import check as card_check
from isekai.card.check import Held
from isekai.dataset import Dataset, Manifest, fingerprint
from isekai.evidence.records import Evidence
from isekai.findings import Findings, Problem, printable, refusal
from isekai.intake import Rejection
from isekai.parquet import SPLITS
from isekai.shard_check import Rows
from isekai.shards import listing
from isekai.types import Episode, Example, Group, Split

_MANIFEST, _GROUPS, _REJECTED = "manifest.json", "groups.json", "rejected.jsonl"
_NOVELTY = "novelty.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What of a dataset is there and could be read."""

    name: str
    concepts: int
    splits: dict[Split, int]
    """Pictures."""
    files: int
    """Parquet files, as are the next two."""
    bytes: int
    row_groups: int
    lists: int
    """Files of episodes."""

    def line(self) -> str:
        told = ", ".join(f"{count:,} {split}" for split, count in self.splits.items())
        return (
            f"{self.name}: {told} pictures of {self.concepts} concepts; {self.files} files, "
            f"{self.row_groups} row groups, {self.bytes / 1e6:,.1f} MB; {self.lists} episode lists"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What is there and what is wrong."""

    path: str
    datasets: tuple[Found, ...]
    count: int
    """Of problems; of many alike in a file `problems` has the first few."""
    problems: tuple[Problem, ...]

    @property
    def is_well(self) -> bool:
        return not self.count

    def text(self) -> str:
        """A line for each problem, each dataset, and for all."""
        lines = [f"{problem.path}: {problem.what}" for problem in self.problems]
        lines += [found.line() for found in self.datasets]
        many = f"{self.count:,} problem{'s' * (self.count > 1)}"
        verdict = "as it should be" if self.is_well else many
        return "\n".join([*lines, f"{printable(self.path)}: {verdict}"])


def run(path: Path) -> Report:
    """Look at all files of a dataset, or of a folder of datasets, and at every picture.

    DataError where there is no dataset at all.
    """
    findings = Findings()
    found: list[Found] = []
    held: dict[str, dict[Split, Held]] = {}
    folders = _folders(path)
    for folder in folders:
        one, rows = _dataset(folder, findings)
        found.append(one)
        held[folder.name] = {
            split: Held(
                [file.name for file in listing(folder, split).found],
                rows.splits[split] if rows.is_whole else None,
            )
            for split in SPLITS
        }
        if folder != path and one.name != folder.name:
            findings.add(
                folder / _MANIFEST, f"its name is '{one.name}', expected that of its folder"
            )
    if path not in folders:
        card_check.look(path, held, findings)
    return Report(
        path=str(path),
        datasets=tuple(found),
        count=len(findings),
        problems=findings.problems(),
    )


def summary(report: Report) -> dict[str, object]:
    """What `isekai check --json` prints."""
    told: dict[str, object] = files.plain(report)
    return {"well": report.is_well, **told}


def _folders(path: Path) -> list[Path]:
    """The dataset in `path`, or those below, also where a manifest is missing."""
    if _is_dataset(path):
        return [path]
    inside = [one for one in sorted(path.glob("[a-z0-9]*/")) if _is_dataset(one)]
    if not inside:
        dataset.manifest(path)  # says what is there instead
    return inside


def _is_dataset(folder: Path) -> bool:
    if (folder / _MANIFEST).exists():
        return bool(refusal(folder / _MANIFEST)) or dataset.is_dataset(folder)
    return any(next(folder.glob(f"{split}-*.parquet"), None) for split in SPLITS)


def _dataset(folder: Path, findings: Findings) -> tuple[Found, Rows]:
    before = len(findings)
    told: Manifest | None = None
    with findings.of(folder / _MANIFEST):
        if findings.text(folder / _MANIFEST):
            told = dataset.manifest(folder)
    groups = _groups(folder / _GROUPS, findings)
    with progress.bar(told.images if told else 0) as advance:
        rows = shard_check.look(folder, groups, findings, advance)
    _texts(folder, told, findings)
    lists = _lists(folder, groups, rows, findings)
    if told and groups is not None and rows.is_whole:
        _against_manifest(folder, told, groups, rows, findings)
    settings = folder / episode_lists.FOLDER / episode_lists.SETTINGS
    if settings.parent.is_dir() and findings.text(settings) and len(findings) == before:
        with findings.of(settings):
            episode_lists.read(Dataset.open(folder))
    found = Found(
        name=printable(told.name) if told else folder.name,
        concepts=sum(len(group.concepts) for group in groups or ()),
        splits=rows.splits,
        files=rows.files,
        bytes=rows.bytes,
        row_groups=rows.row_groups,
        lists=lists,
    )
    return found, rows


def _groups(path: Path, findings: Findings) -> tuple[Group, ...] | None:
    groups = findings.json(path, tuple[Group, ...])
    seen: set[str] = set()
    for group in groups or ():
        for id in (group.id, *(concept.id for concept in group.concepts)):
            if id in seen:
                findings.add(path, f"'{id}' is there twice", kind="twice")
            seen.add(id)
        for concept in group.concepts:
            if concept.group != group.id:
                what = f"the concept '{concept.id}' is in the group '{group.id}'"
                findings.add(path, what, kind="group")
    return groups


def _against_manifest(
    folder: Path, told: Manifest, groups: Sequence[Group], rows: Rows, findings: Findings
) -> None:
    path = folder / _MANIFEST
    for split in SPLITS:
        if told.splits.get(split) != rows.splits[split]:
            findings.add(
                path,
                f"says {told.splits.get(split)} {split} pictures, where {rows.splits[split]} are",
            )
    if told.images != (count := sum(rows.splits.values())):
        findings.add(path, f"says {told.images} images, where {count} are")
    if fingerprint(groups, rows.entries) != told.fingerprint:
        findings.add(path, "its fingerprint is not that of the pictures and groups that are here")


def _texts(folder: Path, told: Manifest | None, findings: Findings) -> None:
    """The JSON files besides manifest and groups."""
    path = folder / _REJECTED
    rejected = findings.jsonl(path, Rejection)
    if told and rejected is not None and len(rejected) != told.rejected:
        findings.add(path, f"{len(rejected)} pictures, where {_MANIFEST} says {told.rejected}")
    for path in sorted(folder.glob("*.json")):
        if path.name not in (_MANIFEST, _GROUPS):
            raw = findings.json(path, dict[str, object])
            if path.name != _NOVELTY or raw is None:
                continue
            if told and raw.get("dataset") != told.fingerprint:
                findings.add(path, "tells of other pictures; build or measure again")
            else:
                findings.json(path, Evidence)


# ---------------------------------------------------------------- lists of episodes


def _lists(folder: Path, groups: Sequence[Group] | None, rows: Rows, findings: Findings) -> int:
    """How many there are. Everything they name has to be in the dataset."""
    paths = sorted((folder / episode_lists.FOLDER).glob("*.jsonl"))
    concepts = {concept.id for group in groups or () for concept in group.concepts}
    pictures = {(entry.image_id, entry.split) for entry in rows.entries}
    for path in paths:
        episodes = findings.jsonl(path, Episode) or []
        if groups is None or not rows.is_whole:
            continue
        for line, episode in enumerate(episodes, start=1):
            for kind, what in _unknown(episode, concepts, pictures):
                findings.add(path, f"line {line}: {what}", kind=kind)
    return len(paths)


def _unknown(
    episode: Episode, concepts: AbstractSet[str], pictures: AbstractSet[tuple[str, Split]]
) -> Iterator[tuple[str, str]]:
    sides: tuple[tuple[Split, tuple[Example, ...]], ...] = (
        ("support", episode.support),
        ("query", episode.queries),
    )
    named = {example.concept for _, examples in sides for example in examples}
    for concept in sorted(named.union(episode.labels) - concepts):
        yield "concept", f"names the concept '{concept}', which is not in {_GROUPS}"
    for split, examples in sides:
        for id in dict.fromkeys(example.image_id for example in examples):
            if (id, split) not in pictures:
                yield "picture", f"names {id[:12]!r}, which is no {split} picture"
