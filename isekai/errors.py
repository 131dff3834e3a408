"""What can go wrong that a user can mend.

IsekaiError            one line: what was given, what was expected, what to do; exit status 1
├── SpecError          a spec file, with every problem of the file
├── PluginError        an unknown or uninstallable source, embedder, adapter or task
├── DataError          a dataset, image folder or run folder that can't be used as it is
└── BusyError          another process works in the folder
"""

from collections.abc import Iterable
from difflib import get_close_matches


class IsekaiError(Exception):
    """A problem the user can mend; its text is all they see."""


class SpecError(IsekaiError):
    """One or more problems of a spec file; `problems` holds one line each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class PluginError(IsekaiError):
    """A source, embedder, adapter or task that isn't known, or whose packages are missing."""


class DataError(IsekaiError):
    """Files that are missing, damaged, or not what the step needs."""


class BusyError(IsekaiError):
    """Another process holds the folder's lock."""


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'a' or 'b'?`, or `; known: …` when nothing is near."""
    names = sorted(set(known))
    folded = {name.casefold(): name for name in names}
    near = [folded[key] for key in get_close_matches(given.casefold(), folded, n=3, cutoff=0.6)]
    if near:
        return "; did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    return f"; known: {', '.join(names)}" if names else ""
