"""Keys of one head with 8-bit codes beside them; they may grow at the end and be cut off there.

The transform and the steps are fitted to a sample of the keys there are when first there are
enough, and again each time there are a few times as many; in between keys only get codes, tile by
tile. Keys that fit badly cost speed, not certainty: what has no code is read. So appending n keys
takes O(n d^2) in all, and no key is ever merged or moved.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from halfspace import parallel
from halfspace.basis import Basis, fit_basis, norm_within, transformed
from halfspace.code_rows import BLOCK
from halfspace.codes import Heads, Ladder, Leading, Rows, Steps, encode, fit_leading, make_heads
from halfspace.jit import Bound
from halfspace.tiles import TILE, arrays_of, frozen

from .arenas import Arenas
from .coded_keys import Aims, CodedKeys, aim_queries, fill_products
from .coded_reading import coded_relu, coded_rows
from .coded_rules import words_of
from .coded_sampling import coded_sampled_rows
from .reading import Cut, Readings
from .room import ALL, BITS, Room, make_room, tiles_for, widened
from .sampled import Aim, Estimates, Moments, make_estimates, moments_of

SAMPLE = 4096
"""Keys that a basis, and as many that steps are fitted to."""

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


class Fit(NamedTuple):
    """What the codes of a head mean, and how far they hold."""

    basis: Basis
    steps: Steps
    residual: Ladder
    rest: Ladder
    spread: float  # as of `Leading`
    reach: float  # upper bound on the norms of coded keys


class _Ready(NamedTuple):
    """What answers queries until the keys change: kernels that know what there is to read."""

    aim: Bound
    products: Bound
    softmax: Bound
    sampled: Bound
    relu: Bound
    slots: int


class CodedHead:
    """Keys and values of one head, and codes of the keys, in the order they came.

    Parameters
    ----------
    keys : ndarray, shape (n, head_dim)
    values : ndarray, shape (n, value_dim)
        Finite, float32 or float64.
    whole : bool, optional
        Nothing is to follow: every key gets a code at once, and there is no room to spare.
    uncoded : int, optional
        Keys that may wait for their codes; `UNCODED` if not given.
    """

    keeps_order = True

    def __init__(
        self, keys: NDArray, values: NDArray, *, whole: bool = False, uncoded: int | None = None
    ) -> None:
        dtypes = keys.dtype, values.dtype
        self.live_in(make_room((), 0, keys.shape[1], values.shape[1], dtypes))
        self._count, self._coded, self._fitted, self._spread = 0, 0, 0, 0.0
        self._whole, self._uncoded = whole, uncoded
        self._products, self._scratch = Arenas(), Arenas()
        self._fit_nothing()
        self.extend(keys, values)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._forget()
        # A pickle forgets that arrays were read-only, and kernels are compiled for that.
        for array in arrays_of((self._basis, self._steps)):
            frozen(array)

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_ready": None}

    def __len__(self) -> int:
        return self._count

    @property
    def dim(self) -> int:
        """head_dim."""
        return self._keys.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and codes, with what is kept free for more.

        Without what is kept for queries to write to, some 40 bytes a key for each at a time.
        """
        return self.room.nbytes

    @property
    def grows(self) -> bool:
        """Whether keys may follow."""
        return not self._whole

    @property
    def moments(self) -> Moments:
        """Of the values there are."""
        if self._moments is None:
            self._moments = moments_of(self._values[: self._count])
        return self._moments

    @property
    def coded(self) -> int:
        """Keys that have codes: the first ones."""
        return self._coded

    @property
    def fitted(self) -> int:
        """Keys that the codes were fitted to."""
        return self._fitted

    @property
    def room(self) -> Room:
        """Where the rows are."""
        return Room(self._keys, self._values, self._always, self._codes)

    @property
    def fit(self) -> Fit:
        """What the codes mean."""
        return Fit(self._basis, *self._steps, self._spread, norm_within(self._basis))

    def live_in(self, room: Room) -> None:
        """Keep rows, from now on, in room that holds those there are."""
        self._keys, self._values, self._always, self._codes = room
        self._forget()

    def take_over(self, room: Room, count: int, coded: int, fitted: int, fit: Fit) -> None:
        """Be the head that was in such a state."""
        self.live_in(room)
        self._count, self._coded, self._fitted = count, coded, fitted
        self._basis, self._steps, self._spread = fit.basis, tuple(fit[1:4]), fit.spread

    def rows(self) -> tuple[NDArray, NDArray]:
        """Keys and values there are, as views."""
        return self._keys[: self._count], self._values[: self._count]

    def extend(self, keys: NDArray, values: NDArray) -> None:
        """Append keys (t, head_dim) and values (t, value_dim)."""
        end, tiles = self._count + len(keys), self.room.tiles
        needed = -(-end // TILE) if self._whole else tiles_for(end, tiles)
        if needed > tiles:
            self.live_in(widened(self.room, needed))
        self._keys[self._count : end] = keys
        self._values[self._count : end] = values
        self.advance(end)

    def due(self, count: int) -> bool:
        """Whether codes are to be made when there are `count` keys."""
        waiting = max(UNCODED if self._uncoded is None else self._uncoded, TILE - 1)
        return count >= LEAST_CODED and (self._whole or count - self._coded > waiting)

    def wait(self, count: int) -> None:
        """Take the first `count` rows of the room for the head's, where no codes are due."""
        self._count = count
        self._forget()

    def advance(self, count: int) -> None:
        """Take the first `count` rows of the room for the head's; give them codes that are due."""
        self.wait(count)
        if self.due(count):
            self._encode(count if self._whole else count // TILE * TILE)

    def crop(self, count: int) -> None:
        """Forget all but the first `count`."""
        self.wait(min(self._count, count))
        # Codes of a tile are written once: one that was cut through waits to be whole again.
        kept = min(self._coded, self._count // TILE * TILE)
        tiles = slice(kept // TILE, -(-self._coded // TILE))
        self._always[tiles], self._codes[tiles] = ALL, 0
        self._coded = kept
        # Fitted anew before long where hardly any of the keys it was made for are left.
        self._fitted = min(self._fitted, self._count) if kept else 0

    def _encode(self, last: int) -> None:
        """Give codes to all keys before `last`."""
        if not self._fitted or last >= REFIT * self._fitted:
            self._fit(last)
        fresh = slice(self._coded // TILE, -(-last // TILE))
        # No lane counts as coded before its code is there and holds, wherever this is interrupted.
        self._always[fresh] = ALL
        always = np.zeros_like(self._always)
        leading, rows, heads = self._leading(self._codes), self._no_rows(), self._no_heads()
        bare = np.zeros_like(always)
        step = max(1, CHUNK // (self._keys.shape[1] * TILE)) * TILE

        def part(a: int, b: int) -> float:
            u, lengths = transformed(self._basis, self._keys[a:b])
            return encode(u, lengths, self._basis.reach, a, leading, rows, always, bare, heads)

        starts = range(self._coded, last, step)
        spreads = parallel.run([lambda a=a: part(a, min(a + step, last)) for a in starts])
        self._spread = max([self._spread, *spreads])
        self._always[fresh] = always[fresh]
        self._coded = last

    def _fit(self, count: int) -> None:
        """Fit the codes to the first `count` keys; none has a code after that."""
        picked = np.random.default_rng(0).choice(count, min(count, 2 * SAMPLE), replace=False)
        sample = self._keys[np.sort(picked)]
        # A basis makes its own sample look narrower than the keys are.
        mine, others = (sample, sample) if len(picked) == count else (sample[::2], sample[1::2])
        self._codes[:], self._always[:] = 0, ALL
        self._coded, self._fitted, self._spread = 0, 0, 0.0
        self._basis = fit_basis(mine, None, REACH)
        u, lengths = transformed(self._basis, others)
        self._steps = fit_leading(u[lengths <= self._basis.reach], sample.shape[1], BITS)
        self._fitted = count

    def _leading(self, codes: NDArray) -> Leading:
        return Leading(codes, *self._steps, self._spread, BITS)

    def _no_rows(self) -> Rows:
        return Rows(np.empty((0, self._keys.shape[1]), np.uint8), self._steps[0], 0.0)

    def _no_heads(self) -> Heads:
        return make_heads(0, 0, self._steps[0])

    def _forget(self) -> None:
        """Let nothing rest on keys and values as they were."""
        self._ready, self._moments = None, None

    def _kernels(self) -> _Ready:
        """Kernels for what there is."""
        ready = self._ready
        if ready is None:
            head = self._arrays()
            kernels = aim_queries, fill_products, coded_rows, coded_sampled_rows, coded_relu
            ready = _Ready(*(Bound(kernel, head) for kernel in kernels), len(head.keys))
            self._ready = ready
        return ready

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
        ready = self._kernels()
        aims = ready.aim(queries)

        def part(a: int, b: int, filled: NDArray, arena: NDArray) -> None:
            some = Readings(*(field[a:b] for field in readings))
            ready.softmax(
                _of(aims, a, b),
                queries[a:b],
                visible[a:b],
                cut.of(slice(a, b)),
                scale,
                filled,
                arena,
                some,
            )

        self._run(ready, aims, part)

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
        ready, estimates = self._kernels(), make_estimates(len(queries))
        aims = ready.aim(queries)

        def part(a: int, b: int, filled: NDArray, arena: NDArray) -> None:
            ready.sampled(
                _of(aims, a, b),
                goal.prior,
                queries[a:b],
                goal.states[a:b],
                visible[a:b],
                cut.of(slice(a, b)),
                goal.targets[a:b],
                scale,
                filled,
                arena,
                Readings(*(field[a:b] for field in readings)),
                Estimates(*(field[a:b] for field in estimates)),
            )

        self._run(ready, aims, part)
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
        ready = self._kernels()
        aims = ready.aim(queries)

        def part(a: int, b: int, arena: NDArray) -> None:
            some = Readings(*(field[a:b] for field in readings))
            ready.relu(
                _of(aims, a, b),
                queries[a:b],
                visible[a:b],
                offsets[a:b],
                errors[a:b],
                scale,
                threshold,
                power,
                arena,
                some,
            )

        self._by_threads(ready, len(queries), part)

    def _parts(self, m: int) -> list[tuple[int, int]]:
        """Ranges of queries for threads, whole blocks."""
        blocks = -(-m // BLOCK)
        each = BLOCK * len(self) * (KEY_NANOSECONDS + PRODUCT_NANOSECONDS * self._keys.shape[1])
        return [(a * BLOCK, min(b * BLOCK, m)) for a, b in parallel.parts(blocks, each)]

    def _run(self, ready: _Ready, aims: Aims, part: Callable) -> None:
        """Run a part, given products of a single query as well, for the queries of each thread."""
        m = len(aims.bounds)
        if m != 1:
            none = np.empty((0, 0), np.int32)
            self._by_threads(ready, m, lambda a, b, arena: part(a, b, none, arena))
            return
        with self._products.lend(ready.slots // 2) as room:
            filled = room[: ready.slots // 2].view(np.int32)[None]
            self._fill_products(ready, aims, filled)
            self._by_threads(ready, m, lambda a, b, arena: part(a, b, filled, arena))

    def _by_threads(self, ready: _Ready, m: int, part: Callable) -> None:
        """Run a part for the queries of each thread, with an arena of its own."""
        words = words_of(ready.slots, 1 if m == 1 else BLOCK)

        def alone(a: int, b: int) -> None:
            with self._scratch.lend(words) as arena:
                part(a, b, arena)

        parallel.run([lambda a=a, b=b: alone(a, b) for a, b in self._parts(m)])

    def _fill_products(self, ready: _Ready, aims: Aims, filled: NDArray) -> None:
        """Products of all keys with one query, by all threads."""
        tiles, weights = ready.slots // TILE, aims.weights
        pieces = parallel.parts(tiles, TILE * self.dim * PRODUCT_NANOSECONDS)
        parallel.run(
            [lambda a=a, b=b: ready.products(weights, 0, 1, a, b, filled) for a, b in pieces]
        )


def _of(aims: Aims, first: int, last: int) -> Aims:
    """Those of some queries, from the first of a block on."""
    return Aims(aims.weights[2 * first : -(-last // BLOCK) * BLOCK * 2], aims.bounds[first:last])
