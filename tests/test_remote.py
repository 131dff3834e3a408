"""Models behind servers: every fault in the list, at once and again, and what is never lost."""

import gc
import logging
import random
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from isekai import plugins
from isekai.errors import IsekaiError, PluginError
from isekai.protocols import Closing, Concurrent, Foretelling, Probing, Telling
from model_adapters import line, remote
from tests.loopback import Fault, Loopback, retry_after, serve
from tests.sweeps import plain, sweep, truth

ONE = sweep(cuts=(2,), queries=1)
QUICK = 0.3
"""Seconds: the time-out where a time-out is awaited."""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.05)


@pytest.fixture(params=["openai", "anthropic"])
def ask(request):
    """Builds the adapter for a server; it is closed at the end."""
    built = []

    def build(server: Loopback, **options):
        url = server.url if request.param == "openai" else server.root
        options = {"cache": False, "base_url": url, **options}
        built.append(plugins.build("adapters", f"{request.param}:tiny", options))
        return built[-1]

    yield build
    for adapter in built:
        adapter.close()


def texts(adapter, asked=ONE):
    return [(response.text, response.error) for response in adapter.respond(asked)]


GOOD = [(text, None) for text in truth(ONE)]


def test_it_offers_what_bench_looks_for(ask):
    with serve() as server:
        adapter = ask(server, concurrency=5)
        for seam in (Concurrent, Probing, Telling, Foretelling, Closing):
            assert isinstance(adapter, seam)
        assert adapter.sweeps == 5
        assert server.asked == []


def test_it_answers_every_query_behind_every_cut_in_order(ask):
    with serve() as server:
        assert [text for text, _ in texts(ask(server), sweep())] == truth(sweep())


# ---------------------------------------------------------------- faults that pass


PASSING = [
    "429",
    retry_after(0.02),
    retry_after(0.02, form="ms"),
    partial(retry_after, 1, form="date"),  # the date is that of the test
    retry_after(0.02, status=503),
    "408",
    "500",
    "502",
    "503",
    "529",
    "reset",
    Fault(kind="stall", seconds=5),
    Fault(kind="stall in body", seconds=5),
    Fault(kind="trickle", seconds=0.05),
    Fault(kind="trickle in head", seconds=0.05),
    "truncated",
    "html",
    "gzip",
    Fault(kind="error in 200", code="429"),
    Fault(kind="error in 200", code="502"),
]


@pytest.mark.parametrize("fault", PASSING, ids=range(len(PASSING)))
def test_a_fault_that_passes_costs_another_try_and_no_answer(ask, fault):
    fault = fault() if callable(fault) else fault
    awaited = isinstance(fault, Fault) and fault.kind.startswith(("stall", "trickle"))
    with serve(["500", fault]) as server:
        assert texts(ask(server, timeout=QUICK if awaited else 30)) == GOOD
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("429", "HTTP 429: the test wants it so (2 tries)"),
        ("500", "HTTP 500: the test wants it so (2 tries)"),
        ("529", "HTTP 529: the test wants it so (2 tries)"),
        ("reset", "the connection broke: "),
        (Fault(kind="stall", seconds=5), "no whole answer within 0.3 s (-o timeout) (2 tries)"),
        (Fault(kind="trickle", seconds=0.05), "no whole answer within 0.3 s (-o timeout)"),
        ("truncated", "HTTP 200 with JSON that breaks off (2 tries)"),
        ("html", "HTTP 200 with a web page in the place of JSON; is -o base_url right? (2 tries)"),
        ("gzip", "a compressed reply, which wasn't asked for"),
        (Fault(kind="error in 200", code="", message="upstream\nis\tgone"), "upstream is gone"),
    ],
    ids=str,
)
def test_a_fault_that_stays_fails_its_own_query_alone_and_says_why(ask, fault, reason):
    asked = sweep(cuts=(2, 4), queries=2)
    with serve([None, fault, fault]) as server:
        timeout = QUICK if "no whole answer" in reason else 30
        said = texts(ask(server, retries=1, timeout=timeout), asked)
        assert len(server.asked) == 5
    good = [(text, None) for text in truth(asked)]
    assert said[:1] + said[2:] == good[:1] + good[2:]
    assert said[1][0] == ""
    assert reason in said[1][1]


