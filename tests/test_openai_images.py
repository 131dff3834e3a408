"""Pictures from image endpoints: what is sent, what comes, what it costs, what is never lost."""

import asyncio
import gc
import json
import logging
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isekai import generate, plugins, spec, verify
from isekai.errors import DataError, IsekaiError, PluginError
from isekai.files import read_jsonl
from isekai.images import decode
from isekai.protocols import (
    Accelerated,
    Closing,
    Estimating,
    ImageSource,
    Picture,
    Rejected,
    Suggesting,
    Synthetic,
)
from isekai.types import Concept, ImageRecord, ImageRequest
from model_adapters import drawings, exchange, openai_images, remote
from model_adapters.address import Address
from model_adapters.faults import Refused
from tests.loopback import MODERATED, Fault, Loopback, drawn, retry_after, serve

KEY = "sk-aLongSecretKeyOfMine0123456789"
QUICK = 0.3
"""Seconds: the time-out where a time-out is awaited."""


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.05)


@pytest.fixture
def draws():
    """Builds the source for a server; it is closed at the end."""
    built = []

    def build(server: Loopback, model: str = "tiny", **options):
        options = {"base_url": server.url, **options}
        built.append(plugins.build("sources", f"openai:{model}", options))
        return built[-1]

    yield build
    for source in built:
        source.close()


def request(index: int = 0, prompt: str = "a thing", size: int = 32) -> ImageRequest:
    one = Concept(id="g/one", name="one", role="foil", definition="x", negative_prompt="blur")
    seed = spec.seed(one.id, index, 0)
    return ImageRequest(concept=one, index=index, size=size, seed=seed, prompt=prompt)


def requests(count: int, **more) -> list[ImageRequest]:
    return [request(index, **more) for index in range(count)]


def expected(asked: ImageRequest) -> bytes:
    """The pixels that the server draws for a request that is sent with its seed."""
    return decode(drawn(asked.prompt, asked.seed >> 32, asked.size)).tobytes()


def came(source, asked) -> list[bytes | Rejected]:
    return [
        outcome.image.tobytes() if isinstance(outcome, Picture) else outcome
        for outcome in source.draw(asked)
    ]


# ---------------------------------------------------------------- what it is


def test_it_offers_what_generate_looks_for(draws):
    with serve() as server:
        source = draws(server, concurrency=3)
        for seam in (ImageSource, Accelerated, Suggesting, Estimating, Closing, Synthetic):
            assert isinstance(source, seam)
        assert source.devices == (server.url.split("/")[2],)
        assert source.on(source.devices[0]) is source
        assert source.chunk >= 3
        assert (source.size, source.gates, source.processes) == (1024, ("flat", "duplicate"), False)
        assert (source.model, source.revision) == ("tiny", "unknown")
        assert source.arrange(requests(3)) == requests(3)
        assert source.prepare(requests(3)) is None
        assert server.asked == []


def test_with_seeds_a_picture_depends_on_its_request_alone(draws, monkeypatch):
    asked = requests(5)
    monkeypatch.setenv("MY_KEY", KEY)
    with serve(key=KEY) as server:
        source = draws(server, api_key_env="MY_KEY")
        whole = came(source, asked)
        assert whole == [expected(one) for one in asked]
        assert came(source, asked[::-1]) == whole[::-1]
        assert came(source, []) == []
        packed = pickle.dumps(source)
        assert KEY.encode() not in packed
        with closing(pickle.loads(packed)) as copy:
            assert copy.settings == source.settings
            assert came(copy, asked) == whole


def test_settings_hold_what_pictures_depend_on_and_nothing_else(monkeypatch):
    given = {"base_url": "http://localhost:8000/v1/"}

    def told(**options):
        source = plugins.build("sources", "openai:org/tiny", given | options)
        return json.dumps([source.model, source.revision, dict(source.settings)])

    first = told()
    assert json.loads(first)[:2] == ["org/tiny", "unknown"]
    for harmless in ({"concurrency": 9}, {"timeout": 9}, {"price": 1}, {"response_format": "url"}):
        assert told(**harmless) == first
    changes = [{"seed": False}, {"negative": False}, {"size_as": "1K"}, {"resize": True}]
    changes += [{"extra": {"quality": "low"}}, {"revision": "v2"}]
    assert len({told(**change) for change in changes} | {first}) == 7
    assert "none: nothing can be drawn again" in told(seed=False)
    monkeypatch.setenv("MY_KEY", KEY)
    assert told(api_key_env="MY_KEY") == first


