"""Draws the images of a spec into a folder that remembers how each came to be."""

import json
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from isekai import files, plugins, progress
from isekai import spec as specs
from isekai.drawing import draw, usable_cores
from isekai.errors import DataError, IsekaiError
from isekai.images import Format
from isekai.ledger import Ledger, Plan
from isekai.protocols import Catalog, ImageSource
from isekai.types import ImageRequest

PER_CONCEPT = 32

BYTES_PER_PIXEL = {"png": 0.6, "webp": 0.4}
"""Measured on procedural pictures of 512 pixels; for the estimate of a dry run only."""


def plan(
    *,
    groups: str = "all",
    spec: Path | None = None,
    source: str | ImageSource = "auto",
    options: Mapping[str, object] | None = None,
    per_concept: int | None = None,
    size: int = 512,
    seed: int = 0,
    format: Format = "png",
) -> Plan:
    """Everything that `run` would draw, without drawing it. The arguments are those of `run`."""
    if per_concept is not None and per_concept < 1:
        raise IsekaiError(f"{per_concept} images a concept; at least 1 is needed")
    if not 16 <= size <= 4096:
        raise IsekaiError(f"a size of {size} pixels; 16 to 4096 are possible")
    if format not in ("png", "webp"):
        raise IsekaiError(f"the format '{format}' is not written here; give png or webp")
    name, built, why = _source(source, options)
    catalog = built if isinstance(built, Catalog) else None
    if catalog and spec is None:
        chosen = specs.select(catalog.groups(), groups)
    else:
        chosen = specs.load(spec, groups)
    count = per_concept or (sys.maxsize if catalog else PER_CONCEPT)
    requests = tuple(
        ImageRequest(
            concept=concept,
            index=index,
            size=size,
            seed=specs.seed(concept.id, index, seed),
            prompt=specs.expand(concept, index),
        )
        for group in chosen
        for concept in group.concepts
        for index in range(min(count, catalog.count(concept)) if catalog else count)
    )
    own = json.loads(json.dumps(files.plain(built.settings)))
    settings = {**own, "size": size, "format": format}
    return Plan(
        source=built,
        name=name,
        why=why,
        groups=chosen,
        requests=requests,
        settings=settings,
        format=format,
        request={
            "groups": [group.id for group in chosen],
            "source": name,
            "model": built.model,
            "revision": built.revision,
            "settings": settings,
            "per_concept": None if count == sys.maxsize else count,
            "seed": seed,
        },
    )


def run(
    *,
    groups: str = "all",
    spec: Path | None = None,
    source: str | ImageSource = "auto",
    options: Mapping[str, object] | None = None,
    per_concept: int | None = None,
    size: int = 512,
    workers: int | None = None,
    seed: int = 0,
    out: Path = Path("images"),
    format: Format = "png",
    force: bool = False,
) -> Path:
    """Draw what is missing in `out`, and return it.

    `groups` is `all` or ids with commas: of the folder `spec`, else of the source's own catalogue,
    else of the built-in spec. `source` is the name of one, also `name:argument`, built with
    `options`; or one that is built. `per_concept` is 32, or all that a catalogue has. `size` is in
    pixels of the longer side. `workers` are processes, one a usable core if not given; the bytes
    do not depend on them. Images that are there with the same request stay; other settings and
    images that are not asked for are refused, unless `force` redraws and removes them.
    """
    workers = usable_cores() if workers is None else workers
    if workers < 1:
        raise IsekaiError(f"{workers} workers; at least 1 is needed")
    work = plan(
        groups=groups,
        spec=spec,
        source=source,
        options=options,
        per_concept=per_concept,
        size=size,
        seed=seed,
        format=format,
    )
    progress.tell(f"{len(work.requests)} images from the source '{work.name}' ({work.why})")
    _refuse_foreign(out)
    with files.lock(out), files.explained(out):
        files.sweep_temporaries(out)
        ledger = Ledger(out, work, force=force)
        if ledger.is_complete():
            progress.tell(f"{out}: complete, nothing to do")
        else:
            ledger.settle()
            missing, before, started = ledger.missing(), len(ledger.records()), time.monotonic()
            with (
                ledger.growing() as add,
                progress.bar(len(work.requests), len(work.requests) - len(missing)) as advance,
                closing(draw(work.source, missing, format=format, workers=workers)) as drawn,
            ):
                for request, result in drawn:
                    add(request, result)
                    advance()
            ledger.finish()
            images, seconds = len(ledger.records()), time.monotonic() - started
            progress.tell(f"{out}: {images - before} drawn in {seconds:.1f} s, {images} in all")
    refusals = ledger.refusals()
    if refusals and len(refusals) == len(work.requests):
        raise DataError(f"{out}: no image could be drawn; the first: {refusals[0].reason}")
    if refusals:
        progress.tell(f"{out}: {len(refusals)} could not be drawn; see {out / 'rejected.jsonl'}")
    return out


def preview(work: Plan) -> str:
    """What `work` would draw, in a few lines."""
    concepts = list(dict.fromkeys(request.concept.id for request in work.requests))
    pixels = sum(request.size**2 for request in work.requests)
    prompts = [request for request in work.requests if request.index == 0 and request.prompt]
    return "\n".join(
        [
            f"{len(work.requests)} images of {len(concepts)} concepts in {len(work.groups)} groups",
            f"source: {work.name} ({work.why})",
            f"disk: about {pixels * BYTES_PER_PIXEL[work.format] / 1e6:.0f} MB",
            *(f"{request.concept.id}: {request.prompt}" for request in prompts[:5]),
        ]
    )


def _source(
    source: str | ImageSource, options: Mapping[str, object] | None
) -> tuple[str, ImageSource, str]:
    """The source's name, the source, and why it was taken."""
    if not isinstance(source, str):
        return type(source).__name__, source, "as given"
    why = "as asked"
    if source == "auto":
        source = "procedural"
        why = "auto: the diffusers source, for a machine with a GPU, is not in this version yet"
    name = source.partition(":")[0]
    if name == "diffusers" and name not in plugins.names("sources"):
        raise IsekaiError("the source 'diffusers' is not in this version yet; take 'procedural'")
    return name, plugins.build("sources", source, options), why


def _refuse_foreign(out: Path) -> None:
    """Never write among files that are not ours."""
    with files.explained(out):
        if not out.is_dir() or (out / "ledger.jsonl").exists():
            return
        others = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith("."))
    if others:
        raise DataError(
            f"{out}: holds '{others[0]}' but no ledger of images; give --out a new or empty folder"
        )
