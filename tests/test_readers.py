"""Published lists are read as they stand: what they ask, what is wrong, where they lie."""

import json
import os
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isekai import files, plugins
from isekai.dataset import Dataset, load
from isekai.errors import DataError, IsekaiError
from isekai.images import encode
from isekai.readers import lists, naming, pairs
from isekai.readers.pictures import Seen, look_at

GOLDEN = Path(__file__).parent / "data" / "golden" / "lcl"
IMAGES = GOLDEN / "images"
EPISODES = json.loads((GOLDEN / "eval_episodes.json").read_text())

ROW = {
    "image_name": "q0.png",
    "positive_list": ["a0.png", "a1.png"],
    "negative_list": ["b0.png", "b1.png"],
    "positive_promt": "icemic",
    "negative_promt": "ice cream",
    "label_name": "icemic",
}
OTHER = {**ROW, "image_name": "q1.png", "label_name": "ice cream"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pictures.sqlite"


def picture(path: Path, colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(Image.new("RGB", (8, 8), (colour, 100, 200))))
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """`ROW` and `OTHER` with their pictures."""
    for colour, name in enumerate(("q0", "q1", "a0", "a1", "b0", "b1")):
        picture(tmp_path / "set" / f"{name}.png", colour)
    return written(tmp_path / "set", ROW, OTHER)


def written(folder: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "asked.json").write_text("\n".join(lines))
    return folder


def read(folder: Path, **options) -> Dataset:
    return lists.read(str(folder), **options)


# ---------------------------------------------------------------- as the released code reads them


def asked(dataset: Dataset, number: int, shots: int) -> list[tuple[str, str]]:
    """(picture, word) of the support set and then of the query of a published question."""
    task = plugins.load("tasks", "lists")
    drawn = task(dataset, shots=(0, shots), queries=1, episodes=1, labels="true", seed=0)
    episode = list(drawn)[number]
    names = {files.sha256(path.read_bytes()): path.name for path in IMAGES.iterdir()}
    return [
        (names[one.image_id], episode.labels[one.concept])
        for one in (*episode.support, *episode.queries)
    ]


@pytest.mark.parametrize("case", EPISODES)
def test_support_sets_labels_and_queries_are_those_of_the_released_code(case):
    kind, shots, number = case.split("_")
    file = GOLDEN / f"{kind}_tiny.jsonl"
    dataset = read(GOLDEN) if kind == "isekai" else pairs.read(file, IMAGES, per_class=1)
    found = asked(dataset, int(number[1:]), int(shots[1:]))
    expected = [(name, word) for name, word in EPISODES[case]]
    assert sorted(found[:-1]) == sorted(expected[:-1])  # their order is the protocol's
    assert found[-1] == expected[-1]


def test_the_tiny_lists_become_two_pairs_with_a_novel_name_and_a_foil_each():
    dataset = read(GOLDEN)
    assert [(group.id, group.title) for group in dataset.groups] == [
        ("cactihog_hedgehog", "cactihog and hedgehog"),
        ("ice-cream_icemic", "icemic and ice cream"),
    ]
    concepts = [concept for group in dataset.groups for concept in group.concepts]
    assert [(c.name, c.role) for c in concepts] == [
        ("cactihog", "novel"),
        ("hedgehog", "foil"),
        ("icemic", "novel"),
        ("ice cream", "foil"),
    ]
    for concept in concepts:
        assert len(dataset.ids(concept.id, "support")) == 4
        assert len(dataset.ids(concept.id, "query")) == 1
    first = dataset.ids("cactihog_hedgehog/cactihog", "support")[0]
    assert dataset.image(first).data == (IMAGES / "p0_pos0.png").read_bytes()
    for name in ("foil", "pair"):
        task = plugins.load("tasks", name)
        drawn = task(dataset, shots=(0, 4), queries=1, episodes=1, labels="true", seed=0)
        assert list(drawn)


def test_imagenet_pairs_ask_both_classes_and_only_as_many_pictures_as_wanted():
    file = GOLDEN / "test100_tiny.jsonl"
    dataset = pairs.read(file, IMAGES, per_class=1)
    assert [one.line for one in dataset.lists] == [0, 1, 2, 3]
    names = [dataset.concept(one.concept).name for one in dataset.lists]
    assert names == ["cactihog", "hedgehog", "icemic", "ice cream"]
    assert all(one.concept == one.labels[0] for one in dataset.lists)
    assert {c.role for group in dataset.groups for c in group.concepts} == {"novel"}
    everything = pairs.read(file, IMAGES, per_class=0)
    assert len(everything.lists) == len(pairs.read(file, IMAGES).lists) == 8
    assert everything.fingerprint != dataset.fingerprint


def test_pictures_that_are_not_asked_for_may_be_missing(tmp_path):
    images = shutil.copytree(IMAGES, tmp_path / "images")
    (images / "p0_query1.png").unlink()
    file = GOLDEN / "test100_tiny.jsonl"
    assert pairs.read(file, images, per_class=1).lists
    with pytest.raises(DataError, match=r"picture 'p0_query1.png': no such file; mend it, or"):
        pairs.read(file, images)


def test_the_classes_of_a_pair_are_told_apart_by_their_ids_and_shown_in_lower_case(tmp_path):
    def row(id: str, name: str) -> dict[str, object]:
        shown = [f"p0_pos{id}.png"]
        return {
            "class_id": id,
            "class_name": name,
            "context_samples": shown,
            "test_samples": ["p1_query0.png"],
        }

    rows = [row("0", "Crane"), row("1", "Heron"), row("2", "crane"), row("3", "Kit Fox")]
    file = written(tmp_path, *rows) / "asked.json"
    dataset = pairs.read(file, IMAGES)
    concepts = [concept for group in dataset.groups for concept in group.concepts]
    assert [concept.name for concept in concepts] == ["crane", "heron", "crane", "kit fox"]
    assert len({concept.id for concept in concepts}) == 4


# ---------------------------------------------------------------- what they say


def test_a_name_that_is_ever_the_positive_one_is_novel(folder):
    turned = {**OTHER, "positive_promt": "ice cream", "negative_promt": "icemic"}
    dataset = read(written(folder, ROW, turned))
    assert {c.role for group in dataset.groups for c in group.concepts} == {"novel"}
    assert len(dataset.groups) == 1
    assert [one.labels[0].split("/")[1] for one in dataset.lists] == ["icemic", "ice-cream"]


def test_a_question_without_an_answer_is_left_out_and_told_with_its_reason(folder, capsys):
    dataset = read(written(folder, {**ROW, "label_name": "lamp"}, OTHER))
    assert [one.line for one in dataset.lists] == [1]
    told = capsys.readouterr().err
    assert "1 of 2 questions left out, since label_name is neither of the names: 'lamp' for" in told
    with pytest.raises(DataError, match="no question is left"):
        read(written(folder, {**ROW, "label_name": "lamp"}))


def test_a_name_in_two_spellings_is_one_thing_and_told(folder, capsys):
    other = {**OTHER, "negative_promt": "Ice_Cream", "label_name": "ICE CREAM"}
    dataset = read(written(folder, ROW, other))
    assert [c.name for c in dataset.groups[0].concepts] == ["icemic", "ice cream"]
    assert "written in the way that came first: Ice_Cream" in capsys.readouterr().err


def test_a_picture_in_a_list_and_asked_about_is_support_and_stays_a_published_query(folder, capsys):
    dataset = read(written(folder, {**ROW, "image_name": "a1.png"}, OTHER))
    concept = dataset.lists[0].concept
    assert dataset.lists[0].query in dataset.ids(concept, "support")
    assert dataset.ids(concept, "query") == ()
    assert "1 questions show their query in their own lists" in capsys.readouterr().err


def test_a_picture_under_both_names_of_a_pair_serves_the_published_questions_alone(folder, capsys):
    dataset = read(written(folder, {**ROW, "negative_list": ["b0.png", "a1.png"]}))
    claimed = dataset.lists[0].negatives[1]
    assert claimed in dataset.lists[0].positives
    assert claimed not in {entry.image_id for entry in dataset.entries}
    assert dataset.image(claimed).data == (folder / "a1.png").read_bytes()
    assert "1 pictures belong to both names of a pair" in capsys.readouterr().err


def test_pairs_may_share_a_name_with_its_pictures(folder):
    shared = {**ROW, "negative_promt": "lamp", "negative_list": ["b1.png"]}
    dataset = read(written(folder, {**ROW, "negative_list": ["b0.png"]}, shared))
    assert [group.id for group in dataset.groups] == ["ice-cream_icemic", "icemic_lamp"]
    one, two = (dataset.ids(f"{group.id}/icemic", "support") for group in dataset.groups)
    assert one == two != ()


def test_files_of_the_same_bytes_are_one_picture_and_counted(folder, capsys):
    shutil.copy(folder / "a0.png", folder / "a1.png")
    dataset = read(folder)
    assert len(set(dataset.lists[0].positives)) == 1
    assert "5 pictures; 1 files hold the same bytes as another" in capsys.readouterr().err


def test_keys_that_we_do_not_know_and_a_mark_of_the_byte_order_are_no_matter(folder):
    before = read(folder).fingerprint
    (folder / "asked.json").write_text(
        "\ufeff" + json.dumps({**ROW, "extra": 1}) + "\r\n\r\n" + json.dumps(OTHER) + "\r\n"
    )
    assert read(folder).fingerprint == before


# ---------------------------------------------------------------- where they lie


def test_the_identity_does_not_depend_on_where_the_folder_lies(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "else" / "where")
    assert read(moved).fingerprint == read(folder).fingerprint
    assert load(f"lists:{moved}").name == "where"


def test_annotations_and_pictures_are_found_where_only_one_will_do(folder, tmp_path):
    before = read(folder)
    (folder / "other.json").write_text('{"something": "else"}\n')
    (folder / "broken.jsonl").write_bytes(b"\xff\xfe not json")
    (folder / "deep" / "er").mkdir(parents=True)
    for path in folder.glob("*.png"):
        shutil.move(path, folder / "deep" / "er" / path.name)
    (folder / "deep" / "near-miss").mkdir()
    shutil.copy(folder / "deep" / "er" / "a0.png", folder / "deep" / "near-miss")
    assert read(folder).fingerprint == before.fingerprint
    assert read(folder / "asked.json").fingerprint == before.fingerprint
    assert read(folder, images="deep/er").fingerprint == before.fingerprint
    outside = tmp_path / "outside"
    shutil.move(folder / "deep", outside)
    assert read(folder, images=str(outside / "er")).fingerprint == before.fingerprint


def test_where_several_will_do_the_user_is_asked(folder):
    for path in folder.glob("*.png"):
        for name in ("one", "two"):
            (folder / name).mkdir(exist_ok=True)
            shutil.copy(path, folder / name)
        path.unlink()
    with pytest.raises(DataError, match=r"several folders: one, two; add \?images=NAME"):
        read(folder)
    assert read(folder, images="two").lists
    shutil.copy(folder / "asked.json", folder / "more.jsonl")
    with pytest.raises(DataError, match=r"asked.json, more.jsonl; add \?annotations=NAME"):
        read(folder)
    assert read(folder, images="two", annotations="more.jsonl").lists


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"annotations": "askd.json"}, "no annotations 'askd.json'; did you mean 'asked.json'"),
        ({"annotations": "../asked.json"}, "no annotations"),
        ({"images": "nowhere"}, "nowhere: no such folder of images"),
        ({"revision": "main"}, "lies here, so it has no revision"),
    ],
)
def test_options_that_fit_nothing_are_told(folder, options, told):
    with pytest.raises(DataError, match=told):
        read(folder, **options)


