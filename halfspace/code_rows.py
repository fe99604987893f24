"""How codes lie in memory: rows of a tile, so that one load serves many lanes.

A tile of codes is rows of 256 bytes, four to each of 64 lanes. With codes of 8 bits a row holds
four coordinates, with 4 bits eight, the first four in the low halves. With 6 bits three rows hold
sixteen: two of them the upper bits as rows of nibbles do, the third the lower two, those of the
first four coordinates lowest. A query is signed bytes in the order of the coordinates, or pairs of
them.
"""

from .jit import part
from .tiles import TILE

ROW = 4 * TILE
"""Bytes of a row of codes."""

BLOCK = 4
"""Queries that share what is loaded of a tile."""

MOST_QUERY = 127
"""Largest code of a query."""

FINER = 64
"""Steps of the second code of a pair in one of the first."""

MOST_PAIRED = 2**29 // FINER
"""What the first products of a pair may come to."""

GROUPS = {4: (1, 8), 6: (3, 16), 8: (1, 4)}
"""Rows that belong together and the coordinates they hold, for codes of so many bits."""


@part
def room_of(rows, bits):
    """Coordinates that so many rows hold, whole groups."""
    if bits == 6:
        return rows // 3 * 16
    return rows * (8 if bits == 4 else 4)


@part
def pack(values, codes, bits, t, lane):
    """Write a point's codes, zeros behind them up to the room there is, as a lane of tile t."""
    rows, at = codes.shape[1], 4 * lane
    if bits == 8:
        for row in range(rows):
            for c in range(4):
                codes[t, row, at + c] = values[4 * row + c]
    elif bits == 4:
        for row in range(rows):
            for c in range(4):
                codes[t, row, at + c] = values[8 * row + c] | (values[8 * row + 4 + c] << 4)
    else:
        for row in range(0, rows, 3):
            _pack_group(values, 16 * (row // 3), codes, t, row, at)


@part
def _pack_group(values, first, codes, t, row, at):
    """Write sixteen codes of 6 bits."""
    for c in range(first, first + 4):
        some = values[c], values[c + 4], values[c + 8], values[c + 12]
        place = at + c - first
        codes[t, row, place] = (some[0] >> 2) | (some[1] >> 2 << 4)
        codes[t, row + 1, place] = (some[2] >> 2) | (some[3] >> 2 << 4)
        lowest = (some[0] & 3) | (some[1] & 3) << 2 | (some[2] & 3) << 4 | (some[3] & 3) << 6
        codes[t, row + 2, place] = lowest
