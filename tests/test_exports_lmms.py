"""The tasks for lmms-eval ask whole episodes as messages and read answers as isekai does.

lmms-eval itself is too heavy for these tests: they read the YAML files as it does, resolve the
functions that these name, and call them with rows as its loader gives them.
"""

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isekai import dataset as datasets
from isekai import export
from isekai.images import decode
from isekai.templates import fold
from tests.exporting import small, small_run

CELLS = {
    f"isekai_twin{control}_{shots}shot": ("isekai" if not control else "isekai_controls")
    for control in ("", "_blind", "_text", "_words-true-swap")
    for shots in (0, 1)
}


@pytest.fixture(scope="module")
def package(tiny_dataset, tmp_path_factory) -> Path:
    return export.run(
        small_run(tiny_dataset), to="lmms-task", out=tmp_path_factory.mktemp("lmms") / "package"
    )


def load_utils(package: Path):
    spec = importlib.util.spec_from_file_location("lmms_utils_under_test", package / "utils.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def utils(package):
    return load_utils(package)


def config(package: Path, cell: str, utils) -> dict:
    """A task's YAML with what it includes, as `lmms_eval.utils.load_yaml_config` resolves it."""

    class Loader(yaml.SafeLoader):
        pass

    def function(loader, node):
        module, _, name = loader.construct_scalar(node).partition(".")
        assert module == "utils"
        return getattr(utils, name)

    Loader.add_constructor("!function", function)
    own = yaml.load((package / f"{cell}.yaml").read_text(), Loader)
    shared = yaml.load((package / own.pop("include")).read_text(), Loader)
    return {**shared, **own}


def rows(package: Path, cell: str, utils, tmp_path: Path) -> list[dict]:
    """As lmms-eval loads them: `datasets.load_dataset(dataset_path, **dataset_kwargs)`."""
    from datasets import load_dataset

    told = config(package, cell, utils)
    (split,) = told["dataset_kwargs"]["data_files"]
    assert split == told["test_split"]
    path = package / told["dataset_kwargs"]["data_files"][split]
    loaded = load_dataset(
        told["dataset_path"], data_files={split: str(path)}, cache_dir=str(tmp_path / "cache")
    )
    return list(loaded[split])


def test_there_is_a_task_for_every_cell_and_all_of_its_functions_are_there(package, utils):
    assert {path.stem for path in package.glob("*.yaml")} == set(CELLS)
    for cell, tag in CELLS.items():
        told = config(package, cell, utils)
        assert (told["task"], told["tag"]) == (cell, tag)
        assert told["output_type"] == "generate_until"
        assert "num_fewshot" not in told  # lmms-eval would draw examples of its own
        assert told["metadata"]["n_support_images"] == 2 * told["metadata"]["shots_per_class"]
        for name in ("doc_to_messages", "doc_to_text", "doc_to_visual", "process_results"):
            assert callable(told[name])
        measured = utils.process_results(
            {"cluster": "a", "labels": ["x", "y"], "target": "x", "chance": 0.5}, ["x"]
        )
        assert {metric["metric"] for metric in told["metric_list"]} == set(measured)
        assert {"acc", "acc_low", "acc_high", "n", "chance"} <= set(measured)


def test_the_messages_are_the_episode_turn_by_turn_with_its_pictures(
    tiny_dataset, package, utils, tmp_path
):
    run, image = small(tiny_dataset), datasets.load(tiny_dataset).image
    episodes = {episode.id: episode for episode in run.episodes}
    for cell in ("isekai_twin_1shot", "isekai_twin_text_1shot"):
        found = rows(package, cell, utils, tmp_path)
        assert len(found) == 24
        for row in found[:5]:
            episode = episodes[row["episode"]]
            sweep = fold(episode, run.config.template, image)
            expected = []
            for turn in (*sweep.support[:2], sweep.queries[row["query"]]):
                shown = [decode(turn.image.data).tobytes()] if turn.image else []
                expected.append(("user", [*shown, turn.question]))
                if turn.answer:
                    expected.append(("assistant", [turn.answer]))
            asked = [
                (
                    message["role"],
                    [
                        part["text"] if part["type"] == "text" else part["url"].tobytes()
                        for part in message["content"]
                    ],
                )
                for message in utils.doc_to_messages(row)
            ]
            assert asked == expected
            assert utils.doc_to_text(row).count("<image>") == sum(
                isinstance(part, bytes) for _, parts in expected for part in parts
            )
            assert row["target"] == episode.labels[episode.queries[row["query"]].concept]
            assert row["labels"] == list(episode.labels.values())


def test_answers_give_the_accuracy_that_the_run_itself_has(tiny_dataset, package, utils, tmp_path):
    """The answers of the run, put through the package: the same numbers come out."""
    run = small(tiny_dataset)
    cell = "isekai_twin_1shot"
    said = {
        (row.episode_id, row.shots, row.query): row
        for row in run.predictions
        if row.model == "mixed"
    }
    items: dict[str, list] = {}
    for row in rows(package, cell, utils, tmp_path):
        answer = said[row["episode"], 1, row["query"]]
        broken = "[LMMS_EVAL_REQUEST_FAILED after 5 retries] 503"
        text = broken if answer.outcome == "failed" else answer.text
        for metric, value in utils.process_results(row, [text]).items():
            items.setdefault(metric, []).append(value)
    told = {
        metric["metric"]: metric["aggregation"](items[metric["metric"]])
        for metric in config(package, cell, utils)["metric_list"]
    }
    (result,) = [
        one
        for one in run.results
        if (one.model, one.control, one.shots_per_class) == ("mixed", "none", 1)
    ]
    accuracy = result.metrics["accuracy"]
    assert (told["acc"], told["acc_low"], told["acc_high"]) == (
        accuracy.value,
        accuracy.low,
        accuracy.high,
    )
    assert (told["n"], told["chance"]) == (accuracy.n, 0.5)
    assert (told["abstain"], told["failed"]) == (
        result.outcomes["abstain"],
        result.outcomes["failed"],
    )
    assert told["failed"] > 0


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("This is called x.", "correct"),
        ("**Y**", "wrong"),
        ("<think>x</think> It is not x.", "abstain"),
        ("", "abstain"),
        ("[LMMS_EVAL_REQUEST_FAILED after 5 retries] error about x", "failed"),
        ("[LMMS_EVAL_BUDGET_EXCEEDED]", "failed"),
    ],
)
def test_a_failure_is_no_answer_and_takes_no_part_in_the_standard_error(utils, text, outcome):
    doc = {"cluster": "a", "labels": ["x", "y"], "target": "x", "chance": 0.5}
    scored = utils.process_results(doc, [text])
    assert scored["acc"]["outcome"] == outcome
    assert scored["acc"].get("score") == {"correct": 1.0, "failed": None}.get(outcome, 0.0)
    json.dumps(scored)  # lmms-eval logs it


