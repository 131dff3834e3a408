"""What gates turn down, what they let pass, and what they say of it."""

import io
import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from isekai import files, generate, plugins, spec
from isekai.dedup import HASH_BITS, distances, perceptual_hash
from isekai.embedders.transformers import PictureTextEmbedder
from isekai.errors import DataError, IsekaiError, PluginError
from isekai.gates import wording
from isekai.gates.classify import Classify, Limit, read_limits
from isekai.gates.clip import Clip
from isekai.gates.duplicate import Duplicate
from isekai.gates.flat import Flat
from isekai.gates.vqa import Vqa
from isekai.protocols import Judgement, Knowing
from isekai.types import Concept, Group, ImageRecord, ImageRequest, Role
from tests import tiny_models
from tests.conftest import PICTURES, picture
from tests.loopback import serve

GROUPS = spec.load(only="cactihog,airstone")
CACTIHOG, PRISMOG, HEDGEHOG = GROUPS[0].concepts


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    with tiny_models.one_thread():
        yield


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISEKAI_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path_factory):
    return lambda kind: str(tiny_models.built(kind, tmp_path_factory))


def request(concept: Concept = CACTIHOG, index: int = 0) -> ImageRequest:
    own = spec.seed(concept.id, index, 0)
    return ImageRequest(concept=concept, index=index, size=96, seed=own, prompt="a photo")


def drawn(number: int, tips: int = 5) -> Image.Image:
    _, body, mark, _ = PICTURES["fruit"][0]
    return picture(body, mark, tips, np.random.default_rng(number))


def noise(level: float, deviation: float) -> Image.Image:
    values = np.random.default_rng(0).normal(level, deviation, (96, 96, 3))
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def disc(width: int, colour, ground="white", size: int = 128) -> Image.Image:
    image = Image.new("RGB", (size, size), ground)
    left = (size - width) // 2
    ImageDraw.Draw(image).ellipse((left, left, left + width, left + width), fill=colour)
    return image


def stored(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


# ---------------------------------------------------------------- flat


@pytest.mark.parametrize("colour", ["black", "white", "#808080", "#ff0000", "#0a0b0c"])
def test_a_picture_of_one_colour_is_turned_down(colour):
    judged = Flat().judge(request(), Image.new("RGB", (64, 48), colour))
    assert judged.scores == {"flat.deviation": 0, "flat.plain": 1}
    assert judged.reason == "all of one colour: its levels deviate by 0.0, at least 3 are wanted"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_faint_noise_about_one_colour_is_still_one_colour(level):
    assert "all of one colour" in Flat().judge(request(), noise(level, 2)).reason


def test_a_speck_on_a_plain_ground_is_turned_down_however_bright():
    judged = Flat().judge(request(), disc(12, "black"))
    assert judged.scores["flat.deviation"] > 20
    assert judged.reason.startswith("nearly all of one colour: 99.2% of the pixels have it")


@pytest.mark.parametrize(
    "image",
    [disc(32, (240, 240, 240)), disc(24, (120, 60, 30)), disc(48, (40, 40, 40), "black")],
    ids=["pale on white", "small and dark on white", "dark on black"],
)
def test_a_thing_on_a_plain_background_passes(image):
    assert Flat().judge(request(), image).reason == ""


def test_a_picture_whose_colours_are_equally_bright_is_not_flat():
    half = Image.new("RGB", (64, 64), (200, 60, 60))
    half.paste((60, 131, 60), (0, 0, 32, 64))
    assert np.ptp(np.asarray(half.convert("L"))) <= 1
    assert Flat().judge(request(), half).reason == ""


def test_what_the_procedural_source_draws_is_far_from_flat():
    source = plugins.build("sources", "procedural")
    groups = spec.load(only="quorvil,gillstrum,propisk,clogrond")  # the plainest at 128 pixels
    asked = [request(concept) for group in groups for concept in group.concepts]
    for image in source.draw(asked):
        judged = Flat().judge(request(), image)
        assert judged.scores["flat.deviation"] > 15
        assert judged.scores["flat.plain"] < 0.8


def test_limits_of_the_flat_gate_are_options_and_senseless_ones_are_refused():
    gate = plugins.build("gates", "flat:60", {"max_plain": 1})
    assert gate.judge(request(), disc(32, "black")).reason.endswith("at least 60 are wanted")
    assert gate.settings == {"min_deviation": 60, "max_plain": 1, "near": 8}
    for wrong in ({"min_deviation": -1}, {"max_plain": 0}, {"max_plain": float("nan")}):
        with pytest.raises(PluginError, match="gate 'flat' takes min_deviation from 0"):
            Flat(**wrong)


# ---------------------------------------------------------------- duplicate


def test_the_same_picture_stored_otherwise_is_a_repeat_and_other_views_are_not():
    first, second = drawn(1), drawn(2)
    images = [first, second, stored(first, 60), second.resize((70, 70)), drawn(3)]
    found = Duplicate().repeats(zip("abcde", images, strict=True))
    assert list(found) == ["c", "d"]
    assert found["c"].reason.startswith("the same picture as a: ")
    assert found["d"].reason.startswith("the same picture as b: ")
    assert found["c"].scores == {
        "duplicate.distance": distances(
            perceptual_hash(first)[None], perceptual_hash(stored(first, 60))[None]
        )[0, 0]
    }


def test_a_single_picture_passes_the_duplicate_gate():
    assert Duplicate().judge(request(), drawn(1)).reason == ""
    assert Duplicate().repeats([]) == Duplicate().repeats([("a", drawn(1))]) == {}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(0, HASH_BITS - 1))