def test_a_reply_without_end_is_cut_off(ask, monkeypatch):
    monkeypatch.setattr(line, "LARGEST_REPLY", 3_000_000)
    with serve(always="endless") as server:
        [(text, error)] = texts(ask(server, retries=0))
    assert text == ""
    assert "a reply of more than 3,000,000 bytes" in error


@pytest.mark.parametrize("status", ["400", "413", "422", "415"])
def test_a_request_that_is_refused_is_not_sent_again(ask, status):
    with serve([Fault(kind=status, message="too many\nimages")]) as server:
        assert texts(ask(server)) == [("", f"HTTP {status}: too many images")]
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("kind", "text", "finish", "error"),
    [
        ("length", GOOD[0][0], "length", None),
        ("silent length", "", "length", "no text but reasoning before max_tokens was reached"),
        ("reasoning", "", None, "no text but reasoning"),
        ("no usage", GOOD[0][0], None, None),
    ],
)
def test_what_is_said_is_kept_and_silence_is_a_failure_with_a_reason(
    ask, kind, text, finish, error
):
    with serve([kind]) as server:
        [response] = ask(server).respond(ONE)
        assert len(server.asked) == 1
    assert response.text == text
    assert finish in (None, response.finish)
    assert (response.error or "").startswith(error or "")
    assert bool(response.error) == bool(error)
    assert (response.usage is None) == (kind == "no usage")


# ---------------------------------------------------------------- faults for the user to mend


@pytest.mark.parametrize("status", ["401", "402", "403", "404"])
def test_what_every_request_would_meet_stops_at_once_in_one_line(ask, status):
    with serve(always=status) as server:
        adapter = ask(server)
        for _ in range(2):
            with pytest.raises(IsekaiError, match=rf"http://127.*: HTTP {status}") as caught:
                texts(adapter, sweep())
            assert "\n" not in str(caught.value)
        assert len(server.asked) == 1  # nothing is sent after it


def test_requests_under_way_are_finished_and_kept_when_the_run_stops(ask, tmp_path):
    asked = sweep(cuts=(2,), queries=4)
    with serve([None, None, None, "404"], delay=0.05) as server:
        with pytest.raises(IsekaiError, match="404"):
            texts(ask(server, cache=tmp_path), asked)
        assert texts(ask(server, cache=tmp_path), asked) == [(text, None) for text in truth(asked)]
        assert len(server.asked) == 5


def test_another_model_than_the_one_asked_for_stops_the_run_unless_it_is_named(ask):
    with serve(always="wrong model") as server:
        with pytest.raises(IsekaiError, match="asked for 'tiny', but 'another-model' answered"):
            texts(ask(server))
        assert texts(ask(server, served_as="org/another-model")) == GOOD


def test_a_pause_beyond_all_patience_stops_the_run(ask):
    with serve([retry_after(86400)]) as server:
        with pytest.raises(
            IsekaiError, match=r"HTTP 429: .*; the server asks to come back in 86400 s"
        ):
            texts(ask(server))
        assert len(server.asked) == 1


def test_a_server_that_was_never_there_is_told_at_once(ask):
    with serve() as server:
        server.stop()
        before = time.monotonic()
        with pytest.raises(IsekaiError, match=r"no connection: .*; start the server, or correct"):
            texts(ask(server, retries=20))
        assert time.monotonic() - before < 2


def test_a_server_that_is_gone_fails_what_it_was_asked_last(ask):
    with serve() as server:
        adapter = ask(server, retries=1)
        assert texts(adapter) == GOOD
        server.stop()
        [(text, error)] = texts(adapter)
    assert text == ""
    assert error.startswith("no connection: ")
    assert error.endswith(" (2 tries)")


def test_a_server_may_be_restarted_in_the_middle_of_a_run(ask):
    asked = sweep(cuts=(0, 2, 4), queries=12)
    with serve(delay=0.02) as server:
        adapter = ask(server, concurrency=4, retries=20)

        def bounce():
            while len(server.asked) < 14:
                time.sleep(0.001)
            server.stop()
            time.sleep(0.1)
            server.start()

        bouncer = threading.Thread(target=bounce)
        bouncer.start()
        said = texts(adapter, asked)
        bouncer.join()
        assert len(server.asked) > 36  # some were broken off and asked again
    assert said == [(text, None) for text in truth(asked)]


