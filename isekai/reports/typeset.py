"""Results for papers and spreadsheets: the rows of `report` in LaTeX, and all numbers as CSV."""

import csv as comma_separated
import io
import re
from collections.abc import Sequence

from isekai.reports import headings, tables
from isekai.types import Result

# ---------------------------------------------------------------- LaTeX

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "`": r"\`{}",
    '"': r"\symbol{34}", "–": "--",
}  # fmt: skip


def latex(
    results: Sequence[Result],
    verdicts: tables.Verdicts | None = None,
    warnings: Sequence[str] = (),
) -> str:
    """A floating table for `booktabs`: a block for each task, controls indented below a model."""
    shots = tables.shot_counts(results)
    width = len(shots) + 2
    said = [*warnings, f"{tables.TITLE}.", *tables.notes(results)]
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering\\small",
        f"  \\caption{{{_tex(' '.join(said))}}}",
        "  \\label{tab:isekai}",
        f"  \\begin{{tabular}}{{l{'r' * (width - 1)}}}",
        "    \\toprule",
        _tex_row(["", *(_tex(tables.heading(results, k)) for k in shots), "n (clusters)"]),
    ]
    for task in dict.fromkeys(result.task for result in results):
        own = [result for result in results if result.task == task]
        title = f"\\textbf{{{_tex(task)}}}, chance {tables.share(own[0].chance)}"
        lines += ["    \\midrule", _tex_row([f"\\multicolumn{{{width}}}{{l}}{{{title}}}"])]
        for row in tables.rows(own):
            lines += ["    \\addlinespace"] if row.plain else []
            name = ("" if row.plain else r"\quad ") + _tex(row.heading)
            cells = [_tex_cell(row.cell(k)) for k in shots]
            lines.append(_tex_row([name, *cells, _tex(row.behind)]))
    lines += ["    \\bottomrule", "  \\end{tabular}"]
    legend = headings.legend(result.control for result in results)
    below = [f"{control}: {words}" for control, words in legend.items()]
    below += [f"{model} ({task}) {words}" for model, task, words in tables.verdict_lines(verdicts)]
    lines += [f"  \\par\\smallskip\\footnotesize {_tex('. '.join(below))}."] if below else []
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def _tex(text: str) -> str:
    """Text that LaTeX shows as it is, wherever it stands."""
    plain = headings.line(text)
    marked = "".join(
        _LATEX.get(character, character) for character in re.sub("-(?=-)", "-\0", plain)
    )
    shown = marked.replace("\0", "{}")  # no dash is made of two hyphens
    return f"{{{shown[0]}}}{shown[1:]}" if shown[:1] in ("[", "*") else shown  # `\\` reads these


def _tex_cell(words: Sequence[str]) -> str:
    """The number, and in small below it what belongs to it."""
    if len(words) < 2:
        return _tex("".join(words))
    small = [rf"{{\scriptsize {_tex(word)}}}" for word in words[1:]]
    lines = r"\\".join([_tex(words[0]), *small])
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{lines}\end{{tabular}}"


def _tex_row(cells: Sequence[str]) -> str:
    return f"    {' & '.join(cells)} \\\\"


# ---------------------------------------------------------------- CSV


def csv(results: Sequence[Result]) -> str:
    """A line for each result with all its numbers as they are; text never starts a formula."""
    others = sorted({name for r in results for name in r.metrics} - {"accuracy", "abstain"})
    named = [("accuracy", ""), ("abstain", "abstain_"), *((name, f"{name}_") for name in others)]
    lines = []
    for result in results:
        line: dict[str, object] = {
            "model": _inert(result.model),
            "task": _inert(result.task),
            "control": _inert(result.control),
            "shots_per_class": result.shots_per_class,
            "n_support_images": result.n_support_images,
        }
        for name, prefix in named:
            estimate = result.metrics.get(name)
            line[name] = estimate.value if estimate else ""
            for field in ("low", "high", "n", "clusters"):
                line[prefix + field] = getattr(estimate, field) if estimate else ""
        line |= {"chance": result.chance, **{f"n_{o}": n for o, n in result.outcomes.items()}}
        line |= {"spread": "" if result.spread is None else result.spread}
        line |= {"intervals": result.intervals, "episodes": result.episodes}
        lines.append(line)
    text = io.StringIO()
    writer = comma_separated.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _inert(text: str) -> str:
    """Spreadsheets run what begins like a formula; behind an apostrophe it is text."""
    plain = headings.line(text)
    return f"'{plain}" if re.match(r"[=+\-@]", plain) else plain
