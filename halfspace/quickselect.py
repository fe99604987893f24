"""Quickselect: the k smallest of n keys in expected O(n), in place (Hoare 1961).

Pivots are medians of three at pseudo-random places, the same in every run: the expectation is over
the places, for any keys.

Where only the key of a rank is wanted, two keys of a sample bracket it, and few keys between them
are left to select from (Floyd, Rivest 1975).
"""

import math

import numpy as np

from .jit import part

LEAST_BRACKETED = 512
"""Keys from which on a sample pays."""

BRACKET = 1.5
"""Ranks of the sample to either side of the one wanted, in square roots of its size: three standard
deviations of a median's."""


@part
def select(keys, rows, k):
    """Partition keys, and rows alike unless there are none: k smallest first, then keys[k]."""
    left, right, state = 0, keys.size - 1, 1
    while left < right:
        width = right - left + 1
        # Lehmer's generator.
        state = state * 48271 % 2147483647
        a, b = keys[left + state % width], keys[left + state // 7 % width]
        c = keys[left + state // 61 % width]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = left, right
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while keys[j] > pivot:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                if rows.size:
                    rows[i], rows[j] = rows[j], rows[i]
                i += 1
                j -= 1
        if k <= j:
            right = j
        elif k >= i:
            left = i
        else:
            return


@part
def _bracket(keys, k, some):
    """Two keys, from a sample of `keys`, that the one of rank k is likely to lie between."""
    n, state = keys.size, 1
    size = int(0.5 * np.float64(n) ** (2.0 / 3.0))
    for i in range(size):
        state = state * 48271 % 2147483647
        some[i] = keys[state % n]
    at, reach = k * size // n, int(BRACKET * math.sqrt(size)) + 1
    low, high = -np.inf, np.inf
    if at + reach < size:
        select(some[:size], some[:0], at + reach)
        high = np.float64(some[at + reach])
    if at - reach >= 0:
        select(some[:size], some[:0], at - reach)
        low = np.float64(some[at - reach])
    return low, high


@part
def key_of_rank(keys, k, some):
    """Key that k others come before; `some` is scratch for as many keys."""
    n = keys.size
    if n >= LEAST_BRACKETED:
        low, high = _bracket(keys, k, some)
        below, count = 0, 0
        for i in range(n):
            key = keys[i]
            below += key < low
            # Written in any case: a branch would be foretold wrongly half the time.
            some[count] = key
            count += (key >= low) & (key <= high)
        if below <= k < below + count:
            select(some[:count], some[:0], k - below)
            return some[k - below]
    for i in range(n):
        some[i] = keys[i]
    select(some[:n], some[:0], k)
    return some[k]