# ---------------------------------------------------------------- what is sent


def sent(model: str = "tiny", asked: ImageRequest | None = None, **options) -> dict[str, object]:
    with serve() as server:
        source = plugins.build("sources", f"openai:{model}", {"base_url": server.url, **options})
        with closing(source):
            [outcome] = source.draw([asked or request()])
        assert isinstance(outcome, Picture) or options.get("size_as")
        return server.asked[0].body


PLAIN = {"model": "tiny", "prompt": "a thing", "n": 1, "size": "32x32"}


def test_a_request_says_what_servers_of_ones_own_understand():
    assert sent() == PLAIN | {
        "response_format": "b64_json",
        "seed": request().seed >> 32,
        "negative_prompt": "blur",
    }
    assert 0 <= sent()["seed"] < 2**31
    narrow = {"seed": False, "negative": False, "response_format": "none"}
    assert sent(**narrow) == PLAIN
    assert sent(**narrow, extra={"quality": "low"}) == PLAIN | {"quality": "low"}
    assert sent(**narrow, size_as="{size}*{size}")["size"] == "32*32"
    assert "size" not in sent(**narrow, size_as="none")
    assert sent(asked=request(1))["seed"] != sent(asked=request(2))["seed"]


def test_openais_own_models_get_no_field_that_they_refuse(monkeypatch):
    assert sent("gpt-image-2") == PLAIN | {"model": "gpt-image-2"}
    assert sent("gpt-image-2", seed=True)["seed"] == request().seed >> 32
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    hosted = plugins.build("sources", "openai:another-model", {})
    assert json.loads(hosted._order.body(request())) == PLAIN | {"model": "another-model"}
    assert hosted.devices == ("api.openai.com",)
    assert hosted.settings["seeds"] == "none: nothing can be drawn again"


