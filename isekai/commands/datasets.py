"""Commands from images to a dataset that people trust: build, check, novelty, review."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

DatasetFolder = Annotated[Path, typer.Argument(help="A folder that 'isekai build' made.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]


def echo_json(value: object) -> None:
    """Print what a program reads."""
    import json

    from isekai import files

    typer.echo(json.dumps(files.plain(value), indent=2, ensure_ascii=False))


@app.command()
def build(
    images: Annotated[Path, typer.Argument(help="A folder that 'isekai generate' drew.")] = Path(
        "images"
    ),
    out: Annotated[Path, typer.Option(help="Where the dataset goes, beside others.")] = Path(
        "dataset"
    ),
    name: Annotated[
        str,
        typer.Option(help="Its name there; that of the spec's folder.", show_default=False),
    ] = "",
    embedder: Annotated[
        str,
        typer.Option(help="What finds near-duplicates: lite0, open_clip, transformers:MODEL, …"),
    ] = "lite0",
    option: Annotated[
        list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="For the embedder.")
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="Measure precision and recall on altered copies of these pictures, and pick the "
            "limits; done anyway for an embedder whose limits are not known.",
        ),
    ] = False,
    precision: Annotated[
        float | None,
        typer.Option(min=0.5, max=0.9999, help="What these limits are to keep to. [0.99]"),
    ] = None,
    gate: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out what it turns down: clip, vqa:MODEL, classify:MODEL, aesthetic:HEAD, "
            "flat; also name?option=value.",
            show_default=False,
        ),
    ] = None,
    review: Annotated[
        Path | None,
        typer.Option(
            help="Decisions of 'isekai review'; those in the dataset's folder.", show_default=False
        ),
    ] = None,
    originals: Annotated[
        bool, typer.Option("--originals", help="Keep pictures of over 1 MB as they are.")
    ] = False,
    query_share: Annotated[
        float, typer.Option(help="Share of each concept's pictures that is asked about.")
    ] = 0.4,
    seed: Annotated[int, typer.Option(min=0, help="Draws which pictures those are.")] = 0,
    license: Annotated[
        str, typer.Option(help="For the card: an identifier such as apache-2.0.")
    ] = "unknown",
    author: Annotated[
        list[str] | None,
        typer.Option(help="Who is to be cited, once each.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option(help="Replace a dataset that was built otherwise.")
    ] = False,
    json_: Json = False,
) -> None:
    """Turn a folder of images into a dataset: Parquet, card, evidence of novelty, episodes."""
    from isekai import build as step
    from isekai import plugins

    made = step.run(
        images=images,
        out=out,
        name=name,
        embedder=embedder,
        options=plugins.options(option or []),
        gates=gate or (),
        calibrate=calibrate,
        precision=precision,
        originals=originals,
        review=review,
        query_share=query_share,
        seed=seed,
        license=license,
        authors=author or (),
        force=force,
    )
    if json_:
        echo_json(step.summary(made))
    else:
        typer.echo(made)


@app.command()
def check(dataset: DatasetFolder = Path("dataset"), json_: Json = False) -> None:
    """Look at every file and picture of a dataset, and tell all that is wrong."""
    from isekai import check as step

    report = step.run(dataset)
    if json_:
        echo_json(step.summary(report))
    else:
        typer.echo(report.text())
    if not report.is_well:
        raise typer.Exit(1)


@app.command()
def novelty(
    dataset: DatasetFolder = Path("dataset"),
    embedder: Annotated[
        str, typer.Option(help="Measures again, and finds the nearest names: open_clip, …")
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(help="Asked what it sees, without a support set; once each."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="A folder of pictures to look for near ones in.")
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(help="Names, one a line; ImageNet-22k's without it.")
    ] = None,
    pictures: Annotated[
        int, typer.Option(min=1, help="Of each concept that a model is shown, at most.")
    ] = 8,
    threshold: Annotated[
        float | None,
        typer.Option(help="Cosine of a near picture in the reference.", show_default=False),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", metavar="KEY=VALUE", help="For the embedder and the models."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    dry_run: Annotated[
        bool, typer.Option(help="Tell how many questions there are; ask none.")
    ] = False,
) -> None:
    """Measure how new the concepts of a dataset are, and tell it on its card."""
    from isekai import novelty as step
    from isekai import plugins

    options = plugins.options(option or [])
    if dry_run:
        todo = step.forecast(
            dataset,
            embedder=embedder,
            models=model or (),
            reference=reference,
            vocabulary=vocabulary,
            options=options,
            pictures=pictures,
            seed=seed,
        )
        typer.echo(step.words(todo) if todo else "no model is asked anything")
        return
    made = step.run(
        dataset,
        embedder=embedder,
        models=model or (),
        reference=reference,
        vocabulary=vocabulary,
        options=options,
        pictures=pictures,
        threshold=threshold,
        seed=seed,
    )
    typer.echo(made)


@app.command()
def review(
    dataset: DatasetFolder = Path("dataset"),
    images: Annotated[
        Path | None,
        typer.Option(help="The folder it was built from: shows what was left out, too."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(help="For decisions; review.jsonl in the dataset.", show_default=False),
    ] = None,
) -> None:
    """Look at every picture of a dataset in a browser; the next build obeys what you decide."""
    from isekai import review as step

    typer.echo(step.run(dataset, images=images, port=port, open_browser=browser, out=out))


@app.command()
def push(
    dataset: DatasetFolder = Path("dataset"),
    repo: Annotated[str, typer.Option(help="owner/name on the Hugging Face Hub.")] = "",
    private: Annotated[bool, typer.Option("--private", help="If it is made now.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="A branch; main.", show_default=False)
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Marks what is there at the end.")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="Open a pull request instead.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Tell what would be sent; send nothing.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite what isn't from isekai.")] = False,
) -> None:
    """Send a dataset to the Hugging Face Hub: only what has changed, compared when it is there."""
    from isekai import push as step

    if not repo:
        raise typer.BadParameter("give owner/name", param_hint="--repo")
    told = step.run(
        dataset,
        repo,
        private=private,
        revision=revision,
        tag=tag,
        create_pr=create_pr,
        message=message,
        dry_run=dry_run,
        force=force,
    )
    typer.echo(told)


@app.command()
def pull(
    dataset: Annotated[str, typer.Argument(help="owner/name[@revision][/dataset] on the Hub.")],
    out: Annotated[
        Path | None, typer.Option(help="Where it goes; named after it.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option(help="Replace a folder of other files.")] = False,
) -> None:
    """Bring a dataset from the Hugging Face Hub, checked whole; run again, it goes on."""
    from isekai import pull as step

    typer.echo(step.run(dataset, out, force=force))
