"""A review: keys decide in a real browser, and no other page or name gets in."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from isekai import decisions, files, parquet, review
from isekai.dataset import Dataset, Entry, fingerprint
from isekai.errors import BusyError, DataError, IsekaiError
from isekai.images import encode
from isekai.intake import Rejection
from isekai.reviewing.details import Detail
from isekai.reviewing.pictures import Pictures
from isekai.types import Concept, Group, ImageRecord

pytest_plugins = ["tests.browser"]

EVIL = '<img src=x onerror="document.title=`broken`"><script>document.title="broken"</script>'


def colour(number: int, size: int = 24) -> bytes:
    return encode(Image.new("RGB", (size, size), (number * 37 % 256, number * 91 % 256, number)))


def tiny(path: Path, *, per_concept: int = 4, name: str = "blimel") -> Dataset:
    """A dataset in memory: two groups of three concepts."""
    groups = []
    for group, names in (("fruit", (name, "quorrin", "orange")), ("stone", ("gravvel", "pebble"))):
        concepts = [
            Concept(
                id=f"{group}/{number}",
                name=one,
                role="foil" if one in ("orange", "pebble") else "novel",
                definition=f"What {one} is.",
            )
            for number, one in enumerate(names)
        ]
        groups.append(Group(id=group, title=group, concepts=tuple(concepts)))
    data, entries = {}, []
    for concept in (concept for group in groups for concept in group.concepts):
        for index in range(per_concept):
            picture = colour(len(data))
            data[files.sha256(picture)] = picture
            entries.append(
                Entry(
                    image_id=files.sha256(picture),
                    concept=concept.id,
                    role=concept.role,
                    split="query" if index % 2 else "support",
                    index=index,
                )
            )
    return Dataset(
        path=path,
        fingerprint="0" * 64,
        groups=groups,
        entries=entries,
        fetch=data.__getitem__,
        name="tiny",
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return tiny(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "review.jsonl"


@pytest.fixture
def url(dataset: Dataset, file: Path) -> Iterator[str]:
    with review.serve(dataset, file) as url:
        yield url


def ids(dataset: Dataset) -> list[str]:
    return [entry.image_id for entry in dataset.entries]


def said(file: Path) -> list[tuple[str, str | None]]:
    """Verdict and concept of each row."""
    return [(row.verdict, row.concept) for row in files.read_jsonl(file, decisions.Row)]


# ---------------------------------------------------------------- the server


def ask(
    url: str, place: str = "", body: object = None, path: str | None = None, **headers: str | None
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers. With a body it is what the page would post, but for `headers`."""
    where = urlsplit(url)
    given: dict[str, str | None] = {"Host": where.netloc}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    if body is not None:
        given |= {
            "Origin": f"http://{where.netloc}",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
        }
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(where.netloc, timeout=10)
    connection.putrequest(
        "GET" if body is None else "POST",
        path or where.path + place,
        skip_host=True,
        skip_accept_encoding=True,
    )
    for name, value in given.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders()
    if body is not None:
        connection.send(data)
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


def post(url: str, **asked: object) -> dict[str, object]:
    status, body, _ = ask(url, "decisions", asked)
    assert status == 200, body
    return json.loads(body)


def test_a_decision_is_in_the_file_before_the_answer(dataset, file, url):
    first = ids(dataset)[0]
    told = post(url, image_id=first, verdict="concept", concept="stone/1", note="a pebble")
    assert decisions.read(file)[first] == decisions.Decision(
        image_id=first, verdict="concept", concept="stone/1", note="a pebble"
    )
    assert told["states"] == [
        {"id": first, "verdict": "concept", "concept": "stone/1", "note": "a pebble"}
    ]


STRANGERS = [
    ({"Origin": None}, 403),
    ({"Origin": "null"}, 403),
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Host": "evil.example", "Origin": "http://evil.example"}, 403),
    ({"Host": None}, 403),
    ({"Content_Type": "text/plain"}, 415),
    ({"Content_Length": None}, 411),
    ({"Content_Length": "9999999"}, 413),
    ({"Content_Length": "-1"}, 411),
]


