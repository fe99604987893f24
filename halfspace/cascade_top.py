"""The k best of a cascade: the k-th best lower bound seen so far is the bar of all stages.

It is raised whenever the room for candidates, twice k, is full; so it is about that of the k-th
best of half the points seen, and few points pass. Candidates whose upper bounds reach the last bar
are ranked exactly (`ranking.py`).
"""

import numpy as np

from .cascade_stages import LEAST, ask_for, make_sums, make_targets, rows_ahead
from .code_filter import bar_of, row_product, row_score
from .integer_dot import AHEAD, BLOCK, survivors
from .jit import kernel, part
from .predicate import LIMBS
from .query import prepare, settled_range
from .quickselect import select
from .ranking import Best, offer, sort_best
from .tiles import OVERFLOWING, TILE, live_lanes, lowest_lane, used_lanes

LEAST_ROOM = 256
"""Candidates for the k best that there is room for, at least."""

_ONE = np.uint64(1)


@part
def _raise_bar(keys, found, k):
    """The k-th best lower bound of candidates, the best k of which come first."""
    select(keys, found, k - 1)
    return -keys[k - 1]


@part
def _drop_below(keys, found, least):
    """Keep candidates whose lower bounds reach `least` or say nothing; how many."""
    kept = 0
    for i in range(keys.size):
        if keys[i] == np.inf or not -keys[i] < least:
            keys[kept], found[kept] = keys[i], found[i]
            kept += 1
    return kept


@kernel
def _twice(values):
    """The values, and as much room again."""
    wider = np.empty(2 * values.size, values.dtype)
    wider[: values.size] = values
    return wider


@kernel
def top_cascade(cascade, normals, live, slots, scores):
    """Slots and scores of the k best live points of each query, best first; slots (m, k).

    The bar is the k-th best lower bound seen so far; it is raised whenever the room for candidates
    is full. Candidates whose upper bounds reach the last bar are ranked exactly.
    """
    points, tiles, count = cascade.points, cascade.tiles.norms.size, cascade.tiles.ranks.size
    data, ranks, k = cascade.tiles.data, cascade.tiles.ranks, slots.shape[1]
    codes, bits, row_codes = cascade.leading.codes, cascade.leading.bits, cascade.rows.codes
    heads, by_rows = cascade.heads.codes, row_codes.shape[0] > 0
    always, bare = cascade.always, cascade.bare
    sums, passing, limbs = make_sums(), np.empty(BLOCK, np.uint64), np.zeros(LIMBS, np.int64)
    errors, filled, zero = np.empty(k), np.zeros(1, np.int64), np.zeros(1)
    room = min(count, max(2 * k, LEAST_ROOM))
    keys, found = np.empty(room), np.empty(room, np.int32)
    pending, waiting = np.empty(4 * TILE, np.int64), 0
    # A score that may overflow the floats it is summed in says nothing.
    limit = OVERFLOWING[0] if points.itemsize == 4 else OVERFLOWING[1]
    reach = cascade.reach if cascade.reach * (points.shape[1] + 1) < limit else np.inf
    for m in range(slots.shape[0]):
        normal = normals[m]
        targets = make_targets(cascade, normals[m : m + 1], zero, True, 1)
        scales, bars, head_bars = targets.scales, targets.bars, targets.head_bars
        query = prepare(normal, 0.0, True, targets.narrow[0])
        bars[0] = head_bars[0] = LEAST
        # Candidates are held by their lower bounds; this is how far above them they may be.
        _, high = settled_range(query, 0.0, reach)
        centre, error = targets.ranges[0, 2], targets.ranges[0, 3] if by_rows else 2.0 * high
        gap, bar, taken = 2.0 * error * (1.0 + 1e-6), -np.inf, 0
        head, opened, left, every = -1, np.uint64(0), np.uint64(0), False
        while head < heads.shape[0]:
            if left:
                bit = left & (~left + _ONE)
                left ^= bit
                t = head * TILE + lowest_lane(bit)
                mask = always[t]
                if opened & bit:
                    ahead = rows_ahead(t, head * TILE, left, codes.shape[1], every)
                    survivors(codes, t, ahead, targets.leading, 0, 1, bars, bits, sums, passing)
                    mask |= passing[0]
                mask &= live_lanes(live, t, used_lanes(count, t) & ~bare[t])
                if by_rows:
                    ask_for(row_codes, t, mask)
                else:
                    ask_for(points, t, mask)
                while mask:
                    pending[waiting] = t * TILE + lowest_lane(mask)
                    waiting += 1
                    mask &= mask - _ONE
            else:
                head += 1
                if head < heads.shape[0]:
                    survivors(
                        heads, head, AHEAD, targets.heads, 0, 1, head_bars, bits, sums, passing
                    )
                    opened = passing[0] & used_lanes(tiles, head)
                    left = opened | cascade.forced[head]
                    every = left == used_lanes(tiles, head)
            if waiting <= pending.size - TILE and head < heads.shape[0]:
                continue
            for i in range(waiting):
                if by_rows:
                    score = centre + row_product(row_codes, pending[i], targets.rows, 0)
                else:
                    score = row_score(points, pending[i], targets.narrow, 0)
                lower = score - error
                if lower + gap < bar:
                    continue
                if taken == keys.size:
                    if taken > k:
                        bar = _raise_bar(keys, found, k)
                        bars[0] = bar_of(scales[0, 0], scales[0, 1], bar)
                        head_bars[0] = bar_of(scales[0, 2], scales[0, 3], bar)
                        taken = _drop_below(keys, found, bar - gap)
                    if 4 * taken > 3 * keys.size:
                        keys, found = _twice(keys), _twice(found)
                keys[taken], found[taken] = -lower if lower == lower else np.inf, pending[i]
                taken += 1
            waiting = 0
        if taken > k:
            bar = _raise_bar(keys[:taken], found[:taken], k)
        filled[0] = 0
        best = Best(slots[m], scores[m], errors, filled)
        for i in range(taken):
            # A NaN bound is held as infinite, and says nothing.
            if keys[i] == np.inf or not -keys[i] + gap < bar:
                offer(data, ranks, normal, best, np.int64(found[i]), limbs)
        for t in range(tiles):
            mask = live_lanes(live, t, bare[t] & used_lanes(count, t))
            while mask:
                offer(data, ranks, normal, best, t * TILE + lowest_lane(mask), limbs)
                mask &= mask - _ONE
        sort_best(data, ranks, normal, best, limbs)
