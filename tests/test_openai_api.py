"""What is sent to OpenAI-compatible servers, and what their answers come to."""

import base64
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from isekai import plugins, templates
from isekai.errors import IsekaiError, PluginError
from isekai.scoring import read_answer
from isekai.types import EncodedImage, Episode, Example, Response
from model_adapters.openai_api import OpenAI
from tests.loopback import Fault, knowing, serve
from tests.sweeps import LABELS, plain, sweep, truth

ONE = sweep(cuts=(2,), queries=1)


def sent(asked=ONE, **options) -> dict[str, object]:
    """The body of the last request."""
    with serve() as server:
        adapter = OpenAI("tiny", base_url=server.url, cache=False, **options)
        said = list(adapter.respond(asked))
        adapter.close()
        assert [response.error for response in said] == [None] * len(said)
        return server.asked[-1].body


def shape(body) -> list[object]:
    """Messages with `#side` in the place of each picture, and nothing but words."""
    told = []
    for message in body["messages"]:
        content = message["content"]
        if not isinstance(content, str):
            content = [
                f"#{side(block['image_url'])}" if block["type"] == "image_url" else block["text"]
                for block in content
            ]
        told.append((message["role"], content))
    return told


def side(image_url) -> int:
    head, _, data = image_url["url"].partition(",")
    picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert head == f"data:image/{picture.format.lower()};base64"
    return picture.width


# ---------------------------------------------------------------- what is sent


def test_support_answers_are_turns_of_the_assistant():
    asked = replace(ONE, instruction="Look.", query_instruction="Now: ")
    assert shape(sent(asked)) == [
        ("system", "Look."),
        ("user", ["#8", "What is this called?"]),
        ("assistant", "This is called dovrik."),
        ("user", ["#9", "What is this called?"]),
        ("assistant", "This is called tulmab."),
        ("user", ["Now: ", "#100", "What is this called?"]),
    ]


def test_or_all_stands_interleaved_in_one_message():
    asked = replace(ONE, instruction="Look.", query_instruction="Now: ")
    question = "What is this called?"
    blocks = ["#8", question, "This is called dovrik.", "#9", question, "This is called tulmab."]
    assert shape(sent(asked, style="single")) == [
        ("system", "Look."),
        ("user", [*blocks, "Now: ", "#100", question]),
    ]


def test_a_picture_stands_where_its_question_wants_it_and_its_absence_leaves_the_text():
    support = (
        replace(ONE.support[0], question="See <image> here"),
        replace(ONE.support[1], question="See <image> here", image=None),
    )
    query = replace(ONE.queries[0], question="And what is <image>?")
    asked = replace(ONE, support=support, queries=(query,), query_instruction="[FINAL]: ")
    assert [content for role, content in shape(sent(asked)) if role == "user"] == [
        ["See ", "#8", " here"],
        ["See  here"],
        ["[FINAL]: And what is ", "#100", "?"],
    ]


@pytest.mark.parametrize("style", ["turns", "single"])
@pytest.mark.parametrize("name", templates.names())
def test_every_template_is_put_into_words_that_a_server_can_bind(name, style):
    images = {f"{which}-{side}": plain(which, side) for which in (0, 1) for side in range(8, 16)}
    shown = [Example(image_id=name, concept=f"group/{name[0]}") for name in images]
    episode = Episode(
        id="e",
        task="twin",
        cluster="group",
        labels={"group/0": LABELS[0], "group/1": LABELS[1]},
        support=(*shown[:3], *shown[8:11]),
        shots=(3,),
        queries=(shown[7], shown[15]),
        seed=0,
    )
    asked = templates.fold(episode, templates.read(name), images.__getitem__)
    with serve() as server:
        adapter = OpenAI("tiny", base_url=server.url, cache=False, style=style)
        said = list(adapter.respond(asked))
        adapter.close()
    assert [read_answer(response.text, asked.labels) for response in said] == list(LABELS)
    assert all(len(request.images) == 7 for request in server.asked)


