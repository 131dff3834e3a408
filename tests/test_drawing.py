"""How work is shared out among workers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.drawing import CHUNK, Drawing
from isekai.types import Concept, ImageRequest


class Cards:
    """A source for several cards; it draws nothing."""

    model = revision = "1"
    processes = True
    settings = {}  # noqa: RUF012

    def __init__(self, cards: int = 4, chunk: int = 32) -> None:
        self.devices = [f"cuda:{number}" for number in range(cards)]
        self.chunk = chunk

    def on(self, device):
        return self

    def prepare(self, requests):
        return None

    def arrange(self, requests):
        return requests

    def draw(self, requests):
        return iter(())


def requests(count: int) -> list[ImageRequest]:
    concept = Concept(id="a/b", name="b", role="novel")
    return [ImageRequest(concept=concept, index=i, size=64, seed=i) for i in range(count)]


@given(st.integers(1, 3000), st.integers(1, 16), st.integers(1, 64))
def test_every_request_is_handed_out_once_and_in_order(count, workers, chunk):
    drawing = Drawing(Cards(chunk=chunk), images=count, workers=workers)
    chunks = list(drawing._chunks(requests(count)))
    assert [one.index for chunk in chunks for one in chunk] == list(range(count))
    assert max(map(len, chunks)) <= max(CHUNK, chunk)


def test_chunks_are_large_at_first_and_small_at_the_end():
    chunks = list(Drawing(Cards(), images=1920)._chunks(requests(1920)))
    assert len(chunks[0]) == 32
    assert max(len(chunk) for chunk in chunks[-8:]) == CHUNK


@pytest.mark.parametrize(("images", "workers"), [(1, 1), (4, 1), (8, 2), (60, 4), (1920, 4)])
def test_there_is_a_worker_a_card_unless_there_is_less_to_do(images, workers):
    assert Drawing(Cards(), images=images).workers == workers
