"""The parts of the runtime: attention in two halves, the labels' tree, what a token sees."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_adapters.runtime import attention
from model_adapters.runtime.attention import Frame, attend, cascade, written_out
from model_adapters.runtime.branches import tree
from model_adapters.runtime.budget import Budget, chunked
from model_adapters.runtime.seam import Continuation
from model_adapters.runtime.stores import Store
from model_adapters.runtime.strips import Strip, joined, look

WORDS = st.lists(st.integers(0, 3), min_size=1, max_size=5).map(tuple)


@given(st.dictionaries(st.sampled_from("abcdef"), WORDS, min_size=1))
def test_every_token_of_a_label_is_foretold_behind_all_tokens_before_it(labels):
    made = tree({name: Continuation(ids=ids) for name, ids in labels.items()})
    mask = made.mask(2)
    for name, ids in labels.items():
        assert len(made.paths[name]) == len(ids)
        for read, place in enumerate(made.paths[name]):
            seen = torch.nonzero(mask[2 + place]).flatten().tolist()
            assert [made.ids[one - 2] for one in seen if one >= 2] == list(ids[:read])
            assert seen[:2] == [0, 1]
            if place >= 0:
                assert made.depths[place] == read


@given(st.dictionaries(st.sampled_from("abcdef"), WORDS, min_size=1))
def test_what_labels_share_is_read_once(labels):
    made = tree({name: Continuation(ids=ids) for name, ids in labels.items()})
    beginnings = {ids[:end] for ids in labels.values() for end in range(1, len(ids))}
    assert len(made.ids) == len(beginnings)


@pytest.mark.parametrize("groups", [4, 2])
@pytest.mark.parametrize("biased", [False, True])
def test_attention_in_two_halves_is_attention_over_both(groups, biased):
    if biased and groups < 4:
        pytest.skip("no model has a bias by distance and grouped keys")
    torch.manual_seed(0)
    prefix, rows, tokens, width = 9, 3, 5, 8
    keys, values = torch.randn(2, 1, groups, prefix, width)
    query = torch.randn(rows, 4, tokens, width)
    key, value = torch.randn(2, rows, groups, tokens, width)
    slopes = torch.tensor([0.5, 0.25, 0.1, 0.05]) if biased else None
    store = Store(prefix + 3)
    store.place(torch.arange(prefix).unsqueeze(0))
    store.write(0, keys, values)
    store.length = prefix
    positions = prefix + torch.arange(tokens).expand(rows, -1)
    mask = torch.ones(tokens, tokens, dtype=torch.bool).tril()
    mask[4, 2] = False
    frame = Frame(positions=positions, prefix=store, mask=mask[None, None])
    out = cascade(frame, 0, query, key, value, scale=0.3, slopes=slopes)

    every = torch.cat([keys.expand(rows, -1, -1, -1), key], dim=2).repeat_interleave(4 // groups, 1)
    held = torch.cat([values.expand(rows, -1, -1, -1), value], 2).repeat_interleave(4 // groups, 1)
    scores = query @ every.transpose(2, 3) * 0.3
    if slopes is not None:
        scores = scores + slopes[:, None, None] * torch.arange(prefix + tokens)
    seen = torch.cat([torch.ones(tokens, prefix, dtype=torch.bool), mask], dim=1)
    true = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1) @ held
    torch.testing.assert_close(out, true.transpose(1, 2))


@pytest.mark.parametrize("seen", ["all", "before", "some"])
def test_kernels_give_what_the_formula_gives(seen, monkeypatch):
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    bias = {
        "all": torch.zeros(2, 4, 6, 6),
        "before": torch.full((6, 6), -torch.inf).triu(1).expand(2, 4, -1, -1),
        "some": torch.randn(2, 4, 6, 6),
    }[seen]
    kernel = attend(query, key, value, bias if seen == "some" else None, seen == "before", 0.3)
    for most in (attention.SCORES, 100, 1):
        monkeypatch.setattr(attention, "SCORES", most)
        formula = written_out(query, key, value, bias, 0.3)
        for one, other in zip(kernel, formula, strict=True):
            torch.testing.assert_close(one, other)


@given(st.integers(1, 4), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_what_is_kept_is_what_was_written_however_much_room_there_was(room, counts):
    store = Store(room)
    written = torch.arange(float(sum(counts))).reshape(1, 1, -1, 1)
    for count in counts:
        part = written[:, :, store.length : store.length + count]
        store.place(part[:, 0, :, 0].long())
        store.write(3, part, -part)
        store.length += count
    keys, values = store.read(3)
    assert torch.equal(keys, written)
    assert torch.equal(values, -written)
    assert torch.equal(store.positions, written[:, 0, :, 0].long())


def strip(*sees: int, media: tuple[float, ...] = ()) -> Strip:
    count = len(sees)
    return Strip(
        embeds=torch.zeros(count, 2),
        positions=torch.arange(count).unsqueeze(0),
        span=count,
        media=tuple(torch.full((1, 2), one) for one in media),
        sees=torch.tensor(sees),
    )


def seen(rows: list[Strip], carried: float | None) -> list[list[float | None]]:
    """The image that each token sees, by its number."""
    before = None if carried is None else torch.full((1, 2), carried)
    made = look(rows, before, torch.zeros(len(rows), len(rows[0]), dtype=torch.bool))
    return [
        [None if at < 0 else float(media[at, 0, 0]) for at in row.tolist()]
        for row, media in zip(made.index, made.media, strict=True)
    ]


def test_a_token_sees_the_image_that_began_last():
    piece = strip(0, 1, 1, 2, media=(5.0, 6.0))
    assert seen([piece], None) == [[None, 5.0, 5.0, 6.0]]
    assert seen([piece], 4.0) == [[4.0, 5.0, 5.0, 6.0]]
    whole = joined([piece, strip(0, 1, media=(7.0,))])
    assert seen([whole], None) == [[None, 5.0, 5.0, 6.0, 6.0, 7.0]]
    assert seen([whole[3:5]], None) == [[6.0, 6.0]]
    assert seen([strip(0, 0), strip(0, 1, media=(8.0,))], 4.0) == [[4.0, 4.0], [4.0, 8.0]]
    assert seen([strip(0, 0)], None) == [[None, None]]


def test_images_that_no_token_sees_are_left_out():
    whole = joined([strip(1, media=(float(number),)) for number in range(6)])
    made = look([whole[4:]], None, torch.zeros(1, 2, dtype=torch.bool))
    assert made.media[0, :, 0, 0].tolist() == [4.0, 5.0]


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 7), st.integers(1, 9))
def test_all_rows_are_worked_on_once_whatever_memory_takes(tokens, count, width, fits):
    done = []

    def work(part: slice) -> list[int]:
        rows = list(range(count))[part]
        if len(rows) > fits:
            raise torch.OutOfMemoryError
        return rows

    budget = Budget(tokens)
    for rows in chunked(budget, count, width, work, "a row"):
        done += rows
    assert done == list(range(count))
    assert budget.tokens <= tokens


def test_an_error_that_is_not_of_memory_goes_up():
    with pytest.raises(RuntimeError, match="something else"):
        list(chunked(Budget(8), 3, 1, _broken, "a row"))


def _broken(part: slice) -> None:
    raise RuntimeError("something else")
