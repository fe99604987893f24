"""What rows of bits hold, on the device: how many, their numbers one after another, and sums.

These are the kernels of `words.py` in the order in which they need one another.
"""

from typing import NamedTuple

import numpy as np

from . import words
from .runtime import get, line
from .scratch import Scratch


class Counted(NamedTuple):
    """Rows of bits, with what is known before they are listed."""

    bits: object  # (rows, words) uint32
    counts: object  # (rows, chunks) int32
    before: object  # (rows, pieces) int64
    totals: np.ndarray  # (rows,) int64, on the host

    def rows(self, first: int, last: int) -> "Counted":
        """Some of the rows."""
        if first == 0 and last == len(self.totals):
            return self
        return Counted(*(field[first:last] for field in self))

    @property
    def starts(self) -> np.ndarray:
        """Where the list of each row starts, and the last one ends; int64 (rows + 1,)."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.totals)])


def count_bits(bits: object, scratch: Scratch) -> Counted:
    """Count the bits of each row; waits for the device."""
    m, width = bits.shape
    stream = scratch.stream
    counts = scratch.take("counts", (m, words.chunks_of(width)), np.int32)
    before = scratch.take("before", (m, words.pieces_of(width)), np.int64)
    totals = scratch.take("totals", (m,), np.int64)
    words.count_chunks(stream, *line(counts.size), bits, counts)
    words.add_pieces(stream, *line(before.size), counts, before)
    words.add_before(stream, *line(m), before, totals)
    return Counted(bits, counts, before, get(totals, stream))


def list_numbers(counted: Counted, starts: object, names: object, out: object, stream: object):
    """Write the names of all bits to `out`, a row's from starts[row] on; as `words.list_bits`."""
    words.list_bits(
        stream,
        *line(counted.counts.size),
        counted.bits,
        counted.counts,
        counted.before,
        starts,
        names,
        out,
    )


def added_up(sums: object, scratch: Scratch, name: str = "sums") -> object:
    """Sums (rows, w, size) over the last axis, (rows, w, 1), in an order that is always the same.

    They are scratch of such names, or what came where `size` is 1; it is at least that.
    """
    size, level = sums.shape[2], 0
    while size > 1:
        size, level = -(-size // words.PIECE), level + 1
        fewer = scratch.take(f"{name} {level}", (*sums.shape[:2], size), np.float64)
        words.add_sums(scratch.stream, *line(fewer.size), sums, words.PIECE, fewer)
        sums = fewer
    return sums
