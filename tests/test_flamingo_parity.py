"""Flamingos against what OpenFlamingo's and Otter's own code made of the same weights."""

import pytest
import torch
from PIL import Image

from model_adapters.flamingo import looking, plainly
from model_adapters.flamingo.crossing import Sight, last_seen
from tests import flamingo_golden as golden
from tests.flamingo_golden import CASES, FOLDERS

TOLERANCE = 1e-4
folders = pytest.mark.parametrize("folder", FOLDERS, ids=golden.named)
cases = pytest.mark.parametrize("case", CASES)


def prompt(folder, case, shown=None):
    told = golden.tensors(folder, case)
    pixels = told["vision_x"] if shown is None else shown
    rows, pictures = pixels.shape[:2]
    with torch.inference_mode():
        media = golden.model(folder).encode(pixels.flatten(0, 2)).unflatten(0, (rows, pictures))
    return plainly.Prompt(
        tokens=told["input_ids"],
        mask=told["attention_mask"],
        media=media,
        image=golden.meta(folder)["special_ids"]["<image>"],
    )


def logits(folder, case, shown=None):
    asked = prompt(folder, case, shown)
    with torch.inference_mode():
        read = golden.model(folder).read(asked.tokens, asked.sight, attention_mask=asked.mask)
    return read.logits


def far(found, wanted):
    assert found.shape == wanted.shape
    return (found - wanted).abs().max().item()


def test_every_kind_of_language_model_is_there():
    kinds = {type(golden.model(folder).decoder).__name__ for folder in FOLDERS}
    assert kinds >= {"MptForCausalLM", "NormedMpt", "GPTNeoXForCausalLM", "LlamaForCausalLM"}


@folders
@cases
def test_texts_become_the_same_tokens(folder, case):
    words, told = golden.tokenizer(folder), golden.meta(folder)
    words.tokenizer.padding_side = told["padding_side"]
    made = words.tokenizer(told["cases"][case]["text"], padding=True, return_tensors="pt")
    assert torch.equal(made["input_ids"], golden.tensors(folder, case)["input_ids"])
    assert torch.equal(made["attention_mask"], golden.tensors(folder, case)["attention_mask"])


@folders
def test_added_tokens_and_class_names_have_the_same_ids(folder):
    words, told = golden.tokenizer(folder), golden.meta(folder)
    ids = words.tokenizer.convert_tokens_to_ids(list(told["special_ids"]))
    assert ids == list(told["special_ids"].values())
    assert [list(words.ids(name)) for name in told["class_names"]] == told["class_token_ids"]


@folders
@cases
def test_pictures_become_the_same_pixels(folder, case):
    corner = "floored" if golden.is_otter(folder) else "rounded"
    wanted = golden.tensors(folder, case)["vision_x"]
    for row, names in enumerate(golden.meta(folder)["cases"][case]["images"]):
        shown = [Image.open(folder / "images" / f"{name}.png") for name in names]
        pixels = looking.pixels(shown, wanted.shape[-1], corner)
        assert far(pixels, wanted[row, : len(names), 0]) <= 1e-6
        assert not wanted[row, len(names) :].any()


@folders
@cases
def test_patches_and_latents_are_the_same(folder, case):
    told, model = golden.tensors(folder, case), golden.model(folder)
    with torch.inference_mode():
        patches = model.patches(told["vision_x"].flatten(0, 2))
        latents = model.resampler(patches).unflatten(0, told["vision_x"].shape[:2])
    assert far(patches, told["clip_patch_tokens"]) <= TOLERANCE
    assert far(latents, told["perceiver_out"]) <= TOLERANCE


@folders
@cases
def test_logits_are_the_same(folder, case):
    wanted = next(
        tensor
        for name, tensor in golden.tensors(folder, case).items()
        if name == "logits" or name.startswith("logits_last")
    )
    assert far(logits(folder, case)[:, -wanted.shape[1] :], wanted) <= TOLERANCE


@folders
@cases
def test_logits_of_empty_pictures_are_the_same_and_others(folder, case):
    told = golden.tensors(folder, case)
    found = logits(folder, case, torch.zeros_like(told["vision_x"]))[:, -1]
    assert far(found, told["logits_zero_images_last"]) <= TOLERANCE
    assert far(found, logits(folder, case)[:, -1]) > 10 * TOLERANCE


