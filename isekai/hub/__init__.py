"""The Hugging Face Hub: what a repository holds, downloads, and refusals in one line.

The library follows $HF_ENDPOINT, $HF_TOKEN or a login, $HF_HOME and $HF_HUB_OFFLINE.
"""

import glob
import hashlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from isekai import digests
from isekai.errors import DataError
from isekai.files import explained

Kind = Literal["model", "dataset"]

_WORDS: dict[Kind, str] = {"model": "model", "dataset": "data set"}


def is_name(text: str) -> bool:
    """`owner/name`, as the Hub writes it."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.A))


def page(repo: str, kind: Kind) -> str:
    """Where people look at the repository."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def sends_chunks() -> bool:
    """Whether the client leaves out what of a large file the Hub has already."""
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None


def cache_folder() -> Path:
    """Where the Hub's client keeps files; its links stay inside."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


# ---------------------------------------------------------------- what there is


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What the Hub says of a file, without its bytes."""

    size: int
    blob: str
    """Git's SHA-1 of it, or of what stands for it in git."""
    sha256: str
    """Empty for a file that lies in git itself, and where the Hub's cache doesn't say it."""

    def is_same(self, path: Path) -> bool:
        """Whether the file here has the same bytes, by a hash of them."""
        size = path.stat().st_size
        if size != self.size:
            return False
        found = digests.sha256([path])[path]
        if self.sha256:
            return found == self.sha256
        return self.blob in (_blob(_POINTER % (found.encode(), size)), _blob(path.read_bytes()))


_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n"
"""What stands in git for a large file: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def tree(repo: str, revision: str, kind: Kind, *, here: bool = True) -> tuple[str, dict[str, File]]:
    """The commit that the revision stands for, and the files it holds.

    Where the Hub can't be reached, a branch stands for the commit that it stood for when it last
    could, if the Hub's cache has it: so all of the library's clients do, and the run records the
    commit. `here` as for `reached`.
    """
    from huggingface_hub import HfApi

    with reached(repo, revision, kind, here=here):
        commit = HfApi().resolve_revision(repo, revision=revision, repo_type=kind).resolved
        return commit, held(repo, commit, kind)


def held(repo: str, commit: str, kind: Kind) -> dict[str, File]:
    """The files of a commit; the library's own errors where the Hub refuses."""
    from huggingface_hub import HfApi, RepoFile, get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    try:
        rows = get_cached_repo_tree(repo, revision=commit, repo_type=kind)
    except CachedRepoTreeNotFoundError:
        found = HfApi().list_repo_tree(repo, recursive=True, revision=commit, repo_type=kind)
        rows = [row for row in found if isinstance(row, RepoFile)]
    if out := [row.path for row in rows if _leads_elsewhere(row.path)]:
        raise DataError(
            f"{repo}: lists {out[0]!r}, which leads elsewhere; don't use this {_WORDS[kind]}"
        )
    return {
        row.path: File(size=row.size, blob=row.blob_id, sha256=row.lfs.sha256 if row.lfs else "")
        for row in rows
    }


def listed(repo: str, revision: str, kind: Kind = "model") -> tuple[str, dict[str, int]]:
    """The commit that the revision stands for, and the size in bytes of each file it holds."""
    commit, there = tree(repo, revision, kind)
    return commit, {name: file.size for name, file in there.items()}


