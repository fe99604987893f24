"""Cascade: certified filters on ever more bytes a point, then the exact predicate; d >= 8.

In high dimension no bounding shape prunes, but few points are near the plane, and a few bits of
each coordinate tell which. A query runs through

1. *leading codes* of every point: p coordinates of a basis made for data and queries, 4 or 8 bits
   each, with the norms of what was rounded and left out as two more coordinates, so that a point's
   upper bound is one integer product (`integer_dot.py`);
2. *row codes* of those that pass: all coordinates, a byte each, which settle nearly all;
3. the float filter and the exact predicate for the rest.

O(n p) bytes or half bytes are read, and O(d) for each survivor. How many survive rests on p, bits
and basis (`cascade_fit.py`), which are chosen from the data and a sample of queries; whether
anything is missed does not: `code_filter.py` has the bounds. Up to 64 queries share a tile while it
is in cache. `top` keeps the k-th best lower bound seen so far as its offset.

Sources: filter and refine by vector approximation: Weber, Schek, Blott 1998 (VA-file);
inner products bounded by a norm of what is left out: Teflioudi, Gemulla 2015 (LEMP).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .basis import Basis
from .cascade_fit import encode_all, fit_cascade
from .code_filter import aim, bar_of, row_product, row_score
from .codes import Leading, Rows
from .index import Index
from .inputs import as_count, as_normals
from .integer_dot import BLOCK, survivors
from .jit import kernel, part
from .polytope import cover_polytopes_scan
from .predicate import LIMBS, exact_sign
from .prefetch import prefetch_row
from .query import ALL, NONE, REGULAR, gamma, prepare, rescaled, settled_range
from .quickselect import select
from .ranking import Best, offer, sort_best
from .tiles import (
    OVERFLOWING,
    TILE,
    Tiles,
    lowest_lane,
    make_rows,
    popcount,
    tile_view,
    tiles_of_rows,
    used_lanes,
)

GROUP = 64
"""Queries that share a tile while it is in cache."""

WAITING = 32
"""Tiles that wait for their points to come from memory."""

_ONE = np.uint64(1)
_LEAST, _MOST = -(2**31), 2**31 - 1


class CascadeArrays(NamedTuple):
    """A cascade's flat arrays, read-only."""

    tiles: Tiles  # data is a view of the points
    points: np.ndarray  # (64 tiles, d) float32 or float64, row by row
    always: np.ndarray  # (tiles,) uint64, lanes that filters say nothing of
    reach: float  # upper bound on the norms of all others
    basis: Basis
    leading: Leading
    rows: Rows


class Targets(NamedTuple):
    """Half-spaces in the terms of every stage, a row a query."""

    bars: np.ndarray  # int32, of leading codes
    leading: np.ndarray  # (m, 4 or 8 a row of codes) int8
    rows: np.ndarray  # (m, d) float32
    narrow: np.ndarray  # (m, d) in the floats of the points
    ranges: np.ndarray  # (m, 4) float64: level, norm, centre and error of row codes
    kinds: np.ndarray  # int64


