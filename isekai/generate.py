"""Draws the images of a spec into a folder that remembers how each came to be."""

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from isekai import files, progress
from isekai import spec as specs
from isekai.choosing import Chosen, choose, having
from isekai.drawing import Drawing
from isekai.errors import DataError, IsekaiError
from isekai.finishing import THREADS, Finished, finish_all
from isekai.gates import closing, gates_of
from isekai.images import Format, decode
from isekai.ledger import REJECTED, Ledger
from isekai.plan import TRIES, Plan, Variant
from isekai.protocols import (
    Catalog,
    Comparing,
    Estimating,
    ImageSource,
    Judgement,
    Knowing,
    Releasing,
    Suggesting,
)
from isekai.types import Group, ImageRecord, ImageRequest

PER_CONCEPT = 32

SIZE = 512
"""Pixels, of a source that suggests nothing."""

BYTES_PER_PIXEL = {"png": 0.6, "webp": 0.4}
"""Measured on procedural pictures of 512 pixels, and near the 1.2 of photographs by half; for the
estimate of a dry run only."""


def plan(
    *,
    groups: str = "all",
    spec: Path | None = None,
    source: str | ImageSource | Chosen = "auto",
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
    judges = gates_of(suggested.gates if suggested and gates is None else gates or ())
    catalog = built if isinstance(built, Catalog) else None
    if catalog and spec is None:
        asked_for = specs.select(catalog.groups(), groups)
    else:
        asked_for = specs.load(spec, groups)
    for gate in judges.values():
        if isinstance(gate, Knowing):
            gate.inform(asked_for)
    count = per_concept or (sys.maxsize if catalog else PER_CONCEPT)
    judging = {name: gate.settings for name, gate in judges.items()}
    variants = _variants(chosen, asked_for, size, format, judging)
    sizes = {id: one.size for one in variants for id in one.concepts}
    requests = tuple(
        ImageRequest(
            concept=concept,
            index=index,
            size=sizes[concept.id],
            seed=specs.seed(concept.id, index, seed),
            prompt=specs.expand(concept, index),
        )
        for group in asked_for
        for concept in group.concepts
        for index in range(min(count, catalog.count(concept)) if catalog else count)
    )
    first, *others = variants
    request: dict[str, object] = {
        "groups": [group.id for group in asked_for],
        "source": chosen.name,
        **first.told,
        "per_concept": None if count == sys.maxsize else count,
        "seed": seed,
    }
    if others:
        request["variants"] = [{"concepts": one.concepts, **one.told} for one in others]
    return Plan(
        variants=variants,
        name=chosen.name,
        why=chosen.why,
        groups=asked_for,
        requests=requests,
        format=format,
        gates=judges,
        tries=tries,
        seed=seed,
        asked={**chosen.asked, "spec": _named(spec, catalog)},
        request=json.loads(json.dumps(files.plain(request))),
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
    source's own, or 512. What the spec gives for a source yields to `options`. `workers` are
    processes: one a device of the source, else one a usable core; the pictures do not depend on
    them. Images that are there with the same request stay; other settings and images that are not
    asked for are refused, unless `force` redraws and removes them.
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


def _named(spec: Path | None, catalog: Catalog | None) -> str:
    """What a dataset of these concepts may be called: as the folder that they come from."""
    return spec.resolve().name if spec else "" if catalog else specs.BUILT_IN


def _variants(
    chosen: Chosen,
    groups: Sequence[Group],
    size: int | None,
    format: Format,
    judging: Mapping[str, object],
) -> tuple[Variant, ...]:
    """The source as the concepts are drawn with it; first as most of a spec are, as the user said.

    `size` and `format` are the user's, `judging` the settings of the gates.
    """
    concepts: dict[int, list[str]] = {}
    found: dict[int, tuple[ImageSource, Mapping[str, object]]] = {}
    for concept in (concept for group in groups for concept in group.concepts):
        own: Mapping[str, object] = chosen.heeded(concept.generator.get(chosen.name, {}))
        source = having(chosen, own, f"{concept.id}: its generator settings")
        found.setdefault(id(source), (source, own))
        concepts.setdefault(id(source), []).append(concept.id)
    variants = []
    for key, (source, own) in found.items():
        usual = source.size if isinstance(source, Suggesting) else SIZE
        settings: dict[str, object] = {**source.settings, "size": size or usual, "format": format}
        if judging:
            settings["gates"] = judging
        variants.append(
            Variant(
                source=source,
                concepts=tuple(concepts[key]),
                options=own,
                size=size or usual,
                settings=json.loads(json.dumps(files.plain(settings))),
            )
        )
    return tuple(sorted(variants, key=lambda variant: bool(variant.options)))


def forecast(work: Plan) -> str:
    """What `work` would draw: every prompt, and then counts and what it takes."""
    concepts = list(dict.fromkeys(request.concept.id for request in work.requests))
    pixels = sum(request.size**2 for request in work.requests)
    prompts: dict[str, int] = {}
    for request in work.requests:
        if request.prompt:
            told = f"{request.concept.id}: {request.prompt}"
            prompts[told] = prompts.get(told, 0) + 1
    return "\n".join(
        [
            *(told if count == 1 else f"{told} (x{count})" for told, count in prompts.items()),
            f"{len(work.requests)} images of {len(concepts)} concepts in {len(work.groups)} groups",
            *(line for variant in work.variants for line in _foretold(work, variant)),
            f"gates: {', '.join(work.gates) or 'none'}",
            f"disk: about {pixels * BYTES_PER_PIXEL[work.format] / 1e6:.0f} MB",
            f"{len(prompts)} distinct prompts" if prompts else "no prompts",
        ]
    )


def _foretold(work: Plan, variant: Variant) -> Iterator[str]:
    """What a variant is and takes, a line each."""
    source = variant.source
    named = f"source: {work.name} ({work.why}), {source.model}"
    if variant.options:
        changed = ", ".join(f"{key}={value}" for key, value in variant.options.items())
        named += f", {changed} for {', '.join(variant.concepts)}"
    yield named
    if isinstance(source, Estimating):
        own = [request for request in work.requests if request.concept.id in variant.concepts]
        yield from source.estimate(own)


def _draw(work: Plan, ledger: Ledger, out: Path, workers: int | None) -> int:
    """Draw with one variant of the source after the other. How many were drawn."""
    drawn, done = 0, len(ledger.records()) + len(ledger.refusals())
    with closing(work.gates.values()), progress.bar(len(work.requests), done) as advance:
        for variant in work.variants:
            drawn += _draw_variant(work, variant, ledger, out, workers, advance)
            if len(work.variants) > 1 and isinstance(variant.source, Releasing):
                variant.source.release()
    return drawn


def _draw_variant(
    work: Plan,
    variant: Variant,
    ledger: Ledger,
    out: Path,
    workers: int | None,
    advance: Callable[[int], None],
) -> int:
    """Round after round: what a gate turns down is drawn again in the next. How many were drawn."""
    source, concepts, drawn = variant.source, set(variant.concepts), 0
    missing = ledger.missing(concepts)
    with Drawing(source, images=len(missing), workers=workers) as drawing:
        threads = 1 if drawing.workers == 1 and source.processes else THREADS
        while True:
            while missing:  # until every place is filled or given up
                with ledger.growing() as add:

                    def keep(finished: Finished, add: Callable[[Finished], None] = add) -> None:
                        add(finished)
                        tried = finished.request.attempt + 1
                        advance(0 if finished.again and tried < work.tries else 1)

                    finish_all(work, drawing.draw(missing), keep, threads=threads)
                drawn += len(missing)
                missing = ledger.missing(concepts)
            turned = _compare(work, ledger, out, concepts)
            ledger.turn_down(turned)
            missing = ledger.missing(concepts)
            advance(-len(missing))
            if not missing:
                return drawn
            concepts = {request.concept.id for request in missing}


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
