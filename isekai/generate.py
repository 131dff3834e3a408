"""Draws the images of a spec into a folder that remembers how each came to be."""

import json
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from isekai import files, plugins, progress
from isekai import spec as specs
from isekai.drawing import Drawing
from isekai.errors import DataError, IsekaiError
from isekai.finishing import THREADS, Finished, finish_all
from isekai.images import Format, decode
from isekai.ledger import REJECTED, Ledger
from isekai.plan import TRIES, Plan
from isekai.protocols import (
    Catalog,
    Closing,
    Comparing,
    Estimating,
    Gate,
    ImageSource,
    Judgement,
    Knowing,
    Suggesting,
)
from isekai.types import ImageRecord, ImageRequest

PER_CONCEPT = 32

SIZE = 512
"""Pixels, of a source that suggests nothing."""

BYTES_PER_PIXEL = {"png": 0.6, "webp": 0.4}
"""Measured on procedural pictures of 512 pixels, and near the 1.2 of photographs by half; for the
estimate of a dry run only."""


class Chosen(NamedTuple):
    """A source that is built."""

    source: ImageSource
    name: str
    why: str
    asked: Mapping[str, object]
    """The name and the options as they were written, to build it again."""


def choose(source: str | ImageSource, options: Mapping[str, object] | None = None) -> Chosen:
    """Build the source of this name, or `auto`: diffusers where there is a GPU, else procedural."""
    given = json.loads(json.dumps(files.plain(options or {})))
    if not isinstance(source, str):
        name = type(source).__name__
        return Chosen(source, name, "as given", {"source": name, "options": given})
    spec, why = _usual() if source == "auto" else (source, "as asked")
    built = plugins.build("sources", spec, options)
    asked = {"source": spec, "options": given}
    return Chosen(built, spec.partition(":")[0], why, asked)


