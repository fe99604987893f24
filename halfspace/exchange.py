"""Exchange of points between neighbouring tiles, so that each tile's lie closer together.

Splitting at medians leaves tiles as a k-d tree has cells: long where a split more would have been
due. Here, for each tile in turn, it and one after the other of its nearest neighbours in the same
node are split anew, by a plane across the line between their means, as many points to each as it
had. Where x leaves the mean m for m' and y comes back for it, across that plane, the sum of squared
distances from those means falls by 2 <m' - m, x - y> > 0, and from the new means it is less yet:
about the tiles' means it never grows. The plane is found by bisection, so some points next to it
may stay where they were.

Only tiles of one node of `FANOUT` exchange points: larger nodes stay as they were split. A constant
number of splits a tile, O(n d).

Source: Lloyd 1982, "Least squares quantization in PCM"; of tiles of equal size, as in Malinen,
Franti 2014, "Balanced k-means for clustering".
"""

import numpy as np

from . import parallel
from .jit import kernel, part
from .splits import project
from .tiles import TILE
from .tree import FANOUT

NEIGHBOURS = 8
"""Tiles with which a tile exchanges points."""

BISECTIONS = 4
"""Halvings of the range in which two tiles overlap."""

LEAST_DIMENSIONS, MOST_DIMENSIONS = 4, 16
"""Where points are exchanged. In fewer dimensions tiles are round enough, and a partition tree's
thin layers serve reports of few points better than rounder tiles do; in more, bounds settle too few
tiles for it to matter."""

NANOSECONDS = 0.5
"""What it takes to split a point anew, for each coordinate."""


@part
def _mean_of(points, tile, mean):
    """Fill `mean` (d,) with that of a tile's points."""
    first, last = tile * TILE, min((tile + 1) * TILE, points.shape[0])
    mean[:] = 0.0
    for i in range(first, last):
        for j in range(mean.size):
            mean[j] += points[i, j]
    for j in range(mean.size):
        mean[j] /= last - first


@part
def _swap(points, order, a, b, shares, mean_a, mean_b):
    """Swap two points, of slots a and b, and move the means; `shares` are theirs in those."""
    order[a], order[b] = order[b], order[a]
    for j in range(mean_a.size):
        step = np.float64(points[b, j]) - np.float64(points[a, j])
        mean_a[j] += step * shares[0]
        mean_b[j] -= step * shares[1]
        points[a, j], points[b, j] = points[b, j], points[a, j]


@part
def _level_between(keys, wanted):
    """A value that about `wanted` keys are below, by bisection.

    NaN where none of the first so many is above one of the rest: the keys are apart already.
    """
    most, least = keys[0], keys[wanted]
    for i in range(wanted):
        most = max(most, keys[i])
    for i in range(wanted, keys.size):
        least = min(least, keys[i])
    if not most > least:
        return np.nan
    for _ in range(BISECTIONS):
        middle, below = 0.5 * least + 0.5 * most, 0
        for i in range(keys.size):
            below += keys[i] < middle
        if below < wanted:
            least = middle
        else:
            most = middle
    return 0.5 * least + 0.5 * most


@part
def _trade(points, order, a, b, mean_a, mean_b, axis, keys):
    """Split the points of tiles a and b anew, by swaps; the means move along."""
    n, d = points.shape
    first, second = a * TILE, b * TILE
    in_a, in_b = min(TILE, n - first), min(TILE, n - second)
    for j in range(d):
        axis[j] = mean_b[j] - mean_a[j]
    project(points[first : first + in_a], axis, keys[:in_a])
    project(points[second : second + in_b], axis, keys[in_a:])
    level = _level_between(keys[: in_a + in_b], in_a)
    shares, k = (1.0 / in_a, 1.0 / in_b), 0
    for i in range(in_a):
        if keys[i] > level:
            while k < in_b and not keys[in_a + k] < level:
                k += 1
            if k == in_b:
                return
            _swap(points, order, first + i, second + k, shares, mean_a, mean_b)
            k += 1


@kernel
def exchange(points, order):
    """Reorder points (n, d), which are in the order of a tree's slots, and `order` (n,) alike."""
    n, d = points.shape
    tiles = -(-n // TILE)
    means, distances = np.empty((FANOUT, d)), np.empty(FANOUT)
    axis, keys = np.empty(d), np.empty(2 * TILE, points.dtype)
    for first in range(0, tiles, FANOUT):
        members = min(FANOUT, tiles - first)
        for c in range(members):
            _mean_of(points, first + c, means[c])
        for c in range(members):
            for e in range(members):
                distances[e] = 0.0
                for j in range(d):
                    distances[e] += (means[e, j] - means[c, j]) ** 2
            distances[c] = np.inf
            for _ in range(min(NEIGHBOURS, members - 1)):
                near = np.argmin(distances[:members])
                distances[near] = np.inf
                _trade(points, order, first + c, first + near, means[c], means[near], axis, keys)


def exchanged(points: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Order of rows of `points` (n, d) in a tree's slots after tiles exchanged points, int32 (n,).

    The same whatever the number of threads.
    """
    n, d = points.shape
    if not LEAST_DIMENSIONS <= d <= MOST_DIMENSIONS or n <= TILE:
        return order
    step, moved, order = FANOUT * TILE, points[order], order.copy()
    pieces = parallel.parts(-(-n // step), NANOSECONDS * NEIGHBOURS * step * d)
    parallel.run(
        [lambda a=a * step, b=b * step: exchange(moved[a:b], order[a:b]) for a, b in pieces]
    )
    return order
