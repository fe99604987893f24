"""The r-th best of each row's listed scores: a radix select, by histograms of eight bits.

A score is told from others by a key of 62 bits: how far it is below the row's best, as a float32,
and its slot, so that keys differ and ties go to the earlier. Scores that only rounding to float32
tells apart may change places, as `TopR` has it.

Eight passes over the list, each one histogram of 256 bins a row. O(listed) and no sort.
"""

import numpy as np

from halfspace.cuda.runtime import line
from halfspace.cuda.scratch import Scratch
from halfspace.cuda.target import Kernel, cuda

from .arithmetic import bits_of

DIGIT = 8
BINS = 1 << DIGIT

PASSES = 8
TOP_BINS = 64
"""Bins of the first pass, which has the upper six bits."""

SLOT_BITS = 31
MOST_BITS, MOST_SLOT = 2**31 - 1, 2**31 - 2
"""Of the bits of a float32 that is not negative; of a slot, so that no key is all ones."""


@Kernel
def order_keys(starts, tops, slots, scores, orders):
    """Keys of listed scores, the larger the better; orders (listed,) int64."""
    for a in range(cuda.blockIdx.y, tops.size, cuda.gridDim.y):
        last, step = starts[a + 1], cuda.blockDim.x * cuda.gridDim.x
        for i in range(
            starts[a] + cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, last, step
        ):
            rank = np.int64(MOST_BITS) - bits_of(tops[a] - scores[i])
            orders[i] = (rank << SLOT_BITS) + (MOST_SLOT - slots[i])


@Kernel
def count_digits(starts, orders, shift, prefixes, digits):
    """Add the listed keys that begin with their row's prefix to digits (k, BINS), int32."""
    for a in range(cuda.blockIdx.y, prefixes.size, cuda.gridDim.y):
        last, step = starts[a + 1], cuda.blockDim.x * cuda.gridDim.x
        for i in range(
            starts[a] + cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, last, step
        ):
            if orders[i] >> shift >> DIGIT == prefixes[a]:
                cuda.atomic.add(digits, (a, (orders[i] >> shift) & (BINS - 1)), 1)


@Kernel
def choose_digits(bins, prefixes, ranks, digits):
    """Append to each prefix the digit that the key of such a rank has; clear the digits.

    Ranks, int64 (k,), are those among the keys with the prefix; 0 leads beyond the best key.
    """
    for a in range(cuda.grid(1), prefixes.size, cuda.gridsize(1)):
        digit = bins - 1
        while digit > 0 and digits[a, digit] < ranks[a]:
            ranks[a] -= digits[a, digit]
            digit -= 1
        prefixes[a] = (prefixes[a] << DIGIT) | digit
        for i in range(bins):
            digits[a, i] = 0


@Kernel
def keep_ranked(starts, prefixes, orders, scores, kept, kth):
    """Keep the listed keys down to that of the row's rank; its score, float64 (k,)."""
    for a in range(cuda.blockIdx.y, prefixes.size, cuda.gridDim.y):
        last, step = starts[a + 1], cuda.blockDim.x * cuda.gridDim.x
        for i in range(
            starts[a] + cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x, last, step
        ):
            kept[i] = orders[i] >= prefixes[a]
            if orders[i] == prefixes[a]:
                kth[a] = scores[i]


def keep_best(
    each: tuple,
    starts: object,
    tops: object,
    slots: object,
    scores: object,
    ranks: np.ndarray,
    kept: object,
    scratch: Scratch,
) -> object:
    """Keep the best of each row's list; the score of the last one kept, float64 (k,).

    Parameters
    ----------
    each : tuple
        Grid and block for rows of lists.
    starts, tops, slots, scores, kept
        As in `averages.py`.
    ranks : ndarray of int64, shape (k,)
        How many of each row, at most as many as there are.
    scratch : Scratch
    """
    k, stream = len(ranks), scratch.stream
    orders = scratch.take("orders", (max(1, slots.size),), np.int64)
    digits = scratch.zeros("digits", (k, BINS), np.int32)
    prefixes, kth = (
        scratch.zeros("prefixes", (k,), np.int64),
        scratch.zeros("kth", (k,), np.float64),
    )
    left = scratch.copy("ranks", ranks)
    order_keys(stream, *each, starts, tops, slots, scores, orders)
    for i in range(PASSES):
        shift = DIGIT * (PASSES - 1 - i)
        count_digits(stream, *each, starts, orders, shift, prefixes, digits)
        choose_digits(stream, *line(k), BINS if i else TOP_BINS, prefixes, left, digits)
    keep_ranked(stream, *each, starts, prefixes, orders, scores, kept, kth)
    return kth
