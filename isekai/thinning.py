"""Which pictures go into a dataset: each is looked at, and has a reason if it goes."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import calibration, dedup, files, fitting, progress
from isekai.calibration import Calibration, Pictured
from isekai.decisions import Decision
from isekai.drawing import usable_cores
from isekai.embeddings import Embeddings
from isekai.errors import DataError
from isekai.evidence import style
from isekai.images import UnreadableImage, decode
from isekai.intake import Images, Rejection
from isekai.parquet import SPLITS, Row
from isekai.protocols import Gate, Knowing
from isekai.redrawing import request_of
from isekai.types import Concept, ImageRecord

ALIGNED = "clip.own"
"""Score by which the best of several pictures that are alike is found, where it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """By what pictures are left out."""

    limits: dedup.Limits | None
    """How near is too near; None: calibrated on the pictures themselves."""
    precision: float = 0.99
    """Of that calibration."""
    gates: Mapping[str, Gate] = field(default_factory=dict)
    decided: Mapping[str, Decision] = field(default_factory=dict)
    """Image id -> what a person wants."""
    originals: bool = False
    """Whether pictures of over a megabyte stay as they are."""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thinned:
    """What stays, and everything left out."""

    rows: list[Row]
    vectors: NDArray[np.float32]
    """[rows, D], of length 1 each."""
    styles: Mapping[str, NDArray[np.float64]]
    """Image id -> `evidence.style.describe`."""
    originals: Mapping[str, str]
    """Id of a picture that is stored smaller -> its id as it was drawn."""
    rejected: list[Rejection]
    limits: dedup.Limits
    calibration: Calibration | None
    read: Callable[[ImageRecord], bytes]
    """A row's file as it is to be stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Looked:
    """A picture that can be used so far."""

    row: Row
    picture: Image.Image
    print: dedup.Print
    style: NDArray[np.float64]
    drawn: ImageRecord
    """Its record as it was drawn."""


class _Looker:
    """Reads a picture, makes it smaller where it has to be, and judges it; from any thread."""

    def __init__(self, found: Images, rules: Rules, smaller: Path) -> None:
        """Pictures that are made smaller go into the folder `smaller`."""
        self._found, self._rules, self._smaller = found, rules, smaller

    def __call__(self, row: Row) -> _Looked | Rejection:
        record, concept = row
        try:
            fitted = self._fitted(record)
            picture = decode(fitted.data)
        except UnreadableImage as error:
            return Rejection.of(record, f"unreadable: {error}")
        own = replace(record, width=picture.width, height=picture.height)
        if fitted.how:
            path = Path(record.path).with_suffix(".webp").as_posix()
            own = replace(own, id=files.sha256(fitted.data), path=path)
            files.write_bytes(self._smaller / own.id, fitted.data)
        decision = self._rules.decided.get(own.id) or self._rules.decided.get(record.id)
        if told := _unwanted(decision):
            return Rejection.of(record, told)
        keep = decision is not None
        if decision and decision.concept is not None:
            concept = self._concepts[decision.concept]
            own = replace(own, concept=concept.id)
        scores, reasons = self._judged(own, concept, picture)
        if reasons and not keep:
            return Rejection.of(record, "; ".join(reasons))
        own = replace(own, scores=scores)
        return _Looked(
            row=Row(own, concept),
            picture=picture,
            print=dedup.Print.of(picture, own, keep=keep, score=scores.get(ALIGNED, 0.0)),
            style=style.describe(picture),
            drawn=record,
        )

    @property
    def _concepts(self) -> Mapping[str, Concept]:
        return {c.id: c for group in self._found.groups for c in group.concepts}

    def _fitted(self, record: ImageRecord) -> fitting.Fitted:
        data = self._found.read(record)
        return fitting.Fitted(data, "") if self._rules.originals else fitting.fit(data)

    def _judged(
        self, record: ImageRecord, concept: Concept, picture: Image.Image
    ) -> tuple[dict[str, float], list[str]]:
        """Scores, those of drawing and those of the gates, and why it should not stay."""
        scores, reasons = dict(record.scores), []
        for name, gate in self._rules.gates.items():
            judgement = gate.judge(request_of(record, concept, picture.size), picture)
            scores.update(judgement.scores)
            if judgement.reason:
                reasons.append(f"{name}: {judgement.reason}")
        return scores, reasons


def thin(found: Images, look: Embeddings, rules: Rules, smaller: Path) -> Thinned:
    """Leave out what is unreadable, unwanted, or alike to what stays.

    DataError if a concept is left with fewer than one picture for each split.
    """
    rejected = list(found.rejected)
    _refuse_unknown(found, rules.decided)
    if not rules.decided:  # which may bring a concept its pictures
        _refuse_small(found, found.rows, rejected)
    for gate in rules.gates.values():
        if isinstance(gate, Knowing):
            gate.inform(found.groups)
    kept: list[_Looked] = []

    def passing() -> Iterator[tuple[str, Image.Image]]:
        for one in _looked(found.rows, _Looker(found, rules, smaller)):
            if isinstance(one, Rejection):
                rejected.append(one)
            else:
                kept.append(replace(one, picture=_NONE))
                yield one.row.record.id, one.picture

    pictures = passing()
    if (first := next(pictures, None)) is None:
        _refuse_small(found, [], rejected)
        raise DataError(f"{found.folder}: has no pictures")
    vectors = look.rows_of(chain([first], pictures))
    originals = {one.row.record.id: one.drawn.id for one in kept}
    originals = {id: original for id, original in originals.items() if id != original}

    def read(record: ImageRecord) -> bytes:
        made = smaller / record.id
        return made.read_bytes() if made.exists() else found.read(record)

    rows = _numbered(kept, found)
    calibrated = None if rules.limits else _calibrated(rows, look, rules, read)
    limits = rules.limits or (calibrated.limits if calibrated else dedup.Limits())
    told = dedup.thin([one.print for one in kept], vectors, limits, rules.seed)
    for duplicate in told.duplicates:
        gone_for, stays = kept[duplicate.position].drawn, kept[duplicate.kept].drawn.path
        rejected.append(Rejection.of(gone_for, duplicate.reason, stays))
    gone = {duplicate.position for duplicate in told.duplicates}
    order = {c.id: place for place, c in enumerate(_concepts(found))}
    stay = sorted(
        (place for place in range(len(rows)) if place not in gone),
        key=lambda place: (order[rows[place].concept.id], rows[place].record.index),
    )
    left = [rows[place] for place in stay]
    _refuse_small(found, left, rejected)
    return Thinned(
        rows=left,
        vectors=vectors[stay],
        styles={kept[place].row.record.id: kept[place].style for place in stay},
        originals=originals,
        rejected=rejected,
        limits=limits,
        calibration=calibrated,
        read=read,
    )


_NONE = Image.new("RGB", (1, 1))
"""In the place of pictures that are not kept in memory."""


def _looked(rows: Sequence[Row], look: _Looker) -> Iterator[_Looked | Rejection]:
    """Every row looked at, in order, by all cores; few pictures are in memory at a time."""
    cores = usable_cores()
    rest = iter(rows)
    with (
        ThreadPoolExecutor(cores, "isekai-look") as pool,
        progress.bar(len(rows)) as advance,
    ):
        waiting: deque[Future[_Looked | Rejection]] = deque(
            pool.submit(look, row) for row in islice(rest, 3 * cores)
        )
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(look, row) for row in islice(rest, 1))
            yield done
            advance()


def _calibrated(
    rows: Sequence[Row], look: Embeddings, rules: Rules, read: Callable[[ImageRecord], bytes]
) -> Calibration:
    def opened(record: ImageRecord) -> Callable[[], Image.Image]:
        return lambda: decode(read(record))

    pictures = [
        Pictured(id=row.record.id, concept=row.concept.id, open=opened(row.record)) for row in rows
    ]
    return calibration.run(pictures, look.embedder.embed_images, rules.precision, rules.seed)


def _unwanted(decision: Decision | None) -> str:
    """Why a person wants it left out, if one does."""
    if decision is None or decision.verdict == "keep" or decision.concept is not None:
        return ""
    told = "dropped" if decision.verdict == "drop" else "shows none of the concepts"
    return f"{told} by a reviewer"  # whose notes are no one else's


def _numbered(kept: Sequence[_Looked], found: Images) -> list[Row]:
    """The rows, with a free number for each picture that was given to another concept."""
    taken = {(row.record.concept, row.record.index) for row in found.rows}
    numbered = []
    for one in kept:
        record, concept = one.row
        own = record
        if concept.id != one.drawn.concept:
            index = next(n for n in range(len(taken) + 1) if (concept.id, n) not in taken)
            taken.add((concept.id, index))
            own = replace(record, index=index)
        numbered.append(Row(own, concept))
    return numbered


def _concepts(found: Images) -> Iterator[Concept]:
    return (concept for group in found.groups for concept in group.concepts)


def _refuse_unknown(found: Images, decided: Mapping[str, Decision]) -> None:
    """A decision for a concept that isn't there can't be obeyed."""
    known = {concept.id for concept in _concepts(found)}
    for decision in decided.values():
        if decision.concept is not None and decision.concept not in known:
            raise DataError(
                f"{found.folder}: a reviewer gave picture {decision.image_id[:12]} to "
                f"'{decision.concept}', which is no concept here; decide again"
            )


def _refuse_small(found: Images, rows: Sequence[Row], rejected: Sequence[Rejection]) -> None:
    """Every concept needs a picture for each split; DataError names those that lack one."""
    left = Counter(row.concept.id for row in rows)
    problems = []
    for concept in _concepts(found):
        if left[concept.id] >= len(SPLITS):
            continue
        why = Counter(one.reason for one in rejected if one.concept == concept.id)
        told = "".join(f"; {number} left out: {reason}" for reason, number in sorted(why.items()))
        problems.append(
            f"{found.folder}: {concept.id} has {left[concept.id]} usable images and needs at "
            f"least {len(SPLITS)}{told}"
        )
    if problems:
        raise DataError("\n".join(problems))