def test_every_repeat_is_near_a_kept_one_before_it_and_no_two_kept_are_near(numbers, distance):
    images = [stored(drawn(number), 20 + 9 * place) for place, number in enumerate(numbers)]
    found = Duplicate(distance).repeats((str(place), image) for place, image in enumerate(images))
    hashes = np.array([perceptual_hash(image) for image in images])
    apart = distances(hashes, hashes)
    kept = [place for place in range(len(images)) if str(place) not in found]
    for name, judged in found.items():
        before = [other for other in kept if other < int(name)]
        bits = apart[int(name), before]
        assert judged.scores["duplicate.distance"] == bits.min() <= distance
        assert f"the same picture as {before[bits.argmin()]}: " in judged.reason
    assert all(apart[a, b] > distance for a in kept for b in kept if a < b)


def test_the_distance_of_the_duplicate_gate_is_an_option():
    gate = plugins.build("gates", "duplicate:255")
    assert json.loads(json.dumps(gate.settings)) == {"distance": 255, "bits": 256}
    assert list(gate.repeats([("a", drawn(1)), ("b", drawn(2))])) == ["b"]
    with pytest.raises(PluginError, match="from 0 to 255, given 256"):
        Duplicate(256)


# ---------------------------------------------------------------- words


def test_a_definition_becomes_a_part_of_a_sentence_and_names_get_articles():
    assert wording.thing(CACTIHOG).startswith("a hedgehog whose back is a ribbed cactus")
    assert wording.thing(replace(CACTIHOG, definition="MUSE, a kind of jellyfish.")).startswith(
        "MUSE"
    )
    assert [wording.a(name) for name in ("octopus", "cactus")] == ["an octopus", "a cactus"]


def test_parents_are_those_of_a_novel_concept_each_once():
    assert wording.parents(CACTIHOG) == ("cactus", "hedgehog")
    assert wording.parents(replace(CACTIHOG, parents=("cactus", "cactus"))) == ("cactus",)
    assert wording.parents(HEDGEHOG) == ()


# ---------------------------------------------------------------- vqa


@pytest.fixture
def script(tmp_path):
    """Writes what a model says of the questions about the first drawing of a concept, in order."""

    def write(
        *said: dict[str, object] | str, concept: Concept = CACTIHOG, **options: object
    ) -> Vqa:
        rows = [
            {"episode_id": f"vqa/{concept.id}/0000-0", "shots": 0, "query": query}
            | ({"text": answer} if isinstance(answer, str) else {"text": ""} | answer)
            for query, answer in enumerate(said)
        ]
        files.write_jsonl(tmp_path / "answers.jsonl", rows)
        return Vqa(f"scripted:{tmp_path / 'answers.jsonl'}", **options)

    return write


