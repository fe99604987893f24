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
import math
from typing import NamedTuple

import numpy as np

from . import parallel
from .cover import Nodes
from .jit import MARGIN_COVERED, kernel, part
from .predicate import LIMBS
from .query import ALL, NONE, prepare
from .ranking import Best, least_useful, offer_tile, scaled_bar, sort_best
from .tiles import (
    TILE,
    Tiles,
    frozen,
    lanes_above,
    lanes_not_below,
    lowest_lane,
    popcount,
    tile_mask,
    tile_scores,
    upper_norm,
    used_lanes,
)

FANOUT = TILE
"""Children of a node: as many as a tile has lanes."""

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


@part
def _widen(value, itemsize):
    """`value` made larger than any rounding of it to float32 or float64 could make it smaller."""
    if itemsize == 4:
        return value * (1.0 + 2.0**-22) + 2.0**-140
    return value * (1.0 + 2.0**-48) + 2.0**-1060


@kernel
def _tile_boxes(tiles, low, high):
    data, _, ranks = tiles
    for t in range(data.shape[0]):
        for j in range(data.shape[1]):
            least = most = data[t, j, 0]
            for lane in range(1, min(TILE, ranks.size - t * TILE)):
                least, most = min(least, data[t, j, lane]), max(most, data[t, j, lane])
            low[t, j], high[t, j] = least, most


@part
def _radius(data, count, first, last, centre, squares):
    """Upper bound on the distance from `centre` to the points of tiles first … last - 1."""
    largest = 0.0
    for t in range(first, last):
        squares[:] = 0.0
        for j in range(centre.size):
            for lane in range(TILE):
                step = np.float64(data[t, j, lane]) - np.float64(centre[j])
                squares[lane] += step * step
        for lane in range(min(TILE, count - t * TILE)):
            largest = max(largest, squares[lane])
    # The last term covers squares that underflow.
    return math.sqrt(largest) * (1.0 + 1e-10) + 2e-154 * centre.size


@kernel
def _bound(tiles, first, last, begin, end, tile_low, tile_high, centres, halves, reaches):
    """Bounds of nodes begin … end - 1, from the boxes of their tiles and their points."""
    data, _, ranks = tiles
    d, itemsize = data.shape[1], centres.itemsize
    squares, centre, half = np.empty(TILE), np.empty(d, data.dtype), np.empty(d, data.dtype)
    for v in range(begin, end):
        if first[v] == last[v]:
            continue
        block, lane = v // FANOUT, v % FANOUT
        for j in range(d):
            low, high = tile_low[first[v], j], tile_high[first[v], j]
            for t in range(first[v] + 1, last[v]):
                low, high = min(low, tile_low[t, j]), max(high, tile_high[t, j])
            # Halved before they are added: the sum may overflow.
            centre[j] = 0.5 * low + 0.5 * high
            c = np.float64(centre[j])
            half[j] = _widen(max(np.float64(high) - c, c - np.float64(low)), itemsize)
            centres[block, j, lane], halves[block, j, lane] = centre[j], half[j]
        radius = _radius(data, ranks.size, first[v], last[v], centre, squares)
        reaches[block, 0, lane] = _widen(radius, itemsize)
        reaches[block, 1, lane] = _widen(upper_norm(centre) + upper_norm(half), itemsize)


