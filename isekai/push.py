"""The push step: brings a folder of datasets to the Hub, and makes sure that it is there.

What a killed or refused push has sent stays at the Hub: the same command sends what is missing.
"""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isekai import check, hub, progress
from isekai.errors import DataError
from isekai.files import lock
from isekai.hub import File, sending
from isekai.hub.sending import CARD, Difference
from isekai.hub.writing import overtaken, patiently, writing

_REF = re.compile(r"(?!.*(?:\.\.|//|\.lock$|/$))[A-Za-z0-9][\w./-]*", re.A)
KIND: hub.Kind = "dataset"

_LARGE = 5_000_000
"""Bytes of a file that is worth requests of its own."""


def run(
    dataset: Path,
    repo: str,
    *,
    private: bool = False,
    revision: str | None = None,
    tag: str | None = None,
    create_pr: bool = False,
    message: str | None = None,
    dry_run: bool = False,
    force: bool = False,
) -> str:
    """Send the datasets of a folder, and return where people see them.

    `revision` is a branch, made if there is none of the name, or `refs/pr/3`; `tag` marks what is
    there at the end. With `create_pr` a pull request is opened instead. Everything changes in one
    commit, so that nobody reads half of it, and is compared by hashes when it is there. Datasets
    that are only in the repository stay; files of one that is sent go if they are no part of it.
    `force` overwrites what isn't from `isekai`. A dry run tells what would be sent, and sends none.

    The login is that of huggingface_hub: $HF_TOKEN, or what `hf auth login` keeps.
    """
    target = _Target(repo, revision or "main", private, tag, create_pr, force)
    _refuse_names(target)
    sending.contents(dataset)  # refuses what is none, before a lock is made in it
    with lock(dataset):  # nothing of it may change until all is there
        return _push(dataset, target, message, dry_run=dry_run)


def _push(dataset: Path, target: "_Target", message: str | None, *, dry_run: bool) -> str:
    """Compare, send, verify and mark."""
    repo, tag = target.repo, target.tag
    files = sending.contents(dataset)
    if problems := (report := check.run(dataset)).problems:
        raise DataError(
            f"{problems[0].path}: {problems[0].what} ({len(problems)} problems in all; see "
            f"`isekai check {dataset}`); nothing was sent"
        )
    hub.hush()
    with tempfile.TemporaryDirectory(prefix="isekai-") as aside:
        there = _there(target, dry_run=dry_run)
        files = _with_card(target, files, there, Path(aside))
        found = sending.difference(files, there.files)
        _refuse_strangers(target, found, there)
        if tag and there.exists:
            with writing(repo, target.revision):
                _refuse_tag(target, _tagged(target), there.commit if found.is_empty else "")
        text = found.text(hub.sends_chunks())
        if dry_run:
            made = "" if there.exists else f"{repo} would be made; "
            return f"{text}\n{made}nothing was sent"
        progress.tell(text)
        message = message or f"Send {', '.join(one.name for one in report.datasets)}"
        commit, page = _send(target, files, there, found, message)
    if tag:
        _mark(target, tag, commit)
    return page


@dataclass(frozen=True, slots=True)
class _Target:
    repo: str
    revision: str
    private: bool
    tag: str | None
    create_pr: bool
    force: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _There:
    """What the repository holds at the revision."""

    exists: bool
    commit: str
    files: Mapping[str, File]
    card: str | None


def _refuse_names(target: _Target) -> None:
    if not hub.is_name(target.repo):
        raise DataError(f"'{target.repo}' names no repository; expected owner/name")
    for what, name in (("revision", target.revision), ("tag", target.tag)):
        if name is not None and not _REF.fullmatch(name):
            raise DataError(f"'{name}' can't be the name of a {what}; take letters, digits, . - _")
    if re.fullmatch(r"[0-9a-f]{40}", target.revision):
        raise DataError(f"{target.repo}: {target.revision} is a commit; give a branch to add to")
    if target.create_pr and target.revision != "main":
        raise DataError(
            f"{target.repo}: a pull request is made against main; leave out --revision, or "
            "--create-pr to add to that revision"
        )
    if target.create_pr and target.tag:
        raise DataError(f"{target.repo}: a pull request gets no tag; tag it when it is merged")


