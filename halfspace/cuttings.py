"""Shallow cuttings ready to be asked: fans of cones over a tree, and their traversals.

A *level* is a fan: cones that cover the space of normals, each spanned by d directions n_1 … n_d,
each direction with an offset c_f. The *conflict list* of a cone holds (at least) every point above
one of its planes, ∪_f {p : <n_f, p> > c_f}. A query w = Σ s_f n_f + r with shares s_f >= 0 then
obeys, for every point p that is *not* in the list of its cone,

    <w, p> <= Σ s_f c_f + ||r|| ||p|| =: T,

so where T < b the list holds every point of {<w, x> >= b}, whatever the directions, the offsets and
the fan are: nothing rests on how they were found. The shares are A w, for the inverse A of the
cone's directions N as it was rounded; negative ones are taken as zero. With u = 2^-53 and norms
||n_f|| <= 1.001,

    ||r|| <= (||I - N^T A||_F + γ_d Σ_f ||n_f|| ||A_f||) ||w|| + 1.001 Σ_f max(0, -s_f),

whose first factor is stored a cone (`residuals`), rounded up. Whatever over- or underflows makes T
infinite, NaN or larger, and then nothing is certified.

Levels go from coarse (deep planes, long lists) to fine. A query walks each fan from the cone where
the coarser one left it, across the facet of the most negative share, and stops at the first level
that is not certified; the list of the last that was is scanned, exactly. Where none was, the tree
answers. Lists are tiles of the tree, by number, or copies of the points in tiles of their own,
ascending by id, so that reports need not be sorted.
"""

from typing import Annotated, NamedTuple

import numpy as np

from .jit import kernel, part
from .layout import Stored, expect
from .predicate import LIMBS
from .query import REGULAR, prepare, settled_range
from .quickselect import select
from .ranking import Best, least_useful, offer_tile, scaled_bar, sort_best
from .tiles import (
    TILE,
    Tiles,
    check_tiles,
    lanes_not_below,
    live_lanes,
    lowest_lane,
    popcount,
    tile_mask,
    tile_scores,
    used_lanes,
)
from .tree import GROUP, BoundedTree, check_nodes, cover_tree, top_tree

_ONE = np.uint64(1)

SLACK = -1e-12
"""Shares down to here count as zero: the query lies on the facet between two cones."""

MOST_STEPS = 256
"""Cones a query crosses in one fan before the walk is given up: in a bad one it may cycle."""

TOP_MARGIN = 2
"""A level is tried for the k best when its planes have so many times k points above them."""


class Cuttings(NamedTuple):
    """Flat arrays, read-only. Cones of all levels stand in one row, coarsest level first."""

    tiles: Tiles  # those of the tree, then those of conflict lists
    tree: BoundedTree  # its tiles are views of the first of `tiles`
    levels: Annotated[np.ndarray, Stored("i8", "levels+1")]  # first cone of each level
    depths: Annotated[np.ndarray, Stored("i8", "levels")]  # points above each plane, about
    copied: Annotated[np.ndarray, Stored("bool", "levels")]  # lists are tiles of their own
    worth: Annotated[np.ndarray, Stored("bool", "levels")]  # shorter than what a tree would read
    solvers: Annotated[np.ndarray, Stored("f8", "cones d d")]  # A: shares of w are A w
    offsets: Annotated[np.ndarray, Stored("f8", "cones d")]  # c_f
    residuals: Annotated[np.ndarray, Stored("f8", "cones")]  # on ||r|| / ||w|| if no share is < 0
    neighbours: Annotated[np.ndarray, Stored("i4", "cones d")]  # across the facet opposite f
    finer: Annotated[np.ndarray, Stored("i4", "cones")]  # cone of the next level to go on from
    lists: Annotated[np.ndarray, Stored("i8", "cones 2")]  # first entry or tile; entries or points
    entries: Annotated[np.ndarray, Stored("i4", "entries")]  # tiles of the tree
    reach: Annotated[np.ndarray, Stored("f8", "1")]  # upper bound on every point's norm


