"""LCL-Shikra is asked as it was trained, says what the released code says, and refuses the rest."""

import json
import os
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from isekai import files, templates
from isekai.errors import DataError, IsekaiError, PluginError
from isekai.images import decode
from isekai.lcl_metric import accuracy_lcl
from isekai.types import IMAGE, EncodedImage, Sweep, Turn
from model_adapters.lcl_shikra.adapter import LclShikra
from model_adapters.lcl_shikra.asking import SENTENCE, Asking, sentence
from model_adapters.lcl_shikra.network import Network
from model_adapters.lcl_shikra.rope import HalfRotary
from model_adapters.lcl_shikra.tokens import Tokens
from tests import golden_lcl as golden
from tests import sweeps

torch.set_num_threads(1)

CHECKPOINT, TOWER = golden.FOLDER / "checkpoint", golden.FOLDER / "clip"
TOKENS = Tokens(CHECKPOINT)
LCL = templates.read("lcl")
SAID = [name for name in golden.META["forward"] if name in golden.EPISODES]
"""Episodes of which the whole forward pass was recorded."""


def shown(name):
    data = (golden.FOLDER / "images" / name).read_bytes()
    return EncodedImage(id=files.sha256(data), data=data)


def question(text):
    return text.replace("{image}", IMAGE)


def told(name):
    """A recorded episode as the sweep that the built-in template makes of it."""
    episode = golden.EPISODES[name]
    *support, _ = episode["pieces"]
    names = [piece["prompt"].split('"')[1] for piece in support]
    *pictures, last = map(shown, episode["image_order"])
    line = golden.lines("isekai_tiny.jsonl")[0]
    labels = sorted(set(names)) or [line["positive_promt"], line["negative_promt"]]
    return Sweep(
        episode_id=name,
        support=tuple(
            Turn(
                image=picture,
                question=question(LCL.support_question),
                answer=LCL.support_answer.replace("{label}", label),
                label=label,
            )
            for picture, label in zip(pictures, names, strict=True)
        ),
        cuts=(len(names),),
        queries=(Turn(image=last, question=question(LCL.query_question)),),
        labels=tuple(labels),
        instruction=LCL.instruction,
        query_instruction=LCL.query_instruction,
    )


def asking(how="all"):
    return Asking(TOKENS, golden.META["image_tokens"], how)


def model(checkpoint=CHECKPOINT, **options):
    options = {
        "vision_tower": TOWER,
        "dtype": "float32",
        "device": "cpu",
        "max_tokens": 4,
        **options,
    }
    return LclShikra(checkpoint, **options)


# ---------------------------------------------------------------- how it is asked


@pytest.mark.parametrize("how", ["all", "last"])
@pytest.mark.parametrize("name", golden.EPISODES)
def test_an_episode_is_asked_with_the_recorded_tokens_and_pictures(name, how):
    asked = told(name)
    pieces = asking(how).pieces(asked)
    whole = [id for piece in (*pieces.support, *pieces.queries) for id in piece.ids]
    assert whole == golden.EPISODES[name]["input_ids"]
    images = [[image] for image in golden.EPISODES[name]["image_order"]]
    seen = images if how == "all" else [[]] * len(pieces.support) + images[-1:]
    assert [list(piece.images) for piece in (*pieces.support, *pieces.queries)] == [
        [shown(image) for image in some] for some in seen
    ]


def test_a_label_is_ranked_by_its_tokens_and_the_closing_quote_of_the_reference_answer():
    for name, episode in golden.EPISODES.items():
        pieces = asking().pieces(told(name))
        query = episode["pieces"][-1]
        for label, said in pieces.labels.items():
            answer = LCL.support_answer.replace("{label}", label).removesuffix(" [END EXAMPLE]")
            ids = TOKENS.encode(golden.text(query["prompt"]) + f" {answer}</s>")
            behind = ids[len(query["piece_input_ids"]) :]
            assert tuple(behind[: len(said.ids)]) == said.ids
            assert 'there is "'.startswith(TOKENS.decode(said.ids[: said.skip]))
            assert reaches(said, f'there is "{label}', '"')


def reaches(said, whole, closing):
    """Whether a continuation ends with the one token that comes behind the label."""
    text, short = (
        TOKENS.decode(ids, special=True, tidy=False) for ids in (said.ids, said.ids[:-1])
    )
    return (
        text.replace(" ", "").startswith((whole + closing).replace(" ", ""))
        and whole.startswith(short)
        and 0 <= said.skip < len(said.ids)
    )


