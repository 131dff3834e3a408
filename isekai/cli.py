"""The command line: one thin function a command; what a command needs is imported inside it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from isekai import __version__

app = typer.Typer(
    help="Draw things that never existed, and measure whether a model learns their names "
    "from context.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isekai {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None: ...


@app.command()
def groups(
    spec: Annotated[
        Path | None, typer.Option(help="A folder of group files; the built-in set without it.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the groups of a spec, with their concepts and definitions."""
    from isekai import spec as specs

    found = specs.load(spec)
    if json_:
        import json

        typer.echo(json.dumps(specs.summary(found), indent=2, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("group", "concept", "role", "definition"):
        table.add_column(heading, overflow="fold")
    for group in found:
        for position, concept in enumerate(group.concepts):
            role = concept.novelty or concept.role
            table.add_row("" if position else group.id, concept.name, role, concept.definition)
    Console().print(table)


def main() -> None:
    """Run a command; a problem the user can mend is one line and exit status 1."""
    from isekai.errors import IsekaiError

    try:
        app()
    except IsekaiError as error:
        typer.echo(f"isekai: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("isekai: interrupted; run the same command again to go on", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
