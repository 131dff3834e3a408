"""Which files make up a model: what is chosen, and what strangers' models are refused for."""

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.errors import DataError
from isekai.sources.diffusers import layout

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.42.0",
    "image_encoder": [None, None],
    "requires_safety_checker": True,
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_out_layers": [9, 18, 27],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
}
BESIDES = (
    "model_index.json",
    "safety_checker/config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
)
WEIGHTS = (
    "safety_checker/model.safetensors",
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
)
HALF = tuple(name.replace(".safetensors", ".fp16.safetensors") for name in WEIGHTS)
NOISE = (
    "README.md",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "safety_checker/pytorch_model.bin",
    "text_encoder/model.onnx",
    "text_encoder/flax_model.msgpack",
    "text_encoder/pytorch_model.bin.index.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/notes.py",
    "vae copy/diffusion_pytorch_model.safetensors",
)


def shards(stem: str, count: int, variant: str = "") -> list[str]:
    """What `save_pretrained` writes for weights in several files: variants come before numbers."""
    folder, _, name = stem.partition("/")
    dotted = f".{variant}" if variant else ""
    index = f"{folder}/{name}.safetensors.index{dotted}.json"
    return [index, *(f"{stem}{dotted}-{n:05}-of-{count:05}.safetensors"
                     for n in range(1, count + 1))]  # fmt: skip


def read(files: Iterable[str], **options) -> layout.Layout:
    index = options.pop("index", INDEX)
    return layout.read("here", index, sorted(files), **options)


def refused(files: Iterable[str], **options) -> str:
    with pytest.raises(DataError) as caught:
        read(files, **options)
    told = str(caught.value)
    assert told.startswith("here: ")
    assert "\n" not in told
    return told


# ---------------------------------------------------------------- what is chosen


@given(order=st.randoms(use_true_random=False), noise=st.sets(st.sampled_from(NOISE)))
def test_only_what_is_loaded_is_chosen_whatever_lies_beside_it(order: random.Random, noise):
    files = [*BESIDES, *WEIGHTS, *noise]
    order.shuffle(files)
    found = layout.read("here", INDEX, files)
    assert found.files == tuple(sorted((*BESIDES, *WEIGHTS)))
    assert found.pipeline == "StableDiffusionPipeline"


def test_a_variant_is_taken_where_there_is_one_and_never_twice():
    found = read((*BESIDES, *WEIGHTS, *HALF[1:]), variant="fp16")
    assert [(part.name, part.varied) for part in found.components if part.weights] == [
        ("safety_checker", False),
        ("text_encoder", True),
        ("unet", True),
    ]
    assert found.files == tuple(sorted((*BESIDES, WEIGHTS[0], *HALF[1:])))
    assert read((*BESIDES, *WEIGHTS, *HALF)).files == tuple(sorted((*BESIDES, *WEIGHTS)))


@pytest.mark.parametrize("variant", ["", "bf16"])
def test_weights_in_shards_are_chosen_with_the_index_that_tells_them_apart(variant):
    parts = [
        *shards("text_encoder/model", 2, variant),
        *shards("unet/diffusion_pytorch_model", 3, variant),
    ]
    found = read((*BESIDES, WEIGHTS[0], *parts, *NOISE), variant=variant)
    assert found.files == tuple(sorted((*BESIDES, WEIGHTS[0], *parts)))


def test_of_one_file_and_of_shards_each_library_takes_what_it_takes():
    both = [*shards("text_encoder/model", 2), *shards("unet/diffusion_pytorch_model", 2)]
    found = {part.name: part for part in read((*BESIDES, *WEIGHTS, *both)).components}
    assert found["text_encoder"].weights == ("text_encoder/model.safetensors",)
    assert len(found["unet"].weights) == 2
    without = [name for name in both if "index" not in name]
    found = {part.name: part for part in read((*BESIDES, *WEIGHTS, *without)).components}
    assert found["unet"].weights == ("unet/diffusion_pytorch_model.safetensors",)


# ---------------------------------------------------------------- what is refused


