"""OpenFlamingo and Otter as models to ask: prompts, ranking and answers on the shared runtime."""

import re
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch

from isekai.errors import DataError, IsekaiError, PluginError
from isekai.files import sha256
from isekai.protocols import ModelAdapter, Probing
from isekai.types import EncodedImage, Sweep, Turn
from model_adapters.flamingo import plainly
from model_adapters.flamingo.adapter import OpenFlamingo, Otter
from model_adapters.flamingo.prompts import STYLES, Prompts
from tests import flamingo_golden as golden
from tests.flamingo_golden import CASES, FOLDERS

folders = pytest.mark.parametrize("folder", FOLDERS, ids=golden.named)
TOLERANCE = 1e-4
MOST = 4


def adapter(folder, **given):
    common = {"tokenizer": folder / "tokenizer", "sizes": golden.sizes(folder), "device": "cpu"}
    if golden.is_otter(folder):
        return Otter(folder / "hf", **common | given)
    return OpenFlamingo(
        folder / "checkpoint.pt",
        language_model=folder / "lm",
        vision_tower=folder / "clip_visual.safetensors",
        **common | given,
    )


def picture(folder, name):
    data = (folder / "images" / f"{name}.png").read_bytes()
    return EncodedImage(id=sha256(data), data=data)


def sweep(folder, **given):
    first, second = labels = tuple(golden.meta(folder)["class_names"][:2])

    def turn(name, label=None):
        answer = f"It is {label}." if label else None
        return Turn(
            image=picture(folder, name), question="<image>\nWhat is it?", answer=answer, label=label
        )

    asked = Sweep(
        episode_id="e",
        support=(turn(0, first), turn(1, second), turn(2, second), turn(0, first)),
        cuts=(0, 2, 4),
        queries=(turn(3), turn(4)),
        labels=labels,
    )
    return replace(asked, **given)


def prompts(folder, style, **given):
    family = golden.meta(folder)["family"]
    return Prompts(words=golden.tokenizer(folder), style=STYLES[family][style], **given)


def text(folder, piece):
    return golden.tokenizer(folder).tokenizer.decode(list(piece.ids))


def cells(pieces, cuts):
    opening = [pieces.opening] if pieces.opening else []
    return [[*opening, *pieces.support[:cut], one] for cut in cuts for one in pieces.queries]


# ---------------------------------------------------------------- prompts

UPSTREAM = {
    "question": r"<image>Question:(?P<q>[^<]*?) Short answer:(?P<a>[^<]*?)(?:<\|endofchunk\|>\n|$)",
    "output": r"<image>Output:(?P<q>)(?P<a>[^<]*?)(?:<\|endofchunk\|>|$)",
    "demo": r"<image>User: (?P<q>[^<]*?) GPT:<answer>(?: (?P<a>[^<]*?)<\|endofchunk\|>|$)",
    "short": r"<image>User: (?P<q>[^<]*?) Please answer in short words\. GPT:<answer>(?P<a>[^<]*?)"
    r"(?:<\|endofchunk\|>|$)",
    "simple": r"<image>User:(?P<q>[^<]*?) GPT:<answer>(?P<a>[^<]*?)(?:<\|endofchunk\|>|$)",
}


def style_of(folder, prompt):
    """The style that an upstream prompt was written in: the narrowest that spells all of it."""
    own = STYLES[golden.meta(folder)["family"]]
    for style in ("question", "output", "short", "demo", "simple"):
        found = re.finditer(UPSTREAM[style], prompt)
        if style in own and "".join(one[0] for one in found) == prompt:
            return style
    raise AssertionError(prompt)


def of_upstream(folder, prompt, style):
    """The sweep whose last cut and only query upstream wrote as this prompt."""
    turns = [
        Turn(
            image=picture(folder, 0),
            question="<image>" + (one["q"] or "?"),
            answer=one["a"] or None,
            label=one["a"] or None,
        )
        for one in re.finditer(UPSTREAM[style], prompt)
        if one[0]
    ]
    labels = tuple(golden.meta(folder)["class_names"])
    return Sweep(
        episode_id="e",
        support=tuple(turns[:-1]),
        cuts=(len(turns) - 1,),
        queries=(turns[-1],),
        labels=labels,
    )


@folders
@pytest.mark.parametrize("case", CASES)
def test_pieces_are_the_tokens_of_upstreams_prompts(folder, case):
    told = golden.tensors(folder, case)
    for row, prompt in enumerate(golden.meta(folder)["cases"][case]["text"]):
        style = style_of(folder, prompt)
        asked = of_upstream(folder, prompt, style)
        pieces = prompts(folder, style).pieces(asked)
        (cell,) = cells(pieces, asked.cuts)
        ids = [token for piece in cell for token in piece.ids]
        assert ids == told["input_ids"][row][told["attention_mask"][row] == 1].tolist()
        assert [len(piece.marks) for piece in cell if piece.images] == [1] * prompt.count("<image>")


