"""Canonical covers: what a structure finds for a half-space, before it is counted or listed.

The points of a half-space are a disjoint union of *parts*: whole nodes (all of a node's points are
inside) and tiles with a mask of their inside lanes. Every structure yields such a cover, and
counting, summing and reporting are the same few kernels over covers, whatever the structure.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Annotated, NamedTuple, TypeVar

import numpy as np

from . import parallel
from .jit import Bound, kernel, part
from .layout import Stored
from .rank_sort import PLACES, count_rank, sort_ranks, start_sort
from .tiles import ALL_LIVE, TILE, live_lanes, lowest_lane

_ONE = np.uint64(1)

Kept = TypeVar("Kept")

BLOCK_PARTS = 1 << 20
"""Parts a block of covers has room for, where the tiles of one query are fewer."""

FILL_NANOSECONDS = 10.0
"""What it takes to list a point."""

BLOCK_QUERIES = 512
"""Queries a block holds at most."""


class Nodes(NamedTuple):
    """Nodes of a hierarchy over tiles, in preorder. Empty arrays for a structure without nodes."""

    first: Annotated[np.ndarray, Stored("i4", "nodes")]  # first tile
    last: Annotated[np.ndarray, Stored("i4", "nodes")]  # one past the last tile
    sums: Annotated[np.ndarray, Stored("f8", "nodes w")]  # weights of all points below


class Covers(NamedTuple):
    """Covers of consecutive queries in CSR form. A part >= 0 is a tile, a part ~v is the node v."""

    indptr: np.ndarray  # (queries + 1,) int64
    parts: np.ndarray  # int32
    masks: np.ndarray  # uint64, of tiles
    counts: np.ndarray  # (queries,) int64, points inside
    work: np.ndarray  # (queries, 3) int64: nodes visited, points touched, exact tests

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def total(self) -> int:
        """Points in all covers."""
        return int(self.counts.sum())


def covers(
    cover_kernel: Bound,
    normals: np.ndarray,
    offsets: np.ndarray,
    *,
    closed: bool | np.ndarray,
    stop_at_first: bool,
    nanoseconds: float,
    consume: Callable[[Covers], Kept],
) -> list[Kept]:
    """Cover every half-space, side by side in blocks, and keep what `consume` makes of each block.

    A query is a row of `normals` and `offsets`, and of `closed` where that is an array. Blocks are
    in query order. `cover_kernel(structure, normals, offsets, closed, stop_at_first, indptr, parts,
    masks, counts, work)`, bound to its structure, covers queries from the first on while there is
    room, and returns how many. The room is used again for the next block.
    """

    def block(first: int, last: int) -> list[Kept]:
        found = []
        tiles = len(cover_kernel.first.tiles.data)
        room = max(tiles, min(BLOCK_PARTS, tiles * (last - first)))
        parts, masks = np.empty(room, np.int32), np.empty(room, np.uint64)
        while first < last:
            parallel.check()
            most = min(last - first, BLOCK_QUERIES)
            sides = closed[first : first + most] if isinstance(closed, np.ndarray) else closed
            indptr, counts = np.zeros(most + 1, np.int64), np.zeros(most, np.int64)
            work = np.zeros((most, 3), np.int64)
            done = cover_kernel(
                normals[first : first + most],
                offsets[first : first + most],
                sides,
                stop_at_first,
                indptr,
                parts,
                masks,
                counts,
                work,
            )
            used = indptr[done]
            covers = Covers(
                indptr[: done + 1], parts[:used], masks[:used], counts[:done], work[:done]
            )
            found.append(consume(covers))
            first += done
        return found

    tasks = [partial(block, *piece) for piece in parallel.parts(len(normals), nanoseconds)]
    if len(tasks) == 1:  # as for a single query, whose time this is a part of
        return parallel.interruptible(tasks[0], nanoseconds * len(normals))
    found = parallel.interruptible(lambda: parallel.run(tasks), nanoseconds * len(normals))
    return [kept for each in found for kept in each]


@kernel
def _sum(covers, nodes, ranks, weights, sums):
    for q in range(sums.shape[0]):
        for s in range(covers.indptr[q], covers.indptr[q + 1]):
            piece = covers.parts[s]
            if piece < 0:
                for c in range(sums.shape[1]):
                    sums[q, c] += nodes.sums[~piece, c]
                continue
            mask = covers.masks[s]
            while mask:
                rank = ranks[piece * TILE + lowest_lane(mask)]
                mask &= mask - _ONE
                for c in range(sums.shape[1]):
                    sums[q, c] += weights[rank, c]


@kernel
def close_gaps(parts, masks, ends, room, indptr):
    """Move covers next to one another, and fill `indptr`.

    Queries that are covered side by side write where none can run into the next: each has `room`
    parts, and used those up to `ends`.
    """
    at = 0
    for q in range(ends.size):
        for s in range(q * room, ends[q]):
            parts[at], masks[at] = parts[s], masks[s]
            at += 1
        indptr[q + 1] = at


def keep(covers: Covers) -> Covers:
    """Keep covers themselves, but not the room they were made in."""
    parts, masks = covers.parts.copy(), covers.masks.copy()
    return Covers(covers.indptr, parts, masks, covers.counts, covers.work)


def weight_sums(covers: Covers, nodes: Nodes, ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights (n, w) by rank, summed over each cover, float64 (queries, w)."""
    sums = np.zeros((len(covers), weights.shape[1]))
    _sum(covers, nodes, ranks, weights, sums)
    return sums


