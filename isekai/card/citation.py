"""Writes CITATION.cff: how a dataset is cited, and the paper whose task it serves.

The Citation File Format 1.2.0, https://github.com/citation-file-format/citation-file-format
"""

from collections.abc import Sequence

from isekai.card import yaml_text
from isekai.card.facts import Facts, authors, title, version

PAPER = "Link-Context Learning for Multimodal LLMs"
PAPER_AUTHORS = (
    ("Yan", "Tai"),
    ("Weichen", "Fan"),
    ("Zhao", "Zhang"),
    ("Feng", "Zhu"),
    ("Rui", "Zhao"),
    ("Ziwei", "Liu"),
)
ARXIV = "2308.07891"

PAPER_BIBTEX = """\
@inproceedings{tai2024link,
  title = {Link-Context Learning for Multimodal {LLMs}},
  author = {Tai, Yan and Fan, Weichen and Zhang, Zhao and Zhu, Feng and Zhao, Rui and Liu, Ziwei},
  booktitle = {Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2024},
  note = {arXiv:2308.07891}
}"""

SPDX = {
    name.casefold(): name
    for name in (
        *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "PDDL-1.0", "ODC-By-1.0"),
        *("CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
        *("CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-3.0"),
        *("CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"),
        *("CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ODbL-1.0"),
        *("ISC", "MPL-2.0", "Unlicense", "WTFPL", "Zlib", "ECL-2.0", "EPL-2.0", "EUPL-1.2"),
    )
} | {"odc-by": "ODC-By-1.0", "odbl": "ODbL-1.0", "pddl": "PDDL-1.0"}
"""The Hub's name of a licence -> its SPDX identifier. The Hub's `unknown` and `other` have none."""


def cff(all_facts: Sequence[Facts]) -> str:
    """CITATION.cff of the datasets in one repository.

    Where the builds name no authors, the entry says so: the format wants one.
    """
    named = authors(all_facts) or ("The publishers of this dataset, who gave no names",)
    licences = {SPDX.get(one.license) for one in all_facts}
    told: dict[str, object] = {
        "cff-version": "1.2.0",
        "message": "If you use this dataset, please cite it, and the paper whose task it serves.",
        "type": "dataset",
        "title": title(all_facts),
        "abstract": _abstract(all_facts),
        "authors": [{"name": name} for name in named],
        "version": version(all_facts),
        "keywords": ["in-context learning", "few-shot", "novel concepts", "multimodal"],
    }
    if len(licences) == 1 and None not in licences:  # the format means a choice by several
        told["license"] = licences.pop()
    told["references"] = [
        {
            "type": "conference-paper",
            "title": PAPER,
            "authors": [
                {"given-names": given, "family-names": family} for given, family in PAPER_AUTHORS
            ],
            "year": 2024,
            "collection-title": "Conference on Computer Vision and Pattern Recognition (CVPR)",
            "identifiers": [{"type": "other", "value": f"arXiv:{ARXIV}"}],
            "notes": "Its authors defined the task; they made neither this dataset nor isekai.",
        },
        {
            "type": "software",
            "title": "isekai",
            "authors": [{"name": "The isekai contributors"}],
            "version": str(all_facts[0].manifest.environment.get("isekai", "unknown")),
            "license": "Apache-2.0",
            "notes": "What drew, chose and packed the pictures.",
        },
    ]
    return yaml_text.dump(told)


def bibtex(all_facts: Sequence[Facts]) -> str:
    """The dataset as a BibTeX entry, without a year: no file here says when it was published."""
    named = " and ".join(f"{{{_tex(name)}}}" for name in authors(all_facts))
    lines = [
        f"  title = {{{_tex(title(all_facts))}}},",
        f"  author = {{{named}}}," if named else "",
        f"  version = {{{version(all_facts)}}},",
        "  note = {Made with isekai}",
    ]
    body = "\n".join(line for line in lines if line)
    return f"@misc{{isekai_{version(all_facts)},\n{body}\n}}"


def _abstract(all_facts: Sequence[Facts]) -> str:
    images = sum(one.manifest.images for one in all_facts)
    novel = len({c.id for one in all_facts for c in one.concepts if c.role == "novel"})
    return (
        f"{images} pictures of {novel} novel concepts and of real things that they resemble, "
        "made to measure whether a multimodal model learns a new name from a few pictures in its "
        "context."
    )


def _tex(text: str) -> str:
    """A title or name for BibTeX: braces and commands in it would be the file's own."""
    shown = (one for one in " ".join(text.split()) if one.isprintable())
    return "".join(one for one in shown if one not in "{}\\%$#&_^~@`" + '"')
