"""The runtime of local models gives what plain recompute gives, and does less for it."""

from dataclasses import replace

import pytest
import torch

from isekai.errors import IsekaiError
from model_adapters.runtime.features import Features
from model_adapters.runtime.running import Runtime
from tests.runtime_models import BARRED, STOP, Crossed, Spliced, model
from tests.runtime_reference import NEAR, close, expected, picture, sweep

FAMILIES = {
    "LLaMA": ("Llama", {}),
    "LLaMA with grouped keys": ("Llama", {"num_key_value_heads": 2}),
    "GPT-NeoX": ("GPTNeoX", {"use_parallel_residual": False, "rotary_pct": 1.0}),
    "MPT": ("Mpt", {}),
    "MPT with six heads": ("Mpt", {"n_heads": 6}),
}


@pytest.fixture(params=FAMILIES)
def language(request):
    name, changes = FAMILIES[request.param]
    return model(name, **changes)


def refused(line: str) -> None:
    raise AssertionError(line)


@pytest.mark.parametrize("way", ["packed", "batched", "recompute"])
@pytest.mark.parametrize("seen", [Spliced, Crossed])
@torch.inference_mode()
def test_each_way_gives_what_every_prompt_by_itself_gives(language, seen, way):
    decoder = seen(model=language)
    true = expected(decoder, sweep(), most=5)
    assert len({one.text for one in true}) > 3
    runtime = Runtime(decoder, way=way, max_tokens=5)
    close(list(runtime.respond(sweep())), true)


def test_the_fast_way_stands_the_check_and_nothing_is_given_up(language):
    runtime = Runtime(Spliced(model=language), max_tokens=3, tell=refused)
    assert len(list(runtime.respond(sweep()))) == 9
    assert runtime.way == "packed"
    assert not runtime.reasons


@pytest.mark.parametrize("tokens", [1, 7, 30])
@torch.inference_mode()
def test_how_many_tokens_a_forward_holds_changes_nothing(tokens):
    decoder = Crossed(model=model("Llama"))
    true = expected(decoder, sweep(), most=2)
    runtime = Runtime(decoder, way="packed", max_tokens=2, tokens=tokens)
    close(list(runtime.respond(sweep())), true)


@torch.inference_mode()
def test_without_an_opening_the_first_cut_is_the_query_alone(language):
    asked = sweep(instruction="")
    decoder = Spliced(model=language)
    true = expected(decoder, asked, most=2)
    for way in ("packed", "batched"):
        close(list(Runtime(decoder, way=way, max_tokens=2).respond(asked)), true)


def test_each_image_is_encoded_once_a_run_even_where_memory_holds_none(language):
    decoder = Spliced(model=language)
    runtime = Runtime(decoder, way="packed")
    first = list(runtime.respond(sweep()))
    assert len(decoder.encoded) == len(set(decoder.encoded)) == runtime.features.encoded == 8
    runtime.features = Features(decoder.encode, on_device=0, on_host=200)
    for _ in range(2):
        assert list(runtime.respond(sweep())) == first
    assert len(decoder.encoded) == 16


def test_features_on_disk_are_those_of_the_image_and_go_with_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    made = Spliced(model=model("Llama"))
    features = Features(made.encode, on_device=0, on_host=0)
    images = [picture(number) for number in range(5)]
    with torch.inference_mode():
        first = features.of(images)
        again = features.of(images[::-1])
    for one, other in zip(first, again[::-1], strict=True):
        assert torch.equal(one, other)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 5
    del features
    assert not list(tmp_path.iterdir())


def test_what_a_response_tells_of_itself():
    runtime = Runtime(Spliced(model=model("Llama")), max_tokens=2, way="packed")
    response = list(runtime.respond(sweep()))[-3]
    pieces = runtime.decoder.pieces(sweep())
    prefix = sum(len(one.ids) for one in (pieces.opening, *pieces.support))
    assert response.usage == {
        "prompt_tokens": prefix + len(pieces.queries[0].ids),
        "cached_tokens": prefix,
        "completion_tokens": 2,
    }
    assert response.finish == "length"
    assert response.label_tokens == {"fe": 2, "fed": 3, "gor": 3, "x": 1}


