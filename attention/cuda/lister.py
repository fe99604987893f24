"""Launches for a group of queries: products of codes, lists of keys with scores, and averages.

What the kernels do is in `products.py` and `averages.py`; which keys a rule wants is up to
`reader.py`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from halfspace.cuda.lists import Counted, added_up, count_bits, list_numbers
from halfspace.cuda.runtime import by_rows, get, line
from halfspace.cuda.scratch import Scratch
from halfspace.cuda.words import PIECE, words_of
from halfspace.tiles import TILE

from ..code_bounds import GUESS_BINS
from ..coded_keys import View
from . import averages, products
from .averages import SPLIT, SUMS
from .bars import sampling
from .held import Asked, Held
from .ranks import BINS

LIST_BYTES = 29
"""Scratch for one key of a list."""

FIELD_BYTES = 512
"""Scratch for what else is known of a query, at most."""

STRIPS = 4096
"""Threads that go over the products of a query."""

ANSWERS = SUMS + 2
"""Columns of answers behind the values'."""


def row_bytes(tiles: int, held: Held) -> int:
    """Scratch that a query of so many tiles of keys takes, without its lists."""
    coordinates = held.keys.shape[2] + held.codes.shape[2] + held.values.shape[2]
    products, marks = 4 * TILE * tiles, 9 * tiles  # in bits, and what is counted of them
    missed = 9 * min(TILE * tiles, STRIPS)
    bins = 4 * (GUESS_BINS + 1 + BINS)
    return products + marks + missed + bins + 8 * coordinates + FIELD_BYTES


