"""The novelty step: what it adds to a dataset, keeps, refuses, and pays for."""

import pytest

from isekai import evidence, novelty, plugins
from isekai.dataset import Dataset
from isekai.errors import IsekaiError, PluginError
from isekai.evidence import naming
from tests import dataset_folders, tiny_models
from tests.evidence_data import Names, showing, shown
from tests.evidence_data import axis as direction
from tests.loopback import serve

PAID = {"price_in": 1.0, "price_out": 1.0, "cache": False, "retries": 0}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    return dataset_folders.write(tmp_path / "dataset" / "isekai-20", dataset_folders.groups(2))


def named(folder, model, **given):
    return novelty.run(folder, adapters=[model], **given)


def said(folder):
    return dict.fromkeys(shown(Dataset.open(folder)).values(), "A stone.")


def test_each_kind_is_added_to_what_is_there_and_the_card_tells_of_all(folder, tmp_path):
    known = tmp_path / "known"
    known.mkdir()
    showing(direction(0)).save(known / "a.png")
    model = Names(said(folder), shown(Dataset.open(folder)))
    path = novelty.run(folder, embedder="lite0", reference=known, threshold=0.9)
    first = evidence.read(folder)
    assert path == folder / "novelty.json"
    assert first.vocabulary is None
    assert first.reference.pictures == 1
    named(folder, model, pictures=2)
    both = evidence.read(folder)
    assert (both.probes, both.style, both.reference) == (first.probes, first.style, first.reference)
    assert both.naming["names"].made["pictures"] == 2 * 6
    assert both.naming["names"].overall["novel"]["other"].value == 1
    card = (folder.parent / "README.md").read_text()
    assert "Can they be told by style alone" in card
    assert "What does names call them" in card


def test_a_root_with_one_dataset_is_as_good_as_the_dataset_itself(folder):
    model = Names(said(folder), shown(Dataset.open(folder)))
    assert named(folder.parent, model, pictures=1) == folder / "novelty.json"
    assert (folder.parent / "README.md").exists()


def test_evidence_of_other_pictures_is_replaced(folder, capsys):
    model = Names(said(folder), shown(Dataset.open(folder)))
    named(folder, model, pictures=1)
    there = (folder / "novelty.json").read_text()
    fingerprint = Dataset.open(folder).fingerprint
    (folder / "novelty.json").write_text(there.replace(fingerprint, "0" * 64))
    novelty.run(folder, embedder="lite0")
    assert evidence.read(folder).naming == {}
    assert "told of other pictures, and is replaced" in capsys.readouterr().err


def test_a_server_is_asked_for_each_picture_once_and_without_a_word_of_the_labels(folder):
    with serve(answer=lambda support, query: "A stone.") as server:
        options = {"base_url": server.url, "cache": False}
        told = novelty.forecast(folder, models=["openai:tiny"], options=options, pictures=2)
        assert told["openai:tiny"]["questions"] == 12
        assert told["openai:tiny"]["prompt_tokens"] > 0
        assert server.asked == []
        novelty.run(folder, models=["openai:tiny"], options=options, pictures=2, probe=False)
        assert len(server.asked) == 12
        assert all(len(request.images) == 1 for request in server.asked)
        words = [c.name for group in Dataset.open(folder).groups for c in group.concepts]
        assert not any(word in request.raw.decode() for request in server.asked for word in words)
        novelty.run(folder, models=["openai:tiny"], options=options, pictures=2)
        assert len(server.asked) == 12
        told = novelty.forecast(folder, models=["openai:tiny"], options=options, pictures=2)
        assert told["openai:tiny"]["questions"] == 0


def test_a_budget_that_is_spent_stops_it_and_a_larger_one_pays_for_the_rest_alone(folder):
    with serve(answer=lambda support, query: "A stone.") as server:
        options = {"base_url": server.url, "concurrency": 1, **PAID}
        each = novelty.forecast(folder, models=["openai:tiny"], options=options)
        cost = each["openai:tiny"]["cost"] / each["openai:tiny"]["questions"]
        assert novelty.words(each).startswith("36 questions to openai:tiny, about ")
        assert "out, about $" in novelty.words(each)
        tight = {**options, "max_cost": 5.5 * cost}
        with pytest.raises(IsekaiError, match="max_cost"):
            novelty.run(folder, models=["openai:tiny"], options=tight, probe=False)
        paid = len(server.asked)
        assert 0 < paid < 36
        assert not (folder / "novelty.json").exists()
        assert len((folder / naming.FILE).read_text().splitlines()) == paid
        novelty.run(folder, models=["openai:tiny"], options=options, probe=False)
        assert len(server.asked) == each["openai:tiny"]["questions"]


def test_a_server_that_drops_pictures_is_found_out_before_it_is_paid(folder):
    with serve(answer=lambda support, query: "A stone.", keeps=0) as server:
        options = {"base_url": server.url, "cache": False}
        with pytest.raises(IsekaiError, match="images reach"):
            novelty.run(folder, models=["openai:tiny"], options=options)
        assert not (folder / "novelty.json").exists()


def test_a_model_that_only_chooses_among_labels_is_no_evidence(folder):
    with pytest.raises(IsekaiError, match=r"prototype: none of 6 questions was answered \(empty\)"):
        novelty.run(folder, models=["prototype"], pictures=1)
    assert not (folder / "novelty.json").exists()


def test_a_real_model_of_pictures_and_texts_looks_up_names_and_embeds_each_once(folder, tmp_path):
    model = tiny_models.clip(tmp_path / "model")
    words = tmp_path / "words.txt"
    words.write_text("stone\nhedgehog\none 0\n")
    novelty.run(folder, embedder=f"transformers:{model}", vocabulary=words)
    first = evidence.read(folder).vocabulary
    assert {name.name for name in first.concepts["g0/one"].nearest} == {
        "stone",
        "hedgehog",
        "one 0",
    }
    assert first.concepts["g0/one"].collision
    assert first.made["embedder"]["model"] == "model"
    assert first.made["embedder"]["revision"]
    assert str(tmp_path) not in (folder / "novelty.json").read_text()
    novelty.run(folder, embedder=f"transformers:{model}", vocabulary=words)
    assert evidence.read(folder).vocabulary == first


def test_impossible_wishes_are_refused_before_anything_is_measured(folder, tmp_path):
    with pytest.raises(IsekaiError, match="nothing to measure; give --embedder"):
        novelty.run(folder)
    with pytest.raises(
        PluginError, match="none of these has an option 'sise'; did you mean 'size'"
    ):
        novelty.run(folder, embedder="lite0", options={"sise": 160})
    with pytest.raises(IsekaiError, match="0 pictures a concept"):
        novelty.run(folder, embedder="lite0", pictures=0)
    words = tmp_path / "words.txt"
    words.write_text("stone\n")
    with pytest.raises(PluginError, match="embeds no texts"):
        novelty.run(folder, embedder="lite0", vocabulary=words)
    assert not (folder / "novelty.json").exists()
    assert "open_clip" in plugins.names("embedders")