def test_an_answer_ends_at_a_stop_and_holds_nothing_that_is_barred():
    language = model("Llama")
    language.lm_head.weight.data[:] = 0
    language.lm_head.weight.data[STOP] = 1
    language.lm_head.weight.data[BARRED] = 2
    # Where the barred token has the larger logit it is passed over; else the zeros of token 0 win.
    decoder = Spliced(model=language, stops=frozenset({0, STOP}))
    responses = list(Runtime(decoder, max_tokens=4, rank=False, way="packed").respond(sweep()))
    for response in responses:
        assert str(BARRED) not in response.text.split()
        assert response.label_logprobs is None
    assert {response.finish for response in responses} == {"stop"}
    assert {response.usage["completion_tokens"] for response in responses} == {1}


@torch.inference_mode()
def test_answers_of_all_lengths_are_those_of_each_by_itself(language):
    """Rows that have ended are let go while others go on."""
    query = sweep().queries[0]
    queries = tuple(replace(query, image=picture(number)) for number in range(20, 28))
    asked = replace(sweep(cuts=(0, 4)), queries=queries)
    endless = Spliced(model=language, stops=frozenset())
    told = Runtime(endless, way="packed", max_tokens=12).respond(asked)
    said = [[int(token) for token in response.text.split()] for response in told]
    ends = {
        token: {row.index(token) if token in row else 12 for row in said}
        for token in {token for row in said for token in row}
    }
    stop = max(ends, key=lambda token: (len(ends[token]), token))
    assert len(ends[stop]) > 2
    decoder = Spliced(model=language, stops=frozenset({stop}))
    told = list(Runtime(decoder, way="packed", max_tokens=12).respond(asked))
    for response, row in zip(told, said, strict=True):
        assert [int(token) for token in response.text.split()] == (
            row[: row.index(stop)] if stop in row else row
        )
    close(told, list(Runtime(decoder, way="recompute", max_tokens=12).respond(asked)))


def test_without_an_answer_of_its_own_the_likeliest_label_is_the_text():
    for response in Runtime(Spliced(model=model("GPTNeoX"))).respond(sweep()):
        assert response.text == max(response.label_logprobs, key=response.label_logprobs.get)
        assert response.finish is None


# ---------------------------------------------------------------- what makes a way give up


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("Bloom", {}, "attention in code of its own"),
        ("Gemma2", {"attn_logit_softcapping": 2.0}, "softcap"),
        ("Mistral", {"sliding_window": 9}, "sees only the last 9 tokens"),
    ],
)
@torch.inference_mode()
def test_a_model_that_attends_in_its_own_way_is_asked_plainly_and_that_is_told(
    name, changes, reason
):
    language = model(name, **changes)
    if name != "Bloom":
        language.set_attn_implementation("eager")
    decoder = Spliced(model=language)
    true = expected(decoder, sweep(), most=2)
    lines = []
    runtime = Runtime(decoder, max_tokens=2, tell=lines.append)
    close(list(runtime.respond(sweep())), true)
    assert runtime.way in ("batched", "recompute")
    assert reason in lines[0]
    assert "'packed'" in lines[0]