def test_settings_are_sent_under_the_names_that_servers_know():
    body = sent(max_tokens=7, temperature=0.5, seed=3, detail="low", extra={"top_p": 0.9})
    assert body["model"] == "tiny"
    assert body["max_tokens"] == 7
    assert body["temperature"] == 0.5
    assert body["seed"] == 3
    assert body["top_p"] == 0.9
    assert body["messages"][0]["content"][0]["image_url"]["detail"] == "low"
    plainest = sent(temperature="none")
    assert sorted(plainest) == ["max_tokens", "messages", "model"]


def test_openai_itself_gets_the_new_name_of_max_tokens(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    told = {
        url: OpenAI("m", base_url=url).provenance["limit"]
        for url in ("", "https://eu.api.openai.com/v1", "https://openrouter.ai/api/v1")
    }
    assert list(told.values()) == ["max_completion_tokens"] * 2 + ["max_tokens"]


@pytest.mark.parametrize(
    ("choice", "field", "text"),
    [
        ("json", "response_format", '{"answer": "dovrik"}'),
        ("vllm", "structured_outputs", "dovrik"),
        ("grammar", "grammar", "dovrik"),
    ],
)
def test_a_server_can_be_held_to_the_labels(choice, field, text):
    with serve() as server:
        adapter = OpenAI("tiny", base_url=server.url, cache=False, choice=choice)
        [response] = adapter.respond(ONE)
        adapter.close()
        assert field in server.asked[0].body
    assert response.text == text
    assert read_answer(response.text, LABELS) == "dovrik"


def test_grammar_and_schema_take_words_with_quotes():
    labels = ('say "dov"', "back\\slash")
    body = sent(replace(ONE, labels=labels), choice="grammar")
    assert body["grammar"] == r'root ::= "say \"dov\"" | "back\\slash"'
    body = sent(replace(ONE, labels=labels), choice="json")
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["answer"]["enum"] == list(labels)


def test_pictures_are_sent_as_they_are_or_as_png_or_smaller():
    data = {}
    for format in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.new("RGB", (60, 30), (226, 88, 60)).save(buffer, format)
        data[format] = buffer.getvalue()
    turns = tuple(
        replace(ONE.support[0], image=EncodedImage(id=format, data=data[format])) for format in data
    )
    asked = replace(ONE, support=turns, cuts=(len(turns),))
    images = [base64.b64decode(url.partition(",")[2]) for url in urls(sent(asked))]
    assert images[:4] == [data[format] for format in ("PNG", "JPEG", "WEBP", "GIF")]
    assert [Image.open(io.BytesIO(image)).format for image in images[4:6]] == ["PNG", "PNG"]
    small = [base64.b64decode(url.partition(",")[2]) for url in urls(sent(asked, max_side=40))]
    assert [Image.open(io.BytesIO(image)).size for image in small[:6]] == [(40, 20)] * 6
    same = [base64.b64decode(url.partition(",")[2]) for url in urls(sent(asked, max_side=60))]
    assert same[:4] == images[:4]


def urls(body) -> list[str]:
    return [
        block["image_url"]["url"]
        for message in body["messages"]
        for block in message["content"]
        if isinstance(block, dict) and block["type"] == "image_url"
    ]


# ---------------------------------------------------------------- what comes back


def reply(body: dict[str, object]) -> Response:
    """What an answer with this JSON comes to."""
    with serve() as server:
        server.reply = lambda request, fault: body
        adapter = OpenAI("tiny", base_url=server.url, cache=False, retries=0)
        [response] = adapter.respond(ONE)
        adapter.close()
    return response


def choice(finish: str | None = "stop", **message) -> dict[str, object]:
    return {"choices": [{"message": message, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("body", "text", "finish"),
    [
        (choice(content="dovrik"), "dovrik", "stop"),
        (choice(content="dovrik", finish="content_filter"), "dovrik", "content_filter"),
        (choice(content="dov", finish="length"), "dov", "length"),
        (choice(content="dovrik", finish=None), "dovrik", None),
        (choice(content=[{"type": "text", "text": "dov"}, {"text": "rik"}]), "dovrik", "stop"),
        (choice(content=None, refusal="I won't."), "I won't.", "stop"),
        (choice(content="", refusal="I won't."), "I won't.", "stop"),
        ({**choice(content="dovrik"), "usage": None, "model": None, "more": 1}, "dovrik", "stop"),
        (
            {**choice(content="dovrik"), "usage": {}, "model": "tiny-2026-01-01"},
            "dovrik",
            "stop",
        ),
    ],
)
def test_what_is_said_is_the_text(body, text, finish):
    response = reply(body)
    assert (response.text, response.finish, response.error) == (text, finish, None)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (choice(content=""), "no text; it ended with 'stop'; run the same command to ask again"),
        (choice(content=" \n"), "no text; it ended with 'stop'; run the same command to ask again"),
        (choice(content=None, reasoning_content="Hm."), "no text but reasoning, which ended with"),
        (choice(content=None, reasoning="Hm."), "switch it off with -o extra="),
        (choice(content="", finish="\x1b[31m\n" * 99), "no text; it ended with '\\x1b[31m\\n"),
        (choice(content=None, finish="length"), "no text before max_tokens was reached; raise -o"),
        (choice(content="", finish="content_filter"), "the server's content filter kept it back"),
        ({"choices": []}, "the answer has no choices"),
        ({"choices": None}, "the answer: choices is None"),
        ({}, "the answer: choices is missing"),
        ([1], "the answer: this is [1]"),
        ({"choices": [{"message": None}]}, "choices[0].message is None"),
        ({**choice(content="dovrik"), "usage": {"prompt_tokens": -1}}, "usage.prompt_tokens is -1"),
        (
            {**choice(content="dovrik"), "usage": {"prompt_tokens": float("nan")}},
            "usage.prompt_tok",
        ),
        ({"error": "the model is not loaded"}, "HTTP 502: the model is not loaded"),
    ],
)
def test_what_says_nothing_is_a_failure_with_its_reason(body, error):
    response = reply(body)
    assert response.text.strip() == ""
    assert error in response.error
    assert "\n" not in response.error


def test_tokens_of_the_servers_prefix_cache_are_told():
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 80},
    }
    told = {"prompt_tokens": 100, "cached_tokens": 80, "completion_tokens": 2}
    assert reply({**choice(content="dovrik"), "usage": usage}).usage == told