def test_upstreams_prompts_are_in_several_styles():
    found = {
        style_of(folder, prompt)
        for folder in FOLDERS
        for case in golden.meta(folder)["cases"].values()
        for prompt in case["text"]
    }
    assert found >= {"question", "output", "demo", "short"}


@folders
def test_labels_without_a_sentence_are_tokenised_as_upstream_ranks_them(folder):
    """OpenFlamingo's alone; Otter's as they stand behind `<answer>` in a demonstration."""
    words, names = golden.tokenizer(folder), golden.meta(folder)["class_names"]
    bare = replace(sweep(folder), support=(), cuts=(0,), labels=tuple(names))
    style = "simple" if golden.is_otter(folder) else "output"
    found = prompts(folder, style).pieces(bare).labels
    assert list(found) == names
    if not golden.is_otter(folder):
        told = golden.meta(folder)["class_token_ids"]
        assert [list(one.ids) for one in found.values()] == told
    for name, one in found.items():
        whole = words.ids(f"<answer>{name}") if golden.is_otter(folder) else words.ids(name)
        assert whole[-len(one.ids) :] == one.ids
        assert one.skip == 0


@folders
def test_what_labels_have_in_front_of_them_alike_is_not_counted(folder):
    asked = sweep(folder)
    style = "demo" if golden.is_otter(folder) else "question"
    pieces = prompts(folder, style, answers="sentence").pieces(asked)
    first, second = pieces.labels.values()
    assert first.ids[: first.skip] == second.ids[: second.skip] != ()
    assert "It is" in golden.tokenizer(folder).text(first.ids[: first.skip])
    for label, one in pieces.labels.items():
        shown = next(
            piece
            for turn, piece in zip(asked.support, pieces.support, strict=True)
            if turn.label == label
        )
        runs = [shown.ids[at : at + len(one.ids)] for at in range(len(shown.ids))]
        assert one.ids in runs  # just as a demonstration has it


@folders
def test_a_picture_stands_in_front_of_its_words_or_where_the_template_says(folder):
    turn = Turn(image=picture(folder, 0), question="What is in the image <image>?")
    asked = replace(sweep(folder), queries=(turn,), query_instruction="Now: ", instruction="Look.")
    style = "demo" if golden.is_otter(folder) else "question"
    lead = STYLES[golden.meta(folder)["family"]][style].lead
    front = prompts(folder, style).pieces(asked).queries[0]
    assert text(folder, front).replace("> ", ">").startswith(f"Now:\n<image>{lead}What is in the")
    there = prompts(folder, style, placed="template").pieces(asked).queries[0]
    assert re.search(r"image ?<image> ?\?", text(folder, there))
    words = golden.tokenizer(folder)
    for piece in (front, there):
        assert [piece.ids[mark] for mark in piece.marks] == [words.image]
    opening = prompts(folder, style).pieces(asked).opening
    assert opening.ids == words.opening + words.ids("Look.\n")


@folders
def test_a_turn_without_a_picture_has_no_mark(folder):
    style = "demo" if golden.is_otter(folder) else "question"
    turn = Turn(image=None, question="<image>\nWhat is it?")
    (piece,) = prompts(folder, style).pieces(replace(sweep(folder), queries=(turn,))).queries
    assert (piece.images, piece.marks) == ((), ())
    assert golden.tokenizer(folder).image not in piece.ids


@folders
def test_words_that_would_be_tokens_of_their_own_are_refused(folder):
    style = "demo" if golden.is_otter(folder) else "question"
    for change in ({"labels": ("<|endofchunk|>", "b")}, {"instruction": "a <image> b"}):
        with pytest.raises(DataError, match="which the model reads as a token of its own"):
            prompts(folder, style).pieces(sweep(folder, **change))


# ---------------------------------------------------------------- answers


@cache
def answered(folder, way, **given):
    return list(asking(folder, way=way, **given).respond(sweep(folder)))


@cache
def asking(folder, **given):
    return adapter(folder, **{"max_tokens": MOST, "answers": "sentence"} | given)


def plainly_asked(folder, cell):
    """A prompt of the runtime's pieces for the plain rule."""
    tokens = torch.tensor([[token for piece in cell for token in piece.ids]])
    media = torch.stack([encoded(folder, one) for piece in cell for one in piece.images])[None]
    return plainly.Prompt(
        tokens=tokens,
        mask=torch.ones_like(tokens),
        media=media,
        image=golden.tokenizer(folder).image,
    )


@cache
def encoded(folder, image):
    return adapter_decoder(folder).encode([image])[0]