def test_without_seeds_pictures_are_others_each_time_and_the_settings_say_so(draws):
    with serve() as server:
        source = draws(server, seed=False)
        assert came(source, requests(2)) != came(source, requests(2))
        assert source.settings["seeds"].startswith("none")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"concurrency": 0}, "concurrency=0"),
        ({"timeout": 0}, "timeout=0"),
        ({"price": -1}, "price=-1"),
        ({"max_cost": 1}, "max_cost needs a price: give price, US dollars a picture"),
        ({"price_in": 1}, "price_in and price_out go together"),
        ({"response_format": "png"}, "response_format='png'"),
        ({"extra": {"seed": 1}}, "extra can't set 'seed': that is the source's"),
        ({"base_url": "localhost"}, "it takes http:// or https://"),
        ({"base_url": "http://localhost:99999/v1"}, "base_url is no address: Port out of range"),
        ({"base_url": "http://localhost:port/v1"}, "base_url is no address: Port could not be"),
        ({"base_url": "http://[::1/v1"}, "base_url is no address: Invalid IPv6 URL"),
        ({"api_key_env": "NO_SUCH_KEY"}, r"put it into \$NO_SUCH_KEY"),
        ({"sizeas": "1K"}, "no option 'sizeas'; did you mean 'size_as'"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(option, told):
    with pytest.raises(PluginError, match=told):
        plugins.build("sources", "openai:m", {"base_url": "http://localhost:1/v1", **option})


# ---------------------------------------------------------------- what comes


def test_what_is_known_of_a_picture_goes_with_it(draws, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with serve() as server:
        server.drawings.counts = True
        server.drawings.revised = f"a thing,\x1b[31m as {KEY}\nsaid"
        source = draws(server, api_key_env="MY_KEY", price_in=5, price_out=40, price=0.01)
        [picture] = source.draw([request()])
        assert picture.made == {
            "device": source.devices[0],
            "openai": openai_images.openai.__version__,
            "revised_prompt": "a thing, [31m as [key] said",
            "prompt_tokens": 2,
            "completion_tokens": 32 * 32,
            "cost": pytest.approx((2 * 5 + 32 * 32 * 40) / 1e6 + 0.01),
        }
        json.dumps(picture.made)
        assert source.status() == "$0.05, 0 in flight"
        server.drawings.revised, server.drawings.counts = "a thing", False
        [picture] = draws(server).draw([request()])
        assert set(picture.made) == {"device", "openai"}


def test_a_picture_of_another_size_is_turned_down_or_scaled(draws):
    with serve() as server:
        source = draws(server)
        assert came(source, [request()]) == [expected(request())]
        server.drawings.side = 48
        [rejected] = source.draw([request()])
        assert rejected.reason.startswith("the picture is 48x48, asked for 32x32; give a --size")
        assert not rejected.again
        [picture] = draws(server, resize=True).draw([request()])
        assert picture.image.size == (32, 32)
        assert picture.made["drawn_size"] == "48x48"


def test_sizes_that_are_all_wrong_stop_the_run_before_it_gets_dear(draws):
    with serve() as server:
        server.drawings.side = 48
        source = draws(server, concurrency=2)
        with pytest.raises(IsekaiError, match=r"4 images in a row .* is 48x48, asked for 32x32"):
            list(source.draw(requests(60)))
        assert len(server.asked) <= source.chunk + openai_images.DOUBTS


@pytest.mark.parametrize(
    ("fault", "reason", "again"),
    [
        (MODERATED, "turned down by the server's policy: HTTP 400: The safety system says", False),
        (
            Fault(kind="403", code="content_policy_violation"),
            "turned down by the server's policy: HTTP 403",
            False,
        ),
        (
            Fault(kind="400", message="the prompt is\ntoo long"),
            "HTTP 400: the prompt is too",
            False,
        ),
        ("empty", "no picture came: the server kept it back or drew none", False),
        ("no picture", "no picture came: the server kept it back or drew none", False),
        ("damaged", "the picture can't be read: damaged", True),
    ],
)
def test_what_is_the_fault_of_an_image_is_told_in_its_place_alone(draws, fault, reason, again):
    with serve([None, fault]) as server:
        outcomes = came(draws(server, concurrency=1), requests(3))
        assert len(server.asked) == 3
    assert [outcomes[0], outcomes[2]] == [expected(request(0)), expected(request(2))]
    assert outcomes[1].reason.startswith(reason)
    assert outcomes[1].again is again
    assert "\n" not in outcomes[1].reason


def test_moderation_alone_never_stops_a_run(draws):
    with serve() as server:
        server.drawings.faults["bad"] = MODERATED
        asked = [*requests(9, prompt="a bad thing"), *requests(2)]
        outcomes = came(draws(server), asked)
        assert len(server.asked) == 11
    assert all(isinstance(outcome, Rejected) for outcome in outcomes[:9])
    assert outcomes[9:] == [expected(one) for one in requests(2)]


def test_what_fails_first_is_held_back_until_it_is_clear_what_it_means(draws):
    with serve() as server:
        server.drawings.faults["long"] = Fault(kind="400", message="too long")
        asked = [request(0, "a long thing"), request(1), request(2, "a long thing")]
        outcomes = came(draws(server), asked)
        assert [isinstance(outcome, Rejected) for outcome in outcomes] == [True, False, True]
        [alone] = came(draws(server), asked[:1])
        assert alone == Rejected("HTTP 400: too long")
        source, given = draws(server), []
        with pytest.raises(
            IsekaiError, match=r"4 images in a row .* HTTP 400: too long; mend that"
        ):
            given.extend(source.draw(requests(9, prompt="a long thing")))
        assert given == []
        with pytest.raises(IsekaiError, match="5 images in a row"):
            list(source.draw(asked[:1]))


def test_what_fails_without_end_later_stops_the_run_as_well(draws, monkeypatch):
    monkeypatch.setattr(remote, "HOPELESS", 6)
    with serve([None]) as server:
        server.always = "400"
        with pytest.raises(IsekaiError, match="6 images in a row could not be drawn"):
            list(draws(server, concurrency=1).draw(requests(60)))


# ---------------------------------------------------------------- a picture at an address


@pytest.mark.parametrize(
    "at",
    ["{root}/pictures/{name}?sig=SECRET", "/pictures/{name}", "pictures/{name}", "//{root}/{name}"],
)
def test_a_picture_is_fetched_from_where_it_is_without_a_key(draws, at, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with serve(key=KEY) as server:
        server.drawings.at = at.replace("//{root}", server.root.removeprefix("http:"))
        assert came(draws(server, api_key_env="MY_KEY"), [request()]) == [expected(request())]
        [(_, headers)] = server.drawings.fetched
        assert headers["host"] == server.root.removeprefix("http://")
        assert KEY not in str(headers)
        assert headers.keys() <= {"host", "accept-encoding", "connection"}


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("file:///etc/passwd", "it is at a 'file' address; expected http"),
        ("data:image/png;base64,AAAA", "it is at a 'data' address; expected http"),
        ("ftp://127.0.0.1/x.png", "it is at a 'ftp' address; expected http"),
        ("http:", "127.0.0.1: HTTP 404"),
        ("https:///", "what is named is no address"),
        ("http://[::1", "what is named is no address"),
        ("http://127.0.0.1:99999/SECRET", "what is named is no address"),
        ("http://a\nb/SECRET", "what is named is no address"),
        ("http://nobody.invalid/SECRET", "nobody.invalid: no such host"),
        ("http://127.0.0.1:1/SECRET", "127.0.0.1: no connection: "),
        ("{root}/pictures/SECRET.png", "127.0.0.1: HTTP 404"),
    ],
)
def test_what_cannot_be_fetched_fails_its_image_and_tells_no_address(draws, at, reason):
    with serve() as server:
        server.drawings.at = at
        [rejected] = came(draws(server, retries=0), [request()])
        assert len(server.asked) == 1
    assert rejected.reason.startswith("the picture can't be fetched: ")
    assert reason in rejected.reason
    assert "SECRET" not in rejected.reason
    assert rejected.again


PASSING = [
    "500",
    "reset",
    "gzip",
    retry_after(0.02),
    Fault(kind="stall", seconds=5),
    Fault(kind="trickle", seconds=0.05),
]


@pytest.mark.parametrize("fault", PASSING, ids=range(len(PASSING)))
def test_a_picture_is_fetched_again_and_paid_for_once(draws, fault):
    with serve() as server:
        server.drawings.at = "/pictures/{name}"
        server.drawings.fetches.append(Fault(kind=fault) if isinstance(fault, str) else fault)
        assert came(draws(server, timeout=2 * QUICK), [request()]) == [expected(request())]
        assert (len(server.asked), len(server.drawings.fetched)) == (1, 2)


def test_no_file_may_fill_the_memory(draws, monkeypatch):
    monkeypatch.setattr(drawings, "LARGEST", 2_000_000)
    with serve() as server:
        server.drawings.at = "/pictures/{name}"
        server.drawings.fetches.append(Fault(kind="endless"))
        [rejected] = came(draws(server, retries=0), [request()])
        assert "a reply of more than 2,000,000 bytes" in rejected.reason
        server.always = "endless"
        with pytest.raises(IsekaiError, match="a reply of more than 2,000,000 bytes"):
            came(draws(server, retries=0), [request()])


def fetch(url: str, server: str) -> bytes:
    return asyncio.run(exchange.fetch(url, Address(url=server), drawings.LARGEST))


PRIVATE = ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "10.0.0.1", "192.168.0.1", "100.64.0.1"]
PRIVATE += ["169.254.169.254", "[fe80::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0177.1"]


