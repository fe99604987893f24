"""Ask for memory before it is needed: for kernels that read rows here and there."""

from collections.abc import Callable

from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import has_feature, part
from .tiles import LINE

AHEAD_BYTES, LEAST_AHEAD, MOST_AHEAD = 6144, 8, 48
"""Rows that are asked for before their turn are so many bytes in all, and so many rows."""

ANY_CACHE, NEAREST_CACHE = 1, 3
"""How near to keep what was asked for, in LLVM's terms."""


def emit_prefetch(  # pragma: no cover (runs while compiling)
    builder: ir.IRBuilder, address: ir.Value, nearness: int
) -> None:
    """Ask for the line of cache at an address, in the code that a builder writes."""
    pointer, flag = builder.inttoptr(address, ir.IntType(8).as_pointer()), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # To be read; data.
    builder.call(function, [pointer, flag(0), flag(nearness), flag(1)])


def _prefetching(nearness: int) -> Callable:
    """Make the instruction that asks for a line of cache."""

    @intrinsic
    def ask(typing_context, address):  # pragma: no cover (runs while compiling)
        def generate(context, builder, signature, arguments):
            emit_prefetch(builder, arguments[0], nearness)
            return context.get_dummy_value()

        return types.void(types.int64), generate

    return ask


_ask_any_cache, _ask_nearest_cache = _prefetching(ANY_CACHE), _prefetching(NEAREST_CACHE)


@part(inline=True)
def _prefetch(address, size):  # pragma: no cover (compiled code only)
    # Near caches are busy with what streams by.
    for line in range(address // LINE, (address + size - 1) // LINE + 1):
        _ask_any_cache(line * LINE)


@part(inline=True)
def _prefetch_near(address, size):  # pragma: no cover (compiled code only)
    for line in range(address // LINE, (address + size - 1) // LINE + 1):
        _ask_nearest_cache(line * LINE)


@part(inline=True)
def _no_prefetch(address, size):
    """Ask for nothing: interpreted code, or a processor that is slower for being asked."""


EARLY = has_feature("avx512vnni")
"""Whether to ask for rows while others are read, or just before their turn.

Of processors with VNNI one was measured to gain by the former (Zen 4), of those without one to
lose a tenth (Zen 3).
"""

prefetch = _prefetch if EARLY else _no_prefetch
"""Ask early for so many bytes of memory, at least one, from an address on."""

_near = _no_prefetch if config.DISABLE_JIT else _prefetch_near


@part(inline=True)
def prefetch_row(rows, i):
    """Ask for row i of a contiguous array (n, d), as near as can be: it is read in a moment."""
    size = rows.shape[1] * rows.itemsize
    _near(rows.ctypes.data + i * size, size)


@part(inline=True)
def rows_ahead(rows):
    """How many rows of an array to ask for before their turn."""
    return min(max(AHEAD_BYTES // (rows.shape[1] * rows.itemsize), LEAST_AHEAD), MOST_AHEAD)
