"""Integer products of a tile's codes with queries: 64 lanes against a bar, by one mask.

Codes and queries lie as `code_rows.py` says. The products are exact (255 * 127 a coordinate: 32
bits hold the sum for d < 66 000, and a basis of that size is 50 GB), so whatever adds them up gives
the same mask: the instructions of `dot_emitters.py` where the processor has any, or plain loops.
"""

from typing import NamedTuple

import numpy as np

from .code_rows import FINER
from .dot_instruction import (
    DOT,
    block_by_4,
    block_by_6,
    block_by_8,
    fill_one,
    fill_two,
    one_by_4,
    one_by_6,
    one_by_8,
    products_by_4,
    products_by_6,
    products_by_8,
)
from .jit import kernel, part
from .prefetch import prefetch
from .tiles import TILE, lowest_lane

AHEAD = 32
"""Rows of codes that are on their way from memory while others are multiplied."""

_ONE = np.uint64(1)


@part(inline=True)
def rows_ahead(t, first, left, rows, every):
    """How far ahead of tile t, of so many rows, memory is to be asked for what is read next.

    Those that are read after t are `left` of the word of tile `first`, or `every` tile is.
    """
    if every:
        return AHEAD
    for _ in range(AHEAD // rows - 1):
        left &= left - _ONE
    return (first + lowest_lane(left) - t) * rows if left else 0


@part
def _survivors_by_instruction(  # pragma: no cover (compiled code only)
    codes, t, ahead, normals, q, count, bars, bits, sums, out
):
    if bits == 4:
        if count == 1:
            one_by_4(codes, t, ahead, normals, q, bars, out)
        else:
            block_by_4(codes, t, ahead, normals, q, bars, out)
    elif bits == 6:
        if count == 1:
            one_by_6(codes, t, ahead, normals, q, bars, out)
        else:
            block_by_6(codes, t, ahead, normals, q, bars, out)
    elif count == 1:
        one_by_8(codes, t, ahead, normals, q, bars, out)
    else:
        block_by_8(codes, t, ahead, normals, q, bars, out)


@kernel
def make_sums():
    """Scratch of `survivors`."""
    return np.empty(TILE, np.int32)


class Errand(NamedTuple):
    """Rows that memory is asked for beside what is read, some at a time: it drops what is much."""

    first: int  # of a list of slots
    last: int
    each: int  # a tile
    base: int  # address of row 0
    size: int  # bytes of a row


@part
def _sweep_by_instruction(  # pragma: no cover (compiled code only)
    codes, first, wanted, last, every, normals, bars, bits, sums, out, slots, errand
):
    left, rows, some, at = wanted, codes.shape[1], np.uint64(0), errand.first
    while left and lowest_lane(left) < last:
        bit = lowest_lane(left)
        left &= left - _ONE
        t, to = first + bit, out[bit : bit + 1]
        ahead = rows_ahead(t, first, left, rows, every)
        if bits == 4:
            one_by_4(codes, t, ahead, normals, 0, bars, to)
        elif bits == 6:
            one_by_6(codes, t, ahead, normals, 0, bars, to)
        else:
            one_by_8(codes, t, ahead, normals, 0, bars, to)
        some |= np.uint64(to[0] != 0) << np.uint64(bit)
        for _ in range(errand.each):
            prefetch(errand.base + errand.size * slots[min(at, errand.last - 1)], errand.size)
            at += 1
    return some


@part(inline=True)
def _add_products(codes, t, row, shift, most, scale, weights, i, first, sums):
    """Add the products with four coordinates from `first` on, at `shift` of a row."""
    for j in range(4):
        weight = np.int32(weights[i, first + j]) * scale
        for lane in range(TILE):
            sums[lane] += ((np.int32(codes[t, row, 4 * lane + j]) >> shift) & most) * weight


@part
def _products_by_loops(codes, t, normals, i, bits, sums):
    """Fill the 64 sums of tile t with query i."""
    for lane in range(TILE):
        sums[lane] = 0
    _add_products_by_loops(codes, t, normals, i, bits, sums)


@part
def _add_products_by_loops(codes, t, normals, i, bits, sums):
    """Add to the 64 sums of tile t with query i."""
    one, two, three, four = np.int32(1), np.int32(2), np.int32(3), np.int32(4)
    for row in range(codes.shape[1]):
        if bits == 8:
            _add_products(codes, t, row, np.int32(0), np.int32(255), one, normals, i, 4 * row, sums)
        elif bits == 4 or row % 3 < 2:
            first = 8 * row if bits == 4 else 16 * (row // 3) + 8 * (row % 3)
            scale, most = one if bits == 4 else four, np.int32(15)
            for half in range(2):
                shift = np.int32(4 * half)
                _add_products(codes, t, row, shift, most, scale, normals, i, first + 4 * half, sums)
        else:
            for k in range(4):
                shift = two * np.int32(k)
                first = 16 * (row // 3) + 4 * k
                _add_products(codes, t, row, shift, three, one, normals, i, first, sums)


@part
def survivors_by_loops(codes, t, ahead, normals, q, count, bars, bits, sums, out):
    """`survivors` in plain loops."""
    for i in range(q, q + count):
        _products_by_loops(codes, t, normals, i, bits, sums)
        mask = np.uint64(0)
        for lane in range(TILE):
            mask |= np.uint64(sums[lane] >= bars[i]) << np.uint64(lane)
        out[i - q] = mask


@part
def sweep_by_loops(
    codes, first, wanted, last, every, normals, bars, bits, sums, out, slots, errand
):
    """`sweep` in plain loops."""
    left, some = wanted, np.uint64(0)
    while left and lowest_lane(left) < last:
        bit = lowest_lane(left)
        left &= left - _ONE
        survivors_by_loops(codes, first + bit, 0, normals, 0, 1, bars, bits, sums, out[bit:])
        some |= np.uint64(out[bit] != 0) << np.uint64(bit)
    return some


@part
def _products_by_instruction(  # pragma: no cover (compiled code only)
    codes, t, ahead, normals, q, bits, out
):
    if bits == 4:
        products_by_4(codes, t, ahead, normals, q, out)
    elif bits == 6:
        products_by_6(codes, t, ahead, normals, q, out)
    else:
        products_by_8(codes, t, ahead, normals, q, out)


@part
def products_by_loops(codes, t, ahead, normals, q, bits, out):
    """`products` in plain loops."""
    _products_by_loops(codes, t, normals, q, bits, out[t * TILE : (t + 1) * TILE])


@part
def _paired_by_instruction(  # pragma: no cover (compiled code only)
    codes, t, ahead, normals, q, count, out
):
    if count == 1:
        fill_one(codes, t, ahead, normals, q, out)
    else:
        for i in range(0, count, 2):
            fill_two(codes, t, ahead, normals, q + i, out[i : i + 2])


@part
def paired_by_loops(codes, t, ahead, normals, q, count, out):
    """`paired_products` in plain loops."""
    for i in range(count):
        sums = out[i, t * TILE : (t + 1) * TILE]
        _products_by_loops(codes, t, normals, 2 * (q + i), 8, sums)
        for lane in range(TILE):
            sums[lane] *= np.int32(FINER)
        _add_products_by_loops(codes, t, normals, 2 * (q + i) + 1, 8, sums)


survivors = _survivors_by_instruction if DOT else survivors_by_loops
"""Masks of the lanes of tile t whose product with each of some queries reaches its bar.

Parameters
----------
codes : uint8 array, shape (tiles, rows, 256)
    At least one row; whole groups.
t, ahead : int
    The tile, and how many rows ahead of it memory is asked for; 0 asks for none.
normals : int8 array, shape (queries, coordinates that the rows hold)
q, count : int
    The first query, and how many: 1 or `BLOCK`.
bars : int32 array, shape (queries,)
bits : int
    4, 6 or 8.
sums : int32 array, shape (64,)
    Scratch.
out : uint64 array, shape (BLOCK,)
"""

sweep = _sweep_by_instruction if DOT else sweep_by_loops
"""Masks of some of 64 tiles for the first query: `out[i]` for each bit i < `last` of `wanted`.

Returned are those bits whose masks are not zero.

Parameters
----------
codes, normals, bars, bits, sums
    As for `survivors`.
first : int
    The tile of bit 0.
wanted : uint64
    Tiles to be read, and no others; from `last` on, those that will be read next.
last : int
every : bool
    Whether that is every tile, and of the next 64 as well.
out : uint64 array, shape (64,)
slots, errand : int64 array, Errand
    What else memory is asked for.
"""

products = _products_by_instruction if DOT else products_by_loops
"""Products of all lanes of tile t with query q.

Parameters
----------
codes, t, ahead, normals, bits
    As for `survivors`.
q : int
out : int32 array, shape (at least 64 tiles,)
    From 64 t on.
"""

paired_products = _paired_by_instruction if DOT else paired_by_loops
"""Products of all lanes of tile t with some queries of twice the digits, codes of 8 bits.

Parameters
----------
codes, t, ahead
    As for `survivors`.
normals : int8 array, shape (2 queries, coordinates that the rows hold)
    A query is 64 times row 2 q and row 2 q + 1.
q, count : int
    The first query, and how many: 1 or an even number.
out : int32 array, shape (at least `count`, at least 64 tiles)
    Row i, from 64 t on: products with query q + i.
"""