# ---------------------------------------------------------------- what is there


def _there(target: _Target, *, dry_run: bool) -> _There:
    """What is at the revision; it is made, unless nothing is to be sent, if it isn't there."""
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    repo, api = target.repo, HfApi()
    if get_token() is None and not dry_run:
        raise DataError(
            f"{repo}: no login; log in with `hf auth login`, or set $HF_TOKEN to a token that may "
            "write"
        )
    with writing(target.repo, target.revision):
        try:
            told = patiently(lambda: api.dataset_info(repo))
        except RepositoryNotFoundError:
            if dry_run:
                return _There(exists=False, commit="", files={}, card=None)
            patiently(
                lambda: api.create_repo(
                    repo, repo_type=KIND, private=target.private or None, exist_ok=True
                )
            )
            told = patiently(lambda: api.dataset_info(repo))
        if target.private and not told.private:
            raise DataError(
                f"{repo}: is public; make it private in its settings, or leave out --private"
            )
        try:
            return _seen(target, target.revision)
        except RevisionNotFoundError:
            if target.revision.startswith("refs/"):
                raise
            if not dry_run:
                patiently(
                    lambda: api.create_branch(
                        repo, repo_type=KIND, branch=target.revision, exist_ok=True
                    )
                )
            return _seen(target, "main" if dry_run else target.revision)


def _seen(target: _Target, revision: str) -> _There:
    """Ask the Hub, not its cache: a commit may have come a moment ago."""
    from huggingface_hub import HfApi, hf_hub_download

    repo = target.repo
    told = patiently(lambda: HfApi().dataset_info(repo, revision=revision))
    commit = str(told.sha)
    files = patiently(lambda: hub.held(repo, commit, KIND))
    card = None
    if CARD in files:
        path = patiently(lambda: hf_hub_download(repo, CARD, revision=commit, repo_type=KIND))
        card = Path(path).read_text(encoding="utf-8", errors="replace")
    return _There(exists=True, commit=commit, files=files, card=card)


def _with_card(
    target: _Target, files: Mapping[str, Path], there: _There, aside: Path
) -> dict[str, Path]:
    """The files, with a card that also lists the datasets that stay in the repository."""
    kept = sending.difference(files, there.files).kept
    if there.card is None or not kept:
        return dict(files)
    own = files[CARD].read_text(encoding="utf-8")
    (aside / CARD).write_text(sending.merged(own, there.card, kept), encoding="utf-8")
    return {**files, CARD: aside / CARD}


def _refuse_strangers(target: _Target, found: Difference, there: _There) -> None:
    """What others put into the repository is not overwritten unasked."""
    card = there.card or ""
    if target.force or sending.is_own(card):
        return
    blank = {CARD} if sending.is_blank(card) else set()
    if lost := [name for name in (*found.changed, *found.removed) if name not in blank]:
        raise DataError(
            f"{target.repo}: its {lost[0]} is not from `isekai push`; choose another repository, "
            "or overwrite it with --force"
        )


# ---------------------------------------------------------------- sending


def _send(
    target: _Target, files: Mapping[str, Path], there: _There, found: Difference, message: str
) -> tuple[str, str]:
    """The commit that holds the files, and the page to look at."""
    page = hub.page(target.repo, KIND)
    if found.is_empty:
        progress.tell(f"{target.repo}: everything is there, nothing to do")
        return there.commit, page
    operations = _uploaded(target, files, found)
    revision = target.revision
    if target.create_pr:
        pull = _opened(target, message)
        revision, page = pull.git_reference, pull.url
    elif revision != "main":
        page = f"{page}/tree/{revision}"
    try:
        commit = _committed(target, revision, files, there, operations, message)
        _verify(target, files, commit)
    except DataError as error:
        if target.create_pr:
            raise DataError(f"{error}; go on with --revision {revision}") from None
        raise
    return commit, page


