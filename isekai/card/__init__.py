"""Writes what goes with a repository of datasets: its card, citation, Croissant file and sheet.

Everything follows from the files of the datasets, so that whoever adds to them can write it again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from isekai import files
from isekai.card import citation, croissant, facts, sections, telling
from isekai.card.facts import Facts
from isekai.card.front_matter import front_matter
from isekai.errors import DataError
from isekai.markdown import escape

CARD = "README.md"
SHEET = "contact_sheet.png"


def write(root: Path) -> None:
    """Write README.md, croissant.json, CITATION.cff and contact_sheet.png into the folder `root`.

    They tell of all finished datasets in it, by name; the sheet is that of the first. Equal files
    give equal bytes. DataError, and nothing is written, where a dataset contradicts itself.
    """
    found = facts.read(root)
    sheet = found[0].folder / SHEET
    if not sheet.is_file():
        raise DataError(f"{sheet}: no such file; build the dataset again")
    card = markdown(found).encode()
    made = {
        "croissant.json": _json(croissant.document(found, _responsible(found))),
        "CITATION.cff": citation.cff(found).encode(),
        SHEET: sheet.read_bytes(),
        CARD: card,
    }
    withdraw(root)
    for name, data in made.items():
        files.write_bytes(root / name, data)


def withdraw(root: Path) -> None:
    """Take the card away: what it tells of changes. It comes back last, when all else is there."""
    (root / CARD).unlink(missing_ok=True)


def markdown(found: Sequence[Facts]) -> str:
    """The whole card. Texts of specs and ledgers are shown as text, whatever they contain."""
    parts = [
        front_matter(found),
        f"# {escape(facts.title(found))}",
        sections.lead(found),
        f"![The concepts of {found[0].name} with some of their pictures]({SHEET})",
        "## How to load it",
        sections.loading(found),
        "## What is inside",
        _each(found, sections.inside),
        "## How it was made",
        _each(found, sections.making),
        "## What was left out, and why",
        _each(found, sections.left_out),
        "## How near the splits come",
        sections.LEAKS,
        _each(found, sections.checks),
        "## Are the concepts new?",
        _each(found, sections.novelty),
        "## The benchmark",
        sections.BENCHMARK,
        _each(found, sections.lists),
        "## Columns",
        sections.table(("column", "type", "content"), sections.columns()),
        "## What it is for, and what not",
        sections.points(telling.USES),
        "It is not meant for:",
        sections.points(telling.MISUSES),
        "## Known biases and limits",
        sections.points(telling.limits(found)),
        "## Licence and attribution",
        sections.licence(found),
        "## Citation",
        sections.cited(found),
    ]
    return "\n\n".join(parts) + "\n"


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _responsible(found: Sequence[Facts]) -> Mapping[str, object]:
    """What the card says in sentences, under the names of Croissant and its RAI vocabulary."""
    return {
        "description": f"{telling.summary(found)} {telling.PURPOSE}",
        "keywords": ["in-context learning", "few-shot", "novel concepts", "multimodal"],
        "rai:dataCollection": telling.collection(found),
        "rai:dataBiases": list(telling.limits(found)),
        "rai:dataUseCases": list(telling.USES),
        "rai:dataLimitations": list(telling.MISUSES),
        "rai:personalSensitiveInformation": [telling.people(found)],
    }


def _each(found: Sequence[Facts], section: Callable[[Facts], str]) -> str:
    """The section of every dataset; under its name if there are several."""
    if len(found) == 1:
        return section(found[0])
    return "\n\n".join(f"### {one.name}\n\n{section(one)}" for one in found)