@pytest.mark.parametrize(("headers", "status"), STRANGERS)
def test_no_other_page_can_decide(dataset, file, url, headers, status):
    asked = {"image_id": ids(dataset)[0], "verdict": "drop"}
    assert ask(url, "decisions", asked, **headers)[0] == status
    assert ask(url, "decisions", asked)[0] == 200
    assert len(said(file)) == 1


@pytest.mark.parametrize("place", ["", "content", "changes", "page.js", "decisions"])
def test_whoever_lacks_the_secret_or_comes_by_another_name_sees_nothing(dataset, url, place):
    first = ids(dataset)[0]
    for path in (f"/{place}", f"/wrong/{place}", f"/{'x' * 32}/{place}", f"/{first}"):
        assert ask(url, path=path)[0] == 403
        assert ask(url, body={"image_id": first, "verdict": "drop"}, path=path)[0] == 403
    status, body, _ = ask(url, place, Host="rebound.example")
    assert status == 403
    assert b"no other name" in body


def test_localhost_is_a_name_of_this_machine(dataset, url):
    host = f"localhost:{urlsplit(url).port}"
    asked = {"image_id": ids(dataset)[0], "verdict": "keep"}
    assert ask(url, Host=host)[0] == 200
    assert ask(url, "decisions", asked, Host=host, Origin=f"http://{host}")[0] == 200


REFUSED = [
    (b"{", "not JSON"),
    (b"[" * 9000, "not JSON"),
    (b"\xff", "not JSON"),
    ([], "the request"),
    ({"image_id": None, "verdict": "keep"}, "no picture is named"),
    ({"image_id": "0" * 64, "verdict": "keep"}, "no such picture"),
    ({"image_id": "FIRST", "verdict": "kill"}, "verdict is 'kill'"),
    ({"image_id": "FIRST", "verdict": "keep", "path": "/etc"}, "path is not a field"),
    ({"image_id": "FIRST", "verdict": "concept", "concept": "no/such"}, "no such concept"),
    ({"image_id": "FIRST", "verdict": "keep", "concept": "fruit/0"}, "names no concept"),
    ({"image_id": "FIRST", "verdict": "note", "note": "x" * 2001}, "at most 2000"),
    ({"image_id": "FIRST", "verdict": "note", "note": "\ud800"}, "no text"),
    ({"image_id": "FIRST", "verdict": "undo"}, "nothing is decided about this picture"),
    ({"image_id": None, "verdict": "undo"}, "nothing is left to take back"),
]


@pytest.mark.parametrize(("asked", "told"), REFUSED)
def test_what_is_no_decision_is_refused_with_the_reason(dataset, file, url, asked, told):
    if isinstance(asked, dict) and asked["image_id"] == "FIRST":
        asked = asked | {"image_id": ids(dataset)[0]}
    status, body, _ = ask(url, "decisions", asked)
    assert (status, told in body.decode()) == (400, True), body
    assert said(file) == []


def test_every_answer_forbids_foreign_content_and_only_pictures_are_kept(dataset, url):
    first = ids(dataset)[0]
    for place in ("", "page.js", "content", f"thumbnail/{first}", f"picture/{first}", "nothing"):
        _, _, headers = ask(url, place)
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert ("immutable" in headers["Cache-Control"]) == ("/" in place)
    assert "http" not in "".join(ask(url, name)[1].decode() for name in ("", "page.css", "page.js"))


@pytest.mark.parametrize(
    "place",
    ["../review.py", "..%2freview.py", "page.js/..", "picture/../page.js", "picture/x", "picture"],
)
def test_only_the_page_s_own_files_and_the_dataset_s_pictures_are_served(url, place):
    assert ask(url, place)[0] == 404


