r"""A certificate from second moments: small weights over many keys can hardly all pull one way.

Let S be the keys that were read, with mean m_S and certain mass K, and T the others, with weights
w_i <= p that sum to W <= M. The exact output is m = (K m_S + Σ_T w_i v_i) / (K + W), so for every
coordinate, by Cauchy and Schwarz,

    |m_S - m| = |Σ_T w_i (m_S - v_i)| / (K + W)
              <= sqrt(Σ_T w_i^2) sqrt(Σ_T (v_i - m_S)^2) / (K + W)
              <= sqrt(p W) / (K + W) * R,      R^2 = Σ_i (v_i - m_S)^2 over all keys.   (3)

sqrt(W) / (K + W) grows up to W = K, so W' = min(M, K) takes the place of W. Where values are seldom
near the ends of their range and no missed weight stands out, R / sqrt(n) is far less than the
distance to the far end, which certificate (1) of `bounds.py` assumes of all that is missed. Both
hold: each coordinate takes the smaller, or what `tails.py` says.

R^2 = Q - 2 (m_S - r) U + n (m_S - r)^2 with sums U of v - r and Q of (v - r)^2 about a centre r
that was chosen once, so values may be added one by one. Sums over more values than there are only
make R larger. O(value_dim) for a row.
"""

from typing import NamedTuple

import numpy as np

from halfspace.jit import kernel, part

from .tails import BINS, DOUBLINGS, count_values, expect_furthest, fit_bins, furthest

BLOCK, SAMPLE = 1024, 4096
"""Values that are summed before they are added, and values that a centre is the mean of, about."""

LOOKS = 16.0
"""Times that expectations of values are made anew until there are twice as many."""

SUMMED = 1e-9
"""Covers the relative rounding of R and of what it is made of, beside that of adding values up."""

ADDED = 2.0**-52
"""And that of adding a value to a sum, in whatever order and parts they come."""

LEAST = 2.0**-500
"""Distances up to here have squares that float64 may not hold, and count as this."""


_UNCOUNTED, _NO_BINS = np.empty((0, 0, 0), np.int32), np.empty((0, 0))


class Spread(NamedTuple):
    """Sums over the values of some heads. They may be of more values than there are."""

    count: np.ndarray  # (heads,) float64
    centre: np.ndarray  # (heads, value_dim) float64
    sums: np.ndarray  # (heads, value_dim) float64, of value - centre
    squares: np.ndarray  # (heads, value_dim) float64, of (value - centre)^2
    counts: np.ndarray = _UNCOUNTED  # (heads, value_dim, BINS) int32, or none; as of `tails`
    first: np.ndarray = _NO_BINS  # (heads, value_dim) float64, edge of the bins
    step: np.ndarray = _NO_BINS  # alike, their width
    furthest: np.ndarray = _NO_BINS  # (heads, DOUBLINGS) float64, about: mean distances


class Missed(NamedTuple):
    """What was not read of a row's keys."""

    share: float  # of the mass, at most
    far: float  # of (3), as `pull` says
    each: float  # p / K of (4); infinite where that is nothing
    keys: float  # k of (4)


def unknown_spread(value_dim: int) -> Spread:
    """Of values of which nothing is known.

    Examples
    --------
    >>> from attention.spread import unknown_spread
    >>> unknown_spread(2).squares
    array([[inf, inf]])
    """
    none = np.zeros((1, value_dim))
    return Spread(np.zeros(1), none, none, np.full((1, value_dim), np.inf))


