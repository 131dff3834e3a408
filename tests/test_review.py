"""The server of a review: what is decided is kept, and no other page or name gets in."""

import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from isekai import decisions, files, review
from isekai.dataset import Dataset, Entry
from isekai.errors import BusyError, DataError, IsekaiError
from isekai.intake import Rejection
from isekai.reviewing.details import Detail
from isekai.reviewing.pictures import Pictures
from isekai.types import Concept, Group
from tests.reviews import colour, ids, said, tiny, write


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


@pytest.fixture
def on_disk(tiny_images: Path, tmp_path: Path) -> Path:
    return write(tmp_path / "tiny", tiny_images)


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
    taken = pytest.raises(IsekaiError, match=rf"port {port}: .*give another --port")
    with taken, review.serve(dataset, elsewhere, port=port):
        pass
    with review.serve(dataset, elsewhere):  # what failed has let go of the folder
        pass
    none = pytest.raises(IsekaiError, match="between 0 and 65535")
    with none, review.serve(dataset, elsewhere, port=70000):
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
