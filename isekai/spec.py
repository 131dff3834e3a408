"""Prompt specs: one TOML file a group, read strictly into groups and concepts."""

import re
import tomllib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from isekai import plugins, sketch
from isekai.errors import DataError, IsekaiError, SpecError, did_you_mean
from isekai.files import explained, parse, read_text
from isekai.types import Concept, Group, Novelty, Part, Prompts, Role, Sketch

BUILT_IN = "isekai-20"
"""The set of groups that comes with the package."""

Axes = dict[str, dict[str, int]]

TEMPLATE = "{style} of {subject}, {attribute}, {setting}"

_STRICT: dict[str, object] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class _ConceptTable:
    """`[[concepts]]` as written."""

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    name: str
    role: Role
    definition: str
    id: str = ""
    novelty: Novelty | None = None
    parents: tuple[str, ...] = ()
    negative_prompt: str = ""
    prompts: dict[str, object] = field(default_factory=dict)
    generator: dict[str, dict[str, object]] = field(default_factory=dict)
    sketch: tuple[str, ...] = ()
    diagnostic: tuple[str, ...] = ()
    lift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroupFile:
    """A group file as written.

    Axes of the group's `prompts` and options of its `generator` are shared by all its concepts.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = _STRICT

    title: str
    parent: str
    concepts: tuple[_ConceptTable, ...]
    prompts: dict[str, object] = field(default_factory=dict)
    generator: dict[str, dict[str, object]] = field(default_factory=dict)
    parts: dict[str, dict[str, object]] = field(default_factory=dict)


def folder() -> Path:
    """The spec files and templates of this installation, or of the checkout it runs from."""
    packed = Path(__file__).parent / "_data" / "prompts"
    return packed if packed.is_dir() else Path(__file__).parent.parent / "prompts"


def load(where: Path | None = None, only: str = "all") -> tuple[Group, ...]:
    """Every group of a spec folder (the built-in one without `where`), or those named in `only`.

    `only` is `all` or a comma-separated list of group ids, which also sets the order. All problems
    of all files are reported at once.
    """
    where = where or folder() / BUILT_IN
    with explained(where):
        files = sorted(where.glob("[!.]*.toml")) if where.is_dir() else []
    if not files:
        raise SpecError([f"{where}: no group files (*.toml) here"])
    problems: list[str] = []
    groups = []
    for path in files:
        try:
            groups.append(read(path))
        except SpecError as error:
            problems += error.problems
    problems += _collisions(groups)
    if problems:
        raise SpecError(problems)
    return select(groups, only)


def select(groups: Sequence[Group], only: str) -> tuple[Group, ...]:
    """The groups that `only` names, in its order; unknown ids are told with the nearest ones."""
    if only == "all":
        return tuple(groups)
    known = {group.id: group for group in groups}
    wanted = [word.strip() for word in only.split(",") if word.strip()]
    if not wanted:
        raise IsekaiError("no group is named; give 'all' or ids separated by commas")
    unknown = [word for word in wanted if word not in known]
    if unknown:
        raise IsekaiError(
            "\n".join(f"no group is called '{word}'{did_you_mean(word, known)}" for word in unknown)
        )
    return tuple(known[word] for word in dict.fromkeys(wanted))


def read(path: Path) -> Group:
    """One group file; SpecError with all of its problems."""
    where = f"{path.absolute().parent.name}/{path.name}"
    try:
        return parse_group(path.stem, tomllib.loads(read_text(path)), where)
    except tomllib.TOMLDecodeError as error:
        raise SpecError([f"{where}: not TOML: {error}"]) from None
    except DataError as error:
        raise SpecError([str(error)]) from None


def parse_group(id: str, raw: Mapping[str, Any], where: str) -> Group:
    """A group file's content as a Group named `id`; SpecError with all of its problems."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", id):
        raise SpecError([f"{where}: a group file's name is lower-case letters, digits, - and _"])
    problems: list[str] = []
    parts = _parts(raw.get("parts"), where, problems)
    _check_names(raw.get("concepts"), raw.get("parts"), where, problems)
    shared = _axes(raw.get("prompts"), f"{where}: prompts", problems)
    try:
        table: _GroupFile = parse(_GroupFile, raw, where, problem=SpecError)
    except SpecError as error:
        raise SpecError([*error.problems, *problems]) from None
    _check_generator(table.generator, f"{where}: generator", problems)
    if not table.concepts:
        problems.append(f"{where}: concepts is empty; a group shows at least one")
    concepts = [
        _concept(id, table, position, parts, shared, f"{where}: concepts[{position}]", problems)
        for position in range(len(table.concepts))
    ]
    for key in ("name", "id"):
        values = Counter(getattr(concept, key).casefold() for concept in concepts)
        problems += [
            f"{where}: {n} concepts have the {key} '{v}'" for v, n in values.items() if n > 1
        ]
    if problems:
        raise SpecError(problems)
    return Group(id=id, title=table.title, parent=table.parent, concepts=tuple(concepts))


