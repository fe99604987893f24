"""Integer products of codes by `vpdpbusd` (AVX-512 VNNI): 64 products an instruction.

What LLVM is told for the kernels of `integer_dot.py`. Instructions so wide see little ahead, and
processors guess badly where tiles are left out: each load asks memory for what is so many rows
ahead, which makes reading up to twice as fast.
"""

import llvmlite.binding
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from .code_rows import BLOCK, FINER, GROUPS, ROW
from .tiles import TILE

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


one_by_4, one_by_6, one_by_8 = (_mask_instruction(1, bits) for bits in (4, 6, 8))
block_by_4, block_by_6, block_by_8 = (_mask_instruction(BLOCK, bits) for bits in (4, 6, 8))
products_by_4, products_by_6, products_by_8 = map(_product_instruction, (4, 6, 8))
fill_one, fill_two = (_pair_instruction(count) for count in (1, 2))
