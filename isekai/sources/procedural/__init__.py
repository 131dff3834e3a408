"""The procedural source: draws a concept's sketch on any CPU.

The same request gives the same bytes whatever the batch, order, process or thread count. Between
kinds of CPU a few values may differ by 1 of 255, since numpy's exp and sin round by vector width.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from isekai.protocols import Rejected
from isekai.sources.procedural.picture import render
from isekai.sources.procedural.scene import HiddenPart, compose
from isekai.types import DigitalSource, ImageRequest

REVISION = "1"
"""Raised whenever the same request gives other pixels."""


class ProceduralSource:
    """Ray-marches sketches with numpy alone; `draw` never looks at anything but the request."""

    model = "procedural"
    revision = REVISION
    processes = True
    digital_source: DigitalSource = "algorithmicMedia"

    def __init__(self) -> None:
        self.settings: Mapping[str, object] = {}

    def draw(self, requests: Sequence[ImageRequest]) -> Iterator[Image.Image | Rejected]:
        """A square RGB image a request; Rejected where a concept has no sketch or hides a part."""
        for request in requests:
            sketch = request.concept.sketch
            if sketch is None or not sketch.parts:
                yield Rejected(f"{request.concept.id} has no sketch to draw")
                continue
            try:
                scene = compose(sketch, np.random.default_rng(request.seed))
            except HiddenPart as error:
                yield Rejected(str(error))
                continue
            yield Image.fromarray(render(scene, request.size))