def test_a_folder_without_questions_says_what_was_expected(tmp_path):
    with pytest.raises(DataError, match=r"no JSON Lines file with the fields of ISEKAI-10"):
        read(tmp_path)
    with pytest.raises(DataError, match="no such folder or file, and no name of the form"):
        read(tmp_path / "nothing")


# ---------------------------------------------------------------- what can be wrong


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"image_name": "../q0.png"}, r"line 2: '../q0.png' leads out of the folder of pictures"),
        ({"image_name": "/etc/passwd"}, "line 2: '/etc/passwd' leads out of the folder"),
        ({"positive_list": ["a0.png", "x/../../y.png"]}, "leads out of the folder of pictures"),
        (
            {"image_name": "nothing.png"},
            "picture 'nothing.png': no such file; mend it, or name another folder with",
        ),
        ({"image_name": "a\0b.png"}, r"'a\\x00b.png': not a file"),
        ({"image_name": "\ud800.png"}, r"'\\ud800.png': not a file"),
        ({"image_name": "x" * 5000}, "File name too long"),
        ({"image_name": ""}, "'': not a file"),
        ({"image_name": None}, "line 2: image_name is None: expected a valid string"),
        ({"positive_list": "a0.png"}, "line 2: positive_list is 'a0.png': expected a valid tuple"),
        ({"negative_promt": "ICEMIC"}, "line 2: both names are 'icemic'"),
        ({"negative_promt": " "}, "line 2: positive_promt or negative_promt is empty"),
    ],
)
def test_what_is_wrong_with_a_line_is_told_and_nothing_outside_is_read(folder, wrong, told):
    with pytest.raises(DataError, match=told) as caught:
        read(written(folder, OTHER, {**ROW, **wrong}))
    assert len(str(caught.value).splitlines()) == 1


