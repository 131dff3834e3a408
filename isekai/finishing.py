"""Judges, encodes and writes what is drawn, in threads, so that the device never waits."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from isekai import metadata
from isekai.images import encode
from isekai.plan import Plan
from isekai.protocols import Picture, Rejected, Synthetic
from isekai.types import ImageRequest

THREADS = 4
"""A PNG of 1024 pixels takes 0.17 s: four threads keep up with 20 a second."""

BACKLOG = 32
"""Pictures that may wait; then drawing waits. So many are still finished when a run is stopped."""

BACKLOG_PIXELS = 2**26
"""The same in pixels: 200 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A drawing as it goes into the folder."""

    request: ImageRequest
    reason: str = ""
    """Why it was turned down; empty if it passed."""
    again: bool = False
    """True where another seed may do better."""
    data: bytes = b""
    """The file; empty if nothing was drawn."""
    width: int = 0
    height: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)


def finish(plan: Plan, request: ImageRequest, drawn: Picture | Rejected) -> Finished:
    """Put a drawing through the gates and encode it."""
    if isinstance(drawn, Rejected):
        return Finished(request=request, reason=drawn.reason, again=drawn.again)
    scores = dict(drawn.scores)
    reasons = []
    for name, gate in plan.gates.items():
        judgement = gate.judge(request, drawn.image)
        scores.update(judgement.scores)
        if judgement.reason:
            reasons.append(f"{name}: {judgement.reason}")
    return Finished(
        request=request,
        reason="; ".join(reasons),
        again=bool(reasons),
        data=encode(drawn.image, plan.format, _told(plan, request)),
        width=drawn.image.width,
        height=drawn.image.height,
        scores=scores,
        made=dict(drawn.made),
    )


def _told(plan: Plan, request: ImageRequest) -> bytes:
    """How the picture comes to be, for its file."""
    source = plan.variant(request.concept.id).source
    facts = {
        "concept": request.concept.id,
        "index": request.index,
        "attempt": request.attempt,
        "negative_prompt": request.concept.negative_prompt,
        **plan.given(request),
    }
    kind = source.digital_source if isinstance(source, Synthetic) else ""
    return metadata.packet(facts, kind=kind)


def finish_all(
    plan: Plan,
    drawn: Iterable[tuple[ImageRequest, Picture | Rejected]],
    add: Callable[[Finished], None],
    *,
    threads: int = THREADS,
) -> None:
    """Take everything from `drawn` as fast as it comes; `add` is called from several threads.

    The first error of a thread ends it; what was drawn before is still added.
    """

    def work(request: ImageRequest, picture: Picture | Rejected) -> None:
        add(finish(plan, request, picture))

    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(threads, "isekai-finish"))
        waiting: deque[Future[None]] = deque()
        for request, picture in drawn:
            waiting.append(pool.submit(work, request, picture))
            most = max(threads, min(BACKLOG, BACKLOG_PIXELS // request.size**2))
            while waiting and (waiting[0].done() or len(waiting) > most):
                waiting.popleft().result()
        for future in waiting:
            future.result()
