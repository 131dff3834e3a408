"""The contact sheet: every concept and picture is on it, and it loads nothing."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isekai import contact_sheet
from isekai.types import Concept, Group

COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10), (250, 10, 250)]


def concept(number: int, **changes) -> Concept:
    role = "foil" if number % 3 == 2 else "novel"
    given = {"name": f"thing{number}", "role": role, "definition": f"The thing {number}."}
    return Concept(id=f"g/c{number}", **{**given, **changes})


GROUPS = [
    Group(id="g", title="First", parent="thing", concepts=(concept(0), concept(1), concept(2))),
    Group(id="h", title="Second", concepts=(concept(3, novelty="material"), concept(4))),
]


def flat(size: tuple[int, int] = (50, 50), count: int = 3) -> dict[str, list[Image.Image]]:
    """Pictures of one colour a concept."""
    return {f"g/c{n}": [Image.new("RGB", size, colour)] * count for n, colour in enumerate(COLOURS)}


def drawn(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes())).convert("RGB")


def boxes(sheet: Image.Image, colour) -> tuple[int, int, int, int, int]:
    """Pixels of the colour, and the box around them."""
    hits = (np.asarray(sheet).astype(int) == colour).all(axis=2)
    y, x = np.nonzero(hits)
    return hits.sum(), x.min(), y.min(), x.max(), y.max()


@pytest.mark.parametrize("columns", [1, 3])
def test_every_picture_is_on_the_sheet_in_its_concepts_row(tmp_path, columns):
    contact_sheet.png(GROUPS, flat(), tmp_path / "s.png", per_concept=4, tile=40, columns=columns)
    sheet = drawn(tmp_path / "s.png")
    places = []
    for colour in COLOURS:
        count, left, top, right, bottom = boxes(sheet, colour)
        assert 3 * 40 * 40 * 0.97 < count <= 3 * 40 * 40  # round corners
        assert (right - left + 1, bottom - top + 1) == (3 * 40 + 2 * 6, 40)
        places.append((left, top))
    if columns == 1:
        assert len({left for left, _ in places}) == 1
        assert [top for _, top in places] == sorted({top for _, top in places})
    else:
        assert len({top for _, top in places[:3]}) == 1
        assert [left for left, _ in places[:3]] == sorted({left for left, _ in places[:3]})
        assert places[3][0] == places[0][0]
        assert places[3][1] > places[0][1]
    edge = np.asarray(sheet)[[0, -1]].reshape(-1, 3)
    assert (edge == edge[0]).all()  # nothing runs out of the sheet


def test_more_concepts_than_columns_wrap(tmp_path):
    contact_sheet.png(GROUPS, flat(), tmp_path / "s.png", per_concept=3, tile=40, columns=2)
    sheet = drawn(tmp_path / "s.png")
    tops = [boxes(sheet, colour)[2] for colour in COLOURS]
    assert tops[0] == tops[1] < tops[2] < tops[3] == tops[4]


def test_pictures_are_shown_whole_whatever_their_shape(tmp_path):
    contact_sheet.png(GROUPS, flat((90, 30), count=1), tmp_path / "s.png", per_concept=1, tile=60)
    _, left, top, right, bottom = boxes(drawn(tmp_path / "s.png"), COLOURS[0])
    assert (right - left + 1, bottom - top + 1) == (60, 20)


def test_the_same_pictures_give_the_same_sheets(tmp_path):
    for name in ("a", "b"):
        contact_sheet.write(GROUPS, flat(), tmp_path / name, "Title")
    for file in ("contact_sheet.png", "contact_sheet.html"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_many_groups_stand_side_by_side(tmp_path):
    many = [GROUPS[0]] * 7
    contact_sheet.write(many, flat(), tmp_path, "Title")
    sheet = drawn(tmp_path / "contact_sheet.png")
    contact_sheet.png(many, flat(), tmp_path / "one.png")
    assert sheet.width > drawn(tmp_path / "one.png").width
    assert sheet.height < drawn(tmp_path / "one.png").height / 2


@pytest.mark.parametrize("columns", [1, 3])
def test_missing_pictures_and_endless_names_do_no_harm(tmp_path, columns):
    endless = concept(0, name="name " * 100 + "\n\u202e")
    group = Group(id="g", title="title " * 200, concepts=(endless, concept(1)))
    contact_sheet.png([group], {}, tmp_path / "s.png", per_concept=2, tile=50, columns=columns)
    sheet = np.asarray(drawn(tmp_path / "s.png"))
    assert (sheet[:, -1] == sheet[0, -1]).all()
    contact_sheet.html([group], {}, tmp_path / "s.html")
    assert "no pictures" in (tmp_path / "s.html").read_text()


def test_no_groups_give_an_empty_sheet(tmp_path):
    contact_sheet.write([], {}, tmp_path, "Nothing")
    assert "0 groups" in (tmp_path / "contact_sheet.html").read_text()


# ---------------------------------------------------------------- HTML


class Page(HTMLParser):
    """Tags with attributes, and the text outside styles."""

    def __init__(self, path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data) -> None:
        if data.strip() and self.tags[-1][0] != "style":
            self.texts.append(data.strip())


def test_the_page_shows_all_concepts_and_loads_nothing(tmp_path):
    contact_sheet.html(GROUPS, flat(), tmp_path / "s.html", title="Title")
    page = Page(tmp_path / "s.html")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object"})
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    for found in ("First", "Second", "thing0", "thing4", "The thing 2.", "material", "foil"):
        assert found in page.texts
    pictures = [a for t, a in page.tags if t == "img"]
    assert len(pictures) == 15
    for attributes in pictures:
        head, data = attributes["src"].split(",")
        assert head == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).format == "WEBP"
    page_text = (tmp_path / "s.html").read_text()
    assert not re.search(r"(https?:)?//[a-z]|url\(|@import", re.sub(r'src="[^"]*"', "", page_text))


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(max_size=30)
    | st.sampled_from(["</style><script>", '" onload="x', "<img src=//x>"])
)
def test_hostile_text_stays_text(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "hostile.html"
    hostile = concept(0, name=text, definition=text)
    group = Group(id="g", title=text, parent=text, concepts=(hostile,))
    pictures = {"g/c0": [Image.new("RGB", (4, 4))]}
    contact_sheet.html([group], pictures, path, title=text)
    page = Page(path)
    plain = path.with_name("plain.html")
    contact_sheet.html(
        [Group(id="g", title="x", parent="x" if text else "", concepts=(concept(0),))],
        pictures,
        plain,
    )
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Page(plain).tags]
    picture = next(a for t, a in page.tags if t == "img")
    assert set(picture) == {"src", "alt"}
    assert picture["alt"].startswith(" ".join(text.split()))
