"""Class folders and tables of images: no duplicates, no leaks, the same whatever the order."""

import json
import shutil
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isekai import files, plugins
from isekai.dataset import Dataset, load
from isekai.errors import DataError, IsekaiError
from isekai.images import encode
from isekai.readers import classed, classes, hub
from isekai.readers.pictures import Seen

CLASSES = ("air_freshener", "banana", "candle", "drum")
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def noise(seed: int, size: int = 24) -> Image.Image:
    """A picture unlike every other: 8 x 8 random patches."""
    patches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((size, size), Image.Resampling.BICUBIC)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four classes of eight pictures."""
    for label, name in enumerate(CLASSES):
        (tmp_path / "set" / name).mkdir(parents=True)
        for n in range(8):
            path = tmp_path / "set" / name / f"{n}.png"
            path.write_bytes(encode(noise(100 * label + n)))
    return tmp_path / "set"


def counts(dataset: Dataset) -> dict[str, tuple[int, int]]:
    """Concept's name -> how many support and query pictures it has."""
    concepts = [concept for group in dataset.groups for concept in group.concepts]
    return {
        c.name: (len(dataset.ids(c.id, "support")), len(dataset.ids(c.id, "query")))
        for c in concepts
    }


def drawn(dataset: Dataset, task: str) -> list[str]:
    family = plugins.load("tasks", task)
    asked = {"shots": (1, 2), "queries": 2, "episodes": 1, "labels": "true", "seed": 0}
    return sorted({episode.cluster for episode in family(dataset, **asked)})


# ---------------------------------------------------------------- folders of class folders


def test_each_class_folder_is_a_group_of_its_own_and_its_name_a_label(folder):
    dataset = load(f"classes:{folder}")
    assert [group.id for group in dataset.groups] == ["air-freshener", "banana", "candle", "drum"]
    assert counts(dataset) == dict.fromkeys(("air freshener", "banana", "candle", "drum"), (4, 4))
    for entry in dataset.entries:
        data = dataset.image(entry.image_id).data
        assert data in {path.read_bytes() for path in folder.rglob("*.png")}
    assert len(drawn(dataset, "pair")) == 2
    with pytest.raises(DataError, match="no group here"):
        drawn(dataset, "twin")


def test_neighbours_may_share_a_group_so_that_twins_are_asked(folder):
    dataset = classes.read(folder, group="adjacent")
    assert [group.id for group in dataset.groups] == ["air-freshener_banana", "candle_drum"]
    assert drawn(dataset, "twin") == ["air-freshener_banana", "candle_drum"]
    shutil.rmtree(folder / "banana")
    dataset = classes.read(folder, group="adjacent")
    assert [group.id for group in dataset.groups] == ["air-freshener_candle"]


def test_the_identity_does_not_depend_on_where_the_folder_lies(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "else" / "where")
    assert classes.read(moved).fingerprint == classes.read(folder).fingerprint


def test_a_limit_takes_pictures_by_the_hash_of_their_names(folder):
    every = {entry.image_id: entry for entry in classes.read(folder, per_class=0).entries}
    some = classes.read(folder, per_class=4)
    assert set(counts(some).values()) == {(2, 2)}
    assert {entry.image_id for entry in some.entries} < set(every)
    (folder / "drum" / "new.png").write_bytes(encode(noise(999)))
    more = {entry.image_id for entry in classes.read(folder, per_class=4).entries}
    before = {entry.image_id for entry in some.entries}
    assert len(more ^ before) in (0, 2)
    assert len(every) == 32


def test_the_share_of_queries_is_kept_and_no_split_is_empty(folder):
    assert set(counts(classes.read(folder, query_share=0.25)).values()) == {(6, 2)}
    assert set(counts(classes.read(folder, query_share=0.001)).values()) == {(7, 1)}
    assert set(counts(classes.read(folder, query_share=0.999)).values()) == {(1, 7)}