@pytest.mark.parametrize(
    ("before", "after", "closing"),
    [("", "", "</s>"), ("", ".", "."), ("it is ", "", "</s>"), ("the image is the ", " in it", "")],
)
@pytest.mark.parametrize("label", ["image", "the", "fox", "kit fox", "i"])
def test_a_sentence_around_a_label_is_found_although_it_may_hold_the_label(
    before, after, closing, label
):
    other = "tree"
    asked = sweeps.sweep(labels=(label, other), queries=1, cuts=(2,))
    support = tuple(
        replace(turn, answer=before + word + after, label=word)
        for turn, word in zip(asked.support, asked.labels, strict=True)
    )
    asked = replace(asked, support=support)
    assert sentence(asked) == (before, after)
    assert reaches(asking().pieces(asked).labels[label], before + label, closing)


def test_without_examples_labels_stand_in_the_released_sentence():
    assert sentence(sweeps.sweep(cuts=(0,))) == SENTENCE
    assert LCL.support_answer.startswith("{label}".join(SENTENCE))


def test_where_no_picture_is_shown_no_place_is_left_for_one():
    asked = sweeps.sweep(cuts=(2,), queries=1)
    bare = replace(
        asked,
        support=tuple(replace(turn, image=None) for turn in asked.support),
        queries=tuple(replace(turn, image=None) for turn in asked.queries),
    )
    pieces = asking().pieces(bare)
    for piece in (*pieces.support, *pieces.queries):
        assert not piece.images
        assert not set(piece.ids) & TOKENS.pictures
    assert len(list(model().respond(bare))) == 1


@pytest.mark.parametrize("mark", ["</s>", "<im_patch>", "<unk>"])
def test_words_that_spell_a_token_are_refused(mark):
    asked = sweeps.sweep(labels=("dovrik", f"tul{mark}mab"))
    with pytest.raises(DataError, match=f"holds '{mark}'"):
        asking().pieces(asked)


@pytest.mark.parametrize("place", ["instruction", "query_instruction", "question", "answer"])
def test_they_are_refused_wherever_they_stand(place):
    asked = sweeps.sweep(cuts=(2,))
    if place.endswith("instruction"):
        asked = replace(asked, **{place: "Mind the <s>."})
    else:
        first = replace(asked.support[0], **{place: "Mind the <s>."})
        asked = replace(asked, support=(first, *asked.support[1:]))
    with pytest.raises(DataError, match=r"'Mind the <s>\.' holds '<s>'"):
        asking().pieces(asked)


# ---------------------------------------------------------------- what it says


@pytest.mark.parametrize("how", ["all", "last"])
@pytest.mark.parametrize("name", SAID)
def test_it_says_what_the_released_code_said(name, how):
    recorded, one = golden.META["forward"][name], f"text_generated_{how}"
    asked = model(splice=how, max_tokens=golden.META["generation"]["max_new_tokens"])
    (response,) = asked.respond(told(name))
    assert response.text == recorded[one]
    assert response.usage["prompt_tokens"] == recorded["n_tokens"]


def plainly(network, asked, cut, query, how):
    """Label -> its log-likelihood by one forward over the whole prompt, without the runtime."""
    pieces = asking().pieces(asked)
    shown = [*pieces.support[:cut], pieces.queries[query]]
    features = network.look([decode(image.data) for one in shown for image in one.images])
    found = {}
    for label, said in pieces.labels.items():
        ids = [*(id for one in shown for id in one.ids), *said.ids]
        with torch.inference_mode():
            embeddings = network.embed(ids, features, how)
            logits = network.decoder(inputs_embeds=embeddings[None]).logits[0]
        logprobs = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids)[1:, None])
        found[label] = logprobs[said.skip - len(said.ids) :].sum().item()
    return found


def close(logprobs):
    return pytest.approx(logprobs, abs=1e-4)


