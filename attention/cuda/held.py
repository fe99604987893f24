"""Keys, values and codes of heads on a device, and queries brought in their terms on the host."""

import math
from typing import NamedTuple

import numpy as np

from halfspace.cuda.runtime import empty, line
from halfspace.cuda.scratch import Scratch
from halfspace.cuda.target import Kernel, cuda
from halfspace.cuda.words import WORD
from halfspace.jit import kernel
from halfspace.tiles import TILE, frozen

from ..coded_head import Fit
from ..coded_heads import CodedHeads, head_at, stacked
from ..coded_keys import aim_queries
from ..room import Room

WORD_BYTES = 4
"""Codes of a word."""


class Held(NamedTuple):
    """Arrays on the device, of heads with as many keys each."""

    keys: object  # (heads, slots, head_dim)
    values: object  # (heads, slots, value_dim)
    always: object  # (heads, tiles, 2) uint32
    codes: object  # (heads, tiles, words, 64) uint32

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(array.nbytes for array in self)


@Kernel
def place_rows(rows, first, into):
    """Write rows (heads, t, w) to rows `first` and after of arrays (heads, room, w)."""
    t, w = rows.shape[1], rows.shape[2]
    for i in range(cuda.grid(1), rows.size, cuda.gridsize(1)):
        h, row, column = i // w // t, i // w % t, i % w
        into[h, first + row, column] = rows[h, row, column]


def _words(room: Room, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Marks and codes of tiles first … last - 1 of each head, in the words of the device."""
    always = np.ascontiguousarray(room.always[:, first:last]).view(np.uint32)
    codes = np.ascontiguousarray(room.codes[:, first:last]).view(np.uint32)
    return always.reshape(len(always), last - first, TILE // WORD), codes


def uncoded_tiles(room: Room, count: int) -> np.ndarray:
    """Tiles in which some of the first `count` keys of some head have no code, int64."""
    tiles = -(-count // TILE)
    marks = np.bitwise_or.reduce(room.always[:, :tiles], axis=0, initial=0)
    if count % TILE:
        marks[-1:] &= (np.uint64(1) << np.uint64(count % TILE)) - np.uint64(1)
    return np.flatnonzero(marks)


def hold(room: Room, tiles: int) -> Held:
    """Copy the first tiles of heads to the device, head by head."""
    rows = tiles * TILE
    parts = room.keys[:, :rows], room.values[:, :rows], *_words(room, 0, tiles)
    made = Held(*(empty(part.shape, part.dtype) for part in parts))
    for part, into in zip(parts, made, strict=True):
        for h in range(len(part) if part.size else 0):
            into[h].copy_to_device(np.ascontiguousarray(part[h]))
    return made


def hold_more(
    held: Held,
    room: Room,
    rows: tuple[int, int],
    tiles: tuple[int, int],
    most: int,
    scratch: Scratch,
) -> None:
    """Copy rows from … to of keys and values, and tiles from … to of codes, where there is room.

    By pieces of at most so many bytes, or of one row or tile of all heads.
    """
    keys, values = (array[:, slice(*rows)] for array in room[:2])
    always, codes = _words(room, *tiles)
    firsts = rows[0], rows[0], tiles[0], tiles[0]
    for new, first, into in zip((keys, values, always, codes), firsts, held, strict=True):
        heads, count, width = new.shape[0], new.shape[1], math.prod(new.shape[2:])
        step = max(1, most // max(1, heads * width * new.itemsize))
        target = into.reshape(heads, into.shape[1], width)
        for at in range(0, count, step):
            piece = new[:, at : at + step].reshape(heads, min(step, count - at), width)
            copied = scratch.copy(f"new rows of {new.dtype}", piece)
            place_rows(scratch.stream, *line(copied.size), copied, first + at, target)


def sketch(room: Room, fits: list[Fit]) -> CodedHeads:
    """What heads are to `aim`: their fits, and one empty tile."""
    rooms = (
        np.zeros((len(fits), rows, *array.shape[2:]), array.dtype)
        for rows, array in zip((TILE, TILE, 1, 1), room, strict=True)
    )
    return CodedHeads(Room(*map(frozen, rooms)), stacked(fits))


@kernel
def aim(heads, first, queries, weights, bounds):
    """Bring queries in the terms of the codes of heads `first` and after.

    Parameters
    ----------
    heads : CodedHeads
        Of `sketch`.
    queries : float64 array, shape (heads, m, head_dim)
    weights : int8 array, shape (heads, m, 2, coordinates that words of codes hold)
    bounds : float64 array, shape (heads, m, 3)
        Filled.
    """
    for h in range(queries.shape[0]):
        aims = aim_queries(head_at(heads, first + h, TILE), queries[h])
        bounds[h] = aims.bounds
        for q in range(queries.shape[1]):
            weights[h, q, 0], weights[h, q, 1] = aims.weights[2 * q], aims.weights[2 * q + 1]


class Asked(NamedTuple):
    """Queries of some heads, those of one side by side: as kernels take them."""

    head: int  # the first of the heads
    m: int  # queries of each
    queries: object  # (rows, head_dim) float64
    lengths: object  # (rows,) int64
    weights: object  # (rows, 2, words) int32
    bounds: object  # (rows, 3) float64
    errors: object  # (rows,) float64
    uncoded: np.ndarray  # int64, on the host: tiles with keys that have no code
    host_lengths: np.ndarray
    host_bounds: np.ndarray
