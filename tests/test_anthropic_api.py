"""What is sent to Anthropic, what is kept in its cache, and what its answers come to."""

import base64
from dataclasses import replace

import pytest

from isekai import plugins
from isekai.errors import PluginError
from isekai.types import Response
from model_adapters.anthropic_api import Anthropic
from tests.loopback import serve
from tests.sweeps import LABELS, sweep

ONE = sweep(cuts=(2,), queries=1)


def sent(asked=ONE, **options) -> dict[str, object]:
    """The body of the last request."""
    with serve() as server:
        adapter = Anthropic("tiny", base_url=server.root, cache=False, **options)
        said = list(adapter.respond(asked))
        adapter.close()
        assert [response.error for response in said] == [None] * len(said)
        return server.asked[-1].body


def test_a_chat_alternates_between_pictures_with_questions_and_answers():
    body = sent(replace(ONE, instruction="Look.", query_instruction="Now: "))
    assert body["system"] == "Look."
    assert body["max_tokens"] == 64
    assert body["temperature"] == 0
    assert [message["role"] for message in body["messages"]] == ["user", "assistant"] * 2 + ["user"]
    question = {"type": "text", "text": "What is this called?"}
    image, words = body["messages"][0]["content"]
    assert words == question
    assert image["source"]["type"] == "base64"
    assert image["source"]["media_type"] == "image/png"
    assert base64.b64decode(image["source"]["data"]) == ONE.support[0].image.data
    assert body["messages"][1]["content"] == "This is called dovrik."
    assert body["messages"][4]["content"][0] == {"type": "text", "text": "Now: "}


def test_all_may_stand_in_one_message():
    body = sent(style="single")
    assert [message["role"] for message in body["messages"]] == ["user"]
    kinds = [block["type"] for block in body["messages"][0]["content"]]
    assert kinds == ["image", "text", "text"] * 2 + ["image", "text"]


@pytest.mark.parametrize("style", ["turns", "single"])
def test_the_ends_of_the_last_four_cuts_are_marked_for_its_cache(style):
    asked = sweep(cuts=(0, 1, 2, 3, 4, 6), queries=1)
    marked = [block["text"] for block in _marked(sent(asked, style=style))]
    assert marked == [turn.answer for turn in (asked.support[i - 1] for i in (2, 3, 4, 6))]
    assert _marked(sent(sweep(cuts=(0,), queries=1), style=style)) == []


def _marked(body) -> list[dict[str, object]]:
    found = []
    for message in body["messages"]:
        content = message["content"]
        found += [b for b in content if isinstance(b, dict) and "cache_control" in b]
    assert all(block["cache_control"] == {"type": "ephemeral"} for block in found)
    return found


def test_the_labels_can_be_made_the_only_answers():
    body = sent(choice="json")
    assert body["output_config"]["format"]["schema"]["properties"]["answer"]["enum"] == list(LABELS)
    with pytest.raises(PluginError, match="choice='vllm'"):
        plugins.build("adapters", "anthropic:tiny", {"choice": "vllm"})


def reply(body: dict[str, object], **options) -> Response:
    with serve() as server:
        server.reply = lambda request, fault: body
        adapter = Anthropic("tiny", base_url=server.root, cache=False, retries=0, **options)
        [response] = adapter.respond(ONE)
        adapter.close()
        return response


def message(*content, reason: str | None = "end_turn", **more) -> dict[str, object]:
    return {"type": "message", "content": list(content), "stop_reason": reason, **more}


def text(words: str) -> dict[str, object]:
    return {"type": "text", "text": words}


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "x"}


@pytest.mark.parametrize(
    ("body", "said", "finish", "error"),
    [
        (message(text("dov"), text("rik")), "dovrik", "end_turn", None),
        (message(THOUGHT, text("dovrik")), "dovrik", "end_turn", None),
        (message(text("dov"), reason="max_tokens"), "dov", "length", None),
        (message(text("dov"), reason="model_context_window_exceeded"), "dov", "length", None),
        (message(text("I can't."), reason="refusal"), "I can't.", "refusal", None),
        (message(reason="refusal"), "", "refusal", "no text: the model refused"),
        (message(THOUGHT, reason="max_tokens"), "", "length", "no text but reasoning before max_t"),
        (message(THOUGHT), "", "end_turn", "no text but reasoning, which ended with 'end_turn'"),
        (message(), "", "end_turn", "no text; it ended with 'end_turn'"),
        ({"content": "dovrik"}, "", None, "the answer: content is 'dovrik'"),
        ({"type": "message"}, "", None, "the answer: content is missing"),
    ],
)
def test_answers_come_to_text_or_to_a_reason(body, said, finish, error):
    response = reply(body)
    assert (response.text, response.finish) == (said, finish)
    assert (response.error or "").startswith(error or "")
    assert (response.error is None) == (error is None)


def test_what_is_read_from_and_written_to_its_cache_counts_and_costs():
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 50,
        "output_tokens": 4,
    }
    response = reply(message(text("dovrik"), usage=usage), price_in=3, price_out=15)
    cost = (10 * 3 + 100 * 0.3 + 50 * 3.75 + 4 * 15) / 1e6
    assert response.usage == {
        "prompt_tokens": 160,
        "cached_tokens": 100,
        "completion_tokens": 4,
        "cost": pytest.approx(cost),
    }


def test_a_dated_snapshot_answers_for_its_alias():
    said = message(text("dovrik"), model="claude-sonnet-4-5-20250929")
    assert reply(said, served_as="claude-sonnet-4-5").text == "dovrik"


def test_its_key_and_address_come_from_its_own_variables(monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(PluginError, match=r"needs a key: put it into \$ANTHROPIC_API_KEY"):
        Anthropic("claude")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://localhost:9")
    assert Anthropic("claude").provenance["base_url"] == "http://localhost:9"
