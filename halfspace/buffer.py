"""Buffer: the points that came last, in tiles that grow in place.

Points are written behind those that are there, into lanes that no one who holds an earlier buffer
looks at; so appending costs what is appended, and whoever reads is undisturbed. Room doubles where
it runs out. A buffer is read as a scan (`scan.py`), whose order of ids is made at the first query.
"""

from functools import cached_property

import numpy as np

from .inputs import ascends
from .norms import upper_norms
from .scan import Scan
from .tiles import ALL_LIVE, TILE, Tiles, frozen
from .tombstones import Rows, Segment, cleared, lanes_of, masks_of


class Buffer:
    """Some points, live or dead, in the order they came. It does not change.

    Only the last buffer made of a room may be appended to.

    Parameters
    ----------
    room : Rows
        Ids and weights by slot, and in the place of points the tiles (tiles, d, 64); those beyond
        `count` are free.
    norms : ndarray of float64
        As of `Tiles`, for the tiles in use.
    live : ndarray of uint64
        Masks of live lanes, for the tiles in use.
    count : int
        Slots in use.
    """

    def __init__(self, room: Rows, norms: np.ndarray, live: np.ndarray, count: int) -> None:
        self._room, self._count = room, count
        self._norms, self._live = frozen(norms), frozen(live)

    @classmethod
    def empty(cls, dim: int, dtype: np.typing.DTypeLike, columns: int) -> "Buffer":
        """Buffer without points, for such points with so many weights each."""
        room = Rows(np.zeros((0, dim, TILE), dtype), np.empty(0, np.int64), np.empty((0, columns)))
        return cls(room, np.zeros(0), ALL_LIVE, 0)

    def __reduce__(self) -> tuple:
        used = Rows(*(array[: self._count] for array in self._room))
        tiles = self._room.points[: len(self._norms)].copy()
        room = Rows(tiles, used.ids.copy(), used.weights.copy())
        return Buffer, (room, self._norms, self._live, self._count)

    def __len__(self) -> int:
        return int(self.alive().sum())

    @property
    def used(self) -> int:
        """Slots in use, by live points and dead ones."""
        return self._count

    @property
    def dim(self) -> int:
        """Dimension of the points."""
        return self._room.points.shape[1]

    @property
    def dtype(self) -> np.dtype:
        """Their floats."""
        return self._room.points.dtype

    @property
    def columns(self) -> int:
        """Weights of each."""
        return self._room.weights.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held by points that are there, live or dead."""
        per_tile = self.dim * TILE * self.dtype.itemsize + self._norms.itemsize + 8
        return len(self._norms) * per_tile + self._count * 8 * (1 + self.columns)

    def alive(self) -> np.ndarray:
        """Whether each slot's point is live, bool."""
        return lanes_of(self._live, self._count)

    @cached_property
    def _by_id(self) -> np.ndarray:
        """Slots of live points in the order of their ids."""
        slots = np.flatnonzero(self.alive())
        ids = self._room.ids[slots]
        return slots if ascends(ids) else slots[np.argsort(ids, kind="stable")]

    def slots_of(self, ids: np.ndarray) -> np.ndarray:
        """Slots of the live points of such ids, int64; -1 where there is none."""
        slots = self._by_id
        if not len(slots):
            return np.full(len(ids), -1)
        held = self._room.ids[slots]
        at = np.minimum(np.searchsorted(held, ids), len(held) - 1)
        return np.where(held[at] == ids, slots[at], -1)

    def weights_of(self, slots: np.ndarray) -> np.ndarray:
        """Weights (k, w) of the points of such slots."""
        return self._room.weights[slots]

    def without(self, slots: np.ndarray) -> "Buffer":
        """The same, where points of such slots are dead too."""
        return Buffer(self._room, self._norms, cleared(self._live, slots), self._count)

    def appended(self, rows: Rows) -> "Buffer":
        """The same with more points behind."""
        first, last = self._count, self._count + rows.count
        room = self._room
        if last > len(room.ids) or np.result_type(rows.points, room.points) != self.dtype:
            room = self._wider(max(last, 2 * first), rows.points.dtype)
        slots = np.arange(first, last)
        room.points[slots // TILE, :, slots % TILE] = rows.points
        room.ids[first:last], room.weights[first:last] = rows.ids, rows.weights
        tiles = -(-last // TILE)
        norms, live = np.zeros(tiles), masks_of(last, tiles)
        norms[: len(self._norms)] = self._norms
        np.maximum.at(norms, slots // TILE, upper_norms(rows.points))
        old = len(self._live)
        if old:
            # Dead lanes stay dead; those that were free are not.
            live[:old] &= self._live | ~masks_of(first, old)
        return Buffer(room, norms, live, last)

    def none(self, dtype: np.typing.DTypeLike = None) -> "Buffer":
        """Buffer without points, for such as these, or of another dtype."""
        return self.empty(self.dim, dtype or self.dtype, self.columns)

    def rows(self) -> Rows:
        """Live points, in the order of their ids."""
        return self.segment.rows()

    def sealed(self) -> list[Segment]:
        """The live points as a segment that waits to be built anew; none if there is no point."""
        if not len(self):
            return []
        if not self.segment.live.size:
            return [self.segment]
        points, ids, weights = self.rows()
        return [Segment(Scan(points, ids=ids, weights=weights), stale=True)]

    def _wider(self, slots: int, dtype: np.dtype) -> Rows:
        """Room for so many points, with those that are there."""
        tiles, used = -(-slots // TILE), self._count
        points = np.zeros((tiles, self.dim, TILE), np.result_type(dtype, self.dtype))
        ids, weights = np.empty(tiles * TILE, np.int64), np.empty((tiles * TILE, self.columns))
        points[: len(self._norms)] = self._room.points[: len(self._norms)]
        ids[:used], weights[:used] = self._room.ids[:used], self._room.weights[:used]
        return Rows(points, ids, weights)

    @cached_property
    def segment(self) -> Segment:
        """The buffer as a scan."""
        count, ids = self._count, self._room.ids[: self._count]
        ranks = np.arange(count, dtype=np.int32)
        weights = self._room.weights[:count]
        if not ascends(ids):
            order = np.argsort(ids, kind="stable")
            ranks[order] = np.arange(count, dtype=np.int32)
            ids, weights = ids[order], weights[order]
        data = self._room.points[: len(self._norms)].view()
        tiles = Tiles(frozen(data), self._norms, frozen(ranks))
        index = Scan.over(tiles, frozen(ids.view()), frozen(weights.view()))
        all_live = np.array_equal(self._live, masks_of(count, len(self._live)))
        return Segment(index, ALL_LIVE if all_live else self._live, stale=True)