def _leads_elsewhere(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/") or not name.isprintable()


def ask(repo: str, revision: str | None, kind: Kind) -> None:
    """DataError if the Hub doesn't give the repository, with what it says."""
    from huggingface_hub import HfApi

    with reached(repo, revision, kind):
        HfApi().repo_info(repo, revision=revision, repo_type=kind)


def header(repo: str, commit: str, folder: Path, name: str) -> tuple[int, int]:
    """How many parameters a safetensors file holds, and in how many bytes.

    The file in the folder is read or, where there is none, as much of the Hub's as tells it.
    """
    from huggingface_hub import HfApi, parse_local_safetensors_file_metadata
    from huggingface_hub.errors import SafetensorsParsingError

    path = folder / name
    try:
        if path.is_file() or not commit:
            with explained(path):
                found = parse_local_safetensors_file_metadata(path)
        else:
            with reached(repo, commit, "model"):
                found = HfApi().parse_safetensors_file_metadata(repo, name, revision=commit)
    except SafetensorsParsingError:
        raise DataError(f"{repo}: {name} is no whole safetensors file; get it again") from None
    tensors = found.tensors.values()
    ends = [tensor.data_offsets[1] for tensor in tensors]
    return sum(tensor.parameter_count for tensor in tensors), max(ends, default=0)


# ---------------------------------------------------------------- downloads


def fetch_file(
    repo: str, commit: str, name: str, kind: Kind = "model", *, here: bool = True
) -> Path:
    """One file, in the folder of the Hub's cache that holds this commit."""
    from huggingface_hub import hf_hub_download

    hush()
    with reached(repo, commit, kind, here=here):
        return Path(hf_hub_download(repo, name, revision=commit, repo_type=kind))


def download(
    repo: str, revision: str | None, patterns: Sequence[str], kind: Kind, *, here: bool = True
) -> Path:
    """The folder in the Hub's cache that holds the files of these patterns."""
    from huggingface_hub import snapshot_download

    hush()
    with reached(repo, revision, kind, here=here):
        return Path(
            snapshot_download(
                repo, repo_type=kind, revision=revision, allow_patterns=list(patterns)
            )
        )


def fetch(
    repo: str,
    commit: str,
    files: Mapping[str, int],
    folder: Path,
    kind: Kind = "model",
    *,
    here: bool = True,
) -> None:
    """Bring these files of the commit, of so many bytes each, to the folder that `fetch_file` gave.

    Nothing is asked of the Hub if they are all there. What an earlier try brought is kept.
    """
    missing = _missing(folder, files)
    if not missing:
        return
    needed, free = sum(missing.values()), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{repo}: {_gigabytes(needed)} are still to be downloaded and {_gigabytes(free)} are "
            f"free in {folder}; free some space, or choose another disk with $HF_HOME"
        )
    for name in missing:  # the library takes any file that is there for whole
        (folder / name).resolve().unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
    download(repo, commit, [glob.escape(name) for name in missing], kind, here=here)
    if left := _missing(folder, files):
        raise DataError(f"{repo}: {min(left)} was not downloaded whole; run the same command again")


# ---------------------------------------------------------------- refusals


@contextmanager
def reached(repo: str, revision: str | None, kind: Kind, *, here: bool = True) -> Iterator[None]:
    """Say what the Hub refused and what to do, without the request: it could hold a secret.

    `here` is true where the name could have been that of a folder.
    """
    import httpx2
    from huggingface_hub import constants, errors, get_token

    where, what = page(repo, kind), _WORDS[kind]
    nothing, path = ("no such folder here, and ", "path") if here else ("", "name")
    try:
        with explained(Path(constants.HF_HUB_CACHE)):
            yield
    except errors.GatedRepoError:
        raise DataError(
            f"{repo}: gated, and this login has no access; ask for it on {where}"
            if get_token()
            else f"{repo}: gated; accept its terms on {where}, then log in with `hf auth login` or "
            "$HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError(
            f"{repo}: has no branch, tag or commit '{revision}'; see {where}/tree/main"
        ) from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{repo}: {nothing}no such {what} on the Hub, or a private one; "
            "correct the name, or log in with `hf auth login` or $HF_TOKEN"
        ) from None
    except errors.HfHubHTTPError as error:
        raise _refused(repo, error.response.status_code) from None
    except (
        errors.LocalEntryNotFoundError,
        errors.RevisionResolutionError,
        ConnectionError,
        httpx2.HTTPError,
    ) as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _refused(repo, error.__cause__.response.status_code) from None
        if told := re.search(r"HTTP status \w+ error \((\d{3}) ", str(error)):  # hf_xet's words
            raise _refused(repo, int(told[1])) from None
        raise DataError(
            f"{repo}: {nothing.removesuffix('and ')}not in the Hub's cache, and $HF_HUB_OFFLINE "
            f"forbids asking the Hub; correct the {path}, or unset it"
            if constants.HF_HUB_OFFLINE
            else f"{repo}: {nothing}the Hub can't be reached; correct the {path}, or go online"
        ) from None


def _refused(repo: str, status: int) -> DataError:
    what = "try again later; what was transferred is kept"
    if status in (401, 403):
        what = "the login is not accepted: renew it with `hf auth login`, or mend $HF_TOKEN"
    return DataError(f"{repo}: the Hub answers {status}; {what}")


def _missing(folder: Path, files: Mapping[str, int]) -> dict[str, int]:
    """The files that aren't there whole."""
    return {
        name: size
        for name, size in files.items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != size
    }


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def hush() -> None:
    """No bars where nobody looks at them."""
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
