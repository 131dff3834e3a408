"""Answers are kept once, whole, and for everybody who asks the same."""

import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from isekai.errors import DataError
from model_adapters.request_cache import Answer, RequestCache
from model_adapters.spending import Tokens


def answer(text: str) -> Answer:
    return Answer(text=text, finish="stop", tokens=Tokens(prompt=9, completion=2, cached=3))


def test_what_is_put_comes_back_also_from_the_next_cache(tmp_path):
    cache = RequestCache(tmp_path)
    assert cache.get("a") is None
    bare = Answer(text="\ud83d é \x00 'quoted'", finish=None, tokens=None)
    cache.put("a", answer("first"))
    cache.put("b", bare)
    cache.put("a", answer("second"))  # who is first is right: both paid, one is kept
    for known in (cache, RequestCache(tmp_path)):
        assert known.get("a") == answer("first")
        assert known.get("b") == bare


def test_it_lies_in_the_usual_place(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "usual"))
    RequestCache().put("a", answer("x"))
    assert (tmp_path / "usual" / "requests.sqlite").exists()


def test_many_threads_share_one_cache(tmp_path):
    cache = RequestCache(tmp_path)

    def work(n):
        cache.put(str(n % 50), answer(str(n % 50)))
        return cache.get(str(n % 50))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(400))) == [answer(str(n % 50)) for n in range(400)]


def fill(folder: Path, worker: int) -> int:
    cache = RequestCache(folder)
    for n in range(100):
        cache.put(f"{worker % 2}-{n}", answer(str(n)))
    return sum(cache.get(f"{worker % 2}-{n}") == answer(str(n)) for n in range(100))


def test_many_processes_share_one_file(tmp_path):
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(fill, [tmp_path] * 4, range(4))) == [100] * 4
    with sqlite3.connect(tmp_path / "requests.sqlite") as disk:
        assert disk.execute("select count(*) from answers").fetchone() == (200,)
        assert disk.execute("pragma journal_mode").fetchone() == ("wal",)
    disk.close()


def test_a_damaged_file_and_a_folder_that_cannot_be_are_told_in_one_line(tmp_path):
    (tmp_path / "requests.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(
        DataError, match=r"not a database; delete this file.*-o cache=false"
    ) as told:
        RequestCache(tmp_path).get("a")
    assert "\n" not in str(told.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="not a folder"):
        RequestCache(tmp_path / "file").get("a")
