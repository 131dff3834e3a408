"""What every embedder promises, whoever wrote it: checked for each one that is installed.

One that needs a model to be built says so here, with a small one of each kind that it takes.
"""

import json
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from isekai import plugins
from isekai.protocols import Embedder, TextEmbedder
from tests import tiny_models

SIZES = ((96, 96), (64, 200), (33, 17), (96, 96))
MODELS = {
    "open_clip": ("open_clip",),
    "transformers": ("clip", "siglip", "siglip2", "siglip2_fixed", "dino", "dinov3_vit"),
}
BUILDS = [(name, kind) for name in plugins.names("embedders") for kind in MODELS.get(name, ("",))]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with tiny_models.one_thread():
        yield


@pytest.fixture(scope="module", params=BUILDS, ids=lambda build: ":".join(filter(None, build)))
def embedder(request, tmp_path_factory) -> Iterator[Embedder]:
    name, kind = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISEKAI_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield plugins.build(
            "embedders", f"{name}:{tiny_models.built(kind, tmp_path_factory)}" if kind else name
        )


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


def test_it_is_an_embedder_and_says_which(embedder):
    assert isinstance(embedder, Embedder)
    assert embedder.model
    assert embedder.revision
    assert json.loads(json.dumps([embedder.model, embedder.revision]))


def test_rows_are_unit_vectors_one_an_image(embedder, images):
    features = embedder.embed_images(images)
    assert features.shape[0] == len(images)
    assert features.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)


def test_no_images_give_no_rows_of_the_same_width(embedder, images):
    none = embedder.embed_images([])
    assert none.shape == (0, embedder.embed_images(images[:1]).shape[1])
    assert none.dtype == np.float32


def test_rows_follow_the_order_of_the_images_and_repeat(embedder, images):
    features = embedder.embed_images(images)
    backwards = embedder.embed_images(images[::-1])
    np.testing.assert_allclose(features, backwards[::-1], atol=1e-5)
    assert np.array_equal(features, embedder.embed_images(images))


def test_different_pictures_get_different_rows(embedder):
    black, white = Image.new("RGB", (64, 64)), Image.new("RGB", (64, 64), "white")
    checks = Image.fromarray((np.indices((64, 64)).sum(0) // 8 % 2 * 255).astype(np.uint8))
    features = embedder.embed_images([black, white, checks.convert("RGB")])
    assert np.isfinite(features).all()
    assert (features @ features.T)[np.triu_indices(3, 1)].max() < 0.999


def test_texts_get_rows_beside_those_of_images_whatever_their_neighbours(embedder, images):
    if not isinstance(embedder, TextEmbedder):
        pytest.skip("it embeds no texts")
    texts = ["a photo of a cactus", "a hedgehog whose back is a cactus " * 40, "", "a cactus"]
    rows = embedder.embed_texts(texts)
    assert rows.dtype == np.float32
    assert rows.shape == (len(texts), embedder.embed_images(images).shape[1])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    alone = np.concatenate([embedder.embed_texts([text]) for text in texts])
    np.testing.assert_allclose(rows, alone, atol=1e-5)
    assert (rows @ rows.T)[np.triu_indices(4, 1)].max() < 0.999
    assert embedder.embed_texts([]).shape == (0, rows.shape[1])
