"""Bounded tree: a hierarchy of nodes over tiles, each with a box and a ball, and its traversals.

A node of level 0 is one tile; a node of level l holds 64 consecutive nodes of level l - 1, so the
shape follows from the number of tiles alone and who comes under whom from the order of the points.
The bounds of 64 siblings stand side by side like the points of a tile, and one pass over such a
*block* tests them all. Box and ball share a centre c; with half-widths h and radius r, every point
x below obeys

    |<w, x> - <w, c>| <= min(<|w|, h>, ||w|| r)

so a node is settled where that interval, widened by the rounding margin, leaves the offset out. The
query time is that of the tree's crossing number; how the points were ordered is its builder's
matter.
"""

import heapq
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from . import parallel
from .cover import Nodes
from .jit import MARGIN_COVERED, kernel, part
from .predicate import LIMBS
from .query import ALL, NONE, gamma, prepare, rescaled
from .ranking import Best, least_useful, offer_tile, scaled_bar, sort_best
from .tiles import (
    CHUNK_FLOATS,
    TILE,
    Tiles,
    frozen,
    lanes_above,
    lanes_not_below,
    lowest_lane,
    popcount,
    tile_mask,
    tile_scores,
    upper_norms,
    used_lanes,
)

FANOUT = TILE
"""Children of a node: as many as a tile has lanes."""

GROUP = 64
"""Queries that walk together: as many as a mask has bits."""

_ONE = np.uint64(1)
_FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class BoundedTree(NamedTuple):
    """A bounded tree's flat arrays, read-only. Node v is lane v % 64 of block v // 64."""

    tiles: Tiles
    nodes: Nodes
    centres: np.ndarray  # (blocks, d, 64)
    halves: np.ndarray  # (blocks, d, 64) half-widths of the boxes
    reaches: np.ndarray  # (blocks, 2, 64) radius of the ball, and norm of whatever is inside
    levels: np.ndarray  # (levels + 1,) int64, first block of each level, leaves first


