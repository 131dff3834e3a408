"""LCL-Shikra reads every text as the released code does: recorded ids, masks and decodings."""

import hashlib
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai import templates
from isekai.errors import DataError
from model_adapters.lcl_shikra import conversation
from model_adapters.lcl_shikra.conversation import IGNORED
from model_adapters.lcl_shikra.tokens import FILES, Tokens
from tests import golden_lcl as golden

TOKENS = Tokens(golden.FOLDER / "checkpoint")
MARKS = TOKENS.marks
LCL = templates.read("lcl")
OPENINGS = {
    "causal_v1.0": LCL.instruction,
    "hypnotized_ans_v1.0": "",
    "final_v1.0": LCL.query_instruction,
    "vicuna_v1.1": "A chat between a curious user and an artificial intelligence assistant. The "
    "assistant gives helpful, detailed, and polite answers to the user's questions.",
}


@pytest.mark.parametrize("recorded", golden.STRINGS, ids=lambda one: repr(one["text"]))
def test_odd_strings_become_the_recorded_ids_and_come_back_as_recorded(recorded):
    ids = recorded["ids"]
    assert TOKENS.encode(recorded["text"]) == ids
    assert TOKENS.encode(recorded["text"], opens=False) == recorded["ids_no_special"]
    assert TOKENS.decode(ids, special=True, tidy=False) == recorded["decoded"]
    assert TOKENS.decode(ids, special=True) == recorded["decoded_clean"]
    assert TOKENS.decode(ids) == recorded["decoded_skip"]


def test_the_tokens_of_pictures_are_the_recorded_ones():
    recorded = golden.META["token_ids"]
    assert recorded == {"im_patch": MARKS.patch, "im_start": MARKS.start, "im_end": MARKS.end}
    assert golden.META["vocab_size_with_added"] == TOKENS.size


@pytest.mark.parametrize("name", golden.EPISODES)
def test_an_episode_at_evaluation_is_the_recorded_ids_and_labels(name):
    episode = golden.EPISODES[name]
    pieces = [TOKENS.encode(golden.text(piece["prompt"])) for piece in episode["pieces"]]
    assert pieces == [piece["piece_input_ids"] for piece in episode["pieces"]]
    ids = conversation.joined(pieces)
    assert ids == episode["input_ids"]
    answered = TOKENS.encode(golden.text(episode["pieces"][-1]["prompt_with_answer"]), opens=False)
    masks = [[IGNORED] * len(piece[1:]) for piece in pieces[:-1]]
    assert conversation.joined([*masks, answered]) == episode["labels"]


@pytest.mark.parametrize("name", golden.TRAINING)
def test_an_episode_of_training_is_the_recorded_ids_and_labels(name):
    episode = golden.TRAINING[name]
    prompts = [golden.text(piece["prompt"]) for piece in episode["pieces"]]
    masks = [conversation.supervised(TOKENS, prompt) for prompt in prompts]
    assert masks == [piece["piece_labels"] for piece in episode["pieces"]]
    ids = conversation.joined([TOKENS.encode(prompt) for prompt in prompts])
    assert ids == episode["input_ids"]
    assert [IGNORED] * (len(ids) - len(masks[-1])) + masks[-1] == episode["labels"]


@pytest.mark.parametrize("place", range(len(golden.TEMPLATES)))
def test_a_template_is_written_encoded_and_cut_as_recorded(place):
    recorded = golden.TEMPLATES[place]
    messages = [golden.text(message) for message in recorded["messages"]]
    whole = conversation.written(OPENINGS[recorded["template"]], messages)
    training = recorded["mode"] == "train"
    if not training and not recorded["keep_answer"]:
        messages[-1] = ""
    prompt = conversation.written(OPENINGS[recorded["template"]], messages)
    assert prompt == golden.text(recorded["prompt"])
    ids = TOKENS.encode(prompt)
    labels = conversation.supervised(TOKENS, whole)
    labels = labels if training else TOKENS.encode(whole, opens=False)
    if limit := recorded["truncation_size"]:
        places = conversation.kept(ids, limit, TOKENS.pictures)
        if len(ids) > limit:
            labels = [labels[at] for at in places if at < len(labels)]
        ids = [ids[at] for at in places]
    assert ids == recorded["input_ids"]
    assert labels == recorded["labels"]


