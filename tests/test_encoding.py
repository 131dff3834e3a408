"""Each text is encoded once, alone, apart from drawing, and as the pipeline itself would do it."""

import shutil
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from isekai import files
from isekai.errors import IsekaiError
from isekai.sources.diffusers import calling, loading, origin, presets, stages
from isekai.sources.diffusers.embedding_cache import Shelf
from isekai.sources.diffusers.reading import Reader
from isekai.sources.diffusers.recipe import Recipe
from isekai.sources.diffusers.texts import Gone, Pair, Texts
from tests import pipelines

GUIDANCE = {
    "sd15": "guidance_scale",
    "sdxl": "guidance_scale",
    "sd3": "guidance_scale",
    "flux": "true_cfg_scale",
    "flux2-klein": "guidance_scale",
    "pixart-sigma": "guidance_scale",
    "sana": "guidance_scale",
    "qwen-image": "true_cfg_scale",
    "z-image": "guidance_scale",
}
"""Kind -> the parameter that guides it."""

TAKES_NEGATIVES = set(GUIDANCE) - {"flux2-klein"}

PROMPTS = ("a snail", "a snail with a shell of knitted wool, in the rain", "a snail again")
NEGATIVES = ("blurred", "text, watermark")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Of several threads on busy cores, each waits for the slowest."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe_of(kind: str, tmp_path_factory, **changes) -> Recipe:
    folder = pipelines.built(kind, tmp_path_factory)
    preset = presets.resolve(
        str(folder), steps=2, guidance=4.0, guidance_argument=GUIDANCE.get(kind), **changes
    )
    return Recipe(preset=preset, origin=origin.find(str(folder)), dtype="float32")


def texts_of(recipe: Recipe, folder) -> Texts:
    return Texts(shelf=Shelf(folder), identity=recipe.identity(), guidance=recipe.preset.guidance)


def pairs(kind: str, prompts=PROMPTS, negatives=NEGATIVES) -> list[Pair]:
    """Each prompt with each negative one, as images of several concepts would ask for them."""
    heeded = negatives if kind in TAKES_NEGATIVES else (None,)
    return [Pair(prompt, negative) for prompt in prompts for negative in heeded]


def encode(recipe: Recipe, texts: Texts, wanted: list[Pair]) -> int:
    return stages.encode(recipe, texts, wanted, size=64, device="cpu")


@pytest.fixture
def loads(monkeypatch) -> "Loads":
    return watched(monkeypatch)


def watched(monkeypatch) -> "Loads":
    """What is loaded of text encoders from now on, and how often each of them reads something."""
    loads = Loads()
    half = loading.text_half

    def counted(model):
        pipeline = half(model)
        for name, part in pipeline.components.items():
            if loading.reads(name) and part is not None:
                loads.encoders.append(weakref.ref(part))
                part.register_forward_hook(lambda *_, name=name: loads.count(name))
        return pipeline

    monkeypatch.setattr(loading, "text_half", counted)
    return loads


class Loads:
    def __init__(self) -> None:
        self.encoders: list[weakref.ref] = []
        self.counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


class Drawing(Exception):
    """Raised where a pipeline would begin to draw."""


def answers(pipeline, recipe: Recipe, pair: Pair) -> list:
    """What the pipeline's `encode_prompt` gives before it draws this pair."""
    heard = []
    own = pipeline.encode_prompt

    def listening(*args, **given):
        heard.append(own(*args, **given))
        return heard[-1]

    def draw(*args, **given):
        raise Drawing

    pipeline.encode_prompt = listening
    pipeline.prepare_latents = draw
    with pytest.raises(Drawing):
        pipeline(**calling.arguments(pipeline, recipe, [pair], 64))
    pipeline.encode_prompt = own
    return heard


def flat(answer) -> list:
    """The tensors of an answer, with what stands between them."""
    if isinstance(answer, list | tuple):
        return [part for value in answer for part in flat(value)]
    return [answer]


def same(a, b) -> bool:
    return len(flat(a)) == len(flat(b)) and all(
        torch.equal(x, y) if isinstance(x, torch.Tensor) else x is y is None
        for x, y in zip(flat(a), flat(b), strict=True)
    )


