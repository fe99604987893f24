"""The k points furthest along a normal, kept in a heap ordered by exact comparison.

The heap holds the k best seen, the worst at its root. Scores are compensated float64 with an error
bound each; where two intervals overlap the exact sign of <w, p - q> decides, and equal scores fall
to the smaller rank. So the answer equals a sort over the reals with ties to the smaller id.
"""

from typing import NamedTuple

import numpy as np

from .jit import part
from .predicate import UNIT, compensated, exact_score, exact_sign
from .query import settled_range
from .tiles import TILE, lanes_not_below, lowest_lane, tile_scores

_ONE = np.uint64(1)


class Best(NamedTuple):
    """A heap of slots, worst at the root; `size[0]` of its k places are in use.

    Empty: ``Best(np.empty(k, np.int64), np.empty(k), np.empty(k), np.zeros(1, np.int64))``.
    """

    slots: np.ndarray  # (k,) int64
    scores: np.ndarray  # (k,) float64
    errors: np.ndarray  # (k,) float64, bound on |score - real score|
    size: np.ndarray  # (1,) int64


@part
def is_better(data, ranks, normal, a, a_score, a_error, b, b_score, b_error, limbs):
    """Whether slot a comes before slot b: by real score, then by rank."""
    if a_score - a_error > b_score + b_error:
        return True
    if a_score + a_error < b_score - b_error:
        return False
    sign = exact_sign(
        normal, data[a // TILE, :, a % TILE], data[b // TILE, :, b % TILE], 0.0, limbs
    )
    if sign:
        return sign > 0
    return ranks[a] < ranks[b]


@part
def _is_better_at(data, ranks, normal, best, i, j, limbs):
    return is_better(
        data,
        ranks,
        normal,
        best.slots[i],
        best.scores[i],
        best.errors[i],
        best.slots[j],
        best.scores[j],
        best.errors[j],
        limbs,
    )


@part
def _swap(best, i, j):
    best.slots[i], best.slots[j] = best.slots[j], best.slots[i]
    best.scores[i], best.scores[j] = best.scores[j], best.scores[i]
    best.errors[i], best.errors[j] = best.errors[j], best.errors[i]


@part
def _sift_down(data, ranks, normal, best, i, size, limbs):
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and _is_better_at(data, ranks, normal, best, child, child + 1, limbs):
            child += 1
        if _is_better_at(data, ranks, normal, best, child, i, limbs):
            return
        _swap(best, i, child)
        i = child


@part
def _sift_up(data, ranks, normal, best, i, limbs):
    while i > 0:
        parent = (i - 1) // 2
        if not _is_better_at(data, ranks, normal, best, parent, i, limbs):
            return
        _swap(best, i, parent)
        i = parent


@part
def offer(data, ranks, normal, best, slot, limbs):
    """Take `slot` into the heap if it is among the k best so far."""
    point = data[slot // TILE, :, slot % TILE]
    score, error = compensated(normal, point, point[:0], 0.0)
    size = best.size[0]
    if size < best.slots.size:
        best.slots[size], best.scores[size], best.errors[size] = slot, score, error
        best.size[0] = size + 1
        _sift_up(data, ranks, normal, best, size, limbs)
    elif is_better(
        data,
        ranks,
        normal,
        slot,
        score,
        error,
        best.slots[0],
        best.scores[0],
        best.errors[0],
        limbs,
    ):
        best.slots[0], best.scores[0], best.errors[0] = slot, score, error
        _sift_down(data, ranks, normal, best, 0, size, limbs)


@part
def least_useful(best):
    """Score that a further point must reach: no lower one can enter."""
    if best.size[0] < best.slots.size:
        return -np.inf
    return best.scores[0] - best.errors[0]


@part
def offer_tile(data, norms, ranks, t, lanes, normal, narrow, query, best, scores, limbs):
    """Offer those of `lanes`, a mask, of tile t that may be among the k best.

    `query` and `narrow` come from `prepare`; the offset does not matter.
    """
    bar = least_useful(best)
    if bar > -np.inf:
        tile_scores(data, t, narrow, scores)
        low, _ = settled_range(query, scaled_bar(query, bar), norms[t])
        lanes &= lanes_not_below(scores, scores.dtype.type(low))
    while lanes:
        offer(data, ranks, normal, best, t * TILE + lowest_lane(lanes), limbs)
        lanes &= lanes - _ONE


@part
def scaled_bar(query, bar):
    """`bar` in the scale of the query's filters, rounded down."""
    scaled = bar * query.factors[0] * query.factors[1]
    return scaled - 4.0 * 2.0**-53 * abs(scaled) - 2.0**-1000


@part
def sort_best(data, ranks, normal, best, limbs):
    """Heap-sort the kept points, best first; scores not known to the last place become so."""
    for last in range(best.size[0] - 1, 0, -1):
        _swap(best, 0, last)
        _sift_down(data, ranks, normal, best, 0, last, limbs)
    for i in range(best.size[0]):
        if best.errors[i] > 2.0 * UNIT * abs(best.scores[i]):
            slot = best.slots[i]
            point = data[slot // TILE, :, slot % TILE]
            best.scores[i] = exact_score(normal, point, limbs)