@torch.inference_mode()
def test_positions_that_depend_on_what_follows_fail_the_check():
    """Long prompts turn all keys in another way than short ones: no prefix can be kept."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 100.0,
        "factor": 4.0,
        "original_max_position_embeddings": 40,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0] * 4,
    }
    language = model("Llama", rope_parameters=rope, max_position_embeddings=160)
    decoder = Spliced(model=language)
    true = expected(decoder, sweep(), most=2)
    lines = []
    runtime = Runtime(decoder, max_tokens=2, tell=lines.append)
    close(list(runtime.respond(sweep())), true)
    assert runtime.way == "recompute"
    assert ["nats off plain recompute" in line for line in lines] == [True, True]


def test_a_way_that_the_user_has_chosen_is_not_changed():
    decoder = Spliced(model=model("Bloom"))
    with pytest.raises(IsekaiError, match=r"can't be asked the way 'packed'.*take way 'auto'"):
        Runtime(decoder, way="packed")


@torch.inference_mode()
def test_a_model_is_as_it_was_outside_of_the_runtime(language):
    ids = torch.tensor([[5, 6, 7, 8]])
    before, how = language(ids).logits, language.config._attn_implementation
    list(Runtime(Spliced(model=language), way="packed").respond(sweep()))
    assert torch.equal(language(ids).logits, before)
    assert language.config._attn_implementation == how


def test_attention_that_others_have_hooked_is_left_to_them():
    language = model("Mpt")
    attention = language.transformer.blocks[1].attn
    attention.forward = attention.forward
    lines = []
    runtime = Runtime(Spliced(model=language), tell=lines.append)
    list(runtime.respond(sweep()))
    assert runtime.way == "batched"
    assert "another forward" in lines[0]


def test_a_window_that_a_later_episode_passes_is_noticed_then():
    decoder = Spliced(model=model("Mistral", sliding_window=60))
    lines = []
    runtime = Runtime(decoder, tell=lines.append)
    short = sweep(cuts=(0, 1))
    short = replace(short, support=short.support[:1])
    list(runtime.respond(short))
    assert runtime.way == "packed"
    told = list(runtime.respond(sweep()))
    assert runtime.way == "batched"
    assert "last 60 tokens" in lines[0]
    close(told, list(Runtime(decoder, way="recompute").respond(sweep())))


# ---------------------------------------------------------------- memory, length, numbers


@pytest.mark.parametrize("way", ["packed", "batched"])
def test_less_is_read_at_a_time_once_memory_runs_out(way):
    decoder = Spliced(model=model("Llama"))
    true = list(Runtime(decoder, way=way, max_tokens=2).respond(sweep()))
    sizes = []

    def full(module, given, named):
        sizes.append(named["inputs_embeds"].shape[0])
        if sizes[-1] > 1:
            torch.empty(2**60)

    decoder.model.register_forward_pre_hook(full, with_kwargs=True)
    asked = replace(sweep(), queries=sweep().queries[:1] * 4)
    runtime = Runtime(decoder, way=way, max_tokens=2)
    told = list(runtime.respond(asked))
    assert max(sizes) == 4
    close(told[::4], true[::3])


def test_memory_that_holds_not_even_one_row_is_told_in_a_line():
    decoder = Spliced(model=model("Llama"))
    decoder.model.register_forward_pre_hook(lambda *given: torch.empty(2**60) and None)
    with pytest.raises(IsekaiError, match=r"memory ran out over a token alone; take fewer shots"):
        list(Runtime(decoder, way="packed").respond(sweep()))


def test_prompts_longer_than_the_context_are_refused_with_what_fits():
    asked = sweep(cuts=(0, 4))
    pieces = Spliced(model=model("Llama")).pieces(asked)
    start = len(pieces.opening.ids) + max(len(query.ids) for query in pieces.queries) + 2
    needed = start + sum(len(one.ids) for one in pieces.support[:4])
    fits = Runtime(Spliced(model=model("Llama"), context=needed))
    fits.probe(asked)
    short = Runtime(Spliced(model=model("Llama"), context=needed - 1))
    for refuse in (short.probe, lambda asked: list(short.respond(asked))):
        with pytest.raises(IsekaiError, match=f"{needed} tokens.*at most --shots 0"):
            refuse(asked)


def test_logits_that_are_no_numbers_are_told():
    language = model("Llama")
    language.lm_head.weight.data[5] = torch.nan
    with pytest.raises(IsekaiError, match=r"no finite numbers in torch\.float32"):
        list(Runtime(Spliced(model=language)).respond(sweep()))


def test_a_label_without_tokens_is_no_label():
    class Silent(Spliced):
        def pieces(self, sweep):
            made = super().pieces(sweep)
            return replace(made, labels=made.labels | {"x": replace(made.labels["x"], ids=())})

    with pytest.raises(ValueError, match="label 'x' has 0 tokens"):
        list(Runtime(Silent(model=model("Llama")), way="packed").respond(sweep()))


def test_the_cross_attention_of_these_tests_depends_on_the_image():
    """Or else nothing here would notice an image at a wrong place."""
    decoder = Crossed(model=model("Llama"))
    asked = sweep()
    other = replace(
        asked, support=tuple(replace(turn, image=picture(50)) for turn in asked.support)
    )
    first, second = (list(Runtime(decoder, way="packed").respond(one)) for one in (asked, other))
    assert first[0].label_logprobs == pytest.approx(second[0].label_logprobs, abs=NEAR)
    assert first[-1].label_logprobs != pytest.approx(second[-1].label_logprobs, abs=1e-2)
