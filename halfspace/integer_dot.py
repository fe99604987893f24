"""Integer products of a tile's codes with queries: 64 lanes against a bar, by one mask.

A tile of codes is rows of 256 bytes, four to each of 64 lanes. With codes of 8 bits a row holds
four coordinates, with 4 bits eight, the first four in the low halves. With 6 bits three rows hold
sixteen: two of them the upper bits as rows of nibbles do, the third the lower two, those of the
first four coordinates lowest. A query is signed bytes in the order of the coordinates. The products
are exact (255 * 127 a coordinate: 32 bits hold the sum for d < 66 000, and a basis of that size is
50 GB), so whatever adds them up gives the same mask: `vpdpbusd` where the processor has it (AVX-512
VNNI; 64 products an instruction), plain loops elsewhere.

Instructions so wide see little ahead, and processors guess badly where tiles are left out: each
load asks memory for what is so many rows ahead, which makes reading up to twice as fast.
"""

from typing import NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import kernel, part
from .prefetch import prefetch
from .tiles import TILE, lowest_lane

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

AHEAD = 32
"""Rows of codes that are on their way from memory while others are multiplied."""

_LANES = 16  # of one instruction
_ONE = np.uint64(1)


@part
def room_of(rows, bits):
    """Coordinates that so many rows hold, whole groups."""
    if bits == 6:
        return rows // 3 * 16
    return rows * (8 if bits == 4 else 4)


def has_dot_instruction() -> bool:
    """Whether kernels are compiled for a processor with `vpdpbusd` on 512 bits."""
    if config.DISABLE_JIT:
        return False
    if config.CPU_FEATURES is not None or config.CPU_NAME:
        return "+avx512vnni" in (config.CPU_FEATURES or "")
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512vnni"))


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


