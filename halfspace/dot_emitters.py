"""Integer products of codes in the vector instructions of a processor, told to LLVM.

`Vnni` has `vpdpbusd` (AVX-512 VNNI): 64 products an instruction. `Avx2` has `vpmaddwd`, 16 products
of two bytes each, and where codes are so small that pairs of products fit in two bytes,
`vpmaddubsw`, 32. Instructions see little ahead, and processors guess badly where tiles are left
out: each load asks memory for what is so many rows ahead, which makes reading up to twice as fast.
"""

from collections.abc import Callable
from functools import partial

import llvmlite.binding
from llvmlite import ir
from numba import config
from numba.core import cgutils

from .code_rows import FINER, GROUPS, ROW
from .tiles import TILE

Query = tuple[ir.Value, ...]
"""Addresses of a query's digits, the first for `FINER` of the second."""

Sums = list[list[ir.Value]]
"""Of a query by vector of lanes: those that it needs in between."""

Load = Callable[[], list[ir.Value]]
"""Gives codes of some lanes, a byte each, four coordinates at a time."""

LINE = 64
"""Bytes that memory gives at a time."""


class Emitter:  # pragma: no cover (it runs where kernels are compiled)
    """What instructions of any width do with tiles of codes of so many bits."""

    feature: str
    """The processor has them, in LLVM's words."""

    lanes: int
    """Lanes of a tile in one instruction."""

    queries: int
    """Queries at a time, where there are more."""

    totals: int
    """Sums of lanes that registers hold beside all else, for that many queries."""

    word, address = ir.IntType(32), ir.IntType(64)

    def __init__(self, builder: ir.IRBuilder, bits: int) -> None:
        self.builder, self.bits = builder, bits
        self.vector = ir.VectorType(self.word, self.lanes)

    def sums_of(self, query: Query) -> int:
        """Sums that a query needs in between for each vector of lanes."""
        raise NotImplementedError

    def added(
        self, totals: list[Sums], load: list[Load], queries: list[Query], place: ir.Value
    ) -> list[Sums]:
        """Sums by query and vector of lanes, with the products of a group of rows.

        The vectors are loaded by calls; bytes of queries are those at `place`.
        """
        raise NotImplementedError

    def finished(self, totals: list[ir.Value]) -> ir.Value:
        """The sum of a query, of those that it needed in between."""
        raise NotImplementedError

    def function(self, name: str, result: ir.Type, *kinds: ir.Type) -> ir.Function:
        """An instruction of the processor."""
        kind = ir.FunctionType(result, kinds)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

    def ask_for(self, address: ir.Value) -> None:
        """Ask memory for what will be loaded."""
        pointer = ir.IntType(8).as_pointer()
        ask = self.function(
            "llvm.prefetch.p0", ir.VoidType(), pointer, self.word, self.word, self.word
        )
        # To be read, in the nearest cache, data.
        flags = self.word(0), self.word(3), self.word(1)
        self.builder.call(ask, [self.builder.inttoptr(address, pointer), *flags])

    def load(self, address: ir.Value, kind: ir.Type) -> ir.Value:
        """What stands at any address."""
        loaded = self.builder.load(self.builder.inttoptr(address, kind.as_pointer()))
        loaded.align = 1
        return loaded

    def every(self, kind: ir.Type, value: int, lanes: int | None = None) -> ir.Constant:
        """A vector of equal integers."""
        lanes = lanes or self.lanes
        return ir.Constant(ir.VectorType(kind, lanes), [value] * lanes)

    def spread(self, value: ir.Value) -> ir.Value:
        """Give all lanes the value."""
        none = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(none, value, self.word(0))
        return self.builder.shuffle_vector(first, none, self.every(self.word, 0))

    def cut(self, value: ir.Value, shift: int, most: int) -> ir.Value:
        """Shift bytes down, or up by -shift, and keep what bits of each `most` has."""
        by = self.every(self.word, abs(shift))
        shifted = self.builder.lshr(value, by) if shift > 0 else self.builder.shl(value, by)
        return self.builder.and_(shifted, self.every(self.word, most * 0x01010101))

    def bytes_of(self, rows: list[ir.Value]) -> list[ir.Value]:
        """Codes of a group of rows, a byte each, four coordinates at a time."""
        if self.bits == 8:
            return rows
        if self.bits == 4:
            return [self.cut(rows[0], 0, 15), self.cut(rows[0], 4, 15)]
        upper = [self.cut(rows[i // 2], 2 if i % 2 else -2, 60) for i in range(4)]
        lower = [self.cut(rows[2], 2 * i, 3) for i in range(4)]
        return [self.builder.or_(*each) for each in zip(upper, lower, strict=True)]

    def word_of(self, digits: ir.Value, place: ir.Value, part: int) -> ir.Value:
        """Four bytes of a query, in all lanes alike."""
        at = self.builder.add(self.builder.add(digits, place), self.address(4 * part))
        return self.spread(self.load(at, self.word))

    def products(
        self, tile: ir.Value, ahead: ir.Value, rows: ir.Value, queries: list[Query]
    ) -> list[list[ir.Value]]:
        """Sums of 64 lanes of the tile at such an address by query, vector by vector."""
        vectors, each = TILE // self.lanes, min(len(queries), self.queries)
        wide, found = min(vectors, self.totals // each), [[] for _ in queries]
        for q in range(0, len(queries), each):
            for v in range(0, vectors, wide):
                at = self.builder.add(tile, self.address(4 * self.lanes * v))
                some = self.swept(at, None if q else ahead, rows, queries[q : q + each], wide)
                for i, sums in enumerate(some):
                    found[q + i] += sums
        return found

    def swept(
        self,
        tile: ir.Value,
        ahead: ir.Value | None,
        rows: ir.Value,
        queries: list[Query],
        wide: int,
    ) -> list[list[ir.Value]]:
        """Loop over groups of rows; sums of some vectors of lanes by query.

        What is so many bytes ahead is asked for.
        """
        builder, (size, held) = self.builder, GROUPS[self.bits]
        before = builder.block
        body, after = builder.append_basic_block("rows"), builder.append_basic_block("rows.done")
        builder.branch(body)
        builder.position_at_end(body)
        row, place = builder.phi(self.address), builder.phi(self.address)
        start = [
            [[builder.phi(self.vector) for _ in range(self.sums_of(query))] for _ in range(wide)]
            for query in queries
        ]
        at = builder.add(tile, builder.mul(row, self.address(ROW)))
        load = [partial(self.loaded, at, 4 * self.lanes * i, ahead) for i in range(wide)]
        end = self.added(start, load, queries, place)
        beyond = builder.add(row, self.address(size))
        for index, step in ((row, beyond), (place, builder.add(place, self.address(held)))):
            index.add_incoming(self.address(0), before)
            index.add_incoming(step, builder.block)
        for total, result in zip(_flat(start), _flat(end), strict=True):
            total.add_incoming(self.every(self.word, 0), before)
            total.add_incoming(result, builder.block)
        builder.cbranch(builder.icmp_unsigned("<", beyond, rows), body, after)
        builder.position_at_end(after)
        return [[self.finished(totals) for totals in vectors] for vectors in end]

    def loaded(self, at: ir.Value, offset: int, ahead: ir.Value | None) -> list[ir.Value]:
        """Codes of the lanes at an offset in rows that belong together, a byte each."""
        places = [
            self.builder.add(at, self.address(ROW * i + offset))
            for i in range(GROUPS[self.bits][0])
        ]
        if ahead is not None and offset % LINE == 0:
            for place in places:
                self.ask_for(self.builder.add(place, ahead))
        return self.bytes_of([self.load(place, self.vector) for place in places])

    def store(self, sums: list[ir.Value], to: ir.Value) -> None:
        """Write the sums of 64 lanes."""
        for i, total in enumerate(sums):
            at = self.builder.add(to, self.address(4 * self.lanes * i))
            store = self.builder.store(total, self.builder.inttoptr(at, self.vector.as_pointer()))
            store.align = 4

    def mask(self, sums: list[ir.Value], bar: ir.Value) -> ir.Value:
        """Lanes whose sums reach the bar."""
        builder, mask = self.builder, self.address(0)
        for i, total in enumerate(sums):
            lanes = builder.icmp_signed(">=", total, self.spread(bar))
            lanes = builder.zext(builder.bitcast(lanes, ir.IntType(self.lanes)), self.address)
            mask = builder.or_(mask, builder.shl(lanes, self.address(self.lanes * i)))
        return mask


class Vnni(Emitter):  # pragma: no cover (as above)
    """`vpdpbusd` on 512 bits; a query of two digits takes two sums."""

    feature, lanes, queries, totals = "avx512vnni", 16, 4, 16

    def sums_of(self, query: Query) -> int:
        """One a digit."""
        return len(query)

    def added(
        self, totals: list[Sums], load: list[Load], queries: list[Query], place: ir.Value
    ) -> list[Sums]:
        """All codes are loaded first: registers are many, and each word of a query is used up."""
        dot = self.function("llvm.x86.avx512.vpdpbusd.512", self.vector, *[self.vector] * 3)
        codes, results = [each() for each in load], [[[*sums] for sums in all_] for all_ in totals]
        for query, sums in zip(queries, results, strict=True):
            for digit, digits in enumerate(query):
                for part in range(len(codes[0])):
                    word = self.word_of(digits, place, part)
                    for i, code in enumerate(codes):
                        arguments = sums[i][digit], code[part], word
                        sums[i][digit] = self.builder.call(dot, arguments)
        return results

    def finished(self, totals: list[ir.Value]) -> ir.Value:
        """A first digit counts `FINER` times."""
        if len(totals) == 1:
            return totals[0]
        coarse = self.builder.mul(totals[0], self.every(self.word, FINER))
        return self.builder.add(coarse, totals[1])


class Avx2(Emitter):  # pragma: no cover (as above)
    """`vpmaddwd` and `vpmaddubsw` on 256 bits; a query of two digits is one of two bytes.

    Two products of codes of 6 bits with signed bytes, and two more, fit in two bytes with a sign:
    4 * 63 * 127 < 2^15. Those of codes of 8 bits do not, so that each becomes two bytes first.
    """

    feature, lanes, queries, totals = "avx2", 8, 2, 8

    half = ir.IntType(16)

    def __init__(self, builder: ir.IRBuilder, bits: int) -> None:
        super().__init__(builder, bits)
        self.halves = ir.VectorType(self.half, 2 * self.lanes)
        self.quarters = ir.VectorType(ir.IntType(8), 4 * self.lanes)
        pair = self.halves, self.halves
        self.add_pairs = self.function("llvm.x86.avx2.pmadd.wd", self.vector, *pair)
        pair = self.quarters, self.quarters
        self.add_bytes = self.function("llvm.x86.avx2.pmadd.ub.sw", self.halves, *pair)

    def sums_of(self, query: Query) -> int:
        """One, of all digits."""
        return 1

    def added(
        self, totals: list[Sums], load: list[Load], queries: list[Query], place: ir.Value
    ) -> list[Sums]:
        """All queries take a vector of lanes before the next is loaded: registers are few."""
        factors, terms = (
            (self.wide_factors, self.wide_terms)
            if self.bits == 8
            else (self.byte_factors, self.byte_terms)
        )
        weights, results = [factors(query, place) for query in queries], [[] for _ in queries]
        for i, each in enumerate(load):
            codes = each() if self.bits < 8 else self.parted(each()[0])
            for q, sums in enumerate(totals):
                (total,) = sums[i]
                for term in terms(codes, weights[q]):
                    total = self.builder.add(total, term)
                results[q].append([total])
        return results

    def finished(self, totals: list[ir.Value]) -> ir.Value:
        """It is there."""
        return totals[0]

    def all_halves(self, value: int) -> ir.Constant:
        """Two bytes, everywhere."""
        return self.every(self.half, value, 2 * self.lanes)

    def parted(self, codes: ir.Value) -> list[ir.Value]:
        """The even ones of codes of a byte, and the odd ones, as two bytes each."""
        both = self.builder.bitcast(codes, self.halves)
        even = self.builder.and_(both, self.all_halves(255))
        return [even, self.builder.lshr(both, self.all_halves(8))]

    def wide_factors(self, query: Query, place: ir.Value) -> list[ir.Value]:
        """The even ones of a query's bytes and the odd ones, as two bytes, of all its digits."""
        found = []
        for digits in query:
            both = self.builder.bitcast(self.word_of(digits, place, 0), self.halves)
            even = self.builder.shl(both, self.all_halves(8))
            found.append([self.builder.ashr(x, self.all_halves(8)) for x in (even, both)])
        if len(found) == 1:
            return found[0]
        finer = self.all_halves(FINER)
        return [
            self.builder.add(self.builder.mul(a, finer), b) for a, b in zip(*found, strict=True)
        ]

    def wide_terms(self, codes: list[ir.Value], weights: list[ir.Value]) -> list[ir.Value]:
        """Products of two bytes each, two by two."""
        pairs = zip(codes, weights, strict=True)
        return [self.builder.call(self.add_pairs, pair) for pair in pairs]

    def byte_factors(self, query: Query, place: ir.Value) -> list[ir.Value]:
        """A query's bytes."""
        (digits,) = query
        parts = range(GROUPS[self.bits][1] // 4)
        words = [self.word_of(digits, place, part) for part in parts]
        return [self.builder.bitcast(word, self.quarters) for word in words]

    def byte_terms(self, codes: list[ir.Value], weights: list[ir.Value]) -> list[ir.Value]:
        """Products of bytes, four by four."""
        products = [
            self.builder.call(self.add_bytes, [self.builder.bitcast(code, self.quarters), weight])
            for code, weight in zip(codes, weights, strict=True)
        ]
        both = [self.builder.add(*products[i : i + 2]) for i in range(0, len(products), 2)]
        return [self.builder.call(self.add_pairs, [each, self.all_halves(1)]) for each in both]


EMITTERS = Vnni, Avx2
"""The best first."""


def _flat(totals: list[list[list]]) -> list:  # pragma: no cover (as above)
    return [total for vectors in totals for each in vectors for total in each]


def has_feature(name: str) -> bool:
    """Whether kernels are compiled for a processor that has such instructions."""
    if config.DISABLE_JIT:
        return False
    if config.CPU_FEATURES is not None or config.CPU_NAME:
        return f"+{name}" in (config.CPU_FEATURES or "").split(",")
    return bool(llvmlite.binding.get_host_cpu_features().get(name))


def best_emitter() -> type[Emitter] | None:
    """Of the instructions that kernels may use, the best; None where there are none."""
    return next((emitter for emitter in EMITTERS if has_feature(emitter.feature)), None)
