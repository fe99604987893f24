"""Conflict lists of cones: the tiles, or the points, above any of a cone's planes.

First every list is one of tile numbers with a mask of the points above; 64 points share a number,
so lists cost a small part of what their points do. `place_lists` then puts whole levels down as
such numbers, or as copies of the points, sorted by id, in tiles of their own.
"""

from typing import NamedTuple

import numpy as np

from . import parallel
from .cover import Covers
from .cuttings import Cuttings
from .jit import kernel, part
from .rank_sort import PLACES, count_rank, sort_ranks, start_sort
from .tiles import TILE, Tiles, frozen, lowest_lane, popcount, used_lanes
from .tree import BoundedTree

_ONE = np.uint64(1)


class Lists(NamedTuple):
    """Conflict lists of one level in CSR form."""

    indptr: np.ndarray  # (cones + 1,) int64
    entries: np.ndarray  # int32, tiles of the tree
    masks: np.ndarray  # uint64, lanes above a plane
    points: np.ndarray  # (cones,) int64, points above a plane


@part
def _gather(cone, cones, indptr, parts, masks, first, last, count, place, tiles, lanes):
    """Union of the covers of a cone's planes in `tiles` and `lanes`; how many tiles it has.

    `place` (tiles of the tree,) is -1 everywhere, and left so.
    """
    size = 0
    for f in range(cones.shape[1]):
        plane = cones[cone, f]
        for s in range(indptr[plane], indptr[plane + 1]):
            piece = np.int64(parts[s])
            whole = piece < 0
            begin, end = (
                (np.int64(first[~piece]), np.int64(last[~piece])) if whole else (piece, piece + 1)
            )
            for t in range(begin, end):
                if place[t] < 0:
                    place[t], tiles[size], lanes[size] = size, t, np.uint64(0)
                    size += 1
                lanes[place[t]] |= used_lanes(count, t) if whole else masks[s]
    for i in range(size):
        place[tiles[i]] = -1
    return size


@kernel
def _merge(cones, indptr, parts, masks, first, last, count, sizes, points, entries, entry_masks):
    """Sizes of the lists and their points where `entries` is empty; else fill the entries."""
    most = -(-count // TILE)
    place, tiles = np.full(most, -1, np.int32), np.empty(most, np.int32)
    lanes = np.empty(most, np.uint64)
    at = 0
    for cone in range(cones.shape[0]):
        size = _gather(cone, cones, indptr, parts, masks, first, last, count, place, tiles, lanes)
        sizes[cone], points[cone] = size, 0
        for i in range(size):
            points[cone] += popcount(lanes[i])
            if entries.size:
                entries[at + i], entry_masks[at + i] = tiles[i], lanes[i]
        at += size


def merge_lists(cones: np.ndarray, blocks: list[Covers], tree: BoundedTree) -> Lists:
    """Lists of cones (c, d) from the covers of their planes, in blocks."""
    ends = np.cumsum([0, *(block.indptr[-1] for block in blocks)])
    indptr = np.concatenate(
        [np.zeros(1, np.int64), *(b.indptr[1:] + e for b, e in zip(blocks, ends[:-1], strict=True))]
    )
    parts = np.concatenate([block.parts for block in blocks])
    masks = np.concatenate([block.masks for block in blocks])
    pieces = parallel.parts(len(cones), 10_000.0)
    sizes, points = np.zeros(len(cones), np.int64), np.zeros(len(cones), np.int64)

    def merge(a: int, b: int, entries: np.ndarray, entry_masks: np.ndarray) -> None:
        _merge(
            cones[a:b],
            indptr,
            parts,
            masks,
            tree.nodes.first,
            tree.nodes.last,
            tree.tiles.count,
            sizes[a:b],
            points[a:b],
            entries,
            entry_masks,
        )

    none = np.empty(0, np.int32), np.empty(0, np.uint64)
    parallel.run([lambda a=a, b=b: merge(a, b, *none) for a, b in pieces])
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    entries, entry_masks = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint64)
    parallel.run(
        [
            lambda a=a, b=b, s=slice(starts[a], starts[b]): merge(a, b, entries[s], entry_masks[s])
            for a, b in pieces
        ]
    )
    return Lists(starts, entries, entry_masks, points)


