"""The command line: one thin function a command; what a command needs is imported inside it."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

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


INTERRUPTED = 130


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
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("group", "concept", "role", "definition"):
        table.add_column(heading, overflow="fold")
    for group in found:
        for position, concept in enumerate(group.concepts):
            role = concept.novelty or concept.role
            row = ("" if position else group.id, concept.name, role, concept.definition)
            table.add_row(*map(Text, row))  # a stranger's text is no markup
    Console().print(table)


@app.command()
def generate(
    groups: Annotated[str, typer.Option(help="'all', or group ids with commas.")] = "all",
    spec: Annotated[
        Path | None, typer.Option(help="A folder of group files; the built-in set without it.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="auto, procedural, folder:PATH, or another installed source.")
    ] = "auto",
    per_concept: Annotated[
        int | None,
        typer.Option(min=1, help="Images a concept; 32, or all of a folder.", show_default=False),
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels of the longer side.")] = 512,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; one a usable core.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Where the images go.")] = Path("images"),
    option: Annotated[
        list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="For the source.")
    ] = None,
    format: Annotated[Literal["png", "webp"], typer.Option(help="Both lossless.")] = "png",
    dry_run: Annotated[bool, typer.Option(help="Tell what would be drawn.")] = False,
    force: Annotated[
        bool, typer.Option(help="Redraw what was drawn otherwise, remove what is not asked for.")
    ] = False,
) -> None:
    """Draw the images of a spec; run again, it goes on where it stopped."""
    from isekai import generate as step
    from isekai import plugins

    options = plugins.options(option or [])
    if dry_run:
        work = step.plan(
            groups=groups,
            spec=spec,
            source=source,
            options=options,
            per_concept=per_concept,
            size=size,
            seed=seed,
            format=format,
        )
        typer.echo(step.preview(work))
        return
    made = step.run(
        groups=groups,
        spec=spec,
        source=source,
        options=options,
        per_concept=per_concept,
        size=size,
        workers=workers,
        seed=seed,
        out=out,
        format=format,
        force=force,
    )
    typer.echo(made)


@app.command()
def invent(
    count: Annotated[int, typer.Argument(help="How many groups.", min=1)],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same groups.")] = 0,
    distance: Annotated[
        int,
        typer.Option(help="1 to 4 of five attributes: how far the foil and the twin are off."),
    ] = 2,
    out: Annotated[
        Path | None, typer.Option(help="The folder for the group files [default: invented-SEED].")
    ] = None,
) -> None:
    """Invent brand-new groups: names, sketches and definitions that no model can have seen."""
    from isekai import invent as inventing
    from isekai import spec as specs

    known = [concept.name for group in specs.load() for concept in group.concepts]
    folder = inventing.run(
        count=count,
        seed=seed,
        distance=distance,
        out=out or Path(f"invented-{seed}"),
        avoid=known,
    )
    typer.echo(folder)
    typer.echo(f"draw them with: isekai generate --spec {folder}", err=True)


@app.command()
def bench(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Name or name:argument, once each; see `isekai models`. [prototype]"),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="twin, foil, pair or another, once each. [twin]")
    ] = None,
    shots: Annotated[str, typer.Option(help="Support images a label, with commas.")] = "0,1,2,4,8",
    data: Annotated[
        Path | None,
        typer.Option(help="A dataset folder; ./dataset, else a small set made for the purpose."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run. [runs/MODELS-TASKS]")
    ] = None,
    episodes: Annotated[int, typer.Option(min=1, help="For each group, concept or pair.")] = 4,
    queries: Annotated[int, typer.Option(min=1, help="A label, in each episode.")] = 4,
    labels: Annotated[
        Literal["fantasy", "true"], typer.Option(help="New words each episode, or the true names.")
    ] = "fantasy",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    option: Annotated[
        list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="For the models.")
    ] = None,
    template: Annotated[str, typer.Option(help="Built in, or a .toml file.")] = "plain",
    force: Annotated[bool, typer.Option(help="Remove what is there, and start over.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
) -> None:
    """Measure models on n-shot tasks; run again, it goes on where it stopped."""
    from rich.console import Console

    from isekai import bench as step
    from isekai import plugins, report, runs

    models, tasks = model or ["prototype"], task or ["twin"]
    options = plugins.options(option or [])
    if data is None:
        data = Path("dataset")
        if not data.exists():
            from isekai import demo

            data = demo.small_dataset()
    name = "-".join([*models, *tasks])
    made = step.run(
        models=models,
        tasks=tasks,
        shots=step.shot_counts(shots),
        data=data,
        out=out or Path("runs") / re.sub(r"[^\w.-]+", "-", name),
        episodes=episodes,
        queries=queries,
        labels=labels,
        seed=seed,
        options=options,
        template=template,
        force=force,
    )
    if json_:
        typer.echo((made / "results.json").read_text(encoding="utf-8"), nl=False)
        return
    Console(stderr=True).print(report.table(runs.results(made)))
    typer.echo(made)


@app.command()
def models(json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """List the models that can be measured, and what each of them is."""
    import inspect

    from isekai import plugins
    from isekai.errors import IsekaiError

    about = {}
    for name in plugins.names("adapters"):
        try:
            told = inspect.getdoc(plugins.load("adapters", name)) or ""
            about[name] = " ".join(told.split("\n\n")[0].split())
        except IsekaiError as error:
            about[name] = str(error)
    if json_:
        import json

        typer.echo(json.dumps(about, indent=2, ensure_ascii=False))
        return
    width = max(map(len, about), default=0)
    for name, told in about.items():
        typer.echo(f"{name:{width}}  {told}")


@app.command()
def build(
    images: Annotated[Path, typer.Argument(help="A folder that 'isekai generate' drew.")] = Path(
        "images"
    ),
    out: Annotated[Path, typer.Option(help="Where the dataset goes.")] = Path("dataset"),
    embedder: Annotated[
        str, typer.Option(help="What finds near-duplicates: lite0, or another installed one.")
    ] = "lite0",
    option: Annotated[
        list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="For the embedder.")
    ] = None,
    query_share: Annotated[
        float, typer.Option(help="Share of each concept's pictures that is asked about.")
    ] = 0.4,
    seed: Annotated[int, typer.Option(min=0, help="Draws which pictures those are.")] = 0,
    license: Annotated[
        str, typer.Option(help="For the card: an identifier such as apache-2.0.")
    ] = "unknown",
    force: Annotated[
        bool, typer.Option(help="Replace a dataset that was built otherwise.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Turn a folder of images into a dataset: Parquet files, card and contact sheet."""
    from isekai import build as step
    from isekai import plugins

    made = step.run(
        images=images,
        out=out,
        embedder=embedder,
        options=plugins.options(option or []),
        query_share=query_share,
        seed=seed,
        license=license,
        force=force,
    )
    if json_:
        import json

        typer.echo(json.dumps(step.summary(made), indent=2))
        return
    typer.echo(made)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
) -> None:
    """Draw, build and bench a few groups: a table, a plot and a contact sheet in minutes."""
    from rich.console import Console

    from isekai import demo as demonstration
    from isekai import report, runs

    made = demonstration.run(out)
    console = Console(stderr=True)
    console.print()
    console.print(report.table(runs.results(made / "run")))
    typer.echo(demonstration.summary(made))


def main() -> None:
    """Run a command; a problem the user can mend is one line and exit status 1."""
    from isekai.errors import IsekaiError

    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except IsekaiError as error:
        typer.echo(f"isekai: {error}", err=True)
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's answer to Ctrl-C
            typer.echo("isekai: interrupted; run the same command again to go on", err=True)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing left to flush
        typer.echo("isekai: the output could not be written: the disk is full", err=True)
        sys.exit(1)
