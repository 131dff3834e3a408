"""The command line: one thin function a command; what a command needs is imported inside it."""

import errno
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from isekai import __version__
from isekai.commands import datasets

app = typer.Typer(
    help="Draw things that never existed, and measure whether a model learns their names "
    "from context.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


INTERRUPTED = 130

SpecFolder = Annotated[
    Path | None, typer.Option(help="A folder of group files; the built-in set without it.")
]
GroupIds = Annotated[str, typer.Option(help="'all', or group ids with commas.")]
SourceOptions = Annotated[
    list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="For the source.")
]


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
    spec: SpecFolder = None,
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
    groups: GroupIds = "all",
    spec: SpecFolder = None,
    source: Annotated[
        str,
        typer.Option(
            help="auto, procedural, diffusers, openai:MODEL, folder:PATH, or another installed one."
        ),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(
            help="For diffusers: a preset of prompts/models.toml, a repo or a folder.",
            show_default=False,
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="For diffusers: auto, 8g, 16g, 24g or 80g.", show_default=False),
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option(help="For diffusers: run code that a model's repository brings.")
    ] = False,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            help="flat, duplicate, clip, vqa:MODEL, classify:MODEL or none, once each, also "
            "name?option=value; the source's own if not given.",
            show_default=False,
        ),
    ] = None,
    tries: Annotated[
        int, typer.Option(min=1, help="Drawings for one place that gates may turn down.")
    ] = 4,
    per_concept: Annotated[
        int | None,
        typer.Option(min=1, help="Images a concept; 32, or all of a folder.", show_default=False),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            help="Pixels of the longer side; what the model is made for, or 512.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; one a GPU or usable core.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Where the images go.")] = Path("images"),
    option: SourceOptions = None,
    format: Annotated[Literal["png", "webp"], typer.Option(help="Both lossless.")] = "png",
    dry_run: Annotated[bool, typer.Option(help="Tell what would be drawn.")] = False,
    force: Annotated[
        bool, typer.Option(help="Redraw what was drawn otherwise, remove what is not asked for.")
    ] = False,
) -> None:
    """Draw the images of a spec; run again, it goes on where it stopped."""
    from isekai import generate as step

    work = step.plan(
        groups=groups,
        spec=spec,
        source=source,
        options=_options(
            option, model=model, memory=memory, trust_remote_code=trust_remote_code or None
        ),
        gates=gate,
        tries=tries,
        per_concept=per_concept,
        size=size,
        seed=seed,
        format=format,
    )
    if dry_run:
        typer.echo(step.forecast(work))
        return
    typer.echo(step.draw(work, out=out, workers=workers, force=force))


@app.command()
def preview(
    groups: GroupIds = "all",
    spec: SpecFolder = None,
    source: Annotated[str, typer.Option(help="As for `isekai generate`.")] = "auto",
    model: Annotated[
        str | None, typer.Option(help="As for `isekai generate`.", show_default=False)
    ] = None,
    gate: Annotated[
        list[str] | None, typer.Option(help="As for `isekai generate`.", show_default=False)
    ] = None,
    per_concept: Annotated[int, typer.Option(min=1, help="Images a concept.")] = 4,
    size: Annotated[
        int | None, typer.Option(help="As for `isekai generate`.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Where the sheet goes.")] = Path("preview"),
    option: SourceOptions = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Draw a concept again when its group file changes.")
    ] = False,
) -> None:
    """Show a few images of each concept on one sheet, to tune prompts by."""
    from isekai import choosing
    from isekai import preview as step

    wanted = step.Wanted(
        chosen=choosing.choose(source, _options(option, model=model)),
        groups=groups,
        spec=spec,
        gates=gate,
        per_concept=per_concept,
        size=size,
        seed=seed,
    )
    if not watch:
        typer.echo(step.run(wanted, out))
        return
    try:
        for sheet in step.watch(wanted, out):
            typer.echo(sheet)
    except KeyboardInterrupt:
        typer.echo("isekai: no longer watching", err=True)


