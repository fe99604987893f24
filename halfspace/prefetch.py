"""Ask for memory before it is needed: for kernels that read rows here and there."""

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import part
from .tiles import LINE


@intrinsic
def _prefetch_byte(typing_context, array, byte):  # pragma: no cover (runs while compiling)
    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.ptrtoint(data, ir.IntType(64))
        pointer = builder.inttoptr(builder.add(address, arguments[1]), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To be read, kept in the last cache: near ones are busy with what streams by; data.
        builder.call(ask, [pointer, flag(0), flag(1), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@part(inline=True)
def _prefetch_row(rows, i):  # pragma: no cover (compiled code only)
    size = rows.shape[1] * rows.itemsize
    for byte in range(i * size, (i + 1) * size, LINE):
        _prefetch_byte(rows, byte)
    _prefetch_byte(rows, (i + 1) * size - 1)


def _no_prefetch(rows, i):
    """Interpreted code has no use for it."""


prefetch_row = _no_prefetch if config.DISABLE_JIT else _prefetch_row
"""Ask for row i of a contiguous array (n, d)."""
