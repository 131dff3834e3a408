"""Templates are read strictly, and put an episode into words without giving the answer away."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from isekai import templates
from isekai.errors import DataError, SpecError
from isekai.images import decode, encode, grey_like
from isekai.types import EncodedImage
from tests.test_episodes import drawn

GOOD = """
support_question = "What is it?"
support_answer = "It is {label}."
query_question = "And this?"
"""


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "mine.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def picture(id: str) -> EncodedImage:
    return EncodedImage(id=id, data=id.encode())


def test_every_built_in_template_is_sound():
    assert {"lcl", "plain", "chat", "numbered", "choices"} == set(templates.names())
    for name in templates.names():
        assert "{label}" in templates.read(name).support_answer


def test_the_published_texts_come_out_to_the_letter():
    episode = drawn(labels="true", shots=(1,))[0]
    sweep = templates.fold(episode, templates.read("lcl"), picture)
    turn, query = sweep.support[0], sweep.queries[0]
    assert turn.question == "[BEGIN EXAMPLE] What is in the image <image>?"
    assert turn.around == ("[BEGIN EXAMPLE] What is in the image ", "?")
    assert turn.answer == f'there is "{turn.label}" in the image. [END EXAMPLE]'
    assert query.question == "Based on the previous examples, what is in the image <image>?"
    assert sweep.query_instruction == "[FINAL QUESTION]: "
    assert sweep.instruction.startswith("You should find the causal relationship between")


def test_a_template_counts_the_support_pictures_and_lists_the_labels():
    episode = drawn(shots=(1, 2))[0]
    numbered = templates.fold(episode, templates.read("numbered"), picture)
    for place, turn in enumerate(numbered.support, start=1):
        assert turn.around == (f"Picture {place}: ", f" What does picture {place} show?")
        assert turn.answer == f"Picture {place} shows {turn.label}."
    choices = templates.fold(episode, templates.read("choices"), picture)
    a, b, c = choices.labels
    assert f"{a}, {b} or {c}?" in choices.queries[0].question
    assert not any(word in choices.support[0].question for word in choices.labels)


def test_a_question_that_does_not_say_where_its_picture_stands_has_it_in_front():
    sweep = templates.fold(drawn(shots=(1,))[0], templates.read("plain"), picture)
    assert sweep.queries[0].around == ("", "What is this called?")


def test_a_word_that_a_control_puts_in_stands_in_the_answer():
    episode = drawn(shots=(1,))[0]
    said = replace(episode, support=(replace(episode.support[0], word="dovrik"),))
    (turn,) = templates.fold(said, templates.read("plain"), picture).support
    assert (turn.label, turn.answer) == ("dovrik", "This is called dovrik.")


def test_grey_is_as_large_as_the_picture_it_stands_for():
    drawn_one = Image.new("RGB", (40, 30), (200, 10, 10))
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    drawn_one.save(buffer, "JPEG", exif=turned)
    for data, size in ((encode(drawn_one), (40, 30)), (buffer.getvalue(), (30, 40))):
        grey = decode(grey_like(EncodedImage(id="x", data=data)).data)
        assert grey.size == decode(data).size == size
        assert set(np.asarray(grey).ravel()) == {128}
    episode = drawn(shots=(1,))[0]
    blind = replace(episode, support=tuple(replace(e, shown="grey") for e in episode.support))
    sweep = templates.fold(
        blind, templates.read("plain"), lambda id: EncodedImage(id=id, data=encode(drawn_one))
    )
    assert len({turn.image.id for turn in sweep.support}) == 1
    assert sweep.queries[0].image.id == episode.queries[0].image_id


def test_a_label_that_would_be_taken_for_a_mark_is_refused():
    episode = drawn(shots=(1,))[0]
    for word in ("a <image>", "{number}"):
        labels = dict(zip(episode.labels, (word, "b", "c"), strict=True))
        with pytest.raises(DataError, match="take --labels fantasy"):
            templates.fold(replace(episode, labels=labels), templates.read("plain"), picture)


def test_a_template_of_ones_own_is_a_file(written):
    assert templates.read(written(GOOD)).query_question == "And this?"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("support_answer", "suport_answer"), "did you mean 'support_answer'"),
        (GOOD.replace("{label}", "it"), "names the label once, as {label}"),
        (GOOD.replace("{label}", "{label} {label}"), "names the label once, as {label}"),
        (GOOD.replace("And this?", "Is this {label}?"), "query_question gives the answer away"),
        (GOOD.replace("What is it?", " "), "support_question is empty"),
        (GOOD.replace("What is it?", "{image} {image}"), "says where the picture stands once"),
        (GOOD.replace("What is it?", "What is <image>?"), "once, as {image}"),
        (GOOD.replace("What is it?", "Is it {labels}?"), "has {labels}; known here: {image}, {num"),
        (GOOD.replace("And this?", "{name}?"), "query_question has {name}; known here: {image}"),
        (GOOD + 'instruction = "Say {label}."', "instruction gives the answer away"),
        ("support_question = What", "mine.toml: not TOML"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_template_is_told(written, text, told):
    with pytest.raises(SpecError) as refused:
        templates.read(written(text))
    assert told in str(refused.value)


def test_all_problems_of_a_template_are_told_at_once(written):
    with pytest.raises(SpecError) as refused:
        templates.read(written('support_question = ""\nquery = "?"\nsupport_answer = 3\n'))
    assert len(refused.value.problems) == 3


def test_a_template_that_is_not_there_is_told_with_the_nearest(tmp_path):
    with pytest.raises(SpecError, match="did you mean 'plain'"):
        templates.read("plane")
    with pytest.raises(SpecError, match="no such file"):
        templates.read(str(tmp_path / "none.toml"))


def test_a_sweep_says_the_label_of_each_support_image_and_of_no_query():
    episode = drawn(shots=(0, 1, 4))[0]
    sweep = templates.fold(
        episode, templates.read("plain"), lambda id: EncodedImage(id=id, data=id.encode())
    )
    assert sweep.cuts == (0, 3, 12)
    assert sorted(sweep.labels) == sorted(episode.labels.values())
    for turn, example in zip(sweep.support, episode.support, strict=True):
        assert turn.image.id == example.image_id
        assert turn.label == episode.labels[example.concept]
        assert turn.answer == f"This is called {turn.label}."
    for turn, example in zip(sweep.queries, episode.queries, strict=True):
        assert turn.image.data == example.image_id.encode()
        assert turn.answer is None
        assert turn.label is None
        assert not any(label in turn.question for label in sweep.labels)
