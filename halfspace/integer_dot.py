"""Integer products of a tile's codes with queries: 64 lanes against a bar, by one mask.

A tile of codes is rows of 256 bytes, four to each of 64 lanes: with bytes for codes a row holds
four coordinates, with nibbles eight, the first four in the low halves. A query is signed bytes in
the order of the coordinates. The products are exact (255 * 127 a coordinate: 32 bits hold the sum
for d < 66 000, and a basis of that size is 50 GB), so whatever adds them up gives the same mask:
`vpdpbusd` where the processor has it (AVX-512 VNNI; 64 products an instruction), plain loops
elsewhere.
"""

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import part
from .tiles import TILE

ROW = 4 * TILE
"""Bytes of a row of codes."""

BLOCK = 4
"""Queries that share what is loaded of a tile."""

MOST_BYTE, MOST_NIBBLE, MOST_QUERY = 255, 15, 127
"""Largest codes of points, and of queries."""

_LANES = 16  # of one instruction


def has_dot_instruction() -> bool:
    """Whether kernels are compiled for a processor with `vpdpbusd` on 512 bits."""
    if config.DISABLE_JIT:
        return False
    if config.CPU_FEATURES is not None or config.CPU_NAME:
        return "+avx512vnni" in (config.CPU_FEATURES or "")
    return bool(llvmlite.binding.get_host_cpu_features().get("avx512vnni"))


