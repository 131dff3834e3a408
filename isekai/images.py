"""Decodes pictures from strangers: right colours, right way up, or a reason why not."""

import io
import warnings

import numpy as np
from PIL import Image, ImageCms, ImageOps

from isekai.errors import DataError

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: 64 Mpx is 192 MB as RGB."""


class UnreadableImage(DataError):
    """The bytes are no picture that can be used; the text says why."""
