"""Runs: ids that ascend in each of several runs, merged into one that ascends, in place.

Neighbours are merged pairwise, the left one copied aside: O(k log r) for k ids in r runs. Two that
follow one another already cost one comparison, which is the rule where ids are given out in order.

Source: Knuth, TAOCP 3, 5.2.4.
"""

from functools import partial

import numpy as np

from . import parallel
from .jit import kernel, part

MERGE_NANOSECONDS = 5.0
"""What an id takes in one pass."""


@part
def _merge(ids, first, middle, last, spare):
    """Merge ids[first:middle] and ids[middle:last]."""
    if first == middle or middle == last or ids[middle - 1] <= ids[middle]:
        return
    size = middle - first
    for i in range(size):
        spare[i] = ids[first + i]
    i, j, k = 0, middle, first
    while i < size:
        if j < last and ids[j] < spare[i]:
            ids[k] = ids[j]
            j += 1
        else:
            ids[k] = spare[i]
            i += 1
        k += 1


@kernel
def _merge_all(ids, ends, runs):
    """Merge each `runs` consecutive runs; run i is ids[ends[i]:ends[i + 1]]."""
    groups, longest = (ends.size - 1) // runs, 0
    for g in range(groups):
        longest = max(longest, ends[(g + 1) * runs] - ends[g * runs])
    spare = np.empty(longest, np.int64)
    for g in range(groups):
        width = 1
        while width < runs:
            for i in range(0, runs - width, 2 * width):
                last = min(i + 2 * width, runs)
                a, b, c = g * runs + i, g * runs + i + width, g * runs + last
                _merge(ids, ends[a], ends[b], ends[c], spare)
            width *= 2


def merge_runs(ids: np.ndarray, ends: np.ndarray, runs: int) -> None:
    """Merge each `runs` consecutive runs of `ids`; run i is ``ids[ends[i]:ends[i + 1]]``."""
    groups = (len(ends) - 1) // runs
    each = MERGE_NANOSECONDS * len(ids) / max(1, groups) * runs.bit_length()
    parallel.run(
        [
            partial(_merge_all, ids, ends[a * runs : b * runs + 1], runs)
            for a, b in parallel.parts(groups, each)
        ]
    )
