"""Episodes with one thing changed: reads control names such as `words=true+swap`, and applies them.

A variant has the id of the episode that it comes from and `~` and its own name behind it, the same
queries and the same cluster: what it scores is compared with the plain episode, in pairs.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from isekai import plugins, selection
from isekai.errors import IsekaiError, did_you_mean
from isekai.types import Episode, LabelWords

if TYPE_CHECKING:
    from isekai.dataset import Dataset
    from isekai.embeddings import Embeddings

SELECT = "select="

Change = Callable[[Episode], Iterator[Episode]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A name and the changes behind it, one after the other."""

    name: str
    changes: tuple[Change, ...]
    ordered: bool = False
    """The order of the support set is what the variant is about: no protocol may shuffle it."""

    def of(self, episode: Episode) -> Iterator[Episode]:
        """The episodes to ask in the place of `episode`; these are none where nothing changes."""
        made: Iterable[Episode] = [episode]
        for change in self.changes:
            made = [after for before in made for after in change(before)]
        for one in made:
            yield replace(one, id=f"{one.id}~{self.name}", control=self.name)


def all_controls(labels: LabelWords, rates: Sequence[float], orders: int) -> list[str]:
    """What `--controls all` asks beside plain episodes with these label words.

    Every control on the plain words; and on the true names, where a model could name what it knows,
    those that tell.
    """
    names = ["blind", "text", "swap", *(f"false={rate:g}" for rate in rates), f"order={orders}"]
    names += ["zero"]
    if labels != "true":
        names += ["words=true", "words=true+blind", "words=true+swap", "words=true+zero"]
    names += [f"words={kind}" for kind in ("fantasy", "conflict") if kind != labels]
    return names


def controls(names: Sequence[str], dataset: "Dataset") -> list[Variant]:
    """The variants of these names; IsekaiError for a name that is no control."""
    return [_control(name, dataset) for name in dict.fromkeys(names)]


def selections(names: Sequence[str], dataset: "Dataset", embeddings: "Embeddings") -> list[Variant]:
    """Variants whose support is selected by these strategies."""
    known = selection.names()
    for name in names:
        if name not in known:
            raise IsekaiError(f"no support selection is called '{name}'{did_you_mean(name, known)}")
    return [
        Variant(
            name=SELECT + name,
            ordered=name == "nearest",
            changes=(
                partial(selection.select, strategy=name, dataset=dataset, embeddings=embeddings),
            ),
        )
        for name in dict.fromkeys(names)
    ]


def refuse_value(control: str, value: str) -> None:
    """For a control that takes none."""
    if value:
        raise IsekaiError(f"control '{control}={value}': '{control}' takes no value")


def refuse_false_before(control: str, episode: Episode) -> None:
    """For a control that changes the words, which what was said falsely would not follow."""
    if any(example.word is not None for example in episode.support):
        raise IsekaiError(f"control '{control}' goes before 'false': write {control}+false=…")


def _control(name: str, dataset: "Dataset") -> Variant:
    changes = []
    for word in name.split("+"):
        key, _, value = word.partition("=")
        function = plugins.load("controls", key)
        changes.append(partial(function, dataset=dataset, value=value))
    return Variant(name=name, changes=tuple(changes))
