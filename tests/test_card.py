"""The dataset card: what it tells, and that nobody's text becomes markup."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from isekai import card
from isekai.parquet import COLUMNS, Row
from isekai.types import Concept, Group, ImageRecord
from tests.conftest import tiny_groups

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://tracker.example/a.png)",
    "https://tracker.example and www.tracker.example",
    "a | b | c",
    "two\nlines\r\n\n# heading",
    "`code` **bold** ~~gone~~ $x^2$",
    "---\nlicense: mit",
    "right\u202eto left",
    "&lt;b&gt; &copy;",
    "ends with a backslash \\",
]


def facts(text: str = "plain", *, source: str = "procedural", left_out=None) -> card.Facts:
    concept = Concept(id="g/c", name=text, role="novel", novelty="form", definition=text)
    foil = Concept(id="g/f", name="foil", role="foil", definition="")
    group = Group(id="g", title=text, concepts=(concept, foil))
    record = ImageRecord(
        id="0",
        path="g/c/0000.png",
        concept="g/c",
        index=0,
        width=1,
        height=1,
        seed=0,
        prompt=text,
        source=source,
        model=text,
        revision=text,
        settings={},
        drawn_at="",
    )
    rows = [Row(record, concept), Row(record, foil)]
    return card.Facts(
        title="A title: with a colon",
        license="unknown",
        groups=[group],
        rows={"support": rows * 2, "query": rows},
        left_out={"same bytes": 3} if left_out is None else left_out,
        request={"seed": 0, text: text},
        settings={
            "embedder": {"name": "lite0", "model": text, "revision": "1"},
            "limits": {"hash_distance": 32, "cosine": 0.975},
            "seed": 0,
        },
        checks={"closest_cosine_across_splits": 0.9},
        environment={"isekai": "1"},
    )


def body(markdown: str) -> str:
    """As HTML, the front matter aside."""
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return rendered.render(markdown.split("---\n", 2)[2])


def front(markdown: str) -> dict:
    return yaml.safe_load(markdown.split("---\n", 2)[1])


def cells(html: str) -> list[str]:
    return re.findall(r"<td>(.*?)</td>", html)


def test_the_front_matter_is_what_the_hub_reads():
    told = front(card.markdown(facts()))
    assert told == {
        "pretty_name": "A title: with a colon",
        "license": "unknown",
        "task_categories": ["image-classification"],
        "size_categories": ["n<1K"],
        "tags": ["few-shot", "in-context-learning", "novel-concepts", "synthetic"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "support", "path": "data/support-*.parquet"},
                    {"split": "query", "path": "data/query-*.parquet"},
                ],
            }
        ],
    }


def test_pictures_of_a_folder_are_not_called_synthetic():
    assert "synthetic" not in front(card.markdown(facts(source="folder")))["tags"]
    assert "renderings" not in card.markdown(facts(source="folder"))
    assert "renderings" in card.markdown(facts())


@pytest.mark.parametrize(
    ("rows", "category"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M")],
)
def test_the_size_category_is_the_hubs_word(rows, category):
    some = facts()
    many = replace(some, rows={"support": some.rows["query"][:1] * rows, "query": []})
    assert front(card.markdown(many))["size_categories"] == [category]


def test_counts_stand_in_the_tables():
    html = body(card.markdown(facts()))
    rows = re.findall(r"<tr>\n(.*?)</tr>", html, re.DOTALL)
    counted = [cells(row) for row in rows if "novel: form" in row or "<td>foil</td>" in row]
    assert [row[3:5] for row in counted] == [["2", "1"], ["2", "1"]]
    assert ["same bytes", "3"] in [cells(row) for row in rows]
    assert {f"<code>{name}</code>" for name in COLUMNS} <= set(cells(html))


def test_nothing_left_out_is_said():
    assert "\n\nNothing.\n\n" in card.markdown(facts(left_out={}))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text):
    markdown = card.markdown(facts(text, left_out={text: 1}))
    assert set(front(markdown)) == set(front(card.markdown(facts())))
    html = body(markdown)
    plain = body(card.markdown(facts(left_out={"plain": 1})))
    tags = re.compile(r"<(?!/)[^>]*>")
    assert tags.findall(html) == tags.findall(plain)
    assert "://" not in re.sub(r"\\://", "", re.sub(r"`[^`]*`", "", markdown))
    assert "\u202e" not in markdown


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab \\`*_{}[]<>|~$&!#:@/.wW()-+=1é\n\t"), max_size=30))
def test_whatever_a_name_is_the_table_shows_it(text):
    html = body(card.markdown(facts(text)))
    row = next(r for r in re.findall(r"<tr>\n(.*?)</tr>", html, re.DOTALL) if "novel: form" in r)
    name = re.search(r"</td>\n<td>(.*?)</td>\n<td>novel", row, re.DOTALL)[1]
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        name = name.replace(entity, character)
    assert name == " ".join(text.split())


def test_a_built_card_agrees_with_its_dataset(tiny_dataset: Path):
    markdown = (tiny_dataset / "README.md").read_text()
    assert "108 pictures of 6 novel concepts and 3 foils in 3 groups" in markdown
    for group in tiny_groups():
        for concept in group.concepts:
            assert f"| {concept.name} | " in markdown
    assert (tiny_dataset / "contact_sheet.png").exists()