def plan(
    *,
    groups: str = "all",
    spec: Path | None = None,
    source: "str | ImageSource | Chosen" = "auto",
    options: Mapping[str, object] | None = None,
    gates: Sequence[str] | None = None,
    tries: int = TRIES,
    per_concept: int | None = None,
    size: int | None = None,
    seed: int = 0,
    format: Format = "png",
) -> Plan:
    """Everything that `run` would draw, without drawing it. The arguments are those of `run`."""
    if per_concept is not None and per_concept < 1:
        raise IsekaiError(f"{per_concept} images a concept; at least 1 is needed")
    if size is not None and not 16 <= size <= 4096:
        raise IsekaiError(f"a size of {size} pixels; 16 to 4096 are possible")
    if tries < 1:
        raise IsekaiError(f"{tries} tries; at least 1 is needed")
    if format not in ("png", "webp"):
        raise IsekaiError(f"the format '{format}' is not written here; give png or webp")
    chosen = source if isinstance(source, Chosen) else choose(source, options)
    built = chosen.source
    suggested = built if isinstance(built, Suggesting) else None
    size = size or (suggested.size if suggested else SIZE)
    names = suggested.gates if suggested and gates is None else gates or ()
    judges = _gates(names)
    catalog = built if isinstance(built, Catalog) else None
    if catalog and spec is None:
        asked_for = specs.select(catalog.groups(), groups)
    else:
        asked_for = specs.load(spec, groups)
    for gate in judges.values():
        if isinstance(gate, Knowing):
            gate.inform(asked_for)
    count = per_concept or (sys.maxsize if catalog else PER_CONCEPT)
    requests = tuple(
        ImageRequest(
            concept=concept,
            index=index,
            size=size,
            seed=specs.seed(concept.id, index, seed),
            prompt=specs.expand(concept, index),
        )
        for group in asked_for
        for concept in group.concepts
        for index in range(min(count, catalog.count(concept)) if catalog else count)
    )
    settings: dict[str, object] = {**built.settings, "size": size, "format": format}
    if judges:
        settings["gates"] = {name: gate.settings for name, gate in judges.items()}
    settings = json.loads(json.dumps(files.plain(settings)))
    return Plan(
        source=built,
        name=chosen.name,
        why=chosen.why,
        groups=asked_for,
        requests=requests,
        settings=settings,
        format=format,
        gates=judges,
        tries=tries,
        seed=seed,
        asked=chosen.asked,
        request={
            "groups": [group.id for group in asked_for],
            "source": chosen.name,
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
    gates: Sequence[str] | None = None,
    tries: int = TRIES,
    per_concept: int | None = None,
    size: int | None = None,
    workers: int | None = None,
    seed: int = 0,
    out: Path = Path("images"),
    format: Format = "png",
    force: bool = False,
) -> Path:
    """Draw what is missing in `out`, and return it.

    `groups` is `all` or ids with commas: of the folder `spec`, else of the source's own catalogue,
    else of the built-in spec. `source` is the name of one, also `name:argument`, built with
    `options`; or one that is built. What one of the `gates` turns down is put aside and drawn again
    with another seed, up to `tries` drawings a place; without `gates` the source's own are taken.
    `per_concept` is 32, or all that a catalogue has. `size` is in pixels of the longer side: the
    source's own, or 512. `workers` are processes: one a device of the source, else one a usable
    core; the pictures do not depend on them. Images that are there with the same request stay;
    other settings and images that are not asked for are refused, unless `force` redraws and removes
    them.
    """
    work = plan(
        groups=groups,
        spec=spec,
        source=source,
        options=options,
        gates=gates,
        tries=tries,
        per_concept=per_concept,
        size=size,
        seed=seed,
        format=format,
    )
    return draw(work, out=out, workers=workers, force=force)


def draw(work: Plan, *, out: Path, workers: int | None = None, force: bool = False) -> Path:
    """Draw what is missing of `work` in `out`, and return it."""
    if workers is not None and workers < 1:
        raise IsekaiError(f"{workers} workers; at least 1 is needed")
    progress.tell(f"{len(work.requests)} images from the source '{work.name}' ({work.why})")
    _refuse_foreign(out)
    with files.lock(out), files.explained(out):
        files.sweep_temporaries(out)
        ledger = Ledger(out, work, force=force)
        if ledger.is_complete():
            progress.tell(f"{out}: complete, nothing to do")
        else:
            ledger.settle()
            started = time.monotonic()
            drawn = _draw(work, ledger, out, workers)
            ledger.finish()
            images, seconds = len(ledger.records()), time.monotonic() - started
            progress.tell(f"{out}: {drawn} drawn in {seconds:.1f} s, {images} in all")
    _tell_refusals(work, ledger, out)
    return out


def forecast(work: Plan) -> str:
    """What `work` would draw: every prompt, and then counts and what it takes."""
    concepts = list(dict.fromkeys(request.concept.id for request in work.requests))
    pixels = sum(request.size**2 for request in work.requests)
    spent = work.source.estimate(work.requests) if isinstance(work.source, Estimating) else ()
    prompts: dict[str, int] = {}
    for request in work.requests:
        if request.prompt:
            told = f"{request.concept.id}: {request.prompt}"
            prompts[told] = prompts.get(told, 0) + 1
    return "\n".join(
        [
            *(told if count == 1 else f"{told} (x{count})" for told, count in prompts.items()),
            f"{len(work.requests)} images of {len(concepts)} concepts in {len(work.groups)} groups",
            f"source: {work.name} ({work.why}), {work.source.model}",
            f"gates: {', '.join(work.gates) or 'none'}",
            f"disk: about {pixels * BYTES_PER_PIXEL[work.format] / 1e6:.0f} MB",
            *spent,
            f"{len(prompts)} distinct prompts" if prompts else "no prompts",
        ]
    )


def _draw(work: Plan, ledger: Ledger, out: Path, workers: int | None) -> int:
    """Round after round: what a gate turns down is drawn again in the next. How many were drawn."""
    missing, drawn = ledger.missing(), 0
    concepts = {request.concept.id for request in work.requests}
    done = len(ledger.records()) + len(ledger.refusals())
    with (
        _closing(work.gates.values()),
        Drawing(work.source, images=len(missing), workers=workers) as drawing,
        progress.bar(len(work.requests), done) as advance,
    ):
        threads = 1 if drawing.workers == 1 and work.source.processes else THREADS
        while True:
            while missing:  # until every place is filled or given up
                with ledger.growing() as add:

                    def keep(finished: Finished, add: Callable[[Finished], None] = add) -> None:
                        add(finished)
                        tried = finished.request.attempt + 1
                        advance(0 if finished.again and tried < work.tries else 1)

                    finish_all(work, drawing.draw(missing), keep, threads=threads)
                drawn += len(missing)
                missing = ledger.missing()
            turned = _compare(work, ledger, out, concepts)
            ledger.turn_down(turned)
            missing = ledger.missing()
            advance(-len(missing))
            if not missing:
                return drawn
            concepts = {request.concept.id for request in missing}


@contextmanager
def _closing(gates: Iterable[Gate]) -> Iterator[None]:
    """Let go of what gates hold, however it ends."""
    try:
        yield
    finally:
        for gate in gates:
            if isinstance(gate, Closing):
                gate.close()


def _compare(
    work: Plan, ledger: Ledger, out: Path, concepts: Collection[str]
) -> list[tuple[ImageRecord, Judgement]]:
    """What the comparing gates turn down, now that every place is filled or given up.

    Pictures are compared in the order of their index, whenever they were drawn, so that the outcome
    depends neither on workers nor on interruptions.
    """
    turned: dict[str, tuple[ImageRecord, Judgement]] = {}
    for name, gate in work.gates.items():
        if not isinstance(gate, Comparing):
            continue
        for concept in sorted(concepts):
            rows = [row for row in ledger.records() if row.concept == concept]
            by_path = {row.path: row for row in rows}
            repeats = gate.repeats((path, decode((out / path).read_bytes())) for path in by_path)
            for path, judgement in repeats.items():
                told = replace(judgement, reason=f"{name}: {judgement.reason}")
                turned.setdefault(path, (by_path[path], told))
    return list(turned.values())


def _tell_refusals(work: Plan, ledger: Ledger, out: Path) -> None:
    refusals = ledger.refusals()
    if refusals and len(refusals) == len(work.requests):
        raise DataError(f"{out}: no image could be drawn; the first: {refusals[0].reason}")
    if refusals:
        progress.tell(f"{out}: {len(refusals)} could not be drawn; see {out / REJECTED}")
    rates = {id: counts for id, counts in ledger.acceptance().items() if counts[0] < counts[1]}
    taken, drawn = (sum(column) for column in zip(*ledger.acceptance().values(), strict=True))
    if len(refusals) < drawn - taken:
        worst = sorted(rates.items(), key=lambda rate: rate[1][0] / rate[1][1])[:3]
        told = ", ".join(f"{id} {few} of {all}" for id, (few, all) in worst)
        progress.tell(
            f"{out}: {drawn - taken} of {drawn} drawings were turned down; taken least: {told}"
        )


def _gates(texts: Sequence[str]) -> dict[str, Gate]:
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


def _usual() -> tuple[str, str]:
    """The source of this machine, and why."""
    missing = [name for name in ("diffusers", "torch") if find_spec(name) is None]
    if missing:
        return "procedural", f"auto: {missing[0]} is not installed"
    import torch

    if torch.cuda.is_available():
        return "diffusers", "auto: there is a GPU"
    return "procedural", "auto: no GPU here"


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
