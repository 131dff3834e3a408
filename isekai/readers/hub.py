"""`hub:OWNER/NAME?image=COLUMN&label=COLUMN`: an image-classification data set of the Hub.

What the `datasets` library reads without strangers' code; from a local folder of such files, too.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from isekai import files, hub
from isekai.dataset import Dataset
from isekai.errors import DataError, did_you_mean
from isekai.images import UnreadableImage
from isekai.readers.classed import Choice, Grouping, assemble
from isekai.readers.pictures import Looked, Seen, Shelf, look, look_at


def read(
    repo: str,
    image: str = "image",
    label: str = "label",
    split: str = "test",
    config: str | None = None,
    revision: str | None = None,
    first_name: bool = False,
    group: Grouping = "single",
    per_class: int = 64,
    at_least: int = 1,
    query_share: float = 0.5,
) -> Dataset:
    """Each class a novel concept, called as the column `label` says: class labels or texts.

    `split`, `config` and `revision` are those of the repository; the one split is split again, into
    support and query. `first_name` keeps "tench" of "tench, Tinca tinca". The other options are
    those of the reader `classes`, except that pictures are taken by the hash of their row's number,
    so that no other row need be read. Rows without a label are left out.
    """
    choice = Choice(per_class=per_class, at_least=at_least, query_share=query_share, group=group)
    table = _load(repo, config, split, revision)
    rows = {key: choice.take(own) for key, own in _rows(repo, table, label).items()}
    chosen = [row for own in rows.values() for row in own]
    looked, fetch = _pictures(repo, table, image, chosen)
    return assemble(
        {key: {row: looked[row] for row in own} for key, own in rows.items()},
        {key: key.split(",")[0] if first_name else key for key in rows},
        choice,
        path=Path(repo),
        name=f"{repo}/{config}" if config else repo,
        fetch=fetch,
    )


def _load(repo: str, config: str | None, split: str, revision: str | None) -> Any:
    """The split as a table on disk; `datasets` keeps what it downloads and converts."""
    import datasets

    here = Path(repo).is_dir()
    if here and revision is not None:
        raise DataError(f"{repo}: lies here, so it has no revision; leave the option out")
    if not here and not hub.is_name(repo):
        raise DataError(f"{repo}: no such folder, and no name of the form owner/name")
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    with hub.reached(repo, revision, "dataset"), files.explained(Path(repo)):
        try:
            return datasets.load_dataset(repo, name=config, split=split, revision=revision)
        except (datasets.exceptions.DatasetsError, ValueError, FileNotFoundError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, FileNotFoundError) and not here:
                hub.ask(
                    repo, revision, "dataset"
                )  # why it isn't there, which `datasets` leaves out
            elif isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
                raise cause from None
            told = " ".join(str(cause).split())
            raise DataError(f"{repo}: can't be read as a data set: {told[:300]}") from None


def _column(repo: str, table: Any, name: str, option: str) -> Any:
    """The feature of the column; DataError if there is none of the name."""
    if name not in table.column_names:
        near = did_you_mean(name, table.column_names)
        raise DataError(f"{repo}: option {option}={name}: no such column{near}")
    return table.features[name]


def _kind(feature: Any) -> str:
    return getattr(feature, "dtype", "") or type(feature).__name__


def _rows(repo: str, table: Any, label: str) -> Mapping[str, Sequence[str]]:
    """Class -> the numbers of its rows; classes in the order of their labels, or of their names."""
    import datasets

    feature = _column(repo, table, label, "label")
    values = table.select_columns([label])[:][label]
    if isinstance(feature, datasets.ClassLabel):
        names = feature.names
        named = dict(enumerate(names))  # -1 stands for no label
        values = [named.get(value) for value in values]
    elif _kind(feature) in ("string", "large_string"):
        names = sorted({value for value in values if value is not None})
    else:
        raise DataError(
            f"{repo}: column '{label}' holds {_kind(feature)}; expected class labels or text"
        )
    rows: dict[str, list[str]] = {name: [] for name in names if name.strip()}
    for number, value in enumerate(values):
        if value in rows:
            rows[value].append(str(number))
    return {name: own for name, own in rows.items() if own}


def _pictures(
    repo: str, table: Any, image: str, rows: Sequence[str]
) -> tuple[Mapping[str, Looked], Callable[[str], bytes]]:
    """What is seen in these rows, and what fetches a picture by its id, byte for byte as it is."""
    import datasets

    feature = _column(repo, table, image, "image")
    fits = isinstance(feature, datasets.Image) or _kind(feature) in ("binary", "large_binary")
    if not fits and not (isinstance(feature, dict) and "bytes" in feature):
        raise DataError(f"{repo}: column '{image}' holds {_kind(feature)}; expected images")
    cells = table.select_columns([image]).cast_column(image, datasets.Image(decode=False))
    if table.info.builder_name == "imagefolder":
        paths = {row: Path(cells[int(row)][image]["path"] or "") for row in rows}
        root = Path(repo) if Path(repo).is_dir() else hub.cache_folder()
        by_path = look_at(paths.values(), root)
        shelf = {what.id: path for path, what in by_path.items() if isinstance(what, Seen)}
        return {row: by_path[path] for row, path in paths.items()}, Shelf(shelf).fetch

    def bytes_of(row: str) -> bytes:
        data: bytes | None = (cells[int(row)][image] or {}).get("bytes")
        if data is None:  # a path beside it is a stranger's, and may lead anywhere
            raise UnreadableImage("no bytes in its row")
        return data

    places = {row: f"{table._fingerprint} {image} {row}" for row in rows}
    seen = look({place: partial(bytes_of, row) for row, place in places.items()})
    looked = {row: seen[place] for row, place in places.items()}
    by_id = {what.id: row for row, what in looked.items() if isinstance(what, Seen)}
    return looked, lambda image_id: bytes_of(by_id[image_id])
