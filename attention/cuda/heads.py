"""Heads on a device, asked for groups of queries so that scratch is bounded."""

import threading
from collections.abc import Callable, Iterator

import numpy as np

from halfspace.cuda.runtime import require, synchronize
from halfspace.cuda.scratch import Scratch, Scratches
from halfspace.cuda.streams import as_stream
from halfspace.tiles import TILE

from ..coded_head import Fit
from ..growing_heads import GrowingHeads
from ..reading import Cut, Readings
from ..room import Room
from .held import WORD_BYTES, Asked, aim, hold, hold_more, sketch, uncoded_tiles
from .lister import Lister, row_bytes
from .reader import Reader

SCRATCH_BYTES = 1 << 28
"""Scratch that the products of a group of queries may take, and their lists, each, where those of
one query take less."""


class CudaHeads:
    """Keys, values and codes of heads with as many keys each, on a device.

    Parameters
    ----------
    room : Room
        With an axis for the heads.
    fits : list of Fit
        What the codes of each head mean.
    count, coded : int
        Keys of each head, and those that have codes.
    number : int
        Of the device.

    Raises
    ------
    CudaUnavailable
        There is no such device, or nothing to run it with.
    OutOfDeviceMemory
        The arrays, or later scratch, have no room there.
    """

    def __init__(self, room: Room, fits: list[Fit], count: int, coded: int, number: int) -> None:
        self.number, self._scratches = number, Scratches()
        self._rewritten, self._fitted, self._lock = 0, 0, threading.Lock()
        self._load(room, fits, count, coded, -(-count // TILE))

    @classmethod
    def of(cls, heads: GrowingHeads, number: int) -> "CudaHeads":
        """Heads that may change, to be followed, on a device."""
        made = cls(heads.room, heads.fits, len(heads), heads.coded, number)
        made._rewritten, made._fitted = heads.rewritten, heads.fitted
        return made

    def follow(self, heads: GrowingHeads) -> None:
        """Become what the heads are that this was made `of`, where they have changed.

        Of several threads the first does, and the others wait for it.
        """
        with self._lock:
            self._follow(heads)

    def _follow(self, heads: GrowingHeads) -> None:
        before, after = self.count, len(heads)
        same = heads.rewritten == self._rewritten and self._held is not None
        if same and after == before:
            return
        room, tiles = heads.room, -(-after // TILE)
        if same and heads.fitted == self._fitted and tiles <= self._held.always.shape[1]:
            first = (self._coded if heads.coded > self._coded else before) // TILE
            with require(self.number):
                scratch = self._scratches.of(0)
                rows = (before, after), (first, tiles)
                hold_more(self._held, room, *rows, SCRATCH_BYTES, scratch)
                synchronize()  # streams of others do not wait for copies in this one
            self.count, self._coded = after, heads.coded
            self._uncoded = uncoded_tiles(room, after)
        else:
            self._load(room, heads.fits, after, heads.coded, room.tiles)
        self._rewritten, self._fitted = heads.rewritten, heads.fitted

    def _load(self, room: Room, fits: list[Fit], count: int, coded: int, tiles: int) -> None:
        """Hold heads with so many tiles."""
        self._heads, self._sketch = len(fits), sketch(room, fits)
        with require(self.number):
            self._held = None  # before there is more, so that both need not fit
            self._held = hold(room, tiles)
            synchronize()
        self.count, self._coded = count, coded
        self._uncoded = uncoded_tiles(room, count)

    @property
    def nbytes(self) -> int:
        """Bytes held on the device, without scratch."""
        return self._held.nbytes if self._held else 0

    def softmax(
        self,
        queries: np.ndarray,
        lengths: np.ndarray,
        cut: Cut,
        scale: float,
        size: float,
        readings: Readings,
        stream: object = None,
    ) -> None:
        """Fill the readings of softmax attention.

        Parameters
        ----------
        queries : ndarray of float64, shape (heads, m, head_dim)
        lengths : ndarray of int64, shape (m,)
            Keys that each sees.
        cut, readings : Cut, Readings
            By query of all heads, (heads m, ...).
        scale : float
        size : float
            Largest magnitude of a value.
        stream : optional
            As for `halfspace.cuda.CudaIndex`.
        """

        def read(reader: Reader, some: slice) -> None:
            reader.softmax(cut.of(some), _of(readings, some))

        self._run(read, queries, lengths, cut.errors, scale, size, stream)

    def relu(
        self,
        queries: np.ndarray,
        lengths: np.ndarray,
        offsets: np.ndarray,
        errors: np.ndarray,
        scale: float,
        size: float,
        threshold: float,
        power: int,
        readings: Readings,
        stream: object = None,
    ) -> None:
        """Fill the readings of ReLU attention; offsets and errors are by query of all heads."""

        def read(reader: Reader, some: slice) -> None:
            reader.relu(offsets[some], threshold, power, _of(readings, some))

        self._run(read, queries, lengths, errors, scale, size, stream)

    def _run(
        self,
        read: Callable[[Reader, slice], None],
        queries: np.ndarray,
        lengths: np.ndarray,
        errors: np.ndarray,
        scale: float,
        size: float,
        stream: object,
    ) -> None:
        m = queries.shape[1]
        with require(self.number):
            scratch = self._scratches.of(as_stream(stream))
            for first, last, a, b in self._groups(m, lengths):
                rows = slice(first * m + a, (last - 1) * m + b)
                some = queries[first:last, a:b], lengths[a:b], errors[rows]
                asked = self._asked(first, *some, scratch)
                lister = Lister(self._held, asked, scale, SCRATCH_BYTES, scratch)
                read(Reader(lister, self._coded > 0, size), rows)

    def _groups(self, m: int, lengths: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
        """Heads first … last - 1 and queries a … b - 1 of each: whole heads, or some of one."""
        tiles = -(-int(lengths.max(initial=0)) // TILE)
        rows = max(1, SCRATCH_BYTES // row_bytes(tiles, self._held))
        if not m:
            return
        if rows < m:
            for head in range(self._heads):
                for a in range(0, m, rows):
                    yield head, head + 1, a, min(m, a + rows)
            return
        for first in range(0, self._heads, rows // m):
            yield first, min(self._heads, first + rows // m), 0, m

    def _asked(
        self,
        head: int,
        queries: np.ndarray,
        lengths: np.ndarray,
        errors: np.ndarray,
        scratch: Scratch,
    ) -> Asked:
        """Queries (heads, m, head_dim) of `head` and those after it, copied to the device."""
        heads, m, d = queries.shape
        words, bounds = self._sketch.room.codes.shape[2], np.zeros((heads, m, 3))
        weights = np.zeros((heads, m, 2, WORD_BYTES * words), np.int8)
        if self._coded:
            aim(self._sketch, head, queries, weights, bounds)
        lengths, bounds = np.tile(lengths, heads), bounds.reshape(-1, 3)
        return Asked(
            head,
            m,
            scratch.copy("queries", queries.reshape(-1, d)),
            scratch.copy("lengths", lengths),
            scratch.copy("weights", weights.view(np.int32).reshape(heads * m, 2, -1)),
            scratch.copy("bounds", bounds),
            scratch.copy("errors", errors),
            self._uncoded,
            lengths,
            bounds,
        )


def _of(readings: Readings, some: slice) -> Readings:
    return Readings(*(field[some] for field in readings))