def _uploaded(target: _Target, files: Mapping[str, Path], found: Difference) -> list[Any]:
    """All operations of the commit, with the content of large files at the Hub already.

    A large file is sent by itself: what has arrived when a push is killed is not sent again.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    added = [CommitOperationAdd(name, files[name]) for name in (*found.added, *found.changed)]
    small = [one for one in added if one.upload_info.size < _LARGE]
    batches = [[one] for one in added if one.upload_info.size >= _LARGE]
    with progress.bar(len(added)) as advance, writing(target.repo, target.revision):
        for batch in (*batches, *([small] if small else ())):
            advance(0, batch[0].path_in_repo)
            HfApi().preupload_lfs_files(
                target.repo,
                batch,
                repo_type=KIND,
                revision=target.revision,
                create_pr=target.create_pr,
                free_memory=False,
            )
            advance(len(batch))
    return [*added, *(CommitOperationDelete(name, is_folder=False) for name in found.removed)]


def _opened(target: _Target, message: str) -> Any:
    """A pull request. A second try could open a second one, so there is none."""
    from huggingface_hub import HfApi

    with writing(target.repo, target.revision):
        return HfApi().create_pull_request(target.repo, message, repo_type=KIND)


def _committed(
    target: _Target,
    revision: str,
    files: Mapping[str, Path],
    there: _There,
    operations: list[Any],
    message: str,
) -> str:
    """The commit, verified. Where an answer is lost, what is there says whether it was made."""
    from huggingface_hub import HfApi

    tries = 0

    def attempt() -> str:
        nonlocal tries
        tries += 1
        if tries > 1 and (made := _arrived(target, revision, files, there.commit)):
            return made
        told = HfApi().create_commit(
            target.repo,
            operations,
            commit_message=message,
            repo_type=KIND,
            revision=revision,
            parent_commit=there.commit,
        )
        return str(told.oid)

    with writing(target.repo, target.revision):
        return patiently(attempt)


def _arrived(target: _Target, revision: str, files: Mapping[str, Path], before: str) -> str | None:
    """The commit at the head, if it holds the files; None if nothing has happened."""
    now = _seen(target, revision)
    if now.commit == before:
        return None
    if sending.difference(files, now.files).is_empty:
        return now.commit
    raise overtaken(target.repo, target.revision)


def _verify(target: _Target, files: Mapping[str, Path], commit: str) -> None:
    """DataError unless the commit holds the files, by their hashes, and none that was to go."""
    with writing(target.repo, target.revision):
        found = sending.difference(files, patiently(lambda: hub.held(target.repo, commit, KIND)))
    if wrong := (*found.added, *found.changed, *found.removed):
        raise DataError(
            f"{target.repo}: {wrong[0]} is not there as it is here; it may have changed meanwhile: "
            "run the same command again"
        )


def _mark(target: _Target, tag: str, commit: str) -> None:
    """Tag the commit; a tag that is there already has to be at it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    with writing(target.repo, target.revision):
        try:
            patiently(lambda: api.create_tag(target.repo, tag=tag, revision=commit, repo_type=KIND))
        except HfHubHTTPError as error:
            if error.response.status_code != 409:
                raise
            _refuse_tag(target, _tagged(target), commit)


def _tagged(target: _Target) -> str | None:
    """The commit that the tag stands for; None if there is no such tag."""
    from huggingface_hub import HfApi

    refs = patiently(lambda: HfApi().list_repo_refs(target.repo, repo_type=KIND))
    return next((ref.target_commit for ref in refs.tags if ref.name == target.tag), None)


def _refuse_tag(target: _Target, there: str | None, commit: str) -> None:
    if there not in (None, commit):
        raise DataError(
            f"{target.repo}: the tag '{target.tag}' is there already, at another commit; choose "
            "another name"
        )
