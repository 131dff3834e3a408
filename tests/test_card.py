"""The dataset card: what it tells, that the Hub's libraries read it, and that no text is markup."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from isekai import card, episode_lists, files
from isekai.card import facts
from isekai.errors import DataError
from isekai.parquet import COLUMNS
from isekai.types import Estimate
from tests import dataset_folders

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
    "```\n# out of the fence",
    "right\u202eto left",
    "next\u0085line\u2028and\u2029and\ufeff",
    "&lt;b&gt; &copy;",
    'ends with a "quote" and a backslash \\',
]


def written(root: Path, **told: object) -> str:
    """The card of a root with one dataset."""
    dataset_folders.write(root / "isekai-20", **told)
    card.write(root)
    return (root / "README.md").read_text()


def body(markdown: str) -> str:
    """As HTML, the front matter aside."""
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return rendered.render(markdown.split("---\n", 2)[2])


def front(markdown: str) -> dict:
    return yaml.safe_load(markdown.split("---\n", 2)[1])


def table_rows(html: str) -> list[list[str]]:
    rows = re.findall(r"<tr>\n(.*?)</tr>", html, re.DOTALL)
    return [re.findall(r"<td>(.*?)</td>", row, re.DOTALL) for row in rows]


# ---------------------------------------------------------------- what programs read


def test_the_front_matter_is_what_the_hub_reads(tmp_path):
    told = front(written(tmp_path))
    (info,) = told.pop("dataset_info")
    assert told == {
        "pretty_name": "Isekai: 6 novel concepts in 3 groups",
        "license": "cc0-1.0",
        "language": ["en"],
        "multilinguality": ["monolingual"],
        "annotations_creators": ["machine-generated"],
        "source_datasets": ["original"],
        "task_categories": ["image-classification", "image-text-to-text"],
        "size_categories": ["n<1K"],
        "tags": [
            *("isekai", "benchmark", "few-shot", "in-context-learning", "novel-concepts"),
            "synthetic",
        ],
        "configs": [
            {
                "config_name": "isekai-20",
                "default": True,
                "data_files": [
                    {"split": "support", "path": "isekai-20/support-*.parquet"},
                    {"split": "query", "path": "isekai-20/query-*.parquet"},
                ],
            }
        ],
    }
    files_there = (tmp_path / "isekai-20").glob("*.parquet")
    assert info["download_size"] == sum(path.stat().st_size for path in files_there)
    assert info["dataset_size"] == sum(split["num_bytes"] for split in info["splits"])
    assert [split["num_examples"] for split in info["splits"]] == [36, 18]


def test_load_dataset_reads_every_config_and_the_first_by_default(tmp_path):
    from datasets import load_dataset
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCard

    dataset_folders.write(tmp_path / "invented-7", dataset_folders.groups(2))
    written(tmp_path)
    infos = DatasetInfosDict.from_dataset_card_data(DatasetCard.load(tmp_path / "README.md").data)
    cache = str(tmp_path / "cache")
    for name, rows in (("invented-7", (24, 12)), ("isekai-20", (36, 18)), (None, (24, 12))):
        loaded = load_dataset(str(tmp_path), name, cache_dir=cache)
        assert (len(loaded["support"]), len(loaded["query"])) == rows
        told = infos[name or "invented-7"]
        assert told.features == loaded["support"].features
        assert {name: split.num_examples for name, split in told.splits.items()} == {
            name: len(split) for name, split in loaded.items()
        }
        assert loaded["query"][0]["image"].size == (8, 8)


@pytest.mark.parametrize(
    ("images", "category"),
    [
        *((999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M")),
        *((1_000_000, "1M<n<10M"), (10_000_000, "10M<n<100M")),
    ],
)
def test_the_size_category_is_the_hubs_word(tmp_path, images, category):
    assert front(written(tmp_path, images=images))["size_categories"] == [category]


def test_pictures_of_a_folder_are_not_called_synthetic(tmp_path):
    brought = written(tmp_path / "a", source="folder")
    assert "synthetic" not in front(brought)["tags"]
    assert front(brought)["annotations_creators"] == ["other"]
    assert "renderings" not in brought
    drawn = written(tmp_path / "b")
    assert "renderings" in drawn
    shutil.copytree(tmp_path / "a" / "isekai-20", tmp_path / "b" / "brought")
    files.write_json(
        tmp_path / "b" / "brought" / "manifest.json",
        json.loads((tmp_path / "a" / "isekai-20" / "manifest.json").read_text())
        | {"name": "brought"},
    )
    card.write(tmp_path / "b")
    both = front((tmp_path / "b" / "README.md").read_text())
    assert both["annotations_creators"] == ["machine-generated", "other"]
    assert "synthetic" not in both["tags"]


# ---------------------------------------------------------------- what people read


def test_counts_stand_in_the_tables(tmp_path):
    rows = table_rows(body(written(tmp_path, rejected={"same bytes": 3, "unreadable": 1})))
    assert ["<code>isekai-20</code>", "6", "3", "36", "18", "8 x 8"] in [
        [row[0], *row[2:]] for row in rows if len(row) == 7
    ]
    counted = [row for row in rows if len(row) == 6 and row[2] in ("novel: blend", "foil")]
    assert len(counted) == 9
    assert {tuple(row[3:5]) for row in counted} == {("4", "2")}
    assert ["same bytes", "3"] in rows
    assert ["unreadable", "1"] in rows
    assert {f"<code>{name}</code>" for name in COLUMNS} <= {row[0] for row in rows if row}


def test_nothing_left_out_is_said(tmp_path):
    assert "\n\nNothing.\n\n" in written(tmp_path, rejected={})


def test_limits_and_what_was_measured_are_told(tmp_path):
    rows = table_rows(body(written(tmp_path)))
    assert ["<code>hash_distance</code>", "<code>32</code>"] in rows
    assert ["closest cosine across splits", "<code>0.9</code>"] in rows
    nested = table_rows(body(written(tmp_path, checks={"leaks": {"across_splits": 3}})))
    assert ["leaks: across splits", "<code>3</code>"] in nested


def test_the_figures_behind_calibrated_limits_are_told(tmp_path):
    from isekai.calibration import RULES, Calibration, Line
    from isekai.dedup import Limits

    share = Estimate(value=0.5, low=0.25, high=0.75, n=8, clusters=8)
    found = Calibration(
        limits=Limits(),
        asked=0.99,
        seed=0,
        pictures=16,
        concepts=4,
        measured=8,
        lines=[Line(pairs="jpeg_q30", same=True, n=8, found=dict.fromkeys(RULES, share))],
        recall=dict.fromkeys(RULES, share),
        precision={**dict.fromkeys(RULES, share), "hash": None},
    )
    told = {"limits": found.limits, "license": "mit", "calibration": found}
    html = body(written(tmp_path, settings=files.plain(told)))
    shares = ["0.500 (0.250 to 0.750)"] * len(RULES)
    assert ["jpeg_q30", "8", *shares] in table_rows(html)
    assert ["<strong>precision</strong>", "", "nothing found", *shares[1:]] in table_rows(html)
    assert "picked for a precision of 0.99" in html
    assert "build: <code>calibration" not in html
    with pytest.raises(DataError, match=r"settings\.calibration: .*asked is missing"):
        written(tmp_path / "odd", settings={"calibration": {"lines": []}})


def test_a_diffusion_models_licence_is_told_where_it_is_known(tmp_path):
    known = "black-forest-labs/FLUX.1-dev"
    for name, model in (("a", known), ("b", "someone/something")):
        dataset_folders.write(tmp_path / name, source="diffusers", model=model)
    card.write(tmp_path)
    rows = table_rows(body((tmp_path / "README.md").read_text()))
    licences = {row[1]: row[3] for row in rows if row[:1] == ["<code>diffusers</code>"]}
    assert licences == {
        f"<code>{known}</code>": "flux-1-dev-non-commercial",
        "<code>someone/something</code>": "not known here",
    }


def test_published_episodes_are_told_with_the_command_that_asks_them(tmp_path):
    folder = dataset_folders.write(tmp_path / "isekai-20")
    card.write(tmp_path)
    assert "--task published" not in (tmp_path / "README.md").read_text()
    episode_lists.write(folder)
    card.write(tmp_path)
    told = (tmp_path / "README.md").read_text()
    assert "--task published --shots 0,1,2,4 " in told
    held = files.sha256((folder / "episodes" / "twin.jsonl").read_bytes())
    assert ["<code>twin</code>", "12", f"<code>{held}</code>"] in [
        [row[0], *row[2:]] for row in table_rows(body(told)) if len(row) == 4
    ]


def test_novelty_is_hoped_for_until_evidence_is_there(tmp_path):
    from isekai import evidence

    assert "is hoped for, not measured" in written(tmp_path)
    (one,) = facts.read(tmp_path)
    found = evidence.Evidence(dataset=one.manifest.fingerprint)
    evidence.write(tmp_path / "isekai-20", found)
    card.write(tmp_path)
    told = (tmp_path / "README.md").read_text()
    assert "is hoped for, not measured" not in told
    assert evidence.section(found, one.groups) in told


def test_evidence_about_other_pictures_is_refused(tmp_path):
    from isekai import evidence

    before = written(tmp_path)
    evidence.write(tmp_path / "isekai-20", evidence.Evidence(dataset="0" * 64))
    with pytest.raises(DataError, match=r"novelty\.json: is about other pictures than those here"):
        card.write(tmp_path)
    assert (tmp_path / "README.md").read_text() == before


def test_the_paper_is_cited_and_told_to_be_of_others(tmp_path):
    told = written(tmp_path)
    assert "@inproceedings{tai2024link," in told
    assert "Its authors made neither this dataset nor isekai" in told


# ---------------------------------------------------------------- several datasets, and files


def test_each_dataset_has_its_part_under_its_name(tmp_path):
    dataset_folders.write(tmp_path / "invented-7", dataset_folders.groups(2), source="folder")
    told = written(tmp_path)
    assert "90 pictures of 6 novel concepts and 3 foils in 3 groups, in 2 datasets." in told
    for section in ("How it was made", "What was left out, and why", "The benchmark"):
        part = told.split(f"## {section}\n")[1].split("\n## ")[0]
        assert re.findall(r"^### (.*)$", part, re.MULTILINE) == ["invented-7", "isekai-20"]
    sheets = [(tmp_path / name / "contact_sheet.png").read_bytes() for name in ("", "invented-7")]
    assert sheets[0] == sheets[1] != (tmp_path / "isekai-20" / "contact_sheet.png").read_bytes()


def test_equal_files_give_equal_bytes_wherever_they_lie(tmp_path):
    made = ("README.md", "croissant.json", "CITATION.cff", "contact_sheet.png")
    written(tmp_path / "a")
    first = [(tmp_path / "a" / name).read_bytes() for name in made]
    card.write(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    card.write(tmp_path / "b")
    for where in ("a", "b"):
        assert [(tmp_path / where / name).read_bytes() for name in made] == first
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == sorted([*made, "isekai-20"])


def test_a_dataset_that_is_not_finished_is_passed_over(tmp_path):
    before = written(tmp_path)
    dataset_folders.write(tmp_path / "later", complete=False)
    card.write(tmp_path)
    assert (tmp_path / "README.md").read_text() == before
    shutil.rmtree(tmp_path / "isekai-20")
    with pytest.raises(DataError, match="holds no finished dataset; make one with `isekai build`"):
        card.write(tmp_path)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "contact_sheet.png").unlink(), "contact_sheet.png: no such file"),
        (lambda folder: (folder / "query-00000-of-00001.parquet").unlink(), "query-"),
        (lambda folder: (folder / "groups.json").write_text("[]"), "is not in groups.json"),
        (lambda folder: folder.rename(folder.with_name("other")), "calls it 'isekai-20'"),
        (lambda folder: (folder / "rejected.jsonl").write_text("{}\n"), "rejected.jsonl: line 1"),
    ],
)
def test_a_dataset_that_contradicts_itself_gets_no_card(tmp_path, damage, problem):
    damage(dataset_folders.write(tmp_path / "isekai-20"))
    with pytest.raises(DataError, match=re.escape(problem)):
        card.write(tmp_path)
    assert not (tmp_path / "README.md").exists()


# ---------------------------------------------------------------- text of strangers


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(tmp_path, text):
    plain = written(tmp_path / "plain", text="plain", rejected={"plain": 1})
    odd = written(
        tmp_path / "odd",
        text=text,
        rejected={text: 1},
        checks={text: text},
        environment={text: text},
    )
    assert front(odd).keys() == front(plain).keys()
    assert front(odd)["pretty_name"] == text
    tags = re.compile(r"<(?!/)[^>]*>")
    assert tags.findall(body(odd)) == tags.findall(body(plain))
    assert addresses(odd) == addresses(plain)
    assert not re.search(r"[\u202a-\u202e\u0085\u2028]", odd.split("---\n", 2)[2])


def addresses(markdown: str) -> list[str]:
    """What the Hub would make links of: addresses outside code whose colon is not escaped."""
    shown = re.sub(r"^```.*?^```$", "", markdown.split("---\n", 2)[2], flags=re.S | re.M)
    return re.findall(r"(?:\w+|(?<!\\):)//\S*|www\.\S*", re.sub(r"(?<!\\)`[^`]*`", "", shown))


@settings(max_examples=30, deadline=None)
@given(text=st.text(alphabet=st.sampled_from("ab \\`*_{}[]<>|~$&!#:@/.wW()-+=1é\n\t"), max_size=30))
def test_whatever_a_title_is_the_tables_show_it(tmp_path_factory, text):
    html = body(written(tmp_path_factory.mktemp("any"), title=text))
    shown = next(row[1] for row in table_rows(html) if len(row) == 7)
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(entity, character)
    assert shown == " ".join(text.split())