def test_duplicates_and_unreadable_pictures_are_left_out_and_counted(folder, capsys):
    drum, candle = folder / "drum", folder / "candle"
    shutil.copy(drum / "0.png", drum / "8.png")
    noise(301).save(drum / "9.bmp")
    noise(302, size=48).save(drum / "10.jpg", quality=95)
    (drum / "11.png").write_bytes(b"no picture")
    (drum / "12.png").write_bytes(b"")
    (drum / "notes.txt").write_text("no picture and not counted as one")
    (drum / ".hidden.png").write_bytes(b"")
    shutil.copy(drum / "7.png", candle / "of-two-classes.png")
    dataset = classes.read(folder)
    assert {name: sum(both) for name, both in counts(dataset).items()} == {
        "air freshener": 8,
        "banana": 8,
        "candle": 8,
        "drum": 7,
    }
    told = capsys.readouterr().err
    for reason in ("1 same bytes", "1 same pixels", "1 same picture by perceptual", "1 empty file"):
        assert reason in told
    assert "2 in two classes" in told
    large = files.sha256((drum / "10.jpg").read_bytes())  # of copies the largest stays
    assert large in {entry.image_id for entry in dataset.entries}


def test_classes_that_are_too_small_are_left_out_and_counted(folder, capsys):
    for n in range(1, 8):
        (folder / "drum" / f"{n}.png").unlink()
    for n in range(4, 8):
        (folder / "candle" / f"{n}.png").unlink()
    (folder / "nothing").mkdir()
    assert list(counts(classes.read(folder))) == ["air freshener", "banana", "candle"]
    assert "1 classes too small" in capsys.readouterr().err
    assert list(counts(classes.read(folder, at_least=3))) == ["air freshener", "banana"]
    with pytest.raises(DataError, match=r"two classes at least .* 0 classes"):
        classes.read(folder, at_least=5)


def test_names_come_from_a_file_of_either_form(folder, tmp_path):
    text = tmp_path / "LOC_synset_mapping.txt"
    text.write_text("".join(f"{name} {name.title()}, Latinum {name}\n" for name in CLASSES))
    called = counts(classes.read(folder, names=text))
    assert list(called) == ["Air Freshener", "Banana", "Candle", "Drum"]
    told = tmp_path / "names.json"
    told.write_text(json.dumps({**dict.fromkeys(CLASSES, "crane"), "other": "x"}))
    dataset = classes.read(folder, names=told)
    assert list(counts(dataset)) == ["crane"]
    assert len({group.id for group in dataset.groups}) == 4
    told.write_text(json.dumps({"air_freshener": "x", "banan": "y"}))
    with pytest.raises(DataError, match="no name for 3 classes, among them 'banana'; did you mean"):
        classes.read(folder, names=told)
    with pytest.raises(DataError, match="no such file"):
        classes.read(folder, names=tmp_path / "none.txt")


def test_links_that_lead_out_are_refused(folder, tmp_path, capsys):
    (tmp_path / "secret.png").write_bytes(encode(noise(999)))
    (folder / "drum" / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "drum" / "inside.png").symlink_to("0.png")
    secret = files.sha256((tmp_path / "secret.png").read_bytes())
    assert secret not in {entry.image_id for entry in classes.read(folder).entries}
    assert "1 leads out of" in capsys.readouterr().err
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="linked: a link that leads out of"):
        classes.read(folder)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"per_class": -1}, "per_class is -1"),
        ({"at_least": 0}, "at_least is 0"),
        ({"query_share": 0.0}, "query_share is 0.0; expected between 0 and 1"),
        ({"query_share": 1.0}, "query_share is 1.0; expected between 0 and 1"),
        ({"query_share": float("nan")}, "query_share is nan"),
    ],
)
def test_numbers_that_make_no_sense_are_told(folder, options, told):
    with pytest.raises(IsekaiError, match=told):
        classes.read(folder, **options)


