"""The gate that scores how a picture looks: a small head over an embedder's vectors."""

import json
import math
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load

from isekai import files, plugins
from isekai.errors import DataError, PluginError
from isekai.gates import passed_on
from isekai.protocols import Embedder, Judgement
from isekai.types import ImageRequest

Activation = Literal["", "none", "relu", "gelu"]

EMBEDDER, TAG = "open_clip:ViT-L-14", "openai"
"""What LAION's aesthetic predictors were trained on."""

_BETWEEN = {
    "none": torch.nn.Identity(),
    "relu": torch.nn.ReLU(),
    "gelu": torch.nn.GELU(),
}

_NAME = re.compile(
    r"(?P<under>(?:[A-Za-z_]\w*\.)*)(?:(?P<number>\d+)\.)?(?P<what>weight|bias)", re.A
)

_LAION = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}
"""Numbers and shapes of the layers of github.com/christophschuhmann/improved-aesthetic-predictor:
nothing stands between them but dropout, which does nothing here."""

Layers = Mapping[int, tuple[torch.Tensor, torch.Tensor]]
"""By number: weight [out, in] and bias [out], float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Linear layers, from a vector to one number."""

    layers: Layers
    """From the first to the last."""
    activation: str
    """Between layers, not after the last."""
    digest: str
    """SHA-256 of the file."""

    @property
    def width(self) -> int:
        weight, _ = next(iter(self.layers.values()))
        return int(weight.shape[1])

    def score(self, row: torch.Tensor) -> float:
        for place, (weight, bias) in enumerate(self.layers.values()):
            row = weight @ (_BETWEEN[self.activation](row) if place else row) + bias
        return float(row)


class Aesthetic:
    """Turns down a picture whose `aesthetic.score` is below what is wanted.

    head         a safetensors file of the head, such as LAION's predictors converted to it
    embedder     what the head was trained on; whatever else is given (`tag`, `device`, ...) goes to
                 it; the usual one has OpenAI's weights
    least        the least score that passes; none: nothing is turned down. LAION's heads were
                 trained on marks from 1 to 10
    activation   what stands between layers, where the file doesn't say: none, relu or gelu

    The head is one layer, `weight` [1, D] and `bias` [1], or several, `<name>.<number>.weight` and
    `.bias` under one name, used by rising number. What stands between them is taken from the file's
    metadata (`activation`) or, for the five layers of LAION's improved predictor, known: nothing.
    """

    def __init__(
        self,
        head: Path,
        embedder: str = EMBEDDER,
        least: float | None = None,
        activation: Activation = "",
        **options: object,
    ) -> None:
        if least is not None and not math.isfinite(least):
            raise PluginError(f"gate 'aesthetic' takes a number for least, given {least}")
        passed_on.refuse_unknown(options, "aesthetic", Aesthetic, "embedders", embedder)
        self._head = read_head(head, activation)
        self._least = least
        if embedder == EMBEDDER:
            options = {"tag": TAG} | options
        self._name = embedder
        self._embedder: Embedder = plugins.build("embedders", embedder, options)
        self._alone = threading.Lock()

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "head": self._head.digest,
            "activation": self._head.activation,
            "embedder": self._name,
            "model": self._embedder.model,
            "revision": self._embedder.revision,
            "least": self._least,
        }

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        """The score is told to four digits: the last bits depend on the machine."""
        with self._alone:
            row = self._embedder.embed_images([image])[0]
        if len(row) != self._head.width:
            raise PluginError(
                f"gate 'aesthetic': the head reads {self._head.width} numbers and "
                f"{self._embedder.model} gives {len(row)}; give the embedder it was trained on"
            )
        score = round(self._head.score(torch.from_numpy(row).double()), 4)
        reason = ""
        if self._least is not None and score < self._least:
            reason = f"looks poor: a score of {score:g}, at least {self._least:g} is wanted"
        return Judgement({"aesthetic.score": score}, reason)


def read_head(path: Path, activation: Activation = "") -> Head:
    """The head in a file. DataError for what is none, PluginError for what it leaves unsaid."""
    with files.explained(path):
        if not path.is_file():
            raise DataError(f"{path}: no such file; give the head as safetensors")
        data = path.read_bytes()
    try:
        tensors = load(data)
        told = _metadata(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DataError(f"{path}: no safetensors file ({error})") from None
    layers = _layers(path, tensors)
    between = told.get("activation", "") or _known(layers)
    if activation and between and activation != between:
        raise PluginError(
            f"{path}: '{between}' stands between its layers, given activation={activation}; "
            "leave it out"
        )
    between = between or activation
    if between not in _BETWEEN:
        what = f"names '{between}' as what stands" if between else "doesn't say what stands"
        raise PluginError(
            f"{path}: {what} between its {len(layers)} layers; give activation=none, relu or gelu"
        )
    return Head(layers=layers, activation=between, digest=files.sha256(data))


def _layers(path: Path, tensors: Mapping[str, torch.Tensor]) -> Layers:
    """In order; DataError unless they are whole, finite, and lead from one to the next."""
    found: dict[int, dict[str, torch.Tensor]] = {}
    under = set()
    for name, tensor in tensors.items():
        parts = _NAME.fullmatch(name)
        if not parts or not tensor.is_floating_point() or not tensor.isfinite().all():
            raise DataError(f"{path}: '{name}' is no weight or bias of a layer, in finite numbers")
        under.add((parts["under"], parts["number"] is None))
        found.setdefault(int(parts["number"] or 0), {})[parts["what"]] = tensor.double()
    if len(under) != 1 or len(tensors) != 2 * len(found):
        names = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise DataError(
            f"{path}: holds {names}, not a weight and a bias for each of its layers under one name"
        )
    layers = {number: (own["weight"], own["bias"]) for number, own in sorted(found.items())}
    width = None
    for number, (weight, bias) in layers.items():
        if weight.ndim != 2 or weight.shape[1] != (width or weight.shape[1]):
            raise DataError(
                f"{path}: the weight of layer {number} is {list(weight.shape)}, which doesn't read "
                f"{f'the {width} numbers before it' if width else 'a vector'}"
            )
        width = weight.shape[0]
        if list(bias.shape) != [width]:
            raise DataError(
                f"{path}: the bias of layer {number} is {list(bias.shape)}, not [{width}]"
            )
    if width != 1:
        raise DataError(f"{path}: ends in {width} numbers, and a score is one")
    return layers


def _known(layers: Layers) -> str:
    """What stands between layers where that is no question; empty where it is one."""
    shapes = {number: tuple(weight.shape) for number, (weight, _) in layers.items()}
    return "none" if len(layers) == 1 or shapes == _LAION else ""


def _metadata(data: bytes) -> Mapping[str, str]:
    length = int.from_bytes(data[:8], "little")
    told: Mapping[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    return told