@cache
def adapter_decoder(folder):
    return asking(folder)._runtime.decoder


@folders
@pytest.mark.parametrize("way", ["packed", "batched", "recompute"])
def test_every_way_says_what_the_plain_rule_says(folder, way):
    asked, decoder = sweep(folder), adapter_decoder(folder)
    pieces = decoder.pieces(asked)
    every = cells(pieces, asked.cuts)
    responses = answered(folder, way)
    assert len(responses) == len(every)
    for response, cell in zip(responses, every, strict=True):
        prompt = plainly_asked(folder, cell)
        for label, one in pieces.labels.items():
            # the tokens that are read and not counted belong to the prompt
            said = torch.tensor([one.ids[: one.skip]], dtype=torch.long)
            longer = torch.cat([prompt.tokens, said], dim=1)
            behind = plainly.Prompt(
                tokens=longer,
                mask=torch.ones_like(longer),
                media=prompt.media,
                image=prompt.image,
            )
            true = plainly.rank(golden.model(folder), behind, [one.ids[one.skip :]]).item()
            assert abs(response.label_logprobs[label] - true) <= TOLERANCE
        (ids,) = plainly.say(
            golden.model(folder), prompt, most=MOST, stops=decoder.stops, barred=decoder.barred
        )
        assert response.text == decoder.text(ids)


@folders
def test_the_fast_way_stands_its_own_check(folder):
    model = asking(folder)
    assert [one.text for one in model.respond(sweep(folder))] == [
        one.text for one in answered(folder, "recompute")
    ]
    assert model._runtime.way == "packed"
    assert model._runtime.reasons == []


@folders
def test_pictures_matter_and_so_does_which_is_shown(folder):
    asked = sweep(folder)
    other = replace(
        asked, support=(replace(asked.support[0], image=picture(folder, 3)), *asked.support[1:])
    )
    model = adapter(folder, max_tokens=0)
    first, second = list(model.respond(asked)), list(model.respond(other))
    assert len({tuple(one.label_logprobs.values()) for one in first[:2]}) == 2  # two queries
    assert [one.label_logprobs for one in first[:2]] == [one.label_logprobs for one in second[:2]]
    assert all(
        one.label_logprobs != two.label_logprobs
        for one, two in zip(first[2:], second[2:], strict=True)
    )


@folders
def test_a_response_depends_on_the_support_turns_before_its_cut_alone(folder):
    asked, model = sweep(folder), adapter(folder, max_tokens=MOST)
    said = iter(list(model.respond(asked)))
    for cut in asked.cuts:
        alone = replace(asked, support=asked.support[:cut], cuts=(cut,))
        for response in model.respond(alone):
            together = next(said)
            near = pytest.approx(together.label_logprobs, abs=TOLERANCE)
            assert response.label_logprobs == near
            assert response.text == together.text
            assert response.label_tokens == together.label_tokens


@folders
def test_a_label_is_ranked_alone_unless_sentences_are_asked_for(folder):
    alone = adapter(folder)._runtime.decoder.pieces(sweep(folder)).labels
    words = golden.tokenizer(folder)
    for label, one in alone.items():
        assert one.skip == 0
        assert words.text(one.ids).strip() == label


@folders
def test_without_an_answer_the_likeliest_label_is_the_text(folder):
    for response in adapter(folder, max_tokens=0).respond(sweep(folder)):
        scores = response.label_logprobs
        assert response.text == max(scores, key=scores.__getitem__)


@folders
def test_a_whole_episode_without_pictures_can_be_asked(folder):
    asked = sweep(folder)
    blank = replace(
        asked,
        support=tuple(replace(one, image=None) for one in asked.support),
        queries=tuple(replace(one, image=None) for one in asked.queries),
    )
    responses = list(asking(folder).respond(blank))
    assert responses[0].label_logprobs == responses[1].label_logprobs
    shown = answered(folder, "packed")
    assert responses[0].label_logprobs != shown[0].label_logprobs


@folders
def test_a_prompt_longer_than_the_model_reads_is_refused_before_the_run(folder):
    asked = sweep(folder)
    every = asked.support * adapter_decoder(folder).context
    long = replace(asked, support=every, cuts=(0, 2, len(every)))
    with pytest.raises(IsekaiError, match=r"take at most --shots 1$"):
        adapter(folder).probe(long)


# ---------------------------------------------------------------- upstream's faults


