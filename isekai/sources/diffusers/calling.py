"""How a pipeline is called for a batch: the arguments that it takes, whatever its family."""

import inspect
import traceback
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from isekai.errors import IsekaiError
from isekai.sources.diffusers.recipe import Recipe
from isekai.sources.diffusers.texts import Pair

_NAMES = {"steps": "num_inference_steps", "tokens": "max_sequence_length"}


def parameters(pipeline: Any) -> Collection[str]:
    """The names of what its `__call__` takes."""
    return inspect.signature(pipeline.__call__).parameters.keys()


def arguments(pipeline: Any, recipe: Recipe, pairs: Sequence[Pair], size: int) -> dict[str, Any]:
    """Those of `__call__`, but the generators. The pairs all have a negative prompt, or none.

    IsekaiError where the user gave a setting that this pipeline has no parameter for.
    """
    takes = parameters(pipeline)
    preset = recipe.preset
    given: dict[str, Any] = {
        "prompt": [pair.prompt for pair in pairs],
        "height": size,
        "width": size,
        "output_type": "pt",
        "use_resolution_binning": False,  # it would draw another size and shrink it
    }
    if pairs[0].negative is not None:
        given["negative_prompt"] = [pair.negative for pair in pairs]
        if "negative_prompt" not in takes and "negative_prompts" in recipe.asked:
            raise IsekaiError(f"{type(pipeline).__name__} takes no negative prompts")
    for key, name in {**_NAMES, "guidance": _guidance(recipe)}.items():
        value = getattr(preset, key)
        if value is not None and name in takes:
            given[name] = value
        elif value is not None and key in recipe.asked:
            raise IsekaiError(f"{type(pipeline).__name__} has no use for {key}; leave it out")
    return {name: value for name, value in given.items() if name in takes}


def numbers(pipeline: Any, recipe: Recipe) -> dict[str, object]:
    """Steps, guidance and the like as they take effect: those given, else the pipeline's own."""
    takes = inspect.signature(pipeline.__call__).parameters
    found = {}
    for key, name in {**_NAMES, "guidance": _guidance(recipe)}.items():
        if name in takes:
            value = getattr(recipe.preset, key)
            found[name] = takes[name].default if value is None else value
    return found


def _guidance(recipe: Recipe) -> str:
    return recipe.preset.guidance_argument or "guidance_scale"


@contextmanager
def explained(pipeline: Any) -> Iterator[None]:
    """What a pipeline refuses of its arguments, as one line."""
    try:
        yield
    except ValueError as error:
        frames = traceback.extract_tb(error.__traceback__)
        if not any(frame.name == "check_inputs" for frame in frames):
            raise
        told = " ".join(str(error).split())
        raise IsekaiError(f"{type(pipeline).__name__}: {told}") from None
