"""What a rule has each query read, in the terms of `selection`: a share, a number, a half-space."""

import math
from typing import NamedTuple

import numpy as np

from halfspace.jit import kernel, part

from . import bounds, selection
from .inputs import LARGEST_SCORE
from .reading import Cut
from .rules import Mass, Rule, Threshold, TopR
from .spread import Spread


class Measures(NamedTuple):
    """What is known of the keys and values of some heads."""

    norms: np.ndarray  # (heads,) float64, largest of a key
    low: np.ndarray  # (heads, value_dim) float64, range of the values
    high: np.ndarray  # alike
    spread: Spread  # of the values

    @property
    def values(self) -> bounds.ValueRange:
        """Ranges of the values."""
        return bounds.ValueRange(self.low, self.high)


class Planned(NamedTuple):
    """What queries of all heads, row by row, are to read."""

    cut: Cut
    norms: np.ndarray  # (heads m,) float64, bounds on those of queries
    sound: bool  # whether these are finite, and scores below `LARGEST_SCORE`


class Wish(NamedTuple):
    """What a rule asks of queries, whatever the head."""

    kind: int  # as in `selection`
    parameters: np.ndarray  # (m,) float64
    offset: float  # of a threshold
    eps: float  # error of the output; negative where the rule names none


def cut_of(
    rule: Rule,
    queries: np.ndarray,
    lengths: np.ndarray,
    measures: Measures,
    scale: float,
    unit: float,
    least: float = 0.0,
) -> Planned:
    """The cut of queries that see so many keys, whose numbers have not been checked.

    Parameters
    ----------
    rule : TopR, Threshold, Mass, Error or Sampled
    queries : ndarray of float64, shape (heads, m, head_dim)
    lengths : ndarray of int64, shape (m,)
    measures : Measures
        Of the heads.
    scale : float
        Of scores.
    unit, least : float
        Relative rounding error of the output's dtype, and that of the least numbers.
    """
    heads, m, _ = queries.shape
    wish = wish_of(rule, lengths, scale)
    numbers, spans = np.empty((8, heads * m)), np.empty((2, heads * m, measures.low.shape[1]))
    norms, parameters, offsets, errors, left, slack, width, radius = numbers
    owners, spread = np.empty(heads * m, np.int64), measures.spread
    sound = fill_cut(
        queries, lengths, *measures, *wish[1:], scale, unit, least, numbers, spans, owners
    )
    cut = Cut(
        wish.kind, parameters, offsets, spread, owners, errors, left, slack, *spans, width, radius
    )
    return Planned(cut, norms, sound)


def wish_of(rule: Rule, lengths: np.ndarray, scale: float) -> Wish:
    """What a rule asks of queries that see so many keys."""
    m = len(lengths)
    if isinstance(rule, TopR):
        if m == 1:
            return Wish(selection.TOP_R, np.array([float(rule.count(int(lengths[0])))]), 0.0, -1.0)
        several, places = np.unique(lengths, return_inverse=True)
        counts = np.array([rule.count(int(n)) for n in several], np.float64)
        return Wish(selection.TOP_R, counts[places], 0.0, -1.0)
    if isinstance(rule, Threshold):
        offset = float(rule.b / scale)
        if math.isfinite(offset):
            return Wish(selection.THRESHOLD, np.zeros(m), offset, -1.0)
        every = lengths.astype(np.float64) if offset < 0.0 else np.zeros(m)
        return Wish(selection.TOP_R, every, 0.0, -1.0)
    if isinstance(rule, Mass):
        return Wish(selection.SHARE, np.full(m, 1.0 - rule.p), 0.0, -1.0)
    return Wish(selection.SHARE, np.zeros(m), 0.0, float(rule.eps))


@part
def _norm(query):
    """`bounds.norms` of one row; NaN where an entry is not finite."""
    largest, squares = 0.0, 0.0
    for j in range(query.size):
        largest = max(largest, abs(query[j]))
    unit = largest if largest > 0.0 else 1.0
    for j in range(query.size):
        ratio = query[j] / unit
        squares += ratio * ratio
    return bounds.norm_above(largest, squares)


@part
def _rounding(error, length, size, width):
    """What rounding does at most to a mean of so many values."""
    drift = bounds.weight_drift(1.0, error, length)
    # Where all weights may be rounding, no bound is reached.
    return bounds.mean_rounding(drift, length, size, width) if drift < 1.0 else np.inf


@part
def _share(left, furthest):
    """Share of the mass that may be missed where it may be so far from what was read."""
    return min(left / furthest, 1.0) if furthest > 0.0 else 1.0


@kernel
def fill_cut(
    queries,
    lengths,
    norms,
    low,
    high,
    spread,
    parameters,
    offset,
    eps,
    scale,
    unit,
    least,
    numbers,
    spans,
    owners,
):
    """Fill the numbers of queries and the ranges of their values; whether scores stay in range.

    Parameters
    ----------
    queries, lengths, scale, unit, least
        As for `cut_of`.
    norms, low, high, spread
        Of `Measures`.
    parameters, offset, eps
        Of `Wish`.
    numbers : float64 array, shape (8, heads m)
        Filled: norms of queries, then fields of `Cut` from `parameters` to `slack`, in the order
        that `cut_of` takes them out, `width` and `radius`.
    spans : float64 array, shape (2, heads m, value_dim)
        Filled: `low` and `high` by query.
    owners : int64 array, shape (heads m,)
        Filled: `heads` of `Cut`.
    """
    heads, m, d = queries.shape
    sound, steepest = True, max(scale, 1.0)
    for h in range(heads):
        size, width, squares = 0.0, 0.0, 0.0
        for c in range(low.shape[1]):
            squares = max(squares, spread.squares[h, c])
            size = max(size, max(abs(low[h, c]), abs(high[h, c])))
            width = max(width, high[h, c] - low[h, c])
        for i in range(m):
            row, norm = h * m + i, _norm(queries[h, i])
            sound &= norm * norms[h] * steepest < LARGEST_SCORE
            error = bounds.score_error(norm, norms[h], scale, d)
            share, left, slack = parameters[i], 0.0, 0.0
            if eps >= 0.0:
                slack = _rounding(error, lengths[i], size, width)
                left = max(0.0, eps * (1.0 - 2e-9) - slack - unit * size - least)
                share = _share(left, width + slack)
            numbers[0, row], numbers[1, row], numbers[2, row] = norm, share, offset
            numbers[3, row], numbers[4, row], numbers[5, row] = error, left, slack
            numbers[6, row], numbers[7, row], owners[row] = width, math.sqrt(squares), h
            for c in range(low.shape[1]):
                spans[0, row, c], spans[1, row, c] = low[h, c], high[h, c]
    return sound


def relu_offsets(
    threshold: float, norms: np.ndarray, key_norms: np.ndarray | float, scale: float, d: int
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets below which a product <q, k> has no weight, and bounds on the errors of scores.

    Parameters
    ----------
    threshold : float
    norms : ndarray of float64, shape (m,)
        Of queries.
    key_norms : float or ndarray of float64, shape (m,)
        Largest norm of a key, of the head or of each query's.
    scale : float
    d : int
        head_dim.
    """
    errors = bounds.score_error(norms, key_norms, scale, d)
    errors += bounds.UNIT * 4.0 * (abs(threshold) + norms * key_norms * scale)
    with np.errstate(over="ignore"):
        return bounds.nudged((threshold - errors) / scale, -4.0), errors
