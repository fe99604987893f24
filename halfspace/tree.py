"""Bounded tree: a hierarchy of nodes over tiles, each with bounds, and its traversals.

A node of level 0 is one tile; a node of level l holds 64 consecutive nodes of level l - 1, so the
shape follows from the number of tiles alone and who comes under whom from the order of the points.
The bounds of 64 siblings (`bounds.py`) stand side by side like the points of a tile, and one pass
over such a *block* tests them all. A node is settled where the range of its scores leaves the
offset out. The query time is that of the tree's crossing number; how the points were ordered is its
builder's matter.
"""

import heapq
from typing import Annotated, NamedTuple

import numpy as np

from .bounds import bound_level, frame_shape, score_ranges
from .cover import Nodes, close_gaps
from .jit import kernel, part
from .layout import Stored, expect
from .predicate import LIMBS
from .query import ALL, NONE, gamma, prepare, rescaled
from .ranking import Best, least_useful, offer_tile, scaled_bar, sort_best
from .tiles import (
    TILE,
    Tiles,
    check_tiles,
    frozen,
    lanes_above,
    lanes_not_below,
    live_lanes,
    lowest_lane,
    popcount,
    tile_mask,
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
    centres: Annotated[np.ndarray, Stored("f4 f8", "blocks d 64")]
    frames: Annotated[np.ndarray, Stored("f4 f8", "rows d 64")]  # p a block, see `bounds.py`
    reaches: Annotated[np.ndarray, Stored("f4 f8", "blocks 2|4 64")]  # as in `bounds.py`
    levels: Annotated[np.ndarray, Stored("i8", "levels+1")]  # first block of each, leaves first


def _as_blocks(values: np.ndarray) -> np.ndarray:
    """Rows (nodes, ...) of one level in blocks (blocks, ..., 64), padded with zeros."""
    nodes, *shape = values.shape
    blocks = -(-nodes // FANOUT)
    padded = np.zeros((blocks * FANOUT, *shape), values.dtype)
    padded[:nodes] = values
    return np.moveaxis(padded.reshape(blocks, FANOUT, *shape), 1, -1)


def _ranges(tiles: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """First and last tiles of the nodes of every level, leaves first."""
    levels, span = [], 1
    while tiles and (not levels or len(levels[-1][0]) > FANOUT):
        first = np.arange(0, tiles, span)
        levels.append((first, np.minimum(first + span, tiles)))
        span *= FANOUT
    return levels


def _sums(weights: np.ndarray, levels: list) -> list[np.ndarray]:
    """Weights (n, w) by slot, summed below the nodes of every level."""
    sums = []
    for first, _ in levels:
        values, starts = (
            (sums[-1], np.arange(0, len(sums[-1]), FANOUT)) if sums else (weights, first * TILE)
        )
        sums.append(np.add.reduceat(values, starts, axis=0))
    return sums


def make_tree(tiles: Tiles, weights: np.ndarray) -> BoundedTree:
    """Bound every node of the hierarchy over `tiles`; sum `weights` (n, w), by slot, below it."""
    d, dtype = tiles.data.shape[1], tiles.data.dtype
    levels = _ranges(len(tiles.data))
    bounds = [bound_level(tiles, first, last) for first, last in levels]
    rows, columns = frame_shape(d)
    empty = [np.zeros((0, *shape, FANOUT), dtype) for shape in ((d,), (rows, d), (columns,))]
    centres, frames, reaches = (
        np.concatenate([none, *map(_as_blocks, parts)])
        for none, *parts in zip(empty, *bounds, strict=True)
    )
    ends = [_as_blocks(np.stack(level, 1)) for level in levels]
    starts = np.cumsum([0, *map(len, ends)])
    ends = np.concatenate([np.zeros((0, 2, FANOUT), np.int64), *ends]).transpose(1, 0, 2)
    sums = [_as_blocks(level).transpose(0, 2, 1) for level in _sums(weights, levels)]
    sums = np.concatenate([np.zeros((0, FANOUT, weights.shape[1])), *sums])
    nodes = Nodes(
        *(frozen(end.reshape(-1).astype(np.int32)) for end in ends),
        frozen(sums.reshape(len(centres) * FANOUT, weights.shape[1])),
    )
    return BoundedTree(
        tiles,
        nodes,
        frozen(centres),
        frozen(frames.reshape(-1, d, FANOUT)),
        frozen(reaches),
        frozen(starts),
    )


def check_tree(tree: BoundedTree, points: int) -> None:
    """Raise ValueError unless a stored tree of so many points may be walked."""
    data, norms, ranks = tree.tiles
    check_tiles(norms, ranks, len(data), points)
    expect(len(ranks) == points, "tiles.ranks", f"{points}", len(ranks))
    check_nodes(tree, len(data), data.dtype)


def check_nodes(tree: BoundedTree, tiles: int, dtype: np.dtype, prefix: str = "") -> None:
    """Raise ValueError unless a stored tree over so many tiles may be walked.

    Its shape follows from the tiles; bounds decide no access, and are not looked at.
    """
    ranges = _ranges(tiles)
    starts = np.cumsum([0, *(-(-len(first) // FANOUT) for first, _ in ranges)])
    d = tree.centres.shape[1]
    rows, columns = frame_shape(d)
    expect(np.array_equal(tree.levels, starts), f"{prefix}levels", f"those of {tiles} tiles")
    expect(
        len(tree.centres) == starts[-1],
        f"{prefix}centres",
        f"{starts[-1]} blocks",
        len(tree.centres),
    )
    expect(
        len(tree.frames) == starts[-1] * rows,
        f"{prefix}frames",
        f"{rows} a block",
        len(tree.frames),
    )
    expect(
        tree.reaches.shape[1] == columns,
        f"{prefix}reaches",
        f"{columns} a node",
        tree.reaches.shape[1],
    )
    for name in ("centres", "frames", "reaches"):
        kind = getattr(tree, name).dtype
        expect(kind == dtype, f"{prefix}{name}", f"{dtype}, as the points", kind)
    for i, name in enumerate(("first", "last")):
        ends = [_as_blocks(level[i]).reshape(-1) for level in ranges]
        ends = np.concatenate([np.zeros(0, np.int64), *ends])
        expect(
            np.array_equal(getattr(tree.nodes, name), ends),
            f"{prefix}nodes.{name}",
            f"those of {tiles} tiles",
        )


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
    bounds = tree.centres, tree.frames, tree.reaches
    d, height, dtype, tiles = data.shape[1], levels.size - 1, data.dtype, data.shape[0]
    if not tiles:
        return offsets.size
    group = min(GROUP, offsets.size, parts.size // tiles)
    narrows, narrow, size = np.empty((group, d), dtype), np.empty(d, dtype), np.empty(d, dtype)
    low, high, limbs = np.empty(TILE, dtype), np.empty(TILE, dtype), np.zeros(LIMBS, np.int64)
    scratch = np.empty((2, TILE), dtype)
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
                score_ranges(bounds, block, narrow, size, query, scratch, low, high)
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
    close_gaps(parts, masks, ends, tiles, indptr)
    return group


@kernel
def top_tree(tree, normals, live, slots, scores):
    """Slots and scores of the k best live points of each query, best first; slots (m, k).

    Best-first search: nodes are opened in the order of their upper bounds, until none left can
    reach the worst point kept.
    """
    data, norms, ranks = tree.tiles
    last, levels = tree.nodes.last, tree.levels
    bounds = tree.centres, tree.frames, tree.reaches
    d, height, dtype = data.shape[1], levels.size - 1, data.dtype
    narrow, size, limbs = np.empty(d, dtype), np.empty(d, dtype), np.zeros(LIMBS, np.int64)
    low, high, scratch = np.empty(TILE, dtype), np.empty(TILE, dtype), np.empty((2, TILE), dtype)
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
                used = live_lanes(live, block, used_lanes(ranks.size, block))
                offer_tile(data, norms, ranks, block, used, normal, narrow, query, best, low, limbs)
                bar = scaled_bar(query, least_useful(best))
                continue
            score_ranges(bounds, block, narrow, size, query, scratch, low, high)
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
