"""What a model's safety checker says of a picture, as scores: no picture is ever blackened."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image

from isekai.sources.diffusers.loading import Model, component, quiet

CHECKER = "safety_checker"


class Safety:
    """The checker that comes with Stable Diffusion 1: seventeen concepts that have no names."""

    def __init__(self, model: Model, device: Any) -> None:
        with quiet():
            self._checker = component(model, CHECKER).to(device).eval()
            self._extractor = component(model, "feature_extractor")

    def scores(self, pictures: Sequence[Image.Image]) -> list[dict[str, float]]:
        """`safety.flagged` is 0 or 1; `safety.margin` is above 0 for what is flagged."""
        seen = self._extractor(images=list(pictures), return_tensors="pt").pixel_values
        own = self._checker.visual_projection.weight
        heard: list[torch.Tensor] = []
        hook = self._checker.visual_projection.register_forward_hook(
            lambda module, given, made: heard.append(made)
        )
        try:
            blanks = [torch.zeros(1) for _ in pictures]  # what the checker may blacken
            with torch.no_grad():
                _, flagged = self._checker(clip_input=seen.to(own), images=blanks)
        finally:
            hook.remove()
        return [
            {"safety.flagged": float(flag), "safety.margin": margin}
            for flag, margin in zip(flagged, self._margins(heard[0]), strict=True)
        ]

    def _margins(self, embeddings: torch.Tensor) -> list[float]:
        """How much nearer a picture is to a concept than allowed, of the nearest concept.

        The checker is stricter by 0.01 with what is near to one of three special concepts.
        """
        special = self._above(embeddings, "special_care_embeds").amax(dim=1) > 0
        nearest = self._above(embeddings, "concept_embeds").amax(dim=1)
        return [round(value, 4) for value in (nearest + 0.01 * special).tolist()]

    def _above(self, embeddings: torch.Tensor, name: str) -> torch.Tensor:
        concepts, limits = getattr(self._checker, name), getattr(self._checker, f"{name}_weights")
        alike = torch.nn.functional.cosine_similarity(embeddings[:, None], concepts[None], dim=-1)
        above: torch.Tensor = alike - limits
        return above.float()


def has_checker(model: Model) -> bool:
    kind = model.components.get(CHECKER, ("", ""))[1]
    return kind == "StableDiffusionSafetyChecker" and "feature_extractor" in model.components
