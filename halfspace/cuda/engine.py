"""What is done for one group of queries: bits by slot, bits by rank, and what is made of them."""

import numpy as np

from ..inputs import Queries
from . import words
from .finders import Finder, Found
from .lists import added_up, count_bits, list_numbers
from .queries import Ready, make_ready
from .runtime import empty, get, line
from .scratch import Scratch

EVERYWHERE = -np.inf
"""Offset of a half-space that all points are in."""

QUERY_BYTES, COORDINATE_BYTES = 256, 24
"""Scratch for what is made ready of a query, at most, and for each of its coordinates."""


class Engine:
    """A finder, and what belongs to its points.

    Parameters
    ----------
    finder : Finder
    ids : device array of int64, shape (n,) or (0,)
        By rank; none where they are the ranks.
    weights : device array of float64, shape (n, w)
        By rank.
    """

    def __init__(self, finder: Finder, ids: object, weights: object) -> None:
        self.finder, self.tiles, self.ids, self.weights = finder, finder.tiles, ids, weights
        self.width = words.words_of(self.tiles.count)

    @property
    def query_bytes(self) -> int:
        """Scratch that one query takes: sets of points, what is counted of them, and itself."""
        return 6 * 4 * self.width + QUERY_BYTES + COORDINATE_BYTES * self.tiles.data.shape[1]

    @property
    def sum_bytes(self) -> int:
        """Scratch that the sums of one query take."""
        return 9 * self.weights.shape[1] * words.chunks_of(self.width)

    def ready(self, queries: Queries, closed: np.ndarray, scratch: Scratch) -> Ready:
        """Half-spaces made ready; `closed` (m,) bool."""
        return make_ready(queries, closed, self.tiles.data.dtype, scratch)

    def room(
        self, m: int, scratch: Scratch, *, stop: bool = False, counting: bool = False
    ) -> Found:
        """Empty sets for m queries."""
        # What is not asked for is neither read nor written, so it may hold anything.
        return Found(
            scratch.zeros("inside", (m, self.width), np.uint32),
            scratch.zeros("unsettled", (m, self.width), np.uint32),
            stop,
            (scratch.zeros if stop else scratch.take)("found", (m,), np.int32),
            counting,
            (scratch.zeros if counting else scratch.take)("work", (m, 3), np.int64),
        )

    def find(
        self,
        queries: Queries,
        closed: np.ndarray,
        scratch: Scratch,
        *,
        stop: bool = False,
        counting: bool = False,
    ) -> Found:
        """Bits by slot of what is inside each half-space."""
        ready = self.ready(queries, closed, scratch)
        to = self.room(ready.size, scratch, stop=stop, counting=counting)
        self.finder.find(ready, to, scratch)
        self.finder.settle(ready, to, scratch.stream)
        return to

    def inside(self, queries: Queries, closed: np.ndarray, scratch: Scratch) -> object:
        """Bits by rank of what is inside each half-space."""
        return self._by_rank(self.find(queries, closed, scratch).inside, scratch)

    def inside_polytopes(
        self, normals: np.ndarray, offsets: np.ndarray, closed: np.ndarray, scratch: Scratch
    ) -> object:
        """Bits by rank of what is inside all half-spaces (m, h) of each polytope."""
        m, h, d = normals.shape
        if not h:
            normals, h = np.zeros((m, 1, d)), 1
            offsets, closed = np.full((m, 1), EVERYWHERE), np.ones((m, 1), bool)
        faces = Queries(normals.reshape(-1, d), offsets.reshape(-1), False)
        found = self.find(faces, closed.reshape(-1), scratch).inside
        common = scratch.take("common", (m, self.width), np.uint32)
        words.intersect(scratch.stream, *line(common.size), found, h, common)
        return self._by_rank(common, scratch)

    def _by_rank(self, slots: object, scratch: Scratch) -> object:
        if self.tiles.in_order:
            return slots
        marked = scratch.zeros("ranks", slots.shape, np.uint32)
        words.mark_ranks(scratch.stream, *line(slots.size), slots, self.tiles.ranks, marked)
        return marked

    def count(self, bits: object, scratch: Scratch) -> np.ndarray:
        """How many bits each row has, int64 (m,)."""
        return count_bits(bits, scratch).totals

    def list(
        self, bits: object, names: object, dtype: type, scratch: Scratch
    ) -> tuple[object, np.ndarray]:
        """Names of the bits of all rows, on the device, and where each row's start (m + 1,)."""
        counted = count_bits(bits, scratch)
        starts = counted.starts
        listed = empty((int(starts[-1]),), dtype)
        list_numbers(counted, scratch.copy("starts", starts), names, listed, scratch.stream)
        return listed, starts

    def sum(self, bits: object, scratch: Scratch) -> np.ndarray:
        """Weights of the bits of each row, float64 (m, w), in an order that is always the same."""
        m, columns, stream = bits.shape[0], self.weights.shape[1], scratch.stream
        size = words.chunks_of(self.width)
        if not m * columns * size:
            return np.zeros((m, columns))
        sums = scratch.take("sums 0", (m, columns, size), np.float64)
        words.sum_chunks(stream, *line(sums.size), bits, self.weights, sums)
        return get(added_up(sums, scratch), stream)[:, :, 0]