def copied_bytes(lists: Lists, tiles: Tiles) -> int:
    """Bytes of copies of the points of lists."""
    _, d, lanes = tiles.data.shape
    each = lanes * (d * tiles.data.itemsize + tiles.ranks.itemsize) + tiles.norms.itemsize
    return int((-(-lists.points // TILE)).sum()) * each


@kernel
def _copy(indptr, entries, masks, source, norms, ranks, slots, first, data, new_norms, new_ranks):
    """Copy the points of lists, ascending by rank, into tiles from first[list] on."""
    d = source.shape[1]
    most = 0
    for i in range(first.size):
        most = max(most, (indptr[i + 1] - indptr[i]) * TILE)
    found, spare = np.empty(most, np.int64), np.empty(most, np.int64)
    places = np.empty(PLACES, np.int32)
    for i in range(first.size):
        size, points = 0, 0
        for s in range(indptr[i], indptr[i + 1]):
            points += popcount(masks[s])
        radix = start_sort(points, slots.size, places)
        for s in range(indptr[i], indptr[i + 1]):
            mask = masks[s]
            while mask:
                found[size] = ranks[entries[s] * TILE + lowest_lane(mask)]
                count_rank(places, radix, found[size])
                mask &= mask - _ONE
                size += 1
        ordered = found[:size]
        if sort_ranks(found[:size], spare[:size], radix, places):
            ordered = spare[:size]
        for k in range(size):
            t, lane = first[i] + k // TILE, k % TILE
            slot = slots[ordered[k]]
            for j in range(d):
                data[t, j, lane] = source[slot // TILE, j, slot % TILE]
            new_norms[t] = max(new_norms[t], norms[slot // TILE])
            new_ranks[t * TILE + lane] = ordered[k]


def first_tiles(tiles: Tiles, count: int) -> Tiles:
    """Views of the tiles of the first `count` slots."""
    used = -(-count // TILE)
    views = tiles.data[:used], tiles.norms[:used], tiles.ranks[:count]
    return Tiles(*(frozen(view) for view in views))


def _copies(tiles: Tiles, lists: list[tuple[Lists, np.ndarray]], total: int) -> Tiles:
    """Tiles, and after them those of lists, each with its first tiles; `total` in all."""
    data = np.zeros((total, *tiles.data.shape[1:]), tiles.data.dtype)
    norms, ranks = np.zeros(total), np.zeros(total * TILE, np.int32)
    base = len(tiles.data)
    data[:base], norms[:base], ranks[: tiles.count] = tiles.data, tiles.norms, tiles.ranks
    slots = np.empty(tiles.count, np.int32)
    slots[tiles.ranks] = np.arange(tiles.count, dtype=np.int32)
    parallel.run(
        [
            lambda a=a, b=b, level=level, first=first: _copy(
                level.indptr[a : b + 1],
                level.entries,
                level.masks,
                tiles.data,
                tiles.norms,
                tiles.ranks,
                slots,
                first[a:b],
                data,
                norms,
                ranks,
            )
            for level, first in lists
            for a, b in parallel.parts(len(first), 20_000.0)
        ]
    )
    return Tiles(frozen(data), frozen(norms), frozen(ranks))


def place_lists(
    cuttings: Cuttings, levels: list[Lists], copied: np.ndarray, numbers: np.ndarray
) -> Cuttings:
    """Cuttings whose levels' lists are copies of points, or else numbers of tiles, or empty."""
    tiles = cuttings.tree.tiles
    total, begin = len(tiles.data), 0
    lists, entries, copies = [np.empty((0, 2), np.int64)], [np.empty(0, np.int32)], []
    for level, is_copied, is_numbers in zip(levels, copied, numbers, strict=True):
        if is_copied:
            ends = total + np.cumsum(-(-level.points // TILE))
            first = np.concatenate([[total], ends[:-1]])
            total = int(ends[-1])
            copies.append((level, first))
            lists.append(np.stack([first, level.points], axis=1))
        elif is_numbers:
            lists.append(np.stack([level.indptr[:-1] + begin, np.diff(level.indptr)], axis=1))
            entries.append(level.entries)
            begin += len(level.entries)
        else:
            lists.append(np.zeros((len(level.points), 2), np.int64))
    whole = _copies(tiles, copies, total) if copies else tiles
    return cuttings._replace(
        tiles=whole,
        tree=cuttings.tree._replace(tiles=first_tiles(whole, tiles.count)),
        copied=frozen(copied),
        lists=frozen(np.concatenate(lists)),
        entries=frozen(np.concatenate(entries)),
    )