def logprobs(yes: float, rest: float = 1.0) -> dict[str, object]:
    """Two labels that share `rest` of what the model might have said."""
    return {"label_logprobs": {"yes": math.log(rest * yes), "no": math.log(rest * (1 - yes))}}


def test_what_the_model_says_is_read_as_strictly_as_an_answer_of_a_bench(script):
    judged = script("Yes.", "No, it does not.", "**Yes**").judge(request(), drawn(1))
    assert judged.reason == ""
    assert judged.scores == {"vqa.yes": 1, "vqa.parent.cactus": 0, "vqa.parent.hedgehog": 1}


def test_a_no_turns_the_picture_down_and_the_parents_only_inform(script):
    gate = script("No.", "Yes.", "Yes.")
    judged = gate.judge(request(), drawn(1))
    assert judged.scores["vqa.yes"] == 0
    assert judged.reason == (
        f"asked whether it shows {wording.thing(CACTIHOG)}, {gate.settings['model']} "
        "gave 0.00 for yes, at least 0.5 is wanted"
    )


def test_log_likelihoods_go_before_the_text_and_only_the_two_labels_count(script):
    gate = script(
        {"text": "No.", **logprobs(0.75, rest=1e-3)}, logprobs(0.2), logprobs(0.9), minimum=0.7
    )
    judged = gate.judge(request(), drawn(1))
    assert judged.reason == ""
    assert judged.scores == pytest.approx(
        {"vqa.yes": 0.75, "vqa.parent.cactus": 0.2, "vqa.parent.hedgehog": 0.9}
    )
    hopeless = {"label_logprobs": {"yes": -5000.0, "no": -0.0}}
    assert script(hopeless, "yes", "yes").judge(request(), drawn(1)).scores["vqa.yes"] == 0
    sure = {"label_logprobs": {"yes": -0.0, "no": -5000.0}}
    assert script(sure, "yes", "yes").judge(request(), drawn(1)).scores["vqa.yes"] == 1


def test_neither_yes_nor_no_is_no_yes_and_gives_no_score(script):
    judged = script("I cannot\ntell. " + "x" * 500, "Perhaps.", "Yes.").judge(request(), drawn(1))
    assert judged.scores == {"vqa.parent.hedgehog": 1}
    assert "said neither yes nor no: 'I cannot tell. xxx" in judged.reason
    assert "\n" not in judged.reason
    assert len(judged.reason) < 400


def test_a_foil_is_asked_for_by_its_definition_alone(script):
    judged = script("Yes.", concept=HEDGEHOG).judge(request(HEDGEHOG), drawn(1))
    assert judged.scores == {"vqa.yes": 1}


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"error": "timed out\nafter 300 s"}, "(timed out after 300 s)"),
        ({"label_logprobs": {"yes": -1.0}}, "(label_logprobs has ['yes']"),
    ],
)
def test_an_answer_that_fails_ends_the_run_in_one_line_and_passes_nothing(script, said, told):
    for answers in ((said, "Yes.", "Yes."), ("Yes.", "Yes.", said)):
        with pytest.raises(IsekaiError, match="did not judge cactihog/cactihog 0 ") as caught:
            script(*answers).judge(request(), drawn(1))
        assert told in str(caught.value)
        assert str(caught.value).endswith("run the same command again to go on")
        assert "\n" not in str(caught.value)


def test_each_attempt_is_a_question_of_its_own(script):
    with pytest.raises(IsekaiError, match="no answer for 0 shots, query 0"):
        script("Yes.", "Yes.", "Yes.").judge(replace(request(), attempt=1), drawn(1))