def test_the_sentences_of_the_built_in_template_make_the_recorded_prompts():
    for name, episode in golden.EPISODES.items():
        *support, query = episode["pieces"]
        slot = MARKS.slot(golden.META["image_tokens"])
        for place, piece in enumerate(support):
            (label,) = piece["prompt"].split('"')[1::2]
            turn = (LCL.support_question, LCL.support_answer.replace("{label}", label))
            opening = LCL.instruction if place == 0 else ""
            said = conversation.written(opening, [turn[0].replace("{image}", slot), turn[1]])
            assert said == golden.text(piece["prompt"]), name
        asked = LCL.query_question.replace("{image}", slot)
        said = conversation.written(LCL.query_instruction, [asked, ""])
        assert said == golden.text(query["prompt"]), name


@pytest.mark.parametrize("name", golden.read("tokenization/eval_episodes_256patches.json"))
def test_pictures_of_full_size_give_the_recorded_sequences(name):
    recorded = golden.read("tokenization/eval_episodes_256patches.json")[name]
    slot = f"<im_patch>*{golden.META['image_tokens']}"
    prompts = [
        golden.text(piece["prompt"].replace(slot, "<im_patch>*256"))
        for piece in golden.EPISODES[name]["pieces"]
    ]
    ids = conversation.joined([TOKENS.encode(prompt) for prompt in prompts])
    digest = hashlib.sha256(np.array(ids, "<i4").tobytes()).hexdigest()
    assert (len(ids), digest) == (recorded["length"], recorded["sha256_int32_le"])


@given(st.lists(st.sampled_from("wip"), max_size=30), st.integers(1, 30))
def test_a_piece_is_cut_to_its_limit_and_never_within_its_pictures(kinds, limit):
    ids = [{"w": 5, "i": MARKS.patch, "p": MARKS.end}[kind] for kind in kinds]
    places = conversation.kept(ids, limit, TOKENS.pictures)
    assert places == sorted(set(places))
    pictures = [at for at, id in enumerate(ids) if id in TOKENS.pictures]
    if len(ids) <= limit:
        assert places == list(range(len(ids)))
    elif not pictures or pictures[-1] < limit:
        assert places == list(range(limit))
    else:
        assert set(pictures) <= set(places)
        assert len(places) == max(limit, len(pictures))
        words = [at for at in range(len(ids)) if at not in pictures]
        assert [at for at in places if at not in pictures] == words[: len(places) - len(pictures)]


@given(st.text(alphabet="ab .?\"'▁\n日", max_size=12), st.text(alphabet="ab ?", max_size=6))
def test_text_without_pictures_comes_back_and_is_encoded_by_itself(one, other):
    assert TOKENS.decode(TOKENS.encode(one), tidy=False) == one.replace("▁", " ")
    alone = TOKENS.encode(other.lstrip(), opens=False)
    both = TOKENS.encode(f"{one}<im_end>{other}", opens=False)
    assert both == [*TOKENS.encode(one.rstrip(), opens=False), MARKS.end, *alone]


def test_an_unknown_character_masks_a_conversation_as_the_released_count_does():
    told = conversation.written("", ["what", "this"])
    assert any(label != IGNORED for label in conversation.supervised(TOKENS, told))
    unknown = conversation.written("", ["what <unk>", "this"])
    assert set(conversation.supervised(TOKENS, unknown)) == {IGNORED}


def copied(folder, **changed):
    for name in FILES:
        data = changed.get(name.split(".")[0], (golden.FOLDER / "checkpoint" / name).read_bytes())
        if data is not None:
            (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"tokenizer": None}, "no such file; get the whole checkpoint"),
        ({"tokenizer": random.Random(0).randbytes(500)}, "no model of sentencepiece"),
        ({"tokenizer": b""}, "no model of sentencepiece"),
        ({"added_tokens": None}, "no such file"),
        ({"added_tokens": b'{"<im_start>": 1}'}, "take the files of one checkpoint"),
        ({"added_tokens": b'{"<im_start>":5,"<im_patch>":6,"<im_end>":7}'}, "leaves free"),
        ({"added_tokens": b'{"<im_start>":"x"}'}, "expected a valid integer"),
    ],
)
def test_files_of_another_tokenizer_are_told_in_one_line(tmp_path, changed, told):
    with pytest.raises(DataError, match=told) as caught:
        Tokens(copied(tmp_path, **changed))
    assert "\n" not in str(caught.value)