def test_all_problems_are_told_at_once_and_a_long_list_is_cut_short(folder):
    bad = {"image_name": "q0.png"}
    with pytest.raises(DataError) as caught:
        read(written(folder, ROW, bad, "{", "[" * 100_000, {**ROW, "negative_promt": "icemic"}))
    problems = str(caught.value).splitlines()
    assert [problem.split(": ")[1] for problem in problems[:5]] == ["line 2"] * 5
    assert "line 3 is not JSON" in problems[5]
    assert "line 4 is not JSON" in problems[6]
    assert "line 5: both names are 'icemic'" in problems[7]
    many = {**ROW, "positive_list": [f"x{n}.png" for n in range(100)]}
    with pytest.raises(DataError, match=r"and 80 more problems like these$") as caught:
        read(written(folder, many))
    assert len(str(caught.value).splitlines()) == 21


def test_a_picture_that_cannot_be_read_is_told(folder):
    (folder / "a1.png").write_bytes((folder / "a1.png").read_bytes()[:50])
    (folder / "b1.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read(folder)
    assert "'a1.png': damaged" in str(caught.value)
    assert "'b1.png': empty file" in str(caught.value)


def test_a_link_that_leads_out_is_refused_and_one_that_stays_is_not(folder, tmp_path):
    before = read(folder).fingerprint
    shutil.move(folder / "a1.png", folder / "real.png")
    (folder / "a1.png").symlink_to("real.png")
    assert read(folder).fingerprint == before
    shutil.move(folder / "real.png", tmp_path / "real.png")
    (folder / "a1.png").unlink()
    (folder / "a1.png").symlink_to(tmp_path / "real.png")
    with pytest.raises(DataError, match=r"'a1.png': leads out of .*/set; mend"):
        read(folder)
    (folder / "a1.png").unlink()
    (folder / "a1.png").symlink_to("a1.png")
    with pytest.raises(DataError, match=r"picture 'a1\.png': "):
        read(folder)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("1", "a"), ("2", "b"), ("3", "c")], "3 classes; two and two make a pair"),
        ([("1", "a"), ("1", "b")], "class_id '1' is on 2 lines"),
        ([("1", "kit fox"), ("2", "Kit_Fox")], "1 and 2 are a pair of one name"),
        ([("1", " "), ("2", "b")], "line 1: class_name is empty"),
        ([(1, "a"), ("2", "b")], "line 1: class_id is 1: expected a valid string"),
    ],
)
def test_what_is_wrong_with_pair_lists_is_told(tmp_path, rows, told):
    for id, name in rows:
        line = {"class_id": id, "class_name": name, "context_samples": [], "test_samples": ["x"]}
        with (tmp_path / "pairs.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    with pytest.raises(DataError, match=told):
        pairs.read(tmp_path / "pairs.jsonl", IMAGES)


def test_pair_lists_need_their_folder_and_a_number_that_makes_sense(tmp_path):
    file = GOLDEN / "test100_tiny.jsonl"
    with pytest.raises(DataError, match="no such folder; give that of ImageNet with images="):
        pairs.read(file, tmp_path / "nothing")
    with pytest.raises(DataError, match="per_class is -1"):
        pairs.read(file, IMAGES, per_class=-1)
    with pytest.raises(DataError, match="no such file"):
        pairs.read(tmp_path / "nothing.jsonl", IMAGES)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="holds no questions"):
        pairs.read(tmp_path / "empty.jsonl", IMAGES)


