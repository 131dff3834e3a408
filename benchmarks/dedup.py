"""Measures the search for duplicates: speed, memory, and what is found, beside imagededup.

    python -m benchmarks.dedup [--peer FOLDER] [--largest 20000] [--memory 100000] [--concepts 20]

imagededup is no dependency. It and the one package of its own needs that is not here go into a
folder that is named with `--peer`; without it, only our side is measured:

    pip install --no-deps --target peer imagededup==0.3.3.post2 PyWavelets

1. All pairs over a threshold, beside the same upper triangle as bare matrix products, in turns.
2. Peak memory of the search at 100,000 x 512, exact and in buckets, each in a process of its own.
3. The search beside imagededup's CNN search on the same vectors, in turns, with the exponents.
4. What is found of labelled pairs, beside imagededup's PHash, DHash and CNN (the same vectors).
   Each tool is asked at the limits it ships with and at limits picked for the same precision on
   the same half of the concepts; all figures come from the other half.
"""

import argparse
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import calibration, generate, labelled, neighbours
from isekai import spec as specs
from isekai.alterations import ALTERATIONS
from isekai.images import decode
from isekai.labelled import NEGATIVES, Pairs, Pictured

WIDTH = 512
THRESHOLD = 0.9
PRECISION = 0.99

MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from benchmarks.dedup import rows
from isekai import neighbours
vectors = rows({count})
def told(): return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")  # what drawing them took is no longer the peak
before = told()
found = neighbours.{how}(vectors, {threshold})
print(len(found), before, told())
"""

SEARCH = """
import sys, time, pickle
import numpy as np, torch
from imagededup.methods import CNN
from imagededup.utils.models import CustomModel
vectors = np.load(sys.argv[1])
cnn = CNN(verbose=False, model_config=CustomModel(
    name="none", model=torch.nn.Identity(), transform=lambda image: image))