def test_where_all_failed_there_is_no_accuracy(utils):
    doc = {"cluster": "a", "labels": ["x", "y"], "target": "x", "chance": 0.5}
    items = [utils.process_results(doc, ["[LMMS_EVAL_BUDGET_EXCEEDED]"]) for _ in range(3)]
    assert math.isnan(utils.accuracy([item["acc"] for item in items]))
    assert math.isnan(utils.low([item["acc_low"] for item in items]))
    assert utils.answers([item["n"] for item in items]) == 0
    assert utils.failed([item["failed"] for item in items]) == 3


def test_models_that_take_no_messages_are_refused(utils):
    with pytest.raises(NotImplementedError, match="lmms_eval/models/chat"):
        utils.doc_to_visual({})


def test_a_damaged_picture_and_a_missing_isekai_say_so(package, utils, tmp_path):
    (row, *_) = rows(package, "isekai_twin_0shot", utils, tmp_path)
    broken = shutil.copytree(package, tmp_path / "package")
    for picture in (broken / "images").iterdir():
        picture.write_bytes(b"other bytes")
    with pytest.raises(ValueError, match="its bytes are not those that it is named by"):
        load_utils(broken).doc_to_messages(row)
    code = "import sys; sys.modules['isekai'] = None; import runpy; runpy.run_path('utils.py')"
    done = subprocess.run(
        (sys.executable, "-c", code), cwd=broken, capture_output=True, text=True, check=False
    )
    assert "pip install isekai-bench" in done.stderr.splitlines()[-1]


def test_code_is_as_it_was_reviewed_and_no_word_of_the_data_gets_into_yaml(tiny_dataset, package):
    packages = Path(export.__file__).parent / "exports" / "packages"
    assert (package / "utils.py").read_bytes() == (packages / "lmms_utils.py").read_bytes()
    shared = (package / "_default_template_yaml").read_bytes()
    assert shared == (packages / "lmms_default.yaml").read_bytes()
    words = {word for episode in small(tiny_dataset).episodes for word in episode.labels.values()}
    for path in package.glob("*.yaml"):
        assert not [word for word in words if word in path.read_text()]