def test_a_picture_that_changes_or_goes_while_it_is_used_is_told(folder):
    dataset = read(folder)
    asked = dataset.lists[0]
    picture(folder / "q0.png", 99)
    with pytest.raises(DataError, match="are damaged"):
        dataset.image(asked.query)
    (folder / "a0.png").unlink()
    with pytest.raises(DataError, match=r"a0.png: was there before and is gone"):
        dataset.image(asked.positives[0])


names = st.sampled_from(["icemic", "Ice Cream", "C", "C++", "灯", "lamp", "ｌａｍｐ"])
pictures = st.sampled_from([f"{letter}{n}.png" for letter in "qab" for n in range(2)])


@given(
    st.lists(
        st.builds(
            lambda image, positives, negatives, pair, answer: {
                "image_name": image,
                "positive_list": positives,
                "negative_list": negatives,
                "positive_promt": pair[0],
                "negative_promt": pair[1],
                "label_name": pair[answer],
            },
            pictures,
            st.lists(pictures, max_size=4),
            st.lists(pictures, max_size=4),
            st.tuples(names, names).filter(
                lambda pair: not {"lamp", "ｌａｍｐ"} >= set(pair) and pair[0] != pair[1]
            ),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_whatever_lists_say_their_entries_agree_with_their_questions(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("any")
    for colour, name in enumerate(("q0", "q1", "a0", "a1", "b0", "b1")):
        picture(folder / f"{name}.png", colour)
    dataset = read(written(folder, *rows))
    assert [one.line for one in dataset.lists] == list(range(len(rows)))
    concepts = [concept.id for group in dataset.groups for concept in group.concepts]
    assert len(set(concepts)) == len(concepts) == 2 * len(dataset.groups)
    keys = [(entry.image_id, entry.concept) for entry in dataset.entries]
    assert len(set(keys)) == len(keys)
    splits = {(entry.image_id, entry.split) for entry in dataset.entries}
    assert len(splits) == len({id for id, _ in splits})
    listed = {id for one in dataset.lists for id in (*one.positives, *one.negatives)}
    for entry in dataset.entries:
        assert (entry.split == "support") == (entry.image_id in listed)
    for one, row in zip(dataset.lists, rows, strict=True):
        assert dataset.image(one.query).data == (folder / row["image_name"]).read_bytes()
        assert (len(one.positives), len(one.negatives)) == (
            len(row["positive_list"]),
            len(row["negative_list"]),
        )
        assert one.concept in one.labels


# ---------------------------------------------------------------- names


@given(st.dictionaries(st.text(), st.text(), max_size=12))
def test_ids_are_distinct_whatever_names_are_made_of(names):
    slugs = naming.slugs(names)
    assert len(set(slugs.values())) == len(names)
    assert all(slug and "_" not in slug and "/" not in slug for slug in slugs.values())


def test_names_that_are_no_text_are_written_all_the_same():
    odd = os.fsdecode(b"ice_cream_\xff")
    assert naming.words(odd).startswith("ice cream ")
    naming.words(odd).encode()
    assert naming.slugs({"a": "Crane", "b": "crane", "c": "Ibis"})["c"] == "ibis"


# ---------------------------------------------------------------- looking once


def test_a_picture_is_looked_at_once_as_long_as_it_stays_the_same(folder, monkeypatch):
    paths = sorted(folder.glob("*.png"))
    first = look_at(paths, folder)
    looked = []

    def decode(data: bytes) -> Image.Image:
        looked.append(files.sha256(data))
        return Image.new("RGB", (3, 3))

    monkeypatch.setattr("isekai.readers.pictures.decode", decode)
    assert look_at(paths, folder) == first
    assert looked == []
    changed = picture(paths[0], 77)
    assert look_at(paths, folder) == {**first, changed: look_at([changed], folder)[changed]}
    assert looked == [files.sha256(changed.read_bytes())]


def test_what_is_refused_is_remembered_if_the_bytes_are_to_blame_alone(folder, monkeypatch, cache):
    (folder / "a0.png").write_bytes(b"no picture")
    assert "not a picture" in str(look_at([folder / "a0.png"], folder)[folder / "a0.png"])
    with sqlite3.connect(cache) as disk:
        (rows,) = disk.execute("select count(*) from seen").fetchone()
    disk.close()
    assert rows == 1
    assert look_at([folder / "gone.png"], folder) == {folder / "gone.png": "no such file"}
    picture(folder / "gone.png")
    assert isinstance(look_at([folder / "gone.png"], folder)[folder / "gone.png"], Seen)


def test_many_pictures_are_looked_at_in_several_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("isekai.readers.pictures._CHUNK", 4)
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{n}.png" for n in range(11)]
    for path in paths:
        noise = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
        path.write_bytes(encode(Image.fromarray(noise)))
    seen = look_at(paths, tmp_path)
    assert [what.id for what in seen.values()] == [files.sha256(p.read_bytes()) for p in paths]
    assert {what.area for what in seen.values()} == {63}
    assert look_at(paths, tmp_path) == seen


def test_a_damaged_memory_is_told_and_a_folder_that_cannot_be_made(folder, cache, monkeypatch):
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_bytes(b"no database, but long enough to be taken for one" * 30)
    with pytest.raises(DataError, match=r"pictures.sqlite: .*delete this file"):
        read(folder)
    monkeypatch.setenv("ISEKAI_CACHE", str(folder / "q0.png" / "below"))
    with pytest.raises(IsekaiError, match="a part of this path is a file"):
        read(folder)
