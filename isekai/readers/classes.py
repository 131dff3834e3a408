"""`classes:FOLDER`: a folder of class folders, as ImageNet, ImageNet-A or ObjectNet come."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from isekai import files
from isekai.dataset import Dataset
from isekai.errors import DataError, did_you_mean
from isekai.readers.classed import Choice, Grouping, assemble
from isekai.readers.pictures import Seen, Shelf, look_at
from isekai.sources.folder import SUFFIXES

_LAYOUT = "expected FOLDER/<class>/<image>"


def read(
    folder: Path,
    group: Grouping = "single",
    per_class: int = 64,
    at_least: int = 1,
    query_share: float = 0.5,
    names: Path | None = None,
) -> Dataset:
    """Each class a novel concept, called as its folder is or as the file `names` says.

    `single` makes each class a group of its own: the task `pair` then matches classes by the seed,
    each in one pair only. `adjacent` puts two and two neighbours in the order of folder names into
    a group, for the task `twin`: where folders are WordNet ids, neighbours are alike.

    `per_class` pictures of a class at most are taken, by the hash of their names, and split by the
    hash of their content. `names` is a JSON object or lines of folder and name; of several names
    with commas, as in LOC_synset_mapping.txt, the first counts.
    """
    choice = Choice(per_class=per_class, at_least=at_least, query_share=query_share, group=group)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {_LAYOUT}")
    with files.explained(folder):
        pictures = {
            entry.name: {path.name: path for path in _taken(entry, choice)}
            for entry in _folders(folder)
        }
    pictures = {name: paths for name, paths in pictures.items() if paths}
    if not pictures:
        raise DataError(f"{folder}: no class folder holds images; {_LAYOUT}")
    called = _names(names, list(pictures)) if names else {name: name for name in pictures}
    looked = look_at((path for paths in pictures.values() for path in paths.values()), folder)
    shelf = {what.id: path for path, what in looked.items() if isinstance(what, Seen)}
    return assemble(
        {
            name: {file: looked[path] for file, path in paths.items()}
            for name, paths in pictures.items()
        },
        called,
        choice,
        path=folder,
        fetch=Shelf(shelf).fetch,
    )


def _folders(folder: Path) -> list[Path]:
    """The class folders by name; a link out of the folder is refused."""
    found = sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    for entry in found:
        if not entry.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{entry}: a link that leads out of {folder}; copy it there")
    return found


def _taken(entry: Path, choice: Choice) -> list[Path]:
    names = [
        path.name
        for path in entry.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    return [entry / name for name in choice.take(names)]


def _names(path: Path, classes: Sequence[str]) -> Mapping[str, str]:
    """Folder -> name; DataError for classes that the file doesn't name."""
    if path.suffix.lower() == ".json":
        told = files.read_json(path, dict[str, str])
    else:
        pairs = (line.split(None, 1) for line in files.read_text(path).splitlines())
        told = {pair[0]: pair[1].split(",")[0].strip() for pair in pairs if len(pair) == 2}
    missing = [name for name in classes if not told.get(name, "").strip()]
    if missing:
        raise DataError(
            f"{path}: has no name for {len(missing)} classes, among them '{missing[0]}'"
            f"{did_you_mean(missing[0], told) if len(told) < 20 else ''}"
        )
    return told
