"""Measures the procedural source: pictures a second, memory a worker, and what the parts cost.

    python benchmarks/render.py [--size 192] [--per-concept 12] [--workers 2]

Draws all sixty concepts with `isekai generate` and, in the same run, the same requests on one
core without the harness. The ratio says what the workers gain; the last lines say where the time
of a picture goes. Peak memory is that of the largest worker.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from isekai import generate, spec
from isekai.sources.procedural.picture import render
from isekai.sources.procedural.scene import bounds, compose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--per-concept", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    concepts = [concept for group in spec.load() for concept in group.concepts]
    count = len(concepts) * given.per_concept

    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        generate.run(
            source="procedural",
            per_concept=given.per_concept,
            size=given.size,
            workers=given.workers,
            out=Path(folder) / "images",
        )
        harness = time.perf_counter() - begun
    kilobyte = 1024 if sys.platform == "darwin" else 1  # macOS counts bytes, Linux kilobytes
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / kilobyte / 1024

    composing = rendering = 0.0
    for concept in concepts:
        assert concept.sketch is not None
        bounds(concept.sketch)
        for index in range(given.per_concept):
            rng = np.random.default_rng(spec.seed(concept.id, index, 0))
            begun = time.perf_counter()
            scene = compose(concept.sketch, rng)
            composing += time.perf_counter() - begun
            begun = time.perf_counter()
            render(scene, given.size)
            rendering += time.perf_counter() - begun
    alone = composing + rendering

    print(f"{count} pictures of {given.size} pixels")
    print(f"isekai generate, {given.workers} workers  {count / harness:6.1f} pictures/s")
    print(f"one core, no files            {count / alone:6.1f} pictures/s")
    print(f"ratio                         {alone / harness:6.2f}")
    print(f"choosing a view               {1000 * composing / count:6.1f} ms a picture")
    print(f"casting and shading           {1000 * rendering / count:6.1f} ms a picture")
    print(f"peak memory of a worker       {peak:6.0f} MB")


if __name__ == "__main__":
    main()