@pytest.mark.parametrize("how", ["all", "last"])
@pytest.mark.parametrize("name", SAID)
def test_labels_have_the_likelihood_that_one_plain_forward_gives(name, how):
    asked = told(name)
    (response,) = model(splice=how).respond(asked)
    network = Network(CHECKPOINT, TOWER, torch.float32, "cpu")
    assert response.label_logprobs == close(plainly(network, asked, asked.cuts[0], 0, how))
    for label, said in asking().pieces(asked).labels.items():
        assert response.label_tokens[label] == len(said.ids) - said.skip


@pytest.mark.parametrize("how", ["all", "last"])
def test_a_nested_sweep_says_what_each_cut_says_alone(how):
    asked, adapter = sweeps.sweep(cuts=(0, 1, 2, 4), queries=3), model(splice=how)
    together = list(adapter.respond(asked))
    alone = [
        response
        for cut in asked.cuts
        for response in model(splice=how, way="recompute").respond(replace(asked, cuts=(cut,)))
    ]
    assert len(together) == len(alone) == 12
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        assert one.label_logprobs == close(other.label_logprobs)


def with_reach(folder, reach):
    """The recorded checkpoint, right in its positions up to so many tokens."""
    return copied(folder, config={"max_position_embeddings": reach})


@pytest.mark.parametrize(("tokens", "distinct"), [(2300, 33), (4700, 17), (10000, 9)])
def test_legacy_positions_are_as_few_as_those_that_were_counted(tokens, distinct):
    rotary = HalfRotary(LlamaConfig())  # that of LLaMA-7B
    rotary.damaged = True
    told = torch.cat(rotary(torch.zeros(1), torch.arange(tokens)[None]), dim=-1)[0, -64:]
    assert len(told.unique(dim=0)) == distinct


def test_legacy_positions_below_the_reach_are_off_by_as_much_as_was_measured():
    rotary = HalfRotary(LlamaConfig())
    places = torch.arange(rotary.reach)[None]
    right, _ = rotary(torch.zeros(1), places)
    rotary.damaged = True
    wrong, _ = rotary(torch.zeros(1), places)
    assert (right - wrong).abs().max().item() == pytest.approx(0.88, abs=0.005)


@pytest.mark.parametrize("how", ["all", "last"])
def test_legacy_positions_damage_long_prompts_from_their_beginning_and_short_ones_not(
    tmp_path, how
):
    asked = sweeps.sweep(cuts=(0, 1, 2, 4), queries=2)
    right = list(model(splice=how).respond(asked))
    lengths = [response.usage["prompt_tokens"] for response in right]
    reach = lengths[4]  # of the third cut of four, so that the fourth is beyond
    assert lengths[6] > reach
    legacy = model(with_reach(tmp_path, reach), splice=how, legacy_fp16_rope=True)
    got = list(legacy.respond(asked))
    network = Network(CHECKPOINT, TOWER, torch.float32, "cpu")
    network.decoder.model.rotary_emb = HalfRotary(network.decoder.config)
    network.decoder.model.rotary_emb.damaged = True
    for place, one in enumerate(got):
        cut, query = asked.cuts[place // 2], place % 2
        if place < 6:
            assert one.text == right[place].text
            assert one.label_logprobs == close(right[place].label_logprobs)
        else:
            assert one.label_logprobs == close(plainly(network, asked, cut, query, how))
    worst = max(
        abs(one.label_logprobs[label] - other.label_logprobs[label])
        for one, other in zip(got[6:], right[6:], strict=True)
        for label in asked.labels
    )
    assert worst > 1e-3
    assert legacy.provenance["legacy_fp16_rope"] is True


def test_support_pictures_change_nothing_with_last_and_much_with_all():
    asked = sweeps.sweep(cuts=(2,), queries=1)
    other = tuple(replace(turn, image=sweeps.plain(1, 50)) for turn in asked.support)
    changed = replace(asked, support=other)
    for how, same in (("last", True), ("all", False)):
        adapter = model(splice=how)
        (one,), (two,) = adapter.respond(asked), adapter.respond(changed)
        assert (one.label_logprobs == two.label_logprobs) is same


@pytest.mark.parametrize("case", golden.read("metrics_cases.json"), ids=lambda case: case["pred"])
def test_answers_are_counted_as_the_recorded_metrics_count(case):
    labels = (case["positive"], case["negative"])
    for pairs, recorded in ((None, "isekai_accuracy"), ([labels], "test100_accuracy")):
        if isinstance(case[recorded], str):
            with pytest.raises(ValueError, match=case[recorded]):
                accuracy_lcl(case["pred"], case["target"], labels, pairs=pairs)
        else:
            right = accuracy_lcl(case["pred"], case["target"], labels, pairs=pairs)
            assert float(right) == case[recorded]


def test_what_answers_depend_on_is_told(tmp_path):
    plain = model().provenance
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["splice"], plain["dtype"]) == ("all", "float32")
    assert plain["image_tokens"] == golden.META["image_tokens"]
    assert model(splice="last").provenance["splice"] == "last"
    other = copied(
        tmp_path, lambda held: {**held, "model.norm.weight": held["model.norm.weight"] * 2}
    )
    assert model(other).provenance["revision"] != plain["revision"]
    assert model(other).provenance["vision_revision"] == plain["vision_revision"]


