"""The batch size climbs while that pays, and yields when memory runs out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isekai.errors import IsekaiError
from isekai.sources.diffusers.batching import Pace, is_out_of_memory


def climb(pace: Pace, seconds, batches: int = 30) -> list[int]:
    """The sizes asked for, where a batch of n images takes `seconds(n)`."""
    sizes = []
    for _ in range(batches):
        sizes.append(pace.size)
        pace.took(pace.size, seconds(pace.size))
    return sizes


def test_a_size_is_doubled_while_an_image_takes_less_time():
    sizes = climb(Pace(limit=64), lambda n: 1 + 0.1 * n)
    assert sizes[:12] == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32]


def test_it_settles_where_doubling_saves_less_than_three_in_a_hundred():
    sizes = climb(Pace(limit=64), lambda n: max(4, n))
    assert sizes[-1] == 4
    assert max(sizes) == 8


def test_the_first_batch_of_a_size_is_not_timed():
    seen: set[int] = set()

    def slow_at_first(n: int) -> float:
        warm = n in seen
        seen.add(n)
        return (1 + 0.1 * n) * (1 if warm else 50)

    assert climb(Pace(limit=8), slow_at_first)[-1] == 8


def test_a_batch_cut_short_by_the_end_of_the_work_tells_nothing():
    pace = Pace(limit=8)
    climb(pace, lambda n: 1 + 0.1 * n, batches=4)
    assert pace.size == 4
    for _ in range(5):
        pace.took(3, 0.001)
    assert pace.size == 4


def test_a_size_that_was_asked_for_is_kept():
    assert set(climb(Pace(limit=64, fixed=6), lambda n: 1.0)) == {6}


def test_memory_that_runs_out_halves_the_size_for_good_and_says_so():
    pace = Pace(limit=64, fixed=8)
    assert pace.ran_out(8) == "out of memory at 8 images; going on with 4"
    assert set(climb(pace, lambda n: 1.0)) == {4}
    pace = Pace(limit=64)
    climb(pace, lambda n: 1 + 0.1 * n, batches=6)
    pace.ran_out(pace.size)
    assert set(climb(pace, lambda n: 1 + 0.1 * n)) == {4}


def test_what_ran_out_may_have_been_a_smaller_batch_than_usual():
    pace = Pace(limit=64, fixed=8)
    assert pace.ran_out(3) == "out of memory at 3 images; going on with 1"


def test_without_memory_for_a_single_image_it_says_what_to_change():
    with pytest.raises(IsekaiError, match=r"single image: .*memory=8g.*--size"):
        Pace(limit=8).ran_out(1)


@given(
    limit=st.integers(1, 100),
    times=st.lists(st.floats(0.001, 10), min_size=1, max_size=40),
    lost=st.sets(st.integers(0, 39)),
)
def test_a_size_is_never_beyond_the_limit_nor_below_one(limit, times, lost):
    pace = Pace(limit=limit)
    for number, seconds in enumerate(times):
        assert 1 <= pace.size <= max(1, limit)
        if number in lost and pace.size > 1:
            pace.ran_out(pace.size)
        else:
            pace.took(pace.size, seconds)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
            True,
        ),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_from_other_failures(error, is_it):
    assert is_out_of_memory(error) is is_it


def test_torch_s_own_error_counts_whatever_it_says():
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("anything"))
