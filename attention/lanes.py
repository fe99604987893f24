"""64 products at a time: which reach a bar, and the largest of them.

LLVM's vectors of 64 lanes become what instructions the processor has: on AVX-512 four comparisons
make a mask that plain loops over bits take some fifty instructions for.
"""

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from halfspace.jit import part
from halfspace.tiles import TILE

_WORD, _MASK = ir.IntType(32), ir.IntType(TILE)
_VECTOR = ir.VectorType(_WORD, TILE)


def _load(context, builder, signature, arguments):  # pragma: no cover (runs while compiling)
    """Lanes from an offset of an array on."""
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    address = builder.gep(array.data, [arguments[1]])
    loaded = builder.load(builder.bitcast(address, _VECTOR.as_pointer()))
    loaded.align = 4
    return loaded


@intrinsic
def _reaching(typing_context, row, start, bar):  # pragma: no cover (runs while compiling)
    def generate(context, builder, signature, arguments):
        none = ir.Constant(_VECTOR, ir.Undefined)
        first = builder.insert_element(none, arguments[2], _WORD(0))
        bars = builder.shuffle_vector(first, none, ir.Constant(_VECTOR, [0] * TILE))
        lanes = builder.icmp_signed(">=", _load(context, builder, signature, arguments), bars)
        return builder.bitcast(lanes, _MASK)

    return types.uint64(row, types.int64, types.int32), generate


@intrinsic
def _most(typing_context, row, start):  # pragma: no cover (runs while compiling)
    def generate(context, builder, signature, arguments):
        kind = ir.FunctionType(_WORD, [_VECTOR])
        name = f"llvm.vector.reduce.smax.v{TILE}i32"
        reduce = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(reduce, [_load(context, builder, signature, arguments)])

    return types.int32(row, types.int64), generate


@part(inline=True)
def _reaching_compiled(row, start, bar):  # pragma: no cover (compiled code only)
    return _reaching(row, start, bar)


def _reaching_interpreted(row, start, bar):
    bits = np.packbits(row[start : start + TILE] >= bar, bitorder="little")
    return bits.view(np.uint64)[0]


@part(inline=True)
def _most_compiled(row, start):  # pragma: no cover (compiled code only)
    return _most(row, start)


def _most_interpreted(row, start):
    return row[start : start + TILE].max()


reaching = _reaching_interpreted if config.DISABLE_JIT else _reaching_compiled
"""Mask of the 64 lanes of an int32 array, from `start` on, that are at least `bar`."""

largest_lane = _most_interpreted if config.DISABLE_JIT else _most_compiled
"""Largest of the 64 lanes of an int32 array from `start` on."""
