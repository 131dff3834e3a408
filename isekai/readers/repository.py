"""Data sets on the Hugging Face Hub: their names, downloads, and what goes wrong in one line."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from isekai.errors import DataError


def is_name(text: str) -> bool:
    """`owner/name`, as the Hub writes it."""
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", text, re.A))


def download(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder in the Hub's cache that holds the files of these patterns.

    The library follows $HF_TOKEN or a login, $HF_HUB_OFFLINE and $HF_HOME.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    with reached(repo, revision):
        return Path(
            snapshot_download(
                repo, repo_type="dataset", revision=revision, allow_patterns=list(patterns)
            )
        )


def ask(repo: str, revision: str | None) -> None:
    """DataError if the Hub doesn't give the data set, with what it says."""
    from huggingface_hub import HfApi

    with reached(repo, revision):
        HfApi().dataset_info(repo, revision=revision)


def cache_folder() -> Path:
    """Where the Hub's client keeps files; its links stay inside."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


@contextmanager
def reached(repo: str, revision: str | None) -> Iterator[None]:
    """Say what the Hub refused and what to do, without the request: it could hold a secret."""
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise DataError(
            f"{repo}: accept its terms on its page on the Hub, then log in with `hf auth login`"
        ) from None
    except errors.RevisionNotFoundError:
        raise DataError(f"{repo}: has no revision '{revision}'; see its page on the Hub") from None
    except errors.RepositoryNotFoundError:
        raise DataError(
            f"{repo}: no such folder here, and no such data set on the Hub, or a private one: "
            "correct the name, or log in with `hf auth login` or $HF_TOKEN"
        ) from None
    except errors.HfHubHTTPError as error:
        raise _refused(repo, error.response.status_code) from None
    except (errors.LocalEntryNotFoundError, ConnectionError, httpx2.HTTPError) as error:
        if isinstance(error.__cause__, errors.HfHubHTTPError):
            raise _refused(repo, error.__cause__.response.status_code) from None
        raise DataError(
            f"{repo}: the Hub can't be reached ({type(error).__name__}) and the data set isn't in "
            "its cache; go online, or give a folder"
        ) from None


def _refused(repo: str, status: int) -> DataError:
    what = "the login is not accepted: renew it with `hf auth login`, or mend $HF_TOKEN"
    if status not in (401, 403):
        what = "try again later; what was downloaded is kept"
    return DataError(f"{repo}: the Hub answers {status}; {what}")
