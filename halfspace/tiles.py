"""Points in tiles of 64, coordinate by coordinate, and the kernels that scan one tile.

Tile t holds slots 64 t … 64 t + 63 as an array (d, 64): one coordinate of 64 points is contiguous,
so a score loop runs over lanes and vectorises for every d. A set of lanes is a 64-bit mask. Only
the last tile may have unused lanes; they hold zeros and are masked off.
"""

from collections.abc import Iterator
from typing import Annotated, NamedTuple

import numpy as np
from numba import types
from numba.extending import typeof_impl

from . import parallel
from .jit import MARGIN_COVERED, part
from .layout import Stored, expect
from .norms import upper_norms
from .predicate import exact_sign
from .query import settled_range

TILE = 64

LINE = 64
"""Bytes that come from memory at once."""

CHUNK_FLOATS = 1 << 19
"""Coordinates that are laid out at a time."""

_FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_ONE = np.uint64(1)


class Tiles(NamedTuple):
    """Points by tiles. All arrays are read-only."""

    data: Annotated[np.ndarray, Stored("f4 f8", "tiles d 64")]
    norms: Annotated[np.ndarray, Stored("f8", "tiles")]  # upper bound on the tile's largest norm
    ranks: Annotated[np.ndarray, Stored("i4", "slots")]  # of the slot's id among all, ascending

    @property
    def count(self) -> int:
        """Number of points."""
        return len(self.ranks)


class RowTiles(Tiles):
    """Tiles whose data is a view of rows, as `make_rows` lays them out."""

    __slots__ = ()


@typeof_impl.register(RowTiles)
def _type_of_row_tiles(tiles, context):
    """One type for kernels; numpy calls a view of one tile, or of one coordinate, contiguous."""
    data, *rest = (typeof_impl(field, context) for field in tiles)
    return types.BaseTuple.from_types([data.copy(layout="A"), *rest], RowTiles)


def _fill(
    points: np.ndarray, order: np.ndarray, first: int, data: np.ndarray, norms: np.ndarray
) -> None:
    """Fill consecutive tiles `data` (t, d, 64) and their norms from slot 64 * `first` on."""
    rows = points[order[first * TILE : (first + len(data)) * TILE]]
    whole, d = len(rows) // TILE, rows.shape[1]
    data[:whole] = rows[: whole * TILE].reshape(whole, TILE, d).transpose(0, 2, 1)
    if whole < len(data):
        data[whole, :, : len(rows) - whole * TILE] = rows[whole * TILE :].T
    norms[:] = np.maximum.reduceat(upper_norms(rows), np.arange(0, len(rows), TILE))


