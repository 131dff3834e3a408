"""Ties the steps together on a few groups: draw, build, bench; what `make demo` runs."""

from dataclasses import replace
from pathlib import Path

from isekai import __version__, bench, build, files, generate, progress
from isekai.errors import DataError
from isekai.setup import Setup

GROUPS = (
    "cactihog", "cctovac", "icemic", "cindrow", "burgtoise", "honvule", "quorvil", "rockflock",
)  # fmt: skip
"""Blends, materials and forms alike."""
PER_CONCEPT = 26
QUERY_SHARE = 0.3
"""Leaves 18 images a concept to show and 8 to ask about."""
SIZE = 160
"""Pixels; what the embedded embedder sees without resizing."""
CURVES = Setup(
    models=("prototype", "knn", "logreg", "chance"), tasks=("twin", "foil"), shots=(1, 2, 4, 8, 16)
)
CONTROLS = Setup(
    models=("prototype", "knn", "planted:namer", "chance"),
    shots=(2, 8),
    controls=("blind", "swap", "words=true", "words=true+blind", "words=true+swap"),
)
"""Two models that bind, an oracle that names, and one that guesses."""

_MADE = {"images", "dataset", "run", "controls"}


def small_dataset(folder: Path | None = None) -> Path:
    """The demo's dataset in `folder`, or in the cache; made if it isn't there yet."""
    folder = folder or files.cache_folder() / f"demo-{__version__}"
    images = generate.run(
        groups=",".join(GROUPS),
        source="procedural",
        per_concept=PER_CONCEPT,
        size=SIZE,
        out=folder / "images",
    )
    return build.run(
        images=images, out=folder / "dataset", query_share=QUERY_SHARE, license="cc0-1.0"
    )


def run(out: Path) -> Path:
    """Everything from specs to a table in the folder `out`; run again, it goes on."""
    there = {path.name for path in out.iterdir()} if out.is_dir() else set()
    others = {name for name in there - _MADE if not name.startswith(".")}
    if others:
        raise DataError(f"{out}: holds '{min(others)}'; give --out a new or empty folder")
    progress.tell("\nDraw things that did not exist before, and make a dataset of them")
    data = small_dataset(out)
    progress.tell("\nAsk four models to learn their names from context")
    bench.run(replace(CURVES, data=str(data)), out=out / "run")
    progress.tell("\nTell binding from naming: the same episodes with one thing changed")
    bench.run(replace(CONTROLS, data=str(data)), out=out / "controls")
    return out


def summary(out: Path) -> str:
    """What the demo made, where, and what to try next."""
    return f"""
What you have now
  {out}/dataset/contact_sheet.png   every concept; contact_sheet.html tells what each one is
  {out}/dataset                     opens with datasets.load_dataset("{out}/dataset")
  {out}/run/table.md                accuracy at each shot count, with intervals and chance
  {out}/run/curve.png               the same as a plot
  {out}/controls/table.md           who binds, who names and who guesses

Three commands to try next
  isekai groups
  isekai invent 5 --seed 7 --out mine && isekai generate --spec mine --size 192 --out mine-images
  isekai bench --model prototype --task pair --data {out}/dataset --out runs/pair
"""