@folders
@cases
def test_labels_are_ranked_by_the_same_numbers(folder, case):
    told = golden.tensors(folder, case)
    kind = "class_logprob" if golden.is_otter(folder) else "rank_cache0"
    labels = golden.meta(folder)["class_token_ids"]
    sums = plainly.rank(golden.model(folder), prompt(folder, case), labels)
    assert far(sums, told[f"{kind}_sum"]) <= TOLERANCE
    lengths = torch.tensor([len(label) for label in labels])
    assert far(sums / lengths, told[f"{kind}_mean"]) <= TOLERANCE


@pytest.mark.parametrize(
    "folder", [one for one in FOLDERS if not golden.is_otter(one)], ids=golden.named
)
@cases
def test_the_faults_of_cached_ranking_are_the_same(folder, case):
    told, labels = golden.tensors(folder, case), golden.meta(folder)["class_token_ids"]
    ask = golden.model(folder), prompt(folder, case), labels
    faulty = plainly.rank_cached(*ask, in_place=golden.appends(folder))
    assert far(faulty, told["rank_cache1_sum"]) <= TOLERANCE
    fresh = plainly.rank_cached(*ask, in_place=False)
    lengths = torch.tensor([len(label) for label in labels])
    assert far(fresh / lengths, told["rank_cache1_fresh_mean"]) <= TOLERANCE
    whole = told["attention_mask"].bool().all(dim=1)
    assert far(fresh[whole], told["rank_cache0_sum"][whole]) <= TOLERANCE
    if golden.appends(folder) or not whole.all():
        assert far(faulty, told["rank_cache0_sum"]) > 10 * TOLERANCE


def said(folder, case, *, blind):
    stops = frozenset([golden.meta(folder)["special_ids"]["<|endofchunk|>"]])
    told = golden.tensors(folder, case)
    most = told["generated_no_cache"].shape[1] - told["input_ids"].shape[1]
    return plainly.say(
        golden.model(folder), prompt(folder, case), most=most, stops=stops, blind=blind
    )


def written(folder, case, kind):
    """Upstream's own tokens, up to what ends them."""
    told, end = golden.tensors(folder, case), golden.meta(folder)["special_ids"]["<|endofchunk|>"]
    rows = told[f"generated_{kind}"][:, told["input_ids"].shape[1] :].tolist()
    return [row[: row.index(end)] if end in row else row for row in rows]


@folders
@cases
def test_answers_are_the_same_tokens(folder, case):
    assert said(folder, case, blind=False) == written(folder, case, "no_cache")


@folders
@cases
def test_answers_with_upstreams_cache_are_the_same_tokens(folder, case):
    """Otter's own tokens see no picture then: the fault has a switch."""
    assert said(folder, case, blind=golden.is_otter(folder)) == written(folder, case, "use_cache")


@folders
@cases
def test_answers_spell_the_same_texts(folder, case):
    told, words = golden.meta(folder), golden.tokenizer(folder)
    blind = golden.is_otter(folder) and told["lm_use_cache_default"]
    spelled = [words.text(ids) for ids in said(folder, case, blind=blind)]
    assert spelled == told["cases"][case]["decoded"]


@folders
def test_a_row_may_not_mark_more_pictures_than_it_has(folder):
    asked = prompt(folder, "episode")
    few = plainly.Prompt(
        tokens=asked.tokens, mask=asked.mask, media=asked.media[:, 1:], image=asked.image
    )
    with pytest.raises(ValueError, match=r"marks \d+ pictures and has \d+"):
        plainly.rank(golden.model(folder), few, [[0]])


@folders
def test_a_text_before_all_pictures_sees_none_of_them(folder):
    """Nor does one without pictures; and a picture that isn't marked changes nothing."""
    model, asked = golden.model(folder), prompt(folder, "single")
    plain = asked.tokens[:, asked.tokens[0].tolist().index(asked.image) + 1 :]
    index = last_seen(plain, asked.image, 0)
    with torch.inference_mode():
        none = model.read(plain, Sight(media=asked.media[:, :0], index=index)).logits
        hidden = model.read(plain, Sight(media=asked.media, index=index)).logits
    assert (index == -1).all()
    assert far(none, hidden) == 0.0


@folders
def test_a_decoder_can_not_be_read_without_saying_what_it_sees(folder):
    with pytest.raises(RuntimeError, match="without `seeing`"):
        golden.model(folder).decoder(input_ids=torch.tensor([[0]]))