def _lay_out(tiles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and last tile of every node, and the first block of every level."""
    levels, first, last, span = [0], [], [], 1
    while tiles and (span == 1 or span < tiles):
        starts = np.arange(0, tiles, span)
        blocks = -(-len(starts) // FANOUT)
        padding = (0, blocks * FANOUT - len(starts))
        first.append(np.pad(starts, padding))
        last.append(np.pad(np.minimum(starts + span, tiles), padding))
        levels.append(levels[-1] + blocks)
        span *= FANOUT
    empty = [np.empty(0)]
    return (
        np.concatenate(first or empty).astype(np.int32),
        np.concatenate(last or empty).astype(np.int32),
        np.array(levels),
    )


def make_tree(tiles: Tiles, weights: np.ndarray) -> BoundedTree:
    """Bound every node of the hierarchy over `tiles`; sum `weights` (n, w), by slot, below it."""
    count, d, _ = tiles.data.shape
    first, last, levels = _lay_out(count)
    sums = np.zeros((len(first), weights.shape[1]))
    nodes = Nodes(frozen(first), frozen(last), sums)
    low, high = (np.empty((count, d), tiles.data.dtype) for _ in range(2))
    bounds = [
        np.zeros((len(first) // FANOUT, rows, FANOUT), tiles.data.dtype) for rows in (d, d, 2)
    ]
    _tile_boxes(tiles, low, high)
    parallel.run(
        [
            lambda a=a, b=b: _bound(tiles, first, last, a, b, low, high, *bounds)
            for a, b in parallel.parts(len(first), 300.0 * d)
        ]
    )
    _sum_below(first, last, levels, weights, sums)
    nodes = nodes._replace(sums=frozen(sums))
    return BoundedTree(tiles, nodes, *map(frozen, bounds), frozen(levels))


@kernel
def _sum_below(first, last, levels, weights, sums):
    n, columns = weights.shape
    for v in range(levels[min(1, levels.size - 1)] * FANOUT):
        for slot in range(first[v] * TILE, min(last[v] * TILE, n)):
            for c in range(columns):
                sums[v, c] += weights[slot, c]
    for level in range(1, levels.size - 1):
        start, below = levels[level] * FANOUT, levels[level - 1] * FANOUT
        for v in range(below, start):
            for c in range(columns):
                sums[start + (v - below) // FANOUT, c] += sums[v, c]


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
def _used_nodes(last, block):
    """Mask of the lanes of a block that are nodes; `last` is the nodes' last tiles."""
    if last[block * FANOUT + FANOUT - 1]:
        return _FULL
    used = 0
    while last[block * FANOUT + used]:
        used += 1
    return (_ONE << np.uint64(used)) - _ONE


@part
def _children(levels, level, block):
    """First block, or tile, below a block: lane i has the i-th from there."""
    if level == 0:
        return (block - levels[0]) * FANOUT
    return levels[level - 1] + (block - levels[level]) * FANOUT


@kernel
def cover_tree(tree, normals, offsets, closed, stop_at_first, indptr, parts, masks, work):
    """Cover half-spaces by walking the tree; see `cover.covers` for the arguments."""
    data, norms, count = tree.tiles.data, tree.tiles.norms, tree.tiles.ranks.size
    last, levels = tree.nodes.last, tree.levels
    centres, halves, reaches = tree.centres, tree.halves, tree.reaches
    d, height, dtype = data.shape[1], levels.size - 1, data.dtype
    narrow, size, limbs = np.empty(d, dtype), np.empty(d, dtype), np.zeros(LIMBS, np.int64)
    low, high = np.empty(TILE, dtype), np.empty(TILE, dtype)
    stack = np.empty(((height + 1) * FANOUT, 2), np.int64)
    at = 0
    for q in range(offsets.size):
        if parts.size - at < data.shape[0]:
            return q
        normal = normals[q]
        query = prepare(normal, offsets[q], closed, narrow)
        for j in range(d):
            size[j] = abs(narrow[j])
        offset = dtype.type(query.level)
        depth = 0
        if height and query.kind != NONE:
            stack[0, 0], stack[0, 1], depth = levels[height - 1], height - 1, 1
        while depth and not (stop_at_first and at > indptr[q]):
            depth -= 1
            block, level = stack[depth, 0], stack[depth, 1]
            used = _used_nodes(last, block)
            work[q, 0] += popcount(used)
            inside, straddling = used, np.uint64(0)
            if query.kind != ALL:
                score_ranges(centres, halves, reaches, block, narrow, size, query, low, high)
                inside &= lanes_above(low, offset)
                straddling = lanes_not_below(high, offset) & used & ~inside
            while inside:
                parts[at], masks[at] = ~(block * FANOUT + lowest_lane(inside)), _FULL
                inside &= inside - _ONE
                at += 1
            below = _children(levels, level, block)
            while straddling:
                child = below + lowest_lane(straddling)
                straddling &= straddling - _ONE
                if level:
                    stack[depth, 0], stack[depth, 1] = child, level - 1
                    depth += 1
                    continue
                mask = used_lanes(count, child)
                work[q, 1] += popcount(mask)
                mask, tests = tile_mask(data, norms, child, mask, normal, narrow, query, low, limbs)
                work[q, 2] += tests
                if mask:
                    parts[at], masks[at] = child, mask
                    at += 1
                    if stop_at_first:
                        break
        indptr[q + 1] = at
    return offsets.size


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
                offer_tile(data, norms, ranks, block, normal, narrow, query, best, low, limbs)
                bar = scaled_bar(query, least_useful(best))
                continue
            score_ranges(centres, halves, reaches, block, narrow, size, query, low, high)
            below = _children(levels, level, block)
            unopened = _used_nodes(last, block)
            while unopened:
                lane = lowest_lane(unopened)
                unopened &= unopened - _ONE
                bound = np.float64(high[lane])
                if not bound < bar:
                    # A NaN bound says nothing, so the node comes first.
                    key = -bound if bound == bound else -np.inf
                    heapq.heappush(frontier, (key, level - 1, below + lane))
        sort_best(data, ranks, normal, best, limbs)
