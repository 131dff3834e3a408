"""Runs against a chat server that really answers: whatever goes wrong, the table is the same."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from isekai import bench, runs
from isekai.dataset import Dataset
from isekai.errors import IsekaiError
from isekai.files import read_json, read_jsonl, sha256
from isekai.setup import Setup
from isekai.types import Prediction
from model_adapters import remote
from tests.loopback import serve

ISEKAI = (sys.executable, "-c", "from isekai.cli import main; main()")


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


@pytest.fixture
def ask(tiny_dataset, tmp_path):
    def run(server, out: str = "run", *, options=None, **asked) -> Path:
        own = {"base_url": server.url, "cache": False, **(options or {})}
        small = {"models": ("openai:tiny",), "shots": (0, 1, 2), "episodes": 1}
        setup = Setup(**{**small, "data": str(tiny_dataset), "options": own, **asked})
        return bench.run(setup, out=tmp_path / out)

    return run


def words(server, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *(*ISEKAI, "bench", "--model", "openai:tiny", "-o", f"base_url={server.url}"),
        *("--shots", "0,1,2", "--episodes", "4", "--data", str(data), "--out", str(out), *more),
    ]


def told(out: Path) -> dict[str, object]:
    """All of a run but for what the server counted and how long it took."""
    rows = read_jsonl(out / "predictions.jsonl", Prediction)
    said = [(r.model, r.episode_id, r.shots, r.query, r.answer, r.outcome, r.text) for r in rows]
    return {"said": said, "table": (out / "table.md").read_text()}


def binder(data: Path):
    """Says what stands beside the support picture that shows the same thing; knows the pictures."""
    known = {entry.image_id: entry.concept for entry in Dataset.open(data).entries}

    def answer(support: list[tuple[bytes, str]], query: bytes | None) -> str:
        thing = known.get(sha256(query or b""))
        same = [said for shown, said in support if thing and known.get(sha256(shown)) == thing]
        return (same or [said for _, said in support] or [""])[-1]

    return answer


def test_a_model_behind_a_server_is_seen_to_bind(ask, tiny_dataset):
    with serve(answer=binder(tiny_dataset)) as server:
        out = ask(server, controls=("blind", "swap", "words=true+blind"), shots=(1, 2))
    cells = {(r.control, r.shots_per_class): r for r in runs.results(out)}
    at_two = {control: cells[control, 2].metrics["accuracy"].value for control, _ in cells}
    assert at_two == {"none": 1.0, "swap": 1.0, "blind": 0.5, "words=true+blind": 0.5}
    usage = runs.read(out).told["usage"]["openai:tiny"]
    assert usage["prompt_tokens"] > usage["cached_tokens"] > 0  # queries share their prefix
    text = (out / "config.json").read_text() + (out / "results.json").read_text()
    assert "api_key" not in text.lower()


def test_one_or_sixty_four_at_a_time_give_the_same_rows(ask):
    with serve(delay=0.002) as server:
        one = ask(server, "one", options={"concurrency": 1})
        assert server.peak == 1
        many = ask(server, "many", options={"concurrency": 64})
        assert server.peak > 2
    for name in ("episodes.jsonl", "table.md"):
        assert (one / name).read_bytes() == (many / name).read_bytes()
    assert told(one) == told(many)


def test_whatever_passes_is_tried_again_until_the_table_is_whole(ask):
    with serve() as server:
        calm = ask(server, "calm")
        passing = ["429", "500", "502", "503", "529", "reset", "truncated", "html", "no choices"]
        storm = [kind if n % 2 else None for n, kind in enumerate(passing * 4)]
        random.Random(0).shuffle(storm)
        server.script.extend(storm)
        rough = ask(server, "rough", options={"concurrency": 4})
        assert not server.script
    assert told(rough) == told(calm)


def test_what_fails_for_good_is_told_and_asked_again_by_the_next_run(ask):
    with serve() as server:
        calm = ask(server, "calm")
        server.script.extend([None] * 10 + ["filter", "silent length", "400", "reasoning"] * 2)
        rough = ask(server, "rough", options={"concurrency": 1}, probe=False)
        results = read_json(rough / "results.json", dict[str, object])
        assert sum(results["failures"].values()) == 6  # what a filter lets through is an answer
        assert any("max_tokens" in reason for reason in results["failures"])
        assert "failed" in (rough / "table.md").read_text()
        before = len(server.asked)
        again = ask(server, "rough", options={"concurrency": 1}, probe=False)
        assert 0 < len(server.asked) - before <= 48  # only the episodes with failures
    assert told(again) == told(calm)


def test_a_refused_key_ends_the_run_at_once_and_the_next_run_goes_on(ask, tmp_path):
    with serve() as server:
        calm = ask(server, "calm")
        server.script.extend([*[None] * 30, "401"])
        with pytest.raises(IsekaiError, match="401") as refused:
            ask(server, "rough", options={"concurrency": 1}, probe=False)
        assert "\n" not in str(refused.value)
        kept = read_jsonl(tmp_path / "rough" / "predictions.jsonl", Prediction)
        assert len(kept) == 24  # the episode that was whole
        before = len(server.asked)
        assert told(ask(server, "rough", options={"concurrency": 1}, probe=False)) == told(calm)
        assert len(server.asked) - before == 48


def test_a_server_that_goes_away_and_comes_back_changes_nothing(ask):
    with serve(delay=0.001) as server:
        calm = ask(server, "calm")
        server.script.extend([None] * 20 + ["reset"] * 6 + ["503"] * 6)
        rough = ask(server, "rough", options={"concurrency": 4})
    assert told(rough) == told(calm)


def test_more_pictures_than_the_server_takes_are_told_before_the_run(ask, tmp_path):
    with serve(max_images=4) as server:
        with pytest.raises(
            IsekaiError, match=r"5 images \(2 shots\) are refused: HTTP 400.*1 shots fit"
        ) as refused:
            ask(server)
        assert "\n" not in str(refused.value)
        assert len(server.asked) < 6
    assert not read_jsonl(tmp_path / "run" / "predictions.jsonl", Prediction)
    with (
        serve(keeps=2) as server,
        pytest.raises(IsekaiError, match="not all of 5 images reach tiny"),
    ):
        ask(server, "dropping")


def test_money_is_not_spent_beyond_its_cap_and_a_rerun_goes_on(ask, tmp_path):
    prices = {"price_in": 1.0, "price_out": 1.0, "concurrency": 1}
    with serve() as server:
        calm = ask(server, "calm", options={"concurrency": 1})
        used = runs.read(calm).told["usage"]["openai:tiny"]
        cost = (used["prompt_tokens"] + used["completion_tokens"]) / 1e6
        with pytest.raises(IsekaiError, match="max_cost"):
            ask(server, "rough", options={**prices, "max_cost": 0.6 * cost}, probe=False)
        some = read_jsonl(tmp_path / "rough" / "predictions.jsonl", Prediction)
        assert 0 < sum(row.usage["cost"] for row in some) <= 0.6 * cost
        assert told(ask(server, "rough", options={**prices, "max_cost": 2 * cost})) == told(calm)


def test_answers_that_were_given_are_not_asked_for_in_another_run(ask, tmp_path):
    with serve() as server:
        kept = {"cache": str(tmp_path / "answers")}
        first = ask(server, "first", options=kept)
        before = len(server.asked)
        again = ask(server, "again", options=kept)
        assert len(server.asked) == before
        assert told(again) == told(first)
        ask(server, "more", options=kept, shots=(0, 1, 2, 4))
        assert len(server.asked) - before < 40  # the new shot count, and the probe


# ---------------------------------------------------------------- kills, disks, neighbours


def test_killed_fifty_times_it_ends_with_the_table_of_a_run_that_was_not(tiny_dataset, tmp_path):
    """Every kill hits the one run at another moment; no row is lost, doubled or torn."""
    with serve(delay=0.004) as server:
        environment = {**os.environ, "ISEKAI_CACHE": str(tmp_path / "other")}
        whole = tmp_path / "whole"
        more = ("-o", "cache=false", "-o", "concurrency=4", "--no-probe")
        subprocess.run(words(server, tiny_dataset, whole, *more), check=True, capture_output=True)
        killed = tmp_path / "killed"
        script = FORKED.format(words=words(server, tiny_dataset, killed, *more)[3:])
        process = subprocess.Popen(
            [sys.executable, "-c", script, "seed"],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        told_by_it, _ = process.communicate(timeout=300)
        kills = int(told_by_it.split()[-1])
    assert kills >= 50
    assert told(killed) == told(whole)
    rows = (killed / "predictions.jsonl").read_bytes()
    assert rows.endswith(b"\n")
    assert len(rows.splitlines()) == 12 * 3 * 8


FORKED = """
import os, random, signal, sys, time
from isekai import bench, runs, lm_eval  # once: only the work is killed
from isekai.reports import tables, plots
from isekai.cli import app
rng, kills, length = random.Random(sys.argv[1]), 0, 0.02
while True:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        app({words!r}, standalone_mode=False)
        os._exit(0)
    if kills < 50:
        time.sleep(rng.uniform(0.0, length))
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
        length = min(length * 1.05, 0.3)
    else:
        break
