"""Reading OpenFlamingo's and Otter's files: every key, and what is told of those that don't fit."""

import json
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModel

from isekai.errors import DataError
from model_adapters.flamingo import decoders, openflamingo, otter, tower, weights
from model_adapters.flamingo.model import Flamingo, Plan
from model_adapters.flamingo.sizes import Sizes
from tests import flamingo_golden as golden
from tests.flamingo_golden import FOLDERS

TRAINED = [folder for folder in FOLDERS if not golden.is_otter(folder)]
WHOLE = [folder for folder in FOLDERS if golden.is_otter(folder)]
trained = pytest.mark.parametrize("folder", TRAINED, ids=golden.named)
whole = pytest.mark.parametrize("folder", WHOLE, ids=golden.named)


def read(folder, checkpoint=None, **given):
    parts = {
        "language_model": folder / "lm",
        "vision_tower": folder / "clip_visual.safetensors",
        "sizes": golden.sizes(folder),
    }
    return openflamingo.read(checkpoint or folder / "checkpoint.pt", **parts | given)


def same(parts, folder):
    """Whether the parts are those of the folder's model, to the last bit."""
    made = Flamingo(*parts, dtype=torch.float32, device="cpu").state_dict()
    wanted = golden.model(folder).state_dict()
    return made.keys() == wanted.keys() and all(
        torch.equal(made[key], wanted[key]) for key in wanted
    )


