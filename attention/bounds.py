"""The certificate of an attention output, with its proof; and the paper's theorem that it sharpens.

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
to its dtype is measured where it happens. The certificate is the sum, largest over c. Where codes
bound each missed weight, too, the least of (1), of (3) in `spread.py` and of (4) in `tails.py`
takes the place of (1).

The paper (arXiv 2410.10165) bounds the same error by 2 tau max|v| (`general`), which ignores where
the values lie; it is vacuous where tau > 1/2, and (1) never exceeds it. What else the paper states
is in `costs.py`, `activation.py` and `massive_activation.py`, and can be reached from here.
"""

from typing import NamedTuple

import numpy as np

from halfspace.jit import shared

from .activation import activation_failure, activation_scale, active_keys, paper_threshold
from .costs import Costs, decode_costs, prefill_costs, reporting_costs
from .massive_activation import MassiveActivation, massive_activation, massive_activation_bound
from .rules import LARGEST, LEAST, check_number

__all__ = [
    "Costs",
    "MassiveActivation",
    "ValueRange",
    "activation_failure",
    "activation_scale",
    "active_keys",
    "certificate",
    "decode_costs",
    "gamma",
    "general",
    "lse_bound",
    "massive_activation",
    "massive_activation_bound",
    "missed_share",
    "norms",
    "nudged",
    "output_bound",
    "paper_threshold",
    "prefill_costs",
    "reporting_costs",
    "rounding_bound",
    "score_error",
    "value_range",
    "weight_drift",
]

UNIT = 2.0**-53
"""Unit roundoff of float64."""

EXP_ERROR = 4.0 * UNIT
"""Relative error allowed to the platform's exp and log; theirs is below 2 units."""


class ValueRange(NamedTuple):
    """Range of the values of one head, or of the head of each row.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> float(bounds.ValueRange(low=np.array([-1.0]), high=np.array([3.0])).width)
    4.0
    """

    low: np.ndarray  # (value_dim,) or (rows, value_dim) float64
    high: np.ndarray  # alike

    @property
    def width(self) -> np.float64 | np.ndarray:
        """Largest width of a coordinate's range.

        Examples
        --------
        >>> import numpy as np
        >>> from attention import bounds
        >>> float(bounds.value_range(np.array([[1.0, 0.0], [4.0, 1.0]])).width)
        3.0
        """
        return (self.high - self.low).max(axis=-1, initial=0.0)

    @property
    def size(self) -> np.float64 | np.ndarray:
        """Largest magnitude of a value.

        Examples
        --------
        >>> import numpy as np
        >>> from attention import bounds
        >>> float(bounds.value_range(np.array([[-5.0], [4.0]])).size)
        5.0
        """
        return np.maximum(np.abs(self.low), np.abs(self.high)).max(axis=-1, initial=0.0)


def value_range(values: np.ndarray) -> ValueRange:
    """Range of values (n, value_dim); zero width at zero for none.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bounds.value_range(np.array([[1.0, 0.0], [4.0, -1.0]]))
    ValueRange(low=array([ 1., -1.]), high=array([4., 0.]))
    """
    if not len(values):
        return ValueRange(np.zeros(values.shape[1]), np.zeros(values.shape[1]))
    return ValueRange(values.min(axis=0).astype(float), values.max(axis=0).astype(float))


