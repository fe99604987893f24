"""Heads to which as many tokens are appended each: rows in one room, codes and fits by head.

A token is written to all heads at once, and one kernel answers for as many heads as a thread takes.
What is done to a head's codes is in `coded_head.py`.

Structures that are built once become ones to append to by the logarithmic method: parts of sizes
2^i that are merged, so that each point moves O(log n) times and each query asks O(log n) parts.
Codes need none of it: a key's code depends on the key and the fit alone, so it is written in place.
The fit is made anew each time keys have quadrupled, so a key gets 4/3 codes on average: O(d^2) a
token, amortised.
"""

import copy
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np

from halfspace import parallel
from halfspace.code_rows import BLOCK
from halfspace.jit import Bound
from halfspace.tiles import TILE, frozen

from . import bounds
from .arenas import Arenas
from .arrays_by_name import arrays_by_name, as_stored, from_arrays
from .attended import Attended
from .coded_head import CHUNK, KEY_NANOSECONDS, PRODUCT_NANOSECONDS, CodedHead, Fit
from .coded_heads import (
    Answers,
    CodedHeads,
    Piece,
    attend_heads,
    part_of,
    pieces,
    relu_of_heads,
    stacked,
)
from .coded_rules import words_of
from .cuts import Measures, wish_of
from .inputs import least_rounding, rounding_unit
from .reading import Cut, Readings
from .room import Room, make_room, tiles_for, widened
from .rules import Rule, Sampled
from .sampled import Estimates, aim, make_estimates
from .spread import Spread, spread_of, with_more

