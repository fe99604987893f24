"""Integer products of codes in the vector instructions of a processor, told to LLVM.

`Vnni` has `vpdpbusd` (AVX-512 VNNI): 64 products an instruction. `Avx2` has `vpmaddwd`, 16 products
of 16 bits each, and where codes are so small that pairs of products fit in 16 bits,
`vpmaddubsw`, 32. Instructions see little ahead, and processors guess badly where tiles are left
out: each load asks memory for what is so many rows ahead, which makes reading up to twice as fast.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from llvmlite import ir
from numba.core import cgutils

from .code_rows import FINER, GROUPS, MOST_QUERY, ROW
from .jit import has_feature
from .prefetch import NEAREST_CACHE, emit_prefetch
from .tiles import LINE, TILE

Query = tuple[ir.Value, ...]
"""Addresses of a query's digits, the first for `FINER` of the second."""

Sums = list[list[ir.Value]]
"""Of a query by vector of lanes: those that it needs in between."""

Load = Callable[[], list[ir.Value]]
"""Gives codes of some lanes, a byte each, four coordinates at a time."""


class State(NamedTuple):  # pragma: no cover (it runs where kernels are compiled)
    """Of a loop over rows of a tile."""

    row: ir.Value
    place: ir.Value  # of the queries' bytes for it
    totals: list[Sums]  # by query

    def values(self) -> list[ir.Value]:
        """All of them, in order."""
        sums = [total for vectors in self.totals for each in vectors for total in each]
        return [self.row, self.place, *sums]

    def of(self, values: list[ir.Value]) -> "State":
        """Others in their places."""
        row, place, *sums = values
        rest = iter(sums)
        totals = [[[next(rest) for _ in each] for each in vectors] for vectors in self.totals]
        return State(row, place, totals)


