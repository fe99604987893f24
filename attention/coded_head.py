"""Keys of one head with 8-bit codes beside them; they may grow at the end and be cut off there.

The transform and the steps are fitted to a sample of the keys there are when first there are
enough, and again each time there are a few times as many; in between keys only get codes, tile by
tile. Keys that fit badly cost speed, not certainty: what has no code is read. So appending n keys
takes O(n d^2) in all, and no key is ever merged or moved.
"""

import numpy as np
from numpy.typing import NDArray

from halfspace import parallel
from halfspace.basis import fit_basis, norm_within, transformed
from halfspace.codes import (
    Heads,
    Leading,
    Rows,
    encode,
    fit_leading,
    leading_width,
)
from halfspace.integer_dot import BLOCK, ROW
from halfspace.tiles import TILE, arrays_of, frozen, line_zeros

from .coded_reading import Aims, CodedKeys, aim_queries, coded_relu, coded_rows, fill_products
from .coded_sampling import coded_sampled_rows
from .reading import Cut, Readings
from .sampled import Aim, Estimates, make_estimates

BITS = 8

SAMPLE = 4096
"""Keys that the codes are fitted to."""

REACH = 4.0
"""Keys further out than so many times the furthest of the sample get no code."""

LEAST_CODED = 2048
"""Below so many keys, all are read."""

UNCODED = 512
"""Keys that may wait for their codes, and are read until then."""

REFIT = 4
"""The codes are fitted anew when there are so many times as many keys."""

CHUNK = 1 << 20
"""Coordinates that are transformed at a time."""

PRODUCT_NANOSECONDS = 0.1
"""Rough cost of a byte of codes, to decide whether threads pay."""

KEY_NANOSECONDS = 3.0
"""Rough cost of a key of a query besides."""

_ALL = ~np.uint64(0)


def _grown(array: NDArray, tiles: int) -> NDArray:
    """Copy of an array with room for so many tiles of rows."""
    rows = tiles * (TILE if array.dtype.kind == "f" else 1)
    copy = line_zeros((rows, *array.shape[1:]), array.dtype)
    copy[: len(array)] = array
    return copy