def test_when_nothing_is_answered_any_more_the_run_stops(ask, monkeypatch):
    monkeypatch.setattr(remote, "HOPELESS", 6)
    asked = sweep(cuts=(2,), queries=5)
    with serve(always="500") as server:
        adapter = ask(server, retries=0)
        assert len(texts(adapter, asked)) == 5
        with pytest.raises(IsekaiError, match=r"6 requests in a row got no answer, .*HTTP 500"):
            texts(adapter, asked)
        assert len(server.asked) == 6


KEY = "sk-aLongSecretKeyOfMine0123456789"


def test_the_key_is_sent_and_appears_nowhere_else(ask, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level(logging.DEBUG)
    seen = []
    with serve(key=KEY) as server:
        adapter = ask(server, api_key_env="MY_KEY", cache=tmp_path)
        assert texts(adapter) == GOOD
        assert KEY in server.asked[0].headers["authorization"]
        seen += [repr(adapter), str(adapter.provenance), adapter.status(), repr(adapter._address)]
        seen += [path.read_bytes().decode("latin-1") for path in tmp_path.iterdir()]
        server.key = "another"  # refusals now repeat what was given
        with pytest.raises(
            IsekaiError, match=r"HTTP 401: the key in \$MY_KEY is not accep"
        ) as stop:
            texts(ask(server, api_key_env="MY_KEY"))
        seen.append(str(stop.value))
        server.key = None
        for status in ("400", "403"):
            server.script.append(Fault(kind=status, message=f"Bearer {KEY} and {KEY[:9]}***6789"))
        [(_, error)] = texts(ask(server, api_key_env="MY_KEY"))
        assert error == "HTTP 400: Bearer [key] and [key]"
        with pytest.raises(IsekaiError, match=r"see what the key in \$MY_KEY may do") as stop:
            texts(ask(server, api_key_env="MY_KEY"))
        seen.append(str(stop.value))
    assert KEY[:9] not in "".join(seen) + caplog.text


def test_a_server_nearby_gets_no_key_that_was_not_named(ask, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, KEY)
    with serve() as server:
        texts(ask(server))
        assert KEY not in str(server.asked[0].headers)
        monkeypatch.setenv("MY_KEY", "")
        with pytest.raises(PluginError, match=r"put it into \$MY_KEY"):
            ask(server, api_key_env="MY_KEY")
        for odd in ("sk-“quoted”", "Bearer sk-12", "sk-1\nsk-2"):
            monkeypatch.setenv("MY_KEY", odd)
            with pytest.raises(PluginError, match=r"^\$MY_KEY holds what no key is made of"):
                ask(server, api_key_env="MY_KEY")


# ---------------------------------------------------------------- at once


def storm(seed: int, count: int) -> list[str | None]:
    rng = random.Random(seed)
    return [rng.choice(["429", "500", "reset", "truncated", None, None]) for _ in range(count)]


def test_one_request_at_a_time_and_64_give_the_same_responses(ask):
    sweeps = [sweep(cuts=(0, 2, 4), queries=6, episode_id=str(n)) for n in range(4)]
    sweeps = [replace(s, support=s.support[n:] + s.support[:n]) for n, s in enumerate(sweeps)]
    said = {}
    for width in (1, 64):
        with serve(storm(width, 40), delay=0.002) as server:
            adapter = ask(server, concurrency=width, retries=12)
            with ThreadPoolExecutor(adapter.sweeps) as pool:
                said[width] = list(pool.map(partial(texts, adapter), sweeps))
            assert (server.peak == 1) == (width == 1)
    assert said[1] == said[64] == [[(text, None) for text in truth(s)] for s in sweeps]


def test_never_more_requests_are_under_way_than_asked_for(ask):
    with serve(delay=0.02) as server:
        texts(ask(server, concurrency=3), sweep(cuts=(0, 2), queries=9))
        assert server.peak == 3


def test_a_crowded_server_is_asked_less_at_a_time_and_loses_nothing(ask):
    asked = sweep(cuts=(2, 4), queries=30)
    with serve(capacity=3, delay=0.01) as server:
        adapter = ask(server, concurrency=24, retries=12)
        assert texts(adapter, asked) == [(text, None) for text in truth(asked)]
        refused = len(server.asked) - 60
        assert 0 < refused < 60
        assert "back-offs" in adapter.status()


def test_a_pause_that_the_server_asks_for_is_kept_by_all(ask):
    asked = sweep(cuts=(2,), queries=6)
    with serve([None, retry_after(0.4)]) as server:
        assert len(texts(ask(server, concurrency=1), asked)) == 6
        times = [request.began for request in server.asked]
    assert times[2] - times[1] >= 0.4
    assert max(b - a for a, b in pairwise(times[2:])) < 0.3


def test_requests_a_minute_are_kept(ask):
    with serve() as server:
        began = time.monotonic()
        texts(ask(server, rpm=1200), sweep(cuts=(2,), queries=5))
        assert server.asked[-1].began - began >= 4 * 0.05


def test_the_queries_of_a_cut_find_its_prefix_in_the_servers_cache(ask):
    asked = sweep(cuts=(2, 4), queries=5)
    with serve(delay=0.01) as server:
        list(ask(server).respond(asked))
        bodies = [request.raw for request in server.asked]
        counts = [(usage["cached"], usage["prompt"]) for usage in server.usage]
    for cut in (bodies[:5], bodies[5:]):
        shared = next(i for i in range(len(cut[0])) if len({body[i] for body in cut}) > 1)
        pictures = cut[0].count(b"base64,") + cut[0].count(b'"base64"')
        assert cut[0][:shared].count(b"base64") == pictures  # all of the support, none of the query
        assert {body[:shared] for body in cut} == {cut[0][:shared]}
    query = counts[0][1] - counts[1][0]  # tokens behind the prefix
    assert counts[:5] == [(0, counts[0][1])] + [(counts[0][1] - query, counts[0][1])] * 4
    assert counts[5][0] == counts[1][0]  # the next cut begins with this one
    assert counts[6:] == [(counts[5][1] - query, counts[5][1])] * 4


def test_what_nobody_waits_for_is_given_up(ask):
    with serve(always=Fault(kind="stall", seconds=30)) as server:
        adapter = ask(server)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(texts, adapter)
            while not server.asked:
                time.sleep(0.001)
            adapter.close()
            with pytest.raises(CancelledError):
                waiting.result(timeout=5)
        server.always = None
        assert texts(adapter) == GOOD  # it can be asked again


def test_a_sweep_that_is_given_up_between_two_cuts_asks_no_more(ask):
    with serve() as server:
        adapter, asked = ask(server), sweep()
        said = adapter.respond(asked)
        for _ in asked.queries:
            next(said)
        before = len(server.asked)
        adapter.close()
        with pytest.raises(CancelledError):
            next(said)
        assert len(server.asked) == before


def test_an_adapter_that_is_let_go_leaves_no_thread():
    before = set(threading.enumerate())

    def use(url):
        adapter = plugins.build("adapters", "openai:tiny", {"cache": False, "base_url": url})
        assert texts(adapter) == GOOD
        return {t for t in set(threading.enumerate()) - before if t.name == "isekai-line"}

    with serve() as server:
        [thread] = use(server.url)
        gc.collect()
        thread.join(timeout=5)
        assert not thread.is_alive()


# ---------------------------------------------------------------- once


def test_what_was_answered_is_not_asked_again_also_by_the_next_run(ask, tmp_path):
    with serve() as server:
        first = list(ask(server, cache=tmp_path, price_in=1, price_out=1).respond(sweep()))
        again = ask(server, cache=tmp_path, price_in=1, price_out=1)
        second = list(again.respond(sweep()))
        assert len(server.asked) == 12
    assert [replace(r, usage=None) for r in first] == [replace(r, usage=None) for r in second]
    for paid, replayed in zip(first, second, strict=True):
        assert paid.usage["cost"] > 0
        assert replayed.usage == {**paid.usage, "cost": 0, "replayed": 1}
    assert again.status() == "$0.00, 0 in flight, 12 replayed"


def test_failures_and_silence_are_asked_again(ask, tmp_path):
    for fault in ("400", "silent length", "500"):
        with serve([fault]) as server:
            adapter = ask(server, cache=tmp_path / fault, retries=0)
            assert texts(adapter)[0][1]
            assert texts(adapter) == GOOD
            assert len(server.asked) == 2


def test_all_that_an_answer_depends_on_makes_another_question(ask, tmp_path):
    changed = replace(ONE.support[0], image=plain(0, 99))
    questions = [
        ({}, ONE),
        ({}, replace(ONE, support=(changed, ONE.support[1]))),
        ({}, replace(ONE, queries=(replace(ONE.queries[0], image=plain(1, 77)),))),
        ({}, replace(ONE, queries=(replace(ONE.queries[0], question="And this?"),))),
        ({}, replace(ONE, instruction="Be brief.")),
        ({}, replace(ONE, query_instruction="Now: ")),
        ({"max_tokens": 9}, ONE),
        ({"temperature": 0.5}, ONE),
        ({"temperature": "none"}, ONE),
        ({"style": "single"}, ONE),
        ({"max_side": 50}, ONE),
        ({"choice": "json"}, ONE),
        ({"choice": "json"}, replace(ONE, labels=("dovrik", "other"))),
        ({"extra": {"top_p": 1}}, ONE),
    ]
    with serve() as server, serve() as other:
        for _ in range(2):
            for options, asked in questions:
                texts(ask(server, cache=tmp_path, **options), asked)
        assert len(server.asked) == len(questions)
        assert len({request.raw for request in server.asked}) == len(questions)
        texts(ask(other, cache=tmp_path))
        assert len(other.asked) == 1  # another server is another question


def test_equal_questions_of_a_cut_are_asked_once(ask, tmp_path):
    query = replace(ONE.queries[0], image=None)
    with serve() as server:
        said = texts(ask(server, cache=tmp_path), replace(ONE, queries=(query,) * 5))
        assert len(server.asked) == 1
    assert len(set(said)) == 1
    assert len(said) == 5


# ---------------------------------------------------------------- money


def test_the_cost_follows_from_the_tokens_and_prices(ask):
    with serve() as server:
        adapter = ask(server, price_in=2, price_out=10, price_cached=0.5)
        said = list(adapter.respond(sweep(cuts=(2,), queries=3)))
        counts = server.usage
    for response, count in zip(said, counts, strict=True):
        fresh = count["prompt"] - count["cached"]
        cost = (fresh * 2 + count["cached"] * 0.5 + count["completion"] * 10) / 1e6
        assert response.usage == {
            "prompt_tokens": count["prompt"],
            "cached_tokens": count["cached"],
            "completion_tokens": count["completion"],
            "cost": pytest.approx(cost),
        }
    assert adapter._spending.spent == pytest.approx(sum(r.usage["cost"] for r in said))


def test_the_cap_stops_before_the_request_that_could_pass_it_whatever_the_concurrency(ask):
    asked = sweep(cuts=(2,), queries=40)
    cap = 0.006
    sent = {}
    for width in (1, 16):
        with serve(delay=0.002) as server:
            adapter = ask(
                server, concurrency=width, price_in=1, price_out=1, price_cached=1, max_cost=cap
            )
            with pytest.raises(IsekaiError, match=r"max_cost is \$0.006: \$0\.00\d+ are spent"):
                list(adapter.respond(asked))
            sent[width] = len(server.asked)
            assert cap * 0.8 < adapter._spending.spent <= cap
    assert sent[1] == sent[16]


def test_a_cap_without_prices_is_refused_when_built(ask):
    with serve() as server:
        with pytest.raises(PluginError, match="max_cost needs prices"):
            ask(server, max_cost=1)
        with pytest.raises(PluginError, match="go together"):
            ask(server, price_in=1)


def test_what_may_have_been_charged_counts_as_spent(ask):
    with serve([Fault(kind="stall", seconds=5), "500", "no usage"]) as server:
        adapter = ask(server, timeout=QUICK, price_in=1, price_out=1)
        assert texts(adapter) == GOOD
        dearest = adapter._spending._most(
            remote.Tokens(prompt=next(adapter._chat.requests(ONE, ""))[0].tokens, completion=64)
        )
    assert adapter._spending.spent == pytest.approx(2 * dearest)  # not the 500


def test_what_is_foretold_is_about_what_it_takes(ask):
    asked = sweep(cuts=(0, 2, 4), queries=6)
    with serve() as server:
        adapter = ask(server, price_in=1, price_out=2)
        told = adapter.foretell(asked)
        assert server.asked == []
        said = list(adapter.respond(asked))
    took = sum(response.usage["prompt_tokens"] for response in said)
    assert took / 2 < told["prompt_tokens"] < took * 2
    assert told["completion_tokens"] == 18 * 64
    assert told["cost"] == pytest.approx(
        (told["prompt_tokens"] + 2 * told["completion_tokens"]) / 1e6
    )


def test_it_says_what_was_spent_and_what_is_under_way(ask):
    with serve(delay=0.2) as server:
        adapter = ask(server)
        assert adapter.status() == "0 tokens, 0 in flight"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(texts, adapter)
            while not server.asked:
                time.sleep(0.001)
            assert adapter.status() == "0 tokens, 1 in flight"
            waiting.result()
        count = server.usage[0]
        total = count["prompt"] + count["completion"]
        assert adapter.status() == f"{total} tokens, 0 in flight"


# ---------------------------------------------------------------- before a run


def test_a_probe_that_fits_says_nothing_and_is_part_of_the_run(ask, tmp_path):
    asked = sweep(cuts=(2, 4), queries=3)
    with serve() as server:
        adapter = ask(server, cache=tmp_path)
        assert adapter.probe(asked) is None
        assert [len(request.images) for request in server.asked] == [5, 4]
        list(adapter.respond(asked))
        assert len(server.asked) == 2 + 6 - 1


@pytest.mark.parametrize(
    ("most", "told"),
    [(9, "4 shots fit"), (8, "2 shots fit"), (4, "1 shots fit"), (2, "0 shots fit")],
)
def test_a_support_set_that_is_too_long_is_refused_before_the_run(ask, most, told):
    asked = sweep(cuts=(0, 2, 4, 8, 16), queries=2)
    with serve(max_images=most) as server:
        with pytest.raises(IsekaiError) as caught:
            ask(server).probe(asked)
        assert len(server.asked) <= 4  # it halves what may fit
    assert str(caught.value) == (
        f"{caught.value.args[0].partition(': ')[0]}: 17 images (8 shots) are refused: HTTP 400: At "
        f"most {most} image(s) may be provided in one prompt.; {told}: give no more to --shots"
    )


def test_what_no_number_of_shots_would_mend_is_not_blamed_on_their_number(ask):
    with serve(always=Fault(kind="400", message="no 'temperature' here")) as server:
        with pytest.raises(IsekaiError) as caught:
            ask(server).probe(sweep(cuts=(2, 4)))
        assert str(caught.value).endswith(
            ": every request is refused, with 1 shots as well: HTTP 400: no 'temperature' here"
        )
    with serve(max_bytes=100) as server, pytest.raises(IsekaiError, match="413") as caught:
        ask(server).probe(sweep(cuts=(2,)))
    assert str(caught.value).endswith("; if they are too many, give fewer --shots")


def test_a_server_that_drops_images_silently_is_found_out(ask):
    for asked in (sweep(cuts=(2, 4)), sweep(cuts=(0,))):
        with serve(keeps=asked.cuts[-1]) as server:
            with pytest.raises(IsekaiError, match=r"not all of \d images reach tiny: the server c"):
                ask(server).probe(asked)
            server.keeps = asked.cuts[-1] + 1
            ask(server).probe(asked)


def test_a_probe_without_counts_or_images_leaves_a_word_or_nothing(ask):
    with serve(always="no usage") as server:
        adapter = ask(server)
        adapter.probe(sweep())
        assert adapter.status().endswith("no token counts: unknown whether all images are seen")
    wordy = tuple(replace(turn, image=None) for turn in sweep().support)
    asked = replace(sweep(), support=wordy, queries=(replace(sweep().queries[0], image=None),))
    with serve() as server:
        ask(server).probe(asked)
        assert len(server.asked) == 1


def test_a_probe_tells_what_else_would_fail_every_request(ask):
    with serve(always="silent length") as server, pytest.raises(IsekaiError) as caught:
        ask(server).probe(sweep())
    assert "a first request got no text but reasoning before max_tokens" in str(caught.value)
    with serve(always="500") as server:
        with pytest.raises(IsekaiError, match="a first request got no answer: HTTP 500") as caught:
            ask(server, retries=1).probe(sweep())
        assert "\n" not in str(caught.value)
    with serve(always="404") as server, pytest.raises(IsekaiError) as caught:
        ask(server).probe(sweep())
    assert str(caught.value).count("http://127") == 1
