"""Datasets that were pushed to the Hub: their addresses, and their files, fetched and verified."""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isekai import hub
from isekai.dataset import NAME, Dataset
from isekai.errors import DataError, did_you_mean
from isekai.hub import File, sending

SCHEME = "hf://"
_ADDRESS = re.compile(
    r"(?:hf://)?(?:datasets/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>refs/pr/\d+|[^/]+))?"
    r"(?:/(?P<config>[^/]+))?/?"
)
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """`owner/name[@revision][/config]`: a repository, and maybe one dataset of it."""

    repo: str
    revision: str
    config: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """The address, with or without `hf://` and `datasets/`; %2F is a / in a revision."""
        found = _ADDRESS.fullmatch(text)
        if not found or not hub.is_name(found["repo"]):
            raise DataError(
                f"'{text}' is no address; expected {SCHEME}owner/name[@revision][/config]"
            )
        revision = urllib.parse.unquote(found["revision"] or "main")
        return cls(repo=found["repo"], revision=revision, config=found["config"] or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A commit of a repository with datasets."""

    repo: str
    commit: str
    files: Mapping[str, File]
    """Those of the datasets, and those that tell of them all; nothing else is ever fetched."""

    @property
    def configs(self) -> tuple[str, ...]:
        suffix = f"/{_MANIFEST}"
        return tuple(n.removesuffix(suffix) for n in self.files if n.endswith(suffix))

    def choose(self, config: str) -> str:
        """The dataset of that name or, without one, the only one there is."""
        names = self.configs
        if config and config not in names:
            raise DataError(
                f"{self.repo}: holds no dataset '{config}'{did_you_mean(config, names)}"
            )
        if not config and len(names) > 1:
            which = ", ".join(f"{SCHEME}{self.repo}/{name}" for name in names)
            raise DataError(f"{self.repo}: holds several datasets; give one: {which}")
        return config or names[0]

    def of(self, configs: Sequence[str]) -> dict[str, File]:
        """The files of these datasets."""
        return {n: file for n, file in self.files.items() if n.split("/")[0] in configs}

    def fetch(self, files: Mapping[str, File]) -> Path:
        """The folder of the Hub's cache that holds these files, each as its hash says.

        Nothing is asked of the Hub if they are all there.
        """
        first = next(name for name in files if name.endswith(_MANIFEST))
        path = hub.fetch_file(self.repo, self.commit, first, "dataset", here=False)
        folder = path.parent.parent
        sizes = {name: file.size for name, file in files.items()}
        hub.fetch(self.repo, self.commit, sizes, folder, "dataset", here=False)
        for name, file in files.items():
            if not file.is_same(folder / name):
                (folder / name).resolve().unlink(missing_ok=True)
                (folder / name).unlink(missing_ok=True)
                raise DataError(
                    f"{self.repo}: {name} came damaged and was thrown away; run the same command "
                    "again"
                )
        return folder


def find(address: Address) -> Published:
    """What the Hub, or its cache where it can't be reached, has at the address."""
    commit, there = hub.tree(address.repo, address.revision, "dataset", here=False)
    files = {name: file for name, file in there.items() if _is_of_dataset(name, there)}
    if not any(name.split("/")[1:] == [_MANIFEST] for name in files):
        raise DataError(
            f"{address.repo}: holds no dataset that `isekai push` has sent; see `isekai bench "
            "--help` for readers of other data sets, such as hub:"
        )
    return Published(repo=address.repo, commit=commit, files=files)


def _is_of_dataset(name: str, there: Mapping[str, File]) -> bool:
    """By the rules of what is sent: neither hidden files nor ones of other kinds."""
    first, *below = name.split("/")
    if not below:
        return name in sending.BESIDES
    return (
        f"{first}/{_MANIFEST}" in there
        and NAME.fullmatch(first) is not None
        and sending.is_sent(Path(*below))
    )


def load(text: str) -> Dataset:
    """The dataset at the address, from the Hub's cache; its name tells the commit."""
    address = Address.parse(text)
    found = find(address)
    name = found.choose(address.config)
    opened = Dataset.open(found.fetch(found.of([name])) / name)
    opened.name = f"{address.repo}@{found.commit[:12]}/{name}"
    return opened