@pytest.mark.parametrize(
    "folder", [one for one in FOLDERS if golden.is_otter(one)], ids=golden.named
)
@pytest.mark.parametrize("way", ["packed", "batched", "recompute"])
def test_otters_cache_masking_is_a_switch(folder, way):
    asked, decoder = sweep(folder), adapter_decoder(folder)
    faulty = list(asking(folder, way=way, cache_masking=True).respond(asked))
    right = answered(folder, way)
    for response, cell in zip(faulty, cells(decoder.pieces(asked), asked.cuts), strict=True):
        (ids,) = plainly.say(
            golden.model(folder),
            plainly_asked(folder, cell),
            most=MOST,
            stops=decoder.stops,
            barred=decoder.barred,
            blind=True,
        )
        assert response.text == decoder.text(ids)
    assert [one.text for one in faulty] != [one.text for one in right]
    for one, other in zip(faulty, right, strict=True):  # labels aren't its own tokens
        assert one.label_logprobs == pytest.approx(other.label_logprobs, abs=TOLERANCE)


@pytest.mark.parametrize(
    "folder", [one for one in FOLDERS if not golden.is_otter(one)], ids=golden.named
)
def test_cached_ranking_is_a_switch(folder):
    asked = sweep(folder)
    right, model = answered(folder, "recompute"), asking(folder, max_tokens=0, cached_ranking=True)
    turned = replace(asked, labels=asked.labels[::-1])
    first, last = list(model.respond(asked)), list(model.respond(turned))
    one, two = asked.labels
    for faulty, backwards, true in zip(first, last, right, strict=True):
        assert abs(faulty.label_logprobs[one] - true.label_logprobs[one]) <= TOLERANCE
        assert abs(backwards.label_logprobs[two] - true.label_logprobs[two]) <= TOLERANCE
        off = abs(faulty.label_logprobs[two] - true.label_logprobs[two])
        assert off > 10 * TOLERANCE if golden.appends(folder) else off <= TOLERANCE
        scores = faulty.label_logprobs
        assert faulty.text == max(scores, key=scores.__getitem__)


@folders
def test_a_long_episode_is_asked_where_the_model_has_room_for_it(folder, tmp_path):
    make = Otter if golden.is_otter(folder) else OpenFlamingo
    model = make(**golden.roomy(folder, tmp_path))
    asked = sweep(folder)
    long = replace(asked, support=asked.support * 3, cuts=(0, 4, 12))
    model.probe(long)
    assert len(list(model.respond(long))) == 6


# ---------------------------------------------------------------- what is told


@folders
def test_provenance_holds_all_that_answers_depend_on(folder):
    model = adapter(folder)
    assert isinstance(model, ModelAdapter)
    assert isinstance(model, Probing)
    told = model.provenance
    assert told["sizes"] == asdict(golden.sizes(folder))
    assert told["dtype"] == "float32"
    switch = "cache_masking" if golden.is_otter(folder) else "cached_ranking"
    assert told[switch] is False
    other = adapter(folder, **{switch: True}, pictures="template").provenance
    assert {key for key in told if told[key] != other[key]} == {switch, "pictures"}
    assert re.fullmatch(r"[0-9a-f]{64}", told["revision"])


def test_what_can_not_be_had_is_told_in_a_line(tmp_path):
    folder = next(one for one in FOLDERS if golden.is_otter(one))
    with pytest.raises(DataError, match="no such file or folder for checkpoint"):
        Otter(tmp_path / "nowhere")
    with pytest.raises(DataError, match="its tokenizer can't be loaded"):
        adapter(folder, tokenizer=tmp_path)
    with pytest.raises(PluginError, match="otter: no device 'cuda:99' here"):
        adapter(folder, device="cuda:99")


@folders
def test_the_tokenizer_of_another_model_is_told(folder):
    words, kind = golden.tokenizer(folder), golden.meta(folder)["family"]
    tokens = len(words.tokenizer)
    words.refuse_other(tokens, kind, "here")
    with pytest.raises(DataError, match="give the tokenizer that the model was trained with"):
        words.refuse_other(tokens - 1, kind, "here")
    if kind == "otter":
        words.refuse_other(tokens + 1, kind, "here")
    else:
        with pytest.raises(
            DataError, match=f"has {tokens} tokens and the model's table {tokens + 1}"
        ):
            words.refuse_other(tokens + 1, kind, "here")


def test_a_model_is_not_asked_with_the_tokenizer_of_another(tmp_path):
    folder = next(one for one in FOLDERS if golden.is_otter(one))
    kind = type(golden.tokenizer(folder).tokenizer)
    rows = golden.model(folder).decoder.config.vocab_size
    larger = kind.from_pretrained(folder / "tokenizer")
    larger.add_tokens([f"more{number}" for number in range(rows)])
    larger.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="give the tokenizer that the model was trained with"):
        adapter(folder, tokenizer=tmp_path)


def test_cached_ranking_needs_ranking():
    folder = next(one for one in FOLDERS if not golden.is_otter(one))
    with pytest.raises(PluginError, match="cached_ranking needs rank=true"):
        adapter(folder, cached_ranking=True, rank=False)