class _Emitter:  # pragma: no cover (it runs where kernels are compiled)
    """The instructions of `survivors` for so many queries, as LLVM's."""

    word, address = ir.IntType(32), ir.IntType(64)
    vector = ir.VectorType(word, _LANES)

    def __init__(self, builder: ir.IRBuilder, queries: int, bits: int) -> None:
        self.builder, self.queries, self.bits = builder, queries, bits
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = "llvm.x86.avx512.vpdpbusd.512"
        self.dot = cgutils.get_or_insert_function(builder.module, kind, name)

    def ask_for(self, address: ir.Value) -> None:
        """Ask memory for what will be loaded."""
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, self.word, self.word, self.word])
        ask = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        # To be read, in the nearest cache, data.
        flags = self.word(0), self.word(3), self.word(1)
        self.builder.call(ask, [self.builder.inttoptr(address, pointer), *flags])

    def load(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        loaded = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        loaded.align = 1
        return loaded

    def spread(self, value: ir.Value) -> ir.Value:
        """Give all lanes the value."""
        none = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(none, value, self.word(0))
        return self.builder.shuffle_vector(first, none, ir.Constant(self.vector, [0] * _LANES))

    def cut(self, value: ir.Value, shift: int, most: int) -> ir.Value:
        """Shift bytes down, or up by -shift, and keep what bits of each `most` has."""
        by = ir.Constant(self.vector, [abs(shift)] * _LANES)
        shifted = self.builder.lshr(value, by) if shift > 0 else self.builder.shl(value, by)
        return self.builder.and_(shifted, ir.Constant(self.vector, [most * 0x01010101] * _LANES))

    def codes(self, address: ir.Value, ahead: ir.Value) -> list[ir.Value]:
        """Codes of 16 lanes of a group of rows, four coordinates each.

        What is so many bytes ahead is asked for.
        """
        places = [
            self.builder.add(address, self.address(ROW * i)) for i in range(GROUPS[self.bits][0])
        ]
        for place in places:
            self.ask_for(self.builder.add(place, ahead))
        rows = [self.load(place, self.vector) for place in places]
        if self.bits == 8:
            return rows
        if self.bits == 4:
            return [self.cut(rows[0], 0, 15), self.cut(rows[0], 4, 15)]
        upper = [self.cut(rows[i // 2], 2 if i % 2 else -2, 60) for i in range(4)]
        lower = [self.cut(rows[2], 2 * i, 3) for i in range(4)]
        return [self.builder.or_(*each) for each in zip(upper, lower, strict=True)]

    def products(
        self, tile: ir.Value, ahead: ir.Value, rows: ir.Value, queries: list[ir.Value]
    ) -> list[ir.Value]:
        """Loop over groups of rows of a tile; sums of 4 x 16 lanes a query."""
        builder, count, (size, _) = self.builder, TILE // _LANES, GROUPS[self.bits]
        before = builder.block
        body, after = builder.append_basic_block("rows"), builder.append_basic_block("rows.done")
        builder.branch(body)
        builder.position_at_end(body)
        row = builder.phi(self.address)
        row.add_incoming(self.address(0), before)
        sums = [builder.phi(self.vector) for _ in range(self.queries * count)]
        at = builder.add(tile, builder.mul(row, self.address(ROW)))
        parts = [
            self.codes(builder.add(at, self.address(4 * _LANES * i)), ahead) for i in range(count)
        ]
        step, results = len(parts[0]), list(sums)
        for q, query in enumerate(queries):
            for half in range(step):
                first = builder.mul(builder.udiv(row, self.address(size)), self.address(4 * step))
                place = builder.add(first, self.address(4 * half))
                weights = self.spread(self.load(builder.add(query, place), self.word))
                for i in range(count):
                    s = q * count + i
                    results[s] = builder.call(self.dot, [results[s], parts[i][half], weights])
        beyond = builder.add(row, self.address(size))
        row.add_incoming(beyond, builder.block)
        for total, result in zip(sums, results, strict=True):
            total.add_incoming(ir.Constant(self.vector, [0] * _LANES), before)
            total.add_incoming(result, builder.block)
        builder.cbranch(builder.icmp_unsigned("<", beyond, rows), body, after)
        builder.position_at_end(after)
        return results

    def store(self, sums: list[ir.Value], to: ir.Value) -> None:
        """Write the sums of 64 lanes."""
        for i, total in enumerate(sums):
            at = self.builder.add(to, self.address(4 * _LANES * i))
            store = self.builder.store(total, self.builder.inttoptr(at, self.vector.as_pointer()))
            store.align = 4

    def mask(self, sums: list[ir.Value], bar: ir.Value) -> ir.Value:
        """Lanes whose sums reach the bar."""
        builder, mask = self.builder, self.address(0)
        for i, total in enumerate(sums):
            lanes = builder.icmp_signed(">=", total, self.spread(bar))
            lanes = builder.zext(builder.bitcast(lanes, ir.IntType(_LANES)), self.address)
            mask = builder.or_(mask, builder.shl(lanes, self.address(_LANES * i)))
        return mask


def _sums(context, builder, signature, arguments, queries, bits):  # pragma: no cover (as above)
    """An emitter and the products of a tile with queries: codes, t, ahead, normals and q first.

    The addresses of the arrays among the rest of the arguments come with them.
    """
    arrays = {
        i: context.make_array(kind)(context, builder, arguments[i])
        for i, kind in enumerate(signature.args)
        if isinstance(kind, types.Array)
    }
    emitter = _Emitter(builder, queries, bits)
    start = {i: builder.ptrtoint(array.data, emitter.address) for i, array in arrays.items()}
    rows = cgutils.unpack_tuple(builder, arrays[0].shape)[1]
    width = cgutils.unpack_tuple(builder, arrays[3].shape)[1]
    size = builder.mul(rows, emitter.address(ROW))
    tile = builder.add(start[0], builder.mul(arguments[1], size))
    ahead = builder.mul(arguments[2], emitter.address(ROW))
    places = [builder.add(arguments[4], emitter.address(i)) for i in range(queries)]
    each = [builder.add(start[3], builder.mul(place, width)) for place in places]
    sums = emitter.products(tile, ahead, rows, each)
    lanes = TILE // _LANES
    by_query = [sums[i * lanes : (i + 1) * lanes] for i in range(queries)]
    return emitter, by_query, places, start, arrays


def _mask_instruction(queries: int, bits: int):  # pragma: no cover (as above)
    """`survivors` for so many queries, in instructions."""

    @intrinsic
    def masks(typing_context, codes, t, ahead, normals, q, bars, out):
        def generate(context, builder, signature, arguments):
            emitter, sums, places, start, _ = _sums(
                context, builder, signature, arguments, queries, bits
            )
            for i, place in enumerate(places):
                bar = builder.add(start[5], builder.mul(place, emitter.address(4)))
                mask = emitter.mask(sums[i], emitter.load(bar, emitter.word))
                to = builder.add(start[6], emitter.address(8 * i))
                builder.store(mask, builder.inttoptr(to, emitter.address.as_pointer()))
            return context.get_dummy_value()

        index = types.int64
        return types.void(codes, index, index, normals, index, bars, out), generate

    return masks


def _pair_instruction(queries: int):  # pragma: no cover (as above)
    """`paired_products` for so many queries, in instructions."""

    @intrinsic
    def fill(typing_context, codes, t, ahead, normals, q, out):
        def generate(context, builder, signature, arguments):
            doubled = [*arguments]
            doubled[4] = builder.mul(arguments[4], ir.Constant(arguments[4].type, 2))
            emitter, sums, _, start, arrays = _sums(
                context, builder, signature, doubled, 2 * queries, 8
            )
            width = cgutils.unpack_tuple(builder, arrays[5].shape)[1]
            first = builder.mul(arguments[1], emitter.address(TILE))
            finer = ir.Constant(emitter.vector, [FINER] * _LANES)
            for i in range(queries):
                coarse, fine = sums[2 * i : 2 * i + 2]
                both = [
                    builder.add(builder.mul(a, finer), b) for a, b in zip(coarse, fine, strict=True)
                ]
                at = builder.add(builder.mul(width, emitter.address(i)), first)
                emitter.store(both, builder.add(start[5], builder.mul(at, emitter.address(4))))
            return context.get_dummy_value()

        index = types.int64
        return types.void(codes, index, index, normals, index, out), generate

    return fill


def _product_instruction(bits: int):  # pragma: no cover (as above)
    """`products` in instructions."""

    @intrinsic
    def fill(typing_context, codes, t, ahead, normals, q, out):
        def generate(context, builder, signature, arguments):
            emitter, sums, _, start, _ = _sums(context, builder, signature, arguments, 1, bits)
            first = builder.mul(arguments[1], emitter.address(4 * TILE))
            emitter.store(sums[0], builder.add(start[5], first))
            return context.get_dummy_value()

        index = types.int64
        return types.void(codes, index, index, normals, index, out), generate

    return fill


_one_by_4, _one_by_6, _one_by_8 = (_mask_instruction(1, bits) for bits in (4, 6, 8))
_block_by_4, _block_by_6, _block_by_8 = (_mask_instruction(BLOCK, bits) for bits in (4, 6, 8))
_products_by_4, _products_by_6, _products_by_8 = map(_product_instruction, (4, 6, 8))
_fill_one, _fill_two = (_pair_instruction(count) for count in (1, 2))


@part
def _survivors_by_instruction(  # pragma: no cover (compiled code only)
    codes, t, ahead, normals, q, count, bars, bits, sums, out
):
    if bits == 4:
        if count == 1:
            _one_by_4(codes, t, ahead, normals, q, bars, out)
        else:
            _block_by_4(codes, t, ahead, normals, q, bars, out)
    elif bits == 6:
        if count == 1:
            _one_by_6(codes, t, ahead, normals, q, bars, out)
        else:
            _block_by_6(codes, t, ahead, normals, q, bars, out)
    elif count == 1:
        _one_by_8(codes, t, ahead, normals, q, bars, out)
    else:
        _block_by_8(codes, t, ahead, normals, q, bars, out)


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
            _one_by_4(codes, t, ahead, normals, 0, bars, to)
        elif bits == 6:
            _one_by_6(codes, t, ahead, normals, 0, bars, to)
        else:
            _one_by_8(codes, t, ahead, normals, 0, bars, to)
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
        _products_by_4(codes, t, ahead, normals, q, out)
    elif bits == 6:
        _products_by_6(codes, t, ahead, normals, q, out)
    else:
        _products_by_8(codes, t, ahead, normals, q, out)


@part
def products_by_loops(codes, t, ahead, normals, q, bits, out):
    """`products` in plain loops."""
    _products_by_loops(codes, t, normals, q, bits, out[t * TILE : (t + 1) * TILE])


@part
def _paired_by_instruction(  # pragma: no cover (compiled code only)
    codes, t, ahead, normals, q, count, out
):
    if count == 1:
        _fill_one(codes, t, ahead, normals, q, out)
    else:
        for i in range(0, count, 2):
            _fill_two(codes, t, ahead, normals, q + i, out[i : i + 2])


@part
def paired_by_loops(codes, t, ahead, normals, q, count, out):
    """`paired_products` in plain loops."""
    for i in range(count):
        sums = out[i, t * TILE : (t + 1) * TILE]
        _products_by_loops(codes, t, normals, 2 * (q + i), 8, sums)
        for lane in range(TILE):
            sums[lane] *= np.int32(FINER)
        _add_products_by_loops(codes, t, normals, 2 * (q + i) + 1, 8, sums)


survivors = _survivors_by_instruction if has_dot_instruction() else survivors_by_loops
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

sweep = _sweep_by_instruction if has_dot_instruction() else sweep_by_loops
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

products = _products_by_instruction if has_dot_instruction() else products_by_loops
"""Products of all lanes of tile t with query q.

Parameters
----------
codes, t, ahead, normals, bits
    As for `survivors`.
q : int
out : int32 array, shape (at least 64 tiles,)
    From 64 t on.
"""

paired_products = _paired_by_instruction if has_dot_instruction() else paired_by_loops
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