@app.command()
def verify(
    images: Annotated[Path, typer.Argument(help="A folder that 'isekai generate' drew.")] = Path(
        "images"
    ),
    regenerate: Annotated[
        int, typer.Option(min=0, help="Draw so many pictures again, and compare.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Chooses which pictures those are.")] = 0,
    source: Annotated[
        str, typer.Option(help="What draws them, if not the manifest's source.")
    ] = "",
    option: Annotated[
        list[str] | None,
        typer.Option("-o", metavar="KEY=VALUE", help="For the source, on top of the manifest's."),
    ] = None,
    embedder: Annotated[
        str, typer.Option(help="Tells how near it finds old and new: lite0, or another one.")
    ] = "",
    psnr: Annotated[
        float | None,
        typer.Option(help="Fail if a picture drawn again is below so many dB.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Hold a folder of images to its ledger; draw some of it again, and compare."""
    from isekai import plugins
    from isekai import verify as step

    report = step.run(
        images,
        regenerate=regenerate,
        seed=seed,
        source=source,
        options=plugins.options(option or []),
        embedder=embedder,
        psnr=psnr,
        workers=workers,
    )
    if json_:
        import json

        typer.echo(json.dumps(step.summary(report), indent=2))
    else:
        from rich.console import Console

        Console().print(step.table(report))
        typer.echo(report.summary())
    if not report.is_well:
        raise typer.Exit(1)


@app.command()
def sign(
    images: Annotated[Path, typer.Argument(help="A folder that 'isekai generate' drew.")] = Path(
        "images"
    ),
    certificate: Annotated[
        Path, typer.Option(help="The certificate chain in PEM, the signer's own first.")
    ] = Path("chain.pem"),
    key: Annotated[Path, typer.Option(help="The private key in PEM, without a passphrase.")] = Path(
        "key.pem"
    ),
    out: Annotated[Path, typer.Option(help="Where the signed copies go.")] = Path("signed"),
    timestamps: Annotated[
        str, typer.Option(help="URL of a time-stamping authority (RFC 3161).")
    ] = "",
    force: Annotated[
        bool, typer.Option(help="Replace copies of other images or by another certificate.")
    ] = False,
) -> None:
    """Sign copies of drawn images with C2PA: what made them, from which prompt and seed."""
    from isekai import sign as step

    made = step.run(
        images, certificate=certificate, key=key, out=out, timestamps=timestamps, force=force
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
        list[str] | None,
        typer.Option(
            "--task", "--tasks", help="twin, foil, pair, lists, …, also with commas. [twin]"
        ),
    ] = None,
    shots: Annotated[
        str | None, typer.Option(help="Support images a label, with commas. [0,1,2,4,8]")
    ] = None,
    n_images: Annotated[
        str | None, typer.Option(help="Instead: support images in all, as the paper counts.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A dataset folder, or lists:, pairs:, classes:, hub: with what to read. "
            "[./dataset, else a small set made for the purpose]"
        ),
    ] = None,
    protocol: Annotated[
        Literal["isekai", "paper"] | None,
        typer.Option(help="paper shuffles the support set anew for every question. [isekai]"),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(min=1, help="For each group, concept or pair. [4]")
    ] = None,
    queries: Annotated[
        int | None, typer.Option(min=1, help="A label, in each episode. [4]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Episodes of each task at most.")] = None,
    labels: Annotated[
        Literal["fantasy", "true", "conflict"] | None,
        typer.Option(help="New words each episode, the true names, or other things' names."),
    ] = None,
    controls: Annotated[
        list[str] | None,
        typer.Option(help="all, or names with commas, such as blind,words=true+swap."),
    ] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Control: support pictures grey.")] = False,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="Control: no pictures at all.")
    ] = False,
    swapped: Annotated[bool, typer.Option("--swapped", help="Control: labels swapped.")] = False,
    zero_shot: Annotated[
        bool, typer.Option("--zero-shot", help="Control: no support set.")
    ] = False,
    false_labels: Annotated[
        str | None, typer.Option(help="Control: these rates of false labels, 0 to 1.")
    ] = None,
    word: Annotated[
        list[str] | None,
        typer.Option("--words", help="Control: true, fantasy or conflict, also with commas."),
    ] = None,
    orders: Annotated[
        int | None, typer.Option(min=2, help="Control: the same support set in so many orders.")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(help="Strategies of support selection with commas, or all."),
    ] = None,
    embedder: Annotated[str | None, typer.Option(help="What selects. [lite0]")] = None,
    template: Annotated[
        str | None, typer.Option(help="Built in, or a .toml file. [plain; lcl for paper]")
    ] = None,
    ranking: Annotated[
        Literal["sum", "mean", "prior"] | None,
        typer.Option(help="How log-likelihoods of labels are compared. [sum]"),
    ] = None,
    intervals: Annotated[
        Literal["t", "bootstrap"] | None,
        typer.Option(help="How intervals over clusters are made. [t]"),
    ] = None,
    seeds: Annotated[str | None, typer.Option("--seed", "--seeds", help="With commas. [0]")] = None,
    option: Annotated[
        list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="For the models.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A bench.toml; options given here go before it.")
    ] = None,
    probe: Annotated[
        bool | None,
        typer.Option(help="First ask a server whether it takes the longest support set. [yes]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run. [runs/MODELS-TASKS]")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Tell what would be asked and what it would take; ask nothing.")
    ] = False,
    plan: Annotated[
        float | None,
        typer.Option(help="Tell how many episodes show a difference of this size; ask nothing."),
    ] = None,
    force: Annotated[bool, typer.Option(help="Remove what is there, and start over.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
) -> None:
    """Measure models on n-shot tasks; run again, it goes on where it stopped."""
    from isekai import bench as step
    from isekai import forecast as ahead
    from isekai import plugins, setup, work

    flags = {"blind": blind, "text": text_only, "swap": swapped, "zero": zero_shot}
    named = [*(setup.words(controls) or ()), *(name for name, wanted in flags.items() if wanted)]
    named += [f"words={kind}" for kind in setup.words(word) or ()]
    given = {
        "models": model,
        "tasks": setup.words(task),
        "shots": setup.numbers("--shots", shots, int),
        "n_images": setup.numbers("--n-images", n_images, int),
        "data": data,
        "protocol": protocol,
        "episodes": episodes,
        "queries": queries,
        "limit": limit,
        "labels": labels,
        "controls": named or None,
        "false_labels": setup.numbers("--false-labels", false_labels, float),
        "orders": orders,
        "select": setup.words(select),
        "embedder": embedder,
        "template": template,
        "ranking": ranking,
        "intervals": intervals,
        "seeds": setup.numbers("--seeds", seeds, int),
        "options": plugins.options(option) if option else None,
        "probe": probe,
    }
    asked = setup.read(config, {key: value for key, value in given.items() if value is not None})
    if asked.data == "dataset" and not Path("dataset").exists():
        from dataclasses import replace

        from isekai import demo

        asked = replace(asked, data=str(demo.small_dataset()))
    if plan is not None:
        typer.echo(ahead.plan(work.prepare(asked), plan))
        return
    if dry_run:
        told = ahead.preview(work.prepare(asked))
        if json_:
            datasets.echo_json(told)
        else:
            typer.echo(ahead.words(told))
        return
    name = "-".join([*asked.models, *asked.tasks])
    made = step.run(asked, out=out or Path("runs") / re.sub(r"[^\w.-]+", "-", name), force=force)
    if json_:
        typer.echo((made / "results.json").read_text(encoding="utf-8"), nl=False)
        return
    answered = _show(made)
    typer.echo(made)
    if not answered:
        raise typer.Exit(1)


@app.command()
def score(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    ranking: Annotated[
        Literal["sum", "mean", "prior"] | None,
        typer.Option(help="How log-likelihoods of labels are compared. [as the run did]"),
    ] = None,
    intervals: Annotated[
        Literal["t", "bootstrap"] | None,
        typer.Option(help="How intervals over clusters are made. [as the run did]"),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
) -> None:
    """Read the answers of a run again, without asking its models."""
    from isekai import score as step

    made = step.run(run, ranking=ranking, intervals=intervals)
    if json_:
        typer.echo((made / "results.json").read_text(encoding="utf-8"), nl=False)
        return
    _show(made)
    typer.echo(made)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="The folder of a run.")],
    b: Annotated[
        Path | None, typer.Argument(help="Another; without it, two models of the first, or a plan.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Which of a's and which of b's: MODEL,MODEL.")
    ] = None,
    plan: Annotated[
        float | None,
        typer.Option(help="Tell how many episodes would show a difference of this size."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Compare two models on the same episodes: differences with intervals and tests, in pairs."""
    from rich.console import Console

    from isekai import compare as step
    from isekai import setup

    chosen = setup.words([models]) if models else None
    if b is None and plan is not None and (chosen is None or len(chosen) == 1):
        from isekai.statistics import power

        for one in step.alone(a, plan, model=chosen[0] if chosen else None):
            typer.echo(f"{one.task}: {power.words(one.plan)}")
        return
    found = step.run(a, b or a, models=chosen, plan=plan)
    if json_:
        datasets.echo_json(found)
        return
    Console().print(step.table(found))


@app.command()
def report(
    run: Annotated[list[Path], typer.Argument(help="Folders of runs, shown together.")],
    format: Annotated[
        list[str] | None,
        typer.Option(help="md, tex, csv, png, svg, html; also with commas. [the terminal's table]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the files go. [report, in the one run's folder]")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Where the pictures lie now, if elsewhere.")
    ] = None,
    most: Annotated[
        int | None, typer.Option(min=1, help="Questions shown on the page at most.")
    ] = None,
) -> None:
    """Show runs as a table, as plots, and as one HTML page with every wrong answer."""
    from isekai import reporting as step
    from isekai import setup

    formats = setup.words(format)
    if not formats:
        from rich.console import Console

        Console().print(step.table(run))
        return
    for path in step.run(run, formats=formats, out=out, data=data or (), most=most):
        typer.echo(path)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    to: Annotated[
        str, typer.Option(help="lm-eval, inspect-log, inspect-task, lmms-task or hub-results.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where it goes. [exports/FORMAT, in the run's folder]")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Some of the run's models; all without it.")
    ] = None,
    control: Annotated[
        list[str] | None, typer.Option(help="Some of the run's controls; none for the plain ones.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Where the run's dataset lies now, if elsewhere.")
    ] = None,
    images: Annotated[bool, typer.Option(help="Put the pictures into logs.")] = True,
    hub_dataset: Annotated[
        str, typer.Option(help="The dataset's id on the Hub, for hub-results.")
    ] = "",
) -> None:
    """Write a run as another tool opens it, or its episodes as a task that another tool runs."""
    from isekai import export as step

    made = step.run(
        run,
        to=to,
        out=out,
        models=model or (),
        controls=control or (),
        data=data,
        images=images,
        hub_dataset=hub_dataset,
    )
    typer.echo(made)


def _show(run: Path) -> bool:
    """The table of a run, and why what failed did, on stderr; False if nothing was answered."""
    from rich.console import Console

    from isekai import runs
    from isekai.reports import tables

    there = runs.read(run)
    Console(stderr=True).print(tables.table(there.results, tables.verdicts_of(there.told)))
    for reason, count in there.told["failures"].items():
        typer.echo(f"{count} failed: {reason}", err=True)
    if there.told["failures"]:
        typer.echo("the same `isekai bench` command asks them again", err=True)
    return any(row.outcome != "failed" for row in there.predictions)


@app.command()
def models(
    name: Annotated[
        str | None, typer.Argument(help="One of them, with the options that it takes.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the models that can be measured; with a name, tell all about one."""
    import inspect

    from isekai import plugins
    from isekai.errors import IsekaiError

    if name is not None:
        factory = plugins.load("adapters", name)
        typer.echo(f"{inspect.getdoc(factory)}\n")
        for option in inspect.signature(factory).parameters.values():
            default = "" if option.default is option.empty else f"={option.default}"
            typer.echo(f"  -o {option.name}{default}")
        return
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
def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
) -> None:
    """Draw, build and bench a few groups: a table, a plot and a contact sheet in minutes."""
    from isekai import demo as demonstration

    made = demonstration.run(out)
    typer.echo("", err=True)
    _show(made / "run")
    _show(made / "controls")
    typer.echo(demonstration.summary(made))


def _options(pairs: list[str] | None, **named: str | bool | None) -> dict[str, object]:
    """What follows `-o`, and options that have a flag of their own."""
    from isekai import plugins
    from isekai.errors import IsekaiError

    options = plugins.options(pairs or [])
    for name, value in named.items():
        if value is not None and options.setdefault(name, value) != value:
            raise IsekaiError(
                f"--{name} {value} and -o {name}={options[name]} contradict each other"
            )
    return options


app.add_typer(datasets.app)


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
