"""PartitionTree: a bounded tree of low crossing number, built by multiplicative reweighting.

Each node's points are partitioned into classes, about 8, in whole units of the tree's implicit
shape; two levels of classes make one node of 64. A test set of hyperplanes (`planes.py`) stands for
the queries, all of weight 1. The largest class is split again and again by one of

* a hyperplane along the normal of a test plane drawn by weight, at the middle or so as to carve a
  cap of one class off;
* a hyperplane across the principal axis, the k-d tree's split;
* an ellipsoid: the outermost points in whitened coordinates, one class of them, are taken off as a
  layer. A plane that cuts few points off then crosses the layer and nothing below it;

whichever costs least: the weight of the planes that cross either part, times the part's size to a
power. Each plane that crosses both parts doubles its weight, so the most crossed planes decide the
next splits, and only planes that cross a class are passed to its recursion. Splitting greedily
rather than carving classes one by one off the rest keeps cells round, and with it bounds tight;
layers serve the shallow planes, for which caps alone leave every class of the hull long.

Build O(n log n). By the cutting lemma a partition exists that no hyperplane crosses in more than
O(n^(1-1/d)) cells, and none that cuts k points off in more than O((n/k)^(1-1/floor(d/2))) and those
k: report takes O(n^(1-1/floor(d/2)) + k), and count and sum O(n^(1-1/d)), in expectation over like
test planes, where greedy choice finds as good a one. No answer rests on it.

Source: Matousek 1992, "Efficient partition trees" and "Reporting points in halfspaces"; Chan 2012,
"Optimal partition trees".
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from . import parallel
from .ellipsoid import fit_ellipsoid, inwards
from .index import Index
from .inputs import as_count, as_normals, as_queries
from .jit import kernel, part
from .kd_tree import AXIS_SAMPLE, divide, principal_axis, project
from .planes import (
    DIRECTIONS,
    THROUGH_POINTS,
    TestSet,
    crosses,
    draw_plane,
    draw_sample,
    fill_planes,
    score_sample,
    split_cost,
)
from .polytope import cover_polytopes_tree
from .quickselect import select
from .tiles import TILE, make_tiles
from .tree import FANOUT, BoundedTree, cover_tree, make_tree, top_tree

CLASSES = 8
"""Classes of a node, where there are units for so many."""

SAMPLE_SHARE, LEAST_SAMPLE, MOST_SAMPLE = 8, 256, 1024
"""One point in so many is in a node's sample, within these limits."""

LEAST_PLANES, MOST_PLANES = 16, 128
"""Planes of a test set: one for `SAMPLE_SHARE` points, within these limits."""

DRAWN = 12
"""Test planes drawn as candidates for a split."""

LAYER_DIMENSIONS = 16
"""Up to here layers are tried: beyond, all points are outermost."""

SIZE_EXPONENT = 0.9
"""A part counts by its size to this power: by what a plane that crosses it goes on to cross."""

PREFERENCE = 0.95
"""Factor on the principal axis's cost: a sample's noise must not beat the rounder cell."""

_ONE = np.uint64(1)


class _Scratch(NamedTuple):
    keys: np.ndarray  # (s,)
    rows: np.ndarray  # (s,) int64
    front: np.ndarray  # (words,) uint64
    back: np.ndarray  # (words,) uint64
    axis: np.ndarray  # (d,)
    product: np.ndarray  # (d,)
    matrix: np.ndarray  # (d, d)
    frame: np.ndarray  # (d, d)
    sample: np.ndarray  # (AXIS_SAMPLE, d)


class _Split(NamedTuple):
    """The best split yet: points of least key come first."""

    axis: np.ndarray  # (d,) of a hyperplane; of an ellipsoid its centre
    frame: np.ndarray  # (d, d) of an ellipsoid
    mask: np.ndarray  # (words,) uint64, sample points that come first


@part
def _copy(source, target):
    for i in range(source.size):
        target[i] = source[i]