def slug(name: str) -> str:
    """The name in lower-case ASCII letters, digits and hyphens; accents are dropped."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return re.sub(r"[^a-z0-9]+", "-", bare).strip("-")


def expand(concept: Concept, index: int) -> str:
    """The prompt of the concept's image `index`.

    Each axis walks through shuffled blocks in which every wording comes up as often as its quota,
    so that any run of whole blocks keeps the quotas exactly and more images never change earlier
    prompts.
    """
    if concept.prompts is None:
        return ""
    chosen = {
        name: _wording(concept.id, name, axis, index) for name, axis in concept.prompts.axes.items()
    }
    return concept.prompts.template.format(**chosen)


def seed(concept_id: str, index: int, base: int, attempt: int = 0) -> int:
    """The seed of one image, from its identity alone: 63 bits."""
    again = f"/{attempt}" if attempt else ""
    digest = blake2b(f"{base}/{concept_id}/{index}{again}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def summary(groups: Iterable[Group]) -> list[dict[str, object]]:
    """What `isekai groups --json` prints."""
    return [
        {
            "id": group.id,
            "title": group.title,
            "concepts": [
                {"id": c.id, "name": c.name, "role": c.role, "definition": c.definition}
                for c in group.concepts
            ],
        }
        for group in groups
    ]


# ---------------------------------------------------------------- from tables to nouns


_PART_FIELDS = tuple(part_field.name for part_field in fields(Part))


def _parts(tables: object, where: str, problems: list[str]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for name, table in tables.items() if isinstance(tables, dict) else ():
        if not isinstance(table, dict):
            continue  # told with the problems of the whole file
        here = f"{where}: parts.{name}"
        if "name" in table:
            problems.append(f"{here}.name is not a field: a part is named by its table")
            continue
        known = {key: value for key, value in table.items() if key in _PART_FIELDS}
        problems += [f"{here}: {k} is not a field{did_you_mean(k, _PART_FIELDS)}"
                     for k in table if k not in known]  # fmt: skip
        try:
            part: Part = parse(Part, {**known, "name": name}, here, problem=SpecError)
        except SpecError as error:
            problems += error.problems
            continue
        problems += [f"{here}.{problem}" for problem in sketch_problems(part)]
        parts[name] = part
    return parts


def sketch_problems(part: Part) -> list[str]:
    """What the sketch grammar refuses in a part, one line each, beginning with the field."""
    problems = []
    if part.shape not in sketch.SHAPES:
        problems.append(f"shape is '{part.shape}'{did_you_mean(part.shape, sketch.SHAPES)}")
    elif part.shape == "path":
        if len(part.points) < 2:
            problems.append("points: a path takes at least two (x, y, z, radius)")
    else:
        sizes = sketch.SHAPES[part.shape]
        if len(part.size) != len(sizes):
            problems.append(
                f"size has {len(part.size)} numbers; a {part.shape} takes {len(sizes)}: "
                + ", ".join(sizes)
            )
        elif any(
            value <= 0
            for value, meaning in zip(part.size, sizes, strict=True)
            if meaning not in ("cut", "rounding", "top radius", "first radius", "last radius")
        ):
            problems.append(f"size is {list(part.size)}: lengths must be above zero")
    if part.material not in sketch.MATERIALS:
        problems.append(
            f"material is '{part.material}'{did_you_mean(part.material, sketch.MATERIALS)}"
        )
    if part.pattern and part.pattern not in sketch.PATTERNS:
        problems.append(f"pattern is '{part.pattern}'{did_you_mean(part.pattern, sketch.PATTERNS)}")
    for name in ("paint", "paint2"):
        if not 0 <= getattr(part, name) < len(sketch.PAINTS):
            problems.append(f"{name} is {getattr(part, name)}; slots are 0 to 4")
    for name in ("ring", "cover", "line"):
        if not 1 <= getattr(part, name) <= 200:
            problems.append(f"{name} is {getattr(part, name)}; 1 to 200 copies are possible")
    return problems


def _concept(
    group: str,
    file: _GroupFile,
    position: int,
    parts: Mapping[str, Part],
    shared: Axes,
    here: str,
    problems: list[str],
) -> Concept:
    table = file.concepts[position]
    own = table.id or slug(table.name)
    if not own:
        problems.append(f"{here}.name is '{table.name}'; add an id of letters a-z and digits")
    elif not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", own):
        problems.append(f"{here}.id is '{own}'; it takes lower-case letters, digits, - and _")
    for key in ("name", "definition"):
        if not getattr(table, key).isprintable():
            problems.append(f"{here}.{key} holds a control character or a line break")
    if table.role == "novel" and table.novelty is None:
        problems.append(f"{here}.novelty is missing: blend, material or form")
    _check_generator(table.generator, f"{here}.generator", problems)
    drawing = None
    if table.sketch:
        drawing = Sketch(
            parts=tuple(parts[name] for name in table.sketch if name in parts),
            diagnostic=table.diagnostic,
            lift=table.lift,
        )
    return Concept(
        id=f"{group}/{own}",
        name=table.name,
        role=table.role,
        novelty=table.novelty,
        parents=table.parents,
        definition=table.definition,
        negative_prompt=table.negative_prompt,
        prompts=_prompts(
            {**shared, **_axes(table.prompts, f"{here}.prompts", problems)},
            table.prompts.get("template", file.prompts.get("template", TEMPLATE)),
            here,
            problems,
        ),
        sketch=drawing,
        generator={
            name: {**file.generator.get(name, {}), **table.generator.get(name, {})}
            for name in sorted({*file.generator, *table.generator})
        },
    )


def _check_generator(
    table: Mapping[str, Mapping[str, object]], here: str, problems: list[str]
) -> None:
    """Options for a source that there is. The source itself looks at them when it is built."""
    known = plugins.names("sources")
    for name, options in table.items():
        if name not in known:
            problems.append(f"{here}.{name}: no source is called so{did_you_mean(name, known)}")
        problems += [
            f"{here}.{name}.{key} can't be given by a file; give it with -o {key}=…"
            for key in options
            if key in plugins.CONFIRMED
        ]


def _check_names(concepts: object, parts: object, where: str, problems: list[str]) -> None:
    """Part names of the concepts as written, so that they are told with the file's other problems.

    A part that only a misspelt name of the sketch keeps from being used is no second problem.
    """
    there = list(parts) if isinstance(parts, dict) else []
    for position, table in enumerate(concepts if isinstance(concepts, list) else []):
        if not isinstance(table, dict):
            continue
        here = f"{where}: concepts[{position}]"
        drawn, diagnostic = (
            [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
            for names in (table.get("sketch"), table.get("diagnostic"))
        )
        unknown = [name for name in drawn if name not in there]
        problems += [
            f"{here}.sketch names the part '{name}'{did_you_mean(name, there)}" for name in unknown
        ]
        used = [name for name in drawn if name in there]
        problems += [
            f"{here}.diagnostic names '{name}', which its sketch does not use"
            + did_you_mean(name, used)
            for name in diagnostic
            if name not in drawn and not (unknown and name in there)
        ]


def _axes(table: object, here: str, problems: list[str]) -> Axes:
    """A `prompts` table without its template: a text, a list of texts, or texts with quotas."""
    axes = {}
    for name, value in table.items() if isinstance(table, dict) else ():
        if name == "template":
            continue
        axis = {value: 1} if isinstance(value, str) else value
        if isinstance(value, list) and all(isinstance(wording, str) for wording in value):
            axis = dict.fromkeys(value, 1)
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            problems.append(f"{here}: an axis is a word of letters, digits and _, given '{name}'")
        elif (
            not isinstance(axis, dict)
            or not axis
            or not all(type(quota) is int and quota > 0 for quota in axis.values())
        ):
            problems.append(
                f"{here}.{name} is {value!r}: expected a text, a list of texts, or a table of "
                "texts with whole numbers above 0"
            )
        else:
            axes[name] = axis
    return axes


def _prompts(axes: Axes, template: object, here: str, problems: list[str]) -> Prompts | None:
    if not axes:
        return None
    if not isinstance(template, str):
        problems.append(f"{here}: the template is {template!r}: expected a text")
        return None
    named = set(re.findall(r"{(\w+)}", template))
    if re.search(r"[{}]", re.sub(r"{\w+}", "", template)):
        problems.append(f"{here}: the template has a stray brace: {template!r}")
    for name in sorted(named - set(axes)):
        problems.append(
            f"{here}: the template names the axis '{name}', which has no wordings"
            + did_you_mean(name, axes)
        )
    for name in sorted(set(axes) - named):
        problems.append(
            f"{here}: prompts.{name} is an axis that the template never names"
            + did_you_mean(name, named)
        )
    return Prompts(template=template, axes=axes)


def _wording(concept: str, name: str, axis: Mapping[str, int], index: int) -> str:
    block = [wording for wording, quota in axis.items() for _ in range(quota)]
    number, offset = divmod(index, len(block))
    rng = np.random.default_rng(seed(f"{concept}#{name}", number, 0))
    return block[int(rng.permutation(len(block))[offset])]


def _collisions(groups: Sequence[Group]) -> list[str]:
    seen: dict[str, str] = {}
    problems = []
    for group in groups:
        for concept in group.concepts:
            if concept.role != "novel":
                continue
            first = seen.setdefault(concept.name.casefold(), concept.id)
            if first != concept.id:
                problems.append(f"'{concept.name}' is the name of both {first} and {concept.id}")
    return problems
