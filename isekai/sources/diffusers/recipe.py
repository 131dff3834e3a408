"""What a picture depends on besides its own request: a model and how it is run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from isekai import files
from isekai.errors import IsekaiError
from isekai.sources.diffusers import hub
from isekai.sources.diffusers.loading import Model
from isekai.sources.diffusers.lora import Lora
from isekai.sources.diffusers.origin import Origin
from isekai.sources.diffusers.presets import Preset
from isekai.sources.diffusers.texts import Pair
from isekai.types import ImageRequest

PACKAGES = ("diffusers", "torch", "transformers")
"""Another version of these may give other pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One model at work, or of two that follow each other the one. Nothing here needs torch."""

    preset: Preset
    origin: Origin
    dtype: str
    """Of the weights and of what passes through them."""
    quantise: str = ""
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
            "scheduler": preset.scheduler or self._own_scheduler(),
            "dtype": self.dtype,
            "negative_prompts": preset.negative_prompts,
            "tokens": preset.tokens,
        }
        if preset.blank:
            settings["blank"] = preset.blank
        if self.origin.variant:
            settings["variant"] = self.origin.variant
        if self.quantise:
            settings["quantise"] = self.quantise
        if self.tiled:
            settings["tiled"] = True
        if self.lora:
            settings["lora"] = self.lora.settings
        return settings

    @property
    def name(self) -> str:
        """The repository; of a folder only its name, so that it may be moved."""
        return self.origin.model if self.origin.commit else self.origin.folder.resolve().name

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

    def config(self, component: str, file: str = "config.json") -> Mapping[str, Any]:
        """A component's configuration; empty if it has none. Of a repository, it is downloaded."""
        name = f"{component}/{file}"
        if name not in self.origin.layout.files:
            return {}
        origin, path = self.origin, self.origin.folder / name
        if origin.commit and not path.exists():
            path = hub.fetch_file(origin.model, origin.commit, name)
        return files.read_json(path, dict[str, Any])

    def _own_scheduler(self) -> str:
        return str(self.config("scheduler", "scheduler_config.json").get("_class_name", ""))


def versions() -> dict[str, str]:
    """Of what draws, without the part that only tells for which kind of GPU it was built."""
    try:
        return {package: version(package).partition("+")[0] for package in PACKAGES}
    except PackageNotFoundError as error:
        raise ModuleNotFoundError(f"No module named '{error.name}'", name=error.name) from None


def usual_size(recipe: Recipe) -> int:
    """Pixels of a side that the model was made for, as far as its configuration tells."""
    for name in ("unet", "transformer"):
        side = recipe.config(name).get("sample_size")
        side = max(side) if isinstance(side, list) else side
        if isinstance(side, int):
            return side * _shrinks(recipe)
    return 1024


def check_size(recipe: Recipe, size: int) -> None:
    """IsekaiError if the model can't draw exactly this many pixels a side."""
    grain = _shrinks(recipe)
    if recipe.config("transformer") and grain < 32:
        grain *= 2  # transformers read latents in patches of two by two, if the VAE leaves so many
    if size % grain:
        lower, upper = size // grain * grain, -(-size // grain) * grain
        near = f"{lower} or {upper}" if lower else str(upper)
        raise IsekaiError(
            f"a size of {size} pixels; {recipe.origin.model} draws multiples of {grain}: "
            f"give --size {near}"
        )


def _shrinks(recipe: Recipe) -> int:
    """Pixels a side that the VAE makes of one latent."""
    config = recipe.config("vae")
    if isinstance(halvings := config.get("temperal_downsample"), list):  # spelled so by its makers
        return 2 ** len(halvings)
    for key in ("encoder_block_out_channels", "block_out_channels"):
        if isinstance(blocks := config.get(key), list):
            return int(2 ** (len(blocks) - 1))
    return 8
