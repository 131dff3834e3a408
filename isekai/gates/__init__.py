"""Gates: each looks at a picture as it is drawn, and turns it down with a reason."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from isekai import plugins
from isekai.errors import IsekaiError
from isekai.protocols import Closing, Gate


def gates_of(texts: Sequence[str]) -> dict[str, Gate]:
    """Name -> gate, from texts of the form `name:argument?option=value&option=value`."""
    found: dict[str, Gate] = {}
    for text in texts:
        spec, _, query = text.partition("?")
        name = spec.partition(":")[0]
        if name in found:
            raise IsekaiError(f"the gate '{name}' is asked for twice; once is enough")
        if name == "none" and len(texts) > 1:
            raise IsekaiError("the gate 'none' stands alone, but others are given with it")
        if name != "none":
            options = plugins.options(query.split("&")) if query else None
            found[name] = plugins.build("gates", spec, options)
    return found


@contextmanager
def closing(gates: Iterable[Gate]) -> Iterator[None]:
    """Let go of what gates hold, however it ends."""
    try:
        yield
    finally:
        for gate in gates:
            if isinstance(gate, Closing):
                gate.close()