class CodedHead:
    """Keys and values of one head, and codes of the keys, in the order they came.

    Parameters
    ----------
    keys : ndarray, shape (n, head_dim)
    values : ndarray, shape (n, value_dim)
        Finite, float32 or float64.
    whole : bool, optional
        Nothing is to follow: every key gets a code at once, and there is no room to spare.
    """

    keeps_order = True

    def __init__(self, keys: NDArray, values: NDArray, *, whole: bool = False) -> None:
        d = keys.shape[1]
        self._keys = line_zeros((0, d), keys.dtype)
        self._values = line_zeros((0, values.shape[1]), values.dtype)
        self._always = line_zeros((0,), np.uint64)
        self._codes = line_zeros((0, leading_width(d, d, BITS) // 4, ROW), np.uint8)
        self._count, self._coded, self._fitted, self._spread = 0, 0, 0, 0.0
        self._whole = whole
        self._fit_nothing()
        self.extend(keys, values)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # A pickle forgets that arrays were read-only, and kernels are compiled for that.
        for array in arrays_of((self._basis, self._steps)):
            frozen(array)

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> int:
        """head_dim."""
        return self._keys.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and codes, with what is kept free for more."""
        arrays = (self._keys, self._values, self._always, self._codes)
        return sum(array.nbytes for array in arrays)

    @property
    def grows(self) -> bool:
        """Whether keys may follow."""
        return not self._whole

    @property
    def values(self) -> NDArray:
        """Values there are."""
        return self._values[: self._count]

    def rows(self) -> tuple[NDArray, NDArray]:
        """Keys and values there are, as views."""
        return self._keys[: self._count], self._values[: self._count]

    def extend(self, keys: NDArray, values: NDArray) -> None:
        """Append keys (t, head_dim) and values (t, value_dim)."""
        end = self._count + len(keys)
        tiles = -(-end // TILE)
        if tiles > len(self._always):
            self._grow(tiles if self._whole else max(tiles, 2 * len(self._always), 8))
        self._keys[self._count : end] = keys
        self._values[self._count : end] = values
        self._count = end
        if end >= LEAST_CODED and (self._whole or end - self._coded > UNCODED):
            self._encode(end if self._whole else end // TILE * TILE)

    def crop(self, count: int) -> None:
        """Forget all but the first `count`."""
        self._count = min(self._count, count)
        # Codes of a tile are written once: one that was cut through waits to be whole again.
        self._coded = min(self._coded, self._count // TILE * TILE)
        # Fitted anew before long where hardly any of the keys are left that the codes were made for.
        self._fitted = min(self._fitted, self._count)
        first = self._coded // TILE
        self._always[first:] = _ALL
        self._codes[first:] = 0

    def _grow(self, tiles: int) -> None:
        coded = len(self._always)
        self._keys, self._values = _grown(self._keys, tiles), _grown(self._values, tiles)
        self._always, self._codes = _grown(self._always, tiles), _grown(self._codes, tiles)
        self._always[coded:] = _ALL

    def _encode(self, last: int) -> None:
        """Give codes to all keys before `last`."""
        if not self._fitted or last >= REFIT * self._fitted:
            self._fit(last)
        first = self._coded // TILE
        self._always[first : -(-last // TILE)] = 0
        leading, rows, heads = self._leading(self._codes), self._no_rows(), self._no_heads()
        bare = np.zeros(len(self._always), np.uint64)
        step = max(1, CHUNK // (self._keys.shape[1] * TILE)) * TILE

        def part(a: int, b: int) -> float:
            u, lengths = transformed(self._basis, self._keys[a:b])
            return encode(
                u, lengths, self._basis.reach, a, leading, rows, self._always, bare, heads
            )

        starts = range(self._coded, last, step)
        spreads = parallel.run([lambda a=a: part(a, min(a + step, last)) for a in starts])
        self._spread = max([self._spread, *spreads])
        self._coded = last

    def _fit(self, count: int) -> None:
        """Fit the codes to the first `count` keys; none has a code after that."""
        picked = np.random.default_rng(0).choice(count, min(count, SAMPLE), replace=False)
        sample = self._keys[np.sort(picked)]
        self._basis = fit_basis(sample, None, REACH)
        u, lengths = transformed(self._basis, sample)
        self._steps = fit_leading(u[lengths <= self._basis.reach], sample.shape[1], BITS)
        self._codes[:], self._always[:] = 0, _ALL
        self._coded, self._fitted, self._spread = 0, count, 0.0

    def _leading(self, codes: NDArray) -> Leading:
        return Leading(codes, *self._steps, self._spread, BITS)

    def _no_rows(self) -> Rows:
        return Rows(np.empty((0, self._keys.shape[1]), np.uint8), self._steps[0], 0.0)

    def _no_heads(self) -> Heads:
        return Heads(np.empty((0, self._keys.shape[1]), np.uint8), np.empty(0), np.empty(0))

    def _arrays(self) -> CodedKeys:
        """What kernels read: up to the last key, read-only."""
        tiles = -(-self._count // TILE)
        views = (self._keys[: tiles * TILE], self._values[: tiles * TILE], self._always[:tiles])
        views = [frozen(view.view()) for view in views]
        codes = frozen(self._codes[:tiles].view())
        return CodedKeys(*views, self._leading(codes), self._basis, norm_within(self._basis))

    def _fit_nothing(self) -> None:
        """Stand-ins for a fit: no key has a code."""
        d = self._keys.shape[1]
        none = np.empty((0, d), np.float32)
        self._basis = fit_basis(none, None, REACH)
        self._steps = fit_leading(none, d, BITS)

    def softmax(
        self, queries: NDArray, visible: NDArray, cut: Cut, scale: float, readings: Readings
    ) -> None:
        """Fill `readings` of softmax attention for queries (m, head_dim), float64."""
        head, m = self._arrays(), len(queries)
        aims = aim_queries(head, queries)
        filled = self._products_of_one(head, aims) if m == 1 else np.empty((0, 0), np.int32)

        def part(a: int, b: int) -> None:
            some = Readings(*(field[a:b] for field in readings))
            coded_rows(
                head,
                _of(aims, a, b),
                queries[a:b],
                visible[a:b],
                cut.of(slice(a, b)),
                scale,
                filled,
                some,
            )

        parallel.run([lambda a=a, b=b: part(a, b) for a, b in self._parts(m)])

    def sampled(
        self,
        goal: Aim,
        queries: NDArray,
        visible: NDArray,
        cut: Cut,
        scale: float,
        readings: Readings,
    ) -> Estimates:
        """Fill `readings` by sampling or dropping, whichever reads less."""
        head, m, estimates = self._arrays(), len(queries), make_estimates(len(queries))
        aims = aim_queries(head, queries)
        filled = self._products_of_one(head, aims) if m == 1 else np.empty((0, 0), np.int32)

        def part(a: int, b: int) -> None:
            coded_sampled_rows(
                head,
                _of(aims, a, b),
                goal.prior,
                queries[a:b],
                goal.states[a:b],
                visible[a:b],
                cut.of(slice(a, b)),
                goal.targets[a:b],
                scale,
                filled,
                Readings(*(field[a:b] for field in readings)),
                Estimates(*(field[a:b] for field in estimates)),
            )

        parallel.run([lambda a=a, b=b: part(a, b) for a, b in self._parts(m)])
        return estimates

    def relu(
        self,
        queries: NDArray,
        visible: NDArray,
        offsets: NDArray,
        errors: NDArray,
        scale: float,
        threshold: float,
        power: int,
        readings: Readings,
    ) -> None:
        """Fill `readings` of ReLU attention; no key with <q, k> < offset is active."""
        head = self._arrays()
        aims = aim_queries(head, queries)

        def part(a: int, b: int) -> None:
            some = Readings(*(field[a:b] for field in readings))
            coded_relu(
                head,
                _of(aims, a, b),
                queries[a:b],
                visible[a:b],
                offsets[a:b],
                errors[a:b],
                scale,
                threshold,
                power,
                some,
            )

        parallel.run([lambda a=a, b=b: part(a, b) for a, b in self._parts(len(queries))])

    def _parts(self, m: int) -> list[tuple[int, int]]:
        """Ranges of queries for threads, whole blocks."""
        blocks = -(-m // BLOCK)
        each = BLOCK * len(self) * (KEY_NANOSECONDS + PRODUCT_NANOSECONDS * self._keys.shape[1])
        return [(a * BLOCK, min(b * BLOCK, m)) for a, b in parallel.parts(blocks, each)]

    def _products_of_one(self, head: CodedKeys, aims: Aims) -> NDArray:
        """Products of all keys with one query, by all threads."""
        tiles = len(head.always)
        out = np.empty((1, tiles * TILE), np.int32)
        pieces = parallel.parts(tiles, TILE * head.keys.shape[1] * PRODUCT_NANOSECONDS)
        parallel.run(
            [lambda a=a, b=b: fill_products(head, aims.weights, 0, 1, a, b, out) for a, b in pieces]
        )
        return out


def _of(aims: Aims, first: int, last: int) -> Aims:
    """Those of some queries, from the first of a block on."""
    return Aims(aims.weights[first : -(-last // BLOCK) * BLOCK], aims.bounds[first:last])
