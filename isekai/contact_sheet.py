"""Draws all concepts on one sheet: a PNG for a README, and an HTML page to look closer."""

import base64
import html as markup
import io
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from isekai.files import write_bytes, write_text
from isekai.types import Concept, Group

Pictures = Mapping[str, Sequence[Image.Image]]
"""Concept id -> its pictures, in the order they are to be shown."""

COLOURS = {
    "blend": "#7a4fd0",
    "material": "#c2571a",
    "form": "#0f8a72",
    "novel": "#7a4fd0",
    "foil": "#68707d",
}
"""Of the chip that says how a concept is new, or that it is a foil: dark enough for white text."""

PER_CONCEPT = 8

_PAPER = "#fbfaf7"
_INK = "#1d1f24"
_RULE = "#e4e1d9"
_EMPTY = "#efede7"

_MARGIN = 40
_GAP = 6
"""Pixels between pictures."""


def kind(concept: Concept) -> str:
    """What the concept's chip says: blend, material, form, novel or foil."""
    return concept.novelty or concept.role


def write(
    groups: Sequence[Group],
    images: Pictures,
    folder: Path,
    title: str,
    per_concept: int = PER_CONCEPT,
) -> None:
    """Write contact_sheet.html and contact_sheet.png; many groups are laid out side by side."""
    html(groups, images, folder / "contact_sheet.html", per_concept, title=title)
    path = folder / "contact_sheet.png"
    if len(groups) > 6:
        png(groups, images, path, per_concept=min(5, per_concept), tile=96, columns=3)
    else:
        png(groups, images, path, per_concept)


# ---------------------------------------------------------------- PNG