@kernel
def make_targets(cascade, normals, offsets, closed, m):
    """Make the first m queries ready; room for a whole number of blocks, whose rest none pass."""
    d, dtype, room = normals.shape[1], cascade.points.dtype, -(-m // BLOCK) * BLOCK
    width = cascade.leading.codes.shape[1] * (8 if cascade.leading.nibbles else 4)
    bars, leading = np.full(room, _MOST, np.int32), np.zeros((room, width), np.int8)
    rows, narrow = np.zeros((room, d), np.float32), np.zeros((room, d), dtype)
    ranges, kinds = np.zeros((room, 4)), np.full(room, NONE, np.int64)
    scratch = np.empty((3, d))
    for q in range(m):
        query = prepare(normals[q], offsets[q], closed, narrow[q])
        kinds[q], ranges[q, 0], ranges[q, 1] = query.kind, query.level, query.norm
        if query.kind == REGULAR:
            target = aim(
                cascade.basis,
                cascade.leading,
                cascade.rows,
                normals[q],
                query,
                cascade.reach,
                scratch,
                leading[q],
                rows[q],
            )
            bars[q] = bar_of(target, query.level)
            ranges[q, 2], ranges[q, 3] = target.centre, target.error
        elif query.kind == ALL:
            bars[q] = _LEAST
    return Targets(bars, leading, rows, narrow, ranges, kinds)


@part(inline=True)
def _by_rows(codes, t, lanes, weights, q, level, centre, error):
    """Settle lanes of tile t by row codes: those inside, and those still open."""
    inside, left = np.uint64(0), lanes
    while left:
        lane = lowest_lane(left)
        bit = left & (~left + _ONE)
        left ^= bit
        score = centre + row_product(codes, t * TILE + lane, weights, q)
        if score - error > level:
            inside |= bit
            lanes ^= bit
        elif score + error < level:
            lanes ^= bit
    return inside, lanes


@part(inline=True)
def _by_points(points, t, lanes, narrow, q, low, high):
    """Settle lanes of tile t by their points' floats: those inside, and those still open."""
    inside, left = np.uint64(0), lanes
    while left:
        lane = lowest_lane(left)
        bit = left & (~left + _ONE)
        left ^= bit
        score = row_score(points, t * TILE + lane, narrow, q)
        if score > high:
            inside |= bit
            lanes ^= bit
        elif score < low:
            lanes ^= bit
    return inside, lanes


@part(inline=True)
def _exactly(points, t, lanes, normal, query, limbs):
    """Lanes of tile t inside the half-space, by the exact predicate."""
    inside = np.uint64(0)
    while lanes:
        lane = lowest_lane(lanes)
        bit = lanes & (~lanes + _ONE)
        lanes ^= bit
        point = points[t * TILE + lane]
        if exact_sign(normal, point, point[:0], query.offset, limbs) >= query.least_sign:
            inside |= bit
    return inside


@part(inline=True)
def _settle(cascade, targets, normals, t, q, mask, query, limbs):
    """Lanes of tile t, among those of a mask, that are inside half-space q; exact tests made."""
    points, row_codes, always = cascade.points, cascade.rows.codes, cascade.always[t]
    level, centre, error = targets.ranges[q, 0], targets.ranges[q, 2], targets.ranges[q, 3]
    inside, left, tests = np.uint64(0), mask, 0
    if row_codes.shape[0]:
        inside, left = _by_rows(row_codes, t, mask & ~always, targets.rows, q, level, centre, error)
        left |= mask & always
    if left:
        low, high = settled_range(query, level, cascade.tiles.norms[t])
        more, left = _by_points(points, t, left, targets.narrow, q, low, high)
        inside |= more
    if left:
        tests = popcount(left)
        inside |= _exactly(points, t, left, normals[q], query, limbs)
    return inside, tests


class Waiting(NamedTuple):
    """Tiles whose passing lanes were asked for from memory, for the later stages."""

    tiles: np.ndarray  # (WAITING,) int64
    queries: np.ndarray  # (WAITING,) int64
    masks: np.ndarray  # (WAITING,) uint64


class Found(NamedTuple):
    """Where covers go, query q's parts from ends[q] on."""

    parts: np.ndarray
    masks: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    work: np.ndarray


@part
def _settle_all(
    cascade, targets, normals, offsets, query, waiting, number, done, first, found, limbs
):
    """Put what waits through the later stages; where `first`, a query needs only one point."""
    count, error = cascade.tiles.ranks.size, gamma(normals.shape[1], query.unit)
    for i in range(number):
        t, q, inside = waiting.tiles[i], waiting.queries[i], waiting.masks[i]
        if done[q]:
            continue
        if targets.kinds[q] == REGULAR:
            level, norm = targets.ranges[q, 0], targets.ranges[q, 1]
            query = rescaled(query, offsets[q], level, norm, error)
            inside, tests = _settle(cascade, targets, normals, t, q, inside, query, limbs)
            found.work[q, 2] += tests
        if inside:
            at = found.ends[q]
            found.parts[at], found.masks[at], found.ends[q] = t, inside, at + 1
            found.counts[q] += popcount(inside)
            if first:
                done[q], found.work[q, 1] = True, min(count, (t + 1) * TILE)


@part(inline=True)
def _ask_for(rows, t, lanes):
    while lanes:
        prefetch_row(rows, t * TILE + lowest_lane(lanes))
        lanes &= lanes - _ONE


@kernel
def cover_cascade(
    cascade, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work
):
    """Cover up to 64 half-spaces, tile by tile; see `cover.covers` for the arguments."""
    points, count, tiles = cascade.points, cascade.tiles.ranks.size, cascade.tiles.norms.size
    codes, nibbles, row_codes = cascade.leading.codes, cascade.leading.nibbles, cascade.rows.codes
    always, by_rows = cascade.always, row_codes.shape[0] > 0
    if not tiles:
        return offsets.size
    group = min(GROUP, offsets.size, parts.size // tiles)
    targets = make_targets(cascade, normals, offsets, closed, group)
    bars, leading, done = targets.bars, targets.leading, targets.kinds == NONE
    limbs, passing = np.zeros(LIMBS, np.int64), np.empty(BLOCK, np.uint64)
    sums, found = (
        np.empty(TILE, np.int32),
        Found(parts, masks, np.arange(group) * tiles, counts, work),
    )
    waiting = Waiting(
        np.empty(WAITING, np.int64), np.empty(WAITING, np.int64), np.empty(WAITING, np.uint64)
    )
    query = prepare(normals[0], offsets[0], closed, targets.narrow[0])
    block, number = 1 if group == 1 else BLOCK, 0
    for t in range(tiles):
        used = used_lanes(count, t)
        for start in range(0, group, block):
            survivors(codes, t, leading, start, block, bars, nibbles, sums, passing)
            for q in range(start, min(start + block, group)):
                mask = (passing[q - start] | always[t]) & used
                if not mask or done[q]:
                    continue
                if by_rows:
                    _ask_for(row_codes, t, mask)
                else:
                    _ask_for(points, t, mask)
                waiting.tiles[number], waiting.queries[number], waiting.masks[number] = t, q, mask
                number += 1
                if number == WAITING:
                    _settle_all(
                        cascade,
                        targets,
                        normals,
                        offsets,
                        query,
                        waiting,
                        number,
                        done,
                        stop_at_first,
                        found,
                        limbs,
                    )
                    number = 0
    _settle_all(
        cascade,
        targets,
        normals,
        offsets,
        query,
        waiting,
        number,
        done,
        stop_at_first,
        found,
        limbs,
    )
    # Each query wrote where it could not run into the next; now they move together.
    at = 0
    for q in range(group):
        if targets.kinds[q] == REGULAR and not done[q]:
            work[q, 1] = count
        for s in range(q * tiles, found.ends[q]):
            parts[at], masks[at] = parts[s], masks[s]
            at += 1
        indptr[q + 1] = at
    return group


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
def top_cascade(cascade, normals, slots, scores):
    """Slots and scores of the k best of each query, best first; slots (m, k).

    The bar is the k-th best lower bound seen so far; it is raised whenever the room for candidates
    is full. Candidates whose upper bounds reach the last bar are ranked exactly.
    """
    points, norms, count = cascade.points, cascade.tiles.norms, cascade.tiles.ranks.size
    data, ranks, d, k = cascade.tiles.data, cascade.tiles.ranks, points.shape[1], slots.shape[1]
    codes, nibbles, row_codes = cascade.leading.codes, cascade.leading.nibbles, cascade.rows.codes
    always, limbs = cascade.always, np.zeros(LIMBS, np.int64)
    narrow, leading = np.empty((1, d), points.dtype), np.zeros((1, codes.shape[1] * 8), np.int8)
    if not nibbles:
        leading = np.zeros((1, codes.shape[1] * 4), np.int8)
    weights, scratch, bars = np.zeros((1, d), np.float32), np.empty((3, d)), np.empty(1, np.int32)
    sums, passing = np.empty(TILE, np.int32), np.empty(BLOCK, np.uint64)
    errors, filled = np.empty(k), np.zeros(1, np.int64)
    room = min(count, max(4 * k, 1024))
    keys, found = np.empty(room), np.empty(room, np.int32)
    # A score that may overflow the floats it is summed in says nothing.
    limit = OVERFLOWING[0] if points.itemsize == 4 else OVERFLOWING[1]
    reach = cascade.reach if cascade.reach * (d + 1) < limit else np.inf
    for m in range(slots.shape[0]):
        normal = normals[m]
        query = prepare(normal, 0.0, True, narrow[0])
        target = aim(
            cascade.basis,
            cascade.leading,
            cascade.rows,
            normal,
            query,
            cascade.reach,
            scratch,
            leading[0],
            weights[0],
        )
        # Candidates are held by their lower bounds; this is how far above them they may be.
        _, high = settled_range(query, 0.0, reach)
        error = target.error if row_codes.shape[0] else 2.0 * high
        gap, bar, taken = 2.0 * error * (1.0 + 1e-6), -np.inf, 0
        bars[0] = _LEAST
        for t in range(norms.size):
            survivors(codes, t, leading, 0, 1, bars, nibbles, sums, passing)
            mask = passing[0] & used_lanes(count, t) & ~always[t]
            while mask:
                slot = t * TILE + lowest_lane(mask)
                mask &= mask - _ONE
                if row_codes.shape[0]:
                    score = target.centre + row_product(row_codes, slot, weights, 0)
                else:
                    score = row_score(points, slot, narrow, 0)
                lower = score - error
                if lower + gap < bar:
                    continue
                if taken == keys.size:
                    if taken > k:
                        bar = _raise_bar(keys, found, k)
                        bars[0] = bar_of(target, bar)
                        taken = _drop_below(keys, found, bar - gap)
                    if 2 * taken > keys.size:
                        keys, found = _twice(keys), _twice(found)
                keys[taken], found[taken] = -lower if lower == lower else np.inf, slot
                taken += 1
        if taken > k:
            bar = _raise_bar(keys[:taken], found[:taken], k)
        filled[0] = 0
        best = Best(slots[m], scores[m], errors, filled)
        for i in range(taken):
            # A NaN bound is held as infinite, and says nothing.
            if keys[i] == np.inf or not -keys[i] + gap < bar:
                offer(data, ranks, normal, best, np.int64(found[i]), limbs)
        for t in range(norms.size):
            mask = always[t] & used_lanes(count, t)
            while mask:
                offer(data, ranks, normal, best, t * TILE + lowest_lane(mask), limbs)
                mask &= mask - _ONE
        sort_best(data, ranks, normal, best, limbs)


class Cascade(Index):
    """Certified 4- or 8-bit filters in a basis made for the data, then the exact predicate.

    For d >= 8, where trees do not prune. Build O(n d^2), query O(n p) half bytes or bytes and O(d)
    for each point that passes, memory at most 1.5 times that of float32 points from d = 32 on.
    Answers and errors as for `Index`; what is chosen from samples only decides the speed.

    Parameters
    ----------
    points, ids, weights
        As for `Index`.
    queries : array_like, shape (m, d), optional
        Normals like those to come, from a few dozen on: the basis and the codes are made for them.
        Without any, all directions are taken to be as likely.
    expected_count : int, optional
        Points a report is expected to hold; 0.1 % of them if not given.

    Raises
    ------
    TypeError
        `expected_count` is not an integer, or as for `Index`.
    ValueError
        Queries of another dimension or not finite; or as for `Index`.

    Examples
    --------
    >>> import numpy as np, halfspace
    >>> points = np.random.default_rng(0).standard_normal((20_000, 32))
    >>> index = halfspace.Cascade(points)
    >>> index.report(np.ones(32), 20.0).tolist()
    [13624, 19890]
    """

    _cover_kernel = cover_cascade
    _top_kernel = top_cascade
    _polytope_kernel = cover_polytopes_scan

    def __init__(
        self,
        points: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        queries: ArrayLike | None = None,
        expected_count: int | None = None,
    ) -> None:
        self._expected_count = (
            None if expected_count is None else as_count(expected_count, "expected_count")
        )
        self._queries = queries
        super().__init__(points, ids=ids, weights=weights)
        del self._queries

    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> CascadeArrays:
        normals = self._queries
        if normals is not None:
            normals = as_normals(normals, points.shape[1])[0]
        order = np.argsort(ranks)
        rows = make_rows(points, order)
        tiles = tiles_of_rows(rows, ranks[order])
        self._fit = fit_cascade(rows, len(points), normals, self._expected_count)
        return CascadeArrays(tiles, rows, *encode_all(rows, len(points), self._fit))

    def __getstate__(self) -> dict:
        # A pickle would not know that the tiles are views.
        tiles = self.structure.tiles._replace(data=None)
        return self.__dict__ | {"structure": self.structure._replace(tiles=tiles)}

    def __setstate__(self, state: dict) -> None:
        structure = state["structure"]
        tiles = structure.tiles._replace(data=tile_view(structure.points))
        super().__setstate__(state | {"structure": structure._replace(tiles=tiles)})

    def _query_nanoseconds(self) -> float:
        return 1000.0 + len(self) * self._fit.nanoseconds

    def explain(self) -> str:
        """Say in a few lines what this index is: structure, stages, sizes, why it was chosen."""
        return f"{super().explain()}\n{self._fit.text(len(self), self.dim)}"
