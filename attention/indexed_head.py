"""Keys of one head in a half-space index: candidates are a report's cover, or every key.

Keys whose score reaches a threshold are a half-space report with the query as normal. For each
query the index gives candidates — all keys where nothing prunes, else the report of a half-space
low enough for the certificate — whose scores by the index's float filter decide what is read.
"""

import functools

import numpy as np

import halfspace
from halfspace import parallel
from halfspace.tiles import TILE, arrays_of, frozen

from . import bounds, selection
from .reading import Candidates, Cut, Head, Readings, make_readings, relu_rows, softmax_rows
from .sampled import Aim, Estimates, Moments, make_estimates, moments_of, sampled_rows

KEY_NANOSECONDS = 2.0
"""Rough cost of looking at one key, to decide whether threads pay."""

UNSEEN_SHARE = 0.05
"""Part of what a rule may miss that is left to keys not even looked at."""

CERTAIN_SHARE = 1e-4
"""Mass that may go unseen where the rule names none."""

TOP_SAMPLE = 1024
"""Keys whose scores suggest where the r-th best lies."""


class IndexedHead:
    """Keys and values of one head, by slot of a half-space index of the keys.

    Parameters
    ----------
    keys : ndarray, shape (n, head_dim)
    values : ndarray, shape (n, value_dim)
        Finite, float32 or float64.
    structure : str
        As for `halfspace.build`, but none that holds copies of points.

    Raises
    ------
    TypeError, ValueError
        Not a structure, or one that holds copies.
    """

    def __init__(self, keys: np.ndarray, values: np.ndarray, structure: str) -> None:
        self.index = halfspace.build(keys, structure)
        if len(self.index.structure.tiles.data) * TILE >= len(keys) + TILE:
            raise ValueError(f"structure: expected one without copies of points, got {structure!r}")
        tiles, nodes = self.index.structure.tiles, self.index.nodes
        order = tiles.ranks
        self._head = Head(
            tiles, nodes.first, nodes.last, frozen(keys[order]), frozen(values[order])
        )

    def __len__(self) -> int:
        return len(self.index)

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        # A pickle forgets that arrays were read-only, and kernels are compiled for that.
        for array in arrays_of(self._head):
            frozen(array)

    @functools.cached_property
    def moments(self) -> Moments:
        """Of the values."""
        return moments_of(self._head.values)

    @property
    def dim(self) -> int:
        """head_dim."""
        return self.index.dim

    def rows(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values by slot."""
        return self._head.keys, self._head.values

    @property
    def keeps_order(self) -> bool:
        """Whether slots are in the order of the keys."""
        return not len(self.index.nodes.first)

    def softmax(
        self,
        queries: np.ndarray,
        visible: np.ndarray,
        cut: Cut,
        scale: float,
        readings: Readings,
    ) -> None:
        """Fill `readings` of softmax attention for queries (m, head_dim), float64."""
        self._read(self._pieces(queries, cut, scale), queries, visible, cut, scale, readings)
        if not self.keeps_order:
            self._read_short(queries, visible, cut, scale, readings)

    def sampled(
        self,
        goal: Aim,
        queries: np.ndarray,
        visible: np.ndarray,
        cut: Cut,
        scale: float,
        readings: Readings,
    ) -> Estimates:
        """Fill `readings` by sampling or dropping, whichever reads less; all keys are looked at."""
        estimates = make_estimates(len(queries))
        parallel.run(
            [
                lambda a=a, b=b: sampled_rows(
                    self._head,
                    goal.prior,
                    queries[a:b],
                    goal.states[a:b],
                    visible[a:b],
                    cut.of(slice(a, b)),
                    goal.targets[a:b],
                    scale,
                    Readings(*(field[a:b] for field in readings)),
                    Estimates(*(field[a:b] for field in estimates)),
                )
                for a, b in self._parts(len(queries))
            ]
        )
        return estimates

    def _parts(self, m: int) -> list[tuple[int, int]]:
        """Ranges of m queries that look at every key."""
        return parallel.parts(m, KEY_NANOSECONDS * len(self))

    def relu(
        self,
        queries: np.ndarray,
        visible: np.ndarray,
        offsets: np.ndarray,
        errors: np.ndarray,
        scale: float,
        threshold: float,
        power: int,
        readings: Readings,
    ) -> None:
        """Fill `readings` of ReLU attention; no key with <q, k> < offset is active."""
        parallel.run(
            [
                lambda a=a, b=b, c=c: relu_rows(
                    self._head,
                    c,
                    queries[a:b],
                    visible[a:b],
                    scale,
                    threshold,
                    power,
                    errors[a:b],
                    Readings(*(field[a:b] for field in readings)),
                )
                for a, b, c in self._covered(queries, offsets, scale)
            ]
        )

    def _read(
        self,
        pieces: list[tuple[int, int, Candidates]],
        queries: np.ndarray,
        visible: np.ndarray,
        cut: Cut,
        scale: float,
        readings: Readings,
    ) -> None:
        """Read for ranges of queries, side by side."""
        parallel.run(
            [
                lambda a=a, b=b, c=c: softmax_rows(
                    self._head,
                    c,
                    queries[a:b],
                    visible[a:b],
                    cut.of(slice(a, b)),
                    scale,
                    Readings(*(field[a:b] for field in readings)),
                )
                for a, b, c in pieces
            ]
        )

    def _read_short(
        self,
        queries: np.ndarray,
        visible: np.ndarray,
        cut: Cut,
        scale: float,
        readings: Readings,
    ) -> None:
        """Read again, from all keys, where the candidates of a tree were too few for the share."""
        if cut.kind != selection.SHARE:
            return
        total = readings.mass + readings.missed
        rows = np.flatnonzero(~(readings.missed <= cut.parameters * total * (1.0 + 1e-9)))
        if rows.size:
            again = make_readings(len(rows), readings.output.shape[1])
            some = cut.of(rows)
            every = [(0, len(rows), _every_key())]
            self._read(every, frozen(queries[rows]), visible[rows], some, scale, again)
            for field, new in zip(readings, again, strict=True):
                field[rows] = new

    def _pieces(
        self, queries: np.ndarray, cut: Cut, scale: float
    ) -> list[tuple[int, int, Candidates]]:
        """Ranges of queries with their candidates, for softmax."""
        if not len(self.index.nodes.first):
            return [(a, b, _every_key()) for a, b in self._parts(len(queries))]
        if not len(queries):
            return []
        return self._covered(queries, self._least_offsets(queries, cut, scale), scale)

    def _covered(
        self, queries: np.ndarray, offsets: np.ndarray, scale: float
    ) -> list[tuple[int, int, Candidates]]:
        """Ranges of queries, with the keys of <q, k> >= offset as candidates."""
        # Scores of all other keys, rounded up.
        floors = bounds.nudged(offsets * scale, 4.0)
        pieces, first = [], 0
        for block in self.index.cover(queries, offsets):
            last = first + len(block)
            found = Candidates(block.indptr, block.parts, block.masks, floors[first:last])
            pieces.append((first, last, found))
            first = last
        return pieces

    def _least_offsets(self, queries: np.ndarray, cut: Cut, scale: float) -> np.ndarray:
        """Offsets below which a query need not look for its cut and its certificate."""
        best = self.index.top(queries, 1).scores[:, 0] * scale
        best -= cut.errors + 16.0 * bounds.UNIT * np.abs(best)
        n = len(self)
        if cut.kind == selection.TOP_R:
            floors = np.minimum(self._rank_floors(queries, cut.parameters, scale), best - 1.0)
            return floors / scale
        share = np.full(len(queries), CERTAIN_SHARE)
        if cut.kind == selection.SHARE:
            share = UNSEEN_SHARE * cut.parameters
        with np.errstate(divide="ignore"):
            offsets = (best - np.maximum(np.log(n / share), 1.0)) / scale
        return np.minimum(offsets, cut.offsets) if cut.kind == selection.THRESHOLD else offsets

    def _rank_floors(self, queries: np.ndarray, ranks: np.ndarray, scale: float) -> np.ndarray:
        """Scores that at least `ranks` keys reach: guessed from a sample, then counted."""
        n = len(self)
        sample = self._head.keys[np.linspace(0, n - 1, min(n, TOP_SAMPLE)).astype(np.int64)]
        scores = -np.sort(-(queries @ sample.T.astype(np.float64)), axis=1) * scale
        expected = ranks / n * len(sample)
        places = np.ceil(1.25 * expected + 3.0 * np.sqrt(expected) + 2.0)
        floors = np.full(len(queries), -np.inf)
        open_rows = np.arange(len(queries))
        while open_rows.size:
            open_rows = open_rows[places[open_rows] < len(sample)]
            at = places[open_rows].astype(np.int64)
            guesses = scores[open_rows, at]
            enough = self.index.count(queries[open_rows], guesses / scale) >= ranks[open_rows]
            floors[open_rows[enough]] = guesses[enough]
            open_rows = open_rows[~enough]
            places[open_rows] *= 2.0
        return floors


def _every_key() -> Candidates:
    return Candidates(
        np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint64), np.empty(0)
    )