def test_the_question_is_an_option_and_what_depends_on_answers_is_in_the_settings():
    gate = plugins.build(
        "gates",
        "vqa:chance",
        {"question": "Is this {definition}?", "minimum": 0, "seed": 3},
    )
    assert gate.settings == {
        "model": "chance",
        "adapter": {"seed": 3},
        "question": "Is this {definition}?",
        "minimum": 0,
    }
    assert gate.judge(request(), drawn(1)).reason == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"question": "Is it good?"}, "the question names no {definition}"),
        ({"minimum": 1.5}, "a minimum from 0 to 1, given 1.5"),
        ({"minimum": float("nan")}, "a minimum from 0 to 1, given nan"),
        ({"minimun": 0.6}, "gate 'vqa' has no option 'minimun'; did you mean 'minimum'?"),
        ({"sed": 3}, "gate 'vqa' has no option 'sed'; did you mean 'seed'?"),
        ({"xyz": 3}, "gate 'vqa' has no option 'xyz'; known: minimum, model, question, seed"),
        ({"seed": "x"}, "model 'chance': option seed='x': "),
    ],
)
def test_senseless_options_of_the_vqa_gate_are_refused(options, told):
    with pytest.raises(PluginError) as caught:
        Vqa("chance", **options)
    assert told in str(caught.value)


def test_a_concept_without_a_definition_is_not_asked_for():
    bare = replace(CACTIHOG, definition="")
    with pytest.raises(
        DataError, match="cactihog/cactihog: has no definition to hold its pictures"
    ):
        Vqa("chance").judge(request(bare), drawn(1))


def test_a_chat_server_is_asked_each_question_once_with_the_picture(tmp_path):
    with serve(answer=lambda support, query: "Yes.", delay=0.02) as server:
        gate = plugins.build(
            "gates",
            "vqa:openai:tiny",
            {"base_url": server.url, "cache": str(tmp_path), "concurrency": 2},
        )
        with ThreadPoolExecutor(4) as pool:
            images = [drawn(number) for number in range(4)]
            judged = list(pool.map(lambda image: gate.judge(request(), image), images))
        assert {judgement.reason for judgement in judged} == {""}
        assert len(server.asked) == 4 * 3
        assert server.peak <= 2
        asked = [json.dumps(request.body) for request in server.asked]
        for thing in (wording.thing(CACTIHOG), "a cactus", "a hedgehog"):
            assert sum(f"Does this picture show {thing}? Answer with yes" in a for a in asked) == 4
        assert all(len(request.images) == 1 for request in server.asked)
        assert gate.judge(request(), drawn(2)) == judged[2]
        assert len(server.asked) == 4 * 3  # what was answered is kept
        gate.close()


def test_a_server_that_fails_ends_the_run_with_its_reason(tmp_path):
    with serve(always="503") as server:
        gate = Vqa("openai:tiny", base_url=server.url, cache=str(tmp_path), retries=0)
        with pytest.raises(IsekaiError, match=r"openai:tiny did not judge cactihog/cactihog 0 \("):
            gate.judge(request(), drawn(1))
        server.always = None
        server.answer = lambda support, query: "Yes."
        assert gate.judge(request(), drawn(1)).reason == ""
        gate.close()


# ---------------------------------------------------------------- clip


def cosines(path: str, image: Image.Image, texts: list[str]) -> np.ndarray:
    """What the model itself says, one text at a time."""
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model, read = AutoModel.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    see = AutoImageProcessor.from_pretrained(path, backend="pil")
    with torch.inference_mode():
        shown = see([image], return_tensors="pt")
        said = [model(**read([text], return_tensors="pt"), **shown) for text in texts]
        return np.array([float(out.logits_per_image / model.logit_scale.exp()) for out in said])


@pytest.fixture
def clip(folder):
    def build(**options: object) -> Clip:
        gate = Clip(folder("clip"), **options)
        gate.inform(GROUPS)
        return gate

    return build