def test_an_empty_account_stops_the_run():
    fault = Fault(kind="429", code="insufficient_quota", message="You ran out.")
    with serve([fault]) as server:
        adapter = OpenAI("tiny", base_url=server.url, cache=False)
        with pytest.raises(IsekaiError, match=r"HTTP 429: You ran out\.; add credit"):
            list(adapter.respond(ONE))
        adapter.close()


# ---------------------------------------------------------------- options


def test_provenance_holds_what_answers_depend_on_and_nothing_else(monkeypatch):
    given = {"model": "tiny", "base_url": "http://localhost:8000/v1/", "seed": 1}
    first = plugins.build("adapters", "openai", given).provenance
    assert first["base_url"] == "http://localhost:8000/v1"
    harmless = {"concurrency": 3, "timeout": 9, "rpm": 5, "price_in": 1, "price_out": 1}
    assert plugins.build("adapters", "openai", given | harmless).provenance == first
    for change in ({"seed": 2}, {"style": "single"}, {"extra": {"top_p": 1}}, {"choice": "json"}):
        assert plugins.build("adapters", "openai", given | change).provenance != first


def test_options_come_as_they_are_written_on_a_command_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path))
    words = ["base_url=http://localhost/v1", "temperature=none", "cache=false", "max_cost=1.5"]
    words += ["price_in=1", "price_out=2.5", "extra={chat_template_kwargs = {thinking = false}}"]
    adapter = plugins.build("adapters", "openai:org/name", plugins.options(words))
    assert adapter.provenance["model"] == "org/name"
    assert adapter.provenance["extra"] == {"chat_template_kwargs": {"thinking": False}}
    assert adapter._cache is None
    adapter = plugins.build("adapters", "openai:m", plugins.options([*words[:1], "cache=there"]))
    assert adapter._cache.file == Path("there/requests.sqlite")
    adapter = plugins.build("adapters", "openai:m", plugins.options(words[:1]))
    assert adapter._cache.file == tmp_path / "requests.sqlite"


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"concurrency": 0}, "concurrency=0: Input should be greater than or equal to 1"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": float("inf")}, "timeout=inf: Input should be a finite number"),
        ({"retries": -1}, "retries=-1"),
        ({"temperature": -1}, "temperature=-1"),
        ({"price_in": -1, "price_out": 1}, "price_in=-1"),
        ({"choice": "some"}, "choice='some'"),
        ({"base_url": "localhost:8000"}, "it takes http:// or https://"),
        ({"base_url": "http://"}, "it takes http:// or https:// and a host"),
        ({"base_url": "https://me:pass@host.com/v1"}, "for host.com holds more than an address"),
        ({"base_url": "https://host.com/v1?key=abc"}, "for host.com holds more than an address"),
        ({"base_url": "https://host.com/v1"}, r"needs a key: put it into \$OPENAI_API_KEY"),
        ({"extra": {"messages": []}}, "extra can't set 'messages'"),
        ({"tempreature": 1}, "no option 'tempreature'; did you mean 'temperature'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(option, told, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    given = {"model": "tiny", "base_url": "http://localhost:8000/v1", **option}
    with pytest.raises(PluginError, match=told) as caught:
        plugins.build("adapters", "openai", given)
    assert "pass@" not in str(caught.value)
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://localhost:8000/v1", ""),
        ("http://127.0.0.1/v1", ""),
        ("http://[::1]:8000/v1", ""),
        ("http://192.168.1.7/v1", ""),
        ("http://vllm:8000/v1", ""),
        ("https://8.8.8.8/v1", "OPENAI_API_KEY"),
        ("https://openrouter.ai/api/v1", "OPENAI_API_KEY"),
        ("", "OPENAI_API_KEY"),
    ],
)
def test_the_usual_key_goes_to_hosts_of_the_open_net_alone(url, named, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert OpenAI("m", base_url=url)._address.variable == named


def test_the_usual_address_is_the_one_of_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:9/v1")
    assert OpenAI("m").provenance["base_url"] == "http://localhost:9/v1"


def test_a_server_that_knows_what_pictures_show_binds_what_it_is_told():
    asked = sweep(cuts=(0, 2), queries=2)
    shown = {turn.image.id: str(n % 2) for n, turn in enumerate((*asked.support, *asked.queries))}
    swapped = tuple(
        replace(turn, answer=other.answer)
        for turn, other in zip(asked.support, asked.support[::-1], strict=True)
    )
    with serve(answer=knowing(shown)) as server:
        adapter = OpenAI("tiny", base_url=server.url, cache=False)
        assert [response.text for response in adapter.respond(asked)] == truth(asked)
        told = [r.text for r in adapter.respond(replace(asked, support=swapped))]
        adapter.close()
    assert told == truth(asked)[:2] + truth(asked)[2:][::-1]


def test_the_loopback_server_can_be_started_by_hand():
    command = [sys.executable, "-m", "tests.loopback", "--model", "hand"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            url = process.stdout.readline().split()[1]
            adapter = OpenAI("hand", base_url=url, cache=False)
            assert [response.text for response in adapter.respond(ONE)] == truth(ONE)
            adapter.close()
        finally:
            process.terminate()
