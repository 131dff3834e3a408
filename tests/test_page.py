"""The page shows all wrong answers with their pictures, loads nothing and runs no foreign text."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from isekai import bench, runs
from isekai.dataset import Dataset
from isekai.reports import mistakes, page
from isekai.runs import Run
from isekai.setup import Setup

CONTROLS = ("blind", "text", "false=0.5", "false=1", "words=true")


def bench_run(data: Path, out: Path, **changes) -> Run:
    """A run of oracles, in two seconds."""
    asked = {
        "models": ("planted:binder", "planted:namer", "planted:first"),
        "tasks": ("twin",),
        "shots": (0, 1, 2),
        "episodes": 1,
        "queries": 2,
        "controls": CONTROLS,
    }
    bench.run(Setup(**{**asked, **changes, "data": str(data)}), out=out)
    return runs.read(out)


@pytest.fixture(scope="module")
def run(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return bench_run(tiny_dataset, tmp_path_factory.mktemp("page") / "oracles")


@pytest.fixture(scope="module")
def images(tiny_dataset: Path) -> Callable[[str], bytes]:
    dataset = Dataset.open(tiny_dataset)
    return lambda image_id: dataset.image(image_id).data


class Page(HTMLParser):
    """Tags with attributes, the texts outside scripts and styles, and these."""

    VOID = frozenset({"meta", "input", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]][-1] += data
        elif data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def policy(self) -> str:
        return next(a["content"] for _, a in self.tags if a.get("http-equiv")) or ""

    @property
    def data(self) -> dict:
        return json.loads(self.inside["script"][0])


@pytest.fixture(scope="module")
def shown(run: Run, images) -> str:
    return page.html(run, images)


def missed(run: Run) -> dict[tuple[str, int, int], list]:
    """Every question that someone got wrong -> all its answers."""
    asked: dict = {}
    for row in run.predictions:
        asked.setdefault((row.episode_id, row.shots, row.query), []).append(row)
    return {key: rows for key, rows in asked.items() if any(r.outcome != "correct" for r in rows)}


def test_every_question_with_a_wrong_answer_is_there_with_all_that_was_said(run, shown):
    data = Page(shown).data
    texts, episodes = data["texts"], {episode.id: episode for episode in run.episodes}
    expected = missed(run)
    assert len(expected) > 50
    assert len(data["questions"]) == len(expected)
    for question, (key, rows) in zip(data["questions"], expected.items(), strict=True):
        id, shots, number = key
        there = data["episodes"][question["episode"]]
        assert (there["id"], question["shots"]) == (id, shots)
        assert texts[question["target"]] == rows[0].target
        assert texts[question["shows"]] == episodes[id].queries[number].concept
        assert [texts[a["model"]] for a in question["answers"]] == [r.model for r in rows]
        for answer, row in zip(question["answers"], rows, strict=True):
            assert answer["outcome"] == row.outcome
            if row.outcome == "wrong":
                assert texts[answer["answer"]] == row.answer
                assert answer["text"] == row.text
            else:
                assert set(answer) == {"model", "outcome"}


def test_the_support_set_is_shown_as_the_model_saw_it(run, shown):
    data = Page(shown).data
    episodes = {episode.id: episode for episode in run.episodes}
    kinds = {"picture": 0, "grey": 1, "nothing": 2}
    seen = set()
    for question in data["questions"]:
        there = data["episodes"][question["episode"]]
        episode = episodes[there["id"]]
        assert question["cut"] == 2 * question["shots"]
        support = there["support"][: question["cut"]]
        assert len(support) == question["cut"]
        for (picture, word, kind, is_false), example in zip(support, episode.support, strict=False):
            own = episode.labels[example.concept]
            assert data["texts"][word] == (example.word or own)
            assert is_false == (example.word not in (None, own))
            assert kind == kinds[example.shown]
            assert (picture >= 0) == (example.shown == "picture")
            seen.add((example.shown, is_false))
    assert seen >= {("picture", 0), ("grey", 0), ("nothing", 0), ("picture", 1)}


def decoded(url: str) -> Image.Image:
    head, body = url.split(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


def test_each_picture_is_there_once_small_and_is_the_one_that_was_shown(run, images, shown):
    data = Page(shown).data
    pictures = data["pictures"]
    assert len(pictures) == len(set(pictures))
    assert len(pictures) <= 9 * 12
    sides = set()
    for url in pictures:
        small = decoded(url)
        assert small.format == "WEBP"
        sides.add(max(small.size))
    assert max(sides) <= 160
    for question, (id, _, number) in zip(data["questions"][:8], missed(run), strict=False):
        episode = next(episode for episode in run.episodes if episode.id == id)
        small = decoded(pictures[question["query"][0]])
        whole = Image.open(io.BytesIO(images(episode.queries[number].image_id)))
        pixels = np.asarray(whole.convert("RGB").resize(small.size), float)
        assert np.abs(pixels - np.asarray(small.convert("RGB"), float)).mean() < 12


def test_the_page_tells_verdicts_numbers_and_how_it_was_made(run, shown):
    parsed = Page(shown)
    texts = parsed.texts
    words = {told["verdict"] for told in run.told["verdicts"]["twin"].values()}
    assert words <= set(texts)
    for wanted in (
        "planted:namer",
        "blind",
        "support pictures grey",
        "false=0.5",
        run.config.dataset,
    ):
        assert wanted in texts
    assert "Nothing failed." in texts
    assert run.config.template.query_question in texts
    assert {"strategy", "namer", "python", "numpy", "seeds"} <= set(texts)
    assert {"svg", "table", "form", "noscript"} <= {tag for tag, _ in parsed.tags}
    assert parsed.open == []


def test_ids_of_the_two_drawings_are_apart_and_all_that_is_referred_to_is_there(shown):
    parsed = Page(shown)
    ids = [a["id"] for _, a in parsed.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in parsed.tags:
        for name, value in attributes.items():
            if name in ("href", "xlink:href", "clip-path", "style"):
                referred = re.findall(r"(?:^|url\()#([\w-]+)", value or "")
                assert set(referred) <= set(ids)


def test_nothing_is_loaded_and_only_the_pages_own_script_may_run(shown):
    parsed = Page(shown)
    _, script = parsed.inside["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in parsed.policy
    assert "default-src 'none'" in parsed.policy
    assert "unsafe-inline" not in parsed.policy.split("style-src")[0]
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", script + parsed.inside["style"][0])
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", script)
    for tag, attributes in parsed.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert (attributes.get("href") or "#").startswith("#")


def test_the_same_run_gives_the_same_page(run, images, shown):
    assert page.html(run, images) == shown


# ---------------------------------------------------------------- strangers


HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "javascript:alert(1)",
    "<!--<script>",
    "{{ 7 * 7 }}{% raw %}",
    "\x00\x1b[31m\u202e\u2066evil\ud800",
    "]]></svg><style>*{display:none}</style>",
]


def saying(run: Run, *texts: str) -> Run:
    """The run, had its models said these, failed so, and been called so."""
    first, second, third = run.config.models
    name = " ".join(texts)
    rows = []
    for number, row in enumerate(run.predictions):
        text = texts[number % len(texts)]
        if row.model == first:
            row = replace(row, outcome="wrong", answer=row.target, text=text, finish=text)
        elif row.model == second:
            row = replace(row, outcome="failed", answer=None, text="", error=text)
        else:
            row = replace(row, model=name, outcome="abstain", answer=None, text=text)
        rows.append(row)
    return replace(
        run,
        folder=run.folder.with_name(re.sub(r"[/\x00\ud800]", "", name)[:200]),
        config=replace(run.config, models=[first, second, name]),
        predictions=tuple(rows),
        results=tuple(replace(r, model=name) if r.model == third else r for r in run.results),
        told={
            **run.told,
            "failures": {name: 3},
            "usage": {name: {"cost": 1.25, "prompt_tokens": 12345.0}},
            "verdicts": {name: {name: {"verdict": name, "words": name}}},
        },
    )


def shape(parsed: Page) -> list[tuple[str, tuple[str, ...]]]:
    """Tags and the names of their attributes outside of the drawings, whose lines may vary."""
    tags = [(tag, tuple(a)) for tag, a in parsed.tags]
    own = {"svg", "g", "path", "defs", "use", "text", "clippath", "rect", "tspan"}
    return [one for one in tags if one[0] not in own]


def test_hostile_text_stays_text(run, images):
    parsed = Page(page.html(saying(run, *HOSTILE), images, most=60, warnings=HOSTILE))
    plain = Page(page.html(saying(run, "a: time-out"), images, most=60, warnings=["b"] * 7))
    assert shape(parsed) == shape(plain)
    assert parsed.inside["script"][1] == plain.inside["script"][1]
    assert parsed.open == []
    data = parsed.data
    assert len(data["questions"]) == 60
    said = {a[key] for q in data["questions"] for a in q["answers"] for key in a.keys() & {"text"}}
    failed = {a["error"] for q in data["questions"] for a in q["answers"] if "error" in a}
    seen = {"⟨U+0000⟩⟨U+001B⟩[31m⟨U+202E⟩⟨U+2066⟩evil⟨U+D800⟩", *HOSTILE} - {HOSTILE[5]}
    assert said == failed == seen
    everything = json.dumps(data, ensure_ascii=False) + " ".join(parsed.texts)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", everything)
    text = " ".join(plain.texts)
    assert "1.25 US dollars, 12,345 prompt tokens" in text
    assert "What failed, and why 3 × a: time-out" in text


@given(text=st.text(max_size=40))
def test_json_in_a_page_ends_no_element_whatever_it_holds(text):
    inert = page.inert_json({"text": [text, f"</script>{text}"]})
    assert not re.search("[<>&\u2028\u2029]", inert)
    assert json.loads(inert) == {"text": [text, f"</script>{text}"]}


# ---------------------------------------------------------------- what is left out


def test_what_is_left_out_is_said_and_what_stays_is_spread_over_all_cells(run, images):
    cells = {
        (e.control, shots) for e in run.episodes for (id, shots, _) in missed(run) if id == e.id
    }
    parsed = Page(page.html(run, images, most=len(cells)))
    data = parsed.data
    found = {
        (data["texts"][data["episodes"][q["episode"]]["control"]], q["shots"])
        for q in data["questions"]
    }
    assert found == cells
    assert len(data["questions"]) == len(cells)
    total = len(missed(run))
    told = next(text for text in parsed.texts if "left out" in text)
    assert f"Shown are {len(cells)} of the questions" in told
    assert f"{total - len(cells)} are left out" in told


def test_without_wrong_answers_there_is_no_script_and_without_controls_no_verdict(
    tiny_dataset, images, tmp_path
):
    plain = bench_run(tiny_dataset, tmp_path / "plain", models=("planted:first",), controls=())
    right = tuple(replace(row, outcome="correct") for row in plain.predictions)
    parsed = Page(page.html(replace(plain, predictions=right), images))
    assert parsed.inside["script"] == []
    assert "Every question was answered right by every model." in parsed.texts
    sections = [a["id"] for tag, a in parsed.tags if tag == "section"]
    assert sections == ["table", "curves", "made", "mistakes"]


def test_a_picture_that_cannot_be_decoded_is_an_empty_place(run):
    data = mistakes.collect(run, lambda image_id: b"no picture", most=5).data
    assert set(data["pictures"]) == {""}


def test_the_paper_protocol_has_an_episode_for_each_question(tiny_dataset, images, tmp_path):
    paper = bench_run(
        tiny_dataset, tmp_path / "paper", models=("planted:first",), protocol="paper", controls=()
    )
    data = mistakes.collect(paper, images, most=5000).data
    assert len(data["questions"]) == len(missed(paper))
    assert all(
        len(data["episodes"][q["episode"]]["support"]) == 2 * q["shots"] for q in data["questions"]
    )


# ---------------------------------------------------------------- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def rendered(html: str, folder: Path, flags: Sequence[str] = ()) -> str:
    """The page's elements after its script ran, as Chromium has them."""
    path = folder / "page.html"
    path.write_text(html)
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-sync", *flags,
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.decode()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_script_draws_the_first_page_and_runs_nothing_else(run, images, tmp_path):
    text = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    shown = Page(rendered(page.html(saying(run, text), images, most=30), tmp_path))
    cards = [a for _, a in shown.tags if a.get("class") == "question"]
    assert len(cards) == 20
    assert "questions 1–20 of 30" in shown.texts
    assert text in shown.texts
    assert "owned" not in shown.texts
    pictures = [a["src"] for tag, a in shown.tags if tag == "img"]
    assert len(pictures) > 20
    assert all(source.startswith("data:image/webp;base64,") for source in pictures)