def spread_of(values: np.ndarray) -> Spread:
    """Sums over values (heads, n, value_dim), about the mean of some of them.

    Examples
    --------
    >>> import numpy as np
    >>> from attention.spread import spread_of
    >>> found = spread_of(np.array([[[1.0], [3.0]]]))
    >>> found.count, found.centre, found.squares
    (array([2.]), array([[2.]]), array([[2.]]))
    """
    heads, n, value_dim = values.shape
    none = np.zeros((heads, value_dim))
    with np.errstate(over="ignore", invalid="ignore"):
        some = values[:, :: max(1, n // SAMPLE)]
        centre = some.mean(axis=1, dtype=np.float64) if n else none
    # Where that is beyond float64, squares are, too.
    centre = np.nan_to_num(centre)
    counts = np.zeros((heads, value_dim, BINS), np.int32)
    bins, furthest = fit_bins(some, centre), np.zeros((heads, DOUBLINGS))
    return with_more(Spread(np.zeros(heads), centre, none, none, counts, *bins, furthest), values)


def with_more(spread: Spread, values: np.ndarray) -> Spread:
    """The same with more values (heads, n, value_dim).

    Examples
    --------
    >>> import numpy as np
    >>> from attention.spread import spread_of, with_more
    >>> with_more(spread_of(np.array([[[1.0], [3.0]]])), np.array([[[5.0]]])).sums
    array([[3.]])
    """
    sums, squares = spread.sums.copy(), spread.squares.copy()
    _add(values, spread.centre, sums, squares)
    counts, furthest = spread.counts.copy(), spread.furthest.copy()
    bins = spread.first, spread.step
    count_values(values, *bins, counts)
    total = spread.count + values.shape[1]
    if _grown(spread.count, total):
        expect_furthest(counts, *bins, spread.centre, furthest)
    return Spread(total, spread.centre, sums, squares, counts, *bins, furthest)


def _grown(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether there are enough more values to look anew at how they are distributed."""
    with np.errstate(divide="ignore"):
        return bool((np.floor(LOOKS * np.log2(before)) < np.floor(LOOKS * np.log2(after))).any())


@kernel
def _add(values, centre, sums, squares):
    """Add to the sums, block by block, so that few additions are of a large and a small number."""
    heads, n, value_dim = values.shape
    some, more = np.empty(value_dim), np.empty(value_dim)
    for h in range(heads):
        for first in range(0, n, BLOCK):
            some[:], more[:] = 0.0, 0.0
            for i in range(first, min(first + BLOCK, n)):
                for c in range(value_dim):
                    away = np.float64(values[h, i, c]) - centre[h, c]
                    some[c] += away
                    more[c] += away * away
            for c in range(value_dim):
                sums[h, c] += some[c]
                squares[h, c] += more[c]


@part
def pull(peak, missed, certain):
    """sqrt(p W') / (K + W'), what (3) says of weights; infinite where that is nothing."""
    if not (certain > 0.0 and peak < np.inf):
        return np.inf
    mass = min(missed, certain)
    return np.sqrt(peak) * np.sqrt(mass) / (certain + mass) * (1.0 + SUMMED) + 2.0**-1074


@part
def what_missed(share, peak, missed, certain):
    """What certificates make of weights that were missed."""
    each, keys = np.inf, np.inf
    if certain > 0.0 and 0.0 < peak < np.inf and missed < np.inf:
        each = peak / certain * (1.0 + SUMMED) + 2.0**-1074
        keys = missed / peak * (1.0 + SUMMED) + 2.0**-1074
    return Missed(share, pull(peak, missed, certain), each, keys)


@part
def radius(spread, head, c, mean):
    """R of (3) for coordinate c of a head, rounded up, seen from `mean`; it may be undefined."""
    count, away = spread.count[head], abs(mean - spread.centre[head, c])
    sums, squares = abs(spread.sums[head, c]), spread.squares[head, c]
    rounded = SUMMED + ADDED * count
    sums += rounded * np.sqrt(count) * (np.sqrt(squares) + np.sqrt(count) * LEAST)
    whole = squares + away * (2.0 * sums + count * away)
    return np.sqrt(whole) * (1.0 + rounded) + np.sqrt(count) * LEAST


@part
def moved_mean(output, low, high, row, spread, head, missed, rounding):
    """How far what was missed moves a mean at most: (1), (3) or (4), by coordinate.

    Parameters
    ----------
    output : float64 array, shape (value_dim,)
        The mean, which rounding has moved so far.
    low, high : float64 arrays, shape (rows, value_dim)
        Ranges of the values, of which that row counts.
    spread, head
        Sums over the values.
    missed : Missed
    rounding : float
    """
    most, shift = 0.0, np.sqrt(spread.count[head]) * rounding
    share, far = missed.share, missed.far
    counted = spread.counts.shape[0] > 0 and missed.each < np.inf
    for c in range(output.size):
        mean = output[c]
        away = share * (max(high[row, c] - mean, mean - low[row, c]) + rounding)
        if far < np.inf:
            other = far * (radius(spread, head, c, mean) + shift)
            # In this order, for it may be undefined.
            away = other if other < away else away
        if counted and away > most:
            other = missed.each * furthest(
                spread.counts[head, c],
                spread.first[head, c],
                spread.step[head, c],
                low[row, c],
                high[row, c],
                mean,
                rounding,
                missed.keys,
            )
            away = other if other < away else away
        most = max(most, away)
    return most