class _Emitter:  # pragma: no cover (it runs where kernels are compiled)
    """The instructions of `survivors` for so many queries, as LLVM's."""

    word, address = ir.IntType(32), ir.IntType(64)
    vector = ir.VectorType(word, _LANES)

    def __init__(self, builder: ir.IRBuilder, queries: int, nibbles: bool) -> None:
        self.builder, self.queries, self.nibbles = builder, queries, nibbles
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        name = "llvm.x86.avx512.vpdpbusd.512"
        self.dot = cgutils.get_or_insert_function(builder.module, kind, name)

    def load(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        loaded = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        loaded.align = 1
        return loaded

    def spread(self, value: ir.Value) -> ir.Value:
        """Give all lanes the value."""
        none = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(none, value, self.word(0))
        return self.builder.shuffle_vector(first, none, ir.Constant(self.vector, [0] * _LANES))

    def codes(self, address: ir.Value) -> list[ir.Value]:
        """Codes of 16 lanes of a row: all, or low and high nibbles."""
        loaded = self.load(address, self.vector)
        if not self.nibbles:
            return [loaded]
        low = ir.Constant(self.vector, [0x0F0F0F0F] * _LANES)
        shifted = self.builder.lshr(loaded, ir.Constant(self.vector, [4] * _LANES))
        return [self.builder.and_(loaded, low), self.builder.and_(shifted, low)]

    def products(self, tile: ir.Value, rows: ir.Value, queries: list[ir.Value]) -> list[ir.Value]:
        """Loop over the rows of a tile; sums of 4 x 16 lanes a query."""
        builder, count = self.builder, TILE // _LANES
        before = builder.block
        body, after = builder.append_basic_block("rows"), builder.append_basic_block("rows.done")
        builder.branch(body)
        builder.position_at_end(body)
        row = builder.phi(self.address)
        row.add_incoming(self.address(0), before)
        sums = [builder.phi(self.vector) for _ in range(self.queries * count)]
        at = builder.add(tile, builder.mul(row, self.address(ROW)))
        parts = [self.codes(builder.add(at, self.address(4 * _LANES * i))) for i in range(count)]
        step, results = len(parts[0]), list(sums)
        for q, query in enumerate(queries):
            for half in range(step):
                place = builder.add(
                    builder.mul(row, self.address(4 * step)), self.address(4 * half)
                )
                weights = self.spread(self.load(builder.add(query, place), self.word))
                for i in range(count):
                    s = q * count + i
                    results[s] = builder.call(self.dot, [results[s], parts[i][half], weights])
        beyond = builder.add(row, self.address(1))
        row.add_incoming(beyond, builder.block)
        for total, result in zip(sums, results, strict=True):
            total.add_incoming(ir.Constant(self.vector, [0] * _LANES), before)
            total.add_incoming(result, builder.block)
        builder.cbranch(builder.icmp_unsigned("<", beyond, rows), body, after)
        builder.position_at_end(after)
        return results

    def mask(self, sums: list[ir.Value], bar: ir.Value) -> ir.Value:
        """Lanes whose sums reach the bar."""
        builder, mask = self.builder, self.address(0)
        for i, total in enumerate(sums):
            lanes = builder.icmp_signed(">=", total, self.spread(bar))
            lanes = builder.zext(builder.bitcast(lanes, ir.IntType(_LANES)), self.address)
            mask = builder.or_(mask, builder.shl(lanes, self.address(_LANES * i)))
        return mask


def _instruction(queries: int, nibbles: bool):  # pragma: no cover (as above)
    """`survivors` for so many queries, in instructions."""

    @intrinsic
    def masks(typing_context, codes, t, normals, q, bars, out):
        def generate(context, builder, signature, arguments):
            arrays = {
                i: context.make_array(signature.args[i])(context, builder, arguments[i])
                for i in (0, 2, 4, 5)
            }
            emitter = _Emitter(builder, queries, nibbles)
            start = {
                i: builder.ptrtoint(array.data, emitter.address) for i, array in arrays.items()
            }
            rows = cgutils.unpack_tuple(builder, arrays[0].shape)[1]
            width = cgutils.unpack_tuple(builder, arrays[2].shape)[1]
            size = builder.mul(rows, emitter.address(ROW))
            tile = builder.add(start[0], builder.mul(arguments[1], size))
            places = [builder.add(arguments[3], emitter.address(i)) for i in range(queries)]
            each = [builder.add(start[2], builder.mul(place, width)) for place in places]
            sums = emitter.products(tile, rows, each)
            lanes = TILE // _LANES
            for i, place in enumerate(places):
                bar = builder.add(start[4], builder.mul(place, emitter.address(4)))
                mask = emitter.mask(
                    sums[i * lanes : (i + 1) * lanes], emitter.load(bar, emitter.word)
                )
                to = builder.add(start[5], emitter.address(8 * i))
                builder.store(mask, builder.inttoptr(to, emitter.address.as_pointer()))
            return context.get_dummy_value()

        return types.void(codes, types.int64, normals, types.int64, bars, out), generate

    return masks


_one_byte, _one_nibble = _instruction(1, False), _instruction(1, True)
_block_byte, _block_nibble = _instruction(BLOCK, False), _instruction(BLOCK, True)


@part
def _survivors_by_instruction(  # pragma: no cover (compiled code only)
    codes, t, normals, q, count, bars, nibbles, sums, out
):
    if nibbles:
        if count == 1:
            _one_nibble(codes, t, normals, q, bars, out)
        else:
            _block_nibble(codes, t, normals, q, bars, out)
    elif count == 1:
        _one_byte(codes, t, normals, q, bars, out)
    else:
        _block_byte(codes, t, normals, q, bars, out)


@part
def survivors_by_loops(codes, t, normals, q, count, bars, nibbles, sums, out):
    """`survivors` in plain loops."""
    low, four = np.int32(15), np.int32(4)
    for i in range(q, q + count):
        sums[:] = 0
        for row in range(codes.shape[1]):
            for j in range(4):
                if nibbles:
                    first = np.int32(normals[i, 8 * row + j])
                    second = np.int32(normals[i, 8 * row + 4 + j])
                    for lane in range(TILE):
                        code = np.int32(codes[t, row, 4 * lane + j])
                        sums[lane] += (code & low) * first + (code >> four) * second
                else:
                    first = np.int32(normals[i, 4 * row + j])
                    for lane in range(TILE):
                        sums[lane] += np.int32(codes[t, row, 4 * lane + j]) * first
        mask = np.uint64(0)
        for lane in range(TILE):
            mask |= np.uint64(sums[lane] >= bars[i]) << np.uint64(lane)
        out[i - q] = mask


survivors = _survivors_by_instruction if has_dot_instruction() else survivors_by_loops
"""Masks of the lanes of tile t whose product with each of some queries reaches its bar.

Parameters
----------
codes : uint8 array, shape (tiles, rows, 256)
    At least one row.
t : int
normals : int8 array, shape (queries, 4 * rows or 8 * rows)
q, count : int
    The first query, and how many: 1 or `BLOCK`.
bars : int32 array, shape (queries,)
nibbles : bool
sums : int32 array, shape (64,)
    Scratch.
out : uint64 array, shape (BLOCK,)
"""