Extents = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Largest norms of keys, and ranges of values, by head."""

T = TypeVar("T")


class GrowingHeads:
    """Keys and values of some heads, with as many tokens each.

    Parameters
    ----------
    heads, head_dim, value_dim : int
    dtype : dtype
        float32 or float64.
    uncoded : int, optional
        As for `CodedHead`.

    Attributes
    ----------
    rewritten : int
        How often tokens that were there were cut off, or became others.
    """

    def __init__(
        self, heads: int, head_dim: int, value_dim: int, dtype: np.dtype, uncoded: int | None
    ) -> None:
        first = CodedHead(
            np.empty((0, head_dim), dtype), np.empty((0, value_dim), dtype), uncoded=uncoded
        )
        self._blank, self._settled = first, True
        self._heads = [copy.copy(first) for _ in range(heads)]
        self._count, self._measured, self.rewritten = 0, 0, 0
        self._key_norms = np.zeros(heads)
        self._low, self._high = np.zeros((2, heads, value_dim))
        self._seen, self._read = np.zeros((2, heads), np.int64)
        self._spread, self._arenas = spread_of(np.empty((heads, 0, value_dim))), Arenas()
        self._live_in(make_room((heads,), 0, head_dim, value_dim, (dtype, dtype)))

    def __len__(self) -> int:
        return self._count

    @property
    def heads(self) -> int:
        """How many heads."""
        return len(self._heads)

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values and codes, with what is kept free for more."""
        return self._room.nbytes

    @property
    def coded(self) -> int:
        """Tokens that have codes: the first ones."""
        return self._heads[0].coded

    @property
    def fitted(self) -> int:
        """Tokens that the codes were fitted to."""
        return self._heads[0].fitted

    @property
    def room(self) -> Room:
        """Where the rows are, with an axis for the heads."""
        return self._room

    @property
    def fits(self) -> list[Fit]:
        """What the codes of each head mean."""
        return [head.fit for head in self._heads]

    @property
    def keys(self) -> np.ndarray:
        """Keys (heads, tokens, head_dim), as a view."""
        return self._room.keys[:, : self._count]

    @property
    def values(self) -> np.ndarray:
        """Values (heads, tokens, value_dim), as a view."""
        return self._room.values[:, : self._count]

    @property
    def seen_and_read(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys that queries saw so far, and those of them that were read, by head."""
        return self._seen, self._read

    def extend(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Append keys (heads, t, head_dim) and values (heads, t, value_dim)."""
        self._settle()
        self._settled = False
        before, end = self._count, self._count + keys.shape[1]
        tiles = tiles_for(end, self._room.tiles)
        if tiles > self._room.tiles:
            self._live_in(widened(self._room, tiles))
        self._room.keys[:, before:end], self._room.values[:, before:end] = keys, values
        self._count = end
        if self._heads[0].due(end):
            parallel.run([lambda head=head: head.advance(end) for head in self._heads])
            self._bind()
        else:
            for head in self._heads:
                head.wait(end)
        self._settled = True

    def crop(self, count: int) -> None:
        """Forget all but the first `count` tokens."""
        self._settle()
        self._settled = False
        self.rewritten += 1
        for head in self._heads:
            head.crop(count)
        often = self._spread.count[0] > 2.0 * count  # so many were cut off and followed by others
        if count < self._measured and (often or self._reaches_out(count, self._measured)):
            self._measured = 0
        self._count, self._measured = count, min(self._measured, count)
        self._settled = True

    def take(self, old: np.ndarray) -> None:
        """Let head h be what head ``old[h]`` was."""
        self._settle()
        self._settled = False
        self.rewritten += 1
        keys, values = self._room.keys, self._room.values
        room = make_room(
            (len(old),), self._room.tiles, keys.shape[-1], values.shape[-1], (keys.dtype,) * 2
        )
        for mine, new in zip(self._room, room, strict=True):
            np.take(mine, old, axis=0, out=new, mode="clip")
        self._heads = [copy.copy(self._heads[h]) for h in old]
        for name in ("_key_norms", "_low", "_high", "_seen", "_read"):
            setattr(self, name, getattr(self, name)[old])
        self._spread = Spread(*(field[old] for field in self._spread))
        self._live_in(room)
        self._settled = True

    def measures(self) -> Measures:
        """Measures of the keys and values there are."""
        self._settle()
        if self._measured < self._count:
            more = self.values[:, self._measured :]
            spread = with_more(self._spread, more) if self._measured else spread_of(more)
            known = (self._key_norms, self._low, self._high) if self._measured else None
            for found in self._measures(self._measured, self._count):
                known = found if known is None else _of_both(known, found)
            # All at last: if this is interrupted, it is done again.
            self._key_norms, self._low, self._high = known
            self._spread, self._measured = spread, self._count
        return Measures(self._key_norms, self._low, self._high, self._spread)

    def attend(
        self,
        rule: Rule,
        queries: np.ndarray,
        lengths: np.ndarray,
        scale: float,
        dtype: np.dtype,
        *,
        sure: bool,
    ) -> Attended | None:
        """Softmax attention, by query of all heads.

        Parameters
        ----------
        rule : Rule
            Any but `Sampled`.
        queries : ndarray of float64, shape (heads, m, head_dim)
        lengths : ndarray of int64, shape (m,)
            Tokens that each sees.
        scale : float
        dtype : dtype
            Of the output, float32 or float64.
        sure : bool
            Queries are known to be finite, and scores to stay in range.

        Returns
        -------
        Attended or None
            None where that is not known and may not be so.
        """
        heads, m, _ = queries.shape
        numbers, measures = np.empty((3, heads * m)), self.measures()
        output, reported = (
            np.empty((heads * m, measures.low.shape[1])),
            np.empty(heads * m, np.int64),
        )
        answers = Answers(output, *numbers, reported)
        wish, cast = wish_of(rule, lengths, scale), (rounding_unit(dtype), least_rounding(dtype))

        def part(piece: Piece, slots: int, arena: np.ndarray) -> bool:
            return self._attend(
                measures, piece, slots, queries, lengths, wish, scale, *cast, sure, arena, answers
            )

        if not all(self._run(part, queries)):
            return None
        self._seen += np.add.reduce(lengths)
        self._read += np.add.reduce(reported.reshape(heads, m), axis=1)
        lse, bound, lse_bound = numbers
        return Attended(output.astype(dtype, copy=False), lse, bound, reported, lse_bound)

    def sampled(
        self,
        rule: Sampled,
        queries: np.ndarray,
        lengths: np.ndarray,
        cut: Cut,
        scale: float,
        unit: float,
        readings: Readings,
    ) -> Estimates:
        """As `softmax`, by sampling where that reads less; `unit` is of the output's rounding."""
        heads, m, _ = queries.shape
        estimates = make_estimates(heads * m)
        for h, head in enumerate(self._heads):
            rows = slice(h * m, (h + 1) * m)
            span = bounds.ValueRange(self._low[h], self._high[h])
            mine, asked = cut.of(rows), frozen(queries[h])
            goal = aim(rule, asked, head.moments, span, lengths, mine.errors, unit)
            some = Readings(*(field[rows] for field in readings))
            got = head.sampled(goal, asked, lengths, mine, scale, some)
            for all_of_them, those in zip(estimates, got, strict=True):
                all_of_them[rows] = those
        self.count_reads(readings.looked.reshape(heads, m), readings.reported.reshape(heads, m))
        return estimates

    def relu(
        self,
        queries: np.ndarray,
        lengths: np.ndarray,
        offsets: np.ndarray,
        errors: np.ndarray,
        scale: float,
        threshold: float,
        power: int,
        readings: Readings,
    ) -> None:
        """Fill the readings of ReLU attention; what is by query is by query of all heads."""
        heads, m, _ = queries.shape

        def part(piece: Piece, slots: int, arena: np.ndarray) -> None:
            self._relu(
                piece,
                slots,
                queries,
                lengths,
                offsets,
                errors,
                scale,
                threshold,
                power,
                arena,
                readings,
            )

        self._run(part, queries)
        self.count_reads(readings.looked.reshape(heads, m), readings.reported.reshape(heads, m))

    def state(self) -> dict[str, np.ndarray]:
        """Arrays by name, without what is free."""
        self._settle()
        tiles = self.coded // TILE
        return {
            "keys": self.keys,
            "values": self.values,
            "always": self._room.always[:, :tiles],
            "codes": self._room.codes[:, :tiles],
            "progress": np.array((self.coded, self._heads[0].fitted)),
            "counts": np.array((self._seen, self._read)),
            **arrays_by_name(self._attend.first.fit, "fit"),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Be, without tokens so far, what had such a state.

        Raises
        ------
        KeyError, ValueError
            It is not that of heads like these.
        """
        self.rewritten += 1
        tokens, (coded, fitted) = state["keys"].shape[1], state["progress"].tolist()
        if coded % TILE or not 0 <= coded <= tokens:
            raise ValueError(f"progress: expected whole tiles of {tokens} tokens, got {coded}")
        room = widened(self._room, tiles_for(tokens, 0))
        rows = tokens, tokens, coded // TILE, coded // TILE
        for name, array, count in zip(Room._fields, room, rows, strict=True):
            filled = array[:, :count]
            filled[:] = as_stored(state[name], filled, name)
        fits = from_arrays(self._attend.first.fit, "fit", state)
        self._seen, self._read = as_stored(
            state["counts"], np.array((self._seen, self._read)), "counts"
        )
        for h, head in enumerate(self._heads):
            head.take_over(_of_head(room, h), tokens, coded, fitted, part_of(fits, h))
        self._count = tokens
        self._live_in(room)

    def _settle(self) -> None:
        """After a change that was interrupted, keep the tokens there are, without codes.

        Elsewhere, for a thread that nobody waits for may go on to write codes where they were.
        """
        if self._settled:
            return
        self.rewritten += 1
        old, count = self._room, self._count
        heads, _, d = old.keys.shape
        value_dim, dtypes = old.values.shape[-1], (old.keys.dtype, old.values.dtype)
        room = make_room((heads,), old.tiles, d, value_dim, dtypes)
        room.keys[:, :count], room.values[:, :count] = old.keys[:, :count], old.values[:, :count]
        self._heads, self._measured = [copy.copy(self._blank) for _ in range(heads)], 0
        if len(self._seen) != heads or len(self._read) != heads:
            self._seen, self._read = np.zeros((2, heads), np.int64)
        self._live_in(room)
        for head in self._heads:
            head.wait(count)
        self._settled = True

    def _live_in(self, room: Room) -> None:
        """Keep rows, from now on, in room that holds those there are."""
        self._room = room
        for h, head in enumerate(self._heads):
            head.live_in(_of_head(room, h))
        self._bind()

    def _bind(self) -> None:
        """Let kernels see the room and the fits there are."""
        views = Room(*(frozen(array.view()) for array in self._room))
        heads = CodedHeads(views, stacked([head.fit for head in self._heads]))
        self._attend, self._relu = Bound(attend_heads, heads), Bound(relu_of_heads, heads)

    def _run(self, part: Callable[[Piece, int, np.ndarray], T], queries: np.ndarray) -> list[T]:
        """Call a part for pieces of the queries, with scratch, by threads where that pays."""
        heads, m, d = queries.shape
        slots = -(-self._count // TILE) * TILE
        words = words_of(slots, BLOCK)

        def alone(piece: Piece) -> T:
            with self._arenas.lend(words) as arena:
                return part(piece, slots, arena)

        of_threads = pieces(heads, m, slots * (KEY_NANOSECONDS + PRODUCT_NANOSECONDS * d))
        return parallel.run([lambda piece=piece: alone(piece) for piece in of_threads])

    def count_reads(self, looked: np.ndarray, reported: np.ndarray) -> None:
        """Count keys that queries (heads, m) saw, and read."""
        self._seen += np.add.reduce(looked, axis=1)
        self._read += np.add.reduce(reported, axis=1)

    def _measures(self, first: int, last: int) -> Iterator[Extents]:
        """Extents of some tokens after others."""
        heads, _, d = self._room.keys.shape
        step = max(1, CHUNK // (heads * d))
        for start in range(first, last, step):
            rows = slice(start, min(start + step, last))
            norms = bounds.norms(self._room.keys[:, rows].reshape(-1, d))
            values = self._room.values[:, rows]
            yield (
                norms.reshape(heads, -1).max(axis=1),
                values.min(axis=1).astype(np.float64),
                values.max(axis=1).astype(np.float64),
            )

    def _reaches_out(self, first: int, last: int) -> bool:
        """Whether any of these tokens is as far out as any is, so that measures rest on it."""
        return any(
            (norms >= self._key_norms).any()
            or (low <= self._low).any()
            or (high >= self._high).any()
            for norms, low, high in self._measures(first, last)
        )


def _of_both(some: Extents, others: Extents) -> Extents:
    (norms, low, high), (more, lower, higher) = some, others
    return np.maximum(norms, more), np.minimum(low, lower), np.maximum(high, higher)


def _of_head(room: Room, h: int) -> Room:
    return Room(*(array[h] for array in room))
