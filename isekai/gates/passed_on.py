"""Options that a gate passes on to the plugin it asks."""

import inspect
from collections.abc import Callable, Iterable

from isekai import plugins
from isekai.errors import PluginError, did_you_mean


def refuse_unknown(
    options: Iterable[str], gate: str, build: Callable[..., object], seam: plugins.Seam, asked: str
) -> None:
    """PluginError for an option that neither the gate nor the plugin it asks has.

    The user wrote it as the gate's: it is told as such, with the names of both. `build` is what
    builds the gate, `asked` the name of the plugin, with or without an argument.
    """
    own = inspect.signature(build).parameters.values()
    others = inspect.signature(plugins.load(seam, asked.partition(":")[0])).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in others):
        return
    known = {p.name for p in (*own, *others) if p.kind is not p.VAR_KEYWORD}
    for name in options:
        if name not in known:
            raise PluginError(f"gate '{gate}' has no option '{name}'{did_you_mean(name, known)}")
