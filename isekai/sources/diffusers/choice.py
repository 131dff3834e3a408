"""What was chosen to draw with: a model, how it is run, where; found out when it is first asked."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from isekai.errors import IsekaiError, did_you_mean
from isekai.sources.diffusers import devices, installed, lora, memory, presets, recipe, sizes
from isekai.sources.diffusers.loading import reads
from isekai.sources.diffusers.origin import Origin, find
from isekai.sources.diffusers.presets import Preset
from isekai.sources.diffusers.recipe import Recipe

_REFINER = ", and give this one beside it, with -o refiner=… -o switch=0.8"


class Choice:
    """A preset with the user's word put in its place, on devices of this machine."""

    def __init__(
        self,
        preset: Preset,
        *,
        asked: frozenset[str],
        lora: str,
        devices: str,
        memory: Mapping[str, Any],
        trust_remote_code: bool,
    ) -> None:
        """`asked` are the settings of the preset that the user gave; `memory` those of the plan."""
        self.preset = preset
        self._asked = asked
        self._lora = lora
        self._devices = devices
        self._memory = memory
        self._trust = trust_remote_code

    def on(self, device: str) -> "Choice":
        """The same on another device: what pixels depend on stays what it is."""
        _ = self.recipes  # found once, for all devices
        here = copy.copy(self)
        here.__dict__["devices"] = [device]
        return here

    @cached_property
    def devices(self) -> Sequence[str]:
        return devices.named(self._devices)

    @cached_property
    def size(self) -> int:
        """Pixels of a side that the model was made for."""
        return self.preset.size or sizes.usual(self.origin)

    @cached_property
    def origin(self) -> Origin:
        """IsekaiError if it can't draw a picture from a text alone."""
        found = self._found(self.preset)
        if instead := installed.instead_of_pictures(found.pipeline_class):
            raise IsekaiError(
                f"{found.model}: its {found.pipeline_class} {instead}; take a text-to-image model"
                + (_REFINER if "Img2Img" in found.pipeline_class else "")
            )
        return found

    @property
    def recipes(self) -> list[Recipe]:
        """The model's, and the refiner's if there is one."""
        return [self.recipe, *([self.refiner] if self.refiner else [])]

    @cached_property
    def recipe(self) -> Recipe:
        usual = self.usual
        self._check_scheduler()
        return Recipe(
            preset=self.preset,
            origin=self.origin,
            dtype=usual.dtype,
            quantise=usual.quantise,
            tiled=usual.vae_tiling,
            lora=lora.find(self._lora) if self._lora else None,
            trust_remote_code=self._trust,
            asked=self._asked,
        )

    @cached_property
    def refiner(self) -> Recipe | None:
        """What draws the last steps; it is run as the first model is."""
        return replace(self.recipe, origin=self._refined, lora=None) if self._refined else None

    @cached_property
    def settings(self) -> Mapping[str, object]:
        """Everything that pixels depend on besides the model and its revision."""
        settings = {**self.recipe.settings(), "packages": recipe.versions()}
        if self._refined:
            settings["refiner"] = {
                "model": recipe.identifier(self._refined),
                "revision": self._refined.revision,
                "switch": self.preset.switch,
            }
        return settings

    @cached_property
    def usual(self) -> memory.Memory:
        """The plan for a picture of the usual size on a card that nobody else uses.

        What pixels depend on is taken from it, and so does not change with what else is going on.
        """
        return self._planned(self.size, alone=True)

    def plan(self, size: int) -> memory.Memory:
        """The plan for this size with what is free now; pixels are made as by the usual plan."""
        return self._planned(size, quantise=self.usual.quantise, tiling=self.usual.vae_tiling)

    @property
    def guided(self) -> bool:
        """Whether each image is denoised twice a step: with its prompt, and away from another."""
        return recipe.guided(self.preset, self.origin)

    @property
    def text_device(self) -> str:
        """Where texts are encoded: here, or where there is more room."""
        return "cpu" if self.usual.text_device == "cpu" else self.devices[0]

    def _planned(self, size: int, *, alone: bool = False, **settled: Any) -> memory.Memory:
        model, device = self.origin, self.devices[0]
        free, total = devices.memory(device)
        refined = self._refined.component_bytes() if self._refined else {}
        beside = {f"{name}_2": size for name, size in refined.items() if not reads(name)}
        return memory.plan(
            {**model.component_bytes(), **beside},
            device=device,
            free_bytes=total if alone else free,
            total=total,
            size_px=size,
            dtype=self.preset.dtype if "dtype" in self._asked else None,
            gpu_dtype=self.preset.dtype,
            widths=None if model.commit else model.component_widths(),  # the same before a fetch
            decoder=str(sizes.config(model, "vae").get("_class_name", "")),
            guided=self.guided,
            **{**self._memory, **settled},
        )

    def _check_scheduler(self) -> None:
        """IsekaiError for a name that no scheduler has. Whether it suits is known once loaded."""
        name, known = self.preset.scheduler, installed.schedulers()
        if name and name not in {*known, recipe.own_scheduler(self.origin)}:
            raise IsekaiError(f"no scheduler is called '{name}'{did_you_mean(name, known)}")

    @cached_property
    def _refined(self) -> Origin | None:
        if not self.preset.refiner:
            return None
        own = presets.resolve(self.preset.refiner)
        return self._found(replace(self.preset, repo=own.repo, revision=own.revision))

    def _found(self, preset: Preset) -> Origin:
        return find(
            preset.repo,
            preset.revision,
            variant=preset.variant,
            trust_remote_code=self._trust,
        )