class Emitter(ABC):  # pragma: no cover (it runs where kernels are compiled)
    """What instructions of any width do with tiles of codes of so many bits."""

    feature: str
    """The processor has them, in LLVM's words."""

    lanes: int
    """Lanes of a tile in one instruction."""

    queries: int
    """Queries at a time, where there are more."""

    totals: int
    """Sums of lanes that registers hold beside all else, for that many queries."""

    groups = 1
    """Groups of rows at a time."""

    word, address = ir.IntType(32), ir.IntType(64)

    def __init__(self, builder: ir.IRBuilder, bits: int) -> None:
        self.builder, self.bits = builder, bits
        self.vector = ir.VectorType(self.word, self.lanes)

    @abstractmethod
    def sums_of(self, query: Query) -> int:
        """Sums that a query needs in between for each vector of lanes."""

    @abstractmethod
    def added(
        self, totals: list[Sums], load: list[list[Load]], queries: list[Query], place: ir.Value
    ) -> list[Sums]:
        """Sums by query and vector of lanes, with the products of some groups of rows.

        The vectors of a group are loaded by calls; bytes of queries are those from `place` on.
        """

    @abstractmethod
    def finished(self, totals: list[ir.Value]) -> ir.Value:
        """The sum of a query, of those that it needed in between."""

    def function(self, name: str, result: ir.Type, *kinds: ir.Type) -> ir.Function:
        """An instruction of the processor."""
        kind = ir.FunctionType(result, kinds)
        return cgutils.get_or_insert_function(self.builder.module, kind, name)

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
        """Sums of 64 lanes of the tile at such an address by query, vector by vector.

        What is so many bytes ahead is asked for.
        """
        vectors, each = TILE // self.lanes, min(len(queries), self.queries)
        wide, found = min(vectors, self.totals // each), [[] for _ in queries]
        for q in range(0, len(queries), each):
            some = queries[q : q + each]
            for v in range(0, vectors, wide):
                zero, none = self.every(self.word, 0), self.address(0)
                totals = [[[zero] * self.sums_of(query) for _ in range(wide)] for query in some]
                state = State(none, none, totals)
                at = self.builder.add(tile, self.address(4 * self.lanes * v))
                for groups in sorted({self.groups, 1}, reverse=True):
                    state = self.swept(state, groups, at, None if q else ahead, rows, some)
                for i, sums in enumerate(state.totals):
                    found[q + i] += [self.finished(each) for each in sums]
        return found

    def swept(
        self,
        state: State,
        groups: int,
        tile: ir.Value,
        ahead: ir.Value | None,
        rows: ir.Value,
        queries: list[Query],
    ) -> State:
        """Loop over rows, so many groups at a time, while there are as many."""
        builder, (size, held) = self.builder, GROUPS[self.bits]
        before = builder.block
        head, body, after = (builder.append_basic_block(f"rows.{x}") for x in ("", "of", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        phis = [builder.phi(value.type) for value in state.values()]
        now = state.of(phis)
        beyond, last = (builder.add(now.row, self.address(x * size)) for x in (groups, groups - 1))
        builder.cbranch(builder.icmp_unsigned("<", last, rows), body, after)
        builder.position_at_end(body)
        at = builder.add(tile, builder.mul(now.row, self.address(ROW)))
        load = [
            [
                partial(self.loaded, at, group * size * ROW + 4 * self.lanes * i, ahead)
                for i in range(len(state.totals[0]))
            ]
            for group in range(groups)
        ]
        place = builder.add(now.place, self.address(groups * held))
        then = State(beyond, place, self.added(now.totals, load, queries, now.place))
        for phi, first, next_ in zip(phis, state.values(), then.values(), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, builder.block)
        builder.branch(head)
        builder.position_at_end(after)
        return now

    def loaded(self, at: ir.Value, offset: int, ahead: ir.Value | None) -> list[ir.Value]:
        """Codes of the lanes at an offset in rows that belong together, a byte each."""
        places = [
            self.builder.add(at, self.address(ROW * i + offset))
            for i in range(GROUPS[self.bits][0])
        ]
        if ahead is not None and offset % LINE == 0:
            for place in places:
                emit_prefetch(self.builder, self.builder.add(place, ahead), NEAREST_CACHE)
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
        self, totals: list[Sums], load: list[list[Load]], queries: list[Query], place: ir.Value
    ) -> list[Sums]:
        """All codes are loaded first: registers are many, and each word of a query is used up."""
        dot = self.function("llvm.x86.avx512.vpdpbusd.512", self.vector, *[self.vector] * 3)
        codes, results = (
            [each() for each in load[0]],
            [[[*sums] for sums in all_] for all_ in totals],
        )
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
    """`vpmaddubsw` and `vpmaddwd` on 256 bits; a query of two digits is one of 16 bits.

    Sums of two products of codes with signed bytes take 16 bits, and so do some of these sums:
    eight of 4 bits, two of 6 bits. Those of codes of 8 bits do not, so that each code becomes 16
    bits first. There is one multiplication a cycle, so it counts how rarely sums are widened.
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
        self.fit = (2**15 - 1) // (2 * (2**bits - 1) * MOST_QUERY)
        self.groups = max(1, self.fit // (GROUPS[bits][1] // 4))

    def sums_of(self, query: Query) -> int:
        """One, of all digits."""
        return 1

    def added(
        self, totals: list[Sums], load: list[list[Load]], queries: list[Query], place: ir.Value
    ) -> list[Sums]:
        """All queries take a vector of lanes before the next is loaded: registers are few."""
        results = [[Narrow(self, *sums) for sums in vectors] for vectors in totals]
        for group, vectors in enumerate(load):
            at = self.builder.add(place, self.address(group * GROUPS[self.bits][1]))
            weights = [self.factors(query, at) for query in queries]
            for i, each in enumerate(vectors):
                codes = self.terms(each())
                for result, factors in zip(results, weights, strict=True):
                    for code, factor in zip(codes, factors, strict=True):
                        result[i].add(code, factor)
        return [[[each.widened()] for each in vectors] for vectors in results]

    def finished(self, totals: list[ir.Value]) -> ir.Value:
        """It is there."""
        return totals[0]

    def all_halves(self, value: int) -> ir.Constant:
        """16 bits, everywhere."""
        return self.every(self.half, value, 2 * self.lanes)

    def terms(self, codes: list[ir.Value]) -> list[ir.Value]:
        """Codes as bytes, or the even ones of 8 bits, and the odd ones, as 16 bits each."""
        if self.bits < 8:
            return [self.builder.bitcast(code, self.quarters) for code in codes]
        both = self.builder.bitcast(codes[0], self.halves)
        even = self.builder.and_(both, self.all_halves(255))
        return [even, self.builder.lshr(both, self.all_halves(8))]

    def factors(self, query: Query, place: ir.Value) -> list[ir.Value]:
        """A query's bytes, of all its digits, in the same form."""
        if self.bits < 8:
            (digits,) = query
            words = [self.word_of(digits, place, i) for i in range(GROUPS[self.bits][1] // 4)]
            return [self.builder.bitcast(word, self.quarters) for word in words]
        found = []
        for digits in query:
            both = self.builder.bitcast(self.word_of(digits, place, 0), self.halves)
            even = self.builder.shl(both, self.all_halves(8))
            found.append([self.builder.ashr(x, self.all_halves(8)) for x in (even, both)])
        if len(found) == 1:
            return found[0]
        finer = self.all_halves(FINER)
        pairs = zip(*found, strict=True)
        return [self.builder.add(self.builder.mul(a, finer), b) for a, b in pairs]


class Narrow:  # pragma: no cover (as above)
    """A sum that is widened to 32 bits where 16 do not hold more."""

    def __init__(self, emitter: Avx2, total: ir.Value) -> None:
        self.emitter, self.total, self.count, self.sum = emitter, total, 0, None

    def add(self, code: ir.Value, factor: ir.Value) -> None:
        """Add products of two by two."""
        emitter, builder = self.emitter, self.emitter.builder
        if emitter.bits == 8:
            self.total = builder.add(self.total, builder.call(emitter.add_pairs, [code, factor]))
            return
        products = builder.call(emitter.add_bytes, [code, factor])
        self.sum = builder.add(self.sum, products) if self.count else products
        self.count += 1
        if self.count == emitter.fit:
            self.widened()

    def widened(self) -> ir.Value:
        """The sum so far, in 32 bits."""
        if self.count:
            emitter, builder = self.emitter, self.emitter.builder
            pairs = builder.call(emitter.add_pairs, [self.sum, emitter.all_halves(1)])
            self.total, self.count = builder.add(self.total, pairs), 0
        return self.total


EMITTERS = Vnni, Avx2
"""The best first."""


def best_emitter() -> type[Emitter] | None:
    """Of the instructions that kernels may use, the best; None where there are none."""
    return next((emitter for emitter in EMITTERS if has_feature(emitter.feature)), None)