def test_a_folder_of_another_layout_is_told(tmp_path):
    with pytest.raises(DataError, match="no such folder; expected FOLDER/<class>/<image>"):
        classes.read(tmp_path / "nothing")
    (tmp_path / "0.png").write_bytes(encode(noise(0)))
    (tmp_path / "deep" / "er").mkdir(parents=True)
    with pytest.raises(DataError, match="no class folder holds images; expected FOLDER"):
        classes.read(tmp_path)


def seen(number: int) -> Seen:
    hash = np.random.default_rng(number).integers(0, 2**63, 4).astype(np.uint64)
    return Seen(id=files.sha256(str(number).encode()), area=1, pixels=str(number),
                hash=hash.tobytes().hex())  # fmt: skip


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=5),
        st.dictionaries(st.text(max_size=5), st.integers(0, 60) | st.just("damaged"), max_size=9),
        min_size=2,
        max_size=6,
    ),
    st.floats(0.05, 0.95),
    st.randoms(use_true_random=False),
)
@settings(max_examples=80, deadline=None)
def test_whatever_comes_no_picture_is_in_two_classes_or_splits(drawn, share, random):
    choice = classed.Choice(per_class=0, at_least=1, query_share=share, group="single")

    def assembled(order) -> Dataset:
        found = {}
        for key in order:
            rows = list(drawn[key].items())
            random.shuffle(rows)
            found[key] = {k: v if isinstance(v, str) else seen(v) for k, v in rows}
        names = {key: key for key in found}
        return classed.assemble(found, names, choice, path=Path("x"), fetch=lambda id: b"")

    order = sorted(drawn)
    held = Counter(n for rows in drawn.values() for n in set(rows.values()) - {"damaged"})
    large = [k for k in order if sum(held[n] == 1 for n in set(drawn[k].values())) >= 2]
    if len(large) < 2:
        with pytest.raises(DataError, match="two classes at least"):
            assembled(order)
        return
    dataset = assembled(order)
    assert len(dataset.groups) == len(large)
    ids = Counter(entry.image_id for entry in dataset.entries)
    assert set(ids.values()) == {1}
    assert all(min(both) >= 1 for both in counts(dataset).values())
    assert assembled(order).fingerprint == dataset.fingerprint


# ---------------------------------------------------------------- tables


def rows(folder: Path) -> list[tuple[bytes, str]]:
    return [(path.read_bytes(), path.parent.name) for path in sorted(folder.rglob("*.png"))]


def table(path: Path, images: pa.Array, labels: pa.Array) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"picture": images, "kind": labels}), path / "test-0.parquet")
    return path


@pytest.fixture
def parquet(folder, tmp_path) -> Path:
    """The pictures of `folder` in the columns `picture` and `kind`, without any metadata."""
    images, kinds = zip(*rows(folder), strict=True)
    return table(tmp_path / "table", pa.array(images, pa.binary()), pa.array(kinds))


def test_a_table_is_read_by_its_columns_and_its_bytes_stay_as_they_are(parquet, folder):
    dataset = load(f"hub:{parquet}?image=picture&label=kind")
    assert counts(dataset) == dict.fromkeys(("air freshener", "banana", "candle", "drum"), (4, 4))
    there = {files.sha256(data): data for data, _ in rows(folder)}
    for entry in dataset.entries:
        assert dataset.image(entry.image_id).data == there[entry.image_id]
    assert len(drawn(dataset, "pair")) == 2


def test_what_datasets_writes_is_read_with_its_class_labels_in_their_order(folder, tmp_path):
    names = ["drum, Tympanum", "banana", "candle", "air_freshener"]
    label = {"drum": 0, "banana": 1, "candle": 2, "air_freshener": 3}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    made = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": data, "path": None} for data, _ in rows(folder)],
            "label": [label[name] for _, name in rows(folder)],
        },
        features=features,
    )
    (tmp_path / "made").mkdir()
    made.to_parquet(tmp_path / "made" / "test.parquet")
    dataset = hub.read(str(tmp_path / "made"))
    assert list(counts(dataset)) == ["drum, Tympanum", "banana", "candle", "air freshener"]
    assert dataset.groups[0].id == "drum-tympanum"
    first = hub.read(str(tmp_path / "made"), first_name=True, group="adjacent")
    assert [group.id for group in first.groups] == ["drum_banana", "candle_air-freshener"]
    assert {e.image_id for e in first.entries} == {e.image_id for e in dataset.entries}


