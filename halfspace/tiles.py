"""Points in tiles of 64, coordinate by coordinate, and the kernels that scan one tile.

Tile t holds slots 64 t … 64 t + 63 as an array (d, 64): one coordinate of 64 points is contiguous,
so a score loop runs over lanes and vectorises for every d. A set of lanes is a 64-bit mask. Only
the last tile may have unused lanes; they hold zeros and are masked off.
"""

from typing import NamedTuple

import numpy as np

from . import parallel
from .jit import MARGIN_COVERED, kernel, part
from .predicate import NO_POINT, exact_sign
from .query import settled_range

TILE = 64

_FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_ONE = np.uint64(1)


class Tiles(NamedTuple):
    """Points by tiles. All arrays are read-only."""

    data: np.ndarray  # (tiles, d, 64) float32 or float64
    norms: np.ndarray  # (tiles,) float64, upper bound on the tile's largest norm
    ranks: np.ndarray  # (n,) int32: where the slot's id stands among all ids, ascending

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.ranks)


@part
def upper_norm(vector):
    """Upper bound on the Euclidean norm; infinite where it is so large that scores overflow."""
    largest = 0.0
    for j in range(vector.size):
        largest = max(largest, abs(np.float64(vector[j])))
    if largest == 0.0:
        return 0.0
    squares = 0.0
    for j in range(vector.size):
        ratio = np.float64(vector[j]) / largest
        squares += ratio * ratio
    # Beyond the limit a score may overflow the floats it is summed in, so nothing may be settled.
    limit = 1e30 if vector.itemsize == 4 else 1e300
    norm = largest * np.sqrt(squares) * (1.0 + 1e-10)
    return norm if norm * (vector.size + 1) < limit else np.inf


@kernel
def _fill(points, order, first, last, data, norms):
    for t in range(first, last):
        largest = 0.0
        for lane in range(min(TILE, order.size - t * TILE)):
            row = points[order[t * TILE + lane]]
            for j in range(row.size):
                data[t, j, lane] = row[j]
            largest = max(largest, upper_norm(row))
        norms[t] = largest


def make_tiles(points: np.ndarray, order: np.ndarray, ranks: np.ndarray) -> Tiles:
    """Lay `points` (n, d) out in tiles: slot s holds row r = ``order[s]``, of rank ``ranks[r]``."""
    n, d = points.shape
    tiles = -(-n // TILE)
    data = np.zeros((tiles, d, TILE), points.dtype)
    norms = np.zeros(tiles)
    parallel.run(
        [
            lambda first=first, last=last: _fill(points, order, first, last, data, norms)
            for first, last in parallel.parts(tiles, 50.0 * d)
        ]
    )
    return Tiles(frozen(data), frozen(norms), frozen(ranks[order].astype(np.int32)))


def frozen(array: np.ndarray) -> np.ndarray:
    """Make the array read-only and return it."""
    array.flags.writeable = False
    return array


@part(flags=MARGIN_COVERED, inline=True)
def tile_scores(data, t, normal, scores):
    """Scores <normal, x> of the 64 lanes of data[t], (d, 64), four coordinates a pass."""
    d = normal.size
    scores[:] = 0.0
    for j in range(0, d, 4):
        # Beyond the last coordinate, its weight is zero and the row is any.
        b = normal[j + 1] if j + 1 < d else normal.dtype.type(0.0)
        c = normal[j + 2] if j + 2 < d else normal.dtype.type(0.0)
        e = normal[j + 3] if j + 3 < d else normal.dtype.type(0.0)
        a, j1, j2, j3 = normal[j], min(j + 1, d - 1), min(j + 2, d - 1), min(j + 3, d - 1)
        for lane in range(TILE):
            scores[lane] += (a * data[t, j, lane] + b * data[t, j1, lane]) + (
                c * data[t, j2, lane] + e * data[t, j3, lane]
            )


@part(inline=True)
def lanes_not_below(scores, low):
    """Mask of lanes whose score is not below `low` (NaN counts as not below)."""
    mask = np.uint64(0)
    for lane in range(TILE):
        mask |= np.uint64(not scores[lane] < low) << np.uint64(lane)
    return mask


@part(inline=True)
def lanes_above(scores, high):
    """Mask of lanes whose score is above `high`."""
    mask = np.uint64(0)
    for lane in range(TILE):
        mask |= np.uint64(scores[lane] > high) << np.uint64(lane)
    return mask


@part(inline=True)
def used_lanes(count, t):
    """Mask of the lanes of tile t that hold one of `count` points."""
    used = count - t * TILE
    if used <= 0:
        return np.uint64(0)
    return _FULL if used >= TILE else (_ONE << np.uint64(used)) - _ONE


@part(inline=True)
def lowest_lane(mask):
    """Index of the lowest set bit of a mask that is not zero."""
    return popcount((mask & (~mask + _ONE)) - _ONE)


@part(inline=True)
def popcount(mask):
    """Number of set bits."""
    m1 = np.uint64(0x5555555555555555)
    m2 = np.uint64(0x3333333333333333)
    m4 = np.uint64(0x0F0F0F0F0F0F0F0F)
    mask = mask - ((mask >> np.uint64(1)) & m1)
    mask = (mask & m2) + ((mask >> np.uint64(2)) & m2)
    mask = (mask + (mask >> np.uint64(4))) & m4
    return np.int64((mask * np.uint64(0x0101010101010101)) >> np.uint64(56))


@part
def settle_lanes(data, t, lanes, normal, query, limbs):
    """Those of `lanes` of tile t that are inside the half-space, by the exact predicate."""
    inside = np.uint64(0)
    while lanes:
        lane = lowest_lane(lanes)
        lanes &= lanes - _ONE
        sign = exact_sign(normal, data[t, :, lane], NO_POINT, query.offset, limbs)
        if sign >= query.least_sign:
            inside |= _ONE << np.uint64(lane)
    return inside


@part(inline=True)
def tile_mask(data, norms, t, used, normal, narrow, query, scores, limbs):
    """Lanes of tile t inside the half-space, exactly; also how many needed the exact test.

    Parameters
    ----------
    data, norms : arrays of `Tiles`
    t : int
    used : uint64
        Mask of the tile's lanes that hold points.
    normal, narrow : arrays, shape (d,)
        The half-space's normal as given, and as `prepare` filled it.
    query : Halfspace
        Of kind REGULAR.
    scores : float array, shape (64,)
        Scratch in the dtype of the points.
    limbs : int64 array, shape (LIMBS,)
        Scratch of the exact predicate.
    """
    tile_scores(data, t, narrow, scores)
    low, high = settled_range(query, query.level, norms[t])
    possible = lanes_not_below(scores, scores.dtype.type(low)) & used
    if not possible:
        return possible, 0
    inside = lanes_above(scores, scores.dtype.type(high)) & possible
    unsettled = possible & ~inside
    if not unsettled:
        return inside, 0
    return inside | settle_lanes(data, t, unsettled, normal, query, limbs), popcount(unsettled)
