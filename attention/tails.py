r"""A certificate from how values are distributed: many light keys cannot all have values far out.

Let S be the keys that were read, with mean m_S and certain mass K, and T the others, with weights
w_i <= p that sum to M at most. The exact output is (K m_S + Σ_T w_i v_i) / (K + Σ_T w_i), so

    m - m_S = Σ_T w_i (v_i - m_S) / (K + Σ_T w_i) <= p N / K,                                 (4)
    N = max Σ x_i (v_i - m_S)   for 0 <= x_i <= 1, Σ x_i <= k = M / p, over all keys,

and alike downwards. That is a fractional knapsack: N adds up the k values furthest above m_S. So in
place of the far end of the values' range, which (1) of `bounds.py` assumes of all that is missed,
there is the mean of the k values furthest out; and by Cauchy and Schwarz p N <= sqrt(p M) R, so
that (3) of `spread.py` says less, too, but for its denominator. All three hold.

Values are counted in bins of each coordinate that were fixed once, by a sample of them, each of
which counts as the bin's far edge, and as the end of the range in the outermost ones. So values may
be added one by one, and counts of more values than there are only make N larger. Four bytes a bin
are kept: 24 kB for a head of 128 dimensions. O(value_dim bins) for a row at most; a coordinate for
which (1) or (3) say little enough is passed over.
"""

import math

import numpy as np

from halfspace.jit import kernel, part

BINS = 48
"""Of each coordinate."""

REACH = 4.0
"""Standard deviations from the centre to the outermost edges."""

LEAST, LARGEST = 1e-300, 1e300
"""Widths of bins."""

LEAST_SUM = 2.0**-1060
"""Covers what underflows in sums."""

DOUBLINGS = 32
"""Means of the furthest 1, 2, 4, … values are expected."""

ROUNDED = 1e-9
"""Covers, relatively, what edges, places of values and sums are rounded by."""


def fit_bins(values: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First edge and width of the bins for values like some (heads, n, value_dim)."""
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.square(values - centre[:, None]).sum(axis=1, dtype=np.float64)
        step = 2.0 * REACH / BINS * np.sqrt(away / max(values.shape[1], 1))
        step = np.clip(np.nan_to_num(step, nan=LARGEST), LEAST, LARGEST)
        return np.nan_to_num(centre - 0.5 * BINS * step), step


@kernel
def count_values(values, first, step, counts):
    """Add values (heads, n, value_dim) to the counts (heads, value_dim, BINS)."""
    heads, n, value_dim = values.shape
    places, inverse = np.empty(value_dim, np.int32), np.empty(value_dim)
    for h in range(heads):
        for c in range(value_dim):
            inverse[c] = 1.0 / step[h, c]
        for i in range(n):
            for c in range(value_dim):
                place = (np.float64(values[h, i, c]) - first[h, c]) * inverse[c]
                # In this order, for no undefined value may be counted outside the bins.
                places[c] = np.int32(min(place, BINS - 1.0) if place > 0.0 else 0.0)
            for c in range(value_dim):
                counts[h, c, places[c]] += 1


@part
def _upper_edge(first, step, b):
    return first + (b + 1) * step + ROUNDED * (abs(first) + BINS * step)


@part
def _lower_edge(first, step, b):
    return first + b * step - ROUNDED * (abs(first) + BINS * step)


@part
def furthest(counts, first, step, low, high, mean, rounding, keys):
    """N of (4) for a coordinate, upwards or downwards, whichever is more.

    Parameters
    ----------
    counts : int32 array, shape (BINS,)
    first, step : float
        Of the bins.
    low, high : float
        Range of the values.
    mean, rounding : float
        m_S, and what it may be off by.
    keys : float
        k.
    """
    up, down, left = 0.0, 0.0, keys
    for b in range(BINS - 1, -1, -1):
        edge = high if b == BINS - 1 else min(high, _upper_edge(first, step, b))
        away = edge - mean + rounding
        if not (away > 0.0 and left > 0.0):
            break
        some = min(left, np.float64(counts[b]))
        up, left = up + some * away, left - some
    left = keys
    for b in range(BINS):
        edge = low if b == 0 else max(low, _lower_edge(first, step, b))
        away = mean - edge + rounding
        if not (away > 0.0 and left > 0.0):
            break
        some = min(left, np.float64(counts[b]))
        down, left = down + some * away, left - some
    return max(up, down) * (1.0 + ROUNDED) + LEAST_SUM


@kernel
def expect_furthest(counts, first, step, centre, means):
    """Fill, roughly, how far the furthest 1, 2, 4, … values are from the centre, in the mean.

    Parameters
    ----------
    counts : int32 array, shape (heads, value_dim, BINS)
    first, step, centre : float64 arrays, shape (heads, value_dim)
    means : float64 array, shape (heads, DOUBLINGS)
        Filled, for the coordinate where they are the most.
    """
    means[:] = 0.0
    for h in range(counts.shape[0]):
        for c in range(counts.shape[1]):
            middle = first[h, c] + 0.5 * step[h, c] - centre[h, c]
            for side in range(2):
                seen, total, j = 0.0, 0.0, 0
                for i in range(BINS):
                    b = i if side else BINS - 1 - i
                    away = abs(middle + b * step[h, c])
                    some = np.float64(counts[h, c, b])
                    while j < DOUBLINGS and seen + some >= 2.0**j:
                        mean = (total + (2.0**j - seen) * away) / 2.0**j
                        means[h, j] = max(means[h, j], mean)
                        j += 1
                    seen, total = seen + some, total + some * away


@part
def expected_furthest(means, head, keys):
    """About how far so many of the furthest values are from the centre, in the mean."""
    if not (means.shape[0] and keys < 2.0 ** (DOUBLINGS - 1)):
        return np.inf
    place = math.log2(max(keys, 1.0))
    j = np.int64(place)
    after = min(j + 1, DOUBLINGS - 1)
    mean = means[head, j] + (place - j) * (means[head, after] - means[head, j])
    # None where there are not so many.
    return mean if means[head, after] > 0.0 else np.inf