def png(
    groups: Sequence[Group],
    images: Pictures,
    path: Path,
    per_concept: int = PER_CONCEPT,
    tile: int = 128,
    columns: int = 1,
) -> None:
    """Write the sheet: a band a group, in it the concepts in `columns` side by side.

    With one column a concept's name stands left of its pictures, with more above them. At most
    `per_concept` pictures are shown, in squares of `tile` pixels.
    """
    beside = columns == 1
    strip = per_concept * (tile + _GAP) - _GAP
    label = max(170, round(1.5 * tile)) if beside else 0
    head = 0 if beside else 26
    cell_width, cell_height = label + strip, head + tile
    between = 0 if beside else 36
    width = 2 * _MARGIN + columns * cell_width + (columns - 1) * between
    title_height, band_gap, row_gap = 34, 30, 10 if beside else 18

    def rows(group: Group) -> int:
        return -(-len(group.concepts) // columns)

    height = 2 * _MARGIN - band_gap
    for group in groups:
        height += title_height + rows(group) * (cell_height + row_gap) - row_gap + band_gap
    sheet = Image.new("RGB", (width, max(height, 1)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    y = _MARGIN
    for group in groups:
        title = _fitted(group.title, 19, width // 2)
        draw.text((_MARGIN, y + 19), title, _INK, _font(19), anchor="ls")
        start = _MARGIN + _font(19).getlength(title) + 14
        draw.line((start, y + 13, width - _MARGIN, y + 13), _RULE)
        y += title_height
        for position, concept in enumerate(group.concepts):
            row, column = divmod(position, columns)
            left = _MARGIN + column * (cell_width + between)
            top = y + row * (cell_height + row_gap)
            if beside:
                middle = top + tile // 2
                name = _fitted(concept.name, 18, label - 18)
                draw.text((left, middle - 4), name, _INK, _font(18), anchor="ls")
                _chip(sheet, kind(concept), left, middle + 6)
            else:
                name = _fitted(concept.name, 16, cell_width - 90)
                draw.text((left, top + 15), name, _INK, _font(16), anchor="ls")
                _chip(sheet, kind(concept), left + int(_font(16).getlength(name)) + 10, top + 1)
            shown = images.get(concept.id, ())[:per_concept]
            for number in range(per_concept):
                x = left + label + number * (tile + _GAP)
                picture = _square(shown[number], tile) if number < len(shown) else _EMPTY
                _paste(sheet, picture, (x, top + head), (tile, tile), radius=tile // 20)
        y += rows(group) * (cell_height + row_gap) - row_gap + band_gap
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _chip(sheet: Image.Image, text: str, x: int, y: int) -> None:
    width = round(_font(12).getlength(text)) + 14
    _paste(sheet, COLOURS[text], (x, y), (width, 18), radius=9)
    place = (x + width / 2, y + 9)
    ImageDraw.Draw(sheet).text(place, text, "white", _font(12), anchor="mm")


def _paste(
    sheet: Image.Image,
    what: Image.Image | str,
    at: tuple[int, int],
    size: tuple[int, int],
    *,
    radius: int,
) -> None:
    """Paste a picture or a colour with round, smooth corners."""
    mask = Image.new("L", (4 * size[0], 4 * size[1]))
    box = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, 4 * radius, 255)
    sheet.paste(what, (*at, at[0] + size[0], at[1] + size[1]), mask.reduce(4))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface: the same on every machine."""
    return ImageFont.load_default(size)


def _fitted(text: str, size: int, width: float) -> str:
    """The text, cut with an ellipsis where it would be wider than `width` pixels."""
    text = " ".join(text.split())
    font = _font(size)
    if font.getlength(text) <= width:
        return text
    fits = bisect(range(len(text)), width, key=lambda end: font.getlength(text[:end] + "…")) - 1
    return text[: max(fits, 0)].rstrip() + "…"


def _square(image: Image.Image, side: int) -> Image.Image:
    """All of the picture in a square of `side`, centred on the sheet's paper."""
    small = image.convert("RGB")
    scale = side / max(small.size)
    size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
    small = small.resize(size, Image.Resampling.LANCZOS)
    if small.size == (side, side):
        return small
    square = Image.new("RGB", (side, side), _EMPTY)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    return square


# ---------------------------------------------------------------- HTML

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #ffffff; --ink: #1d1f24;
  --faded: #61656d; --rule: #e4e1d9; --blend: #7a4fd0; --material: #c2571a; --form: #0f8a72;
  --foil: #68707d; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --card: #1c1f25; --ink: #eceae4;
  --faded: #a3a7af; --rule: #2d3138; --blend: #8d67de; --material: #c8622a; --form: #1b9179;
  --foil: #767e8b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5;
  font-family: ui-sans-serif, system-ui, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 3rem clamp(1rem, 4vw, 2.5rem) 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 .4rem; }
.lead, .parent { color: var(--faded); }
.lead { margin: 0 0 2.5rem; max-width: 46rem; }
section { margin: 0 0 3rem; }
h2 { font-size: 1.25rem; letter-spacing: -0.01em; margin: 0 0 .9rem; padding-bottom: .5rem;
  border-bottom: 1px solid var(--rule); display: flex; gap: .7rem; align-items: baseline;
  flex-wrap: wrap; }
h2 .parent { font-size: .85rem; font-weight: 400; }
article { background: var(--card); border: 1px solid var(--rule); border-radius: 14px;
  padding: 1.1rem 1.2rem 1.2rem; margin-bottom: .9rem; }
h3 { font-size: 1.05rem; margin: 0; display: flex; gap: .6rem; align-items: center;
  flex-wrap: wrap; overflow-wrap: anywhere; }
.chip { color: #fff; font-size: .72rem; font-weight: 600; letter-spacing: .02em;
  padding: .1rem .6rem; border-radius: 99px; }
.blend, .novel { background: var(--blend); } .material { background: var(--material); }
.form { background: var(--form); } .foil { background: var(--foil); }
p.definition { margin: .25rem 0 .9rem; color: var(--faded); max-width: 60rem;
  overflow-wrap: anywhere; }
.strip { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); }
.strip img { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 8px;
  background: var(--paper); display: block; transition: transform .16s ease, box-shadow .16s ease; }
.strip img:hover { transform: scale(1.9); position: relative; z-index: 2;
  box-shadow: 0 8px 30px rgb(0 0 0 / .35); }
.none { color: var(--faded); font-style: italic; }
@media (prefers-reduced-motion: reduce) { .strip img { transition: none; } }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'"


def html(
    groups: Sequence[Group],
    images: Pictures,
    path: Path,
    per_concept: int = PER_CONCEPT,
    title: str = "Contact sheet",
) -> None:
    """Write the sheet as one page that loads nothing: pictures are inside it, scripts are none."""
    concepts = [concept for group in groups for concept in group.concepts]
    novel = sum(concept.role == "novel" for concept in concepts)
    lead = (
        f"{_counted(len(groups), 'group')}, {_counted(novel, 'novel concept')} and "
        f"{_counted(len(concepts) - novel, 'foil')}. Concepts of a group are shown against each "
        "other: a foil is the real thing that the novel ones resemble."
    )
    page = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{_text(title)}</h1>\n<p class="lead">{lead}</p>\n'
        f"{''.join(_section(group, images, per_concept) for group in groups)}"
        "</main>\n</body>\n</html>\n"
    )
    write_text(path, page)


def _section(group: Group, images: Pictures, per_concept: int) -> str:
    parent = f'<span class="parent">parent: {_text(group.parent)}</span>' if group.parent else ""
    articles = (_article(c, images.get(c.id, ())[:per_concept]) for c in group.concepts)
    return f"<section>\n<h2>{_text(group.title)}{parent}</h2>\n{''.join(articles)}</section>\n"


def _article(concept: Concept, images: Iterable[Image.Image]) -> str:
    pictures = "\n".join(
        f'<img src="{_data_url(image)}" alt="{_text(concept.name)}, picture {number}">'
        for number, image in enumerate(images, start=1)
    )
    return (
        f'<article>\n<h3>{_text(concept.name)}<span class="chip {kind(concept)}">'
        f'{kind(concept)}</span></h3>\n<p class="definition">{_text(concept.definition)}</p>\n'
        + (f'<div class="strip">\n{pictures}\n</div>\n' if pictures else "")
        + ("" if pictures else '<p class="none">no pictures</p>\n')
        + "</article>\n"
    )


def _data_url(image: Image.Image) -> str:
    small = image.convert("RGB")
    small.thumbnail((224, 224), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=78, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _text(text: str) -> str:
    return markup.escape(" ".join(text.split()))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