def test_a_folder_of_images_is_read_without_a_copy_and_links_out_are_left_out(
    folder, tmp_path, capsys
):
    (tmp_path / "images").mkdir()
    inside = shutil.copytree(folder, tmp_path / "images" / "test")
    before = hub.read(str(tmp_path / "images"))
    assert counts(before) == counts(classes.read(folder))
    assert before.image(before.entries[0].image_id)
    (tmp_path / "secret.png").write_bytes(encode(noise(999)))
    (inside / "drum" / "9.png").symlink_to(tmp_path / "secret.png")
    assert hub.read(str(tmp_path / "images")).fingerprint == before.fingerprint
    assert "1 leads out of" in capsys.readouterr().err


def test_the_same_rows_are_taken_every_time_and_others_are_not_read(parquet, monkeypatch):
    some = hub.read(str(parquet), image="picture", label="kind", per_class=4)
    assert set(counts(some).values()) == {(2, 2)}
    again = hub.read(str(parquet), image="picture", label="kind", per_class=4)
    assert again.fingerprint == some.fingerprint

    def never(read) -> None:
        raise AssertionError("looked at again")

    monkeypatch.setattr("isekai.readers.pictures._look", never)
    assert hub.read(str(parquet), image="picture", label="kind", per_class=4).entries
    with pytest.raises(AssertionError, match="looked at again"):
        hub.read(str(parquet), image="picture", label="kind", per_class=5)


def test_rows_without_label_or_bytes_are_left_out_and_no_path_in_a_row_is_followed(
    folder, tmp_path, capsys
):
    (tmp_path / "secret.png").write_bytes(encode(noise(999)))
    images = [{"bytes": data, "path": None} for data, _ in rows(folder)]
    images[0] = {"bytes": None, "path": str(tmp_path / "secret.png")}
    kinds = [name for _, name in rows(folder)]
    kinds[8:10] = [None, "  "]
    made = table(tmp_path / "table", pa.array(images, STRUCT), pa.array(kinds))
    dataset = hub.read(str(made), image="picture", label="kind")
    assert {name: sum(both) for name, both in counts(dataset).items()} == {
        "air freshener": 7,
        "banana": 6,
        "candle": 8,
        "drum": 8,
    }
    assert "1 no bytes in its row" in capsys.readouterr().err
    secret = files.sha256((tmp_path / "secret.png").read_bytes())
    assert secret not in {entry.image_id for entry in dataset.entries}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"image": "pictur"}, "option image=pictur: no such column; did you mean 'picture'"),
        ({"image": "x", "label": "kid"}, "option label=kid: no such column; did you mean 'kind'"),
        ({"image": "kind"}, "column 'kind' holds string; expected images"),
        ({"label": "picture"}, "column 'picture' holds binary; expected class labels or text"),
        ({"split": "tst"}, "can't be read as a data set: Unknown split"),
        ({"config": "other"}, "can't be read as a data set: BuilderConfig 'other' not found"),
        ({"revision": "main"}, "lies here, so it has no revision"),
        ({"per_class": -1}, "per_class is -1"),
    ],
)
def test_what_does_not_fit_a_table_is_told(parquet, options, told):
    with pytest.raises(IsekaiError, match=told) as caught:
        hub.read(str(parquet), **{"image": "picture", "label": "kind", **options})
    assert "\n" not in str(caught.value)


def test_a_folder_without_data_or_with_damaged_data_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: can't be read as a data set: "):
        hub.read(str(tmp_path / "empty"))
    (tmp_path / "empty" / "test.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"can.t be read as a data set: .*Parquet") as caught:
        hub.read(str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such folder, and no name of the form owner/name"):
        hub.read(str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="no such folder, and no name of the form owner/name"):
        hub.read("mnist")
