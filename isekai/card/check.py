"""Holds a repository's README.md and croissant.json to the datasets beside them."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from isekai import digests
from isekai.errors import DataError
from isekai.findings import Findings
from isekai.parquet import SPLITS
from isekai.types import Split

CROISSANT = "croissant.json"


class Held(NamedTuple):
    """What a dataset has of a split."""

    files: Sequence[str]
    """Their names, in its folder."""
    rows: int | None
    """None if some could not be read."""


Datasets = Mapping[str, Mapping[Split, Held]]
"""Name -> split -> what is there."""


def look(root: Path, datasets: Datasets, findings: Findings) -> None:
    """Take down what README.md and, if it is there, croissant.json say wrongly of `datasets`."""
    card = root / "README.md"
    with findings.of(card):
        if findings.text(card):
            told = _front_matter(card)
            for what in (*_configs(told, datasets), *_counts(told, datasets)):
                findings.add(card, what, kind="config")
    if (root / CROISSANT).exists():
        shards = {
            root / name / file
            for name, own in datasets.items()
            for held in own.values()
            for file in held.files
        }
        _croissant(root / CROISSANT, shards, findings)


def _front_matter(card: Path) -> Mapping[str, Any]:
    """The YAML at the head of the card; DataError if there is none."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        told = metadata_load(card)
    except (YAMLError, ValueError, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{card}: its head is no YAML ({reason})") from None
    if not told:
        raise DataError(f"{card}: has no YAML at its head, so that no dataset is found")
    return told


def _configs(told: Mapping[str, Any], datasets: Datasets) -> Iterator[str]:
    listed: dict[str, object] = {}
    for entry in _entries(told.get("configs")):
        name = _word(entry.get("config_name"))
        if name in listed:
            yield f"lists the config '{name}' twice"
        listed[name] = entry.get("data_files")
    for name in sorted(listed.keys() - datasets.keys()):
        yield f"lists the config '{name}', which is not there"
    everything = [
        f"{name}/{file}"
        for name, own in datasets.items()
        for held in own.values()
        for file in held.files
    ]
    for name, own in datasets.items():
        if name not in listed:
            yield f"lists no config '{name}', so that this dataset is not found"
            continue
        patterns = {_word(one.get("split")): one.get("path") for one in _entries(listed[name])}
        for split in sorted(patterns.keys() - set(SPLITS)):
            yield f"config '{name}' has a split '{split}', which is not there"
        for split in SPLITS:
            wanted = {f"{name}/{file}" for file in own[split].files}
            yield from _files(name, split, patterns.get(split), wanted, everything)


def _files(
    name: str, split: Split, given: object, wanted: set[str], everything: Sequence[str]
) -> Iterator[str]:
    """What is wrong with the paths that a config gives for a split."""
    patterns = given if isinstance(given, list) else [] if given is None else [given]
    named: set[str] = set()
    for pattern in map(_word, patterns):
        found = {file for file in everything if fnmatchcase(file, pattern)}
        if not found:
            yield f"config '{name}' names {pattern}, which is not there"
        named |= found
    for file in sorted(wanted - named):
        yield f"config '{name}' leaves out {file} of the split {split}"
    for file in sorted(named - wanted):
        yield f"config '{name}' names {file} for the split {split}"


def _counts(told: Mapping[str, Any], datasets: Datasets) -> Iterator[str]:
    """`datasets` refuses to load what has another number of rows than `dataset_info` says."""
    given = told.get("dataset_info")
    for info in _entries([given] if isinstance(given, dict) else given):
        name = _word(info.get("config_name"))
        for entry in _entries(info.get("splits")):
            for split, held in datasets.get(name, {}).items():
                count = entry.get("num_examples")
                if entry.get("name") == split and held.rows not in (None, count):
                    yield f"'{name}' has {held.rows} rows in {split}, not {_word(count)} as it says"


def _croissant(path: Path, shards: set[Path], findings: Findings) -> None:
    """Hold the file to Croissant by its own package, if that is installed."""
    root = path.parent
    told = findings.json(path, dict[str, object])
    if told is None:
        return
    for file in _entries(told.get("distribution")):
        named, digest = root / _word(file.get("contentUrl")), _word(file.get("sha256"))
        if named in shards and digest != digests.sha256([named])[named]:
            what = f"has another SHA-256 for {named.relative_to(root).as_posix()}; build again"
            findings.add(path, what, kind="digest")
    if find_spec("mlcroissant") is None:
        return
    if _fetches(told):
        findings.add(path, "names a context that has to be fetched; expected is one in the file")
        return
    for what in _errors(told):
        findings.add(path, what, kind="croissant")


def _errors(told: Mapping[str, object]) -> list[str]:
    """What the format's own package finds wrong; what it only recommends is left out."""
    with _quiet():
        import mlcroissant

        try:
            mlcroissant.Dataset(jsonld=told)
        except mlcroissant.ValidationError as error:
            issues = str(error).split("warning(s)")[0].splitlines()
            found = [line.removeprefix("  -  ") for line in issues if line.startswith("  -  ")]
            return found or [f"not Croissant ({error})"]
        except Exception as error:  # it meets odd documents with almost any class
            return [f"not Croissant ({type(error).__name__}: {error})"]
        return []


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what the package warns of: recommendations, and what is old in its packages."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _fetches(told: Mapping[str, object]) -> bool:
    """True for JSON-LD whose reader would ask an address in it for more."""
    context = told.get("@context")
    if not isinstance(context, dict):
        return True
    left: list[object] = [context, *(value for key, value in told.items() if key != "@context")]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "@context" in value or "@import" in value:
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


def _entries(value: object) -> list[Mapping[str, Any]]:
    """The tables of a list; whatever else there may be is none."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _word(value: object) -> str:
    """A text or a number as it is. References make YAML of a few lines endless once written out."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < 2**63:
        return str(value)
    return "nothing" if value is None else f"<{type(value).__name__}>"
