"""CITATION.cff and the BibTeX entry: what the format requires, whatever people write."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from isekai.card import citation, facts, yaml_text
from tests import dataset_folders
from tests.test_card import HOSTILE

REQUIRED = {"cff-version", "message", "title", "authors"}
"""https://github.com/citation-file-format/citation-file-format/blob/1.2.0/schema.json"""

KNOWN = {"type", "abstract", "version", "keywords", "license", "references"}

REFERENCE = {"type", "title", "authors"}


def cited(root: Path, **changed: object) -> dict:
    dataset_folders.write(root / "isekai-20", **changed)
    return yaml.safe_load(citation.cff(facts.read(root)))


def test_the_file_has_what_the_format_requires_and_nothing_it_does_not_know(tmp_path):
    told = cited(tmp_path)
    assert REQUIRED <= set(told) <= REQUIRED | KNOWN
    assert (told["cff-version"], told["type"]) == ("1.2.0", "dataset")
    assert told["title"] == "Isekai: 6 novel concepts in 3 groups"
    assert told["version"] == facts.read(tmp_path)[0].manifest.fingerprint[:12]
    assert told["license"] == "CC0-1.0"
    for one in told["references"]:
        assert set(one) >= REFERENCE
        assert one["authors"]


def test_the_paper_is_cited_as_somebody_elses(tmp_path):
    paper, software = cited(tmp_path)["references"]
    assert (paper["title"], paper["year"]) == ("Link-Context Learning for Multimodal LLMs", 2024)
    assert [one["family-names"] for one in paper["authors"]] == [
        *("Tai", "Fan", "Zhang", "Zhu", "Zhao", "Liu")
    ]
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2308.07891"}]
    assert "neither this dataset" in paper["notes"]
    assert software["type"] == "software"


def test_authors_are_those_that_the_build_names_and_their_lack_is_told(tmp_path):
    (nobody,) = cited(tmp_path / "a")["authors"]
    assert nobody == {"name": "The publishers of this dataset, who gave no names"}
    named = {"license": "mit", "authors": ["Ada Lovelace", "A Lab"]}
    told = cited(tmp_path / "b", settings=named)
    assert told["authors"] == [{"name": "Ada Lovelace"}, {"name": "A Lab"}]
    assert "author = {{Ada Lovelace} and {A Lab}}" in citation.bibtex(facts.read(tmp_path / "b"))


@pytest.mark.parametrize("license", ["unknown", "other", "openrail++"])
def test_a_licence_without_an_spdx_name_is_left_out(tmp_path, license):
    assert "license" not in cited(tmp_path, settings={"license": license})


def test_several_datasets_are_cited_as_one_whose_version_moves_with_each(tmp_path):
    dataset_folders.write(tmp_path / "a", settings={"license": "mit"})
    alone = facts.version(facts.read(tmp_path))
    dataset_folders.write(tmp_path / "b", dataset_folders.groups(2))
    both = facts.read(tmp_path)
    told = yaml.safe_load(citation.cff(both))
    assert told["title"] == "Isekai: 6 novel concepts in 3 groups, and 1 more"
    assert "license" not in told  # two licences in a list would mean a choice
    assert re.fullmatch(r"[0-9a-f]{12}", told["version"])
    dataset_folders.write(tmp_path / "b", dataset_folders.groups(2), query=1)
    assert len({alone, told["version"], facts.version(facts.read(tmp_path))}) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_titles_stay_titles(tmp_path, text):
    assert cited(tmp_path, title=text)["title"] == text
    entry = citation.bibtex(facts.read(tmp_path))
    assert entry.count("{") == entry.count("}") == 4
    assert entry.count("@") == 1
    assert len(entry.splitlines()) == 5


# ---------------------------------------------------------------- the YAML beneath

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=20)
KEYS = st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_whatever_is_written_as_yaml_is_read_back(value):
    written = yaml_text.dump(value)
    assert yaml.safe_load(written) == value
    assert written.splitlines() == written.split("\n")[:-1]  # as `datasets` splits a card


def test_what_yaml_text_does_not_write_is_an_error():
    with pytest.raises(TypeError, match="set is not written"):
        yaml_text.dump({"a": {1, 2}})


@given(st.floats(allow_nan=False) | st.dates())
def test_numbers_and_dates_of_a_strangers_card_are_written_as_they_are(value):
    assert yaml.safe_load(yaml_text.dump({"a": [value]})) == {"a": [value]}