def _widened(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return `values` in `dtype`, larger than rounding could have made them smaller."""
    if dtype.itemsize == 4:
        return (values * (1.0 + 2.0**-22) + 2.0**-140).astype(dtype)
    return values * (1.0 + 2.0**-48) + 2.0**-1060


def _tile_bounds(tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest coordinates of every tile, (tiles, d) each."""
    low, high = tiles.data.min(axis=2), tiles.data.max(axis=2)
    used = tiles.count - (len(low) - 1) * TILE
    low[-1:] = tiles.data[-1:, :, :used].min(axis=2)
    high[-1:] = tiles.data[-1:, :, :used].max(axis=2)
    return low, high


def _tile_radii(tiles: Tiles, centres: np.ndarray) -> np.ndarray:
    """Distances from the centre of every tile to its furthest point, rounded up."""
    radii = np.zeros(len(centres))
    chunk = max(1, CHUNK_FLOATS // (TILE * centres.shape[1]))

    @np.errstate(over="ignore", under="ignore", invalid="ignore")
    def fill(first: int) -> None:
        steps = tiles.data[first : first + chunk] - centres[first : first + chunk, :, None]
        radii[first : first + chunk] = np.square(steps).sum(axis=1).max(axis=1)

    parallel.run([lambda a=a: fill(a) for a in range(0, len(centres), chunk)])
    # Unused lanes hold zeros and may only widen. The last term covers squares that underflow.
    return np.sqrt(radii) * (1.0 + 1e-10) + 2e-154 * centres.shape[1]


def _by_parent(values: np.ndarray, reduce: Callable) -> np.ndarray:
    """Values of nodes reduced over each 64 siblings."""
    return reduce(values, np.arange(0, len(values), FANOUT), axis=0)


def _as_blocks(values: np.ndarray) -> np.ndarray:
    """Rows (nodes, c) of one level in blocks (blocks, c, 64), padded with zeros."""
    nodes, columns = values.shape
    blocks = -(-nodes // FANOUT)
    padded = np.zeros((blocks * FANOUT, columns), values.dtype)
    padded[:nodes] = values
    return padded.reshape(blocks, FANOUT, columns).transpose(0, 2, 1)


class _Level(NamedTuple):
    """The nodes of one level while the tree is built from the leaves up."""

    first: np.ndarray  # (nodes,) first tile
    last: np.ndarray  # (nodes,) one past the last
    low: np.ndarray  # (nodes, d)
    high: np.ndarray  # (nodes, d)
    centres: np.ndarray  # (nodes, d) float64, of values in the dtype of the points
    radii: np.ndarray  # (nodes,)
    sums: np.ndarray  # (nodes, w)


def _centres(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    # Halved before they are added: the sum may overflow.
    return (0.5 * low + 0.5 * high).astype(np.float64)


def _leaves(tiles: Tiles, weights: np.ndarray) -> _Level:
    low, high = _tile_bounds(tiles)
    centres = _centres(low, high)
    starts = np.arange(len(low))
    sums = np.add.reduceat(weights, starts * TILE, axis=0)
    return _Level(starts, starts + 1, low, high, centres, _tile_radii(tiles, centres), sums)


def _parents(level: _Level) -> _Level:
    low, high = (
        _by_parent(level.low, np.minimum.reduceat),
        _by_parent(level.high, np.maximum.reduceat),
    )
    centres = _centres(low, high)
    # A parent's ball holds the balls of its children.
    apart = level.centres - np.repeat(centres, FANOUT, axis=0)[: len(level.centres)]
    radii = np.sqrt(np.square(apart).sum(axis=1)) * (1.0 + 1e-10) + 2e-154 * low.shape[1]
    return _Level(
        level.first[::FANOUT],
        _by_parent(level.last, np.maximum.reduceat),
        low,
        high,
        centres,
        _by_parent(radii + level.radii, np.maximum.reduceat),
        _by_parent(level.sums, np.add.reduceat),
    )


def make_tree(tiles: Tiles, weights: np.ndarray) -> BoundedTree:
    """Bound every node of the hierarchy over `tiles`; sum `weights` (n, w), by slot, below it."""
    levels: list[_Level] = []
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        while tiles.count and (not levels or len(levels[-1].first) > 1):
            levels.append(_parents(levels[-1]) if levels else _leaves(tiles, weights))
        # The root alone needs no block of its own unless it is all there is.
        levels = levels[: max(1, len(levels) - 1)]
        blocks = [_level_blocks(level, tiles.data.dtype) for level in levels]
    d, dtype = tiles.data.shape[1], tiles.data.dtype
    empty = [np.zeros((0, rows, FANOUT), dtype) for rows in (d, d, 2)]
    centres, halves, reaches = (
        frozen(np.concatenate([none, *parts])) for none, *parts in zip(empty, *blocks, strict=True)
    )
    starts = np.cumsum([0, *(len(part[0]) for part in blocks)])
    ends = [_as_blocks(np.stack([level.first, level.last], 1)) for level in levels]
    ends = np.concatenate([np.zeros((0, 2, FANOUT), np.int64), *ends]).transpose(1, 0, 2)
    sums = [_as_blocks(level.sums).transpose(0, 2, 1) for level in levels]
    sums = np.concatenate([np.zeros((0, FANOUT, weights.shape[1])), *sums])
    nodes = Nodes(
        *(frozen(end.reshape(-1).astype(np.int32)) for end in ends),
        frozen(sums.reshape(len(centres) * FANOUT, -1 if sums.size else 0)),
    )
    return BoundedTree(tiles, nodes, centres, halves, reaches, frozen(starts))


def _level_blocks(level: _Level, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres, half-widths and reaches of a level in blocks."""
    above = level.high.astype(np.float64) - level.centres
    below = level.centres - level.low.astype(np.float64)
    halves = _widened(np.maximum(above, below), dtype)
    centres = level.centres.astype(dtype)
    norms = upper_norms(centres) + upper_norms(halves)
    reaches = _widened(np.stack([level.radii, norms], axis=1), dtype)
    return _as_blocks(centres), _as_blocks(halves), _as_blocks(reaches)


@part(flags=MARGIN_COVERED, inline=True)
def score_ranges(centres, halves, reaches, block, narrow, size, query, low, high):
    """Ranges of the scaled scores of a block's nodes, widened by the rounding margin.

    A node of infinite norm gets the whole line, or NaN, and is never settled. `size` (d,) is
    |narrow|; `low` and `high` (64,) are filled.
    """
    tile_scores(centres, block, narrow, low)
    tile_scores(halves, block, size, high)
    norm, relative = low.dtype.type(query.norm), low.dtype.type(4.0 * query.relative)
    absolute = low.dtype.type(4.0 * (query.absolute + query.unit * abs(query.level)))
    for lane in range(FANOUT):
        middle = low[lane]
        reach = min(high[lane], norm * reaches[block, 0, lane])
        reach += relative * reaches[block, 1, lane] + absolute
        low[lane], high[lane] = middle - reach, middle + reach


@part
def used_nodes(last, block):
    """Mask of the lanes of a block that are nodes; `last` is the nodes' last tiles."""
    if last[block * FANOUT + FANOUT - 1]:
        return _FULL
    used = 0
    while last[block * FANOUT + used]:
        used += 1
    return (_ONE << np.uint64(used)) - _ONE


@part
def children_of(levels, level, block):
    """First block, or tile, below a block: lane i has the i-th from there."""
    if level == 0:
        return (block - levels[0]) * FANOUT
    return levels[level - 1] + (block - levels[level]) * FANOUT


@part
def _copy(source, q, target):
    for j in range(target.size):
        target[j] = source[q, j]


@kernel
def cover_tree(tree, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work):
    """Cover up to 64 half-spaces by one walk of the tree; see `cover.covers` for the arguments.

    A set of queries is a mask, as a set of lanes is. Those that straddle a node open it together,
    so its bounds and its points are read from memory once for all of them.
    """
    data, norms, count = tree.tiles.data, tree.tiles.norms, tree.tiles.ranks.size
    first, last, levels = tree.nodes.first, tree.nodes.last, tree.levels
    centres, halves, reaches = tree.centres, tree.halves, tree.reaches
    d, height, dtype, tiles = data.shape[1], levels.size - 1, data.dtype, data.shape[0]
    if not tiles:
        return offsets.size
    group = min(GROUP, offsets.size, parts.size // tiles)
    narrows, narrow, size = np.empty((group, d), dtype), np.empty(d, dtype), np.empty(d, dtype)
    low, high, limbs = np.empty(TILE, dtype), np.empty(TILE, dtype), np.zeros(LIMBS, np.int64)
    ends, kinds = np.empty(group, np.int64), np.empty(group, np.int64)
    scaled = np.empty((group, 2))
    stack = np.empty(((height + 1) * FANOUT, 2), np.int64)
    opened_by = np.empty((height + 1) * FANOUT, np.uint64)
    straddlers = np.empty(FANOUT, np.uint64)
    query = prepare(normals[0], offsets[0], closed, narrow)
    wanted = np.uint64(0)
    for q in range(group):
        query = prepare(normals[q], offsets[q], closed, narrow)
        for j in range(d):
            narrows[q, j] = narrow[j]
        ends[q], kinds[q] = q * tiles, query.kind
        scaled[q, 0], scaled[q, 1] = query.level, query.norm
        if query.kind != NONE:
            wanted |= _ONE << np.uint64(q)
    # What does not depend on the query but on the scale of its normal.
    error = gamma(d, query.unit)
    stack[0, 0], stack[0, 1], opened_by[0], depth = levels[height - 1], height - 1, wanted, 1
    while depth:
        depth -= 1
        block, level = stack[depth, 0], stack[depth, 1]
        used, below = used_nodes(last, block), children_of(levels, level, block)
        opened, members = np.uint64(0), opened_by[depth] & wanted
        for lane in range(FANOUT):
            straddlers[lane] = np.uint64(0)
        while members:
            q = lowest_lane(members)
            bit = members & (~members + _ONE)
            members ^= bit
            work[q, 0] += popcount(used)
            inside, straddling = used, np.uint64(0)
            if kinds[q] != ALL:
                _copy(narrows, q, narrow)
                for j in range(d):
                    size[j] = abs(narrow[j])
                query = rescaled(query, offsets[q], scaled[q, 0], scaled[q, 1], error)
                score_ranges(centres, halves, reaches, block, narrow, size, query, low, high)
                inside &= lanes_above(low, dtype.type(query.level))
                straddling = lanes_not_below(high, dtype.type(query.level)) & used & ~inside
            opened |= straddling
            while straddling:
                straddlers[lowest_lane(straddling)] |= bit
                straddling &= straddling - _ONE
            if inside and stop_at_first:
                wanted &= ~bit
            while inside:
                v = block * FANOUT + lowest_lane(inside)
                inside &= inside - _ONE
                parts[ends[q]], masks[ends[q]] = ~v, _FULL
                counts[q] += min(last[v] * TILE, count) - first[v] * TILE
                ends[q] += 1
        while opened:
            lane = lowest_lane(opened)
            opened &= opened - _ONE
            child, members = below + lane, straddlers[lane] & wanted
            if level:
                stack[depth, 0], stack[depth, 1], opened_by[depth] = child, level - 1, members
                depth += 1
                continue
            while members:
                q = lowest_lane(members)
                bit = members & (~members + _ONE)
                members ^= bit
                _copy(narrows, q, narrow)
                query = rescaled(query, offsets[q], scaled[q, 0], scaled[q, 1], error)
                mask = used_lanes(count, child)
                work[q, 1] += popcount(mask)
                mask, tests = tile_mask(
                    data, norms, child, mask, normals, q, narrow, query, low, limbs
                )
                work[q, 2] += tests
                if mask:
                    parts[ends[q]], masks[ends[q]] = child, mask
                    counts[q] += popcount(mask)
                    ends[q] += 1
                    if stop_at_first:
                        wanted &= ~bit
    # Each query wrote where it could not run into the next; now they move together.
    at = 0
    for q in range(group):
        for s in range(q * tiles, ends[q]):
            parts[at], masks[at] = parts[s], masks[s]
            at += 1
        indptr[q + 1] = at
    return group


@kernel
def top_tree(tree, normals, slots, scores):
    """Slots and scores of the k best of each query, best first; slots (m, k).

    Best-first search: nodes are opened in the order of their upper bounds, until none left can
    reach the worst point kept.
    """
    data, norms, ranks = tree.tiles
    last, levels = tree.nodes.last, tree.levels
    centres, halves, reaches = tree.centres, tree.halves, tree.reaches
    d, height, dtype = data.shape[1], levels.size - 1, data.dtype
    narrow, size, limbs = np.empty(d, dtype), np.empty(d, dtype), np.zeros(LIMBS, np.int64)
    low, high = np.empty(TILE, dtype), np.empty(TILE, dtype)
    errors, filled = np.empty(slots.shape[1]), np.zeros(1, np.int64)
    for q in range(slots.shape[0]):
        normal = normals[q]
        query = prepare(normal, 0.0, True, narrow)
        for j in range(d):
            size[j] = abs(narrow[j])
        filled[0] = 0
        best = Best(slots[q], scores[q], errors, filled)
        bar = -np.inf
        frontier = [(-np.inf, np.int64(height - 1), levels[height - 1])]
        while frontier:
            negative_high, level, block = heapq.heappop(frontier)
            if -negative_high < bar:
                break
            if level < 0:
                used = used_lanes(ranks.size, block)
                offer_tile(data, norms, ranks, block, used, normal, narrow, query, best, low, limbs)
                bar = scaled_bar(query, least_useful(best))
                continue
            score_ranges(centres, halves, reaches, block, narrow, size, query, low, high)
            below = children_of(levels, level, block)
            unopened = used_nodes(last, block)
            while unopened:
                lane = lowest_lane(unopened)
                unopened &= unopened - _ONE
                bound = np.float64(high[lane])
                if not bound < bar:
                    # A NaN bound says nothing, so the node comes first.
                    key = -bound if bound == bound else -np.inf
                    heapq.heappush(frontier, (key, level - 1, below + lane))
        sort_best(data, ranks, normal, best, limbs)
