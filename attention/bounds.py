"""The certificate of an attention output, with its proof; and the paper's theorem it sharpens.

Let S be the keys read and T the rest, w_j >= 0 the exact weights, K and M their sums over S and T,
and tau = M / (K + M). With m_S, m_T the weighted means of the values over S and T,

    exact = (1 - tau) m_S + tau m_T,       so       m_S - exact = tau (m_S - m_T).

m_T is a convex combination of values, so in coordinate c it lies in [low_c, high_c], the range of
all values, and

    |m_S - exact|_c <= tau max(high_c - m_S_c, m_S_c - low_c).                       (1)

M is never computed; an upper bound takes its place, and tau grows with M. The mean that is computed
is not m_S: with weights w'_j, sum |w'_j - w_j| <= D and K' = sum w'_j,

    m'_S - m_S = sum (w'_j - w_j) (v_j - m_S) / K',
    |m'_S - m_S|_c <= D (high_c - low_c) / K',                                       (2)

K >= K' - D, and summing r terms in float64 adds at most 2 gamma_{r+4} max|v|. Rounding the output
to its dtype is measured where it happens. The certificate is the sum, largest over c.

The paper (arXiv 2410.10165) bounds the same error by 2 tau max|v| (`general`), which ignores where
the values lie; it is vacuous where tau > 1/2, and (1) never exceeds it.
"""

import math
from typing import NamedTuple

import numpy as np

UNIT = 2.0**-53
"""Unit roundoff of float64."""

EXP_ERROR = 4.0 * UNIT
"""Relative error allowed to the platform's exp and log; theirs is below 2 units."""


class ValueRange(NamedTuple):
    """Range of the values of one head."""

    low: np.ndarray  # (value_dim,) float64
    high: np.ndarray  # (value_dim,) float64

    @property
    def width(self) -> float:
        """Largest width of a coordinate's range."""
        return float((self.high - self.low).max(initial=0.0))

    @property
    def size(self) -> float:
        """Largest magnitude of a value."""
        return float(np.maximum(np.abs(self.low), np.abs(self.high)).max(initial=0.0))


def value_range(values: np.ndarray) -> ValueRange:
    """Range of values (n, value_dim); zero width at zero for none."""
    if not len(values):
        return ValueRange(np.zeros(values.shape[1]), np.zeros(values.shape[1]))
    return ValueRange(values.min(axis=0).astype(float), values.max(axis=0).astype(float))


@np.errstate(over="ignore", under="ignore")
def norms(rows: np.ndarray) -> np.ndarray:
    """Upper bounds on the Euclidean norms of rows (n, d), float64, without over- or underflow."""
    wide = np.asarray(rows, np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    unit = np.where(largest > 0.0, largest, 1.0)
    norms = largest * np.sqrt(((wide / unit[:, None]) ** 2).sum(axis=1)) * (1.0 + 1e-10)
    return np.where(largest > 0.0, norms + 2.0**-1074, 0.0)


def gamma(terms: np.ndarray | int) -> np.ndarray | float:
    """Relative error of a float64 sum of so many terms, in any order."""
    return terms * UNIT / (1.0 - terms * UNIT)


def score_error(query_norms: np.ndarray, key_norm: float, scale: float, d: int) -> np.ndarray:
    """Bound on the rounding error of scale * <q, k> in float64, for keys of norm <= `key_norm`.

    Products may underflow; the last term covers that.
    """
    return scale * (gamma(d + 4) * query_norms * key_norm + d * 2.0**-1070)


def weight_drift(mass: np.ndarray, errors: np.ndarray, read: np.ndarray) -> np.ndarray:
    """Bound D on the sum of |w' - w| of softmax weights whose scores are off by `errors`.

    Summing the mass of `read` keys rounds, too.

    A score difference s - top, |s - top| < 746 where its weight is not zero, rounds once more.
    """
    moved = np.expm1(np.minimum(errors + 746.0 * UNIT, 700.0)) + EXP_ERROR
    return mass * (moved + gamma(read + 4))


def missed_share(mass: np.ndarray, missed: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Upper bound on tau = M / (K + M); 1 where nothing certain was read.

    `drift` includes the rounding of `mass` itself.
    """
    certain = np.maximum(mass * (1.0 - 1e-12) - drift, 0.0)
    total = certain + missed
    return np.divide(missed, total, out=np.ones_like(total), where=(total > 0) & (certain > 0))


def rounding_bound(drift_share: np.ndarray, read: np.ndarray, values: ValueRange) -> np.ndarray:
    """(2) and summation: how far the computed mean can be from that of the exact weights."""
    summed = 2.0 * gamma(read + 4) * values.size + (read + 4) * 2.0**-1074
    return np.minimum(drift_share, 1.0) * values.width + summed


def output_bound(
    output: np.ndarray,
    share: np.ndarray,
    drift_share: np.ndarray,
    read: np.ndarray,
    values: ValueRange,
) -> np.ndarray:
    """Certificate of computed means: (1) + (2) + summation, before rounding to the output's dtype.

    Parameters
    ----------
    output : ndarray of float64, shape (m, value_dim)
    share : ndarray, shape (m,)
        Bound on tau.
    drift_share : ndarray, shape (m,)
        D / K'. Where it reaches 1, rounding may outweigh all that was read: the exact row is any
        mean of values, or, if no weight is certain, the empty row's zero.
    read : ndarray, shape (m,)
        Number of keys read; where 0, the output is zero.
    values : ValueRange

    Returns
    -------
    ndarray of float64, shape (m,)
    """
    reach = np.maximum(values.high - output, output - values.low).max(axis=1, initial=0.0)
    largest = np.maximum(reach, np.abs(output).max(axis=1, initial=0.0))
    rounding = rounding_bound(drift_share, read, values)
    bound = np.where(drift_share < 1.0, share * (reach + rounding) + rounding, largest)
    return bound * (1.0 + 1e-12) + 2.0**-1074


def lse_bound(
    top: np.ndarray, mass: np.ndarray, share: np.ndarray, drift_share: np.ndarray
) -> np.ndarray:
    """Bound on the error of top + log(mass): what was missed, drift, and rounding."""
    with np.errstate(divide="ignore"):
        moved = -np.log1p(-share) - np.log1p(-np.minimum(drift_share, 1.0))
        rounding = 1.0 + np.abs(top) + np.abs(np.log(mass))
    return moved * (1.0 + 1e-12) + 8.0 * UNIT * rounding


def general(missed: float, total: float, value_max: float) -> float:
    """The paper's general error bound, 2 (missed / total) ||V||_inf.

    Examples
    --------
    >>> from attention.bounds import general
    >>> general(1.0, 100.0, 3.0)
    0.06
    """
    return 2.0 * missed / total * value_max


def paper_threshold(
    n: int, m: int, d: int, *, query_std: float, key_std: float, delta: float = 0.01
) -> float:
    """Compute the paper's threshold on scores, b = sigma_a sqrt(0.4 ln n).

    With sigma_a = 4 sqrt(1 + ln(m / delta) / d) query_std key_std, at most 2 n^(4/5) of n Gaussian
    keys exceed b for any of m Gaussian queries, with probability 1 - delta. It is an upper bound on
    activity, not a target: on Gaussian data nothing at all may be active.

    Examples
    --------
    >>> from attention.bounds import paper_threshold
    >>> round(paper_threshold(32_768, 1, 64, query_std=1.0, key_std=1.0), 2)
    8.45
    """
    sigma = 4.0 * math.sqrt(1.0 + math.log(m / delta) / d) * query_std * key_std
    return sigma * math.sqrt(0.4 * math.log(n))
