"""Stages of a cascade: flat arrays, half-spaces in the terms of every stage, and covers.

A *head* stands for a tile as a leading code does for a point: the code of its centre, with the
radius around it in place of the residual. 64 heads are tested like 64 points, and what all its
queries skip of a tile is never read. Rows of lanes that pass are asked for from memory, and settled
a few tiles later, when they have come.
"""

from typing import Annotated, NamedTuple

import numpy as np

from .basis import Basis
from .code_filter import aim, bar_of, row_product, row_score
from .codes import Leading, Rows, check_leading
from .cover import close_gaps
from .integer_dot import AHEAD, BLOCK, room_of, survivors
from .jit import kernel, part
from .layout import Stored, expect
from .predicate import LIMBS, exact_sign
from .prefetch import prefetch_row
from .query import ALL, NONE, REGULAR, Halfspace, gamma, prepare, rescaled, settled_range
from .tiles import TILE, RowTiles, check_tiles, lowest_lane, popcount, used_lanes

GROUP = 64
"""Queries that share a tile while it is in cache."""

WAITING = GROUP + 32
"""Tiles that wait for their points to come from memory: what all queries may add, and some."""

_ONE = np.uint64(1)
LEAST, MOST = -(2**31), 2**31 - 1


class CascadeArrays(NamedTuple):
    """A cascade's flat arrays, read-only."""

    tiles: RowTiles  # data is a view of the points
    points: Annotated[np.ndarray, Stored("f4 f8", "slots d")]  # whole tiles, row by row
    forced: Annotated[np.ndarray, Stored("u8", "heads")]  # tiles with lanes in `always`
    always: Annotated[np.ndarray, Stored("u8", "tiles")]  # lanes that leading codes say nothing of
    bare: Annotated[np.ndarray, Stored("u8", "tiles")]  # those that row codes say nothing of either
    reach: float  # upper bound on the norms of all others
    basis: Basis
    heads: Leading  # of tiles, in the steps of the points
    leading: Leading
    rows: Rows


