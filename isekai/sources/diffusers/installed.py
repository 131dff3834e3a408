"""What the installed diffusers can do, as its files tell: importing it takes many seconds."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_SCHEDULER = re.compile(r"^class (\w+Scheduler)\(", re.M)

_FROM_IMAGES = re.compile(
    r"Img2Img|I2I|Pix2Pix|Image2Image|Inpaint|Control|Adapter|Upscal|SuperResolution|Variation"
    r"|Depth2|(?<!Model)Edit|Fill|Redux|Refiner"
)
_VIDEO = re.compile(r"Video|[TI]2V|ToWorld")


def schedulers() -> frozenset[str]:
    """The names of its schedulers; none if diffusers isn't installed."""
    package = find_spec("diffusers")
    if package is None or package.origin is None:
        return frozenset()
    return _schedulers(Path(package.origin).parent / "schedulers")


def instead_of_pictures(pipeline: str) -> str:
    """What a pipeline of this name does where it doesn't draw a picture from a text; or nothing.

    Its signature doesn't tell: most that start from an image have a default for it, which is None.
    """
    if _VIDEO.search(pipeline):
        return "makes videos"
    return "starts from an image" if _FROM_IMAGES.search(pipeline) else ""


@cache
def _schedulers(folder: Path) -> frozenset[str]:
    texts = (path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    return frozenset(name for text in texts for name in _SCHEDULER.findall(text))