class Encoded(NamedTuple):
    """The texts of `pairs(kind)` after they were encoded."""

    kind: str
    recipe: Recipe
    folder: Path
    made: int
    loads: Loads

    @property
    def texts(self) -> Texts:
        """As another process sees them."""
        return texts_of(self.recipe, self.folder)


@pytest.fixture(scope="module", params=GUIDANCE)
def encoded(request, tmp_path_factory) -> Encoded:
    recipe = recipe_of(request.param, tmp_path_factory)
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as monkeypatch:
        loads = watched(monkeypatch)
        made = encode(recipe, texts_of(recipe, folder), pairs(request.param))
    return Encoded(request.param, recipe, folder, made, loads)


def test_each_text_is_read_once_by_each_encoder(encoded):
    negatives = len(NEGATIVES) if encoded.kind in TAKES_NEGATIVES else 0
    assert encoded.made == len(PROMPTS) + negatives
    assert encoded.loads.counts
    assert set(encoded.loads.counts.values()) == {encoded.made}


def test_the_text_encoders_are_gone_afterwards(encoded):
    assert encoded.loads.encoders
    assert not [reference for reference in encoded.loads.encoders if reference() is not None]


def test_nothing_is_missing_afterwards_for_whoever_looks(encoded, tmp_path):
    wanted = pairs(encoded.kind)
    assert encoded.texts.missing(wanted) == []
    assert texts_of(encoded.recipe, tmp_path).missing(wanted) == wanted


def test_what_is_kept_is_what_the_pipeline_makes_of_the_text_alone(encoded):
    plain = loading.whole(encoded.recipe.model)
    drawing = loading.image_half(encoded.recipe.model)
    reader = Reader(drawing, encoded.texts, "cpu")
    for pair in (pairs(encoded.kind)[0], pairs(encoded.kind)[-1]):
        reader.begin([pair])
        own = answers(plain, encoded.recipe, pair)
        assert same(answers(drawing, encoded.recipe, pair), own)


def test_a_text_of_the_pipeline_s_own_is_read_once_for_all(tmp_path_factory, loads, tmp_path):
    """FLUX.2 klein, undistilled, is guided by an empty text that no one can change."""
    folder = shutil.copytree(pipelines.built("flux2-klein", tmp_path_factory), tmp_path / "klein")
    index = files.read_json(folder / "model_index.json", dict[str, object])
    files.write_json(folder / "model_index.json", {**index, "is_distilled": False})
    preset = presets.resolve(str(folder), steps=2, guidance=4.0)
    recipe = Recipe(preset=preset, origin=origin.find(str(folder)), dtype="float32")
    texts = texts_of(recipe, tmp_path / "kept")
    assert encode(recipe, texts, pairs("flux2-klein")) == len(PROMPTS) + 1
    assert loads.counts == {"text_encoder": len(PROMPTS) + 1}
    assert texts.asking(False).calls[1].texts[0].constant == ""


def test_a_negative_prompt_is_shared_by_all_concepts(tmp_path_factory, loads, tmp_path):
    recipe = recipe_of("sd15", tmp_path_factory)
    texts = texts_of(recipe, tmp_path)
    assert encode(recipe, texts, pairs("sd15", PROMPTS, ("blurred",))) == 4
    assert encode(recipe, texts, texts.missing(pairs("sd15", ("a whale",), ("blurred",)))) == 1


def test_a_negative_prompt_never_changes_the_prompt_s_embedding(tmp_path_factory, tmp_path):
    recipe = recipe_of("sdxl", tmp_path_factory)
    texts = texts_of(recipe, tmp_path)
    both = [Pair("a snail", "blurred"), Pair("a snail", "text")]
    encode(recipe, texts, both)
    call = texts.asking(True).calls[0]
    assert texts.key(call, "prompt", both[0]) == texts.key(call, "prompt", both[1])
    assert texts.key(call, "negative_prompt", both[0]) != texts.key(
        call, "negative_prompt", both[1]
    )


