"""Writes a dataset's card: README.md, with the front matter that the Hub and `datasets` read."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from isekai.markdown import code, escape
from isekai.parquet import COLUMNS, SPLITS, Row
from isekai.types import Concept, Group, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a card tells; nothing in it is made up elsewhere."""

    title: str
    license: str
    groups: Sequence[Group]
    rows: Mapping[Split, Sequence[Row]]
    left_out: Mapping[str, int]
    """Reason -> pictures."""
    request: Mapping[str, object]
    """What the images folder says it was asked for."""
    settings: Mapping[str, object]
    checks: Mapping[str, object]
    environment: Mapping[str, str]


def markdown(facts: Facts) -> str:
    """The whole card. Texts of specs and ledgers are shown as text, whatever they contain."""
    sections = [
        _front_matter(facts),
        f"# {escape(facts.title)}",
        _lead(facts),
        "![The concepts with some of their pictures](contact_sheet.png)",
        "## How to load it",
        _LOADING,
        "## What is inside",
        _inside(facts),
        "## How it was made",
        _making(facts),
        "## What was left out",
        _left_out(facts),
        "## Columns",
        _table(("column", "type", "content"), _columns()),
        "## What to keep in mind",
        _limits(facts),
    ]
    return "\n\n".join(sections) + "\n"


_LOADING = """\
```python
from datasets import load_dataset

dataset = load_dataset("path/to/this/folder")
row = dataset["support"][0]
row["image"], row["name"], dataset["support"].features["concept"].int2str(row["concept"])
```

`contact_sheet.html` shows the concepts with their definitions in a browser, without a network."""


def _front_matter(facts: Facts) -> str:
    """YAML; strings are written as JSON, which YAML reads as they are."""
    tags = ["few-shot", "in-context-learning", "novel-concepts"]
    if all(row.record.source != "folder" for split in SPLITS for row in facts.rows[split]):
        tags.append("synthetic")
    lines = [
        "---",
        f"pretty_name: {json.dumps(facts.title, ensure_ascii=False)}",
        f"license: {json.dumps(facts.license)}",
        "task_categories:",
        "- image-classification",
        "size_categories:",
        f"- {_size_category(sum(map(len, facts.rows.values())))}",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split in SPLITS:
        lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    return "\n".join([*lines, "---"])


def _size_category(rows: int) -> str:
    """The Hub's word for a number of rows."""
    steps = (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6))
    return next((name for name, below in steps if rows < below), "n>1M")


def _lead(facts: Facts) -> str:
    concepts = [concept for group in facts.groups for concept in group.concepts]
    novel = sum(concept.role == "novel" for concept in concepts)
    rows = {split: len(facts.rows[split]) for split in SPLITS}
    return (
        f"{sum(rows.values())} pictures of {novel} novel concepts and {len(concepts) - novel} "
        f"foils in {len(facts.groups)} groups, made to measure whether a multimodal model learns a "
        "new name from a few pictures in its context. The concepts of a group are shown against "
        "each other; a foil is a real thing that the novel ones resemble.\n\n"
        f"The split `support` ({rows['support']} pictures) is for showing pictures with their "
        f"names, `query` ({rows['query']}) for asking. No picture is in both, nor is a "
        "near-duplicate of it by the limits below."
    )


def _inside(facts: Facts) -> str:
    counts = {split: Counter(row.concept.id for row in facts.rows[split]) for split in SPLITS}

    def rows() -> Iterator[Sequence[object]]:
        for group in facts.groups:
            for position, concept in enumerate(group.concepts):
                yield (
                    "" if position else f"**{escape(group.title)}**",
                    escape(concept.name),
                    _kind(concept),
                    *(counts[split][concept.id] for split in SPLITS),
                    escape(concept.definition),
                )

    return _table(("group", "concept", "kind", *SPLITS, "definition"), rows())


def _kind(concept: Concept) -> str:
    return f"novel: {concept.novelty}" if concept.novelty else concept.role


def _making(facts: Facts) -> str:
    made = Counter(
        (row.record.source, row.record.model, row.record.revision)
        for split in SPLITS
        for row in facts.rows[split]
    )
    sources = _table(
        ("source", "model", "revision", "pictures"),
        ((*map(code, how), count) for how, count in sorted(made.items())),
    )
    settings = _table(
        ("setting", "value"),
        (
            (f"{step}: {code(name)}", code(_short(value)))
            for step, values in (("generate", facts.request), ("build", facts.settings))
            for name, value in values.items()
        ),
    )
    versions = ", ".join(f"{name} {version}" for name, version in facts.environment.items())
    return (
        f"{sources}\n\n{settings}\n\nEach picture's own seed and prompt are in its row. "
        f"Built with {code(versions)}."
    )


def _left_out(facts: Facts) -> str:
    limits = facts.settings["limits"]
    embedder = facts.settings["embedder"]
    assert isinstance(limits, Mapping)
    assert isinstance(embedder, Mapping)
    told = (
        _table(
            ("reason", "pictures"),
            ((escape(k), n) for k, n in sorted(facts.left_out.items())),
        )
        if facts.left_out
        else "Nothing."
    )
    return (
        f"{told}\n\n`rejected.jsonl` has a row for each, with the picture that stayed in its "
        "place. Two pictures count as the same if their files or pixels are equal, if their "
        f"perceptual hashes (256 bits) differ in at most {limits['hash_distance']} bits, or if "
        f"their embeddings ({escape(str(embedder['model']))}) have a cosine of at least "
        f"{limits['cosine']}. The two nearest pictures across the splits have a cosine of "
        f"{facts.checks['closest_cosine_across_splits']}."
    )


def _columns() -> Iterator[Sequence[object]]:
    for name, (type_, meaning) in COLUMNS.items():
        shown = "image" if name == "image" else str(type_)
        yield f"`{name}`", shown, meaning


def _limits(facts: Facts) -> str:
    points = [
        "That a model has never met a concept or its name is hoped for, not measured.",
        "The splits are drawn at random within each concept: support and query pictures come from "
        "the same source and share its style.",
        "Damaged and repeated pictures were looked for, pictures that show their concept badly "
        "were not.",
    ]
    if any(row.record.source == "procedural" for split in SPLITS for row in facts.rows[split]):
        points.append(
            "The pictures of the source `procedural` are renderings of simple solids. They look "
            "like models, not like photographs, and results on them may not carry over."
        )
    return "\n".join(f"- {point}" for point in points)


def _table(head: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"