def test_it_is_a_language_model_of_transformers_whatever_its_configuration_calls_it():
    assert json.loads((CHECKPOINT / "config.json").read_text())["model_type"] == "llava"
    network = Network(CHECKPOINT, TOWER, torch.bfloat16, "cpu")
    assert type(network.decoder) is LlamaForCausalLM
    assert {one.dtype for one in network.decoder.parameters()} == {torch.bfloat16}


def test_a_whole_clip_serves_as_its_vision_part(tmp_path):
    config = CLIPVisionConfig(**json.loads((TOWER / "config.json").read_text()))
    text = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 10}
    clip = CLIPModel(
        CLIPConfig(
            text_config={**text, "num_attention_heads": 1, "projection_dim": 8},
            vision_config=config.to_dict(),
            projection_dim=8,
        )
    )
    clip.save_pretrained(tmp_path)
    network = Network(CHECKPOINT, tmp_path, torch.float32, "cpu")
    given = torch.rand(2, 3, network.vision.side, network.vision.side)
    with torch.inference_mode():
        half = clip.vision_model.half().float()
        told = half(pixel_values=given, output_hidden_states=True).hidden_states[-2][:, 1:]
        assert torch.equal(network.vision.features(given), told)


# ---------------------------------------------------------------- what it refuses


def copied(folder, change=lambda held: held, config=None, layout="checkpoint"):
    """The recorded checkpoint with other tensors or another configuration."""
    shutil.copytree(golden.FOLDER / layout, folder, dirs_exist_ok=True)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**told, **(config or {})}))
    if layout == "checkpoint":
        held = change(load_file(folder / "model.safetensors"))
        save_file(held, folder / "model.safetensors")
    return folder


