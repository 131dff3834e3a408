"""The gate that asks an image classifier: for unsafe content, faces, watermarks, what it knows."""

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
from PIL import Image
from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from isekai.embedders.pretrained import Pretrained
from isekai.errors import DataError, PluginError, did_you_mean
from isekai.protocols import Judgement
from isekai.types import ImageRequest

FEW = 10
"""Up to so many labels all get a score; of more only those with a limit do."""

_LIMIT = re.compile(
    r"\s*(?P<label>[^<>]*[^<>\s])\s*(?P<sign>[<>])\s*(?P<bound>\d*\.?\d+)\s*(?:,|$)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a label's probability has to be for a picture to pass."""

    label: str
    sign: Literal["<", ">"]
    bound: float

    def holds(self, probability: float) -> bool:
        return probability < self.bound if self.sign == "<" else probability > self.bound

    def __str__(self) -> str:
        return f"{self.label}{self.sign}{self.bound:g}"


class Classify:
    """Turns down a picture by the probabilities that a classifier gives its labels.

    model      a repository or folder of a model for image classification, such as
               `Falconsai/nsfw_image_detection`
    limits     what passes, such as `nsfw<0.5` or `face<0.2,watermark<0.5`; none: nothing is
               turned down
    revision   a branch, tag or commit of the repository
    device     auto (a GPU if there is one), cpu, cuda, cuda:1, mps

    `classify.<label>` is a softmax over all labels, or of labels that the model was taught apart
    from each other, and of a single one, each one's sigmoid.
    """

    def __init__(
        self, model: str, limits: str = "", revision: str = "", device: str = "auto"
    ) -> None:
        self._limits = read_limits(limits)
        self._found = Pretrained(model, revision, device, "float32")
        config = self._found.config
        kind = self._found.kind(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING)
        if kind is None or config.problem_type == "regression":
            raise PluginError(
                f"{model}: a model of the kind '{config.model_type}' does not tell labels of "
                "pictures; give one for image classification"
            )
        self._kind = kind
        self._labels = [str(label) for _, label in sorted(config.id2label.items())]
        for label in (limit.label for limit in self._limits):
            if label not in self._labels:
                raise PluginError(
                    f"{model}: has no label '{label}'{did_you_mean(label, self._labels)}"
                )
        self._alone = threading.Lock()

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "model": self._found.name,
            "revision": self._found.revision,
            "limits": [str(limit) for limit in self._limits],
        }

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        with self._alone:
            told = self._probabilities(image)
        limited = {limit.label for limit in self._limits}
        scores = {
            f"classify.{label}": probability
            for label, probability in told.items()
            if len(told) <= FEW or label in limited
        }
        broken = [limit for limit in self._limits if not limit.holds(told[limit.label])]
        reasons = [
            f"'{limit.label}' has {told[limit.label]:.3f}, {limit} passes" for limit in broken
        ]
        return Judgement(scores, "; ".join(reasons))

    @cached_property
    def _network(self) -> Any:
        return self._found.load(self._kind)

    @cached_property
    def _image_processor(self) -> Any:
        return self._found.image_processor()

    def _probabilities(self, image: Image.Image) -> dict[str, float]:
        """Label -> probability, to six digits: the last bits depend on the machine."""
        inputs = self._image_processor(images=[image.convert("RGB")], return_tensors="pt")
        with torch.inference_mode():
            logits = self._network(**inputs.to(self._network.device)).logits[0].float()
        apart = self._found.config.problem_type == "multi_label_classification"
        told = logits.sigmoid() if apart or len(logits) == 1 else logits.softmax(0)
        numbers = [round(number, 6) for number in told.cpu().tolist()]
        if not all(map(math.isfinite, numbers)):
            raise DataError(f"{self._found.name}: its probabilities are no numbers; it is damaged")
        return dict(zip(self._labels, numbers, strict=True))


def read_limits(text: str) -> Sequence[Limit]:
    """`label<bound,label>bound`; a label may hold commas. PluginError for anything else."""
    limits, place = [], 0
    while place < len(text):
        found = _LIMIT.match(text, place)
        if not found or float(found["bound"]) > 1:
            raise PluginError(
                f"gate 'classify': '{text[place:].strip()}' is no limit; write a label, < or >, "
                "and a number from 0 to 1, with commas between several: nsfw<0.5,face<0.2"
            )
        sign = cast(Literal["<", ">"], found["sign"])
        limits.append(Limit(label=found["label"], sign=sign, bound=float(found["bound"])))
        place = found.end()
    return tuple(limits)
