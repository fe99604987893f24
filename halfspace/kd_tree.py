"""KDTree: a bounded tree by median splits along principal axes, for low dimensions (d <= ~16).

Each node is split at the median of its points' projections on their principal axis (the leading
eigenvector of their covariance, by power iteration on a sample), left and right in whole tiles;
which axis is taken moves speed only, never answers. Build O(n log n). A hyperplane crosses
O(n^(1-1/d)) leaves of points in general position, so report takes O(n^(1-1/d) + k), count and sum
O(n^(1-1/d)).

Source: Bentley 1975; principal-axis splits Sproull 1991.
"""

import math

import numpy as np

from . import parallel
from .jit import REASSOCIATED, kernel, part
from .polytope import cover_polytopes_tree
from .quickselect import key_of_rank
from .static_index import StaticIndex
from .tiles import TILE, make_tiles
from .tree import FANOUT, BoundedTree, check_tree, cover_tree, make_tree, top_tree

AXIS_SAMPLE = 256
"""Points that estimate a node's principal axis."""

POWER_ITERATIONS = 8

DEEPEST = 64
"""Splits no range of points outlasts."""

LONG_POINTS = 1 << 17
"""Points of a range that one call may split to the end: so many that it takes no second."""

PARALLEL_POINTS = 4096
"""Ranges up to so many points are split by one thread."""


@part
def _draw(points, sample, count):
    """Fill `sample` (d, s) with coordinates of so many of the points, one of each stretch.

    It stands at a pseudo-random place of the stretch: points may come in periods.
    """
    step, state = points.shape[0] / count, 1
    for i in range(count):
        state = state * 48271 % 2147483647
        row = int((i + state / 2147483647) * step)
        for j in range(points.shape[1]):
            sample[j, i] = points[row, j]


@part(flags=REASSOCIATED)
def _sum(values, j, count):
    """Sum of the first values of row j, each over their number, so that it stays finite."""
    total, share = 0.0, 1.0 / count
    for i in range(count):
        total += values[j, i] * share
    return total


@part(flags=REASSOCIATED)
def _product(sample, j, along, count):
    """Product of row j and `along`."""
    total = 0.0
    for i in range(count):
        total += sample[j, i] * along[i]
    return total


@part(flags=REASSOCIATED)
def _project_sample(sample, axis, along, count):
    """Fill `along` (s,) with projections of a sample (d, s) on the axis."""
    along[:count] = 0.0
    for j in range(axis.size):
        for i in range(count):
            along[i] += axis[j] * sample[j, i]


@part
def _centre(sample, count):
    """Take its mean off every row of a sample (d, s); the row of widest range, and that range."""
    widest, spread = 0, -1.0
    for j in range(sample.shape[0]):
        mean = _sum(sample, j, count)
        low = high = sample[j, 0]
        for i in range(count):
            low, high = min(low, sample[j, i]), max(high, sample[j, i])
            sample[j, i] -= mean
        if high - low > spread:
            widest, spread = j, high - low
    return widest, spread


@part
def principal_axis(points, sample, along, axis, product):
    """Approximate leading eigenvector of the covariance of `points`.

    `sample` (d, s), `along` (s,) and `product` (d,) are scratch.
    """
    count, d = min(points.shape[0], along.size), points.shape[1]
    _draw(points, sample, count)
    widest, spread = _centre(sample, count)
    axis[:] = 0.0
    axis[widest] = 1.0
    if not 0.0 < spread < np.inf:
        return
    for j in range(d):
        for i in range(count):
            sample[j, i] /= spread
    for _ in range(POWER_ITERATIONS):
        _project_sample(sample, axis, along, count)
        norm = 0.0
        for j in range(d):
            product[j] = _product(sample, j, along, count)
            norm += product[j] * product[j]
        if not 0.0 < norm < np.inf:
            return
        for j in range(d):
            axis[j] = product[j] / math.sqrt(norm)


@part
def project(points, axis, keys):
    """Fill `keys` with the points' projections on the axis."""
    for i in range(points.shape[0]):
        key = 0.0
        for j in range(axis.size):
            key += axis[j] * points[i, j]
        keys[i] = key if key == key else 0.0


@part
def _swap(points, order, i, j):
    """Swap points i and j, and what `order` says of them."""
    order[i], order[j] = order[j], order[i]
    for c in range(points.shape[1]):
        points[i, c], points[j, c] = points[j, c], points[i, c]


