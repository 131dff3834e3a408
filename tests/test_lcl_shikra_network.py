"""LCL-Shikra gives the numbers of the released code: pixels, features, logits, answers, losses."""

import numpy as np
import pytest
import torch
from PIL import Image

from model_adapters.lcl_shikra.config import Config
from model_adapters.lcl_shikra.network import Network, bare
from model_adapters.lcl_shikra.pixels import pixels, square
from tests import golden_lcl as golden

torch.set_num_threads(1)

TIGHT, LOOSE = 1e-6, 1e-4
META = golden.META
SEQUENCES = [name for name in META["forward"] if "n_tokens" in META["forward"][name]]
PREPROCESSED = np.load(golden.FOLDER / "preprocess.npz")
PICTURES = sorted({key.rsplit(".", 1)[0] for key in PREPROCESSED.files})
LAYOUTS = ("checkpoint", "checkpoint_sharded")


@pytest.fixture(scope="module", params=LAYOUTS)
def network(request):
    return Network(golden.FOLDER / request.param, golden.FOLDER / "clip", torch.float32, "cpu")


def far(got, recorded):
    """The largest difference, and not a number where any is none."""
    assert tuple(got.shape) == recorded.shape
    return np.abs(np.asarray(got.detach(), np.float64) - recorded).max()


def picture(name):
    return Image.open(golden.FOLDER / "images" / name)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_becomes_the_recorded_square_and_pixels(name):
    assert (np.asarray(square(picture(name))) == PREPROCESSED[f"{name}.square_uint8"]).all()
    recorded = PREPROCESSED[f"{name}.pixel_values"]
    assert far(pixels([picture(name)], recorded.shape[-1])[0], recorded) <= TIGHT
    (key,) = [key for key in PREPROCESSED.files if key.startswith(f"{name}.pixel_values_")]
    side, step = (int("".join(filter(str.isdigit, part))) for part in key.split("_")[-2:])
    assert far(pixels([picture(name)], side)[0, :, ::step, ::step], PREPROCESSED[key]) <= TIGHT


def episode(name):
    """The file names of a recorded sequence's pictures."""
    told = META["forward"][name]
    return [told["image"]] if "image" in told else golden.EPISODES[name]["image_order"]


@pytest.mark.parametrize("name", SEQUENCES)
def test_pictures_become_the_recorded_features(network, name):
    recorded = golden.forward(name)
    images = [picture(image) for image in episode(name)]
    seen = pixels(images, network.vision.side)
    assert far(seen, recorded["pixel_values"]) <= TIGHT
    assert far(network.vision.states(seen), recorded["clip_selected_hidden"]) <= LOOSE
    assert far(network.look(images), recorded["image_features"]) <= LOOSE


def run(network, embeddings, **more):
    with torch.inference_mode():
        return network.decoder(inputs_embeds=embeddings, output_hidden_states=True, **more)


def greedy(network, embeddings, **more):
    with torch.inference_mode():
        made = network.decoder.generate(
            inputs_embeds=embeddings,
            do_sample=False,
            max_new_tokens=META["generation"]["max_new_tokens"],
            **more,
        )
    return made.tolist()


@pytest.mark.parametrize("how", ["last", "all"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_gives_the_recorded_numbers_and_answer(network, name, how):
    recorded = golden.forward(name)
    # Where there is one picture, both ways are the same and were recorded once.
    suffix = how if f"embeds_{how}" in recorded else "last"
    assert suffix == how or META["forward"][name]["n_images"] == 1
    features = network.look([picture(image) for image in episode(name)])
    embeddings = network.embed(recorded["input_ids"].tolist(), features, how)[None]
    assert far(embeddings[0], recorded[f"embeds_{suffix}"]) <= LOOSE
    told = run(network, embeddings)
    assert far(told.hidden_states[-1][0], recorded[f"final_hidden_{suffix}"]) <= LOOSE
    (key,) = [key for key in recorded if key.startswith(f"logits_{suffix}")]
    assert far(told.logits[0, -len(recorded[key]) :], recorded[key]) <= LOOSE
    assert (told.logits[0].argmax(-1).numpy() == recorded[f"argmax_{suffix}"]).all()
    answer = recorded[f"generated_{suffix}"].tolist()
    assert greedy(network, embeddings, attention_mask=torch.ones(embeddings.shape[:2])) == [answer]
    assert network.tokens.decode(answer) == META["forward"][name][f"text_generated_{suffix}"]


def recorded_with(what):
    names = [name for name, told in META["forward"].items() if what in told]
    assert names
    return names


def batch(network, recorded, how):
    """Embeddings of a padded batch, with its pictures as recorded; and its mask."""
    rows = [
        network.embed(ids, network.projector(network.vision.features(torch.tensor(seen))), how)
        for ids, seen in zip(recorded["input_ids"].tolist(), recorded["pixel_values"], strict=True)
    ]
    return torch.stack(rows), torch.tensor(recorded["attention_mask"])


@pytest.mark.parametrize("how", ["last", "all"])
@pytest.mark.parametrize("name", recorded_with("episodes"))
def test_episodes_side_by_side_give_the_recorded_numbers(network, name, how):
    recorded = golden.forward(name)
    embeddings, mask = batch(network, recorded, how)
    logits = run(network, embeddings, attention_mask=mask).logits
    (key,) = [key for key in recorded if key.startswith(f"logits_{how}")]
    expected = recorded[key]
    assert far(logits[:, -expected.shape[1] :], expected) <= LOOSE
    if how == "last":
        made = greedy(network, embeddings, attention_mask=mask)
        assert made == recorded["generated_last"].tolist()


@pytest.mark.parametrize("how", ["last", "all"])
@pytest.mark.parametrize("name", recorded_with("loss_last"))
def test_episodes_of_training_have_the_recorded_loss(network, name, how):
    recorded = golden.forward(name)
    embeddings, mask = batch(network, recorded, how)
    told = run(network, embeddings, attention_mask=mask, labels=torch.tensor(recorded["labels"]))
    assert abs(told.loss.item() - recorded[f"loss_{how}"].item()) <= LOOSE


def test_both_layouts_hold_the_same_model():
    one, other = (
        Network(golden.FOLDER / layout, golden.FOLDER / "clip", torch.float32, "cpu")
        for layout in LAYOUTS
    )
    held, also = one.decoder.state_dict(), other.decoder.state_dict()
    assert held.keys() == also.keys()
    assert all(torch.equal(held[key], also[key]) for key in held)
    recorded = golden.read("state_dict_keys.json")
    assert {key: list(tensor.shape) for key, tensor in held.items()} == {
        key: shape for key, (shape, _) in recorded.items() if "inv_freq" not in key
    }


def test_the_published_model_has_as_many_parameters_as_its_training_log_says():
    published = Config(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        vocab_size=32003,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        mm_hidden_size=1024,
        mm_vision_select_layer=-2,
        mm_use_im_start_end=True,
        use_mm_proj=True,
    )
    held = bare(published).state_dict()
    assert sum(one.numel() for one in held.values()) == 6_742_638_592
    assert len(held) == 32 * 9 + 5
