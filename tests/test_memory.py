"""Plans for a device's memory: what fits, what gives way first, and what no device can do."""

import re
from importlib.util import find_spec

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from isekai.errors import IsekaiError
from isekai.sources.diffusers import memory
from isekai.sources.diffusers.memory import ITEM, PROFILES, Memory, plan

GIB = 1 << 30

KLEIN = {"text_encoder": 8_050_000_000, "transformer": 7_750_000_000, "vae": 168_000_000}
FLUX = {"text_encoder_2": 9_520_000_000, "transformer": 23_800_000_000, "vae": 168_000_000}
SDXL = {"text_encoder": 1_640_000_000, "unet": 5_140_000_000, "vae": 168_000_000}
TINY = {"text_encoder": 40_000, "unet": 60_000, "vae": 20_000}

EXACT = ("none", "model", "group")


def card(gib: float, sizes=FLUX, *, free: float | None = None, **options) -> Memory:
    given = {"device": "cuda:0", "size_px": 1024, "decoder": "AutoencoderKL", **options}
    free = gib if free is None else free
    return plan(sizes, free_bytes=int(free * GIB), total=int(gib * GIB), **given)


def refused(*given, **options) -> str:
    with pytest.raises(IsekaiError) as caught:
        card(*given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def quantiser(monkeypatch):
    """As if bitsandbytes were installed."""
    monkeypatch.setattr(memory, "find_spec", lambda name: name)


# ---------------------------------------------------------------- what is planned


def test_the_default_model_is_whole_on_a_card_of_16_gib_and_so_is_its_text_encoder():
    for gib in (16, 24):
        found = card(gib, KLEIN, decoder="AutoencoderKLFlux2", gpu_dtype="bfloat16", guided=False)
        assert (found.offload, found.quantise, found.vae_tiling) == ("none", "none", False)
        assert (found.dtype, found.text_device) == ("bfloat16", "cuda:0")
        assert found.batch_limit >= 8


def test_networks_give_way_before_layers_and_layers_before_the_picture():
    found = [card(gib, SDXL, gpu_dtype="float16") for gib in (12, 8, 6, 4)]
    assert [one.offload for one in found] == ["none", "model", "group", "group"]
    assert [one.vae_tiling for one in found] == [False, False, False, True]


def test_a_denoiser_is_quantised_only_where_not_half_of_it_fits_and_where_it_can_be(quantiser):
    assert card(24).quantise == "none"
    small = card(12)
    assert (small.quantise, small.offload) == ("nf4", "none")
    assert card(12, offload="group").quantise == "none"
    assert card(12, quantise="none").offload == "group"
    assert card(24, quantise="int8").offload == "none"


def test_without_its_package_nothing_is_quantised_unless_asked_and_then_it_is_told():
    if find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    assert (card(12).quantise, card(12).offload) == ("none", "group")
    assert "takes the package bitsandbytes" in refused(24, quantise="nf4")


def test_a_text_encoder_that_is_too_large_for_the_card_reads_on_the_cpu():
    assert card(8).text_device == "cpu"
    assert "prompts encoded on the cpu" in card(8).told()
    assert card(24).text_device == "cuda:0"


def test_what_pixels_depend_on_follows_from_the_card_and_not_from_what_is_free(quantiser):
    for gib in (4, 12, 24):
        alone = card(gib, SDXL, gpu_dtype="float16")
        shared = card(gib, SDXL, free=gib * 0.8, gpu_dtype="float16")
        assert (alone.vae_tiling, alone.quantise) == (shared.vae_tiling, shared.quantise)
    crowded = card(24, SDXL, free=6, gpu_dtype="float16")
    assert (crowded.offload, crowded.vae_tiling) == ("group", False)


def test_a_profile_is_a_smaller_card():
    assert card(80, profile="24g").offload == card(24).offload == "group"
    assert card(16, profile="80g") == card(16)
    assert card(24, profile="auto") == card(24)


def test_a_processor_draws_in_single_precision_and_as_many_as_its_memory_holds():
    found = card(32, SDXL, device="cpu", size_px=512, gpu_dtype="float16")
    assert (found.dtype, found.offload, found.text_device) == ("float32", "none", "cpu")
    assert [found.compile, found.channels_last, found.vae_tiling] == [False] * 3
    assert card(32, SDXL, device="cpu", size_px=512, dtype="bfloat16").dtype == "bfloat16"
    limits = [card(64, KLEIN, free=gib, device="cpu").batch_limit for gib in (24, 28, 60)]
    assert limits == sorted(limits)
    assert limits[0] < limits[-1] == memory.BATCH["cpu"]
    assert card(1, TINY, device="cpu", size_px=64).batch_limit == memory.BATCH["cpu"]


def test_weights_stored_in_single_precision_take_half_of_it_in_half_precision():
    wide = {name: 2 * size for name, size in FLUX.items()}
    assert card(32, wide, widths=dict.fromkeys(wide, 4.0)) == card(32, FLUX)
    assert card(32, FLUX, dtype="float32").offload == "group"


def test_what_the_user_says_stands():
    found = card(80, offload="group", compile=False, tiling=True)
    assert (found.offload, found.compile, found.vae_tiling) == ("group", False, True)
    assert not card(80).vae_tiling
    assert card(80).compile
    assert card(12, compile=True).compile
    assert card(2, offload="none").offload == "none"
    assert not card(4, SDXL, gpu_dtype="float16", size_px=512, tiling=False).vae_tiling


def test_only_networks_of_convolutions_are_laid_out_for_them():
    assert card(24, SDXL).channels_last
    assert not card(24, FLUX).channels_last


def test_the_plan_is_told_in_one_line():
    assert card(24, SDXL, gpu_dtype="float16").told() == (
        "cuda:0, 22.7 GB to use: float16, all weights on the device, up to 51 images at a time"
    )
    assert "denoiser on the device in turn, 1 image at a time, prompts" in card(6).told()


# ---------------------------------------------------------------- what can't be


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": "23g"}, "memory=23g: not one of these; did you mean '"),
        ({"offload": "modle"}, "offload=modle: not one of these; did you mean 'model'?"),
        ({"quantise": "nf5"}, "did you mean 'nf4'?"),
        ({"device": "cpu", "dtype": "float16"}, "take float32 or bfloat16"),
        ({"device": "cpu", "offload": "model"}, "offload=model: weights wait in the machine's"),
        ({"device": "mps", "offload": "group"}, "and mps has no other"),
        ({"device": "cpu", "quantise": "nf4"}, "takes a CUDA device, not cpu"),
    ],
)
def test_what_no_such_device_can_do_is_told(options, said):
    assert said in refused(80, **options)


