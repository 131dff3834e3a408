"""What a picture depends on besides its own request: a model and how it is run."""

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from isekai.sources.diffusers import sizes
from isekai.sources.diffusers.loading import Model
from isekai.sources.diffusers.lora import Lora
from isekai.sources.diffusers.origin import Origin
from isekai.sources.diffusers.presets import Dtype, Preset
from isekai.sources.diffusers.texts import Pair
from isekai.types import ImageRequest

PACKAGES = ("diffusers", "torch", "transformers")
"""Another version of these may give other pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model at work, or of two that follow each other the one. Nothing here needs torch."""

    preset: Preset
    origin: Origin
    dtype: Dtype
    """Of the weights and of what passes through them."""
    quantise: str = "none"
    tiled: bool = False
    """Whether large pictures are decoded in tiles, whose seams are blended."""
    lora: Lora | None = None
    trust_remote_code: bool = False
    asked: frozenset[str] = field(default=frozenset())
    """The settings that the user gave: a pipeline that has no use for one is told of it."""

    @property
    def model(self) -> Model:
        return Model(
            origin=self.origin,
            dtype=self.dtype,
            scheduler=self.preset.scheduler,
            trust_remote_code=self.trust_remote_code,
        )

    def settings(self) -> dict[str, object]:
        """Everything that pixels depend on besides the model and its revision."""
        preset = self.preset
        settings: dict[str, object] = {
            "pipeline": self.origin.pipeline_class,
            "steps": preset.steps,
            "guidance": preset.guidance,
            "scheduler": preset.scheduler or own_scheduler(self.origin),
            "dtype": self.dtype,
            "negative_prompts": preset.negative_prompts,
            "tokens": preset.tokens,
        }
        if preset.blank:
            settings["blank"] = preset.blank
        if self.origin.variant:
            settings["variant"] = self.origin.variant
        if self.quantise != "none":
            settings["quantise"] = self.quantise
        if self.tiled:
            settings["tiled"] = True
        if self.lora:
            settings["lora"] = self.lora.settings
        return settings

    def identity(self) -> dict[str, object]:
        """Everything that the embedding of a text depends on besides the text."""
        return {
            "form": 1,  # of what is kept; other numbers are not read
            "revision": self.origin.revision,
            "pipeline": self.origin.pipeline_class,
            "variant": self.origin.variant,
            "dtype": self.dtype,
            "tokens": self.preset.tokens,
            "lora": self.lora.settings if self.lora and self.lora.texts else None,
            "packages": versions(),
        }

    def pair(self, request: ImageRequest) -> Pair:
        """The texts of a picture; no negative one where the pipeline shall do as it is used to."""
        negative = request.concept.negative_prompt or self.preset.blank or None
        heeded = self.preset.negative_prompts is not False
        return Pair(request.prompt, negative if heeded else None)


def name(origin: Origin) -> str:
    """What a user calls it: the repository, or the folder's own name."""
    return origin.model if origin.commit else origin.folder.resolve().name


def identifier(origin: Origin) -> str:
    """The repository; of a folder what it holds, so that it may be moved and renamed."""
    return origin.model if origin.commit else f"{origin.pipeline_class}-{origin.revision[:12]}"


def own_scheduler(origin: Origin) -> object:
    """The class that the model comes with; empty if it doesn't say."""
    file = "scheduler_config.json"
    return sizes.config(origin, "scheduler", file).get("_class_name", "")


def guided(preset: Preset, origin: Origin) -> bool:
    """Whether each image is denoised twice a step.

    It isn't where guidance is an input of the network, as in FLUX dev, unless it is asked for
    under another name there.
    """
    if sizes.config(origin, "transformer").get("guidance_embeds"):
        return preset.guidance_argument == "true_cfg_scale" and (preset.guidance or 1) > 1
    return preset.guidance is None or preset.guidance > 1


def versions() -> dict[str, str]:
    """Of what draws, without the part that only tells for which kind of GPU it was built."""
    try:
        return {package: version(package).partition("+")[0] for package in PACKAGES}
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(f"No module named '{error.name}'", name=error.name) from None