def test_pictures_are_sent_as_they_are_and_small(dataset, url):
    first = ids(dataset)[0]
    status, data, headers = ask(url, f"picture/{first}")
    assert (status, headers["Content-Type"], files.sha256(data)) == (200, "image/png", first)
    status, data, headers = ask(url, f"thumbnail/{first}")
    assert (status, headers["Content-Type"]) == (200, "image/webp")
    assert Image.open(io.BytesIO(data)).size == (24, 24)


def test_several_requests_share_a_connection(dataset, url):
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=10)
    for number, image_id in enumerate(ids(dataset)[:3]):
        body = json.dumps({"image_id": image_id, "verdict": "keep", "since": number})
        headers = {"Origin": f"http://{where.netloc}", "Content-Type": "application/json"}
        connection.request("POST", f"{where.path}decisions", body, headers)
        told = json.loads(connection.getresponse().read())
        assert (told["revision"], len(told["states"])) == (number + 1, 1)
    connection.close()


def test_nothing_is_logged_and_an_interrupted_download_is_no_error(dataset, url, capfd):
    for _ in range(3):
        connection = http.client.HTTPConnection(urlsplit(url).netloc)
        connection.request("GET", f"{urlsplit(url).path}content")
        connection.close()
    assert ask(url, "nothing")[0] == 404
    assert capfd.readouterr() == ("", "")


def test_many_threads_write_whole_rows(dataset, file, url):
    def decide(image_id: str) -> None:
        for verdict in ("keep", "drop", "keep"):
            post(url, image_id=image_id, verdict=verdict)

    threads = [threading.Thread(target=decide, args=(id,)) for id in ids(dataset)[:8]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said(file)) == 24
    assert {one.verdict for one in decisions.read(file).values()} == {"keep"}


def test_a_second_review_waits_for_the_first_and_a_taken_port_is_named(dataset, file, url):
    with pytest.raises(BusyError), review.serve(dataset, file):
        pass
    port = urlsplit(url).port
    elsewhere = file.parent / "elsewhere" / "review.jsonl"
    with pytest.raises(IsekaiError, match=rf"port {port}: .*give another --port"):
        with review.serve(dataset, elsewhere, port=port):
            pass
    with review.serve(dataset, elsewhere):  # what failed has let go of the folder
        pass
    with pytest.raises(IsekaiError, match="between 0 and 65535"):
        with review.serve(dataset, elsewhere, port=70000):
            pass


def test_a_file_of_decisions_that_is_broken_is_not_written_to(dataset, file):
    file.write_text('{"image_id": 1}\n')
    with pytest.raises(DataError, match=r"review\.jsonl: line 1"), review.serve(dataset, file):
        pass
    assert file.read_text() == '{"image_id": 1}\n'


# ---------------------------------------------------------------- pictures


def test_small_pictures_stay_in_memory_up_to_a_bound(dataset):
    pictures = Pictures(dataset, {}, None, kept_bytes=400)
    first = [pictures.small(id).data for id in ids(dataset)]
    assert sum(map(len, pictures._small.values())) <= 400 < sum(map(len, first))
    assert [pictures.small(id).data for id in ids(dataset)] == first


def test_large_pictures_are_made_small_upright_and_other_formats_shown_as_png(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (900, 300)).save(buffer, "TIFF")
    data = buffer.getvalue()
    one = Entry(image_id=files.sha256(data), concept="g/c", role="novel", split="query", index=0)
    group = Group(id="g", title="g", concepts=(Concept(id="g/c", name="c", role="novel"),))
    found = Dataset(
        path=tmp_path, fingerprint="", groups=[group], entries=[one], fetch=lambda id: data
    )
    pictures = Pictures(found, {}, None)
    assert Image.open(io.BytesIO(pictures.small(one.image_id).data)).size == (320, 107)
    assert pictures.whole(one.image_id).kind == "image/png"