def check_cascade(cascade: CascadeArrays, points: int) -> None:
    """Raise ValueError unless a stored cascade over so many points may be read."""
    (slots, d), tiles = cascade.points.shape, -(-points // TILE)
    expect(slots == tiles * TILE, "points", f"{tiles * TILE} rows", slots)
    check_tiles(cascade.tiles.norms, cascade.tiles.ranks, tiles, points)
    expect(len(cascade.tiles.ranks) == points, "tiles.ranks", f"{points}", len(cascade.tiles.ranks))
    for name, wanted in (("always", tiles), ("bare", tiles), ("forced", -(-tiles // TILE))):
        count = len(getattr(cascade, name))
        expect(count == wanted, name, f"{wanted}", count)
    p, bits = len(cascade.leading.steps.low), cascade.leading.bits
    check_leading(cascade.leading, "leading", tiles, d, p)
    check_leading(cascade.heads, "heads", len(cascade.forced), d, len(cascade.heads.steps.low))
    expect(cascade.heads.bits == bits, "heads.bits", f"{bits}", cascade.heads.bits)
    count = len(cascade.rows.codes)
    expect(count in (0, slots), "rows.codes", f"none or {slots}", count)
    count = len(cascade.rows.steps.low)
    expect(count == d, "rows.steps", f"{d} coordinates", count)


class Targets(NamedTuple):
    """Half-spaces in the terms of every stage, a row a query."""

    head_bars: np.ndarray  # int32
    heads: np.ndarray  # (m, 4 or 8 a row of codes) int8
    bars: np.ndarray  # int32, of leading codes
    leading: np.ndarray  # (m, 4 or 8 a row of codes) int8
    rows: np.ndarray  # (m, d) float32
    narrow: np.ndarray  # (m, d) in the floats of the points
    ranges: np.ndarray  # (m, 4) float64: level, norm, centre and error of row codes
    scales: np.ndarray  # (m, 4) float64: constant and unit of leading codes, and of heads
    kinds: np.ndarray  # int64


@kernel
def make_targets(cascade, normals, offsets, closed, m):
    """Make the first m >= 1 queries ready; room for whole blocks, whose rest no point passes."""
    d, dtype, room = normals.shape[1], cascade.points.dtype, -(-m // BLOCK) * BLOCK
    width = room_of(cascade.leading.codes.shape[1], cascade.leading.bits)
    bars, leading = np.full(room, MOST, np.int32), np.zeros((room, width), np.int8)
    width = room_of(cascade.heads.codes.shape[1], cascade.heads.bits)
    head_bars, heads = np.full(room, MOST, np.int32), np.zeros((room, width), np.int8)
    rows, narrow = np.zeros((room, d), np.float32), np.zeros((room, d), dtype)
    ranges, kinds = np.zeros((room, 4)), np.full(room, NONE, np.int64)
    scales = np.ones((room, 4))
    scales[:, 0::2] = np.inf
    scratch = np.empty((3, d))
    for q in range(m):
        query = prepare(normals[q], offsets[q], closed, narrow[q])
        kinds[q], ranges[q, 0], ranges[q, 1] = query.kind, query.level, query.norm
        if query.kind == REGULAR:
            target = aim(
                cascade.basis,
                cascade.heads,
                cascade.leading,
                cascade.rows,
                normals[q],
                query,
                cascade.reach,
                scratch,
                heads[q],
                leading[q],
                rows[q],
            )
            scales[q, 0], scales[q, 1] = target.leading
            scales[q, 2], scales[q, 3] = target.heads
            bars[q] = bar_of(scales[q, 0], scales[q, 1], query.level)
            head_bars[q] = bar_of(scales[q, 2], scales[q, 3], query.level)
            ranges[q, 2], ranges[q, 3] = target.centre, target.error
        elif query.kind == ALL:
            bars[q] = head_bars[q] = LEAST
    return Targets(head_bars, heads, bars, leading, rows, narrow, ranges, scales, kinds)


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


@part
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


class Given(NamedTuple):
    """Half-spaces as they came."""

    normals: np.ndarray  # (m, d) float64
    offsets: np.ndarray  # (m,) float64
    like: Halfspace  # one of them made ready, for what all have in common


class Waiting(NamedTuple):
    """Tiles some lanes of which passed; their rows were asked for from memory."""

    tiles: np.ndarray  # (WAITING,) int64
    queries: np.ndarray  # (WAITING,) int64
    lanes: np.ndarray  # (WAITING,) uint64, still open
    inside: np.ndarray  # (WAITING,) uint64, settled


@kernel
def make_sums():
    """Scratch of `survivors`."""
    return np.empty(TILE, np.int32)


@kernel
def make_waiting():
    """Room for tiles to wait in."""
    return Waiting(
        np.empty(WAITING, np.int64),
        np.empty(WAITING, np.int64),
        np.empty(WAITING, np.uint64),
        np.empty(WAITING, np.uint64),
    )


class Found(NamedTuple):
    """Where covers go, query q's parts from ends[q] on."""

    parts: np.ndarray
    masks: np.ndarray
    ends: np.ndarray
    counts: np.ndarray
    work: np.ndarray
    done: np.ndarray  # (m,) bool, queries that want no more
    stop_at_first: bool


@part(inline=True)
def ask_for(rows, t, lanes):
    """Ask memory for the rows of some lanes of tile t."""
    while lanes:
        prefetch_row(rows, t * TILE + lowest_lane(lanes))
        lanes &= lanes - _ONE


@part(inline=True)
def rows_ahead(t, first, left, rows, every):
    """How far ahead of tile t, of so many rows, memory is to be asked for what is read next.

    Those that are read after t are `left` of the word of tile `first`, or `every` tile is.
    """
    if every:
        return AHEAD
    for _ in range(AHEAD // rows - 1):
        left &= left - _ONE
    return (first + lowest_lane(left) - t) * rows if left else 0


@part
def _settle_by_rows(cascade, targets, waiting, number):
    """Settle what waits by row codes, and ask for the points of what stays open."""
    codes, bare = cascade.rows.codes, cascade.bare
    for i in range(number):
        t, q, lanes = waiting.tiles[i], waiting.queries[i], waiting.lanes[i]
        waiting.inside[i] = np.uint64(0)
        if targets.kinds[q] == REGULAR and codes.shape[0]:
            level, centre, error = targets.ranges[q, 0], targets.ranges[q, 2], targets.ranges[q, 3]
            waiting.inside[i], left = _by_rows(
                codes, t, lanes & ~bare[t], targets.rows, q, level, centre, error
            )
            waiting.lanes[i] = left | (lanes & bare[t])
            ask_for(cascade.points, t, waiting.lanes[i])


@part
def _settle(cascade, given, targets, waiting, number, found, limbs):
    """Settle all that waits, and add it to the covers."""
    _settle_by_rows(cascade, targets, waiting, number)
    points, query = cascade.points, given.like
    error = gamma(points.shape[1], query.unit)
    for i in range(number):
        t, q, lanes = waiting.tiles[i], waiting.queries[i], waiting.lanes[i]
        inside = waiting.inside[i]
        if found.done[q]:
            continue
        if targets.kinds[q] != REGULAR:
            inside = lanes
        elif lanes:
            level, norm = targets.ranges[q, 0], targets.ranges[q, 1]
            query = rescaled(query, given.offsets[q], level, norm, error)
            low, high = settled_range(query, level, cascade.tiles.norms[t])
            more, lanes = _by_points(points, t, lanes, targets.narrow, q, low, high)
            inside |= more
            if lanes:
                found.work[q, 2] += popcount(lanes)
                inside |= _exactly(points, t, lanes, given.normals[q], query, limbs)
        if inside:
            at = found.ends[q]
            found.parts[at], found.masks[at], found.ends[q] = t, inside, at + 1
            found.counts[q] += popcount(inside)
            found.done[q] |= found.stop_at_first


@kernel
def cover_cascade(
    cascade, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work
):
    """Cover up to 64 half-spaces, tile by tile; see `cover.covers` for the arguments."""
    points, count, tiles = cascade.points, cascade.tiles.ranks.size, cascade.tiles.norms.size
    codes, bits, row_codes = cascade.leading.codes, cascade.leading.bits, cascade.rows.codes
    heads, always, by_rows = cascade.heads.codes, cascade.always, row_codes.shape[0] > 0
    if not tiles:
        return offsets.size
    group = min(GROUP, offsets.size, parts.size // tiles)
    targets = make_targets(cascade, normals, offsets, closed, group)
    bars, leading, done = targets.bars, targets.leading, targets.kinds == NONE
    head_bars, above = targets.head_bars, targets.heads
    limbs, passing, sums = np.zeros(LIMBS, np.int64), np.empty(BLOCK, np.uint64), make_sums()
    given = Given(normals, offsets, prepare(normals[0], offsets[0], closed, targets.narrow[0]))
    found = Found(parts, masks, np.arange(group) * tiles, counts, work, done, stop_at_first)
    waiting, opened = make_waiting(), np.empty(bars.size, np.uint64)
    block, number, rows = 1 if group == 1 else BLOCK, 0, codes.shape[1]
    for head in range(heads.shape[0]):
        used, open_tiles = used_lanes(tiles, head), cascade.forced[head]
        for start in range(0, group, block):
            survivors(heads, head, AHEAD, above, start, block, head_bars, bits, sums, passing)
            for q in range(start, start + block):
                opened[q] = passing[q - start] & used
                open_tiles |= opened[q]
        for q in range(group):
            if not done[q]:
                work[q, 0] += popcount(used)
                work[q, 1] += TILE * popcount(opened[q])
        every = open_tiles == used
        while open_tiles:
            bit = np.uint64(lowest_lane(open_tiles))
            open_tiles &= open_tiles - _ONE
            t = head * TILE + np.int64(bit)
            used = used_lanes(count, t)
            ahead = rows_ahead(t, head * TILE, open_tiles, rows, every)
            for start in range(0, group, block):
                wanted = opened[start]
                for q in range(start + 1, start + block):
                    wanted |= opened[q]
                if (wanted >> bit) & _ONE:
                    survivors(codes, t, ahead, leading, start, block, bars, bits, sums, passing)
                    ahead = 0
                elif always[t]:
                    passing[:] = np.uint64(0)
                else:
                    continue
                for q in range(start, min(start + block, group)):
                    mask = (passing[q - start] | always[t]) & used
                    if not mask or done[q]:
                        continue
                    if by_rows:
                        ask_for(row_codes, t, mask)
                    else:
                        ask_for(points, t, mask)
                    waiting.tiles[number], waiting.queries[number] = t, q
                    waiting.lanes[number] = mask
                    number += 1
            if number > WAITING - group:
                _settle(cascade, given, targets, waiting, number, found, limbs)
                number = 0
    _settle(cascade, given, targets, waiting, number, found, limbs)
    for q in range(group):
        work[q, 1] = min(work[q, 1], count)
    close_gaps(parts, masks, found.ends, tiles, indptr)
    return group
