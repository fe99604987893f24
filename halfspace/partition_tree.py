"""PartitionTree: a bounded tree of low crossing number, built by multiplicative reweighting.

Each node's points are partitioned into classes, about 8, in whole units of the tree's implicit
shape (`partition.py`); two levels of classes make one node of 64. Only test planes that cross a
class are passed to its recursion, where they are blended to make up their number. In d = 4 and more
neighbouring tiles then exchange points (`exchange.py`), unless queries are told.

Build O(n log n). For every r a partition into r classes exists of which no hyperplane crosses more
than O(r^(1-1/d)), and one of which none that cuts off at most n/r points crosses more than
O(r^(1-1/floor(d/2))), or O(log r) in d = 2 and 3. Where greedy choice finds as good ones, report
takes O(n^(1-1/floor(d/2)) + k), count and sum O(n^(1-1/d)): up to logarithms, and for trees of
constant fanout up to an n^epsilon. That it does is measured, not proven; no answer rests on it.

Source: Matousek 1992, "Efficient partition trees" and "Reporting points in halfspaces"; Chan 2012,
"Optimal partition trees".
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import parallel
from .exchange import exchanged
from .inputs import as_count, as_normals, as_queries
from .partition import LEAST_PLANES, MOST_PLANES, SAMPLE_SHARE, partition
from .planes import THROUGH_POINTS
from .polytope import cover_polytopes_tree
from .static_index import StaticIndex
from .tiles import TILE, make_tiles
from .tree import FANOUT, BoundedTree, check_tree, cover_tree, make_tree, top_tree

CLASSES = 8
"""Classes of a node, where there are units for so many."""


class _Queries(NamedTuple):
    """What is known of the queries to come."""

    normals: np.ndarray  # (m, d)
    through: float  # share of test planes through random points


class _Range(NamedTuple):
    """Points that are still to be partitioned, and normals of planes known to cross them."""

    first: int
    last: int
    normals: np.ndarray


def _shape(tiles: int) -> tuple[int, int]:
    """Tiles of a unit, the largest node below so many tiles; and units of a class at most."""
    span = 1
    while span * FANOUT < tiles:
        span *= FANOUT
    units = -(-tiles // span)
    return span, -(-units // CLASSES)


def _partition_range(
    points: np.ndarray, order: np.ndarray, range_: _Range, queries: _Queries, seed: int
) -> list[_Range]:
    """Partition a range of points, in place; what is left to do."""
    first, last, known = range_
    unit, target = _shape(-(-(last - first) // TILE))
    planes = min(MOST_PLANES, max(LEAST_PLANES, (last - first) // SAMPLE_SHARE))
    given = min(len(known), planes)
    normals = np.zeros((planes, points.shape[1]))
    normals[:given] = known[np.linspace(0, len(known) - 1, given).astype(np.int64)]
    ends = np.zeros(-(-(last - first) // (unit * TILE)), np.int64)
    crossed = np.zeros((len(ends), planes), np.bool_)
    classes = partition(
        points[first:last],
        order[first:last],
        unit * TILE,
        target,
        normals,
        given,
        queries.through,
        1 + (seed * 7919 + first // TILE * 31 + last) % 2147483645,
        ends,
        crossed,
    )
    ends, left, start = ends[:classes], [], first
    for c in np.argsort(ends).tolist():
        end = first + int(ends[c])
        if end - start > TILE:
            left.append(_Range(start, end, normals[crossed[c]]))
        start = end
    return left


def _scaled(points: np.ndarray) -> np.ndarray:
    """Copy of the points about their middle, to a scale where no square overflows."""
    low, high = points.min(axis=0) * 0.5, points.max(axis=0) * 0.5
    unit = points.dtype.type(2.0 ** np.clip(np.frexp((high - low).max())[1], -120, 120))
    return (points / unit - (low + high) / unit) * points.dtype.type(0.5)


def order_points(
    points: np.ndarray,
    sample: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Rows of `points` (n, d) in the order of the tree's slots, int32 (n,).

    `sample` of queries as for `PartitionTree`.

    The same splits are made whatever the number of threads.
    """
    queries = _learn(points, sample)
    order = np.arange(len(points), dtype=np.int32)
    if len(points) <= TILE:
        return order
    moved, ranges = _scaled(points), [_Range(0, len(points), queries.normals)]
    while ranges:
        found = parallel.run(
            [lambda r=r: _partition_range(moved, order, r, queries, seed) for r in ranges]
        )
        ranges = [left for some in found for left in some]
    return order


