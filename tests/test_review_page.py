"""The page of a review in a real browser: keys are pressed, and the file has what they mean."""

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from isekai import decisions, files, review
from isekai.dataset import Dataset
from isekai.intake import Rejection
from isekai.reviewing.details import Detail
from tests.reviews import ids, said, tiny, write

pytest_plugins = ["tests.browser"]

EVIL = '<img src=x onerror="document.title=`broken`"><script>document.title="broken"</script>'


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
    assert decisions.read(file) == {first[0]: decisions.Decision(image_id=first[0], verdict="keep")}


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
            || e.getAttribute("aria-labelledby") || e.querySelector("img")?.alt))
        .map((e) => e.outerHTML)"""
    for keys in ((), ("g",), ("g", "w")):
        press(page, *keys)
        assert page.evaluate(nameless) == []
    press(page, "Escape", "?")
    assert page.is_visible("#help")
    press(page, "Escape", "g", "Tab")
    press(page, "Shift+Tab", "ArrowRight", "n", "Escape")
    assert page.evaluate("document.activeElement.className") == "thumb"
    assert page.get_attribute("#status", "aria-live") == "polite"


def test_a_picture_that_a_build_moved_is_said_to_be_moved(dataset, file, open_page):
    here = dataset.entries[0]
    row = decisions.Row(image_id=here.image_id, verdict="concept", concept=here.concept)
    files.write_jsonl(file, [row])
    with review.serve(dataset, file) as url:
        page = ready(open_page(url))
        press(page, "ArrowLeft")
        assert page.inner_text(".stage .said") == "⇄ moved here"


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