@part
def _members(mask, rows):
    """Fill `rows` with the sample points of the mask; returns how many."""
    members = 0
    for i in range(rows.size):
        if (mask[i // 64] >> np.uint64(i % 64)) & _ONE:
            rows[members] = i
            members += 1
    return members


@part
def _cost(tests, share, members, scratch):
    """Cost of parting the sample points in scratch.rows by their keys; fills front and back."""
    keys, rows, front, back = scratch.keys[:members], scratch.rows, scratch.front, scratch.back
    front[:] = np.uint64(0)
    back[:] = np.uint64(0)
    if members:
        first = min(max(1, int(share * members + 0.5)), members - 1)
        select(keys, rows[:members], first)
        for i in range(members):
            bit = _ONE << np.uint64(rows[i] % 64)
            if i < first:
                front[rows[i] // 64] |= bit
            else:
                back[rows[i] // 64] |= bit
    return split_cost(tests, front, back, share, SIZE_EXPONENT)


@part
def _choose(points, tests, members, half, cap, state, scratch, best):
    """Fill `best` with the cheapest split; its share of the points, and whether by an ellipsoid.

    `half` and `cap` are the shares that may be split off.
    """
    sample, axis, rows = tests.sample, scratch.axis, scratch.rows[:members]
    least, best_share, best_round = np.inf, half, False
    for candidate in range(DRAWN + 3):
        share, factor, is_round = half, 1.0, candidate == DRAWN + 2
        if candidate < DRAWN:
            p = draw_plane(tests, state)
            # Caps are cut above the plane; halves, of which one may be larger, on either side.
            share = cap if candidate % 3 == 0 else half
            sign = 1.0 if share == half and candidate % 2 else -1.0
            for j in range(axis.size):
                axis[j] = sign * tests.normals[p, j]
        elif candidate == DRAWN:
            principal_axis(points, scratch.sample, axis, scratch.product)
            factor = PREFERENCE
        elif not is_round:
            for j in range(axis.size):
                axis[j] = -axis[j]
            factor = PREFERENCE
        elif axis.size > LAYER_DIMENSIONS or members < 2:
            continue
        if is_round:
            share = cap
            fit_ellipsoid(sample, rows, axis, scratch.matrix, scratch.frame)
            for i in range(members):
                scratch.keys[i] = inwards(sample[rows[i]], axis, scratch.frame)
        else:
            score_sample(sample, rows, axis, scratch.keys)
        cost = factor * _cost(tests, share, members, scratch)
        if candidate == 0 or cost < least:
            least, best_share, best_round = cost, share, is_round
            _copy(axis, best.axis)
            _copy(scratch.front, best.mask)
            for i in range(axis.size if is_round else 0):
                _copy(scratch.frame[i], best.frame[i])
    return best_share, best_round


@kernel
def partition(points, order, unit, target, normals, offsets, known, seed, ends, crossed):
    """Reorder points into classes of at most `target` units of `unit` points; how many.

    Parameters
    ----------
    points : float array, shape (m, d)
        Reordered, and `order` (m,) alike.
    normals, offsets : float64 array, shape (p, d) and (p,)
        Test planes; filled up from the first `known[0]` on. `known[1]`: they keep their offsets.
        `known[2]`: no planes through random points are wanted.
    ends : int64 array, shape (classes,)
        Filled with one past each class's last point, in no order.
    crossed : bool array, shape (classes, p)
        Filled with whether each plane crosses each class.
    """
    m, d = points.shape
    s = min(m, max(LEAST_SAMPLE, min(MOST_SAMPLE, m // SAMPLE_SHARE)))
    words, planes, state = -(-s // 64), offsets.size, np.full(1, seed, np.int64)
    none = np.uint64(0)
    tests = TestSet(
        np.empty((s, d)),
        normals,
        offsets,
        np.full((planes, words), none),
        np.ones(planes),
        np.ones(planes, np.bool_),
    )
    scratch = _Scratch(
        np.empty(s),
        np.empty(s, np.int64),
        np.full(words, none),
        np.full(words, none),
        np.empty(d),
        np.empty(d),
        np.empty((d, d)),
        np.empty((d, d)),
        np.empty((AXIS_SAMPLE, d)),
    )
    best = _Split(np.empty(d), np.empty((d, d)), np.full(words, none))
    keys, rows, moved = np.empty(m, points.dtype), np.empty(m, np.int32), np.empty_like(points)
    starts, masks = np.zeros(ends.size, np.int64), np.full((ends.size, words), none)
    sides, weights = tests.sides, tests.weights
    draw_sample(points, tests.sample, state)
    through = 0.0 if known[2] else THROUGH_POINTS
    basis = np.empty((DIRECTIONS, d))
    fill_planes(
        tests, m, known[0], known[1] != 0, through, basis, scratch.keys, scratch.rows, state
    )
    for i in range(s):
        masks[0, i // 64] |= _ONE << np.uint64(i % 64)
    ends[0], classes = m, 1
    while True:
        c = np.argmax(ends[:classes] - starts[:classes])
        first, last = starts[c], ends[c]
        units = -(-(last - first) // unit)
        if units <= target:
            break
        for p in range(planes):
            tests.live[p] = crosses(sides, p, masks[c])
        members = _members(masks[c], scratch.rows)
        half = max(units // 2 // target, 1) * target * unit / (last - first)
        cap = target * unit / (last - first)
        share, is_round = _choose(
            points[first:last], tests, members, half, cap, state, scratch, best
        )
        if is_round:
            for i in range(first, last):
                keys[i - first] = inwards(points[i], best.axis, best.frame)
        else:
            project(points[first:last], best.axis, keys)
        middle = first + int(share * (last - first) + 0.5)
        divide(points[first:last], order[first:last], middle - first, keys, rows, moved)
        starts[classes], ends[classes], ends[c] = middle, last, middle
        for word in range(words):
            masks[classes, word] = masks[c, word] & ~best.mask[word]
            masks[c, word] &= best.mask[word]
        for p in range(planes):
            if crosses(sides, p, masks[c]) and crosses(sides, p, masks[classes]):
                weights[p] *= 2.0
        classes += 1
    for c in range(classes):
        for p in range(planes):
            crossed[c, p] = crosses(sides, p, masks[c])
    return classes


class _Range(NamedTuple):
    """Points that are still to be partitioned, and the planes known to cross them."""

    first: int
    last: int
    normals: np.ndarray
    offsets: np.ndarray


def _shape(tiles: int) -> tuple[int, int]:
    """Tiles of a unit, the largest node below so many tiles; and units of a class at most."""
    span = 1
    while span * FANOUT < tiles:
        span *= FANOUT
    units = -(-tiles // span)
    return span, -(-units // CLASSES)


def _partition_range(
    points: np.ndarray, order: np.ndarray, range_: _Range, known: tuple[bool, bool], seed: int
) -> list[_Range]:
    """Partition a range of points, in place; what is left to do."""
    first, last, d = range_.first, range_.last, points.shape[1]
    unit, target = _shape(-(-(last - first) // TILE))
    planes = min(MOST_PLANES, max(LEAST_PLANES, (last - first) // SAMPLE_SHARE))
    given = min(len(range_.normals), planes)
    normals, offsets = np.zeros((planes, d)), np.zeros(planes)
    chosen = np.linspace(0, len(range_.normals) - 1, given).astype(np.int64)
    normals[:given], offsets[:given] = range_.normals[chosen], range_.offsets[chosen]
    ends = np.zeros(-(-(last - first) // (unit * TILE)), np.int64)
    crossed = np.zeros((len(ends), planes), np.bool_)
    classes = partition(
        points[first:last],
        order[first:last],
        unit * TILE,
        target,
        normals,
        offsets,
        np.array([given, *known], np.int64),
        1 + (seed * 7919 + first // TILE * 31 + last) % 2147483645,
        ends,
        crossed,
    )
    ends, left, start = ends[:classes], [], first
    for c in np.argsort(ends).tolist():
        end = first + int(ends[c])
        if end - start > TILE:
            left.append(_Range(start, end, normals[crossed[c]], offsets[crossed[c]]))
        start = end
    return left


def order_points(
    points: np.ndarray, normals: np.ndarray, offsets: np.ndarray | None, seed: int
) -> np.ndarray:
    """Rows of `points` (n, d) in the order of the tree's slots, int32 (n,).

    `normals` (m, d) and perhaps `offsets` (m,) are a sample of queries, m = 0 for none. The same
    splits are made whatever the number of threads.
    """
    order = np.arange(len(points), dtype=np.int32)
    if len(points) <= TILE:
        return order
    # To scale, so that no square overflows: a power of two, which loses nothing.
    low, high = points.min(axis=0) * 0.5, points.max(axis=0) * 0.5
    unit = 2.0 ** np.clip(np.frexp((high - low).max())[1], -120, 120)
    middle = (low + high).astype(np.float64)
    moved = ((points - (low + high)) / points.dtype.type(unit)).astype(points.dtype)
    sizes = np.abs(normals).max(axis=1, initial=0.0)
    normals = normals[sizes > 0.0] / sizes[sizes > 0.0, None]
    known = offsets is not None, len(normals) > 0
    levels = np.zeros(len(normals))
    if offsets is not None:
        levels = (offsets[sizes > 0.0] / sizes[sizes > 0.0] - normals @ middle) / unit
    ranges = [_Range(0, len(points), normals, levels)]
    while ranges:
        found = parallel.run(
            [lambda r=r: _partition_range(moved, order, r, known, seed) for r in ranges]
        )
        ranges = [left for some in found for left in some]
    return order


class PartitionTree(Index):
    """Bounded tree of low crossing number, by multiplicative reweighting.

    Build O(n log n), some 10 times a `KDTree`'s; report O(n^(1-1/floor(d/2)) + k), count and sum
    O(n^(1-1/d)): Part 1 of Agarwal, Eppstein and Matousek 1992, after Matousek 1992 and Chan 2012.
    It pays over `KDTree` where reports are small or queries are of a kind that is known.

    Parameters
    ----------
    points, ids, weights
        As for `Index`.
    queries : array_like, shape (m, d), or tuple of that and an array_like, shape (m,), optional
        Normals, or normals and offsets, like those to come: cells are then made for queries of
        that kind. Speed alone depends on it.
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
        normals, offsets = np.zeros((0, points.shape[1])), None
        if isinstance(queries, tuple):
            normals, offsets, _ = as_queries(*queries, points.shape[1])
            finite = np.isfinite(offsets)
            normals, offsets = normals[finite], offsets[finite]
        elif queries is not None:
            normals, _ = as_normals(queries, points.shape[1])
        order = order_points(points, normals, offsets, seed)
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