@np.errstate(over="ignore", invalid="ignore")
def _crossing_normals(points: np.ndarray, normals: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Normals of the half-spaces whose boundary meets the points' bounding box."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    least = np.minimum(normals * low, normals * high).sum(axis=1)
    most = np.maximum(normals * low, normals * high).sum(axis=1)
    return normals[(least <= offsets) & (offsets <= most)]


def _learn(points: np.ndarray, queries: ArrayLike | tuple[ArrayLike, ArrayLike] | None) -> _Queries:
    """Check a sample of queries; what it tells."""
    d = points.shape[1]
    if queries is None:
        return _Queries(np.zeros((0, d)), THROUGH_POINTS)
    if isinstance(queries, tuple):
        normals, offsets, _ = as_queries(*queries, d)
        normals = _crossing_normals(points, normals, offsets) if len(points) else normals
    else:
        normals = as_normals(queries, d, "queries")[0]
    sizes = np.abs(normals).max(axis=1, initial=0.0)
    usable = sizes > 0.0
    return _Queries(normals[usable] / sizes[usable, None], 0.0)


class PartitionTree(StaticIndex):
    """Bounded tree of low crossing number, by multiplicative reweighting.

    Build O(n log n), some 3 times a `KDTree`'s; report O(n^(1-1/floor(d/2)) + k), count and sum
    O(n^(1-1/d)): Part 1 of Agarwal, Eppstein and Matousek 1992, after Matousek 1992 and Chan 2012.
    It pays over `KDTree` where reports are small or queries are of a kind that is known.

    Parameters
    ----------
    points, ids, weights
        As for `Index`.
    queries : array_like, shape (m, d), or tuple of that and an array_like, shape (m,), optional
        Normals, or normals and offsets, like those to come: cells are then made for half-spaces
        with such normals, whatever their depth; of given offsets only those count whose boundary
        meets the points. Speed alone depends on it.
    seed : int, optional
        At least 0. The same seed gives the same tree, whatever the number of threads.

    Raises
    ------
    TypeError
        As for `Index`; `seed` is not an integer.
    ValueError
        As for `Index`; queries of a wrong shape or not finite; a negative `seed`.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.PartitionTree([[0.0, 1.0], [1.0, 0.0]], queries=[[1.0, 0.0]])
    >>> index.count([1.0, 0.0], 0.5)
    1
    """

    _kind, _arrays, _check = "partition_tree", BoundedTree, staticmethod(check_tree)
    _cover_kernel = cover_tree
    _top_kernel = top_tree
    _polytope_kernel = cover_polytopes_tree

    def __init__(
        self,
        points: ArrayLike,
        *,
        ids: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        queries: ArrayLike | tuple[ArrayLike, ArrayLike] | None = None,
        seed: int = 0,
    ) -> None:
        self._plan = queries, as_count(seed, "seed")
        super().__init__(points, ids=ids, weights=weights)
        del self._plan

    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> BoundedTree:
        queries, seed = self._plan
        order = order_points(points, queries, seed)
        if queries is None:  # else cells have the shape that those ask for
            order = exchanged(points, order)
        return make_tree(make_tiles(points, order, ranks), weights[order])

    def crossing_number(self, normals: ArrayLike, offsets: ArrayLike) -> int | np.ndarray:
        """Number of cells that each bounding hyperplane {x : <w, x> = b} crosses.

        A cell is what is known of where a tile's points lie: the tile's bound within those of the
        nodes above it. It is crossed where its range of scores, rounded outward, has b inside.

        Parameters and errors as for `report`.

        Returns
        -------
        int or ndarray of int64, shape (m,)
            At most the number of tiles, ceil(n / 64); 0 for infinite offsets and zero normals.

        Examples
        --------
        >>> import halfspace
        >>> halfspace.PartitionTree([[0.0, 1.0], [1.0, 0.0]]).crossing_number([1.0, 0.0], 0.5)
        1
        """
        single = as_queries(normals, offsets, self.dim).single
        crossed = -(-self.work(normals, offsets).points_touched // TILE)
        return int(crossed[0]) if single else crossed

    def _query_nanoseconds(self) -> float:
        n, d = len(self), self.dim
        return 1000.0 + min(0.1 * n * (d + 4), 20.0 * d * n ** (1.0 - 1.0 / d))
