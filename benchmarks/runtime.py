"""Measures the runtime of local models beside plain forwards of the same model, in turns.

    python -m benchmarks.runtime [--rounds 3] [--cells 1] [--threads 2]

A model of LLaMA's shape with 43 million random weights is asked one episode: 0, 1, 2, 4, 8 and 16
shots of two labels, 32 queries, 64 image and 24 text tokens a turn, both labels ranked, fp32. In
each round the runtime answers one cut after another, and after each cut two plain ways answer some
of its queries: every prompt read anew for each label, and every prompt read once. All queries of a
cut have prompts of one length, so the time of some stands for that of all; `--cells 32` asks all.
What comes out is compared.

Peak memory is that of processes of their own: one reads the longest prompt as transformers does
before it generates, one answers the whole episode. Both hold Python, the libraries and the weights.
Last, a first episode is timed with the check that chooses the way.
"""

import argparse
import io
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from isekai.files import sha256
from isekai.images import decode
from isekai.types import EncodedImage, Sweep, Turn
from model_adapters.runtime.running import Runtime
from model_adapters.runtime.seam import Continuation, Piece, Pieces

WIDTH, IMAGE_TOKENS, TEXT_TOKENS, VOCABULARY = 512, 64, 24, 4096
SHOTS, QUERIES = (0, 1, 2, 4, 8, 16), 32
LABELS = {"one": (11, 12, 13), "two": (11, 14, 15)}


class Model:
    """The model as the runtime sees it; an image is 64 patches, each through one matrix."""

    context = None
    stops: frozenset[int] = frozenset()
    barred: frozenset[int] = frozenset()

    def __init__(self) -> None:
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            intermediate_size=1408,
            num_hidden_layers=12,
            num_attention_heads=8,
        )
        self.model = LlamaForCausalLM(config).eval()
        self.patches = nn.Linear(8 * 8 * 3, WIDTH)

    def pieces(self, sweep: Sweep) -> Pieces:
        return Pieces(
            opening=None,
            support=tuple(_piece(place, turn) for place, turn in enumerate(sweep.support)),
            queries=tuple(_piece(0, turn) for turn in sweep.queries),
            labels={label: Continuation(ids=LABELS[label]) for label in sweep.labels},
        )

    def encode(self, images: Sequence[EncodedImage]) -> list[Tensor]:
        pixels = np.stack([np.asarray(decode(image.data), np.float32) / 255 for image in images])
        patches = torch.from_numpy(pixels).unflatten(1, (8, 8)).unflatten(3, (8, 8))
        patches = patches.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
        return list(self.patches(patches))

    def embed(self, piece: Piece, features: Sequence[Tensor]) -> Tensor:
        embeds = self.words(piece.ids)
        half = TEXT_TOKENS // 2
        return torch.cat([embeds[:half], features[0], embeds[half + IMAGE_TOKENS :]])

    def words(self, ids: Sequence[int]) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(torch.tensor(ids))
        return embedded

    def text(self, ids: Sequence[int]) -> str:
        return str(ids)


def _piece(place: int, turn: Turn) -> Piece:
    generator = np.random.default_rng(place)
    ids = generator.integers(16, VOCABULARY, IMAGE_TOKENS + TEXT_TOKENS).tolist()
    assert turn.image is not None
    return Piece(ids=tuple(ids), images=(turn.image,))


def episode() -> Sweep:
    def turn(number: int) -> Turn:
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        data = buffer.getvalue()
        return Turn(image=EncodedImage(id=sha256(data), data=data), question="", answer="")

    support = len(LABELS) * max(SHOTS)
    return Sweep(
        episode_id="benchmark",
        support=tuple(turn(number) for number in range(support)),
        cuts=tuple(len(LABELS) * shots for shots in SHOTS),
        queries=tuple(turn(1000 + number) for number in range(QUERIES)),
        labels=tuple(LABELS),
    )


@dataclass(kw_only=True)
class Clock:
    """Seconds on the wall, and of the processor in all threads."""

    wall: float = 0.0
    busy: float = 0.0

    @contextmanager
    def running(self, weight: float = 1.0) -> Iterator[None]:
        wall, busy = time.perf_counter(), time.process_time()
        yield
        self.wall += weight * (time.perf_counter() - wall)
        self.busy += weight * (time.process_time() - busy)


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one episode took, and how far the runtime's answers are from the plain ones."""

    ours: Clock
    by_label: Clock
    by_query: Clock
    off: float
    """Nats, at most."""
    flips: int


@torch.inference_mode()
def plain(model: Model, prompt: Tensor, keep: int, ids: Sequence[int] = ()) -> Tensor:
    """[keep, vocabulary]: log-probabilities as transformers gives them for one row."""
    embeds = torch.cat([prompt, model.words(ids)]) if ids else prompt
    given = {"inputs_embeds": embeds.unsqueeze(0), "use_cache": False, "logits_to_keep": keep}
    logits: Tensor = model.model(**given).logits[0]
    return logits.log_softmax(dim=-1)


