"""Where heads that grow keep their rows: whole tiles, those beyond the last key free.

The arrays of one head have no leading axis; those of many heads have one for them all, so that rows
of all heads are written at once.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from halfspace.code_rows import ROW
from halfspace.codes import leading_width
from halfspace.tiles import TILE, line_zeros

BITS = 8
"""Of the codes."""

ALL = ~np.uint64(0)
"""Every lane of a tile."""

LEAST_TILES = 8
"""Tiles of the first rooms."""


class Room(NamedTuple):
    """Keys and values by slot, and what is known of keys by tile."""

    keys: np.ndarray  # (..., 64 tiles, head_dim)
    values: np.ndarray  # (..., 64 tiles, value_dim)
    always: np.ndarray  # (..., tiles) uint64, lanes that codes say nothing of
    codes: np.ndarray  # (..., tiles, rows, 256) uint8

    @property
    def tiles(self) -> int:
        """Tiles of each head."""
        return self.always.shape[-1]

    @property
    def nbytes(self) -> int:
        """Bytes, with what is free."""
        return sum(array.nbytes for array in self)


def make_room(
    heads: tuple[int, ...], tiles: int, head_dim: int, value_dim: int, dtypes: tuple[DTypeLike, ...]
) -> Room:
    """Empty room; `dtypes` are those of keys and of values."""
    always = line_zeros((*heads, tiles), np.uint64)
    always[:] = ALL
    return Room(
        line_zeros((*heads, tiles * TILE, head_dim), dtypes[0]),
        line_zeros((*heads, tiles * TILE, value_dim), dtypes[1]),
        always,
        line_zeros((*heads, tiles, leading_width(head_dim, head_dim, BITS) // 4, ROW), np.uint8),
    )


def widened(room: Room, tiles: int) -> Room:
    """Copy with so many tiles, at least those there are."""
    keys, values = room.keys, room.values
    heads = room.always.shape[:-1]
    made = make_room(heads, tiles, keys.shape[-1], values.shape[-1], (keys.dtype, values.dtype))
    for old, new in zip(room, made, strict=True):
        rows = old.shape[len(heads)]
        flat = (math.prod(heads), -1, *old.shape[len(heads) + 1 :])
        new.reshape(flat)[:, :rows] = old.reshape((*flat[:1], rows, *flat[2:]))
    return made


def tiles_for(count: int, tiles: int) -> int:
    """Tiles to have for `count` rows where there are `tiles`: twice as many when they run out."""
    needed = -(-count // TILE)
    return tiles if needed <= tiles else max(needed, 2 * tiles, LEAST_TILES)