encodings = {str(number): row for number, row in enumerate(vectors)}
begun = time.perf_counter()
found = cnn.find_duplicates(encoding_map=encodings, min_similarity_threshold=float(sys.argv[2]))
print(time.perf_counter() - begun, sum(map(len, found.values())) // 2)
"""

LOOK = """
import pickle, sys
from pathlib import Path
import numpy as np, torch
from imagededup.methods import CNN, DHash, PHash
from imagededup.utils.models import CustomModel
folder = Path(sys.argv[1])
cnn = CNN(verbose=False, model_config=CustomModel(
    name="none", model=torch.nn.Identity(), transform=lambda image: image))
vectors = np.load(folder / "vectors.npy")
encodings = {f"{number:05d}.png": row for number, row in enumerate(vectors)}
found = {"CNN": cnn.find_duplicates(
    encoding_map=encodings, min_similarity_threshold=-1.0, scores=True, num_sim_workers=0)}
for method in (PHash(verbose=False), DHash(verbose=False)):
    hashes = method.encode_images(image_dir=folder)
    found[type(method).__name__] = method.find_duplicates(
        encoding_map=hashes, max_distance_threshold=64, scores=True)
count = len(vectors)
told = {}
for name, near in found.items():
    table = np.full((count, count), np.nan, np.float32)
    for one, others in near.items():
        for other, score in others:
            table[int(one[:5]), int(other[:5])] = score
    told[name] = table
Path(sys.argv[2]).write_bytes(pickle.dumps(told))
"""


def rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit rows at random; the last hundredth lie near the first ones, cosine about 0.995."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal((count, WIDTH), np.float32)
    near = count // 100
    made[count - near :] = made[:near] + 0.1 * made[count - near :]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def bare(vectors: NDArray[np.float32], tile: int) -> float:
    """Seconds for the upper triangle as matrix products into one buffer, which nobody reads."""
    buffer = np.empty((tile, tile), np.float32)
    begun = time.perf_counter()
    for top in range(0, len(vectors), tile):
        upper = vectors[top : top + tile]
        for left in range(top, len(vectors), tile):
            lower = vectors[left : left + tile]
            np.matmul(upper, lower.T, out=buffer[: len(upper), : len(lower)])
    return time.perf_counter() - begun


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def all_pairs(count: int, rounds: int) -> None:
    vectors = rows(count)
    tiles = (512, 1024, 2048)
    plain: dict[int, list[float]] = {tile: [] for tile in tiles}
    ours: list[float] = []
    for _ in range(rounds):
        for tile in tiles:
            plain[tile].append(bare(vectors, tile))
        ours.append(seconds(lambda: neighbours.pairs(vectors, THRESHOLD)))
    best = min(tiles, key=lambda tile: statistics.median(plain[tile]))
    ratios = sorted(own / other for own, other in zip(ours, plain[best], strict=True))
    print(f"all pairs, {count:,} x {WIDTH}, {rounds} rounds in turns")
    print(f"  bare products, best tile {best}   {statistics.median(plain[best]):8.2f} s")
    print(f"  neighbours.pairs              {statistics.median(ours):8.2f} s")
    print(f"  ratio {statistics.median(ratios):.2f} (median; {ratios[0]:.2f} to {ratios[-1]:.2f})")


def memory(count: int) -> None:
    print(f"peak memory, {count:,} x {WIDTH} (the vectors alone {count * WIDTH * 4 / 1e6:.0f} MB)")
    for how in ("pairs", "bucketed"):
        script = MEMORY.format(count=count, how=how, threshold=THRESHOLD)
        begun = time.perf_counter()
        found, before, peak = ran(script).split()
        print(
            f"  {how:10} {int(peak) / 1024:6.0f} MB ({int(before) / 1024:.0f} MB before it), "
            f"{found} of {count // 100} pairs, {time.perf_counter() - begun:.0f} s in all"
        )
    vectors = rows(count)
    found_pairs = neighbours.bucketed(vectors, THRESHOLD)
    told = neighbours.recall(vectors, THRESHOLD, found_pairs, queries=10_000)
    if told:
        print(f"  recall of buckets {told.value:.4f} [{told.low:.4f}, {told.high:.4f}], n {told.n}")


def ran(script: str, *arguments: str, peer: Path | None = None) -> str:
    environment = dict(os.environ)
    if peer:
        environment["PYTHONPATH"] = str(peer.resolve())
    command = [sys.executable, "-c", script, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return ended.stdout


def curves(peer: Path, largest: int, rounds: int) -> None:
    counts = [count for count in (1000, 2000, 5000, 10_000, 20_000) if count <= largest]
    print("search on the same vectors, seconds (median), in turns")
    print(f"  {'vectors':>8} {'imagededup':>11} {'ours':>8} {'times':>7}")
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as name:
        for count in counts:
            vectors = rows(count)
            np.save(Path(name) / "rows.npy", vectors)
            theirs, ours = [], []
            for _ in range(rounds):
                told = ran(SEARCH, f"{name}/rows.npy", str(THRESHOLD), peer=peer).split()
                theirs.append(float(told[0]))
                begun = time.perf_counter()
                found = neighbours.pairs(vectors, THRESHOLD)
                ours.append(time.perf_counter() - begun)
                if len(found) != int(told[1]):
                    raise SystemExit(f"{len(found)} pairs here, {told[1]} there")
            times.append((statistics.median(theirs), statistics.median(ours)))
            other, own = times[-1]
            print(f"  {count:8,} {other:11.3f} {own:8.3f} {other / own:7.1f}")
    for which, name in enumerate(("imagededup", "ours")):
        slope = np.polyfit(np.log(counts), np.log([pair[which] for pair in times]), 1)[0]
        print(f"  {name}: seconds grow with the number to the power of {slope:.2f}")


# ---------------------------------------------------------------- what is found


class Saving:
    """An embedder that keeps what it is shown, in the order of `labelled.labelled`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        from isekai.embedders.lite0 import Lite0  # here, for the memory of the search is measured

        self.embedder = Lite0()
        self.vectors: list[NDArray[np.float32]] = []

    def __call__(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        made = self.embedder.embed_images(images)
        for image, row in zip(images, made, strict=True):
            image.save(self.folder / f"{len(self.vectors):05d}.png", compress_level=1)
            self.vectors.append(row)
        return made


def drawn(folder: Path, concepts: int) -> list[Pictured]:
    """Twelve pictures of each of so many concepts, of our own source."""
    groups = specs.load(None, "all")
    names, count = [], 0
    for group in groups:
        if count < concepts:
            names.append(group.id)
            count += len(group.concepts)
    out = generate.run(
        groups=",".join(names), source="procedural", per_concept=12, size=256, out=folder
    )
    paths = [
        path for path in sorted(out.glob("*/*/*.png")) if path.relative_to(out).parts[0] in names
    ]
    return [
        Pictured(
            id=str(path.relative_to(out)),
            concept=str(path.parent.relative_to(out)),
            open=lambda path=path: decode(path.read_bytes()),  # type: ignore[misc]
        )
        for path in paths
    ]


def places(chosen: Sequence[Pictured], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of the saved pictures each labelled pair is of."""
    block = 1 + len(ALTERATIONS)
    pairs = [(k * block, k * block + n) for k in range(len(chosen)) for n in range(1, block)]
    pairs += [(i * block, j * block) for i, j in labelled.others(chosen, seed)]
    pairs += [(k * block, len(chosen) * block + k) for k in range(len(chosen))]
    one, two = np.array(pairs).T
    return one, two


def found(peer: Path | None, concepts: int, seed: int = 0) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "seen").mkdir()
        chosen = labelled.choose(drawn(folder / "images", concepts), seed)
        saving = Saving(folder / "seen")
        pairs = labelled.labelled(chosen, saving, seed)
        first = labelled.halves(pairs, seed)
        ours = calibration.run_on(pairs, PRECISION, seed, chosen)
        print(ours.text())
        rule = "same picture"
        lines = {"ours": {rule: pairs.verdicts(ours.limits)[rule]}}
        if peer:
            np.save(folder / "seen" / "vectors.npy", np.stack(saving.vectors))
            ran(LOOK, str(folder / "seen"), str(folder / "told"), peer=peer)
            tables = pickle.loads((folder / "told").read_bytes())
            lines |= others(tables, pairs, first, places(chosen, seed))
    compare(lines, pairs, ~first)


def others(
    tables: Mapping[str, NDArray[np.float32]],
    pairs: Pairs,
    first: NDArray[np.bool_],
    where: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """imagededup's verdicts at its own limits, and at limits picked as ours are."""
    lines = {}
    own = {"CNN": 0.9, "PHash": -10.0, "DHash": -10.0}
    for name, table in tables.items():
        values = np.nan_to_num(table[where].astype(float), nan=-1.0 if name == "CNN" else 64)
        near = values if name == "CNN" else -values
        half = pairs.at(first)
        inside = first & np.isin(pairs.other, half.concept)
        picked = calibration.limit(near[inside], half.same, half, PRECISION)
        lines[f"imagededup {name}"] = {
            f"its own limit, {abs(own[name]):g}": near >= own[name],
            f"picked, {abs(picked):.3g}": near >= picked,
        }
    return lines


def compare(
    lines: Mapping[str, Mapping[str, NDArray[np.bool_]]], pairs: Pairs, half: NDArray[np.bool_]
) -> None:
    part = pairs.at(half)
    inside = half & np.isin(pairs.other, part.concept)
    print(f"\nthe same {inside.sum():,} pairs of concepts that nothing was picked on")
    for tool, verdicts in lines.items():
        for how, taken in verdicts.items():
            told = taken[inside]
            recall = calibration.share(told[part.same])
            precision = calibration.precise(part, told)
            kinds = ", ".join(
                f"{kind} {told[part.kind == kind].mean():.3f}"
                for kind in (*ALTERATIONS, *NEGATIVES)
            )
            exact = f"{precision.value:.3f} [{precision.low:.3f}, {precision.high:.3f}]"
            print(
                f"  {tool}, {how}: recall {recall.value:.3f} [{recall.low:.3f}, {recall.high:.3f}] "
                f"of {recall.n}, precision {exact}\n    {kinds}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--largest", type=int, default=20_000)
    parser.add_argument("--memory", type=int, default=100_000)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("pairs", "memory", "curves", "found"))
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, numpy {np.__version__}, load {os.getloadavg()[0]:.1f}")
    wanted = [given.only] if given.only else ["pairs", "memory", "curves", "found"]
    if "pairs" in wanted:
        all_pairs(20_000, given.rounds)
    if "memory" in wanted:
        memory(given.memory)
    if "curves" in wanted and given.peer:
        curves(given.peer, given.largest, max(given.rounds // 2, 1))
    if "found" in wanted:
        found(given.peer, given.concepts)


if __name__ == "__main__":
    main()
