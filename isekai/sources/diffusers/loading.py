"""Loads a model folder in two halves: what reads texts, and what makes images of what was read."""

import importlib
import inspect
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from isekai.errors import DataError, IsekaiError, did_you_mean
from isekai.files import read_json
from isekai.sources.diffusers.batching import is_out_of_memory
from isekai.sources.diffusers.layout import INDEX
from isekai.sources.diffusers.origin import Origin

TEXT_ENCODER = "text_encoder"


def reads(component: str) -> bool:
    """Whether the component reads texts: in every pipeline of diffusers, its name begins so."""
    return component.startswith(TEXT_ENCODER)


def library() -> ModuleType:
    """The package `diffusers`, silent from now on, and so is what it stands on.

    Their bars and hints are meant for notebooks, and what they warn of, they do themselves. Errors
    stay errors.
    """
    warnings.filterwarnings("ignore", module=rf"({'|'.join(_SILENT)})(\.|$)")
    return _imported()


_SILENT = ("accelerate", "diffusers", "huggingface_hub", "peft", "torch", "transformers")


@cache
def _imported() -> ModuleType:
    with quiet():
        import diffusers
        import transformers
    for logging in (diffusers.utils.logging, transformers.utils.logging):
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    module: ModuleType = diffusers
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings at all, while things are imported and loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model and how its weights are read. Its files have to be here."""

    origin: Origin
    dtype: str
    scheduler: str = ""
    """A class of diffusers; empty for the model's own."""
    trust_remote_code: bool = False

    @property
    def has_text_encoders(self) -> bool:
        return any(reads(name) for name in self.components)

    @property
    def components(self) -> dict[str, tuple[str, str]]:
        """Name -> package and class, as the model's index has them."""
        index = read_json(self.origin.folder / INDEX, dict[str, Any])
        names = [part.name for part in self.origin.layout.components]
        return {name: (index[name][0], index[name][1]) for name in names}


def pipeline_class(model: Model) -> type[Any]:
    """The class that draws; IsekaiError if diffusers hasn't got it."""
    diffusers = library()
    if any("/" not in file for file in model.origin.layout.code):
        pipeline: type[Any] = diffusers.DiffusionPipeline  # it finds the model's own
        return pipeline
    name = model.origin.pipeline_class
    found = getattr(diffusers, name, None)
    if inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline):
        return found
    raise IsekaiError(
        f"{model.origin.model}: the model needs the pipeline '{name}', which diffusers "
        f"{diffusers.__version__} hasn't got; install a newer one"
    )


def text_half(model: Model) -> Any:
    """The pipeline with its text encoders on the CPU; of all other models only the configuration.

    The pipeline asks the others for sizes when it is called, so they are there without weights.
    """
    parts: dict[str, Any] = {}
    for name in model.components:
        if reads(name) or not (kind := _module(model, name)):
            continue
        parts[name] = _empty(model, name, kind)
    return _load(model, parts)


def image_half(model: Model, quantise: Any = None) -> Any:
    """The pipeline without its text encoders, on the CPU."""
    parts = {name: None for name in model.components if reads(name)}
    return _load(model, parts, quantise)


def whole(model: Model, quantise: Any = None) -> Any:
    return _load(model, {}, quantise)


def free(pipeline: Any) -> None:
    """Let go of the pipeline's networks, wherever they are."""
    pipeline.remove_all_hooks()
    for name in pipeline.components:
        setattr(pipeline, name, None)


def component(model: Model, name: str) -> Any:
    """One component alone, on the CPU; DataError where a part of its weights is missing.

    `transformers` would fill the gap with random numbers and say so in its log.
    """
    import torch

    kind = _class(model, name)
    home = model.origin.folder / name
    with _told(model), quiet():
        if not issubclass(kind, torch.nn.Module):
            return kind.from_pretrained(home, local_files_only=True)
        varied = any(part.varied for part in model.origin.layout.components if part.name == name)
        network, info = kind.from_pretrained(
            home,
            dtype=getattr(torch, model.dtype),
            variant=model.origin.variant if varied else None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    _refuse_gaps(home, info["missing_keys"])
    return network


def _load(model: Model, parts: Mapping[str, Any], quantise: Any = None) -> Any:
    import torch

    kind = pipeline_class(model)
    extra = {"safety_checker": None, "requires_safety_checker": False, "add_watermarker": False}
    accepted = inspect.signature(kind).parameters
    given = {**{name: value for name, value in extra.items() if name in accepted}, **parts}
    if quantise is not None:
        given["quantization_config"] = quantise
    for name in model.components:
        if name not in given and _is_of_transformers(_module(model, name)):
            given[name] = component(model, name)
    with _told(model), quiet():
        pipeline = kind.from_pretrained(
            str(model.origin.folder),
            dtype=getattr(torch, model.dtype),
            variant=model.origin.variant or None,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=model.trust_remote_code,
            **given,
        )
    for name, part in pipeline.components.items():
        if name not in given and isinstance(part, torch.nn.Module):
            gaps = [key for key, weights in part.named_parameters() if weights.is_meta]
            _refuse_gaps(model.origin.folder / name, gaps)
    pipeline.set_progress_bar_config(disable=True)
    if model.scheduler:
        pipeline.scheduler = _scheduler(model.scheduler, pipeline.scheduler)
    return pipeline


@contextmanager
def _told(model: Model) -> Iterator[None]:
    """What the libraries say of files that they can't load, as one line."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        if is_out_of_memory(error):
            raise
        told = " ".join(str(error).split())
        raise DataError(
            f"{model.origin.model}: can't be loaded ({told[:300]}); get the whole model anew, or "
            "newer versions of diffusers and transformers"
        ) from error


def _refuse_gaps(home: Path, missing: Collection[str]) -> None:
    if missing:
        raise DataError(
            f"{home}: {len(missing)} tensors are missing, such as {min(missing)}; get the whole "
            "model anew"
        )


def _scheduler(name: str, present: Any) -> Any:
    """A scheduler of that class with the configuration of the one that is there."""
    kinds = {kind.__name__: kind for kind in (type(present), *present.compatibles)}
    if name not in kinds:
        raise IsekaiError(
            f"scheduler '{name}' does not go with this model{did_you_mean(name, kinds)}"
        )
    kind = kinds[name]
    if "noise_sampler_seed" in inspect.signature(kind).parameters:
        raise IsekaiError(
            f"scheduler '{name}' draws noise of its own, which no image's seed decides; take "
            "DPMSolverMultistepScheduler or another"
        )
    return kind.from_config(present.config)


def _class(model: Model, name: str) -> Any:
    """The component's class, from where diffusers would take it; None if it is the model's own."""
    package, kind = model.components[name]
    diffusers = library()
    home: Any = getattr(diffusers.pipelines, package, None)
    if home is None and package in ("diffusers", "transformers"):
        home = importlib.import_module(package)
    return getattr(home, kind, None)


def _module(model: Model, name: str) -> type[Any] | None:
    """The component's class if it is a network; None for tokenizers, schedulers and the like."""
    import torch

    found = _class(model, name)
    return found if inspect.isclass(found) and issubclass(found, torch.nn.Module) else None


def _is_of_transformers(kind: type[Any] | None) -> bool:
    from transformers import PreTrainedModel

    return kind is not None and issubclass(kind, PreTrainedModel)


def _empty(model: Model, name: str, kind: type[Any]) -> Any:
    """A network without weights; None for what no pipeline needs in order to read texts."""
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    if not issubclass(kind, library().ModelMixin):
        return None
    with init_empty_weights(include_buffers=False), quiet():
        return kind.from_config(kind.load_config(model.origin.folder / name))