print(kills)
"""


def test_two_processes_on_one_folder_do_not_mix(tiny_dataset, tmp_path):
    go_on = threading.Event()

    def patient(support: list[tuple[bytes, str]], query: bytes | None) -> str:
        go_on.wait(60)
        return support[-1][1] if support else ""

    with serve(answer=patient) as server:
        asked = words(server, tiny_dataset, tmp_path / "run", "--no-probe")
        with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as first:
            while not server.asked:
                time.sleep(0.01)
            second = subprocess.run(asked, capture_output=True, text=True)
            go_on.set()
            assert first.wait(60) == 0
    assert second.returncode == 1
    assert "another isekai process works here" in second.stderr
    assert second.stderr.count("\n") == 1
    assert len(read_jsonl(tmp_path / "run" / "predictions.jsonl", Prediction)) == 12 * 3 * 8


def test_a_full_disk_stops_the_run_in_a_line_and_the_next_run_goes_on(tiny_dataset, tmp_path):
    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, resource.RLIM_INFINITY))

    with serve() as server:
        more = ("-o", "cache=false", "--no-probe")
        full = subprocess.run(
            words(server, tiny_dataset, tmp_path / "run", *more),
            capture_output=True,
            text=True,
            preexec_fn=small_files,
        )
        assert full.returncode == 1
        assert "predictions.jsonl: the file grew past the limit" in full.stderr
        assert "Traceback" not in full.stderr
        kept = len(read_jsonl(tmp_path / "run" / "predictions.jsonl", Prediction)) // 24 * 24
        assert kept > 0  # of the episode that the disk cut through, nothing counts
        before = len(server.asked)
        subprocess.run(
            words(server, tiny_dataset, tmp_path / "run", *more), check=True, capture_output=True
        )
        assert len(server.asked) - before == 12 * 24 - kept
        whole = tmp_path / "whole"
        subprocess.run(words(server, tiny_dataset, whole, *more), check=True, capture_output=True)
    assert told(tmp_path / "run") == told(whole)


def test_an_interrupt_ends_the_process_soon_and_the_same_command_goes_on(tiny_dataset, tmp_path):
    with serve(delay=0.5) as server:
        asked = words(server, tiny_dataset, tmp_path / "run", "--no-probe")
        process = subprocess.Popen(asked, stderr=subprocess.PIPE, text=True)
        while len(server.asked) < 4:
            time.sleep(0.01)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - begun < 5
        assert process.returncode == 130
        assert said == "isekai: interrupted; run the same command again to go on\n"


def test_a_run_without_one_answer_says_why_and_exits_with_1(tiny_dataset, tmp_path):
    with serve(always="400") as server:
        asked = words(server, tiny_dataset, tmp_path / "run", "--no-probe", "--limit", "1")
        ended = subprocess.run(asked, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "24 failed: openai:tiny: HTTP 400: the test wants it so" in ended.stderr
    assert "the same `isekai bench` command asks them again" in ended.stderr


def test_a_model_tells_all_its_options():
    told = subprocess.run([*ISEKAI, "models", "openai"], capture_output=True, text=True).stdout
    assert "-o base_url=" in told
    assert "rpm, tpm      requests and tokens a minute at most" in told


def test_a_dry_run_tells_what_would_be_asked_and_asks_nothing(tiny_dataset, tmp_path):
    with serve() as server:
        asked = words(server, tiny_dataset, tmp_path / "run", "--dry-run", "--blind")
        priced = [*asked, "-o", "price_in=2", "-o", "price_out=8"]
        said = subprocess.run(priced, capture_output=True, text=True, check=True).stdout
        assert "24 episodes in all" in said
        assert "576 questions to openai:tiny" in said
        assert "about $" in said
        plain = subprocess.run(
            [*asked, "--json"], capture_output=True, text=True, check=True
        ).stdout
        assert json.loads(plain)["about"]["openai:tiny"]["prompt_tokens"] > 1000
        assert server.asked == []
    assert not (tmp_path / "run").exists()
