"""What a small Hub keeps of one repository: commits, branches, tags and pull requests."""

import base64
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The only commit of a repository that is served from a folder."""
LARGE = (".parquet", ".png", ".jpg", ".webp", ".safetensors", ".bin")
"""Kept beside git, by SHA-256, as the Hub's .gitattributes say."""


class Refused(Exception):
    """The answer is this status, with the Hub's code and words."""

    def __init__(self, status: int, code: str = "", words: str = "") -> None:
        super().__init__(words)
        self.status, self.code, self.words = status, code, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file of a commit."""

    oid: str
    """Of the blob, or of the pointer in its place."""
    size: int
    data: bytes | Path | None
    """None where only the client's own store has it."""
    sha256: str = ""
    """Set where the file is kept beside git."""

    def read(self) -> bytes:
        if self.data is None:
            raise Refused(501, "", "kept by hf_xet")
        return self.data.read_bytes() if isinstance(self.data, Path) else self.data

    @property
    def tag(self) -> str:
        """What the client takes for the file's identity."""
        return self.sha256 or hashlib.sha1(self.read()).hexdigest()

    def row(self, path: str) -> dict[str, object]:
        row: dict[str, object] = {"type": "file", "path": path, "oid": self.oid, "size": self.size}
        if self.sha256:
            row["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": 130}
        return row


def small(data: bytes) -> Stored:
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return Stored(oid=oid, size=len(data), data=data)


def large(sha256: str, size: int, data: bytes | None) -> Stored:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Stored(oid=small(pointer.encode()).oid, size=size, data=data, sha256=sha256)


@dataclass(slots=True, kw_only=True)
class Repo:
    """Commits by their ids, and what stands for them."""

    owner: str = ""
    private: bool = False
    members: set[str] | None = None
    """Tokens that may have the files; None: everyone may. The list of the files is open to all."""
    folder: Path | None = None
    """Served as it is at any time, under `main`, `v1` and COMMIT; it takes no uploads."""
    also: tuple[str, ...] = ()
    """Names that are listed besides, of files that aren't there."""
    commits: dict[str, dict[str, Stored]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.folder is None:
            self._add("main", {".gitattributes": small(b"*.parquet filter=lfs\n")}, "begin")

    def resolve(self, revision: str) -> str:
        if self.folder is not None:
            known: Mapping[str, str] = dict.fromkeys(("main", "v1", COMMIT), COMMIT)
        else:
            known = {**{id: id for id in self.commits}, **self.branches, **self.tags, **self.pulls}
        if revision not in known:
            raise Refused(404, "RevisionNotFound")
        return known[revision]

    def tree(self, revision: str = "main") -> dict[str, Stored]:
        commit = self.resolve(revision)
        return dict(self._live()) if self.folder is not None else dict(self.commits[commit])

    def rows(self, revision: str, below: str = "", *, deep: bool) -> list[dict[str, object]]:
        """Files and folders beneath a folder, as the Hub lists them."""
        prefix = f"{below}/" if below else ""
        tree = {name: file for name, file in self.tree(revision).items() if name.startswith(prefix)}
        if below and not tree:
            raise Refused(404, "EntryNotFound")
        rows = {}
        for name, file in tree.items():
            parts = name.removeprefix(prefix).split("/")
            for end in range(1, len(parts) if deep else min(len(parts), 2)):
                path = prefix + "/".join(parts[:end])
                rows[path] = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
            if deep or len(parts) == 1:
                rows[name] = file.row(name)
        return [rows[name] for name in sorted(rows)]

    def _live(self) -> Iterator[tuple[str, Stored]]:
        """A file is not read before it is sent: some are larger than any disk."""
        assert self.folder is not None
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                name = path.relative_to(self.folder).as_posix()
                oid = hashlib.sha1(name.encode()).hexdigest()
                yield name, Stored(oid=oid, size=path.stat().st_size, data=path)
        for name in self.also:
            yield name, Stored(oid="0" * 40, size=1, data=b"x")

    # ------------------------------------------------------------ writing

    def commit(
        self, revision: str, lines: Sequence[Mapping[str, dict]], blobs: Mapping[str, bytes | None]
    ) -> str:
        """Take a commit as the client sends it; all of it, or none."""
        where = self.pulls if revision in self.pulls else self.branches
        if revision not in where:
            raise Refused(404, "RevisionNotFound")
        head, *operations = lines
        told = head["value"]
        if told.get("parentCommit") not in (None, where[revision]):
            raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        tree = dict(self.commits[where[revision]])
        for line in operations:
            self._apply(tree, str(line["key"]), line["value"], blobs)
        return self._add(revision, tree, told["summary"])

    def _apply(
        self,
        tree: dict[str, Stored],
        key: str,
        value: Mapping[str, str],
        blobs: Mapping[str, bytes | None],
    ) -> None:
        path = value["path"]
        if key == "file":
            tree[path] = small(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in blobs:
                raise Refused(400, "", f"{path}: its content was never uploaded")
            tree[path] = large(value["oid"], int(value["size"]), blobs[value["oid"]])
        elif key == "deletedFile":
            if tree.pop(path, None) is None:
                raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
        else:
            raise Refused(400, "", f"unknown operation {key}")

    def _add(self, revision: str, tree: dict[str, Stored], message: str) -> str:
        told = f"{len(self.commits)} {id(self)} {message} {sorted(tree)}"
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[commit] = tree
        (self.pulls if revision in self.pulls else self.branches)[revision] = commit
        self.messages.append(message)
        return commit

    def mark(self, tag: str, revision: str) -> None:
        if tag in self.tags:
            raise Refused(409, "", "Tag reference exists already")
        self.tags[tag] = self.resolve(revision)

    def branch(self, name: str) -> None:
        if name in self.branches:
            raise Refused(409, "", "Reference already exists")
        self.branches[name] = self.branches["main"]

    def open_pull(self) -> tuple[int, str]:
        number = next(n for n in itertools.count(1) if f"refs/pr/{n}" not in self.pulls)
        self.pulls[f"refs/pr/{number}"] = self.branches["main"]
        return number, f"refs/pr/{number}"
