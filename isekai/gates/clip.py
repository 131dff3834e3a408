"""The gate that compares a picture with the texts of its group, in the space of a CLIP model."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from isekai import plugins
from isekai.errors import PluginError
from isekai.gates import passed_on, wording
from isekai.protocols import Embedder, Judgement, TextEmbedder
from isekai.types import Concept, Group, ImageRequest

MODEL = "openai/clip-vit-large-patch14"
"""The smaller openai/clip-vit-base-patch32 comes as pickles alone, which are not read."""

Vector = NDArray[np.float32]


class Clip:
    """Turns down a picture that is nearer to the foil's text than to its concept's own.

    model      what the embedder embeds with: CLIP, SigLIP or another model of pictures and texts
    margin     how much nearer the other text may be, in cosines
    minimum    the least `clip.own` that passes; -1 asks for nothing. What is usual differs between
               models: SigLIP's cosines of pictures with their own texts are far below CLIP's
    embedder   the embedder's name; whatever else is given (`device`, ...) goes to it

    All scores are cosines between picture and text: with the definition of its concept
    (`clip.own`), of the group's foil (`clip.foil`) and its other novel concept (`clip.twin`; of a
    foil's picture, `clip.novel` is that of the nearer novel one), with the prompt (`clip.prompt`),
    with "a photo of ..." each thing that the concept is made from (`clip.parent.<name>`), and the
    lesser of these (`clip.blend`). Such models read a text as a bag of words: an octopus beside a
    vacuum cleaner may come as near to a blend's definition as the blend does. A high `clip.blend`
    says that both parents are there, not that they are one. `vqa` asks that.
    """

    def __init__(
        self,
        model: str = MODEL,
        margin: float = 0.0,
        minimum: float = -1.0,
        embedder: str = "transformers",
        **options: object,
    ) -> None:
        if not 0 <= margin <= 2 or not -1 <= minimum <= 1:
            raise PluginError(
                "gate 'clip' takes a margin from 0 to 2 and a minimum from -1 to 1, "
                f"given {margin:g} and {minimum:g}"
            )
        passed_on.refuse_unknown(options, "clip", Clip, "embedders", embedder)
        self._name = embedder
        self._margin = margin
        self._minimum = minimum
        self._embedder: Embedder = plugins.build("embedders", f"{embedder}:{model}", options)
        if not isinstance(self._embedder, TextEmbedder):
            raise PluginError(
                f"gate 'clip': {self._embedder.model} embeds no texts; "
                "give a model that does, such as CLIP or SigLIP"
            )
        self._texts: TextEmbedder = self._embedder
        self._rows: dict[str, Vector] = {}
        self._others: dict[str, Sequence[Concept]] = {}
        self._alone = threading.Lock()

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "embedder": self._name,
            "model": self._embedder.model,
            "revision": self._embedder.revision,
            "margin": self._margin,
            "minimum": self._minimum,
        }

    def inform(self, groups: Sequence[Group]) -> None:
        """What each concept must not be taken for; DataError for one that has no definition."""
        for group in groups:
            for concept in group.concepts:
                wording.definition(concept)
                self._others[concept.id] = [c for c in group.concepts if c.id != concept.id]

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        concept = request.concept
        others = self._others[concept.id]
        near = self._cosines(image, _texts(request, others))
        scores = {"own": near[wording.definition(concept)]}
        rivals = [other for other in others if other.role != concept.role]
        twins = [other for other in others if other.role == concept.role]
        rival = max(rivals, key=lambda other: near[wording.definition(other)], default=None)
        if rival:
            scores[rival.role] = near[wording.definition(rival)]
        if twins:
            scores["twin"] = max(near[wording.definition(twin)] for twin in twins)
        if request.prompt:
            scores["prompt"] = near[request.prompt]
        parents = {name: near[_photo(name)] for name in wording.parents(concept)}
        scores |= {f"parent.{name}": cosine for name, cosine in parents.items()}
        if len(parents) > 1:
            scores["blend"] = min(parents.values())
        reason = self._reason(scores["own"], rival, scores[rival.role] if rival else 0.0)
        return Judgement({f"clip.{name}": cosine for name, cosine in scores.items()}, reason)

    def _reason(self, own: float, rival: Concept | None, other: float) -> str:
        if rival and other - own > self._margin:
            what = "foil" if rival.role == "foil" else "novel concept"
            by = f" by more than {self._margin:g}" if self._margin else ""
            return (
                f"closer to the {what} '{rival.name}' (cosine {other:.3f}) than to its own "
                f"definition ({own:.3f}){by}"
            )
        if own < self._minimum:
            return (
                f"far from its own definition: a cosine of {own:.3f}, "
                f"at least {self._minimum:g} is wanted"
            )
        return ""

    def _cosines(self, image: Image.Image, texts: Sequence[str]) -> dict[str, float]:
        """Text -> cosine with the picture, to six digits: the last bits depend on the machine.

        Texts are embedded one at a time: in a batch their last bits would depend on the others.
        """
        with self._alone:
            for text in texts:
                if text not in self._rows:
                    self._rows[text] = self._texts.embed_texts([text])[0]
            seen = self._embedder.embed_images([image])[0]
            return {text: round(float(self._rows[text] @ seen), 6) for text in texts}


def _texts(request: ImageRequest, others: Sequence[Concept]) -> list[str]:
    """Everything that a picture of this request is compared with."""
    return [
        *(wording.definition(concept) for concept in (request.concept, *others)),
        *([request.prompt] if request.prompt else []),
        *(_photo(name) for name in wording.parents(request.concept)),
    ]


def _photo(name: str) -> str:
    return f"a photo of {wording.a(name)}"
