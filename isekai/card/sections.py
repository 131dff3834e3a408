"""The sections of a dataset card, in Markdown. Text of specs and ledgers is shown as text."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from isekai import episode_lists, files
from isekai.card import citation, facts, telling
from isekai.card.facts import Facts
from isekai.errors import DataError
from isekai.markdown import code, escape
from isekai.parquet import COLUMNS, SPLITS
from isekai.types import Concept, Estimate

# ---------------------------------------------------------------- what it is


def lead(found: Sequence[Facts]) -> str:
    told = (
        f"{telling.summary(found)} {telling.PURPOSE} The concepts of a group are shown against "
        "each other; a foil is a real thing that the novel ones resemble.\n\n"
        "The split `support` is for showing pictures with their names, `query` for asking. No "
        "picture is in both, nor is one that counts as the same by the limits below, but for those "
        "that a person has asked to keep.\n\n"
    )
    return told + table(
        ("dataset", "what", "novel concepts", "foils", *SPLITS, "size in pixels"),
        (
            (
                f"`{one.name}`",
                escape(one.manifest.title),
                sum(concept.role == "novel" for concept in one.concepts),
                sum(concept.role == "foil" for concept in one.concepts),
                *(sum(shard.rows for shard in one.of(split)) for split in SPLITS),
                _sizes(one),
            )
            for one in found
        ),
    )


def _sizes(one: Facts) -> str:
    """The most frequent size, and how many others there are."""
    (width, height), _ = max(one.sizes.items(), key=lambda item: (item[1], item[0]))
    others = len(one.sizes) - 1
    return f"{width} x {height}" + (f" and {others} others" if others else "")


def loading(found: Sequence[Facts]) -> str:
    name = found[0].name
    lines = [
        *("```python", "from datasets import load_dataset", ""),
        f'dataset = load_dataset("OWNER/NAME", "{name}")  # or the path of this folder',
        'row = dataset["support"][0]',
        'concept = dataset["support"].features["concept"].int2str(row["concept"])',
        *('row["image"], row["name"], concept', "```", ""),
        "Or with what made it, `pip install 'isekai-bench[hub]'`, which checks every picture:",
        *("", "```sh", "isekai pull OWNER/NAME"),
        f"isekai bench --data hf://OWNER/NAME/{name} --model prototype --task twin --shots 1,2",
        *("```", ""),
        "`contact_sheet.html` in a dataset's folder shows its concepts with their definitions in a "
        "browser, without a network.",
    ]
    return "\n".join(lines)


def inside(one: Facts) -> str:
    def rows() -> Iterator[Sequence[object]]:
        for group in one.groups:
            for position, concept in enumerate(group.concepts):
                yield (
                    "" if position else f"**{escape(group.title)}**",
                    escape(concept.name),
                    _kind(concept),
                    *(one.counts.get((concept.id, split), 0) for split in SPLITS),
                    escape(concept.definition),
                )

    return table(("group", "concept", "kind", *SPLITS, "definition"), rows())


def _kind(concept: Concept) -> str:
    return f"novel: {concept.novelty}" if concept.novelty else concept.role


# ---------------------------------------------------------------- how it came to be


_TOLD_BELOW = ("limits", "calibration")
"""Settings that have a table of their own."""


def making(one: Facts) -> str:
    sources = table(
        ("source", "model", "revision", "licence of the model", "pictures"),
        (
            (*map(code, maker), escape(telling.terms(maker)), count)
            for maker, count in one.makers.items()
        ),
    )
    asked = (("generate", one.manifest.request), ("build", one.manifest.settings))
    settings = table(
        ("setting", "value"),
        (
            (f"{step}: {code(str(name))}", code(_short(value)))
            for step, values in asked
            for name, value in values.items()
            if name not in _TOLD_BELOW
        ),
    )
    versions = ", ".join(f"{name} {told}" for name, told in one.manifest.environment.items())
    return (
        f"{sources}\n\n{settings}\n\nEach picture's own seed, prompt and settings are in its row. "
        f"Built with {code(versions)}."
    )


def left_out(one: Facts) -> str:
    told = (
        table(
            ("reason", "pictures"),
            ((escape(reason), count) for reason, count in one.left_out.items()),
        )
        if one.left_out
        else "Nothing."
    )
    limits = one.manifest.settings.get("limits")
    embedder = one.manifest.settings.get("embedder")
    look = embedder.get("model") if isinstance(embedder, Mapping) else None
    parts = [
        told,
        "`rejected.jsonl` has a row for each, with the picture that stayed in its place. Two "
        "pictures count as the same if their files or pixels are equal, or if they are nearer than "
        f"these limits allow; the embedder is {code(str(look))}:",
        table(
            ("limit", "value"),
            ((code(str(k)), code(_short(v))) for k, v in limits.items())
            if isinstance(limits, Mapping)
            else (),
        ),
    ]
    if (calibrated := one.manifest.settings.get("calibration")) is not None:
        parts.append(_calibrated(calibrated, one))
    return "\n\n".join(parts)


def _calibrated(told: object, one: Facts) -> str:
    """How right the limits were on pictures whose truth is known."""
    from isekai.calibration import RULES, Calibration  # loads OpenCV

    found: Calibration = files.parse(Calibration, told, f"{one.folder}: settings.calibration")
    sums = (("**recall of copies**", "", found.recall), ("**precision**", "", found.precision))
    lines = ((escape(line.pairs), line.n, line.found) for line in found.lines)
    return (
        f"They were picked for a precision of {found.asked:g}, on copies that were made of "
        f"{found.pictures} of these pictures. These shares, with their 95 % intervals, come from "
        f"{found.measured} pictures of concepts that nothing was picked on: of altered copies "
        "those that are found, of other pairs those that are taken for copies.\n\n"
        + table(
            ("pairs", "n", *RULES),
            (
                (name, count, *(_share(shares.get(rule)) for rule in RULES))
                for name, count, shares in (*lines, *sums)
            ),
        )
    )


def _share(share: Estimate | None) -> str:
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})" if share else "nothing found"


LEAKS = (
    "A support picture that nearly is the query picture would give the answer away, and a query "
    "picture that nearly shows another concept would have two. This is what building the dataset "
    "measured of it:"
)


def checks(one: Facts) -> str:
    return table(("measured", "value"), _told(one.manifest.checks))


def _told(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """What a manifest holds under names of its own, a row each; names of inner ones in front."""
    for key, value in values.items():
        name = f"{above}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _told(value, f"{name}: ")
        else:
            yield escape(name), code(_short(value))


def novelty(one: Facts) -> str:
    if not one.novelty:
        return (
            "Not measured: that no model has met them is a hope. `isekai novelty` on this dataset "
            "adds evidence to this card."
        )
    from isekai import evidence  # loads scipy and more, which a dataset without it can spare

    found = evidence.read(one.folder)
    if found.dataset != one.manifest.fingerprint:
        raise DataError(
            f"{one.folder / facts.NOVELTY}: is about other pictures than those here; run `isekai "
            "novelty` again, or remove the file"
        )
    return evidence.section(found, one.groups)


# ---------------------------------------------------------------- what it is for


BENCHMARK = (
    "An *episode* shows a support set, in which two concepts carry made-up words, and asks which "
    "of the words a query picture shows. A *shot* is a support picture for each of the two, so "
    "that n shots are 2n pictures; support sets are nested. Each folder has the episodes of the "
    "usual run in `episodes/`, one a line: whoever asks them asks the same, and the digests of "
    "episodes in `results.json` are equal. Accuracy is told with its 95 % interval over groups, "
    "beside chance (one half), and is worth little without the controls that tell binding from "
    "naming: `--controls all`."
)

_TASKS = {
    "twin": "the two novel concepts of a group: they share a parent, so its name is no help",
    "foil": "a novel concept and its everyday foil: naming can solve it",
    "pair": "novel concepts of two groups",
}


def lists(one: Facts) -> str:
    if one.lists is None:
        return "Its episodes were not written down; `isekai bench` draws them."
    told = one.lists
    shots = ",".join(map(str, told.shots))
    rows = table(
        ("task", "the two labels of an episode", "episodes", "SHA-256 of the list"),
        (
            (f"`{task}`", _TASKS[task], told.lists[task].episodes, code(told.lists[task].sha256))
            for task in episode_lists.TASKS
            if task in told.lists
        ),
    )
    left = "".join(
        f" No list for {code(task)}: {escape(why)}." for task, why in told.left_out.items()
    )
    return (
        f"{rows}\n\nDrawn with seed {told.seed}: {told.episodes} episodes for each pair of "
        f"concepts, {told.queries} query pictures a label, shots {shots}.{left}\n\n"
        f"```sh\nisekai bench --data hf://OWNER/NAME/{one.name} --task published --shots {shots} "
        "--controls all --model …\n```"
    )


def licence(found: Sequence[Facts]) -> str:
    """The licence of the pictures, and what else bears on using them."""
    licences = table(
        ("dataset", "licence"), ((f"`{one.name}`", code(one.license)) for one in found)
    )
    unknown = any(one.license in ("unknown", "other") for one in found)
    lines = [
        licences,
        "The licence covers the pictures and the texts beside them, as far as whoever built the "
        "dataset can give one."
        + (" Where it says `unknown`, ask before you use the pictures." if unknown else "")
        + " What a model drew may be bound by that model's own licence, too: it stands beside each "
        "model above, where it is known here. Who uses the pictures names the dataset, its version "
        f"`{facts.version(found)}` and the models.",
    ]
    if named := facts.authors(found):
        lines.append(f"By {', '.join(map(escape, named))}.")
    return "\n\n".join(lines)


def cited(found: Sequence[Facts]) -> str:
    return (
        f"```bibtex\n{citation.bibtex(found)}\n```\n\n"
        "The task is that of *Link-Context Learning for Multimodal LLMs* (Tai et al., CVPR 2024, "
        f"[arXiv {citation.ARXIV}](https://arxiv.org/abs/{citation.ARXIV})). Its authors made "
        "neither this dataset nor isekai, and none of their pictures is in it:\n\n"
        f"```bibtex\n{citation.PAPER_BIBTEX}\n```\n\n`CITATION.cff` says the same to programs."
    )


# ---------------------------------------------------------------- Markdown


def columns() -> Iterator[Sequence[object]]:
    for name, (type_, meaning) in COLUMNS.items():
        shown = "image" if name == "image" else str(type_)
        yield f"`{name}`", shown, meaning


def points(points: Sequence[str]) -> str:
    return "\n".join(f"- {point}" for point in points)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"