def test_what_cannot_be_decoded_is_told_and_harms_nothing(tmp_path, file):
    dataset = tiny(tmp_path)
    first, second = ids(dataset)[:2]
    fetch = dataset._fetch
    dataset._fetch = lambda id: b"damaged" if id == first else fetch(id)
    with review.serve(dataset, file) as url:
        status, body, _ = ask(url, f"thumbnail/{first}")
        assert (status, b"damaged" in body) == (422, True)
        assert ask(url, f"thumbnail/{second}")[0] == 200


# ---------------------------------------------------------------- a dataset on disk


@pytest.fixture
def on_disk(tiny_images: Path, tmp_path: Path) -> Path:
    """A dataset of the tiny images, as build writes it: one left out of each concept's twelve."""
    folder = tmp_path / "tiny"
    groups = files.read_json(tiny_images / "groups.json", tuple[Group, ...])
    concepts = {concept.id: concept for group in groups for concept in group.concepts}
    records = files.read_jsonl(tiny_images / "ledger.jsonl", ImageRecord)
    scored = [replace(one, scores={"clip.own": (7 * one.index % 12) / 12}) for one in records]
    entries = []
    for split in parquet.SPLITS:
        part = range(6) if split == "support" else range(6, 11)
        rows = [parquet.Row(one, concepts[one.concept]) for one in scored if one.index in part]
        parquet.write(
            folder, split, rows, groups, lambda one: (tiny_images / one.path).read_bytes()
        )
        entries += [
            Entry(
                image_id=row.record.id,
                concept=row.concept.id,
                role=row.concept.role,
                split=split,
                index=row.record.index,
            )
            for row in rows
        ]
    paths = {(one.concept, one.index): one.path for one in records}
    left_out = [
        Rejection.of(one, "near-duplicate", paths[one.concept, 10])
        for one in records
        if one.index == 11
    ]
    files.write_json(folder / "groups.json", groups)
    files.write_jsonl(folder / "rejected.jsonl", left_out)
    manifest = {
        "kind": "dataset",
        "complete": True,
        "name": "tiny",
        "title": "Tiny",
        "fingerprint": fingerprint(groups, entries),
        "images": len(entries),
        "splits": {split: sum(e.split == split for e in entries) for split in parquet.SPLITS},
        "rejected": len(left_out),
        **{key: {} for key in ("request", "settings", "environment", "checks")},
    }
    files.write_json(folder / "manifest.json", manifest)
    return folder