@part
def divide(points, order, middle, keys, some):
    """Reorder points and order so that the `middle` of least key come first.

    Only those on the wrong side move, in one sweep over either side. `some` is scratch for as many
    keys.
    """
    n, less, level = points.shape[0], 0, 0
    if not middle < n:
        return
    edge = key_of_rank(keys[:n], middle, some)
    for i in range(n):
        less += keys[i] < edge
    for i in range(middle):
        level += keys[i] == edge
    # Of the points on the edge, those before the middle stay there as far as there is room.
    stay = min(level, middle - less)
    come = middle - less - stay
    i, j = 0, middle
    while True:
        while i < middle and (keys[i] < edge or (stay > 0 and keys[i] == edge)):
            stay -= keys[i] == edge
            i += 1
        while j < n and not (keys[j] < edge or (come > 0 and keys[j] == edge)):
            j += 1
        if i == middle or j == n:
            return
        come -= keys[j] == edge
        _swap(points, order, i, j)
        i += 1
        j += 1


@kernel
def _left_tiles(tiles):
    """Tiles that go left when so many are split: half, in whole nodes of the largest level."""
    span = 1
    while span * FANOUT < tiles:
        span *= FANOUT
    return (-(-tiles // span) + 1) // 2 * span


@kernel
def _split_range(points, order, depth, unit):
    """Split down to tiles of `unit` points, at most `depth` times."""
    n, d = points.shape
    sample, along = np.empty((d, AXIS_SAMPLE)), np.empty(AXIS_SAMPLE)
    axis, product = np.empty(d), np.empty(d)
    keys, some = np.empty(n, points.dtype), np.empty(n, points.dtype)
    stack = [(0, n, depth)]
    while stack:
        first, last, depth = stack.pop()
        tiles = -(-(last - first) // unit)
        if tiles > 1 and depth:
            middle = first + _left_tiles(tiles) * unit
            principal_axis(points[first:last], sample, along, axis, product)
            project(points[first:last], axis, keys)
            divide(points[first:last], order[first:last], middle - first, keys, some)
            stack.append((first, middle, depth - 1))
            stack.append((middle, last, depth - 1))


def _halves(first: int, last: int, unit: int) -> list[tuple[int, int]]:
    tiles = -(-(last - first) // unit)
    middle = first + _left_tiles(tiles) * unit
    return [(first, middle), (middle, last)] if tiles > 1 else [(first, last)]


def order_points(points: np.ndarray, unit: int = TILE) -> np.ndarray:
    """Rows of `points` (n, d) in the order of the tree's slots, int32 (n,); `unit` share a leaf.

    The same splits are made whatever the number of threads.
    """
    moved, order = points.copy(), np.arange(len(points), dtype=np.int32)

    def split(ranges: list[tuple[int, int]], depth: int) -> None:
        parallel.run(
            [lambda a=a, b=b: _split_range(moved[a:b], order[a:b], depth, unit) for a, b in ranges]
        )

    ranges = [(0, len(points))]
    enough = max(4 * parallel.get_threads(), len(points) // LONG_POINTS)
    while len(ranges) < enough and len(points) > PARALLEL_POINTS * len(ranges):
        split(ranges, 1)
        ranges = [half for pair in ranges for half in _halves(*pair, unit)]
    split(ranges, DEEPEST)
    return order


class KDTree(StaticIndex):
    """Bounded tree by median splits along principal axes, for low dimensions.

    Build O(n log n); report O(n^(1-1/d) + k) and count, sum O(n^(1-1/d)) for points in general
    position; above d ~ 16 most bounds straddle and a scan is as fast.
    Parameters, answers and errors as for `Index`.

    Examples
    --------
    >>> import halfspace
    >>> index = halfspace.KDTree([[0.0, 1.0], [1.0, 0.0]])
    >>> index.count([1.0, 0.0], 0.5)
    1
    """

    _kind, _arrays, _check = "kd_tree", BoundedTree, staticmethod(check_tree)
    _cover_kernel = cover_tree
    _top_kernel = top_tree
    _polytope_kernel = cover_polytopes_tree

    def _build(self, points: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> BoundedTree:
        order = order_points(points)
        return make_tree(make_tiles(points, order, ranks), weights[order])

    def _query_nanoseconds(self) -> float:
        n, d = len(self), self.dim
        return 1000.0 + min(0.1 * n * (d + 4), 20.0 * d * n ** (1.0 - 1.0 / d))