@torch.inference_mode()
def prompts(model: Model, sweep: Sweep, cut: int, cells: int) -> list[Tensor]:
    """[tokens, width] of the first few queries behind a cut."""
    pieces = model.pieces(sweep)

    def embedded(piece: Piece) -> Tensor:
        return model.embed(piece, model.encode(piece.images))

    support = [embedded(piece) for piece in pieces.support[:cut]]
    return [torch.cat([*support, embedded(query)]) for query in pieces.queries[:cells]]


def one_round(runtime: Runtime, model: Model, sweep: Sweep, cells: int) -> Round:
    ours, by_label, by_query = Clock(), Clock(), Clock()
    off, flips = 0.0, 0
    responses = runtime.respond(sweep)
    for cut in sweep.cuts:
        with ours.running():
            told = list(islice(responses, QUERIES))
        weight = QUERIES / cells
        for place, prompt in enumerate(prompts(model, sweep, cut, cells)):
            with by_query.running(weight):
                plain(model, prompt, 1)
            true = {}
            for label, ids in LABELS.items():
                with by_label.running(weight):
                    logprobs = plain(model, prompt, len(ids), ids[:-1])
                true[label] = float(logprobs[range(len(ids)), list(ids)].sum())
            said = told[place].label_logprobs or {}
            off = max(off, *(abs(said[label] - true[label]) for label in LABELS))
            flips += max(said, key=lambda one: said[one]) != max(true, key=lambda one: true[one])
    return Round(ours=ours, by_label=by_label, by_query=by_query, off=off, flips=flips)


def speed(rounds: int, cells: int) -> None:
    model, sweep = Model(), episode()
    count = sum(weight.numel() for weight in model.model.parameters())
    print(f"{count / 1e6:.0f} million weights, {torch.get_num_threads()} threads")
    runtime = Runtime(model, way="packed")
    done = []
    for _ in range(rounds):
        done.append(one_round(runtime, model, sweep, cells))
        tell(done)
    images = {turn.image.id for turn in (*sweep.support, *sweep.queries) if turn.image}
    print(f"{len(images)} images, {runtime.features.encoded} encoded by the runtime in all rounds")


def tell(done: Sequence[Round]) -> None:
    """After every round, of all so far."""
    for kind in ("wall", "busy"):
        print(f"{kind} seconds an episode, medians of {len(done)} rounds in turns")
        for what in ("ours", "by_query", "by_label"):
            spent = [getattr(getattr(one, what), kind) for one in done]
            ratios = [time / getattr(one.ours, kind) for time, one in zip(spent, done, strict=True)]
            told = f"{what:9} {statistics.median(spent):8.1f}   x {statistics.median(ratios):5.1f}"
            print(f"  {told}   ({min(ratios):.1f} to {max(ratios):.1f})")
    off, flips = max(one.off for one in done), sum(one.flips for one in done)
    print(f"off at most {off:.1g} nats, {flips} flips", flush=True)


def check() -> None:
    runtime, clock = Runtime(Model()), Clock()
    with clock.running():
        list(runtime.respond(episode()))
    print(f"a first episode, with the check: {clock.wall:.1f} s, asked the way '{runtime.way}'")


def peak(kind: str) -> float:
    """MB of a process of its own."""
    script = f"from benchmarks.runtime import alone; alone({kind!r}, {torch.get_num_threads()})"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(ended.stderr)
    return float(ended.stdout.split()[-1])


def alone(kind: str, threads: int) -> None:
    """Prints the peak of this process in MB; Linux's /proc tells it."""
    torch.set_num_threads(threads)
    model, sweep = Model(), episode()
    if kind == "episode":
        list(Runtime(model, way="packed").respond(sweep))
    elif kind == "prompt":
        (prompt,) = prompts(model, sweep, max(sweep.cuts), 1)
        with torch.inference_mode():
            model.model(inputs_embeds=prompt.unsqueeze(0), use_cache=True, logits_to_keep=1)
    told = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(float(told[1]) / 1024 if told else float("nan"))


def memory() -> None:
    nothing, prompt, whole = (peak(kind) for kind in ("nothing", "prompt", "episode"))
    print(f"peak memory: {nothing:.0f} MB with the weights alone")
    print(f"  longest prompt, once   {prompt:8.0f} MB")
    print(f"  the whole episode      {whole:8.0f} MB, {whole / prompt:.2f} times that")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--cells", type=int, default=1)
    asked.add_argument("--threads", type=int, default=2)
    told = asked.parse_args()
    torch.set_num_threads(told.threads)
    speed(told.rounds, told.cells)
    memory()
    check()


if __name__ == "__main__":
    main()