def test_quantised_layers_do_not_come_and_go(quantiser):
    assert "not with group" in refused(24, quantise="nf4", offload="group")


def test_what_does_not_fit_is_told_with_the_size_that_would():
    told = refused(4, size_px=2048)
    side = int(re.search(r"--size (\d+) would fit", told)[1])
    assert told.startswith("cuda:0: drawing 2048 px takes about ")
    assert card(4, size_px=side).offload == "group"
    refused(4, size_px=side + 64)
    assert "take a smaller model" in refused(1.5)
    assert "take a smaller model" in refused(8, device="mps")


def test_what_would_fit_if_nothing_else_ran_is_told_so():
    told = refused(24, free=3)
    assert "are free now; stop what else needs it" in told
    assert "--size" not in told


def test_a_text_encoder_that_the_machine_cannot_hold_is_told():
    assert "reading prompts takes about 19.0 GB" in refused(16, device="cpu")


# ---------------------------------------------------------------- laws

SIZES = st.fixed_dictionaries(
    {
        "text_encoder": st.integers(10**6, 4 * 10**10),
        "transformer": st.integers(10**6, 6 * 10**10),
        "vae": st.integers(10**6, 10**9),
    }
)
CARDS = st.floats(0.5, 200)


def given_up(found: Memory) -> tuple[bool, int]:
    """What a plan costs, the worse first: exact weights, then time."""
    return found.quantise != "none", EXACT.index(found.offload)


def planned(gib: float, sizes, **options) -> Memory | None:
    try:
        return card(gib, sizes, **options)
    except IsekaiError:
        return None


@given(
    sizes=SIZES,
    cards=st.tuples(CARDS, CARDS).map(sorted),
    size=st.integers(4, 32).map(lambda n: 64 * n),
    dtype=st.sampled_from(list(ITEM)),
    quantises=st.booleans(),
)
def test_more_memory_never_gives_more_up(sizes, cards, size, dtype, quantises):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "find_spec", lambda name: quantises or None)
        less, more = (planned(gib, sizes, size_px=size, dtype=dtype) for gib in cards)
    assume(less)
    assert more is not None
    assert given_up(more) <= given_up(less)
    assert more.vae_tiling <= less.vae_tiling
    assert more.compile >= less.compile
    assert (more.text_device == "cpu") <= (less.text_device == "cpu")
    if given_up(more) == given_up(less):
        assert more.batch_limit >= less.batch_limit
    assert "\n" not in more.told()


@given(sizes=SIZES, gib=CARDS, free=st.floats(0.01, 1))
def test_less_free_memory_moves_weights_and_changes_no_picture(sizes, gib, free):
    whole, shared = planned(gib, sizes), planned(gib, sizes, free=gib * free)
    assume(whole and shared)
    assert EXACT.index(shared.offload) >= EXACT.index(whole.offload)
    assert (shared.dtype, shared.quantise, shared.vae_tiling) == (
        whole.dtype,
        whole.quantise,
        whole.vae_tiling,
    )


@given(sizes=SIZES, profile=st.sampled_from(list(PROFILES)), gib=CARDS)
def test_a_profile_never_plans_with_more_than_it_says(sizes, profile, gib):
    found = planned(gib, sizes, profile=profile)
    assert found is None or found.room <= min(PROFILES[profile], gib * GIB)
