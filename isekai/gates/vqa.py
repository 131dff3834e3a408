"""The gate that asks a vision-language model whether a picture shows what it should."""

import math
import threading
from collections.abc import Iterator, Mapping
from itertools import islice

from PIL import Image

from isekai import plugins
from isekai.errors import IsekaiError, PluginError
from isekai.files import plain, sha256
from isekai.gates import passed_on, wording
from isekai.images import encode
from isekai.protocols import Closing, Concurrent, Judgement, ModelAdapter
from isekai.scoring import malformed, outcome
from isekai.types import IMAGE, Concept, EncodedImage, ImageRequest, Response, Sweep, Turn

THING = "{definition}"
QUESTION = f"{IMAGE}\nDoes this picture show {THING}? Answer with yes or no alone."
LABELS = ("yes", "no")


class Vqa:
    """Turns down a picture of which a model says that it doesn't show its concept.

    model      an adapter as `bench` names it, such as `openai:Qwen/Qwen3-VL-8B-Instruct`; whatever
               else is given (`base_url`, `max_cost`, ...) goes to the adapter
    question   with {definition} where the thing stands
    minimum    the least `vqa.yes` that passes

    `vqa.yes` is P(yes) where the adapter tells log-likelihoods (VQAScore: Lin et al.,
    arXiv:2404.01291), else 1 or 0 by what the text says, read as strictly as an answer of a bench.
    The same is asked of each thing that a concept is made from (`vqa.parent.<name>`): a blend
    should show both. These scores turn nothing down. A model that says neither yes nor no has not
    said yes. One that doesn't answer ends the run, and the next one asks again: a picture that
    nobody judged must not pass for a judged one.
    """

    def __init__(
        self, model: str, question: str = QUESTION, minimum: float = 0.5, **options: object
    ) -> None:
        if THING not in question:
            raise PluginError(f"gate 'vqa': the question names no {THING}: {question!r}")
        if not 0 <= minimum <= 1:
            raise PluginError(f"gate 'vqa' takes a minimum from 0 to 1, given {minimum:g}")
        passed_on.refuse_unknown(options, "vqa", Vqa, "adapters", model)
        self._model = model
        self._question = question
        self._minimum = minimum
        self._adapter: ModelAdapter = plugins.build("adapters", model, options)
        sweeps = self._adapter.sweeps if isinstance(self._adapter, Concurrent) else 1
        self._room = threading.BoundedSemaphore(max(1, sweeps))

    @property
    def settings(self) -> Mapping[str, object]:
        return {
            "model": self._model,
            "adapter": plain(self._adapter.provenance),
            "question": self._question,
            "minimum": self._minimum,
        }

    def judge(self, request: ImageRequest, image: Image.Image) -> Judgement:
        """IsekaiError where the model fails to answer."""
        sweep = self._sweep(request, image)
        with self._room:
            responses = list(islice(self._adapter.respond(sweep), len(sweep.queries) + 1))
        if len(responses) != len(sweep.queries):
            raise PluginError(
                f"gate 'vqa': {self._model} gave {len(responses)} responses or more to "
                f"{len(sweep.queries)} questions"
            )
        answers = [self._yes(request, response) for response in responses]
        names = ["yes", *(f"parent.{name}" for name in wording.parents(request.concept))]
        scores = {
            f"vqa.{name}": answer
            for name, answer in zip(names, answers, strict=True)
            if answer is not None
        }
        return Judgement(scores, self._reason(request.concept, answers[0], responses[0].text))

    def close(self) -> None:
        """Give up what is being asked."""
        if isinstance(self._adapter, Closing):
            self._adapter.close()

    def _sweep(self, request: ImageRequest, image: Image.Image) -> Sweep:
        data = encode(image)
        shown = EncodedImage(id=sha256(data), data=data)
        return Sweep(
            episode_id=f"vqa/{request.concept.id}/{request.index:04d}-{request.attempt}",
            support=(),
            cuts=(0,),
            queries=tuple(
                Turn(image=shown, question=self._question.replace(THING, thing))
                for thing in _things(request.concept)
            ),
            labels=LABELS,
        )

    def _yes(self, request: ImageRequest, response: Response) -> float | None:
        """How much of a yes it is, 0 to 1; None if the model said neither yes nor no."""
        error = response.error or malformed(response, LABELS)
        if not error and response.label_logprobs is not None:
            return _share(response.label_logprobs)
        answer, came_out = outcome(response, LABELS, "yes")
        if error or came_out == "failed":
            raise IsekaiError(
                f"gate 'vqa': {self._model} did not judge {request.concept.id} {request.index} "
                f"({_line(error or 'its answer was cut off')}); run the same command again to go on"
            )
        return None if answer is None else float(answer == "yes")

    def _reason(self, concept: Concept, yes: float | None, said: str) -> str:
        asked = f"asked whether it shows {wording.thing(concept)}, {self._model}"
        if yes is None:
            return f"{asked} said neither yes nor no: {_line(said)!r}"
        if yes >= self._minimum:
            return ""
        return f"{asked} gave {yes:.2f} for yes, at least {self._minimum:g} is wanted"


def _things(concept: Concept) -> Iterator[str]:
    yield wording.thing(concept)
    yield from map(wording.a, wording.parents(concept))


def _share(logprobs: Mapping[str, float]) -> float:
    """P(yes) of the two labels alone, whatever else the model might have said."""
    against = logprobs["no"] - logprobs["yes"]
    return 1 / (1 + math.exp(against)) if against < 700 else 0.0  # where exp still has a value


def _line(text: str, longest: int = 120) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"
