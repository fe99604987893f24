"""Ask for memory before it is needed: for kernels that read rows here and there."""

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import part
from .tiles import LINE


@intrinsic
def _prefetch_byte(typing_context, address):  # pragma: no cover (runs while compiling)
    def generate(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # To be read, kept in the last cache: near ones are busy with what streams by; data.
        builder.call(ask, [pointer, flag(0), flag(1), flag(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@part(inline=True)
def _prefetch(address, size):  # pragma: no cover (compiled code only)
    for line in range(address // LINE, (address + size - 1) // LINE + 1):
        _prefetch_byte(line * LINE)


def _no_prefetch(address, size):
    """Interpreted code has no use for it."""


prefetch = _no_prefetch if config.DISABLE_JIT else _prefetch
"""Ask for so many bytes of memory, at least one, from an address on."""


@part(inline=True)
def prefetch_row(rows, i):
    """Ask for row i of a contiguous array (n, d)."""
    size = rows.shape[1] * rows.itemsize
    prefetch(rows.ctypes.data + i * size, size)
