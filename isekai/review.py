"""The review step: a page on this machine on which a person looks at a dataset, picture by picture.

It writes decisions to a file; the next `isekai build` obeys them.
"""

import threading
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from isekai import decisions, files, progress
from isekai.dataset import Dataset
from isekai.errors import DataError
from isekai.intake import Rejection
from isekai.reviewing import details
from isekai.reviewing.desk import Desk
from isekai.reviewing.details import Detail
from isekai.reviewing.server import Server

_REJECTED = "rejected.jsonl"


def run(
    dataset: Path,
    *,
    images: Path | None = None,
    port: int = 0,
    open_browser: bool = True,
    out: Path | None = None,
) -> Path:
    """Serve the page until Ctrl-C, and return the file of decisions.

    That is `out`, or review.jsonl in the dataset. With `images`, the folder that the dataset was
    built from, pictures that were left out are shown, too, and can be kept after all.
    """
    found = Dataset.open(dataset)
    if images is not None and not images.is_dir():
        raise DataError(f"{images}: no such folder; give the one that the dataset was built from")
    desk = Desk(
        found,
        out or found.path / decisions.FILE,
        details=details.read(found.path),
        left_out=files.read_jsonl(found.path / _REJECTED, Rejection),
        images=images,
    )
    with _serving(desk, port) as url:
        progress.tell(f"{url}\nthe page to review {found.name}; Ctrl-C ends it")
        if open_browser:
            webbrowser.open(url)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    path = desk.path
    total, now = desk.tally()
    told = f"{_counted(total, 'picture')} decided, {now} of them now or otherwise than before"
    progress.tell(f"{path}: {told}; the next `isekai build` obeys it")
    return path


@contextmanager
def serve(
    dataset: Dataset,
    path: Path,
    *,
    details: Mapping[str, Detail] | None = None,
    left_out: Sequence[Rejection] = (),
    images: Path | None = None,
    port: int = 0,
) -> Iterator[str]:
    """The page's address while it is served; decisions go to `path`. BusyError if another does."""
    desk = Desk(dataset, path, details=details, left_out=left_out, images=images)
    with _serving(desk, port) as url:
        yield url


@contextmanager
def _serving(desk: Desk, port: int) -> Iterator[str]:
    with desk, Server(desk, port) as server:
        answering = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        answering.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            answering.join()


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
