"""Bring your own images: a folder `group/concept/*.png`, foils in `group/concept.foil/`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from PIL import Image

from isekai.errors import DataError, did_you_mean
from isekai.files import explained, sha256
from isekai.images import UnreadableImage, decode
from isekai.protocols import Rejected
from isekai.spec import slug
from isekai.types import Concept, Group, ImageRequest, Role

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")

MAX_BYTES = 400_000_000
"""Larger files are not read: the largest picture that is accepted is 256 MB as a raw TIFF."""

_LAYOUT = "expected <folder>/<group>/<concept>/*.png, with a foil in <group>/<concept>.foil/"


class FolderSource:
    """Pictures from a folder, in the order of their names; shrunk to the size, never enlarged."""

    model = "folder"
    processes = True
    settings: Mapping[str, object] = {}

    def __init__(self, path: Path) -> None:
        """Reads the names only. DataError with every problem of the layout."""
        self._root = path
        if not path.is_dir():
            raise DataError(f"{path}: no such folder; {_LAYOUT}")
        problems: list[str] = []
        self._files: dict[str, tuple[Path, ...]] = {}
        with explained(path):
            self._groups = tuple(self._group(entry, problems) for entry in self._inside(path))
        if not problems and not self._groups:
            problems.append(f"{path}: empty; {_LAYOUT}")
        if _pictures(path):
            problems.append(f"{path}: pictures lie directly in the folder; {_LAYOUT}")
        problems += _twice((group.id for group in self._groups), f"{path}: two group folders")
        if problems:
            raise DataError("\n".join(problems))

    @cached_property
    def revision(self) -> str:
        """A hash of every picture's place and content."""
        lines = [
            f"{concept} {file.name} {sha256(data) if isinstance(data, bytes) else data}\n"
            for concept, files in self._files.items()
            for file in files
            for data in (self._read(file),)
        ]
        return sha256("".join(lines).encode(errors="surrogateescape"))[:16]

    def groups(self) -> tuple[Group, ...]:
        return self._groups

    def count(self, concept: Concept) -> int:
        if concept.id not in self._files:
            raise DataError(
                f"{self._root}: no folder for '{concept.id}'"
                + did_you_mean(concept.id, self._files)
            )
        return len(self._files[concept.id])

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Image.Image | Rejected]:
        for request in requests:
            file = self._files[request.concept.id][request.index]
            data = self._read(file)
            if isinstance(data, Rejected):
                yield data
                continue
            try:
                image = decode(data)
            except UnreadableImage as error:
                yield Rejected(f"{_named(file)}: {error}")
                continue
            image.thumbnail((request.size, request.size), Image.Resampling.LANCZOS, None)
            yield image

    def _read(self, file: Path) -> bytes | Rejected:
        """The file's bytes, or why they are not read."""
        if not self._holds(file):
            return Rejected(f"{_named(file)}: a link that leads out of the folder")
        try:
            if not file.is_file():
                return Rejected(f"{_named(file)}: not a file")
            if file.stat().st_size > MAX_BYTES:
                return Rejected(f"{_named(file)}: {file.stat().st_size:,} bytes; too large")
            return file.read_bytes()
        except OSError as error:
            return Rejected(f"{_named(file)}: {error.strerror}")

    def _group(self, folder: Path, problems: list[str]) -> Group:
        group = _id(folder, folder.name, problems)
        concepts = []
        inside = self._inside(folder)
        if _pictures(folder):
            problems.append(f"{folder}: pictures lie in the group's folder; {_LAYOUT}")
        elif not inside:
            problems.append(f"{folder}: a group without concept folders; {_LAYOUT}")
        for entry in inside:
            role: Role = "foil" if entry.name.casefold().endswith(".foil") else "novel"
            name = entry.name[: -len(".foil")] if role == "foil" else entry.name
            concept = Concept(
                id=f"{group}/{_id(entry, name, problems)}", name=_words(name), role=role
            )
            concepts.append(concept)
            self._files[concept.id] = _pictures(entry)
            below = self._inside(entry)
            if below:
                problems.append(f"{below[0]}: a folder inside a concept's folder; {_LAYOUT}")
            elif not self._files[concept.id]:
                others = sorted({file.suffix or file.name for file in entry.iterdir()})
                found = f"only {', '.join(others)} here" if others else "empty"
                problems.append(f"{entry}: {found}; pictures end in {', '.join(SUFFIXES)}")
        problems += _twice((c.id for c in concepts), f"{folder}: two concept folders")
        return Group(id=group, title=_words(folder.name), concepts=tuple(concepts))

    def _inside(self, folder: Path) -> list[Path]:
        """The folder's folders, by name; a link out of the root is refused."""
        found = sorted(entry for entry in folder.iterdir() if _shown(entry) and entry.is_dir())
        for entry in found:
            if not self._holds(entry):
                raise DataError(f"{entry}: a link that leads out of {self._root}; copy it there")
        return found

    def _holds(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self._root.resolve())
        except RuntimeError:  # a loop of links, before Python 3.13
            return False


def _named(file: Path) -> str:
    """The name as text that can be written, whatever bytes it is made of."""
    return file.name.encode(errors="backslashreplace").decode()


def _shown(path: Path) -> bool:
    return not path.name.startswith(".")


def _pictures(folder: Path) -> tuple[Path, ...]:
    return tuple(
        sorted(
            entry
            for entry in folder.iterdir()
            if _shown(entry) and entry.suffix.lower() in SUFFIXES and not entry.is_dir()
        )
    )


def _words(name: str) -> str:
    return " ".join(name.replace("_", " ").split())


def _id(folder: Path, name: str, problems: list[str]) -> str:
    if not slug(name):
        problems.append(f"{folder}: the name has no letter a-z or digit; rename the folder")
    return slug(name)


def _twice(ids: Iterable[str], what: str) -> list[str]:
    return [f"{what} are called '{id}'; rename one" for id, n in Counter(ids).items() if n > 1]
