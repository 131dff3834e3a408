"""Templates are read strictly, and put an episode into words without giving the answer away."""

import pytest

from isekai import templates
from isekai.errors import SpecError
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


def test_every_built_in_template_is_sound():
    assert "plain" in templates.names()
    for name in templates.names():
        assert "{label}" in templates.read(name).support_answer


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
    assert sweep.labels == tuple(episode.labels.values())
    for turn, example in zip(sweep.support, episode.support, strict=True):
        assert turn.image.id == example.image_id
        assert turn.label == episode.labels[example.concept]
        assert turn.answer == f"This is called {turn.label}."
    for turn, example in zip(sweep.queries, episode.queries, strict=True):
        assert turn.image.data == example.image_id.encode()
        assert turn.answer is None
        assert turn.label is None
        assert not any(label in turn.question for label in sweep.labels)