def held(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def saved(tensors, path):
    torch.save(tensors, path)
    return path


def otter_copy(folder, tmp_path, **config):
    shutil.copytree(folder / "hf", tmp_path / "otter")
    path = tmp_path / "otter" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return tmp_path / "otter"


def one_file(copy):
    """The shards of a folder in one safetensors file."""
    tensors = weights.of_folder(copy)
    for path in copy.glob("pytorch_model*"):
        path.unlink()
    save_file({key: value.clone() for key, value in tensors.items()}, copy / "model.safetensors")
    return copy / "model.safetensors"


# ---------------------------------------------------------------- layouts


@trained
def test_a_training_state_with_prefixes_holds_the_same_model(folder, tmp_path):
    state = {
        "epoch": 3,
        "model_state_dict": {f"module.{key}": value for key, value in held(folder).items()},
        "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}},
        "lr_scheduler_state_dict": {"last_epoch": 3},
    }
    assert same(read(folder, saved(state, tmp_path / "state.pt")), folder)


@trained
def test_crossings_may_stand_in_a_list_of_their_own_or_in_both(folder, tmp_path):
    layers = golden.model(folder).decoder
    path = "gpt_neox.layers" if hasattr(layers, "gpt_neox") else "transformer.blocks"

    def listed(key):
        number, _, rest = key.removeprefix(f"lang_encoder.{path}.").partition(".")
        rest = rest.removeprefix("gated_cross_attn_layer.")
        return f"lang_encoder.gated_cross_attn_layers.{number}.{rest}"

    tensors = held(folder)
    crossings = {key for key in tensors if ".gated_cross_attn_layer." in key}
    alone = {listed(key) if key in crossings else key: value for key, value in tensors.items()}
    assert alone.keys() != tensors.keys()
    assert same(read(folder, saved(alone, tmp_path / "alone.pt")), folder)
    assert same(read(folder, saved(alone | tensors, tmp_path / "both.pt")), folder)

    key = min(crossings)
    differing = alone | tensors | {listed(key): tensors[key] + 1}
    with pytest.raises(DataError, match="under another name, too, and differs"):
        read(folder, saved(differing, tmp_path / "differing.pt"))


@trained
def test_a_checkpoint_that_holds_frozen_parts_too_needs_no_tower(folder, tmp_path):
    tensors = {
        key: value.float() for key, value in load_file(folder / "state_dict.safetensors").items()
    }
    save_file(tensors, tmp_path / "all.safetensors")
    parts = read(folder, tmp_path / "all.safetensors", vision_tower=tmp_path / "nowhere")
    assert same(parts, folder)


@trained
def test_a_folder_of_transformers_holds_the_same_tower(folder, tmp_path):
    network = golden.model(folder).tower
    network.save_pretrained(tmp_path / "tower")
    assert same(read(folder, vision_tower=tmp_path / "tower"), folder)
    # as OpenAI's repository has it: within a whole CLIP, with a buffer of old versions
    tensors = load_file(tmp_path / "tower" / "model.safetensors")
    inside = {f"vision_model.{key.removeprefix('vision_model.')}": tensors[key] for key in tensors}
    inside["vision_model.embeddings.position_ids"] = torch.arange(3)
    inside["text_model.final_layer_norm.weight"] = torch.ones(4)
    save_file(inside, tmp_path / "tower" / "model.safetensors")
    config = {"model_type": "clip", "vision_config": network.config.to_dict()}
    (tmp_path / "tower" / "config.json").write_text(json.dumps(config))
    assert same(read(folder, vision_tower=tmp_path / "tower"), folder)


@whole
def test_an_otter_of_safetensors_is_the_same(folder, tmp_path):
    copy = otter_copy(folder, tmp_path)
    one_file(copy)
    assert same(otter.read(copy, sizes=golden.sizes(folder)), folder)


@whole
def test_vectors_for_frames_are_left_alone_where_nothing_uses_them(folder, tmp_path):
    copy = otter_copy(folder, tmp_path)
    path = one_file(copy)
    save_file(load_file(path) | {"perceiver.frame_embs": torch.ones(2, 4)}, path)
    with pytest.warns(UserWarning, match=r"perceiver\.frame_embs"):
        parts = otter.read(copy, sizes=golden.sizes(folder))
    assert same(parts, folder)
    config = copy / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_num_frames": 2}))
    with pytest.raises(DataError, match="an Otter for films"):
        otter.read(copy, sizes=golden.sizes(folder))


# ---------------------------------------------------------------- keys


def told(make):
    with pytest.raises(DataError) as caught:
        make()
    return str(caught.value).splitlines()


@trained
def test_all_keys_that_do_not_fit_are_told_at_once_with_the_nearest_names(folder, tmp_path):
    tensors = held(folder)
    tensors["perceiver.latent"] = tensors.pop("perceiver.latents")
    for number in range(golden.sizes(folder).depth):
        del tensors[f"perceiver.layers.{number}.0.to_q.weight"]
    tensors["perceiver.norm.bias"] = torch.zeros(3)
    tensors["something.else"] = torch.zeros(1)
    path = saved(tensors, tmp_path / "bad.pt")
    width, last = len(tensors["perceiver.norm.weight"]), golden.sizes(folder).depth - 1
    lines = told(lambda: read(folder, path))
    assert f"{path}: 'perceiver.norm.bias' has the shape [3], expected [{width}]" in lines
    assert f"{path}: 'perceiver.latents' is missing; there is 'perceiver.latent'" in lines
    assert any(f"'perceiver.layers.{{0-{last}}}.0.to_q.weight' is missing" in one for one in lines)
    assert f"{path}: 'perceiver.latent' is not expected" in lines
    assert f"{path}: 'something.else' is not expected" in lines
    assert len(lines) == 5


@trained
def test_faults_of_all_three_files_are_told_together(folder, tmp_path):
    own, sight = held(folder), load_file(folder / "clip_visual.safetensors")
    base = load_file(folder / "lm" / "model.safetensors")
    gone = next(key for key in base if "1." in key and key.endswith("weight"))
    del own["perceiver.norm.bias"], sight["visual.ln_pre.bias"], base[gone]
    shutil.copytree(folder / "lm", tmp_path / "lm")
    save_file(base, tmp_path / "lm" / "model.safetensors")
    save_file(sight, tmp_path / "clip.safetensors")
    lines = told(
        lambda: read(
            folder,
            saved(own, tmp_path / "own.pt"),
            language_model=tmp_path / "lm",
            vision_tower=tmp_path / "clip.safetensors",
        )
    )
    assert [line.split("'")[1] for line in lines] == ["perceiver.norm.bias", gone, "ln_pre.bias"]


@whole
def test_an_otter_lacks_no_key_and_has_no_other(folder, tmp_path):
    copy = otter_copy(folder, tmp_path)
    path = one_file(copy)
    tensors = load_file(path)
    tensors["perceiver.layers.0.to_kv"] = tensors.pop("perceiver.layers.0.to_kv.weight")
    save_file(tensors, path)
    lines = told(lambda: otter.read(copy, sizes=golden.sizes(folder)))
    missing, surplus = "'perceiver.layers.0.to_kv.weight'", "'perceiver.layers.0.to_kv'"
    assert lines == [
        f"{copy}: {missing} is missing; there is {surplus}",
        f"{copy}: {surplus} is not expected",
    ]


@pytest.mark.parametrize("folder", FOLDERS, ids=golden.named)
def test_a_model_of_other_sizes_is_no_published_one(folder):
    """A last layer that is missing as a whole is told, too."""
    sizes = replace(golden.sizes(folder), depth=golden.sizes(folder).depth + 1)
    lines = told(
        lambda: (
            otter.read(folder / "hf", sizes=sizes)
            if golden.is_otter(folder)
            else read(folder, sizes=sizes)
        )
    )
    missing = f"perceiver.layers.{sizes.depth - 1}."
    assert lines
    assert all(missing in line and "is missing" in line for line in lines)


# ---------------------------------------------------------------- other families, other parts


@trained
def test_each_family_is_sent_to_its_adapter(folder, tmp_path):
    other = WHOLE[0] / "hf"
    assert "the adapter 'otter' wants it" in told(lambda: read(folder, other))[0]
    shard = saved(weights.of_folder(other), tmp_path / "otter.pt")
    assert "the adapter 'otter' wants it" in told(lambda: read(folder, shard))[0]
    shikra = saved({"model.mm_projector.weight": torch.ones(1)}, tmp_path / "shikra.bin")
    assert "the adapter 'lcl-shikra' wants it" in told(lambda: read(folder, shikra))[0]


@whole
@pytest.mark.parametrize(
    ("kind", "adapter"), [("llava", "lcl-shikra"), ("shikra", "lcl-shikra"), ("qwen2_vl", "hf")]
)
def test_a_folder_of_another_kind_is_sent_to_its_adapter(folder, tmp_path, kind, adapter):
    copy = otter_copy(folder, tmp_path, model_type=kind)
    line = told(lambda: otter.read(copy, sizes=golden.sizes(folder)))[0]
    assert line == (
        f"{copy}: a checkpoint of the kind '{kind}'; the adapter '{adapter}' wants it, not otter"
    )


def test_an_open_flamingo_in_an_otters_folder_is_sent_on(tmp_path):
    copy = otter_copy(WHOLE[0], tmp_path)
    for path in copy.glob("pytorch_model*"):
        path.unlink()
    torch.save(held(TRAINED[0]), copy / "pytorch_model.bin")
    line = told(lambda: otter.read(copy, sizes=golden.sizes(WHOLE[0])))[0]
    assert "the adapter 'openflamingo' wants it" in line


def test_the_language_model_of_another_checkpoint_is_told(tmp_path):
    neox = next(one for one in TRAINED if golden.meta(one)["kind"].endswith("neox"))
    other = next(one for one in TRAINED if one != neox)
    assert "another language model than" in told(lambda: read(neox, language_model=other / "lm"))[0]
    tensors = held(other)
    table = next(key for key in tensors if key.endswith("wte.weight"))
    tensors[table] = torch.zeros(len(tensors[table]), 3)
    line = told(lambda: read(other, saved(tensors, tmp_path / "narrow.pt")))[0]
    assert "numbers wide" in line
    assert "give the language model that the checkpoint was trained on" in line


@trained
def test_a_tower_of_another_width_or_activation_is_told(folder, tmp_path):
    shape = {"num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 20, "patch_size": 5}
    width = 2 * golden.model(folder).tower.config.hidden_size
    config = CLIPVisionConfig(hidden_size=width, intermediate_size=32, **shape)
    CLIPVisionModel(config).save_pretrained(tmp_path / "wide")
    line = told(lambda: read(folder, vision_tower=tmp_path / "wide"))[0]
    assert f"its features are {width} numbers wide" in line
    golden.model(folder).tower.save_pretrained(tmp_path / "gelu")
    path = tmp_path / "gelu" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_act": "gelu"}))
    line = told(lambda: read(folder, vision_tower=tmp_path / "gelu"))[0]
    assert "whose activation is quick_gelu" in line


def test_a_file_without_a_tower_is_told(tmp_path):
    save_file({"some.weight": torch.ones(1)}, tmp_path / "tower.safetensors")
    line = told(lambda: read(TRAINED[0], vision_tower=tmp_path / "tower.safetensors"))[0]
    assert "no vision tower of open_clip" in line


def test_a_tower_that_says_little_of_itself_is_taken_for_openais():
    assert tower.configuration({}, "here").hidden_act == "quick_gelu"


def test_a_tower_of_another_kind_is_told():
    line = told(lambda: tower.configuration({"model_type": "siglip_vision_model"}, "here"))[0]
    assert line.startswith("here: a tower of the kind 'siglip_vision_model'")


# ---------------------------------------------------------------- language models


def test_all_that_mpt_can_not_do_here_is_told_at_once():
    config = {
        "model_type": "mpt",
        "n_heads": 4,
        "attn_config": {"alibi": False, "qk_ln": True, "clip_qkv": 6, "prefix_lm": True},
        "expansion_ratio": 3,
        "no_bias": False,
    }
    family = decoders.family(config, "here")
    lines = told(lambda: decoders.configuration(family, config, 8, "here"))
    assert [line.split("'s ")[1].split(" is ")[0] for line in lines] == [
        "alibi",
        "prefix_lm",
        "no_bias",
        "expansion_ratio",
        "clip_qkv",
    ]


def test_a_mosaic_with_odd_heads_is_refused():
    """Its slopes follow no rule for numbers that aren't powers of two; MPT's do."""
    config = {"model_type": "mosaic_gpt", "attn_qk_ln": True, "n_heads": 6, "d_model": 48}
    family = decoders.family(config, "here")
    assert "n_heads is 6" in told(lambda: decoders.configuration(family, config, 8, "here"))[0]
    plain = {"model_type": "mpt", "n_heads": 6, "d_model": 48}
    assert decoders.configuration(decoders.family(plain, "here"), plain, 8, "here").n_heads == 6


def test_an_otter_may_say_llama_by_its_name_alone():
    found = decoders.family({"_name_or_path": "luodian/LLaMA-7b-hf", "model_type": ""}, "here")
    config = decoders.configuration(found, {}, 32004, "here")
    assert (config.model_type, config.vocab_size, config.hidden_size) == ("llama", 32004, 4096)
    assert config.rms_norm_eps == 1e-6


def test_other_language_models_are_refused():
    line = told(lambda: decoders.family({"model_type": "opt"}, "here"))[0]
    assert line.startswith("here: its language model is of the kind 'opt'")


def test_a_configuration_that_makes_no_sense_is_told():
    config = {"model_type": "gpt_neox", "hidden_size": "wide"}
    family = decoders.family(config, "here")
    line = told(lambda: decoders.configuration(family, config, 8, "here"))[0]
    assert line.startswith("here: describes no gpt_neox that can be run")


# ---------------------------------------------------------------- files


class Hostile:
    def __reduce__(self):
        return (print, ("I ran",))


def test_a_pickle_that_would_run_something_is_refused(tmp_path, capsys):
    torch.save({"perceiver.latents": Hostile()}, tmp_path / "zip.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Hostile()}))
    for name in ("zip.pt", "plain.pt"):
        line = told(lambda name=name: weights.of_file(tmp_path / name))[0]
        assert "holds more than plain tensors" in line
    assert "I ran" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["torn.pt", "torn.safetensors"])
def test_a_damaged_file_is_told(tmp_path, name):
    source = TRAINED[0] / ("checkpoint.pt" if name.endswith("pt") else "clip_visual.safetensors")
    (tmp_path / name).write_bytes(source.read_bytes()[:1000])
    assert "or damaged" in told(lambda: weights.of_file(tmp_path / name))[0]


def test_what_is_no_tensor_by_name_is_refused(tmp_path):
    saved([torch.ones(1)], tmp_path / "list.pt")
    assert "holds no tensors by name" in told(lambda: weights.of_file(tmp_path / "list.pt"))[0]
    saved({"a": 1.5}, tmp_path / "number.pt")
    assert "'a' is no tensor" in told(lambda: weights.of_file(tmp_path / "number.pt"))[0]


@whole
def test_shards_stay_in_their_folder_and_are_all_there(folder, tmp_path):
    copy = otter_copy(folder, tmp_path)
    index = copy / "pytorch_model.bin.index.json"
    good = json.loads(index.read_text())
    first = min(good["weight_map"])
    named = good["weight_map"][first]

    def with_map(**changes):
        index.write_text(json.dumps(good | {"weight_map": good["weight_map"] | changes}))
        return told(lambda: weights.of_folder(copy))[0]

    assert "is no file beside it" in with_map(**{first: "../evil.bin"})
    assert "is not there: fetch it" in with_map(**{first: "pytorch_model-00009-of-00009.bin"})
    assert "its shards lack 'more.weight'" in with_map(**{"more.weight": named})
    shutil.copy(copy / named, copy / "twice.bin")
    assert "which another shard holds too" in with_map(**{"more.weight": "twice.bin"})


def test_a_folder_without_weights_is_told(tmp_path):
    assert "no weights here" in told(lambda: weights.of_folder(tmp_path))[0]


# ---------------------------------------------------------------- published sizes

MPT_1B = {"model_type": "mosaic_gpt", "attn_qk_ln": True, "d_model": 2048, "n_layers": 24}
REDPAJAMA = {
    "model_type": "gpt_neox",
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
MPT_7B = {"model_type": "mpt", "d_model": 4096, "n_heads": 32, "n_layers": 32}
LLAMA_7B = {"_name_or_path": "luodian/llama-7b-hf"}


@pytest.mark.parametrize(
    ("language", "rows", "every", "crossings"),
    [
        (MPT_1B, 50280, 1, 24),
        (REDPAJAMA, 50280, 2, 16),
        (MPT_7B, 50280, 4, 8),
        (LLAMA_7B, 32004, 4, 8),
    ],
    ids=["3B", "4B", "9B", "Otter-LLaMA"],
)
def test_published_models_have_their_published_shapes(language, rows, every, crossings):
    """As upstream's classes make them by their defaults."""
    family = decoders.family(language, "here")
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    plan = Plan(
        family=family,
        language=decoders.configuration(family, language, rows, "here"),
        vision=tower.configuration(
            vision | {"num_attention_heads": 16, "image_size": 224, "patch_size": 14}, "here"
        ),
        every=every,
        sizes=Sizes(),
    )
    width = plan.language.hidden_size
    assert len(plan.crossings) == crossings
    assert max(plan.crossings) == plan.language.num_hidden_layers - 1
    crossing = plan.crossings[every - 1].state_dict()
    shapes = {key: list(value.shape) for key, value in crossing.items()}
    assert shapes == {
        "attn_gate": [1],
        "ff_gate": [1],
        "attn.norm.weight": [width],
        "attn.norm.bias": [width],
        "attn.to_q.weight": [512, width],
        "attn.to_kv.weight": [1024, 1024],
        "attn.to_out.weight": [width, 512],
        "ff.0.weight": [width],
        "ff.0.bias": [width],
        "ff.1.weight": [4 * width, width],
        "ff.3.weight": [width, 4 * width],
    }
    resampler = {key: list(value.shape) for key, value in plan.resampler.state_dict().items()}
    assert resampler["latents"] == [64, 1024]
    assert resampler["layers.5.0.to_q.weight"] == [512, 1024]
    assert resampler["layers.5.0.to_kv.weight"] == [1024, 1024]
    assert resampler["layers.5.1.3.weight"] == [1024, 4096]
