"""Files at the border: atomic writes, journals, locks, and reading with every problem named."""

import dataclasses
import errno
import hashlib
import json
import os
import platform
import secrets
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, get_args, get_origin

from isekai import __version__
from isekai.errors import BusyError, DataError, IsekaiError, did_you_mean

T = TypeVar("T")

_TEMPORARY = ".isekai-part-"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- writing


def write_bytes(path: Path, data: bytes) -> None:
    """Put `data` at `path` whole or not at all: temporary name, fsync, rename."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{_TEMPORARY}{secrets.token_hex(6)}")
        try:
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    write_text(path, "".join(_line(row) for row in rows))


def cache_folder() -> Path:
    """Where things are kept that can be made again: $ISEKAI_CACHE, or ~/.cache/isekai."""
    return Path(os.environ.get("ISEKAI_CACHE") or "~/.cache/isekai").expanduser()


def sweep_temporaries(folder: Path) -> None:
    """Remove what a killed run left half-written. Call it with the folder's lock held."""
    for path in folder.rglob(_TEMPORARY + "*"):
        path.unlink(missing_ok=True)


def plain(value: object) -> Any:
    """Dataclasses, mappings and sequences as what JSON knows; other values unchanged."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def _line(row: object) -> str:
    return json.dumps(plain(row), ensure_ascii=False, separators=(",", ":")) + "\n"


class Journal:
    """A JSON Lines file that grows by whole rows and survives a kill between any two bytes.

    Opening it cuts off a torn last line, so that the next row starts on a line of its own.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)  # nothing is left to write when it closes
            data = path.read_bytes()
            self._file.truncate(data.rfind(b"\n") + 1)

    def append(self, rows: Sequence[object]) -> None:
        """Whole, or not at all: what was written of it is taken off again if it fails."""
        data = "".join(_line(row) for row in rows).encode()
        with explained(self._path):
            before = os.fstat(self._file.fileno()).st_size
            try:
                while data:
                    data = data[self._file.write(data) :]
                os.fsync(self._file.fileno())
            except BaseException:
                self._file.truncate(before)
                raise

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold the folder alone; the operating system lets go when the process dies."""
    from filelock import FileLock, Timeout

    with explained(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            raise DataError(f"{folder}: no folder can be made here; choose another path") from None
        guard = FileLock(folder / ".lock", timeout=0)
    try:
        with explained(folder):
            guard.acquire()
    except Timeout:
        raise BusyError(
            f"{folder}: another isekai process works here; wait for it or choose another folder"
        ) from None
    try:
        yield
    finally:
        guard.release()


_MENDABLE = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again to go on",
    errno.EFBIG: "the file grew past the limit of the file system or of `ulimit -f`",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EACCES: "permission denied; choose a folder you may write to",
    errno.EPERM: "permission denied; choose a folder you may write to",
    errno.EROFS: "the file system is read-only; choose a folder you may write to",
    errno.ENOTDIR: "a part of this path is a file, not a folder; choose another path",
    errno.EISDIR: "this is a folder, not a file; choose another path",
    errno.EEXIST: "this is a file, not a folder; choose another path",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter one",
}


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals into one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = _MENDABLE.get(error.errno or 0)
        if reason is None:
            raise
        named = Path(os.fsdecode(error.filename)) if error.filename else path
        told = path if named.name.startswith(_TEMPORARY) else named
        raise DataError(f"{told}: {reason}") from error


# ---------------------------------------------------------------- reading


def read_json(path: Path, kind: type[T]) -> T:
    """The JSON file as `kind`; DataError with every problem."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON (line {error.lineno}: {error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all measure
        raise DataError(f"{path}: not JSON that can be read ({error})") from None
    return parse(kind, value, str(path))


def read_jsonl(path: Path, kind: type[T]) -> list[T]:
    """All whole rows; a torn last line, left by a kill, is dropped; a missing file has no rows."""
    if not path.exists():
        return []
    lines = read_text(path, whole_lines=True).split("\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            told = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise DataError(f"{path}: line {number} is not JSON ({told})") from None
        rows.append(parse(kind, value, f"{path}: line {number}"))
    return rows


def read_text(path: Path, *, whole_lines: bool = False) -> str:
    """The file as UTF-8 text, if asked without a last line that has no end yet."""
    try:
        with explained(path):
            data = path.read_bytes()
        return (data[: data.rfind(b"\n") + 1] if whole_lines else data).decode()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parse(kind: type[T], value: object, where: str, *, problem: type[IsekaiError] = DataError) -> T:
    """`value` as `kind`; all problems at once, each as `where: key.path what is wrong`."""
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(value)  # type: ignore[no-any-return, arg-type]
    except ValidationError as error:
        lines = [f"{where}: {_problem(kind, e)}" for e in error.errors(include_url=False)]
    raise problem(lines if problem is not DataError else "\n".join(lines))


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _problem(kind: Any, error: Any) -> str:
    loc = error["loc"]
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc).lstrip(".")
    if error["type"] == "unexpected_keyword_argument":
        return f"{where} is not a field{did_you_mean(str(loc[-1]), _fields_at(kind, loc[:-1]))}"
    if error["type"] == "missing":
        return f"{where} is missing"
    given = repr(error["input"])
    given = given if len(given) <= 60 else given[:57] + "..."
    message = error["msg"].replace("Input should be", "expected").removeprefix("Value error, ")
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        near = did_you_mean(error["input"], error["ctx"]["expected"].split("'")[1::2])
        message += near if "did you mean" in near else ""
    return f"{where or 'this'} is {given}: {message[0].lower()}{message[1:]}"


def _fields_at(kind: Any, loc: Sequence[object]) -> list[str]:
    """Field names of the dataclass that a pydantic error location points into."""
    for key in loc:
        if dataclasses.is_dataclass(kind):
            kind = typing.get_type_hints(kind).get(str(key), object)
        else:
            kind = next((a for a in reversed(get_args(kind)) if a is not Ellipsis), object)
        if type(None) in get_args(kind) and get_origin(kind) not in (tuple, list, dict):
            kind = next(a for a in get_args(kind) if a is not type(None))
    return [f.name for f in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []


# ---------------------------------------------------------------- what made an output


def environment(*packages: str) -> dict[str, str]:
    """Versions that an output carries: ours, Python's, the platform's, and these packages'."""
    versions = {
        "isekai": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
    }
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "absent"
    return versions
