"""What adapters of local models share: what isn't there, what device, what was loaded."""

import pytest
import torch
from torch import nn

from isekai.errors import DataError, PluginError
from model_adapters import local


def test_what_is_not_there_is_told_with_how_to_get_it(tmp_path):
    assert local.there(tmp_path, "checkpoint") == tmp_path
    with pytest.raises(DataError, match="no such file or folder for vision_tower; get one from"):
        local.there(tmp_path / "gone", "vision_tower")


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "meta"])
def test_a_device_that_is_not_here_is_refused(name):
    assert local.device("cpu", "otter") == "cpu"
    with pytest.raises(PluginError, match=f"otter: no device '{name}' here; take auto, or cpu"):
        local.device(name, "otter")


def test_numbers_are_full_on_a_processor_unless_asked_otherwise():
    assert local.dtype("auto", "cpu", "bfloat16") == "float32"
    assert local.dtype("auto", "cuda:0", "bfloat16") == "bfloat16"
    assert local.dtype("float16", "cpu", "bfloat16") == "float16"


def test_a_processor_is_never_too_small():
    with torch.device("meta"):
        vast = nn.Linear(1_000_000, 1_000_000)
    local.refuse_small("cpu", vast, torch.float32, "otter")


def test_a_digest_tells_files_by_their_names_and_bytes(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"abc")
    first = local.digest([one])
    assert first == local.digest([other])
    (other / "notes.md").write_text("read by nobody")
    assert first == local.digest([other])
    (other / "model.safetensors").write_bytes(b"abd")
    assert first != local.digest([other])
    assert local.digest([one / "config.json"]) != local.digest([one / "model.safetensors"])


def test_a_folder_that_holds_nothing_of_a_model_adds_nothing(tmp_path):
    (tmp_path / "notes.md").write_text("nothing of a model")
    (tmp_path / "folder.json").mkdir()
    assert local.digest([tmp_path]) == local.digest([])
