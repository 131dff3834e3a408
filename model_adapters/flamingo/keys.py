"""Names of weights: what a network wants against what a checkpoint holds, strictly."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from torch import Tensor, nn

from isekai.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Where a parameter lies in a checkpoint: a tensor, or one of three equal parts of it."""

    key: str
    third: int | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Checkpoint:
    """The tensors of a file or folder, and which of them were taken."""

    where: str
    held: Mapping[str, Tensor]
    taken: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    _missing: list[str] = field(default_factory=list)

    def take(
        self, network: nn.Module, spelled: Callable[[str], Piece], without: Iterable[str] = ()
    ) -> dict[str, Tensor]:
        """The network's weights under its own names; what is missing or misshaped is noted.

        `network` may be on the meta device: only names and shapes are read. `without` names what
        isn't looked for, such as an output that is tied to the input.
        """
        found = {}
        for name, wanted in network.state_dict().items():
            if name in without:
                continue
            piece = spelled(name)
            tensor = self.held.get(piece.key)
            if tensor is None:
                self._missing.append(piece.key)
                continue
            self.taken.add(piece.key)
            expected = list(wanted.shape)
            if piece.third is not None:
                expected[0] *= 3
            if list(tensor.shape) != expected:
                self.problems.append(
                    f"{self.where}: '{piece.key}' has the shape {list(tensor.shape)}, "
                    f"expected {expected}"
                )
                continue
            found[name] = tensor if piece.third is None else tensor.chunk(3)[piece.third]
        return found

    def ignore(self, *patterns: str) -> None:
        """What may lie in the checkpoint and isn't needed: regular expressions for whole keys."""
        for key in self.held:
            if any(re.fullmatch(pattern, key) for pattern in patterns):
                self.taken.add(key)

    def faults(self) -> list[str]:
        """Everything that is missing, misshaped or left over, in a line each.

        Keys that differ in one number alone share a line.
        """
        surplus = list(self.held.keys() - self.taken)
        left = _together(surplus)
        lines = list(self.problems)
        for pattern, numbers in _together(dict.fromkeys(self._missing)).items():
            near = get_close_matches(pattern, left, n=1, cutoff=0.8)
            told = f"; there is '{_written(near[0], left[near[0]])}'" if near else ""
            lines.append(f"{self.where}: '{_written(pattern, numbers)}' is missing{told}")
        for pattern, numbers in left.items():
            lines.append(f"{self.where}: '{_written(pattern, numbers)}' is not expected")
        return lines


def close(*checkpoints: Checkpoint) -> None:
    """DataError with all faults of all of them."""
    lines = [line for one in dict.fromkeys(checkpoints) for line in one.faults()]
    if lines:
        raise DataError("\n".join(lines))


def _together(keys: Iterable[str]) -> dict[str, list[int]]:
    """Keys that differ only in their first number: pattern with `#` in its place -> numbers."""
    found: dict[str, list[int]] = defaultdict(list)
    for key in sorted(keys):
        number = re.search(r"(?<=\.)\d+(?=\.)", key)
        if number:
            found[f"{key[: number.start()]}#{key[number.end() :]}"].append(int(number[0]))
        else:
            found[key] = []
    return dict(sorted(found.items()))


def _written(pattern: str, numbers: list[int]) -> str:
    if not numbers:
        return pattern
    numbers = sorted(numbers)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told = ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return pattern.replace("#", told if len(numbers) == 1 else f"{{{told}}}")