def test_all_keys_that_do_not_fit_are_told_at_once(tmp_path):
    def change(held):
        held = {key: held[key] for key in held if "up_proj" not in key and "lm_head" not in key}
        held["model.mm_projektor.bias"] = held.pop("model.mm_projector.bias")
        held["model.norm.weight"] = torch.zeros(3)
        return held

    with pytest.raises(DataError) as caught:
        model(copied(tmp_path, change))
    lines = str(caught.value).splitlines()
    assert len(lines) == 5
    for wanted in (
        "'lm_head.weight' is missing",
        "mlp.up_proj.weight' is missing",
        "'model.mm_projector.bias' is missing; there is 'model.mm_projektor.bias'",
        "'model.mm_projektor.bias' is not expected",
        "'model.norm.weight' has the shape [3]",
    ):
        assert sum(wanted in line for line in lines) == 1, wanted


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"hidden_size": None}, "hidden_size is None"),
        ({"num_attention_heads": 1023}, "no even multiple of num_attention_heads 1023"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
        ({"vocab_size": 32003}, "tokens and its language model 32003"),
        (
            {"mm_hidden_size": 1024},
            "wide and the checkpoint was trained on 1024",
        ),
        (
            {"mm_vision_select_layer": -99},
            "hidden states and the checkpoint asks for number -99",
        ),
        ({"use_mm_proj": False}, "use_mm_proj is False"),
        ({"model_type": "otter"}, "the adapter 'otter' wants it"),
        ({"model_type": "llama"}, "the adapter 'hf' wants it"),
        ({"vision_config": {}}, "in the form of transformers; the adapter 'hf' wants it"),
        ({"mm_projector_type": "mlp2x_gelu"}, "newer than LCL-Shikra"),
    ],
)
def test_a_configuration_that_is_not_its_own_is_told_in_one_line(tmp_path, config, told):
    with pytest.raises(IsekaiError, match=told.replace("[", r"\[")) as caught:
        model(copied(tmp_path, config=config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": "wide"},
        {"num_attention_heads": 1023},
        {"image_size": [56, 28]},
        {"patch_size": 0},
        {"model_type": "siglip_vision_model"},
    ],
)
def test_a_tower_that_is_none_is_told_in_one_line(tmp_path, config):
    shutil.copytree(TOWER, tmp_path / "clip")
    told = json.loads((TOWER / "config.json").read_text())
    (tmp_path / "clip" / "config.json").write_text(json.dumps({**told, **config}))
    with pytest.raises(DataError, match="clip: ") as caught:
        model(vision_tower=tmp_path / "clip")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_checkpoint_is_told(tmp_path):
    with pytest.raises(DataError, match=r"config\.json is missing"):
        model(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(DataError, match="what the adapter 'openflamingo' wants"):
        model(tmp_path)
    with pytest.raises(DataError, match=r"checkpoint\.pt: no such folder"):
        model(tmp_path / "checkpoint.pt")
    with pytest.raises(DataError, match="get one from the Hub"):
        model(tmp_path / "none")
    with pytest.raises(DataError, match=r"clip-vit-large-patch14: no such .* vision tower"):
        LclShikra(CHECKPOINT)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("old", [True, False])
def test_a_pickle_that_would_run_something_is_not_opened(tmp_path, old):
    folder = copied(tmp_path / "it", layout="checkpoint_sharded")
    (shard, *_) = sorted(folder.glob("*.bin"))
    held = {"model.norm.weight": Trap(tmp_path / "ran")}
    if old:
        shard.write_bytes(pickle.dumps(held))
    else:
        torch.save(held, shard)
    with pytest.raises(DataError) as caught:
        model(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../x.bin", "/etc/passwd", "sub/x.bin", "gone.bin"])
def test_an_index_names_files_beside_it_that_are_there(tmp_path, name):
    folder = copied(tmp_path / "it", layout="checkpoint_sharded")
    path = folder / "pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = name
    path.write_text(json.dumps(index))
    (tmp_path / "x.bin").write_bytes(b"")
    with pytest.raises(DataError, match=name):
        model(folder)


@pytest.mark.parametrize("cut", [0, 10, 1000, -10])
@pytest.mark.parametrize("layout", ["checkpoint", "checkpoint_sharded"])
def test_damaged_weights_are_told_in_one_line(tmp_path, layout, cut):
    folder = copied(tmp_path, layout=layout)
    path = next(
        path for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".safetensors")
    )
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=path.name) as caught:
        model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("value", "dtype"), [(float("nan"), "float32"), (1e6, "float16")])
def test_weights_that_are_no_numbers_are_refused(tmp_path, value, dtype):
    def change(held):
        held["model.mm_projector.bias"][0] = value
        return held

    with pytest.raises(DataError, match=f"'model.mm_projector.bias'.*none in torch.{dtype}"):
        model(copied(tmp_path, change), dtype=dtype)


def test_a_tower_for_larger_pictures_than_the_published_one_is_refused(tmp_path):
    told = {
        "hidden_size": 1024,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "num_attention_heads": 16,
    }
    CLIPVisionModel(CLIPVisionConfig(**told, image_size=28)).save_pretrained(tmp_path / "clip")
    folder = copied(tmp_path / "it", config={"mm_hidden_size": 1024})
    with pytest.raises(
        DataError, match="gives 4 features a picture; LCL-Shikra was trained on 256"
    ):
        model(folder, vision_tower=tmp_path / "clip")


def test_an_answer_or_a_ranking_is_asked_for():
    (one,) = model(max_tokens=0).respond(sweeps.sweep(cuts=(2,), queries=1))
    assert one.text == max(one.label_logprobs, key=one.label_logprobs.get)
    (two,) = model(rank=False).respond(sweeps.sweep(cuts=(2,), queries=1))
    assert two.label_logprobs is None
    with pytest.raises(PluginError, match="take rank=true, or max_tokens of at least 1"):
        model(rank=False, max_tokens=0)


@pytest.mark.parametrize("device", ["cuda:77", "tpu", "meta"])
def test_a_device_that_is_not_there_is_told(device):
    with pytest.raises(PluginError, match=f"no device '{device}' here"):
        model(device=device)
