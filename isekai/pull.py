"""The pull step: brings datasets of the Hub into a folder, whole and verified."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from isekai import card, check, decisions, files, progress
from isekai.errors import DataError
from isekai.hub import File, published
from isekai.hub.published import Address, Published

_STAGED, _OLD = "new", "old"


def run(spec: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Bring what is at `owner/name[@revision][/config]` into the folder `out`, and return it.

    `out` is named after the repository if it isn't given. It appears when everything is there and
    has passed `isekai check`; until then the downloads are in the Hub's cache, so that the same
    command goes on. Of a repository with several datasets one, if it is named, comes with a card of
    its own. A folder with other files is refused, unless `force` replaces it.
    """
    address = Address.parse(spec)
    found = published.find(address)
    names = [found.choose(address.config)] if address.config else list(found.configs)
    is_part = len(names) < len(found.configs)
    wanted = found.of(names) if is_part else dict(found.files)
    out = out or Path(address.repo.split("/")[1])
    home = out.resolve()
    place = home.parent / f".{home.name}.pulling"
    with files.explained(out), files.lock(place):
        if os.path.lexists(place / _OLD) and not os.path.lexists(home):
            (place / _OLD).replace(home)  # killed between two renames
        try:
            if _holds(out, wanted, is_part):
                progress.tell(f"{out}: is {address.repo} at {found.commit[:12]}, nothing to do")
                return out
            if _is_taken(out) and not force:
                raise DataError(f"{out}: holds other files; give --force to replace it, or --out")
            _stage(found, wanted, place / _STAGED, is_part)
            _put(place, home)
        finally:
            shutil.rmtree(place, ignore_errors=True)
    progress.tell(f"{out}: {', '.join(names)} of {address.repo} at {found.commit[:12]}")
    return out


def _holds(out: Path, wanted: Mapping[str, File], is_part: bool) -> bool:
    """Whether the folder has these files and, but for cards that were made for a part, no other."""
    there = {
        path.relative_to(out).as_posix()
        for path in out.rglob("*")
        if path.is_file() and path.name not in (".lock", decisions.FILE)
    }
    if is_part:
        there = {name for name in there if "/" in name}
    return there == set(wanted) and all(file.is_same(out / n) for n, file in wanted.items())


def _is_taken(out: Path) -> bool:
    return os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir()))


def _stage(found: Published, wanted: Mapping[str, File], staged: Path, is_part: bool) -> None:
    folder = found.fetch(wanted)
    shutil.rmtree(staged, ignore_errors=True)
    for name in wanted:
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, staged / name)
    if is_part:
        card.write(staged)
    if problems := check.run(staged).problems:
        first = Path(problems[0].path)
        raise DataError(
            f"{found.repo}: {first.relative_to(staged).as_posix()}: {problems[0].what} "
            f"({len(problems)} problems in all); whoever pushed it has to mend it"
        )


def _put(place: Path, out: Path) -> None:
    """Swap the folders; what was there is put back if the new one can't take its place."""
    if not os.path.lexists(out):
        (place / _STAGED).replace(out)
        return
    shutil.rmtree(place / _OLD, ignore_errors=True)
    for made in out.glob(f"*/{decisions.FILE}"):
        if (place / _STAGED / made.parent.name).is_dir():  # what a person decided stays
            shutil.copyfile(made, place / _STAGED / made.parent.name / made.name)
    out.replace(place / _OLD)
    try:
        (place / _STAGED).replace(out)
    except BaseException:
        (place / _OLD).replace(out)
        raise