def test_other_settings_are_asked_for_anew(tmp_path_factory, tmp_path):
    recipe = recipe_of("sd15", tmp_path_factory)
    encode(recipe, texts_of(recipe, tmp_path), pairs("sd15"))
    own = recipe.identity()
    for changed, guidance in (
        ({"tokens": 64}, 4.0),
        ({"revision": "other"}, 4.0),
        ({"dtype": "bfloat16"}, 4.0),
        ({"lora": {"sha256": "…"}}, 4.0),
        ({}, 0.5),
        ({}, None),
    ):
        other = Texts(shelf=Shelf(tmp_path), identity={**own, **changed}, guidance=guidance)
        assert own.keys() >= changed.keys()
        assert other.missing(pairs("sd15")) == pairs("sd15")


def test_guidance_a_little_stronger_asks_for_the_same_texts(tmp_path_factory, tmp_path):
    recipe = recipe_of("sd15", tmp_path_factory)
    encode(recipe, texts_of(recipe, tmp_path), pairs("sd15"))
    other = Texts(shelf=Shelf(tmp_path), identity=recipe.identity(), guidance=7.5)
    assert other.missing(pairs("sd15")) == []


def test_several_at_work_never_encode_the_same_text(tmp_path_factory, tmp_path, monkeypatch):
    recipe = recipe_of("sd15", tmp_path_factory)
    halves = [loading.text_half(recipe.model) for _ in range(3)]  # loading is not for threads
    monkeypatch.setattr(loading, "text_half", lambda model: halves.pop())
    wanted = pairs("sd15", PROMPTS, ("blurred",))
    with ThreadPoolExecutor(3) as pool:
        work = [pool.submit(encode, recipe, texts_of(recipe, tmp_path), wanted) for _ in range(3)]
        made = [each.result() for each in work]
    assert sum(made) == 4


def test_texts_of_unequal_length_are_told_apart_by_shape(tmp_path_factory, tmp_path):
    recipe = recipe_of("qwen-image", tmp_path_factory)
    texts = texts_of(recipe, tmp_path)
    short, long, as_long = (Pair(p, " ") for p in ("a cat", "a cat in a hat", "a hat in a cat"))
    encode(recipe, texts, [short, long, as_long])
    assert texts.shape(short) != texts.shape(long)
    assert texts.shape(long) == texts.shape(as_long)


def test_embeddings_that_are_gone_while_drawing_are_told(tmp_path_factory, tmp_path):
    recipe = recipe_of("sd15", tmp_path_factory)
    encode(recipe, texts_of(recipe, tmp_path), [Pair("a snail", None)])
    pipeline = loading.image_half(recipe.model)
    reader = Reader(pipeline, texts_of(recipe, tmp_path), "cpu")
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    reader.begin([Pair("a snail", None)])
    with pytest.raises(Gone):
        pipeline(**calling.arguments(pipeline, recipe, [Pair("a snail", None)], 64))


def test_a_pipeline_that_asks_for_something_else_than_was_encoded_is_never_answered(
    tmp_path_factory, tmp_path
):
    recipe = recipe_of("sd15", tmp_path_factory)
    encode(recipe, texts_of(recipe, tmp_path), [Pair("a snail", None)])
    pipeline = loading.image_half(recipe.model)
    Reader(pipeline, texts_of(recipe, tmp_path), "cpu").begin([Pair("a snail", None)])
    with pytest.raises(LookupError, match="clip_skip"):
        pipeline("a snail", height=64, width=64, num_inference_steps=2, clip_skip=1)


def test_text_encoders_that_give_no_numbers_are_told_with_what_to_try(
    tmp_path_factory, tmp_path, monkeypatch
):
    recipe = recipe_of("sd15", tmp_path_factory)
    half = loading.text_half

    def broken(model):
        pipeline = half(model)
        torch.nn.init.constant_(pipeline.text_encoder.final_layer_norm.weight, torch.nan)
        return pipeline

    monkeypatch.setattr(loading, "text_half", broken)
    with pytest.raises(IsekaiError, match="not finite in float32; fetch the model anew"):
        encode(recipe, texts_of(recipe, tmp_path), [Pair("a snail", None)])


def test_texts_longer_than_the_model_reads_are_told(tmp_path_factory, tmp_path, capsys):
    recipe = recipe_of("sd15", tmp_path_factory)
    encode(recipe, texts_of(recipe, tmp_path), [Pair("wool " * 200, None), Pair("wool", None)])
    assert "reads only the beginning of 1 of the texts" in capsys.readouterr().err
