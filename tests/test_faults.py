"""Refusals are told apart by what helps against them, and quoted without what must not be told."""

import json
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.errors import IsekaiError
from model_adapters.address import Address
from model_adapters.faults import Again, Refused, agree, refusal, retry_after

HERE = Address(url="http://here/v1", key="sk-secret-key-0123456789", variable="KEY")


def test_the_three_forms_of_a_pause_are_read():
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "0.5"}) == 0.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after({"retry-after": "-3"}) == 0
    date = formatdate(time.time() + 90, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(90, abs=2)
    assert retry_after({"retry-after": formatdate(0, usegmt=True)}) == 0


@pytest.mark.parametrize("value", ["soon", "", "nan", "inf", "Mon, 99 Foo 2026", "1e999", "+ 3"])
def test_a_pause_that_makes_no_sense_is_none(value):
    assert retry_after({"retry-after": value}) is None
    assert retry_after({}) is None


@given(st.text(max_size=30))
def test_whatever_a_header_holds_the_pause_is_a_time_or_none(value):
    seconds = retry_after({"retry-after": value})
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4o", "GPT-4o"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
        ("gpt-4-0613", "gpt-4"),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B-Instruct"),
        ("llava", "llava:latest"),
        ("llava:latest", "llava"),
        ("gemma.gguf", "/models/gemma.gguf"),
        ("openai/gpt-4o", "openai/gpt-4o-2024-11-20"),
    ],
)
def test_names_of_one_model_agree(asked, told):
    assert agree(asked, told)
    assert agree(told, asked)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("gpt-4o", "gpt-4o-mini"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"),
        ("llava:7b", "llava:13b"),
        ("llava:7b", "llava"),
        ("meta/llama", "qwen/llama"),
        ("Qwen2.5-VL-7B", "Qwen2.5-VL-72B"),
        ("tiny", "tiny-1"),
        ("a+b", "aab"),
    ],
)
def test_names_of_two_models_do_not(asked, told):
    assert not agree(asked, told)
    assert not agree(told, asked)


@given(st.text(min_size=1, max_size=20))
def test_every_name_agrees_with_itself_and_its_snapshot(name):
    assert agree(name, name)
    if not name.casefold().endswith(("-latest", ":latest")):
        assert agree(name, name + "-2026-11-24")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": {"message": "At most 2 images"}}', ": At most 2 images"),
        ('{"object": "error", "message": "At most 2 images", "code": 400}', ": At most 2 images"),
        ('{"type": "error", "error": {"type": "x", "message": "At most 2"}}', ": At most 2"),
        ('{"error": "no such thing"}', ": no such thing"),
        ('{"detail": [{"msg": "field required"}]}', ': [{"msg": "field required"}]'),
        ('"just words"', ": just words"),
        ("plain words", ": plain words"),
        ("<html><body>Bad gateway</body></html>", ""),
        ("", ""),
        ("[1, 2]", ": [1, 2]"),
        ("[" * 100_000, ": " + "[" * 297 + "..."),
    ],
)
def test_the_servers_own_words_are_found_in_every_dialect(body, said):
    fault = refusal(HERE, 400, {}, body)
    assert isinstance(fault, Refused)
    assert str(fault) == f"HTTP 400{said}"


def test_statuses_are_told_apart_by_what_helps():
    kinds = {status: type(refusal(HERE, status, {}, "")) for status in range(400, 600)}
    assert {s for s, kind in kinds.items() if kind is IsekaiError} == {401, 402, 403, 404, 407}
    passing = {s for s, kind in kinds.items() if kind is Again}
    assert passing == {408, 409, 425, 429, *range(500, 600)}
    overload = {s for s in passing if refusal(HERE, s, {}, "").overload}
    assert overload == {429, 503, 529}
    assert refusal(HERE, 429, {"retry-after": "3"}, "").after == 3


@pytest.mark.parametrize("status", [400, 403, 422, 429])
def test_what_moderation_turns_down_is_the_fault_of_one_request(status):
    for code in ("moderation_blocked", "content_policy_violation", "contentFilter"):
        fault = refusal(HERE, status, {}, json.dumps({"error": {"message": "No.", "code": code}}))
        assert isinstance(fault, Refused)
        assert fault.policy
    assert not refusal(HERE, 400, {}, json.dumps({"error": {"message": "No."}})).policy


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("model_not_found", "HTTP 400: No.; check the model's name and -o base_url"),
        ("billing_hard_limit_reached", "HTTP 400: No.; add credit and run the same command again"),
        ("insufficient_quota", "HTTP 400: No.; add credit and run the same command again"),
    ],
)
def test_codes_say_what_every_request_would_meet_whatever_the_status(code, told):
    fault = refusal(HERE, 400, {}, json.dumps({"error": {"message": "No.", "code": code}}))
    assert isinstance(fault, IsekaiError)
    assert str(fault) == f"http://here/v1: {told}"


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_quoted_words_hold_the_key_a_line_end_or_a_control_code(before, after):
    words = HERE.quote(f"{before}{HERE.key}{after} {HERE.key[:10]}****6789")
    assert HERE.key[:6] not in words
    assert words.isprintable()
    assert len(words) <= 300


def test_what_is_quoted_stays_readable():
    fault = refusal(HERE, 422, {}, json.dumps({"message": "too\n  many \x1b[31mimages"}))
    assert str(fault) == "HTTP 422: too many [31mimages"
    assert HERE.key not in repr(HERE)
