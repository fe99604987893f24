"""Kernels of `integer_dot.py` as intrinsics of Numba, by the instructions of `dot_emitters.py`."""

from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .code_rows import BLOCK, ROW
from .dot_emitters import Emitter, best_emitter
from .tiles import TILE

DOT = best_emitter()
"""What the processor has; None where plain loops are all there is."""


def _sums(context, builder, signature, arguments, emitter, queries, digits):  # pragma: no cover
    """Products of a tile with queries, of codes, t, ahead, normals and q, the first arguments.

    With them, the places of the queries, and the addresses of arrays by place of the argument.
    """
    arrays = {
        i: context.make_array(kind)(context, builder, arguments[i])
        for i, kind in enumerate(signature.args)
        if isinstance(kind, types.Array)
    }
    start = {i: builder.ptrtoint(array.data, emitter.address) for i, array in arrays.items()}
    rows = cgutils.unpack_tuple(builder, arrays[0].shape)[1]
    width = cgutils.unpack_tuple(builder, arrays[3].shape)[1]
    size = builder.mul(rows, emitter.address(ROW))
    tile = builder.add(start[0], builder.mul(arguments[1], size))
    ahead = builder.mul(arguments[2], emitter.address(ROW))
    places = [builder.add(arguments[4], emitter.address(i)) for i in range(queries)]
    each = []
    for place in places:
        row = builder.mul(place, emitter.address(digits))
        rows_of = [builder.add(row, emitter.address(i)) for i in range(digits)]
        each.append(tuple(builder.add(start[3], builder.mul(at, width)) for at in rows_of))
    return emitter.products(tile, ahead, rows, each), places, start, arrays


def mask_instruction(kind: type[Emitter], queries: int, bits: int):
    """`survivors` for so many queries."""

    @intrinsic
    def masks(typing_context, codes, t, ahead, normals, q, bars, out):  # pragma: no cover
        def generate(context, builder, signature, arguments):
            emitter = kind(builder, bits)
            sums, places, start, _ = _sums(
                context, builder, signature, arguments, emitter, queries, 1
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


def pair_instruction(kind: type[Emitter], queries: int):
    """`paired_products` for so many queries."""

    @intrinsic
    def fill(typing_context, codes, t, ahead, normals, q, out):  # pragma: no cover
        def generate(context, builder, signature, arguments):
            emitter = kind(builder, 8)
            sums, _, start, arrays = _sums(
                context, builder, signature, arguments, emitter, queries, 2
            )
            width = cgutils.unpack_tuple(builder, arrays[5].shape)[1]
            first = builder.mul(arguments[1], emitter.address(TILE))
            for i in range(queries):
                at = builder.add(builder.mul(width, emitter.address(i)), first)
                to = builder.add(start[5], builder.mul(at, emitter.address(4)))
                emitter.store(sums[i], to)
            return context.get_dummy_value()

        index = types.int64
        return types.void(codes, index, index, normals, index, out), generate

    return fill


def product_instruction(kind: type[Emitter], bits: int):
    """`products`."""

    @intrinsic
    def fill(typing_context, codes, t, ahead, normals, q, out):  # pragma: no cover
        def generate(context, builder, signature, arguments):
            emitter = kind(builder, bits)
            sums, _, start, _ = _sums(context, builder, signature, arguments, emitter, 1, 1)
            first = builder.mul(arguments[1], emitter.address(4 * TILE))
            emitter.store(sums[0], builder.add(start[5], first))
            return context.get_dummy_value()

        index = types.int64
        return types.void(codes, index, index, normals, index, out), generate

    return fill


one_by_4, one_by_6, one_by_8 = (mask_instruction(DOT, 1, bits) for bits in (4, 6, 8))
block_by_4, block_by_6, block_by_8 = (mask_instruction(DOT, BLOCK, bits) for bits in (4, 6, 8))
products_by_4, products_by_6, products_by_8 = (product_instruction(DOT, bits) for bits in (4, 6, 8))
fill_one, fill_two = (pair_instruction(DOT, count) for count in (1, 2))