@part
def _write_ranks(covers, q, nodes, ranks, live, points, out, radix, places):
    """Ranks of the points of cover q, in the order of its parts, counted; whether they ascend."""
    k, before, ascending = 0, np.int64(-1), True
    for s in range(covers.indptr[q], covers.indptr[q + 1]):
        piece = covers.parts[s]
        if piece < 0 and not live.size:
            first = nodes.first[~piece] * TILE
            for slot in range(first, min(nodes.last[~piece] * TILE, points)):
                rank = np.int64(ranks[slot])
                ascending &= before < rank
                count_rank(places, radix, rank)
                out[k] = before = rank
                k += 1
            continue
        # A tile, or a node some of whose points may be dead: tile by tile.
        first = nodes.first[~piece] if piece < 0 else piece
        last = nodes.last[~piece] if piece < 0 else piece + 1
        for t in range(first, last):
            mask = live_lanes(live, t, covers.masks[s])
            while mask:
                rank = np.int64(ranks[t * TILE + lowest_lane(mask)])
                ascending &= before < rank
                count_rank(places, radix, rank)
                out[k] = before = rank
                mask &= mask - _ONE
                k += 1
    return ascending


@kernel
def _fill(covers, nodes, ranks, ids, live, starts, points, out):
    longest = 0
    for q in range(starts.size):
        longest = max(longest, covers.counts[q])
    spare, places = np.empty(longest, np.int64), np.empty(PLACES, np.int32)
    for q in range(starts.size):
        found = out[starts[q] : starts[q] + covers.counts[q]]
        other = spare[: found.size]
        radix = start_sort(found.size, points, places)
        ascending = _write_ranks(covers, q, nodes, ranks, live, points, found, radix, places)
        if not ascending and sort_ranks(found, other, radix, places):
            found[:] = other
        if ids.size:
            for i in range(found.size):
                found[i] = ids[found[i]]


def fill(
    blocks: list[Covers],
    nodes: Nodes,
    ranks: np.ndarray,
    ids: np.ndarray,
    points: int,
    starts: np.ndarray,
    out: np.ndarray,
    live: np.ndarray = ALL_LIVE,
) -> None:
    """Write the ids in each cover, ascending within a query.

    Parameters
    ----------
    blocks : list of Covers
        Their `counts` are of live points.
    nodes : Nodes
    ranks : ndarray of int32
        Rank of each slot's point.
    ids : ndarray of int64
        Maps ranks to the caller's ids; empty where they are the same.
    points : int
        Their number; slots from there on are copies.
    starts : ndarray of int64, shape (queries,)
        Where the ids of each query begin in `out`.
    out : ndarray of int64
    live : ndarray of uint64, optional
        Masks of live lanes by tile; dead points are left out.
    """
    ends = itertools.accumulate(map(len, blocks), initial=0)
    tasks = [
        partial(_fill, block, nodes, ranks, ids, live, starts[a:b], points, out)
        for block, (a, b) in zip(blocks, itertools.pairwise(ends), strict=True)
    ]
    work = tasks[0] if len(tasks) == 1 else partial(parallel.run, tasks)
    parallel.interruptible(work, FILL_NANOSECONDS * len(out))
