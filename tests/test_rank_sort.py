"""Radix sort of ranks, against numpy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from halfspace.jit import kernel
from halfspace.rank_sort import (
    INSERTION_SORT_LENGTH,
    PLACES,
    RADIX_BITS,
    count_rank,
    sort_ranks,
    start_sort,
)


@kernel
def _sort(values, spare, limit, places):
    radix = start_sort(values.size, limit, places)
    for i in range(values.size):
        count_rank(places, radix, values[i])
    return sort_ranks(values, spare, radix, places)


def sorted_ranks(values: np.ndarray, limit: int) -> np.ndarray:
    """Sort twice with the same scratch, which the first sort leaves as it may."""
    places = np.full(PLACES, -7, np.int32)
    for _ in range(2):
        ranks, spare = values.astype(np.int64), np.full(len(values), -1, np.int64)
        in_spare = _sort(ranks, spare, limit, places)
    return spare if in_spare else ranks


@given(st.data())
def test_ranks_ascend(data):
    limit = data.draw(st.one_of(st.integers(1, 100), st.integers(1, 2**31 - 64)), label="limit")
    size = data.draw(st.integers(0, 3 * INSERTION_SORT_LENGTH), label="size")
    seed = data.draw(st.integers(0, 2**32 - 1), label="seed")
    values = np.random.default_rng(seed).integers(0, limit, size)
    assert np.array_equal(sorted_ranks(values, limit), np.sort(values))


@pytest.mark.parametrize("size", [0, 1, INSERTION_SORT_LENGTH, INSERTION_SORT_LENGTH + 1, 3000])
@pytest.mark.parametrize("bits", [1, RADIX_BITS, RADIX_BITS + 1, 2 * RADIX_BITS + 1, 31])
def test_every_number_of_digits(size, bits):
    limit = min(2**bits, 2**31 - 64)
    values = np.random.default_rng(bits).integers(0, limit, size)
    assert np.array_equal(sorted_ranks(values, limit), np.sort(values))


def test_nothing_of_nothing():
    assert sorted_ranks(np.empty(0), 0).size == 0
