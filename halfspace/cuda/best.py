"""The k points furthest along a normal: a bar from a sample, candidates that reach it, their order.

1. `group_best`: lower bounds on the scores of a sample of the points, the best of each group. The
   k-th best of those is a bar that k points reach.
2. Whatever the structure does for a half-space leaves the points that may reach the bar.
3. Their scores in compensated float64 with an error bound each, and a bitonic sort (Batcher 1968)
   by real score, then by rank: where two intervals overlap, the exact sign of <w, p - q> decides.

O(n) or what the structure takes, and O(c log^2 c) comparisons of c candidates, about k times the
share of the points that are not in the sample.
"""

import numpy as np

from .. import predicate, ranking
from ..tiles import TILE
from .queries import ABSOLUTE, RELATIVE, UNIT
from .scoring import LIMBS, score_margin
from .target import Kernel, cuda, device

_compensated = device(predicate.compensated)
_exact_score = device(predicate.exact_score)
_is_better = device(ranking.is_better)
ROUNDED = 2.0 * predicate.UNIT
"""Relative error from which on a score is computed again."""

NOWHERE = -1
"""Slot of a place that holds no candidate; it comes last."""


@Kernel
def group_best(data, norms, count, narrows, scalars, span, stride, best):
    """Largest lower bound on a score in each group of points, in the scale of the filters.

    Group 64 s + l is lane l of tiles s * stride … s * stride + span - 1; best (m, groups), float64.
    """
    d = data.shape[1]
    zero = narrows.dtype.type(0.0)
    for i in range(cuda.grid(1), best.size, cuda.gridsize(1)):
        q, group = i // best.shape[1], i % best.shape[1]
        lane, first = group % TILE, group // TILE * stride
        highest = -np.inf
        for t in range(first, min(first + span, data.shape[0])):
            if t * TILE + lane >= count:
                continue
            score = zero
            for j in range(d):
                score += narrows[q, j] * data[t, j, lane]
            wide = np.float64(score)
            margin = score_margin(
                scalars[q, RELATIVE], scalars[q, ABSOLUTE], scalars[q, UNIT], wide, norms[t]
            )
            # A NaN is never larger.
            if wide - margin > highest:
                highest = wide - margin
        best[q, group] = highest


@Kernel
def spread_out(listed, starts, slots):
    """Put the candidates of each query, CSR, into a row of `slots` (m, width) of its own."""
    for i in range(cuda.grid(1), slots.size, cuda.gridsize(1)):
        q, place = i // slots.shape[1], i % slots.shape[1]
        at = starts[q] + place
        slots[q, place] = listed[at] if at < starts[q + 1] else NOWHERE


@Kernel
def score_candidates(data, normals, slots, scores, errors):
    """Scores of slots (m, width) in compensated float64, with bounds on their errors."""
    for i in range(cuda.grid(1), slots.size, cuda.gridsize(1)):
        q, place = i // slots.shape[1], i % slots.shape[1]
        slot = slots[q, place]
        scores[q, place], errors[q, place] = -np.inf, 0.0
        if slot != NOWHERE:
            point = data[slot // TILE, :, slot % TILE]
            score, error = _compensated(normals[q], point, point[:0], 0.0)
            scores[q, place], errors[q, place] = score, error


@Kernel
def sort_step(data, normals, ranks, size, distance, slots, scores, errors):
    """One step of a bitonic sort of the rows, best first; their width is a power of two.

    Places that are `distance` apart are put in order: best first in every other run of `size`
    places, last in the rest. A thread has a pair of places to itself.
    """
    limbs = cuda.local.array(LIMBS, np.int64)
    half = slots.shape[1] // 2
    for k in range(LIMBS):
        limbs[k] = 0
    for i in range(cuda.grid(1), slots.shape[0] * half, cuda.gridsize(1)):
        q, pair = i // half, i % half
        a = pair // distance * (2 * distance) + pair % distance
        b = a + distance
        if a & size:
            a, b = b, a
        # From here on, place a is to hold the better one.
        first, second = slots[q, a], slots[q, b]
        swap = first == NOWHERE
        if first != NOWHERE and second != NOWHERE:
            swap = _is_better(
                data,
                ranks,
                normals[q],
                second,
                scores[q, b],
                errors[q, b],
                first,
                scores[q, a],
                errors[q, a],
                limbs,
            )
        if swap:
            score, error = scores[q, a], errors[q, a]
            slots[q, a], scores[q, a], errors[q, a] = second, scores[q, b], errors[q, b]
            slots[q, b], scores[q, b], errors[q, b] = first, score, error


@Kernel
def take_best(data, normals, ranks, names, slots, scores, errors, best, ids):
    """Scores and ids of the first of each row; best and ids (m, k).

    Scores not known to the last place are computed again.
    """
    limbs = cuda.local.array(LIMBS, np.int64)
    for k in range(LIMBS):
        limbs[k] = 0
    for i in range(cuda.grid(1), best.size, cuda.gridsize(1)):
        q, place = i // best.shape[1], i % best.shape[1]
        slot, score = slots[q, place], scores[q, place]
        if errors[q, place] > ROUNDED * abs(score):
            point = data[slot // TILE, :, slot % TILE]
            score = _exact_score(normals[q], point, limbs)
        best[q, place] = score
        ids[q, place] = names[ranks[slot]] if names.size else ranks[slot]


@Kernel
def descend(best):
    """Make no score of a row seem larger than one before it, though each was rounded alone."""
    for q in range(cuda.grid(1), best.shape[0], cuda.gridsize(1)):
        least = np.inf
        for place in range(best.shape[1]):
            least = min(least, best[q, place])
            best[q, place] = least