def test_clip_scores_are_cosines_with_the_texts_of_the_group(clip, folder):
    judged = clip().judge(request(), drawn(1))
    texts = [c.definition for c in (CACTIHOG, HEDGEHOG, PRISMOG)]
    texts += ["a photo", "a photo of a cactus", "a photo of a hedgehog"]
    names = ["own", "foil", "twin", "prompt", "parent.cactus", "parent.hedgehog"]
    expected = dict(zip(names, cosines(folder("clip"), drawn(1), texts), strict=True))
    expected["blend"] = min(expected["parent.cactus"], expected["parent.hedgehog"])
    assert judged.scores == pytest.approx({f"clip.{k}": v for k, v in expected.items()}, abs=1e-5)


def test_a_foil_is_held_against_the_nearer_novel_concept(clip, folder):
    judged = clip().judge(replace(request(HEDGEHOG), prompt=""), drawn(1))
    texts = [concept.definition for concept in (HEDGEHOG, CACTIHOG, PRISMOG)]
    own, *novel = cosines(folder("clip"), drawn(1), texts)
    expected = {"clip.own": own, "clip.novel": max(novel)}
    assert judged.scores == pytest.approx(expected, abs=1e-5)
    assert bool(judged.reason) == (max(novel) > own)


def pair(own: str, other: str, role: Role = "novel") -> Group:
    """A concept of this role with its own definition, and one of the other role."""
    rest: Role = "foil" if role == "novel" else "novel"
    return Group(
        id="x",
        title="x",
        concepts=(
            Concept(id="x/a", name="ablip", role=role, definition=own),
            Concept(id="x/b", name="beblo", role=rest, definition=other),
        ),
    )


@pytest.mark.parametrize("role", ["novel", "foil"])
def test_a_picture_nearer_to_the_other_role_is_turned_down_beyond_the_margin(role, folder):
    """Of two texts one is nearer: the picture passes where that is its own."""

    def judge(own: str, other: str, **options: float) -> Judgement:
        gate, group = Clip(folder("clip"), **options), pair(own, other, role)
        gate.inform([group])
        return gate.judge(replace(request(group.concepts[0]), prompt=""), drawn(1))

    texts = [CACTIHOG.definition, HEDGEHOG.definition]
    own, other = sorted(texts, key=lambda text: judge(text, "x").scores["clip.own"])
    assert judge(other, own).reason == ""
    turned = judge(own, other)
    rival = "foil" if role == "novel" else "novel"
    far, near = turned.scores["clip.own"], turned.scores[f"clip.{rival}"]
    kind = "foil" if role == "novel" else "novel concept"
    assert turned.reason == (
        f"closer to the {kind} 'beblo' (cosine {near:.3f}) than to its own definition ({far:.3f})"
    )
    assert judge(own, other, margin=near - far + 1e-4).reason == ""
    held = judge(own, other, margin=near - far - 1e-4)
    assert held.reason.startswith(turned.reason)
    assert held.reason.endswith(f"by more than {near - far - 1e-4:g}")


def test_a_picture_far_from_its_own_definition_is_turned_down_if_asked_for(clip):
    own = clip(margin=2).judge(request(), drawn(1)).scores["clip.own"]
    assert clip(margin=2, minimum=own - 1e-4).judge(request(), drawn(1)).reason == ""
    assert clip(margin=2, minimum=own + 1e-4).judge(request(), drawn(1)).reason == (
        f"far from its own definition: a cosine of {own:.3f}, at least {own + 1e-4:g} is wanted"
    )


def test_a_group_may_lack_a_foil_or_a_twin(folder):
    gate = Clip(folder("clip"))
    gate.inform([replace(GROUPS[0], concepts=(CACTIHOG,))])
    scores = gate.judge(request(), drawn(1)).scores
    assert not {"clip.foil", "clip.twin"} & set(scores)


def test_each_text_is_embedded_once_and_threads_change_nothing(clip, monkeypatch):
    asked: list[str] = []
    embed = PictureTextEmbedder.embed_texts

    def count(self: PictureTextEmbedder, texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(PictureTextEmbedder, "embed_texts", count)
    concepts = [concept for group in GROUPS for concept in group.concepts]
    alone = [clip().judge(request(concept), drawn(n)) for n, concept in enumerate(concepts)]
    asked.clear()
    gate = clip()
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(gate.judge, request(c), drawn(n)) for n, c in enumerate(concepts)]
        assert [job.result() for job in jobs] == alone
    assert len(asked) == len(set(asked))