def started(*arguments: object) -> tuple[subprocess.Popen, str]:
    """A review in a process of its own, and its address."""
    script = (
        "import sys; from pathlib import Path; from isekai import review; "
        "print(review.run(Path(sys.argv[1]), images=Path(sys.argv[2]), open_browser=False))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, process.stderr.readline().strip()


def test_a_kill_loses_nothing_and_ctrl_c_says_what_was_decided(on_disk, tiny_images):
    first, second = ids(Dataset.open(on_disk))[:2]
    process, url = started(on_disk, tiny_images)
    post(url, image_id=first, verdict="drop", note="blurred")
    post(url, image_id=second, verdict="keep")
    process.kill()
    process.communicate()
    with (on_disk / "review.jsonl").open("a") as torn:
        torn.write('{"image_id":"')
    process, url = started(on_disk, tiny_images)
    content = json.loads(ask(url, "content")[1])
    assert [(one["id"], one["verdict"], one["note"]) for one in content["states"]] == [
        (first, "drop", "blurred"),
        (second, "keep", ""),
    ]
    post(url, image_id=second, verdict="drop")
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out.strip() == str(on_disk / "review.jsonl")
    assert "2 pictures decided, 1 of them now" in err
    assert "the next `isekai build` obeys" in err
    assert {one.verdict for one in decisions.read(on_disk / "review.jsonl").values()} == {"drop"}


def test_what_the_files_tell_is_shown_and_what_was_left_out_can_be_kept(on_disk, tiny_images):
    process, url = started(on_disk, tiny_images)
    content = json.loads(ask(url, "content")[1])
    assert (content["name"], content["scores"]) == ("tiny", ["clip.own"])
    assert len(content["pictures"]) == 99
    assert content["pictures"][0]["scores"] == {"clip.own": 0.0}
    assert content["pictures"][0]["prompt"] == "a photo of blimel"
    out = content["left_out"][0]
    places = {one["id"]: (one["concept"], one["index"]) for one in content["pictures"]}
    assert (out["reason"], places[out["other_id"]]) == ("near-duplicate", (out["concept"], 10))
    assert files.sha256(ask(url, f"picture/{out['id']}")[1]) == out["id"]
    post(url, image_id=out["id"], verdict="keep")
    process.kill()
    process.communicate()
    kept = decisions.read(on_disk / "review.jsonl")[out["id"]]
    assert kept == decisions.Decision(image_id=out["id"], verdict="keep")


def test_a_dataset_or_folder_of_images_that_is_none_is_refused(on_disk, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        review.run(tmp_path / "none", open_browser=False)
    with pytest.raises(DataError, match="the one that the dataset was built from"):
        review.run(on_disk, images=tmp_path / "none", open_browser=False)


def test_decisions_name_the_file_as_it_was_drawn(dataset, file):
    first, second = ids(dataset)[:2]
    drawn = files.sha256(b"the large original")
    with review.serve(dataset, file, details={first: Detail(original_id=drawn)}) as url:
        told = post(url, image_id=first, verdict="drop")
        post(url, image_id=second, verdict="keep")
        assert told["states"][0]["id"] == first
        assert set(decisions.read(file)) == {drawn, second}
        assert post(url, image_id=None, verdict="undo")["about"] == second
        assert post(url, image_id=None, verdict="undo")["about"] == first
    assert decisions.read(file) == {}


def test_no_file_outside_the_folder_and_none_that_changed_is_shown(dataset, file, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    secret, inside = colour(200), colour(201)
    (tmp_path / "secret.png").write_bytes(secret)
    (images / "link.png").symlink_to(tmp_path / "secret.png")
    (images / "changed.png").write_bytes(secret)
    (images / "there.png").write_bytes(inside)
    given = {
        "../secret.png": files.sha256(secret),
        str(tmp_path / "secret.png"): files.sha256(secret + b"1"),
        "link.png": files.sha256(secret + b"2"),
        "changed.png": files.sha256(colour(202)),
        "there.png": files.sha256(inside),
    }
    left_out = [
        Rejection(image_id=id, path=path, concept="fruit/0", reason="near-duplicate")
        for path, id in given.items()
    ]
    with review.serve(dataset, file, left_out=left_out, images=images) as url:
        statuses = [ask(url, f"picture/{id}")[0] for id in given.values()]
    assert statuses == [404, 404, 404, 422, 200]


# ---------------------------------------------------------------- in a browser


def ready(page):
    page.wait_for_selector("html[data-ready]")
    return page


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def wait_for_text(page, selector: str, text: str) -> None:
    page.locator(selector, has_text=text).wait_for()


def wait_for_rows(page, file: Path, count: int) -> list[tuple[str, str | None]]:
    """The file's rows, once there are that many: keys don't wait for the disk."""
    for _ in range(200):
        if file.exists() and len(said(file)) >= count:
            break
        page.wait_for_timeout(20)
    assert len(said(file)) == count
    return said(file)


def test_keys_decide_go_on_and_come_back(dataset, file, url, open_page):
    page = ready(open_page(url))
    press(page, "k", "d", "ArrowRight", "j", "ArrowLeft", "k")
    rows = wait_for_rows(page, file, 3)
    assert [verdict for verdict, _ in rows] == ["keep", "drop", "keep"]
    first = ids(dataset)
    assert list(decisions.read(file)) == [first[0], first[1], first[3]]
    assert page.inner_text("#place") == "5 of 20"
    assert "3 of 20 decided" in page.inner_text("#counts")
    assert page.inner_text("#status") == "blimel, picture 4: kept"
    press(page, "u", "u")
    wait_for_rows(page, file, 5)
    wait_for_text(page, "#place", "2 of 20")
    assert decisions.read(file) == {
        first[0]: decisions.Decision(image_id=first[0], verdict="keep")
    }


def test_a_reload_keeps_what_was_decided_and_where_one_was(dataset, file, url, open_page):
    page = ready(open_page(url))
    press(page, "d", "k", "ArrowRight")
    wait_for_rows(page, file, 2)
    page.select_option("#concept", "fruit/0")
    page.wait_for_url("**concept=fruit%2F0*")
    page.reload()
    ready(page)
    assert page.inner_text("#place") == "4 of 4"
    assert "2 of 20 decided" in page.inner_text("#counts")
    page.click("[aria-label='Previous picture']")
    press(page, "ArrowLeft")
    assert page.inner_text(".stage .said") == "✓ kept"
    press(page, "u")
    wait_for_rows(page, file, 3)
    assert list(decisions.read(file)) == ids(dataset)[:1]


def test_wrong_concept_takes_a_digit_a_search_or_none(file, url, open_page):
    page = ready(open_page(url))
    press(page, "w", "2")
    press(page, "w", "g", "r", "a", "Enter")
    press(page, "w", "0")
    press(page, "w", "Escape")
    press(page, "w", "ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp", "Enter")
    rows = wait_for_rows(page, file, 4)
    assert rows == [("concept", one) for one in ("fruit/2", "stone/0", None, None)]
    press(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert page.inner_text(".stage .said") == "⇄ shows gravvel"


def test_a_held_key_decides_once_and_shortcuts_of_the_browser_never(file, url, open_page):
    page = ready(open_page(url))
    page.keyboard.down("k")
    page.keyboard.down("k")  # as the system repeats a key that is held
    page.keyboard.up("k")
    press(page, "Control+d", "Alt+k", "Control+u", "d")
    assert wait_for_rows(page, file, 2) == [("keep", None), ("drop", None)]


def test_texts_of_strangers_are_shown_as_text(tmp_path, file, open_page):
    left_out = [Rejection(image_id=None, path=EVIL, concept="fruit/0", reason=EVIL, other=EVIL)]
    found = tiny(tmp_path, name=EVIL)
    found.name = EVIL
    told = {ids(found)[0]: Detail(prompt=EVIL, scores={EVIL: 0.5})}
    with review.serve(found, file, details=told, left_out=left_out) as url:
        page = ready(open_page(url))
        press(page, "n")
        page.keyboard.insert_text(EVIL)
        press(page, "Enter")
        wait_for_rows(page, file, 1)
        assert page.inner_text(".stage .noted") == f"✎ {EVIL}"
        assert page.inner_text(".facts").count(EVIL) == 1
        page.reload()
        ready(page)
        press(page, "k", "w", "Escape", "g")
        page.select_option("#order", EVIL)
        page.click("[data-view=left]")
        assert page.inner_text(".out p") == EVIL
        assert page.title() == f"Review {EVIL}"
        assert not page.query_selector_all("body script, img[src=x]")


def test_a_note_keeps_the_verdict_and_a_verdict_the_note(dataset, file, url, open_page):
    page = ready(open_page(url))
    press(page, "k", "ArrowLeft", "n")
    page.keyboard.type("two of")
    press(page, "Shift+Enter")
    page.keyboard.type("them, k d w")
    press(page, "Enter", "d")
    wait_for_rows(page, file, 3)
    one = decisions.read(file)[ids(dataset)[0]]
    assert (one.verdict, one.note) == ("drop", "two of\nthem, k d w")
    press(page, "n", "Escape", "n")
    page.click("#note-cancel")
    press(page, "k")
    wait_for_rows(page, file, 4)


def test_two_tabs_see_each_other_s_decisions(dataset, file, url, open_page):
    first = ready(open_page(url))
    second = ready(open_page(url, beside=first))
    first.bring_to_front()
    press(first, "k", "k")
    wait_for_rows(first, file, 2)
    second.bring_to_front()
    second.evaluate("window.dispatchEvent(new Event('focus'))")
    wait_for_text(second, "#counts", "2 of 20")
    assert second.inner_text(".stage .said") == "✓ kept"
    press(second, "d")
    wait_for_rows(second, file, 3)
    first.bring_to_front()
    wait_for_text(first, "#counts", "1 dropped")
    assert [one.verdict for one in decisions.read(file).values()] == ["drop", "keep"]


def test_the_grid_is_gone_through_with_arrows(dataset, file, url, open_page):
    page = ready(open_page(url))
    press(page, "g", "ArrowRight", "d", "ArrowDown", "k")
    wait_for_rows(page, file, 2)
    first = ids(dataset)
    assert {id: one.verdict for id, one in decisions.read(file).items()} == {
        first[1]: "drop",
        first[6]: "keep",  # straight below the third
    }
    assert page.get_attribute(f"#grid [data-id='{first[1]}']", "aria-label") == (
        "blimel, picture 2, dropped"
    )
    press(page, "Enter")
    assert page.inner_text("#place") == "8 of 20"
    press(page, "u")
    wait_for_rows(page, file, 3)
    wait_for_text(page, "#place", "7 of 20")


def test_filters_show_what_is_undecided_and_low_scores_first(dataset, file, open_page):
    order = ids(dataset)
    details = {id: Detail(scores={"clip.own": -place / 20}) for place, id in enumerate(order[:-1])}
    with review.serve(dataset, file, details=details) as url:
        page = ready(open_page(url))
        page.select_option("#order", "clip.own")
        page.click("[aria-label='Next picture']")
        press(page, "d")
        wait_for_rows(page, file, 1)
        assert list(decisions.read(file)) == [order[-3]]
        page.select_option("#show", "undecided")
        press(page, "g")
        shown = page.eval_on_selector_all("#grid .thumb", "all => all.map(e => e.dataset.id)")
        assert shown == [order[-2], *reversed(order[:-3]), order[-1]]
        page.select_option("#show", "drop")
        assert page.eval_on_selector_all("#grid .thumb", "all => all.length") == 1
        page.select_option("#show", "keep")
        assert "No picture" in page.inner_text("#grid")


def test_what_was_left_out_is_kept_after_all_with_a_key(on_disk, tiny_images, open_page):
    found, file = Dataset.open(on_disk), on_disk / "review.jsonl"
    left_out = files.read_jsonl(on_disk / "rejected.jsonl", Rejection)
    with review.serve(found, file, left_out=left_out, images=tiny_images) as url:
        page = ready(open_page(url))
        page.click("[data-view=left]")
        page.focus(".out >> nth=1")
        press(page, "k")
        wait_for_rows(page, file, 1)
        assert "kept after all" in page.inner_text(".out >> nth=1")
        page.click(".out >> nth=0 >> text=Drop for good")
        page.click(".out >> nth=1 >> text=Take back")
        wait_for_rows(page, file, 3)
    assert {id: one.verdict for id, one in decisions.read(file).items()} == {
        left_out[0].image_id: "drop"
    }


def test_a_decision_that_is_not_saved_is_not_shown_as_one(dataset, file, open_page):
    with review.serve(dataset, file) as url:
        page = ready(open_page(url, failing=True))
        press(page, "k")
        wait_for_rows(page, file, 1)
    press(page, "d")
    page.wait_for_selector("#alert:visible")
    assert "Not saved: blimel, picture 2" in page.inner_text("#alert")
    assert "1 of 20 decided" in page.inner_text("#counts")
    assert page.inner_text("#place") == "2 of 20"
    assert said(file) == [("keep", None)]


class _Evil(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>evil</title><link rel=icon href=data:,>")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_another_site_in_the_same_browser_can_neither_read_nor_decide(
    dataset, file, url, open_page
):
    body = json.dumps({"image_id": ids(dataset)[0], "verdict": "drop"})
    with ThreadingHTTPServer(("127.0.0.1", 0), _Evil) as evil:
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        own = open_page(url, failing=True)
        ready(own)
        page = own.context.new_page()
        page.goto(f"http://127.0.0.1:{evil.server_port}/")
        attack = """async ([url, body, mode, type]) => {
            const given = { method: "POST", mode, body, headers: { "Content-Type": type } };
            const answer = await fetch(url + "decisions", given).catch(() => null);
            return answer && answer.type;
        }"""
        assert page.evaluate(attack, [url, body, "no-cors", "text/plain"]) is None
        assert page.evaluate(attack, [url, body, "cors", "application/json"]) is None
        look = "url => fetch(url + 'content').then(() => 'read', () => 'refused')"
        assert page.evaluate(look, url) == "refused"
        framed = """url => new Promise((done) => {
            const frame = document.createElement("iframe");
            frame.onload = () => done(frame.contentDocument === null);
            frame.src = url;
            document.body.append(frame);
        })"""
        assert page.evaluate(framed, url)
        assert not page.frames[1].query_selector("#actions")
        evil.shutdown()
    assert said(file) == []


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (1280, True)])
def test_the_page_fits_a_phone_and_a_desk_by_day_and_night(dataset, file, open_page, width, dark):
    left_out = [Rejection(image_id=None, path=None, concept="fruit/0", reason="x" * 300)]
    with review.serve(dataset, file, left_out=left_out) as url:
        page = ready(open_page(url, width=width, dark=dark))
        for view in ("single", "grid", "left"):
            page.click(f"[data-view={view}]")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.click("[data-view=single]")
        page.click("[data-act=keep]")
        wait_for_rows(page, file, 1)
        page.click("[data-act=concept]")
        page.click("#choice-list li >> nth=0")
        assert wait_for_rows(page, file, 2)[1] == ("concept", "fruit/1")
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3
        assert (brightness < 60) == dark


def test_everything_that_can_be_pressed_has_a_name_and_dialogs_give_focus_back(url, open_page):
    page = ready(open_page(url))
    nameless = """() => [...document.querySelectorAll("button, select, input, textarea, img")]
        .filter((e) => !(e.innerText || e.ariaLabel || e.alt || e.labels?.length
            || e.getAttribute("aria-labelledby") || e.querySelector("img")?.alt)).map((e) => e.outerHTML)"""
    for keys in ((), ("g",), ("g", "w")):
        press(page, *keys)
        assert page.evaluate(nameless) == []
    press(page, "Escape", "?")
    assert page.is_visible("#help")
    press(page, "Escape", "g", "Tab")
    press(page, "Shift+Tab", "ArrowRight", "n", "Escape")
    assert page.evaluate("document.activeElement.className") == "thumb"
    assert page.get_attribute("#status", "aria-live") == "polite"


def test_two_thousand_pictures_are_fetched_as_they_come_into_sight(tmp_path, file, open_page):
    found = tiny(tmp_path, per_concept=1)
    base = found.entries[0]
    entries = [
        replace(base, image_id=files.sha256(f"{number}".encode()), index=number)
        for number in range(2000)
    ]
    many = Dataset(
        path=tmp_path, fingerprint="", groups=found.groups, entries=entries, fetch=lambda id: b""
    )
    with review.serve(many, file) as url:
        page = open_page(url, failing=True)  # these pictures can't be shown, and need not be
        asked = []
        page.on("request", lambda one: asked.append(one.url) if "thumbnail" in one.url else None)
        ready(page)
        press(page, "g", "k", "k", "d")
        wait_for_rows(page, file, 3)
        assert page.eval_on_selector_all("#grid .thumb", "all => all.length") == 2000
        assert 0 < len(asked) < 400
