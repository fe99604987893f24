"""Quickselect: the k smallest of n keys in expected O(n), in place (Hoare 1961).

Pivots are medians of three at pseudo-random places, the same in every run: the expectation is over
the places, for any keys.
"""

from .jit import part


@part
def select(keys, rows, k):
    """Partition keys, and rows alike: the k smallest first, and keys[k] in its place."""
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
                rows[i], rows[j] = rows[j], rows[i]
                i += 1
                j -= 1
        if k <= j:
            right = j
        elif k >= i:
            left = i
        else:
            return