def list_bytes(keys: int, rows: int, longest: int, columns: int) -> int:
    """Scratch that the lists of some rows take: so many keys in all, and the longest of so many."""
    splits = -(-longest // SPLIT)
    sums = splits
    while splits > 1:
        splits = -(-splits // PIECE)
        sums += splits
    return LIST_BYTES * keys + 8 * rows * columns * sums


class Listed(NamedTuple):
    """Keys of some rows on the device, with their scores."""

    rows: np.ndarray  # (k,) int64, on the host
    totals: np.ndarray  # (k,) int64, on the host: keys of each
    each: tuple  # grid and block
    chosen: object  # (k,) int64, the rows
    starts: object  # (k + 1,) int64
    slots: object  # (listed,) int32
    scores: object  # (listed,) float64
    tops: object  # (k,) float64
    missed: object  # (k, 1, 1) float64


class Weighed(NamedTuple):
    """What a rule makes of listed keys."""

    weights: object  # (listed,) float64
    kept: object  # (listed,) int8; empty for all


class Lister:
    """A group of queries and the keys they are asked of.

    Parameters
    ----------
    held : Held
    asked : Asked
    scale : float
        Of scores.
    room : int
        Bytes of scratch that lists and their sums may take, where those of one query take less.
    scratch : Scratch
    """

    def __init__(self, held: Held, asked: Asked, scale: float, room: int, scratch: Scratch) -> None:
        self.held, self.asked, self.scale, self.scratch = held, asked, scale, scratch
        self.rows, self._room = len(asked.host_lengths), room
        self._tiles = -(-int(asked.host_lengths.max(initial=0)) // TILE)
        self._products, self._columns = None, held.values.shape[2] + SUMS
        self._views = scratch.take("no views", (0, 0), np.float64)

    def fill_products(self) -> object:
        """Multiply all codes; the best key of each row, on the device."""
        asked, held, scratch = self.asked, self.held, self.scratch
        shared = max(q for q in products.SHARED if q == 1 or asked.m > 1)
        self._products = scratch.take("products", (self.rows, self._tiles * TILE), np.int32)
        best = scratch.zeros("best", (self.rows,), np.int64)
        runs = -(-self._tiles // products.TILES) * TILE
        products.fill_products[shared](
            scratch.stream,
            *line(self.rows // asked.m * -(-asked.m // shared) * runs),
            held.codes,
            held.always,
            asked.head,
            asked.m,
            asked.lengths,
            asked.weights,
            self._products,
            best,
        )
        uncoded = asked.uncoded[asked.uncoded < self._tiles]
        if uncoded.size:
            products.fill_uncoded(
                scratch.stream,
                *line(self.rows * uncoded.size * TILE),
                held.always,
                scratch.copy("uncoded", uncoded),
                held.keys,
                asked.head,
                asked.m,
                asked.queries,
                asked.lengths,
                asked.bounds,
                asked.errors,
                self.scale,
                self._products,
                best,
            )
        return best

    def look(self, per_nat: float) -> tuple[np.ndarray, np.ndarray]:
        """Multiply all codes; views (rows, 9) of what they say, and `count_bins`, on the host."""
        asked, scratch = self.asked, self.scratch
        best = self.fill_products()
        self._views = scratch.take("views", (self.rows, len(View._fields)), np.float64)
        products.fill_views(
            scratch.stream,
            *line(self.rows),
            self.held.keys,
            asked.head,
            asked.m,
            asked.queries,
            asked.bounds,
            asked.errors,
            self.scale,
            self._tiles,
            best,
            self._views,
        )
        counts = self._bins(per_nat)  # before the host waits
        return get(self._views, scratch.stream), get(counts, scratch.stream)

    def count_bins(self, per_nat: float) -> np.ndarray:
        """Histograms (rows, bins) of products below the best key's score, so many bins a nat."""
        return get(self._bins(per_nat), self.scratch.stream)

    def _bins(self, per_nat: float) -> object:
        scratch, stride = self.scratch, sampling(self._tiles)
        counts = scratch.zeros("bins", (self.rows, GUESS_BINS + 1), np.int32)
        sampled = -(-self._tiles // stride) * TILE
        products.count_bins(
            scratch.stream,
            *line(self.rows * sampled),
            self._products,
            self._views,
            per_nat,
            stride,
            counts,
        )
        return counts

    def lists(self, rows: np.ndarray, bars: np.ndarray | None) -> Iterator[Listed]:
        """Keys whose products reach the bars (k,) of some rows (k,); without bars, all they see.

        Some rows at a time, as there is room. What is yielded holds until the next is asked for.
        """
        scratch, k = self.scratch, len(rows)
        marked = scratch.zeros("marked", (k, words_of(self._tiles * TILE)), np.uint32)
        chosen = scratch.copy("chosen", rows)
        if bars is None:
            missed = scratch.zeros("missed", (k, 1, 1), np.float64)
            products.mark_visible(
                scratch.stream, *line(marked.size), self.asked.lengths, chosen, marked
            )
        else:
            strips = min(self._tiles * TILE, STRIPS)
            missed = scratch.take("missed", (k, 1, strips), np.float64)
            products.mark_reaching(
                scratch.stream,
                *line(missed.size),
                self._products,
                self._views,
                chosen,
                scratch.copy("bars", bars),
                marked,
                missed,
            )
            missed = added_up(missed, scratch, "missed")
        counted = count_bits(marked, scratch)
        for first, last in _pieces(counted.totals, self._columns, self._room):
            part = first, last
            yield self._scored(
                rows[first:last], counted.rows(*part), _rows(chosen, *part), _rows(missed, *part)
            )

    def _scored(self, rows: np.ndarray, counted: Counted, chosen: object, missed: object) -> Listed:
        """List what is marked, with scores."""
        scratch, asked, k = self.scratch, self.asked, len(rows)
        size = max(1, int(counted.totals.sum()))
        starts = scratch.copy("starts", counted.starts)
        slots = scratch.take("slots", (size,), np.int32)
        names = scratch.take("no names", (0,), np.int64)
        list_numbers(counted, starts, names, slots, scratch.stream)
        scores = scratch.take("scores", (size,), np.float64)
        tops = scratch.take("tops", (k,), np.float64)
        each = by_rows(int(counted.totals.max()), k)
        averages.reset(scratch.stream, *line(k), tops)
        averages.score_listed(
            scratch.stream,
            *each,
            self.held.keys,
            asked.head,
            asked.m,
            asked.queries,
            chosen,
            self.scale,
            starts,
            slots,
            scores,
            tops,
        )
        return Listed(rows, counted.totals, each, chosen, starts, slots, scores, tops, missed)

    def answers(self, listed: Listed, weighed: Weighed) -> np.ndarray:
        """Sums of weighted values and all else that is known of the rows, on the host.

        Float64 (k, value_dim + ANSWERS); the columns behind the values' are those of `averages`.
        """
        scratch, k, columns = self.scratch, len(listed.rows), self._columns
        splits = max(1, -(-int(listed.totals.max()) // SPLIT))
        sums = scratch.take("sums", (k, columns, splits), np.float64)
        averages.sum_splits(
            scratch.stream,
            *line(sums.size),
            self.held.values,
            self.asked.head,
            self.asked.m,
            listed.chosen,
            listed.starts,
            listed.slots,
            weighed.kept,
            weighed.weights,
            listed.scores,
            sums,
        )
        answers = scratch.take("answers", (k, columns - SUMS + ANSWERS), np.float64)
        averages.gather_answers(
            scratch.stream,
            *line(k),
            added_up(sums, scratch),
            listed.missed,
            listed.tops,
            answers,
        )
        return get(answers, scratch.stream)


def _pieces(totals: np.ndarray, columns: int, room: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose lists have room in so many bytes together, or are of one row."""
    first, keys, longest = 0, 0, 0
    for row, total in enumerate(totals.tolist()):
        keys, longest = keys + total, max(longest, total)
        if row > first and list_bytes(keys, row + 1 - first, longest, columns) > room:
            yield first, row
            first, keys, longest = row, total, total
    yield first, len(totals)


def _rows(array: object, first: int, last: int) -> object:
    return array if last - first == array.shape[0] else array[first:last]