def test_pickle_is_refused_by_name_with_what_to_do():
    pickled = [name.replace(".safetensors", ".bin") for name in WEIGHTS]
    told = refused((*BESIDES, *pickled))
    assert "only safetensors are loaded" in told
    assert ", ".join(pickled) + " are pickle" in told
    assert "save_pretrained(FOLDER)" in told


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ((*BESIDES, *HALF), {}, "only as the variant fp16; give variant=fp16"),
        ((*BESIDES, *HALF), {"variant": "bf16"}, "only as the variant fp16; give variant=fp16"),
        ((*BESIDES, *WEIGHTS), {"variant": "fp16"}, "no weights of the variant 'fp16' are there"),
        ((*BESIDES, *WEIGHTS[:2]), {}, "no weights of unet are there"),
        (("model_index.json", *WEIGHTS), {}, "names tokenizer, of which no file is there"),
        (
            (*BESIDES, *WEIGHTS[:2], *shards("unet/diffusion_pytorch_model", 3)[:-1]),
            {},
            "unet/diffusion_pytorch_model-00003-of-00003.safetensors is missing",
        ),
        (
            (*BESIDES, *WEIGHTS[:2], *shards("unet/diffusion_pytorch_model", 2)[1:]),
            {},
            "unet/diffusion_pytorch_model.safetensors.index.json is missing",
        ),
        ((*BESIDES, *WEIGHTS, "unet/../../x.json"), {}, "'unet/../../x.json', which leads else"),
    ],
)
def test_what_is_not_whole_is_refused_with_what_is_missing(files, options, said):
    assert said in refused(files, **options)


@pytest.mark.parametrize(
    "index",
    [
        {**INDEX, "unet": ["my_unet", "MyUNet"]},
        {**INDEX, "unet": ["os", "system"]},
        {**INDEX, "unet": ["my.package", "MyUNet"]},
        {**INDEX, "_class_name": ["pipeline", "MyPipeline"]},
    ],
)
def test_code_of_a_model_is_refused_until_it_is_trusted_and_then_has_to_be_there(index):
    [unet, _] = index["unet"]
    file = "pipeline.py" if unet == "diffusers" else f"unet/{unet}.py"
    told = refused((*BESIDES, *WEIGHTS, file), index=index)
    assert f"runs code of its own ({file})" in told
    assert "trust_remote_code=true" in told
    found = read((*BESIDES, *WEIGHTS, file), index=index, trust_remote_code=True)
    assert file in found.files
    assert "code that is not there" in refused(
        (*BESIDES, *WEIGHTS), index=index, trust_remote_code=True
    )


def test_code_that_would_be_taken_for_a_library_is_refused_too():
    assert "unet/diffusers.py" in refused((*BESIDES, *WEIGHTS, "unet/diffusers.py"))


WORDS = st.text(st.characters(codec="utf-8"), max_size=12)


def chosen(index: dict[str, object], *files: str) -> layout.Layout | None:
    """What is read, or None if it is refused."""
    try:
        return layout.read("here", index, [*BESIDES, *WEIGHTS, *files], trust_remote_code=True)
    except DataError:
        return None


@given(name=WORDS, library=WORDS, kind=WORDS)
def test_no_word_of_an_index_leads_out_of_the_folder(name, library, kind):
    index = {**INDEX, "_class_name": kind, name: [library, "X"]}
    found = chosen(index, f"{name}/config.json", f"{name}/{library}.py")
    words = (found.pipeline, *(part.name for part in found.components)) if found else ()
    assert all(word.isidentifier() for word in words)
    assert not found or not [name for name in found.files if ".." in name or name[0] == "/"]


@pytest.mark.parametrize(
    "index", [{}, {"_class_name": 3}, {"_class_name": "X"}, {**INDEX, "_class_name": [1]}]
)
def test_an_index_that_says_nothing_is_damaged(index):
    assert "it is damaged" in refused((*BESIDES, *WEIGHTS), index=index)


@pytest.mark.parametrize(
    "index",
    [
        {**INDEX, "../vae": ["diffusers", "AutoencoderKL"]},
        {**INDEX, "vae/..": ["diffusers", "AutoencoderKL"]},
        {**INDEX, "unet": ["../code", "UNet"]},
        {**INDEX, "_class_name": "../Pipeline"},
        {**INDEX, "_class_name": ["../pipeline", "X"]},
    ],
)
def test_an_index_that_leads_elsewhere_is_refused_even_if_code_is_trusted(index):
    assert "where only a plain word may stand" in refused(
        (*BESIDES, *WEIGHTS), index=index, trust_remote_code=True
    )