def make_tiles(points: np.ndarray, order: np.ndarray, ranks: np.ndarray) -> Tiles:
    """Lay `points` (n, d) out in tiles: slot s holds row r = ``order[s]``, of rank ``ranks[r]``."""
    n, d = points.shape
    tiles = -(-n // TILE)
    data, norms = np.zeros((tiles, d, TILE), points.dtype), np.zeros(tiles)
    chunk = max(1, CHUNK_FLOATS // (TILE * d))
    parallel.run(
        [
            lambda a=a: _fill(points, order, a, data[a : a + chunk], norms[a : a + chunk])
            for a in range(0, tiles, chunk)
        ]
    )
    return Tiles(frozen(data), frozen(norms), frozen(ranks[order].astype(np.int32)))


def check_tiles(norms: np.ndarray, ranks: np.ndarray, tiles: int, points: int) -> None:
    """Raise ValueError unless stored tiles, of some of so many points, may be read."""
    expect(len(norms) == tiles, "tiles.norms", f"{tiles}", len(norms))
    expect(-(-len(ranks) // TILE) == tiles, "tiles.ranks", f"those of {tiles} tiles", len(ranks))
    if len(ranks):
        least, most = ranks.min(), ranks.max()
        expect(
            least >= 0 and most < points, "tiles.ranks", f"0 … {points - 1}", f"{least} … {most}"
        )


def line_zeros(shape: tuple[int, ...], dtype: np.typing.DTypeLike) -> np.ndarray:
    """Zeros that start where a line of cache does, so that rows lie in as few lines as they can."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.zeros(size + LINE, np.uint8)
    first = -room.ctypes.data % LINE
    return room[first : first + size].view(dtype).reshape(shape)


def on_lines(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of it that starts where a line does, read-only."""
    if array.ctypes.data % LINE == 0:
        return frozen(array)
    copy = line_zeros(array.shape, array.dtype)
    copy[:] = array
    return frozen(copy)


def make_rows(points: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Lay `points` (n, d) out row by row, with zeros up to a whole number of tiles."""
    n, d = points.shape
    rows = line_zeros((-(-n // TILE) * TILE, d), points.dtype)
    np.take(points, order, axis=0, out=rows[:n], mode="clip")
    return frozen(rows)


def tile_view(rows: np.ndarray) -> np.ndarray:
    """View of rows (slots, d), as `make_rows` lays them out, as tiles (tiles, d, 64)."""
    return frozen(rows.reshape(-1, TILE, rows.shape[1]).transpose(0, 2, 1))


def tiles_of_rows(rows: np.ndarray, ranks: np.ndarray) -> RowTiles:
    """Tiles that are views of `rows`; `ranks` by slot."""
    data = tile_view(rows)
    norms = np.zeros(len(data))
    step = max(1, CHUNK_FLOATS // (TILE * rows.shape[1]))

    def part(first: int) -> None:
        each = upper_norms(rows[first * TILE : (first + step) * TILE])
        norms[first : first + step] = each.reshape(-1, TILE).max(axis=1)

    parallel.run([lambda a=a: part(a) for a in range(0, len(data), step)])
    return RowTiles(data, frozen(norms), frozen(ranks))


def arrays_of(value: object) -> Iterator[np.ndarray]:
    """All arrays in nested tuples."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for part_of_it in value:
            yield from arrays_of(part_of_it)


def bytes_of(value: object) -> int:
    """Bytes of all arrays in nested tuples; views of one array count once, as the largest."""
    sizes = {}
    for array in arrays_of(value):
        owner = id(array.base if isinstance(array.base, np.ndarray) else array)
        sizes[owner] = max(array.nbytes, sizes.get(owner, 0))
    return sum(sizes.values())


def frozen(array: np.ndarray) -> np.ndarray:
    """Make the array read-only and return it."""
    array.flags.writeable = False
    return array


ALL_LIVE = frozen(np.empty(0, np.uint64))
"""Masks of live lanes where no point is dead; see `live_lanes`."""


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
def live_lanes(live, t, lanes):
    """Those of `lanes` of tile t that are live: `live` (tiles,) has a mask a tile, or is empty."""
    return lanes & live[t] if live.size else lanes


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
def settle_lanes(data, t, lanes, normals, q, query, limbs):
    """Those of `lanes` of tile t that are inside the half-space, by the exact predicate."""
    inside = np.uint64(0)
    while lanes:
        lane = lowest_lane(lanes)
        lanes &= lanes - _ONE
        point = data[t, :, lane]
        if exact_sign(normals[q], point, point[:0], query.offset, limbs) >= query.least_sign:
            inside |= _ONE << np.uint64(lane)
    return inside


@part(inline=True)
def tile_mask(data, norms, t, used, normals, q, narrow, query, scores, limbs):
    """Lanes of tile t inside the half-space, exactly; also how many needed the exact test.

    Parameters
    ----------
    data, norms : arrays of `Tiles`
    t : int
    used : uint64
        Mask of the tile's lanes that hold points.
    normals : float64 array, shape (m, d)
        Row q is the half-space's normal as given.
    narrow : array, shape (d,)
        The normal as `prepare` filled it.
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
    return inside | settle_lanes(data, t, unsettled, normals, q, query, limbs), popcount(unsettled)
