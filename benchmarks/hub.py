"""Measures how many bytes an edit of a dataset sends to the Hub again.

    python -m benchmarks.hub [--pictures 600] [--size 180] [--rounds 5]

The same pictures and columns go to a Hub on this machine three times: as `isekai` writes its
Parquet files; as `datasets.Dataset.push_to_hub` does by default, in row groups of 100 MB; and in
row groups of 100 rows, which viewers like as they like ours, by pyarrow with the same chunks. The
Hub leaves large files to hf_xet, the client's own, which keeps chunks in a folder: what that grows
by is what a push sends. Pictures are of noise, which no format makes smaller. Three edits, each of
a dataset of its own:

1. 1 % of the rows, drawn at random, get another picture;
2. 12 rows come in at the head;
3. 1 % of the rows, drawn at random, are dropped.

Every round has pictures and edits of its own; medians are told, and the range. hf_xet sends chunks
again rather than put a file together from too many pieces, so that rounds differ.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from isekai import files, parquet
from isekai.images import encode
from isekai.parquet import COLUMNS, Row
from isekai.types import Concept, Group, ImageRecord
from tests.loopback_hub import Hub, Token, serve

GROUPS = tuple(
    Group(
        id=f"g{n}",
        title=f"Things {n}",
        concepts=tuple(
            Concept(
                id=f"g{n}/{name}",
                name=name,
                role="foil" if name == "foil" else "novel",
                novelty=None if name == "foil" else "blend",
                definition=f"A {name}.",
            )
            for name in ("one", "two", "foil")
        ),
    )
    for n in range(3)
)
CONCEPTS = [concept for group in GROUPS for concept in group.concepts]


class Pictures:
    """Rows and the files they stand for."""

    def __init__(self, size: int, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._size = size
        self._files: dict[str, bytes] = {}

    def row(self, concept: Concept, index: int) -> Row:
        """A new picture."""
        pixels = self._rng.integers(0, 256, (self._size, self._size, 3), dtype=np.uint8)
        data = encode(Image.fromarray(pixels), "png")
        record = ImageRecord(
            id=files.sha256(data),
            path=f"{concept.id}/{index:05d}.png",
            concept=concept.id,
            index=index,
            seed=index,
            prompt=f"a {concept.name}",
            source="noise",
            model="numpy",
            revision=np.__version__,
            width=self._size,
            height=self._size,
            settings={},
            drawn_at="2026-11-24T00:00:00Z",
        )
        self._files[record.id] = data
        return Row(record, concept)

    def read(self, record: ImageRecord) -> bytes:
        return self._files[record.id]

    def some(self, count: int) -> np.ndarray:
        """One in a hundred of so many rows."""
        return self._rng.choice(count, max(1, count // 100), replace=False)


def edits(rows: Sequence[Row], make: Pictures) -> Mapping[str, Sequence[Row]]:
    """What is measured -> the rows after it."""
    changed = list(rows)
    for place in make.some(len(rows)):
        changed[place] = make.row(rows[place].concept, rows[place].record.index)
    head = [make.row(rows[0].concept, 10_000 + index) for index in range(12)]
    gone = set(make.some(len(rows)).tolist())
    return {
        "1 % of the rows changed": changed,
        "12 rows inserted at the head": [*head, *rows],
        "1 % of the rows dropped": [row for place, row in enumerate(rows) if place not in gone],
    }


def send_ours(rows: Sequence[Row], make: Pictures, repo: str) -> None:
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        parquet.write(Path(folder) / "things", "support", rows, GROUPS, make.read)
        HfApi().create_repo(repo, repo_type="dataset", exist_ok=True)
        HfApi().upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder)


def send_theirs(rows: Sequence[Row], make: Pictures, repo: str) -> None:
    """The very table that is in our files, as the library writes it."""
    import datasets

    with tempfile.TemporaryDirectory() as folder:
        paths = parquet.write(Path(folder) / "things", "support", rows, GROUPS, make.read)
        table = datasets.Dataset.from_parquet([str(p) for p in paths], cache_dir=f"{folder}/cache")
        assert set(table.column_names) == set(COLUMNS)
        table.push_to_hub(repo, split="support")


def send_even(rows: Sequence[Row], make: Pictures, repo: str) -> None:
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as folder:
        [path] = parquet.write(Path(folder) / "things", "support", rows, GROUPS, make.read)
        chunks = json.loads(pq.read_metadata(path).metadata[b"content_defined_chunking"])
        kinds = dict.fromkeys([*COLUMNS, "image.path"], "zstd") | {"image.bytes": "none"}
        del kinds["image"]
        pq.write_table(
            pq.read_table(path),
            path,
            row_group_size=100,
            compression=kinds,
            use_content_defined_chunking=chunks,
            write_page_index=True,
        )
        HfApi().create_repo(repo, repo_type="dataset", exist_ok=True)
        HfApi().upload_folder(repo_id=repo, repo_type="dataset", folder_path=folder)


def stored(hub: Hub) -> int:
    """Bytes of all chunks that hf_xet has sent."""
    assert hub.xet is not None
    there = hub.xet.rglob("xorbs/default.*")
    return sum(path.stat().st_size for path in there if path.suffix != ".tagset")


Send = Callable[[Sequence[Row], Pictures, str], None]
WAYS: Mapping[str, Send] = {
    "isekai": send_ours,
    "push_to_hub": send_theirs,
    "100 rows": send_even,
}


def measured(
    hub: Hub, send: Send, rows: Sequence[Row], after: Sequence[Row], make: Pictures, store: Path
) -> tuple[int, int]:
    """Bytes of the first push, and of the one after the edit, to a store of their own."""
    store.mkdir()
    hub.xet = store
    repo = f"me/{store.name}"
    send(rows, make, repo)
    first = stored(hub)
    send(after, make, repo)
    sent = stored(hub) - first
    shutil.rmtree(store)
    return first, sent


def rounds(hub: Hub, given: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """What is measured -> way -> MB in each round."""
    found: dict[str, dict[str, list[float]]] = {}
    each = -(-given.pictures // len(CONCEPTS))
    for seed in range(given.rounds):
        make = Pictures(given.size, seed)
        rows = [make.row(concept, index) for concept in CONCEPTS for index in range(each)]
        for number, (edit, after) in enumerate(edits(rows, make).items()):
            for way, send in WAYS.items():
                store = folder / f"{seed}-{number}-{send.__name__}"
                first, sent = measured(hub, send, rows, after, make, store)
                for what, size in (("the first push", first), (edit, sent)):
                    by_way = found.setdefault(what, {way: [] for way in WAYS})
                    by_way[way].append(size / 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=600)
    parser.add_argument("--size", type=int, default=180)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serve(tokens={"hf_me": Token()}) as hub:
        os.environ |= {
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": "hf_me",
            "HF_HOME": f"{folder}/hf",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        }
        found = rounds(hub, given, Path(folder))
    print(f"{'MB sent: median (range)':28}" + "".join(f"{way:>22}" for way in WAYS))
    for what, by_way in found.items():
        told = (
            f"{statistics.median(sizes):.2f} ({min(sizes):.2f}-{max(sizes):.2f})"
            for sizes in by_way.values()
        )
        print(f"{what:28}" + "".join(f"{one:>22}" for one in told))


if __name__ == "__main__":
    main()
