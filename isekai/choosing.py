"""What draws: the source that was asked for, and what a spec asks of it for single concepts."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from isekai import files, plugins
from isekai.errors import IsekaiError
from isekai.protocols import ImageSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A source that is built."""

    source: ImageSource
    name: str
    why: str
    asked: Mapping[str, object]
    """The name and the options as they were written, to build it again."""
    _built: dict[str, ImageSource] = field(default_factory=dict)

    def heeded(self, options: Mapping[str, object]) -> dict[str, object]:
        """Those of the options that the user has not given otherwise."""
        given = self.asked["options"]
        assert isinstance(given, Mapping)
        name, _, argument = str(self.asked["source"]).partition(":")
        taken = {*given}
        if argument:
            taken |= {next(iter(inspect.signature(plugins.load("sources", name)).parameters))}
        return {key: value for key, value in options.items() if key not in taken}

    def having(self, options: Mapping[str, object]) -> ImageSource:
        """The source with these options, too; what the user gave goes before them.

        Equal options give the same object, so that what it has loaded stays loaded.
        """
        own = self.heeded(options)
        if not own:
            return self.source
        spec, given = str(self.asked["source"]), self.asked["options"]
        assert isinstance(given, Mapping)
        key = json.dumps(files.plain(own), sort_keys=True)
        if key not in self._built:
            self._built[key] = plugins.build("sources", spec, {**own, **given})
        return self._built[key]


def choose(source: str | ImageSource, options: Mapping[str, object] | None = None) -> Chosen:
    """Build the source of this name, or `auto`: diffusers where there is a GPU, else procedural."""
    given = json.loads(json.dumps(files.plain(options or {})))
    if not isinstance(source, str):
        asked = {"source": type(source).__name__, "options": given}
        return Chosen(source=source, name=type(source).__name__, why="as given", asked=asked)
    spec, why = _usual() if source == "auto" else (source, "as asked")
    return Chosen(
        source=plugins.build("sources", spec, options),
        name=spec.partition(":")[0],
        why=why,
        asked={"source": spec, "options": given},
    )


def having(chosen: Chosen, options: Mapping[str, object], where: str) -> ImageSource:
    """As `Chosen.having`; what is wrong with the options is told with the place they stand in."""
    try:
        return chosen.having(options)
    except IsekaiError as error:
        raise IsekaiError(f"{where}: {error}") from None


def _usual() -> tuple[str, str]:
    """The source of this machine, and why."""
    missing = [name for name in ("diffusers", "torch") if find_spec(name) is None]
    if missing:
        return "procedural", f"auto: {missing[0]} is not installed"
    import torch

    if torch.cuda.is_available():
        return "diffusers", "auto: there is a GPU"
    return "procedural", "auto: no GPU here"