@pytest.mark.parametrize("host", PRIVATE)
def test_a_server_of_the_open_net_cannot_point_into_a_private_network(host):
    with serve() as server:
        port = server.root.rpartition(":")[2]
        with pytest.raises(Refused, match="is a place of a private network"):
            fetch(f"http://{host}:{port}/SECRET", "https://images.example.com/v1")
        assert server.drawings.fetched == []


@pytest.fixture
def names(monkeypatch):
    """A name with dots, as of the open net, that stands for this machine."""
    ask = socket.getaddrinfo

    def answer(host, *given, **named):
        return ask("127.0.0.1" if host == "images.example.com" else host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_nor_can_it_by_a_name_or_a_redirect(names):
    with serve() as server:
        server.drawings.files["1.png"] = b"a picture"
        port = server.root.rpartition(":")[2]
        there = f"http://images.example.com:{port}"
        with pytest.raises(Refused, match=r"images\.example\.com is a place of a private network"):
            fetch(f"{there}/1.png", f"{there}/v1")  # it stood for another number a moment ago
        assert server.drawings.fetched == []
        assert fetch(f"{there}/1.png", server.url) == b"a picture"
        for place in (f"{server.root}/1.png", f"{there}/1.png", "/1.png"):
            server.drawings.fetches.append(Fault(kind="302", headers=(("Location", place),)))
            with pytest.raises(Refused, match="is a place of a private network"):
                fetch(f"{there}/first", server.url)
        assert [path for path, _ in server.drawings.fetched] == ["/1.png", *["/first"] * 3]


def test_redirects_are_followed_a_few_times_and_never_to_a_file():
    with serve() as server:
        server.drawings.files["1.png"] = b"a picture"
        hop = Fault(kind="307", headers=(("Location", "/pictures/1.png"),))
        server.drawings.fetches.extend([hop] * 3)
        assert fetch("/first", server.url) == b"a picture"
        server.drawings.fetches.extend([hop] * 4)
        with pytest.raises(Refused, match="more than 4 addresses away"):
            fetch("/first", server.url)
        server.drawings.fetches.append(Fault(kind="302", headers=(("Location", "file:///x"),)))
        with pytest.raises(Refused, match="it is at a 'file' address"):
            fetch("/first", server.url)


def certificate(folder, name: str) -> ssl.SSLContext:
    """A server's side of TLS for `name`; who trusts it finds it in `folder/name.pem`."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.PKCS8
    path = folder / f"{name}.pem"
    path.write_bytes(
        made.public_bytes(pem) + key.private_bytes(pem, form, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


def test_the_certificate_is_that_of_the_name_though_a_number_is_connected_to(
    names, tmp_path, monkeypatch
):
    with serve() as server:
        server.drawings.files["1.png"] = b"a picture"
        there = f"https://images.example.com:{server.root.rpartition(':')[2]}/1.png"
        plain = server._server.socket
        for name in ("images.example.com", "another.example.com"):
            context = certificate(tmp_path, name)
            server._server.socket = context.wrap_socket(plain.dup(), server_side=True)
            trust = ssl.create_default_context(cafile=tmp_path / f"{name}.pem")
            monkeypatch.setattr(exchange, "certificates", lambda trust=trust: trust)
            if name == "images.example.com":
                assert fetch(there, server.url) == b"a picture"
            else:
                with pytest.raises(exchange.Again, match="certificate is not valid for 'images"):
                    fetch(there, server.url)
            server._server.socket.close()
        server._server.socket = plain


# ---------------------------------------------------------------- many at once


@contextmanager
def slow_first(server: Loopback, others: int, then: Fault | None = None) -> Iterator[None]:
    """A prompt with `slow` is not answered before so many others are drawn."""
    server.drawings.faults["slow"] = Fault(kind="500")

    def wait():
        until = time.monotonic() + 20
        while len(server.drawings.files) < others and time.monotonic() < until:
            time.sleep(0.01)
        server.drawings.faults["slow"] = then

    waiting = threading.Thread(target=wait)
    waiting.start()
    yield
    waiting.join()


def test_so_many_are_under_way_and_a_slow_one_keeps_no_other_from_being_drawn(draws):
    asked = [request(0, "a slow thing"), *requests(20)[1:]]
    with serve(delay=0.01) as server, slow_first(server, 19):
        source = draws(server, concurrency=3, retries=999)
        assert came(source, asked) == [expected(one) for one in asked]
        assert server.peak == 3
        last = decode(server.drawings.files["19.png"]).tobytes()
    assert last == expected(asked[0])


def test_no_more_is_drawn_ahead_than_can_be_kept(draws):
    with serve() as server:
        source = draws(server, concurrency=2)
        outcomes = source.draw(requests(60))
        next(outcomes)
        time.sleep(0.3)
        assert len(server.asked) <= source.chunk
        assert len(list(outcomes)) == 59


FAULTS = ["429", "500", "reset", "truncated", "html", "not base64", None, None, None]


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(play=st.lists(st.sampled_from(FAULTS), max_size=12), width=st.integers(1, 6))
def test_faults_that_pass_change_no_picture(play, width):
    with serve(play) as server:
        options = {"base_url": server.url, "concurrency": width, "retries": 13, "cache": False}
        with closing(plugins.build("sources", "openai:tiny", options)) as source:
            assert came(source, requests(6)) == [expected(one) for one in requests(6)]


def test_a_crowded_server_is_asked_less_at_a_time(draws):
    with serve(capacity=2, delay=0.02) as server:
        source = draws(server, concurrency=12, retries=12)
        assert came(source, requests(24)) == [expected(one) for one in requests(24)]
        assert "back-offs" in source.status()


def test_requests_a_minute_are_kept(draws):
    with serve() as server:
        began = time.monotonic()
        came(draws(server, rpm=1200), requests(5))
        assert server.asked[-1].began - began >= 4 * 0.05


# ---------------------------------------------------------------- faults that stay


def test_what_fails_while_others_are_drawn_may_do_better_with_another_seed(draws):
    with serve(delay=0.01) as server:
        server.drawings.faults["odd"] = Fault(kind="500", message="division by zero")
        asked = [request(0, "an odd thing"), *requests(30)[1:]]
        outcomes = came(draws(server, retries=2, concurrency=2), asked)
    assert outcomes[0] == Rejected("HTTP 500: division by zero (3 tries)", again=True)
    assert outcomes[1:] == [expected(one) for one in asked[1:]]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("500", r"no answer any more: HTTP 500: .* \(3 tries\); run the same command again"),
        ("reset", "no answer any more: the connection broke"),
        (Fault(kind="stall", seconds=9), r"no whole answer within 0.3 s \(-o timeout\)"),
        ("401", "HTTP 401: a key is needed"),
        ("402", "HTTP 402"),
        ("403", "HTTP 403"),
        ("404", "HTTP 404: .*; check the model's name and -o base_url"),
        (Fault(kind="400", code="model_not_found", message="no such model"), "HTTP 400: no such"),
        (Fault(kind="400", code="billing_hard_limit_reached"), "add credit and run the same"),
        (Fault(kind="429", code="insufficient_quota"), "add credit and run the same"),
        (retry_after(86400), "come back in 86400 s"),
        ("wrong model", "asked for 'tiny', but 'another-model' answered"),
    ],
    ids=str,
)
def test_what_all_would_meet_stops_the_run_in_one_line_and_loses_nothing(draws, fault, told):
    timeout = QUICK if "within" in told else 30
    with serve([None] * 5) as server:
        source, taken = draws(server, retries=2, concurrency=1, timeout=timeout), []
        server.always = fault
        with pytest.raises(IsekaiError, match=told) as caught:
            taken.extend(source.draw(requests(9)))
        assert "\n" not in str(caught.value)
        assert [picture.image.tobytes() for picture in taken] == [
            expected(one) for one in requests(5)
        ]
        before = len(server.asked)
        with pytest.raises(IsekaiError):
            list(source.draw(requests(1)))
        assert len(server.asked) == before  # nothing is sent after it


def test_another_name_of_the_model_may_be_named(draws):
    with serve(always="wrong model") as server:
        source = draws(server, served_as="another-model")
        [picture] = source.draw([request()])
        assert picture.made["model"] == "another-model"


def test_what_was_paid_for_when_a_run_stops_is_taken_by_the_next(draws, tmp_path):
    """The first request is refused for good when all others are drawn already."""
    kept, asked = tmp_path / "cache" / "pictures", [request(0, "a slow thing"), *requests(6)[1:]]
    with serve() as server:
        with slow_first(server, 5, Fault(kind="404")), pytest.raises(IsekaiError, match="HTTP 404"):
            list(draws(server, concurrency=3, retries=999).draw(asked))
        assert len(list(kept.iterdir())) == 5
        server.drawings.faults.clear()
        assert came(draws(server), asked) == [expected(one) for one in asked]
        assert len(server.drawings.files) == 6  # none was drawn twice
        assert list(kept.iterdir()) == []


def test_what_nobody_takes_is_given_up_and_what_came_is_kept(draws, tmp_path):
    with serve() as server:
        source = draws(server, concurrency=2)
        outcomes = source.draw(requests(10))
        next(outcomes)
        while len(server.asked) < 10 or server.flying:
            time.sleep(0.01)
        time.sleep(0.1)
        outcomes.close()
        assert len(list((tmp_path / "cache" / "pictures").iterdir())) == 9
        assert came(draws(server), requests(10)) == [expected(one) for one in requests(10)]
        assert len(server.asked) == 11
        nothing = draws(server, cache=False)
        next(nothing.draw(requests(10, prompt="another")))
    assert list((tmp_path / "cache" / "pictures").iterdir()) == []


def test_what_is_under_way_ends_when_it_is_closed(draws):
    with serve(always=Fault(kind="stall", seconds=30)) as server:
        source = draws(server)
        threading.Timer(0.2, source.close).start()
        with pytest.raises(CancelledError):
            list(source.draw(requests(3)))
        server.always = None
        assert came(source, requests(3)) == [expected(one) for one in requests(3)]


def test_a_source_that_is_let_go_leaves_no_thread():
    before = set(threading.enumerate())

    def use(url):
        source = plugins.build("sources", "openai:tiny", {"base_url": url})
        assert came(source, requests(2))
        return {t for t in set(threading.enumerate()) - before if t.name == "isekai-line"}

    with serve() as server:
        [thread] = use(server.url)
        gc.collect()
        thread.join(timeout=5)
        assert not thread.is_alive()


def test_no_key_and_no_signed_address_appears_anywhere(draws, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    with serve(key=KEY) as server:
        server.drawings.at = "{root}/pictures/{name}?sig=SECRET"
        source = draws(server, api_key_env="MY_KEY")
        [picture] = source.draw([request()])
        seen = [repr(source), source.status(), str(source.settings), str(picture.made)]
        server.always = Fault(kind="400", message=f"Bearer {KEY} and {KEY[:9]}***6789")
        [rejected] = source.draw([request()])
        assert rejected.reason == "HTTP 400: Bearer [key] and [key]"
        server.key = "another"
        with pytest.raises(IsekaiError, match=r"the key in \$MY_KEY is not accepted") as stop:
            list(draws(server, api_key_env="MY_KEY").draw([request()]))
    seen += [rejected.reason, str(stop.value), caplog.text]
    assert KEY[:9] not in "".join(seen)
    assert "SECRET" not in "".join(seen)


# ---------------------------------------------------------------- money


def test_the_cap_stops_before_the_picture_that_would_pass_it_whatever_the_concurrency(draws):
    for width in (1, 5):
        with serve(delay=0.005) as server:
            source = draws(server, concurrency=width, price=0.04, max_cost=0.3, cache=False)
            taken = []
            with pytest.raises(IsekaiError, match=r"^max_cost is \$0.3: \$0.28\d+ are spent"):
                taken.extend(source.draw(requests(20)))
            assert len(taken) == len(server.asked) == 7
            assert source.status() == "$0.28, 0 in flight"


def test_tokens_are_charged_where_they_are_counted(draws):
    with serve() as server:
        server.drawings.counts = True
        prices = {"price_in": 5, "price_out": 40, "max_cost": 0.4, "concurrency": 3}
        source, taken = draws(server, **prices), []
        with pytest.raises(IsekaiError, match=r"max_cost is \$0.4: \$0\.\d+ are spent"):
            taken.extend(source.draw(requests(60)))
        spent = sum(picture.made["cost"] for picture in taken)
        assert spent <= 0.4
        assert spent == pytest.approx(len(taken) * (2 * 5 + 32 * 32 * 40) / 1e6)
        assert len(taken) == 8  # a ninth would fit, and might be twice as dear


def test_what_may_have_been_charged_counts_and_what_was_refused_does_not(draws):
    with serve([Fault(kind="stall", seconds=5), "500", MODERATED]) as server:
        source = draws(server, concurrency=1, price=1, timeout=QUICK)
        came(source, requests(2))
        assert source.status().startswith("$2.00, 0 in flight")


def test_it_says_ahead_what_pictures_take(draws):
    with serve() as server:
        source = draws(server, price=0.04, rpm=10, price_in=5, price_out=40, max_cost=1)
        assert source.estimate(requests(50)) == [
            f"50 pictures from {source.devices[0]}",
            "about $2.00, at $0.04 a picture",
            "more than max_cost, $1: it would stop there",
            "$5 and $40 a million tokens",
            "at least 5.0 minutes, at 10 a minute",
        ]
        assert draws(server).estimate(requests(2)) == [f"2 pictures from {source.devices[0]}"]
        assert server.asked == []


# ---------------------------------------------------------------- in a run


def run(server: Loopback, out, **options):
    given = {"base_url": server.url, **options}
    work = {"source": "openai:tiny", "groups": "cactihog", "per_concept": 4, "size": 64}
    return generate.run(**work, options=given, out=out)


def pixels(out) -> dict[str, bytes]:
    records = read_jsonl(out / "ledger.jsonl", ImageRecord)
    return {row.path: decode((out / row.path).read_bytes()).tobytes() for row in records}


def test_a_folder_is_drawn_continued_and_the_same_whatever_happened(tmp_path):
    with serve() as server:
        whole = pixels(run(server, tmp_path / "whole", price=0.04))
        assert len(whole) == len(server.asked) == 12
        run(server, tmp_path / "whole", price=0.04)
        assert len(server.asked) == 12
    records = read_jsonl(tmp_path / "whole" / "ledger.jsonl", ImageRecord)
    assert {row.source for row in records} == {"openai"}
    assert sum(row.made["cost"] for row in records) == pytest.approx(0.48)
    with serve(["500", None, "reset", "429"], port=int(server.root.rpartition(":")[2])) as again:
        with pytest.raises(IsekaiError, match="max_cost"):
            run(again, tmp_path / "parts", price=0.04, max_cost=0.2)
        assert len(again.drawings.files) == 4  # and a connection broke that may have been charged
        assert pixels(run(again, tmp_path / "parts", price=0.04)) == whole
        assert len(again.drawings.files) == 12


def test_images_that_moderation_turns_down_are_told_and_not_asked_for_again(tmp_path):
    with serve() as server:
        server.drawings.faults[""] = MODERATED
        with pytest.raises(DataError, match="no image could be drawn; the first: turned down by"):
            run(server, tmp_path / "out")
        count = len(server.asked)
        with pytest.raises(DataError, match="no image could be drawn"):
            run(server, tmp_path / "out")
        assert len(server.asked) == count


def test_a_folder_drawn_by_a_server_is_not_drawn_again_unless_the_user_says_so(tmp_path):
    with serve() as server:
        options = {"base_url": server.url}
        how = {"groups": "cactihog", "per_concept": 1, "size": 32, "gates": ()}
        out = generate.run(source="openai:tiny", options=options, out=tmp_path / "images", **how)
        with pytest.raises(DataError, match="builds the source with base_url"):
            verify.run(out, regenerate=1)
        with pytest.raises(DataError, match="through a server, which may cost money"):
            verify.run(out, regenerate=1, options=options)
        report = verify.run(out, regenerate=1, source="openai:tiny", options=options)
    assert report.is_well
