"""What a step says while it works: lines on stderr and, on a terminal, a bar."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    def __call__(self, count: int = 1, what: str = "") -> None:
        """`count` more are done; `what` is at work now."""


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def bar(total: int, done: int = 0) -> Iterator[Advance]:
    """A bar with rate and time left; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda count=1, what="": None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        task = shown.add_task("", total=total, completed=done, rate="")

        def advance(count: int = 1, what: str = "") -> None:
            speed = shown.tasks[0].speed
            rate = f"{speed:.1f}/s" if speed else ""
            shown.update(task, advance=count, description=what, rate=rate)

        yield advance
