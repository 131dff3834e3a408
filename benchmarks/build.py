"""How long a build takes beside what it cannot do without: read, hash and embed each picture once.

    python -m benchmarks.build [--pictures 2000] [--size 1024] [--rounds 1]

Both sides start with an empty cache, in turns within one run. The floor reads each file, decodes
it, takes SHA-256 of file and pixels and the perceptual hash, and embeds it in batches through
EfficientNet-Lite0, with as many threads. The build does all that, finds copies, writes Parquet,
evidence, episodes, card and sheets. Nothing is encoded again: each picture takes less than a
megabyte. Beside seconds, those of all cores together are told: they swing less where other work
runs.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from isekai import build, dedup, files, plugins
from isekai.dataset import Dataset
from isekai.drawing import usable_cores
from isekai.embeddings import Embeddings
from isekai.images import decode
from isekai.types import ImageRecord
from tests.conftest import tiny_groups, write_images


def main() -> None:
    wanted = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    wanted.add_argument("--pictures", type=int, default=2000)
    wanted.add_argument("--size", type=int, default=1024)
    wanted.add_argument("--rounds", type=int, default=1)
    given = wanted.parse_args()
    with tempfile.TemporaryDirectory() as place:
        concepts = sum(len(group.concepts) for group in tiny_groups())
        images = Path(place) / "images"
        write_images(images, per_concept=-(-given.pictures // concepts), size=given.size)
        records = files.read_jsonl(images / "ledger.jsonl", ImageRecord)
        largest = max((images / record.path).stat().st_size for record in records)
        print(f"{len(records)} pictures of {given.size} px, the largest of {largest / 1e6:.2f} MB")
        ratios = []
        for turn in range(given.rounds):
            least, work = timed(partial(floor, images, records, Path(place) / f"floor{turn}"))
            os.environ["ISEKAI_CACHE"] = f"{place}/cache{turn}"
            out = Path(place) / f"dataset{turn}"
            took, built = timed(partial(build.run, images=images, out=out))
            stored = Dataset.open(out)
            assert all(stored.image(entry.image_id).data for entry in stored.entries[::50])
            ratios.append(took / least)
            print(
                f"floor {least:.1f} s ({work:.1f} of the cores), build {took:.1f} s ({built:.1f}): "
                f"{took / least:.2f} times ({built / work:.2f})"
            )
    print(f"median {statistics.median(ratios):.2f} times the floor")


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and those of all cores."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started, time.process_time() - used


def floor(images: Path, records: list[ImageRecord], cache: Path) -> None:
    """Read, hash and embed every picture once."""
    look = Embeddings(plugins.build("embedders", "lite0"), cache)
    hashes: list[np.ndarray] = []

    def one(record: ImageRecord) -> tuple[str, np.ndarray, Image.Image]:
        data = (images / record.path).read_bytes()
        picture = decode(data)
        dedup.pixels_hash(picture)
        return files.sha256(data), dedup.perceptual_hash(picture), picture

    def passing() -> Iterator[tuple[str, Image.Image]]:
        rest = iter(records)
        with ThreadPoolExecutor(usable_cores()) as pool:
            waiting: deque[Future[tuple[str, np.ndarray, Image.Image]]] = deque(
                pool.submit(one, record) for record in islice(rest, 3 * usable_cores())
            )
            while waiting:
                id, hash, picture = waiting.popleft().result()
                waiting.extend(pool.submit(one, record) for record in islice(rest, 1))
                hashes.append(hash)
                yield id, picture

    rows = look.rows_of(passing())
    assert len(rows) == len(hashes) == len(records)


if __name__ == "__main__":
    main()