def test_other_models_of_pictures_and_texts_judge_too(folder):
    gate = plugins.build("gates", f"clip:{folder('siglip')}", {"dtype": "bfloat16", "minimum": 0})
    assert isinstance(gate, Knowing)
    gate.inform(GROUPS)
    assert set(gate.judge(request(HEDGEHOG), drawn(1)).scores) == {
        "clip.own",
        "clip.novel",
        "clip.prompt",
    }
    assert json.loads(json.dumps(gate.settings)) == {
        "embedder": "transformers",
        "model": folder("siglip"),
        "revision": gate.settings["revision"],
        "margin": 0,
        "minimum": 0,
    }
    assert str(gate.settings["revision"]).endswith(" bfloat16")


@pytest.mark.parametrize(
    ("kind", "options", "told"),
    [
        ("dino", {}, "embeds no texts; give a model that does, such as CLIP or SigLIP"),
        ("clip", {"margin": -0.1}, "a margin from 0 to 2 and a minimum from -1 to 1, given -0.1"),
        ("clip", {"minimum": 3}, "given 0 and 3"),
        ("clip", {"margn": 0.1}, "gate 'clip' has no option 'margn'; did you mean 'margin'?"),
        ("clip", {"devise": "cpu"}, "gate 'clip' has no option 'devise'; did you mean 'device'?"),
        ("clip", {"options": 1}, "gate 'clip' has no option 'options'; known: batch, device, "),
        ("clip", {"device": "abacus"}, "'abacus'"),
    ],
)
def test_what_the_clip_gate_can_not_work_with_is_refused(kind, options, told, folder):
    with pytest.raises(PluginError) as caught:
        plugins.build("gates", f"clip:{folder(kind)}", options)
    assert told in str(caught.value)


def test_a_concept_without_a_definition_is_told_before_the_first_picture(folder):
    with pytest.raises(DataError, match="x/b: has no definition to hold its pictures against"):
        Clip(folder("clip")).inform([pair("a thing", "")])


# ---------------------------------------------------------------- classify


def probabilities(path: str, image: Image.Image, *, independent: bool = False) -> list[float]:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    see = AutoImageProcessor.from_pretrained(path, backend="pil")
    with torch.inference_mode():
        model = AutoModelForImageClassification.from_pretrained(path)
        logits = model(**see([image], return_tensors="pt")).logits[0]
    return (logits.sigmoid() if independent else logits.softmax(0)).tolist()


def test_limits_say_what_passes_and_the_reason_what_was_found(folder):
    path = folder("classifier")
    normal, nsfw = probabilities(path, drawn(1))
    judged = Classify(path).judge(request(), drawn(1))
    assert judged.reason == ""
    assert judged.scores == pytest.approx(
        {"classify.normal": normal, "classify.nsfw": nsfw}, abs=1e-5
    )
    above, below = f"{nsfw + 0.01:.3f}", f"{nsfw - 0.01:.3f}"
    for limits, holds in ((f"nsfw<{above}", True), (f"nsfw<{below}", False),
                          (f"nsfw>{below}", True), (f"nsfw>{above}", False)):  # fmt: skip
        judged = plugins.build("gates", f"classify:{path}", {"limits": limits}).judge(
            request(), drawn(1)
        )
        told = f"'nsfw' has {nsfw:.3f}, {Limit.__str__(*read_limits(limits))} passes"
        assert judged.reason == ("" if holds else told)


def test_of_many_labels_only_those_with_a_limit_are_scored(tmp_path):
    labels = [f"thing {number}" for number in range(11)]
    path = str(tiny_models.classifier(tmp_path / "many", labels))
    assert Classify(path).judge(request(), drawn(1)).scores == {}
    scores = Classify(path, "thing 3<1, thing 7<1").judge(request(), drawn(1)).scores
    assert set(scores) == {"classify.thing 3", "classify.thing 7"}
    assert scores["classify.thing 3"] == pytest.approx(probabilities(path, drawn(1))[3], abs=1e-5)


