"""Quickselect: the k smallest of n keys in expected O(n), in place (Hoare 1961).

Deterministic: pivots are medians of three at fixed places that no common input order makes bad.
"""

from .jit import part


@part
def select(keys, rows, k):
    """Partition keys, and rows alike: the k smallest first, and keys[k] in its place."""
    left, right = 0, keys.size - 1
    while left < right:
        # Median of three at places that no input order makes typical.
        width = right - left
        a, b, c = keys[left + width // 7], keys[left + width // 2], keys[right - width // 5]
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
