"""The k best of a cascade: the k-th best lower bound seen so far is the bar of all stages.

It is raised whenever the room for candidates, twice k, is full; so it is about that of the k-th
best of half the points seen, and few points pass. The tiles whose heads bound the highest scores
come first, so that the bar is high where neighbours share tiles, and most tiles are never read.
Candidates whose upper bounds reach the last bar are ranked exactly (`ranking.py`).
"""

from typing import NamedTuple

import numpy as np

from .cascade_stages import LEAST, make_targets
from .code_filter import bar_of, row_product, row_score
from .code_rows import BLOCK
from .integer_dot import AHEAD, make_sums, products, survivors
from .jit import kernel, part
from .norms import OVERFLOWING
from .predicate import LIMBS
from .query import prepare, settled_range
from .quickselect import select
from .ranking import Best, offer, sort_best
from .settling import ask_for, first_rows
from .tiles import TILE, live_lanes, lowest_lane, used_lanes

LEAST_ROOM = 256
"""Candidates for the k best that there is room for, at least."""

EARLY = 8
"""Tiles that are read first, and as many more as twice the k best fill."""

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


class Route(NamedTuple):
    """The order in which tiles are read: those that promise most, then all others as they come."""

    products: np.ndarray  # (64 head tiles,) int32, of heads
    keys: np.ndarray  # (tiles,) float64, scratch
    order: np.ndarray  # (tiles,) int32, the first of which come first
    early: np.ndarray  # (tiles,) bool, whether a tile is one of those
    most: int  # of them


@kernel
def _make_route(heads, tiles, k):
    """Room for the route through so many tiles, for the k best."""
    return Route(
        np.empty(heads * TILE, np.int32),
        np.empty(tiles),
        np.empty(tiles, np.int32),
        np.empty(tiles, np.bool_),
        min(tiles, EARLY + 2 * k // TILE),
    )


@kernel
def _plan_route(cascade, normals, route):
    """Fill the route for a query, made ready for heads."""
    heads, bits, keys, order = cascade.heads.codes, cascade.heads.bits, route.keys, route.order
    for head in range(heads.shape[0]):
        products(heads, head, AHEAD, normals, 0, bits, route.products)
    for t in range(keys.size):
        keys[t], order[t], route.early[t] = -np.float64(route.products[t]), t, False
    if 0 < route.most < keys.size:
        select(keys, order, route.most - 1)
    for i in range(route.most):
        route.early[order[i]] = True


@part(inline=True)
def _next_tile(route, always, step, bar):
    """The first step from `step` on that reads a tile, and the tile; -1 after the last."""
    if step < route.most:
        return step, np.int64(route.order[step])
    for t in range(step - route.most, route.early.size):
        if not route.early[t] and (route.products[t] >= bar or always[t]):
            return route.most + t, t
    return route.most + route.early.size, -1


@kernel
def top_cascade(cascade, normals, live, slots, scores):
    """Slots and scores of the k best live points of each query, best first; slots (m, k).

    The bar is the k-th best lower bound seen so far; it is raised whenever the room for candidates
    is full. Candidates whose upper bounds reach the last bar are ranked exactly.
    """
    points, tiles, count = cascade.points, cascade.tiles.norms.size, cascade.tiles.ranks.size
    data, ranks, k = cascade.tiles.data, cascade.tiles.ranks, slots.shape[1]
    codes, bits, row_codes = cascade.leading.codes, cascade.leading.bits, cascade.rows.codes
    by_rows, always, bare = row_codes.shape[0] > 0, cascade.always, cascade.bare
    rows = first_rows(row_codes, points)
    sums, passing, limbs = make_sums(), np.empty(BLOCK, np.uint64), np.zeros(LIMBS, np.int64)
    errors, filled, zero = np.empty(k), np.zeros(1, np.int64), np.zeros(1)
    room = min(count, max(2 * k, LEAST_ROOM))
    keys, found = np.empty(room), np.empty(room, np.int32)
    pending, waiting = np.empty(4 * TILE, np.int64), 0
    route = _make_route(cascade.heads.codes.shape[0], tiles, k)
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
        _plan_route(cascade, targets.heads, route)
        step, t = _next_tile(route, always, 0, LEAST)
        while t >= 0:
            after, coming = _next_tile(route, always, step + 1, head_bars[0])
            mask = always[t]
            if route.products[t] >= head_bars[0]:
                ahead = AHEAD if coming == t + 1 else (max(coming, 0) - t) * codes.shape[1]
                survivors(codes, t, ahead, targets.leading, 0, 1, bars, bits, sums, passing)
                mask |= passing[0]
            mask &= live_lanes(live, t, used_lanes(count, t) & ~bare[t])
            before = waiting
            while mask:
                pending[waiting] = t * TILE + lowest_lane(mask)
                waiting += 1
                mask &= mask - _ONE
            ask_for(rows, pending, before, waiting)
            step, t = after, coming
            if waiting <= pending.size - TILE and t >= 0:
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
