"""Scan: every tile, every time. The reference, and the fallback where nothing prunes.

Report, count, any and sum touch all n points, O(n d), for a batch by matrix products where they are
faster (`product_scan.py`); `top` keeps a heap, O(n d + k log k log n)
expected on points in random order. The floor is reading n d floats once.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from .jit import Bound, kernel
from .layout import expect
from .polytope import cover_polytopes_scan
from .predicate import LIMBS
from .product_scan import cover_products, group_size, products_pay
from .query import ALL, NONE, prepare
from .ranking import Best, offer_tile, sort_best
from .static_index import StaticIndex
from .tiles import TILE, Tiles, check_tiles, live_lanes, make_tiles, popcount, tile_mask, used_lanes


class ScanArrays(NamedTuple):
    """A scan's flat arrays."""

    tiles: Tiles


def check_scan(scan: ScanArrays, points: int) -> None:
    """Raise ValueError unless a stored scan of so many points may be read."""
    check_tiles(scan.tiles.norms, scan.tiles.ranks, len(scan.tiles.data), points)
    expect(len(scan.tiles.ranks) == points, "tiles.ranks", f"{points}", len(scan.tiles.ranks))


@kernel
def cover_scan(scan, normals, offsets, closed, stop_at_first, indptr, parts, masks, counts, work):
    """Cover half-spaces by testing every tile; see `cover.covers` for the arguments."""
    data, norms, count = scan.tiles.data, scan.tiles.norms, scan.tiles.ranks.size
    narrow, scores = np.empty(data.shape[1], data.dtype), np.empty(TILE, data.dtype)
    limbs = np.zeros(LIMBS, np.int64)
    at = 0
    for q in range(offsets.size):
        if parts.size - at < data.shape[0]:
            return q
        query = prepare(normals[q], offsets[q], closed, narrow)
        for t in range(0 if query.kind != NONE else data.shape[0], data.shape[0]):
            mask = used_lanes(count, t)
            if query.kind != ALL:
                work[q, 1] += popcount(mask)
                mask, tests = tile_mask(
                    data, norms, t, mask, normals, q, narrow, query, scores, limbs
                )
                work[q, 2] += tests
            if mask:
                parts[at], masks[at] = t, mask
                counts[q] += popcount(mask)
                at += 1
                if stop_at_first:
                    break
        indptr[q + 1] = at
    return offsets.size


class BatchCover:
    """Covers half-spaces by products where that pays; bound to a scan as `Bound` binds kernels."""

    def __init__(self, scan: ScanArrays) -> None:
        self.first, self._one_by_one = scan, Bound(cover_scan, scan)

    def __call__(
        self,
        normals: np.ndarray,
        offsets: np.ndarray,
        closed: bool,
        stop_at_first: bool,
        indptr: np.ndarray,
        parts: np.ndarray,
        masks: np.ndarray,
        counts: np.ndarray,
        work: np.ndarray,
    ) -> int:
        """Cover as many as there is room for; see `cover.covers` for the arguments."""
        tiles = self.first.tiles
        d = normals.shape[1]
        size = group_size(len(offsets), len(tiles.data), d, len(parts))
        room = indptr, parts, masks, counts, work
        # Only a scan query by query can stop at a query's first point.
        if stop_at_first or not products_pay(size, tiles.count, d):
            return self._one_by_one(normals, offsets, closed, stop_at_first, *room)
        return cover_products(tiles, normals, offsets, closed, size, *room)


@kernel
def top_scan(scan, normals, live, slots, scores):
    """Slots and scores of the k best live points of each query, best first; slots (m, k)."""
    data, norms, ranks = scan.tiles
    narrow, lane_scores = np.empty(data.shape[1], data.dtype), np.empty(TILE, data.dtype)
    errors, size, limbs = np.empty(slots.shape[1]), np.zeros(1, np.int64), np.zeros(LIMBS, np.int64)
    for q in range(slots.shape[0]):
        normal = normals[q]
        query = prepare(normal, 0.0, True, narrow)
        size[0] = 0
        best = Best(slots[q], scores[q], errors, size)
        for t in range(data.shape[0]):
            used = live_lanes(live, t, used_lanes(ranks.size, t))
            offer_tile(data, norms, ranks, t, used, normal, narrow, query, best, lane_scores, limbs)
        sort_best(data, ranks, normal, best, limbs)


class Scan(StaticIndex):
    """Brute force over tiles: every point, every query.

    The reference for all other structures, and the fallback where no bound prunes.
    Build O(n d), query O(n d), memory that of the points.
    Parameters, answers and errors as for `Index`.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.Scan([[0.0, 1.0], [1.0, 0.0]])
    >>> index.report([1.0, 0.0], 0.5)
    array([1])
    """

    _kind, _arrays, _check = "scan", ScanArrays, staticmethod(check_scan)
    _top_kernel = top_scan
    _polytope_kernel = cover_polytopes_scan

    @cached_property
    def _cover(self) -> BatchCover:
        return BatchCover(self.structure)

    @classmethod
    def over(cls, tiles: Tiles, ids: np.ndarray, weights: np.ndarray) -> "Scan":
        """Scan over tiles that are laid out, with ids (n,) and weights (n, w) by rank.

        Examples
        --------
        >>> import numpy as np, halfspace
        >>> index = halfspace.Scan([[0.0], [1.0]])
        >>> same = halfspace.Scan.over(index.structure.tiles, np.array([5, 7]), np.empty((2, 0)))
        >>> same.report([1.0], 1.0)
        array([7])
        """
        scan = cls.__new__(cls)
        scan.structure, scan._ids, scan._weights = ScanArrays(tiles), ids, weights
        scan._own_ids, scan._weights_ndim, scan._reason = True, 2, "laid out before"
        return scan

    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> ScanArrays:
        return ScanArrays(make_tiles(points, np.argsort(ranks), ranks))

    def _query_nanoseconds(self) -> float:
        return 0.1 * len(self) * (self.dim + 4)