@pytest.mark.parametrize("labels", [("face", "text"), ("watermark",)])
def test_labels_that_were_taught_apart_do_not_share_a_sum(labels, tmp_path):
    path = str(tiny_models.classifier(tmp_path / "apart", labels, independent=len(labels) > 1))
    scores = Classify(path).judge(request(), drawn(1)).scores
    expected = probabilities(path, drawn(1), independent=True)
    assert list(scores.values()) == pytest.approx(expected, abs=1e-5)


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z ,.-]{0,8}[a-z]", fullmatch=True),
            st.sampled_from("<>"),
            st.integers(0, 1000).map(lambda n: n / 1000),
        ),
        max_size=4,
    )
)
def test_limits_are_read_as_they_are_written(rows):
    text = ", ".join(f"{label} {sign} {bound}" for label, sign, bound in rows)
    assert [(x.label, x.sign, x.bound) for x in read_limits(text)] == rows


@pytest.mark.parametrize(
    "limits", ["nsfw", "nsfw<", "<0.5", "nsfw<=0.5", "nsfw<1.5", "nsfw<x", "nsfw<0.5 face<1", ","]
)
def test_what_is_no_limit_is_refused_in_one_line(limits):
    with pytest.raises(PluginError, match="is no limit; write a label, < or >, and a number"):
        read_limits(limits)


def test_what_is_no_classifier_with_these_labels_is_refused(folder):
    with pytest.raises(PluginError, match="has no label 'nfsw'; did you mean 'nsfw'"):
        Classify(folder("classifier"), "nfsw<0.5")
    with pytest.raises(PluginError, match="kind 'bert' does not tell labels of pictures"):
        Classify(folder("texts"))
    with pytest.raises(
        DataError, match=r"no weights for 'classifier\.bias' \(2 such in all\) of a"
    ):
        Classify(folder("dino")).judge(request(), drawn(1))


# ---------------------------------------------------------------- at work


def ledger(out: Path) -> list[ImageRecord]:
    return files.read_jsonl(out / "ledger.jsonl", ImageRecord)


def test_every_picture_that_is_kept_carries_what_each_gate_measured(folder, tmp_path):
    gates = [
        "flat",
        "duplicate",
        f"clip:{folder('clip')}?margin=2&device=cpu",
        "vqa:chance?minimum=0",
        f"classify:{folder('classifier')}?limits=nsfw<1,normal<1",
    ]
    out = generate.run(
        groups="cactihog", per_concept=2, size=32, workers=1, gates=gates, out=tmp_path / "out"
    )
    rows = ledger(out)
    assert len(rows) == 6
    for row in rows:
        names = {name.split(".")[0] for name in row.scores}
        assert names == {"flat", "clip", "vqa", "classify"}
        assert ("clip.blend" in row.scores) == (row.concept != HEDGEHOG.id)
    revision = Clip(folder("clip")).settings["revision"]
    assert rows[0].settings["gates"]["clip"]["revision"] == revision


def test_a_judge_that_stops_answering_loses_no_picture_and_lets_none_pass(tmp_path):
    with serve(answer=lambda support, query: "Yes.", play=[None] * 5, always="503") as server:
        options = f"base_url={server.url}&cache={tmp_path / 'cache'}&retries=0&concurrency=1"

        def run(out: str) -> Path:
            return generate.run(
                groups="cactihog",
                per_concept=2,
                size=32,
                workers=1,
                gates=[f"vqa:openai:tiny?{options}"],
                out=tmp_path / out,
            )

        with pytest.raises(IsekaiError, match="run the same command again to go on"):
            run("out")
        kept = ledger(tmp_path / "out")
        assert [(row.concept, row.index) for row in kept] == [(CACTIHOG.id, 0)]
        server.always = None
        whole = ledger(run("out"))
        assert whole[0] == kept[0]
        assert [row.id for row in whole] == [row.id for row in ledger(run("again"))]
        assert [row.scores for row in whole] == [{**row.scores, "vqa.yes": 1} for row in whole]
        assert len(whole) == 6
