"""Tombstones: a static index some of whose points are dead.

A point that is deleted stays where it is; a bit of its tile's mask says that it is dead. What a
structure finds is put right afterwards, tile by tile: dead lanes leave the masks of a cover, whole
nodes are counted by live points (prefix sums over tiles, O(n / 64) after a delete) and summed by
what their tiles' live points sum up to. The best k are found among live points in the first place
(`ranking.py`). Answers take what they take without tombstones, while a constant share is alive.

Source: weak deletions, Overmars 1983, "The Design of Dynamic Data Structures".
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from . import cover
from .index import Find
from .jit import kernel
from .static_index import StaticIndex
from .tiles import ALL_LIVE, TILE, arrays_of, frozen, lowest_lane, popcount

_ONE = np.uint64(1)
_FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


class Rows(NamedTuple):
    """Points with their ids and weights, a row each."""

    points: np.ndarray  # (n, d) float32 or float64
    ids: np.ndarray  # (n,) int64
    weights: np.ndarray  # (n, w) float64

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.ids)

    @staticmethod
    def joined(many: "list[Rows]") -> "Rows":
        """All of them, in the wider of their floats."""
        return Rows(*map(np.concatenate, zip(*many, strict=True)))


@kernel
def _count_before(live):
    """Live points in the tiles before each, int64 (tiles + 1,)."""
    before = np.zeros(live.size + 1, np.int64)
    for t in range(live.size):
        before[t + 1] = before[t] + popcount(live[t])
    return before


@kernel
def _leave_out_dead(covers, first, last, live, before):
    """Take dead points out of the masks and counts of covers, in place."""
    for q in range(covers.counts.size):
        count = 0
        for s in range(covers.indptr[q], covers.indptr[q + 1]):
            piece = covers.parts[s]
            if piece < 0:
                count += before[last[~piece]] - before[first[~piece]]
            else:
                covers.masks[s] &= live[piece]
                count += popcount(covers.masks[s])
        covers.counts[q] = count


@kernel
def _sum_tiles(chosen, live, ranks, weights, sums):
    """Weights of the live points of chosen tiles, summed into rows of `sums` (tiles, w)."""
    for i in range(chosen.size):
        t = chosen[i]
        sums[t] = 0.0
        mask = live[t]
        while mask:
            rank = ranks[t * TILE + lowest_lane(mask)]
            mask &= mask - _ONE
            for c in range(sums.shape[1]):
                sums[t, c] += weights[rank, c]


@kernel
def _sum_nodes(first, last, tile_sums):
    """Sums (nodes, w) over the tiles of each node."""
    sums = np.zeros((first.size, tile_sums.shape[1]))
    for v in range(first.size):
        for t in range(first[v], last[v]):
            for c in range(sums.shape[1]):
                sums[v, c] += tile_sums[t, c]
    return sums


def masks_of(count: int, tiles: int) -> np.ndarray:
    """Masks of the lanes of so many tiles that hold one of `count` points, uint64."""
    masks, whole = np.full(tiles, _FULL), count // TILE
    masks[whole:] = 0
    if count % TILE:
        masks[whole] = (1 << count % TILE) - 1
    return masks


def lanes_of(masks: np.ndarray, count: int) -> np.ndarray:
    """Whether each of the first `count` slots is in the masks, bool (count,)."""
    return np.unpackbits(masks.view(np.uint8), bitorder="little")[:count].view(bool)


def cleared(masks: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Copy of masks without the lanes of such slots, read-only."""
    left = masks.copy()
    lanes = (slots % TILE).astype(np.uint64)
    np.bitwise_and.at(left, slots // TILE, ~(_ONE << lanes))
    return frozen(left)


class Segment:
    """A static index built with ids, and which of its points are live. It does not change.

    Parameters
    ----------
    index : StaticIndex
    live : ndarray of uint64, optional
        Masks of live lanes, for every tile of the structure; empty where no point is dead.
    stale : bool, optional
        It waits to be built anew, as what it is made of.
    """

    def __init__(
        self, index: StaticIndex, live: np.ndarray = ALL_LIVE, *, stale: bool = False
    ) -> None:
        self.index, self.live, self.stale = index, frozen(live), stale

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        for array in arrays_of(tuple(state.values())):
            frozen(array)

    def __len__(self) -> int:
        return int(self._before[-(-len(self.index) // TILE)]) if self.live.size else len(self.index)

    @property
    def dead(self) -> int:
        """Number of dead points."""
        return len(self.index) - len(self)

    @property
    def nbytes(self) -> int:
        """Bytes held in arrays."""
        return self.index.nbytes + sum(a.nbytes for a in arrays_of(tuple(vars(self).values())))

    @cached_property
    def _before(self) -> np.ndarray:
        return _count_before(self.live)

    @cached_property
    def _slots_by_rank(self) -> np.ndarray:
        """Slots of all tiles, copies included, in the order of their ranks, int32."""
        ranks = self.index.structure.tiles.ranks
        if len(ranks) > len(self.index):
            return np.argsort(ranks, kind="stable").astype(np.int32)
        slots = np.empty(len(ranks), np.int32)
        slots[ranks] = np.arange(len(ranks), dtype=np.int32)
        return slots

    def _slots_of(self, ranks: np.ndarray) -> np.ndarray:
        """All slots that hold points of such ranks."""
        held, order = self.index.structure.tiles.ranks, self._slots_by_rank
        if len(order) == len(self.index):
            return order[ranks]
        first = np.searchsorted(held, ranks, "left", sorter=order)
        sizes = np.searchsorted(held, ranks, "right", sorter=order) - first
        inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[np.repeat(first, sizes) + inside]

    def alive(self) -> np.ndarray:
        """Whether each slot's point is live, bool (n,)."""
        n = len(self.index)
        return lanes_of(self.live, n) if self.live.size else np.ones(n, bool)

    def ranks_of(self, ids: np.ndarray) -> np.ndarray:
        """Ranks of the live points of such ids, int64; -1 where there is none."""
        held = self.index._ids
        if not len(held):
            return np.full(len(ids), -1)
        ranks = np.minimum(np.searchsorted(held, ids), len(held) - 1)
        found = held[ranks] == ids
        if self.live.size:
            # A rank's first slot is that of the point itself: copies come after all points.
            order, which = self._slots_by_rank, np.flatnonzero(found)
            at = ranks[which]
            if len(order) > len(held):
                at = np.searchsorted(self.index.structure.tiles.ranks, at, "left", sorter=order)
            slots = order[at].astype(np.int64)
            lanes = (slots % TILE).astype(np.uint64)
            found[which] = (self.live[slots // TILE] >> lanes) & _ONE != 0
        return np.where(found, ranks, -1)

    def weights_of(self, ranks: np.ndarray) -> np.ndarray:
        """Weights (k, w) of points of such ranks."""
        return self.index._weights[ranks]

    def without(self, ranks: np.ndarray) -> "Segment":
        """The same, where points of such ranks are dead too."""
        slots, index = self._slots_of(ranks), self.index
        tiles = index.structure.tiles
        live = self.live
        if not live.size:
            live = np.full(len(tiles.data), _FULL)
            own = -(-len(index) // TILE)  # what comes after them are copies
            live[:own] = masks_of(len(index), own)
        less = Segment(index, cleared(live, slots), stale=self.stale)
        less.__dict__["_slots_by_rank"] = self._slots_by_rank
        if "_tile_sums" in vars(self):
            sums, changed = self._tile_sums.copy(), np.unique(slots // TILE)
            _sum_tiles(changed[changed < len(sums)], less.live, tiles.ranks, index._weights, sums)
            less.__dict__["_tile_sums"] = sums
        return less

    def dead_ids(self) -> np.ndarray:
        """Ids of the dead points."""
        index = self.index
        return index.ids_of(index.structure.tiles.ranks[: len(index)][~self.alive()])

    def rows(self) -> Rows:
        """Live points, in the order of their ids."""
        index, tiles, alive = self.index, self.index.structure.tiles, self.alive()
        n, d = len(index), index.dim
        ranks = tiles.ranks[:n][alive]
        points = tiles.data[: -(-n // TILE)].transpose(0, 2, 1).reshape(-1, d)[:n][alive]
        rows = np.full(n, -1, np.int32)
        rows[ranks] = np.arange(len(ranks), dtype=np.int32)
        left = rows >= 0
        return Rows(points[rows[left]], index._ids[left], index._weights[left])

    @cached_property
    def _tile_sums(self) -> np.ndarray:
        tiles = -(-len(self.index) // TILE)
        sums = np.zeros((tiles, self.index._weights.shape[1]))
        ranks = self.index.structure.tiles.ranks
        _sum_tiles(np.arange(tiles), self.live, ranks, self.index._weights, sums)
        return sums

    @cached_property
    def _nodes(self) -> cover.Nodes:
        """Nodes with the sums of live points."""
        nodes = self.index.nodes
        if not self.live.size or not nodes.sums.size:
            return nodes
        return nodes._replace(sums=frozen(_sum_nodes(nodes.first, nodes.last, self._tile_sums)))

    def _living(self, covers: cover.Covers) -> cover.Covers:
        """Covers of live points; those given are changed."""
        if self.live.size:
            nodes = self.index.nodes
            _leave_out_dead(covers, nodes.first, nodes.last, self.live, self._before)
        return covers

    def covers(self, find: Find) -> list[cover.Covers]:
        """Covers, with counts of live points; masks of whole nodes are not put right."""
        return find(self.index, lambda block: cover.keep(self._living(block)))

    def counts(self, find: Find) -> np.ndarray:
        """Live points in each range, int64 (m,)."""
        counts = find(self.index, lambda block: self._living(block).counts)
        return np.concatenate([np.zeros(0, np.int64), *counts])

    def occupied(self, find: Find) -> np.ndarray:
        """Whether there are any, bool (m,)."""
        if not self.live.size:
            return self.index._occupied(find)
        firsts = find(
            self.index,
            lambda block: np.stack([np.diff(block.indptr), self._living(block).counts]) > 0,
            stop_at_first=True,
        )
        found, alive = np.concatenate([np.zeros((2, 0), bool), *firsts], axis=1)
        # Where what is found first is dead, there may be more.
        return alive if np.array_equal(found, alive) else self.counts(find) > 0

    def sums(self, find: Find) -> np.ndarray:
        """Their weights, float64 (m, w)."""
        nodes, ranks, weights = self._nodes, self.index.structure.tiles.ranks, self.index._weights
        sums = find(
            self.index,
            lambda block: cover.weight_sums(self._living(block), nodes, ranks, weights),
        )
        return np.concatenate([np.zeros((0, weights.shape[1])), *sums])

    def fill(self, covers: list[cover.Covers], starts: np.ndarray, out: np.ndarray) -> None:
        """Write the ids of live points in covers; see `cover.fill`."""
        index = self.index
        ranks = index.structure.tiles.ranks
        cover.fill(covers, index.nodes, ranks, index._ids, len(index), starts, out, self.live)