@shared
def norm_above(largest: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Upper bound on a norm: of entries up to `largest`, and in its units of such squares' sum.

    It covers the rounding of that sum, in any order, for up to 10^5 entries.
    """
    return largest * np.sqrt(squares) * (1.0 + 1e-10) + np.minimum(largest, 2.0**-1074)


@np.errstate(over="ignore", under="ignore", invalid="ignore")
def norms(rows: np.ndarray) -> np.ndarray:
    """Upper bounds on the Euclidean norms of rows (n, d), float64, without over- or underflow.

    NaN of rows that are not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bounds.norms(np.array([[3.0, 4.0], [0.0, 0.0]])).round(6)
    array([5., 0.])
    """
    wide = np.asarray(rows, np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    unit = np.where(largest > 0.0, largest, 1.0)
    return norm_above(largest, ((wide / unit[:, None]) ** 2).sum(axis=1))


@shared
def gamma(terms: np.ndarray | int) -> np.ndarray | float:
    """Relative error of a float64 sum of so many terms, in any order.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bounds.gamma(1000) < 1.2e-13
    True
    """
    return terms * UNIT / (1.0 - terms * UNIT)


def nudged(values: np.ndarray, units: float) -> np.ndarray:
    """Move `values` by so many units of rounding; infinite ones stay.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bool(bounds.nudged(np.array(1.0), 2.0) > 1.0)
    True
    """
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(values), values, values + units * UNIT * np.abs(values))


@shared
def score_error(query_norms: np.ndarray, key_norm: float, scale: float, d: int) -> np.ndarray:
    """Bound on the rounding error of scale * <q, k> in float64, for keys of norm <= `key_norm`.

    Products may underflow; the last term covers that.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bool(bounds.score_error(np.array(8.0), 8.0, 0.125, 64) < 1e-13)
    True
    """
    return scale * (gamma(d + 4) * query_norms * key_norm + d * 2.0**-1070)


@shared
def weight_drift(mass: np.ndarray, errors: np.ndarray, read: np.ndarray) -> np.ndarray:
    """Bound D on the sum of ``|w' - w|`` of softmax weights whose scores are off by `errors`.

    Summing the mass of `read` keys rounds, too.

    A score difference, ``|s - top| < 746`` where its weight is not zero, rounds once more.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bool(bounds.weight_drift(np.array(2.0), np.array(1e-15), np.array(100)) < 1e-12)
    True
    """
    moved = np.expm1(np.minimum(errors + 746.0 * UNIT, 700.0)) + EXP_ERROR
    return mass * (moved + gamma(read + 4))


@shared
def drift_share(drift: np.ndarray, mass: np.ndarray) -> np.ndarray:
    """D / K', the part of the mass that drift is; 1 where none of it is certain."""
    return np.fmin(drift / mass, 1.0)  # of 0 / 0, too, which is NaN


@shared
def certain_mass(mass: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Lower bound on the exact weight of what was read.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bounds.certain_mass(np.array([3.0, 1.0]), np.array([1.0, 2.0])).round(6)
    array([2., 0.])
    """
    return np.maximum(mass * (1.0 - 1e-12) - drift, 0.0)


@shared
def missed_share(mass: np.ndarray, missed: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Upper bound on tau = M / (K + M); 1 where nothing certain was read.

    `drift` includes the rounding of `mass` itself.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> bounds.missed_share(np.array([3.0]), np.array([1.0]), np.array([0.0])).round(6)
    array([0.25])
    """
    certain = certain_mass(mass, drift)
    # Where nothing is certain: 1, or 0 / 0, which is NaN and so taken for 1.
    return np.fmin(missed / (certain + missed), 1.0)


def certificate(output: np.ndarray, share: np.ndarray, values: ValueRange) -> np.ndarray:
    """(1): how far an exact mean over the keys that were read is from that over all keys.

    Parameters
    ----------
    output : ndarray of float64, shape (..., value_dim)
        m_S, weighted means of the values of the keys S that were read.
    share : ndarray, shape (...)
        tau or more: the part of the whole weight that the other keys T have.
    values : ValueRange
        A range that holds every value of T.

    Returns
    -------
    ndarray of float64, shape (..., value_dim)
        Of every coordinate. Never more than 2 tau max|v|, which is `general`, and less wherever the
        output is not at one end of the values' range and their range not symmetric to 0.

    Notes
    -----
    Attention over all keys is the mixture (1 - tau) m_S + tau m_T. So output - exact = tau (m_S -
    m_T), an equality, and m_T, a mean of values, is in their range: in coordinate c the two are at
    most max(high_c - m_S_c, m_S_c - low_c) apart. It is attained where T has its values at the far
    end. Rounding is added in `output_bound`.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> values = bounds.value_range(np.array([[10.0], [11.0]]))
    >>> bounds.certificate(np.array([10.25]), np.float64(0.1), values), bounds.general(0.1, 1, 11)
    (array([0.075]), 2.2)
    """
    return np.asarray(share)[..., None] * _furthest(output, values)


def _furthest(output: np.ndarray, values: ValueRange) -> np.ndarray:
    """Distance of each coordinate from the far end of the values' range."""
    return np.maximum(values.high - output, output - values.low)


def rounding_bound(drift_share: np.ndarray, read: np.ndarray, values: ValueRange) -> np.ndarray:
    """(2) and summation: how far the computed mean can be from that of the exact weights.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> values = bounds.value_range(np.array([[0.0], [1.0]]))
    >>> bool(bounds.rounding_bound(np.array(1e-14), np.array(100), values) < 1e-13)
    True
    """
    return mean_rounding(drift_share, read, values.size, values.width)


@shared
def mean_rounding(
    drift_share: np.ndarray, read: np.ndarray, size: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """`rounding_bound` of values whose range has such a size and width."""
    summed = 2.0 * gamma(read + 4) * size + (read + 4) * 2.0**-1074
    return np.minimum(drift_share, 1.0) * width + summed


@shared
def mean_error(share: np.ndarray, reach: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """(1) of a mean that rounding has moved, and that: the far end of the range is `reach` away."""
    return share * (reach + rounding) + rounding


@shared
def outward(bound: np.ndarray) -> np.ndarray:
    """`bound` with what was rounded in computing it."""
    return bound * (1.0 + 1e-12) + 2.0**-1074


def output_bound(
    output: np.ndarray,
    share: np.ndarray,
    drift_share: np.ndarray,
    read: np.ndarray,
    values: ValueRange,
    estimated: np.ndarray | float = 0.0,
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
    estimated : ndarray, shape (m,), optional
        Bound on how far the output is from the mean it estimates.

    Returns
    -------
    ndarray of float64, shape (m,)

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> values = bounds.value_range(np.array([[10.0], [11.0]]))
    >>> output, share, drift, read = np.array([[[10.25]], [[0.1]], [[0.0]], [[1.0]]])
    >>> bounds.output_bound(output, share[0], drift[0], read[0], values).round(6)
    array([0.075])
    """
    reach = _furthest(output, values).max(axis=1, initial=0.0)
    largest = np.maximum(reach, np.abs(output).max(axis=1, initial=0.0))
    rounding = rounding_bound(drift_share, read, values) + estimated
    return outward(np.where(drift_share < 1.0, mean_error(share, reach, rounding), largest))


@shared
def lse_bound(
    top: np.ndarray, mass: np.ndarray, share: np.ndarray, drift_share: np.ndarray
) -> np.ndarray:
    """Bound on the error of top + log(mass): what was missed, drift, and rounding.

    Examples
    --------
    >>> import numpy as np
    >>> from attention import bounds
    >>> top, mass, share, drift = np.array([[0.0], [1.0], [0.1], [0.0]])
    >>> bounds.lse_bound(top, mass, share, drift).round(4)
    array([0.1054])
    """
    moved = -np.log1p(-share) - np.log1p(-np.minimum(drift_share, 1.0))
    rounding = 1.0 + abs(top) + abs(np.log(mass))
    return moved * (1.0 + 1e-12) + 8.0 * UNIT * rounding


def general(missed: float, total: float, value_max: float) -> float:
    """The paper's general error bound, 2 (missed / total) ||V||_inf.

    Softmax attention over some of the keys is that far, at most, from attention over all, in every
    coordinate.

    Parameters
    ----------
    missed, total : float
        Sums of exp(score) over the keys that were left out, and over all: 0 <= missed <= total,
        total > 0.
    value_max : float
        Largest magnitude of a value.

    Raises
    ------
    TypeError, ValueError
        Not numbers, or out of these ranges.

    Notes
    -----
    Where missed / total > 1/2 it exceeds ||V||_inf, the error of answering 0. Measured with the
    n^(4/5) best keys: so it does for 93 % of the queries of the packaged flat head (n = 7,168).
    `certificate` needs no more and never exceeds it.

    Examples
    --------
    >>> from attention.bounds import general
    >>> general(1.0, 100.0, 3.0)
    0.06
    """
    check_number(total, "total", LEAST, LARGEST)
    check_number(missed, "missed", 0.0, total)
    check_number(value_max, "value_max", 0.0, LARGEST)
    return 2.0 * (missed / total) * value_max
