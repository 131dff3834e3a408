"""A real browser for tests: it presses keys, and tells what a page does wrong.

    pytest_plugins = ["tests.browser"]

    def test_…(open_page):
        page = open_page(url, width=400)
        page.keyboard.press("k")

A test fails if one of its pages raises an error, breaks its own security policy or asks another
server for anything. Without Chromium such tests are skipped.
"""

import shutil
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Chromium, for one module: while it is open, nothing else may run an event loop."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser here: none of {', '.join(NAMES)}")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser) -> Iterator[Callable]:
    """`open_page(url, width=1280, height=800, dark=False, failing=False, beside=None)` -> a page.

    `failing` allows errors on the console; `beside` opens another tab of that page's window.
    """
    contexts, wrong = [], []

    def opened(url, *, width=1280, height=800, dark=False, failing=False, beside=None):
        if beside is None:
            scheme = "dark" if dark else "light"
            size = {"width": width, "height": height}
            context = browser.new_context(viewport=size, color_scheme=scheme)
            context.set_default_timeout(10_000)
            contexts.append(context)
        else:
            context = beside.context
        page = context.new_page()
        own = urlsplit(url).netloc
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", lambda asked: wrong.extend(_foreign(asked.url, own)))
        if not failing:
            page.on("console", lambda said: wrong.extend(_complaint(said)))
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not wrong


def _foreign(url: str, own: str) -> list[str]:
    where = urlsplit(url)
    return [] if where.netloc == own or where.scheme == "data" else [f"asked for {url}"]


def _complaint(said) -> list[str]:
    return [f"console: {said.text}"] if said.type in ("error", "warning") else []
