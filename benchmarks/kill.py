"""Kills `isekai generate` and `isekai bench` at random moments and compares what a rerun ends with.

    python benchmarks/kill.py [--kills 20] [--seed 0] [--step generate|bench|all]

Each kill (SIGKILL, to the parent alone) hits a fresh run at a moment drawn evenly between the
birth of its folder and its end. The same command then runs to the end, and every file has to equal
that of a run that nobody disturbed; only times of day and durations are left out. Prints a table;
exit status 1 on any difference.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from isekai import spec as specs

ISEKAI = (sys.executable, "-c", "from isekai.cli import main; main()")

Command = Callable[[Path], list[str]]
"""The words of a command, for the folder it writes."""


def generate(spec: Path, out: Path) -> list[str]:
    words = "generate --source procedural --per-concept 12 --size 96 --workers 2"
    return [*words.split(), "--spec", str(spec), "--out", str(out)]


def bench(data: Path, out: Path) -> list[str]:
    words = "bench --model chance --task twin --shots 0,1,2,4 --episodes 40"
    return [*words.split(), "--data", str(data), "--out", str(out)]


def finish(command: list[str]) -> None:
    ended = subprocess.run([*ISEKAI, *command], capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"isekai {' '.join(command)}: {ended.stderr}")


def start(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    """Start the command and return when its folder is born."""
    process = subprocess.Popen(
        [*ISEKAI, *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not out.exists() and process.poll() is None:
        time.sleep(0.001)
    return process


def is_left(group: int) -> bool:
    """True if a process of the group still runs five seconds after its parent's death."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.05)
    return True


def content(out: Path) -> dict[str, bytes]:
    """Every file of the folder, without what two equal runs may differ in."""
    found = {}
    for path in sorted(out.rglob("*")):
        if not path.is_file() or path.name == ".lock":
            continue
        data = path.read_bytes()
        if path.name == "ledger.jsonl":
            rows = [json.loads(line) for line in data.splitlines()]
            data = json.dumps([{**row, "drawn_at": None} for row in rows]).encode()
        elif path.name == "results.json":
            data = json.dumps({**json.loads(data), "last_process": None}).encode()
        found[str(path.relative_to(out))] = data
    return found


def measure(
    name: str, make: Command, folder: Path, kills: int, rng: np.random.Generator
) -> list[str]:
    """One row of the table: how many kills there were, what they hit, and what differs."""
    whole = folder / "whole"
    began = start(make(whole), whole), time.monotonic()
    if began[0].wait() != 0:
        raise SystemExit(f"{name} fails even undisturbed: isekai {' '.join(make(whole))}")
    length = time.monotonic() - began[1]
    wanted = content(whole)
    out, midway, late, orphans, differing = folder / "killed", 0, 0, 0, set()
    while midway < kills and late < 5 * kills:
        process = start(make(out), out)
        time.sleep(rng.uniform(0, length))
        process.kill()
        process.wait()
        orphans += is_left(process.pid)
        if (out / "manifest.json").exists():
            late += 1
        else:
            midway += 1
        finish(make(out))
        found = content(out)
        differing |= {key for key in {*wanted, *found} if wanted.get(key) != found.get(key)}
        shutil.rmtree(out)
    told = ", ".join(sorted(differing)[:5]) or "none"
    counts = (midway, late, orphans, len(wanted))
    return [name, f"{length:.1f} s", *map(str, counts), told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", choices=["generate", "bench", "all"], default="all")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "spec").mkdir()
        for group in ("cactihog", "icemic"):
            shutil.copy(specs.folder() / "isekai-20" / f"{group}.toml", folder / "spec")
        draw = partial(generate, folder / "spec")
        if given.step in ("generate", "all"):
            rows.append(measure("generate", draw, folder / "g", given.kills, rng))
        if given.step in ("bench", "all"):
            images, data = folder / "images", folder / "data"
            finish(draw(images))
            finish(["build", str(images), "--out", str(data)])
            rows.append(measure("bench", partial(bench, data), folder / "b", given.kills, rng))
    heading = ["step", "length", "killed", "too late", "orphans", "files", "differing"]
    for row in (heading, ["---"] * len(heading), *rows):
        print("| " + " | ".join(row) + " |")
    return int(any(row[4] != "0" or row[-1] != "none" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
