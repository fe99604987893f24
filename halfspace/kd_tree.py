"""KDTree: a bounded tree by median splits along principal axes, for low dimensions (d <= ~16).

Each node is split at the median of its points' projections on their principal axis (the leading
eigenvector of their covariance, by power iteration on a sample), left and right in whole tiles;
which axis is taken moves speed only, never answers. In d = 4 and more neighbouring tiles then
exchange points (`exchange.py`). Build O(n log n). A hyperplane crosses
O(n^(1-1/d)) leaves of points in general position, so report takes O(n^(1-1/d) + k), count and sum
O(n^(1-1/d)).

Source: Bentley 1975; principal-axis splits Sproull 1991.
"""

import numpy as np

from . import parallel
from .exchange import exchanged
from .jit import kernel
from .polytope import cover_polytopes_tree
from .splits import AXIS_SAMPLE, divide, principal_axis, project
from .static_index import StaticIndex
from .tiles import TILE, make_tiles
from .tree import FANOUT, BoundedTree, check_tree, cover_tree, make_tree, top_tree

DEEPEST = 64
"""Splits no range of points outlasts."""

LONG_POINTS = 1 << 17
"""Points of a range that one call may split to the end: so many that it takes no second."""

PARALLEL_POINTS = 4096
"""Ranges up to so many points are split by one thread."""


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
        order = exchanged(points, order_points(points))
        return make_tree(make_tiles(points, order, ranks), weights[order])

    def _query_nanoseconds(self) -> float:
        n, d = len(self), self.dim
        return 1000.0 + min(0.1 * n * (d + 4), 20.0 * d * n ** (1.0 - 1.0 / d))