def check_cuttings(cuttings: Cuttings, points: int) -> None:
    """Raise ValueError unless stored cuttings over so many points may be walked and scanned."""
    tiles, total, base = cuttings.tiles, len(cuttings.tiles.data), -(-points // TILE)
    check_tiles(tiles.norms, tiles.ranks, total, points)
    slots = points if total == base else total * TILE
    expect(total >= base and len(tiles.ranks) == slots, "tiles", f"{base} of points at least")
    check_nodes(cuttings.tree, base, tiles.data.dtype, "tree.")
    levels, cones = cuttings.levels, len(cuttings.solvers)
    rises = levels[0] == 0 and levels[-1] == cones and (np.diff(levels) > 0).all()
    expect(rises, "levels", f"0 to {cones}, rising")
    level = np.repeat(np.arange(len(levels) - 1), np.diff(levels))
    first, last = levels[level], levels[level + 1]
    beside = cuttings.neighbours
    within = (beside == -1) | ((beside >= first[:, None]) & (beside < last[:, None]))
    expect(within.all(), "neighbours", "-1, or cones of the same level")
    finer, end = cuttings.finer, levels[np.minimum(level + 2, len(levels) - 1)]
    within = (finer >= last) & (finer < end)
    expect((within | (last == cones)).all(), "finer", "cones of the next level")
    begin, size = cuttings.lists.T
    own, entries = cuttings.copied[level], len(cuttings.entries)
    room = np.where(own, total, entries)
    sound = (begin >= 0) & (begin <= room) & (size >= 0) & (size <= np.where(own, points, base))
    sound &= begin + np.where(own, -(-size // TILE), size) <= room
    expect(sound.all(), "lists", f"parts of {entries} entries or {total} tiles")
    if entries:
        least, most = cuttings.entries.min(), cuttings.entries.max()
        expect(least >= 0 and most < base, "entries", f"0 … {base - 1}", f"{least} … {most}")


@part
def walk(solvers, neighbours, cone, w, most, shares):
    """Cone of the same level that holds w, from `cone` on, and the cones seen; fills `shares`.

    The cone is -1 where the walk was given up: after `most` cones, or at a cone without a solver.
    """
    d = w.size
    for step in range(most):
        least, across, total = SLACK, -1, 0.0
        for f in range(d):
            share = 0.0
            for j in range(d):
                share += solvers[cone, f, j] * w[j]
            shares[f] = share
            total += share
            if share < least:
                least, across = share, f
        if across < 0:
            return (cone if total == total else -1), step + 1
        cone = neighbours[cone, across]
        if cone < 0:
            return -1, step + 1
    return -1, most


@part
def score_limit(offsets, residuals, reach, cone, shares, norm):
    """T of the cone for a normal of such norm and shares: no point outside its list scores more."""
    total, size, lost = 0.0, 0.0, residuals[cone] * norm
    for f in range(shares.size):
        share = shares[f]
        if share < 0.0:
            lost -= 1.001 * share
        else:
            total += share * offsets[cone, f]
            size += abs(share * offsets[cone, f])
    # The last term covers underflow, the one before it that of scaling w.
    return total + (shares.size + 4) * 2.0**-52 * size + (lost + 2.0**-1060) * reach + 2.0**-1000


class Search(NamedTuple):
    """A walk from level to level: the arrays it reads, and where it writes."""

    solvers: np.ndarray
    neighbours: np.ndarray
    finer: np.ndarray
    offsets: np.ndarray
    residuals: np.ndarray
    reach: float
    w: np.ndarray  # (d,) the normal, scaled as that of the filters
    shares: np.ndarray  # (d,) scratch
    path: np.ndarray  # (levels,) int64, cone of each level seen
    limits: np.ndarray  # (levels,) its T


@kernel
def start_search(cuttings, d, levels):
    """A search of so many levels."""
    return Search(
        cuttings.solvers,
        cuttings.neighbours,
        cuttings.finer,
        cuttings.offsets,
        cuttings.residuals,
        cuttings.reach[0],
        np.empty(d),
        np.empty(d),
        np.empty(levels, np.int64),
        np.empty(levels),
    )


@part
def descend(search, normals, q, query, levels, bar):
    """Follow query q down the first `levels` levels, while T is below `bar`.

    Fills path and limits; how many levels were passed, and cones seen.
    """
    for j in range(search.w.size):
        search.w[j] = normals[q, j] * query.factors[0] * query.factors[1]
    cone, seen = np.int64(0), 0
    for level in range(levels):
        cone, steps = walk(
            search.solvers, search.neighbours, cone, search.w, MOST_STEPS, search.shares
        )
        seen += steps
        if cone < 0:
            return level, seen
        limit = score_limit(
            search.offsets, search.residuals, search.reach, cone, search.shares, query.norm
        )
        if not limit < bar:
            return level, seen
        search.path[level], search.limits[level] = cone, limit
        cone = np.int64(search.finer[cone])
    return levels, seen


@part(inline=True)
def tiles_of_list(copied, size):
    """Tiles of a conflict list: of so many points copied, or of so many entries."""
    return -(-size // TILE) if copied else size


@part(inline=True)
def tile_of_list(copied, first, size, entries, count, i):
    """The i-th tile of a conflict list, and the mask of the lanes that hold points."""
    if copied:
        return first + i, used_lanes(size, i)
    t = np.int64(entries[first + i])
    return t, used_lanes(count, t)


@kernel
def find_cones(cuttings, normals, offsets, closed, cones, levels, seen):
    """Cone and level, for every query, of the finest certified list, and the cones seen.

    The level is -1 where the tree is to answer: no list is certified, or the list is not worth it.
    """
    d, depth = normals.shape[1], cuttings.depths.size
    narrow, worth = np.empty(d, cuttings.tiles.data.dtype), cuttings.worth
    search = start_search(cuttings, d, depth)
    path = search.path
    for q in range(offsets.size):
        query = prepare(normals[q], offsets[q], closed, narrow)
        passed, seen[q] = 0, 0
        if query.kind == REGULAR:
            passed, seen[q] = descend(search, normals, q, query, depth, query.level)
        levels[q], cones[q] = -1, -1
        if passed and worth[passed - 1]:
            levels[q], cones[q] = passed - 1, path[passed - 1]


@kernel
def cover_cuttings(
    cuttings, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work
):
    """Cover half-spaces from their conflict lists; see `cover.covers` for the arguments."""
    data, norms = cuttings.tiles.data, cuttings.tiles.norms
    lists, entries, copied = cuttings.lists, cuttings.entries, cuttings.copied
    tree, count, m = cuttings.tree, cuttings.tree.tiles.ranks.size, offsets.size
    cones, levels, seen = np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.int64)
    find_cones(cuttings, normals, offsets, closed, cones, levels, seen)
    narrow, scores = np.empty(data.shape[1], data.dtype), np.empty(TILE, data.dtype)
    limbs, ends = np.zeros(LIMBS, np.int64), np.zeros(GROUP + 1, np.int64)
    at, q = 0, 0
    while q < m:
        if levels[q] < 0:
            last = q + 1
            while last < m and last - q < GROUP and levels[last] < 0:
                last += 1
            if parts.size - at < tree.tiles.data.shape[0]:
                return q
            done = cover_tree(
                tree,
                normals[q:last],
                offsets[q:last],
                closed,
                stop_at_first,
                ends,
                parts[at:],
                masks[at:],
                counts[q:last],
                work[q:last],
            )
            for i in range(done):
                work[q + i, 0] += seen[q + i]
                indptr[q + i + 1] = at + ends[i + 1]
            at, q = at + ends[done], q + done
            continue
        own = copied[levels[q]]
        first, size = lists[cones[q], 0], lists[cones[q], 1]
        tiles = tiles_of_list(own, size)
        if parts.size - at < tiles:
            return q
        query = prepare(normals[q], offsets[q], closed, narrow)
        work[q, 0] += seen[q]
        for i in range(tiles):
            t, used = tile_of_list(own, first, size, entries, count, i)
            work[q, 1] += popcount(used)
            mask, tests = tile_mask(data, norms, t, used, normals, q, narrow, query, scores, limbs)
            work[q, 2] += tests
            if mask:
                parts[at], masks[at] = t, mask
                counts[q] += popcount(mask)
                at += 1
                if stop_at_first:
                    break
        indptr[q + 1] = at
        q += 1
    return m


@kernel
def top_cuttings(cuttings, normals, live, slots, scores):
    """Slots and scores of the k best live points of each query, best first; slots (m, k).

    If k points of a list score above its limit T, no point outside can be among the k best. The
    list's scores are taken twice: for the k-th best, and to rank those that may be better exactly.
    """
    data, norms, ranks = cuttings.tiles
    lists, entries, copied = cuttings.lists, cuttings.entries, cuttings.copied
    tree, worth, d, k = cuttings.tree, cuttings.worth, data.shape[1], slots.shape[1]
    count, deep = tree.tiles.ranks.size, 0
    while deep < cuttings.depths.size and cuttings.depths[deep] >= TOP_MARGIN * k:
        deep += 1
    search = start_search(cuttings, d, deep)
    path, limits = search.path, search.limits
    narrow, lane_scores = np.empty(d, data.dtype), np.empty(TILE, data.dtype)
    errors, filled, limbs = np.empty(k), np.zeros(1, np.int64), np.zeros(LIMBS, np.int64)
    keys, rows = np.empty(0), np.empty(0, np.int32)
    for q in range(slots.shape[0]):
        normal = normals[q]
        query = prepare(normal, 0.0, True, narrow)
        best, level = Best(slots[q], scores[q], errors, filled), 0
        if query.kind == REGULAR:
            level, _ = descend(search, normals, q, query, deep, np.inf)
        certified = False
        while level and not certified and worth[level - 1]:
            level -= 1
            filled[0] = 0
            own, first, size = copied[level], lists[path[level], 0], lists[path[level], 1]
            tiles, taken, largest = tiles_of_list(own, size), 0, 0.0
            if keys.size < tiles * TILE:
                keys, rows = np.empty(tiles * TILE), np.empty(tiles * TILE, np.int32)
            for i in range(tiles):
                t, used = tile_of_list(own, first, size, entries, count, i)
                tile_scores(data, t, narrow, lane_scores)
                largest = max(largest, norms[t])
                used = live_lanes(live, t, used)
                while used:
                    keys[taken] = -lane_scores[lowest_lane(used)]
                    used &= used - _ONE
                    taken += 1
            if taken < k:
                continue
            select(keys[:taken], rows[:taken], k - 1)
            # Two scores are off: the k-th best, and that of a point beside it.
            low, high = settled_range(query, -keys[k - 1], 2.0 * largest)
            if high <= limits[level]:
                continue
            for i in range(tiles):
                t, used = tile_of_list(own, first, size, entries, count, i)
                tile_scores(data, t, narrow, lane_scores)
                used &= lanes_not_below(lane_scores, lane_scores.dtype.type(low))
                used = live_lanes(live, t, used)
                offer_tile(
                    data, norms, ranks, t, used, normal, narrow, query, best, lane_scores, limbs
                )
            certified = filled[0] == k and scaled_bar(query, least_useful(best)) > limits[level]
        if certified:
            sort_best(data, ranks, normal, best, limbs)
        else:
            top_tree(tree, normals[q : q + 1], live, slots[q : q + 1], scores[q : q + 1])
