"""A small images folder of simple pictures, and the dataset that is built from it."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from isekai import files, runs
from isekai.images import encode
from isekai.spec import seed
from isekai.types import Concept, Group, ImageRecord

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

PER_CONCEPT = 12
SIZE = 96

# group -> its two novel concepts and its foil: name, colours, tips of the star (0 a disc)
PICTURES = {
    "fruit": (
        ("blimel", (226, 88, 60), (250, 214, 90), 5),
        ("quorrin", (226, 88, 60), (60, 90, 200), 9),
        ("orange", (240, 150, 40), (240, 150, 40), 0),
    ),
    "stone": (
        ("gravvel", (120, 124, 132), (60, 190, 160), 4),
        ("thummock", (120, 124, 132), (150, 60, 170), 7),
        ("pebble", (140, 136, 128), (140, 136, 128), 0),
    ),
    "plant": (
        ("verrade", (70, 150, 70), (240, 240, 230), 3),
        ("mossip", (70, 150, 70), (210, 60, 130), 12),
        ("cabbage", (110, 180, 90), (110, 180, 90), 0),
    ),
}


def tiny_groups() -> tuple[Group, ...]:
    return tuple(
        Group(
            id=group,
            title=f"{group.title()} things",
            parent=group,
            concepts=tuple(
                Concept(
                    id=f"{group}/{name}",
                    name=name,
                    role="foil" if tips == 0 else "novel",
                    novelty=None if tips == 0 else "form",
                    definition=f"A {group} shape called {name} in the tests.",
                )
                for name, _, _, tips in concepts
            ),
        )
        for group, concepts in PICTURES.items()
    )


def picture(body, mark, tips: int, rng: np.random.Generator, size: int = SIZE) -> Image.Image:
    """A star (or disc) with a dot on a soft background; place, scale, angle and light vary."""
    patches = rng.integers(90, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    centre = size * (0.5 + rng.uniform(-0.14, 0.14, 2))
    outer, angle = size * rng.uniform(0.26, 0.36), rng.uniform(0, 2 * math.pi)
    light = rng.uniform(0.8, 1.1)
    turns = angle + np.arange(2 * tips or 64) * math.pi / (tips or 32)
    radii = np.where(np.arange(len(turns)) % 2, outer * (0.5 if tips else 1), outer)
    outline = centre + radii[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    draw.polygon([tuple(p) for p in outline], fill=tuple(min(255, int(c * light)) for c in body))
    dot = outer * 0.28
    draw.ellipse(
        (*(centre - dot), *(centre + dot)), fill=tuple(min(255, int(c * light)) for c in mark)
    )
    return image.filter(ImageFilter.GaussianBlur(0.6))


def write_images(folder: Path, *, per_concept: int = PER_CONCEPT, size: int = SIZE) -> Path:
    """What `generate` leaves behind: pictures, groups.json, ledger.jsonl and manifest.json."""
    groups = tiny_groups()
    records = []
    for group in groups:
        for concept, (_, *look) in zip(group.concepts, PICTURES[group.id], strict=True):
            for index in range(per_concept):
                own = seed(concept.id, index, 0)
                data = encode(picture(*look, np.random.default_rng(own), size))
                path = f"{concept.id}/{index:04d}.png"
                files.write_bytes(folder / path, data)
                records.append(
                    ImageRecord(
                        id=files.sha256(data),
                        path=path,
                        concept=concept.id,
                        index=index,
                        width=size,
                        height=size,
                        seed=own,
                        prompt=f"a photo of {concept.name}",
                        source="procedural",
                        model="test pictures",
                        revision="1",
                        settings={},
                        drawn_at="2026-01-01T00:00:00+00:00",
                    )
                )
    files.write_json(folder / "groups.json", groups)
    files.write_jsonl(folder / "ledger.jsonl", records)
    files.write_json(
        folder / "manifest.json",
        {
            "kind": "images",
            "complete": True,
            "images": len(records),
            "request": {"seed": 0, "size": size, "source": "procedural"},
            "environment": files.environment(),
        },
    )
    return folder


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An images folder of 3 groups x (2 novel + 1 foil) x 12 pictures. Don't write into it."""
    return write_images(tmp_path_factory.mktemp("tiny") / "images")


@pytest.fixture(scope="session")
def tiny_dataset(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset built from `tiny_images`. Don't write into it."""
    from isekai import build

    out = tmp_path_factory.mktemp("tiny") / "dataset"
    return build.run(images=tiny_images, out=out, query_share=0.5).parent


def seal(folder: Path) -> Path:
    """Write the manifest of a run whose files a test has written or changed."""
    manifest = {"kind": "run", "complete": True, "sha256": runs.hashes(folder)}
    files.write_json(folder / "manifest.json", manifest)
    return folder
