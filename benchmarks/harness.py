"""Measures what the harness costs beyond the model: time a prediction, and memory.

    python -m benchmarks.harness [--predictions 10000] [--latency 0.02]

1. `isekai bench` with an oracle that answers at once: whatever time it takes is the harness's.
2. The same against a chat server on this machine that answers after `--latency` seconds, beside the
   loop that one would write instead (the official client, one request after the other, the same
   messages): the ratio says what the concurrency gains, and both answers have to agree.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from isekai import bench, demo, runs
from isekai.setup import Setup

SHOTS = (1, 2, 4, 8)

INSTANT = """
import re, time
from pathlib import Path
from isekai import bench
from isekai.setup import Setup

begun = time.perf_counter()
bench.run(Setup(models=("planted:last",), shots={shots}, episodes={episodes}, queries={queries},
                data={data!r}), out=Path({out!r}))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(time.perf_counter() - begun, peak[1] if peak else "nan")
"""


def instant(data: Path, folder: Path, predictions: int) -> None:
    """Time and memory of a process of its own, so that nothing else counts.

    The peak is read from Linux's /proc: `getrusage` counts the process that started it, too.
    """
    queries, groups = 8, len(demo.GROUPS)
    episodes = -(-predictions // (groups * len(SHOTS) * queries * 2))
    script = INSTANT.format(
        shots=SHOTS, episodes=episodes, queries=queries, data=str(data), out=str(folder / "instant")
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    seconds, peak = map(float, ended.stdout.split())
    asked = len(runs.read(folder / "instant").predictions)
    print(f"{asked} predictions of an oracle that takes no time")
    print(f"  harness        {1000 * seconds / asked:8.2f} ms a prediction, plots included")
    print(f"  peak memory    {peak / 1024:8.0f} MB")


def served(data: Path, folder: Path, latency: float) -> None:
    """`isekai bench` at two widths beside a plain loop over the same requests."""
    import openai

    from tests.loopback import serve

    setup = Setup(models=("openai:tiny",), shots=SHOTS, episodes=1, data=str(data), probe=False)
    said = []
    with serve(delay=latency, answer=lambda support, _: support[-1][1]) as server:
        for width in (1, 16):
            options = {"base_url": server.url, "concurrency": width, "cache": False}
            begun = time.perf_counter()
            out = bench.run(replace(setup, options=options), out=folder / f"width-{width}")
            rate(f"isekai bench, {width} at once", len(server.asked), begun)
            said.append([row.text for row in runs.read(out).predictions])
            bodies = [asked.body for asked in server.asked]
            server.asked.clear()
        client = openai.OpenAI(base_url=server.url, api_key="none")
        begun = time.perf_counter()
        for body in bodies:
            client.chat.completions.create(**body)
        rate("a loop over the client", len(bodies), begun)
    if said[0] != said[1]:
        raise SystemExit("one at a time and many at once gave different answers")


def rate(what: str, count: int, begun: float) -> None:
    print(f"  {what:26} {count / (time.perf_counter() - begun):7.1f} answers/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--predictions", type=int, default=10_000)
    parser.add_argument("--latency", type=float, default=0.02)
    given = parser.parse_args()
    data = demo.small_dataset()
    with tempfile.TemporaryDirectory() as name:
        instant(data, Path(name), given.predictions)
        print(f"a server that takes {1000 * given.latency:.0f} ms an answer")
        served(data, Path(name), given.latency)


if __name__ == "__main__":
    main()
