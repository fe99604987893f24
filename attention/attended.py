"""Attended: an attention output with its certificate; merge joins those of disjoint keys."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from . import bounds
from .certificates import certify_rows
from .reading import Readings
from .sampled import Estimates, make_estimates
from .spread import Spread, unknown_spread

_KNOWN = np.empty(0)
"""In place of errors of scores, where it is known how far weights are off."""


class _Fields(NamedTuple):
    output: np.ndarray
    lse: np.ndarray
    bound: np.ndarray
    reported: np.ndarray


class Attended(_Fields):
    """Attention outputs and how far they can be from the exact ones.

    A named tuple of four arrays, with two more attributes.

    Attributes
    ----------
    output : ndarray, shape (..., length, value_dim)
        In the dtype of the inputs.
    lse : ndarray of float64, shape (..., length)
        Logarithm of the sum of the weights that were read: exp(score) for softmax,
        max(0, score - threshold)^power for ReLU. ``-inf`` where nothing was read.
    bound : ndarray of float64, shape (..., length)
        For every coordinate, ``|output - exact| <= bound``, where exact is real arithmetic on the
        given arrays. Rounding is included. Certain, but where `sampled`: with probability 1 - delta
        there.
    reported : ndarray of int64, shape (..., length)
        Keys that were read; drawn ones count as often as they were drawn.
    lse_bound : ndarray of float64, shape (..., length)
        ``|lse - exact| <= lse_bound``; infinite where nothing was read and something was missed.
        For those who merge partial results. Where `sampled`, it holds whenever `bound` does.
    sampled : ndarray of bool, shape (..., length)
        Rows that rest on a sample, as `Sampled` may have it: `bound` and `lse_bound` hold with its
        probability. In merged ones, failures of the parts add up.

    Examples
    --------
    >>> import attention
    >>> got = attention.softmax_attention(
    ...     [[1.0]], [[0.0], [9.0]], [[2.0], [4.0]], rule=attention.TopR(1)
    ... )
    >>> got.output, got.reported, bool(abs(got.output[0, 0] - 4.0) <= got.bound[0])
    (array([[4.]]), array([1]), True)
    """

    lse_bound: np.ndarray
    sampled: np.ndarray

    def __new__(
        cls,
        output: np.ndarray,
        lse: np.ndarray,
        bound: np.ndarray,
        reported: np.ndarray,
        lse_bound: np.ndarray | None = None,
        sampled: np.ndarray | None = None,
    ) -> "Attended":
        """Without `lse_bound` nothing is known of the exact logarithm: it is infinite.

        Without `sampled` no row is.
        """
        self = super().__new__(cls, output, lse, bound, reported)
        self.lse_bound = np.full(np.shape(lse), np.inf) if lse_bound is None else lse_bound
        self.sampled = np.zeros(np.shape(lse), np.bool_) if sampled is None else sampled
        return self

    def _replace(self, **fields: np.ndarray) -> "Attended":
        more = {"lse_bound": self.lse_bound, "sampled": self.sampled}
        return Attended(**(self._asdict() | more | fields))

    @classmethod
    def _make(cls, fields: Iterable[np.ndarray]) -> "Attended":
        return cls(*fields)


def cast_with_bound(output: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """`output` (..., c) in `dtype`, and the largest rounding error of a row, float64 (...)."""
    cast = output.astype(dtype)
    error = np.abs(cast.astype(np.float64) - output)
    return cast, error.max(axis=-1, initial=0.0)


def certified(
    readings: Readings,
    values: bounds.ValueRange,
    dtype: np.dtype,
    estimates: Estimates | None = None,
    errors: np.ndarray = _KNOWN,
    spread: Spread | None = None,
) -> Attended:
    """Certify what was read of values in a range, and estimated, for an output of such dtype.

    `errors` bound those of softmax scores; without them, `readings` have the drift of the weights.
    Rows are divided among the heads of `spread`, if that is known.
    """
    m = len(readings.mass)
    estimates = make_estimates(m) if estimates is None else estimates
    output = readings.output.astype(dtype)
    low, high = (end if end.ndim == 2 else end[None] for end in values)
    lse, bound, lse_bound = np.empty((3, m))
    rounded = output.astype(np.float64, copy=False)
    spread = unknown_spread(output.shape[1]) if spread is None else spread
    certify_rows(*readings, rounded, *estimates, errors, low, high, spread, lse, bound, lse_bound)
    return Attended(output, lse, bound, readings.reported, lse_bound, estimates.sampled)


def _ends(part: Attended) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest value the exact lse can have."""
    unknown = np.isinf(part.lse_bound)
    with np.errstate(invalid="ignore"):
        # Widened by what these sums round.
        slack = 2.0**-52 * (np.abs(part.lse) + part.lse_bound)
        low = np.where(unknown, -np.inf, part.lse - part.lse_bound - slack)
        high = np.where(unknown, np.inf, part.lse + part.lse_bound + slack)
        nothing = np.isneginf(part.lse) & ~unknown
    low, high = np.where(nothing, -np.inf, low), np.where(nothing, -np.inf, high)
    return low, high


def _share(mine: np.ndarray, other: np.ndarray, otherwise: float) -> np.ndarray:
    """Share of exp(mine) in exp(mine) + exp(other); `otherwise` where that is undefined."""
    with np.errstate(invalid="ignore"):
        share = expit(mine - other)
    return np.where(np.isnan(share), otherwise, share)


def _weighted(share: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Share * bound, with nothing of an infinite bound where the share is zero."""
    return np.multiply(share, bound, out=np.zeros_like(bound), where=share > 0.0)


def merge(a: Attended, b: Attended) -> Attended:
    """Join what two disjoint sets of keys gave for the same queries.

    With p the exact share of a's keys in the total weight, exact = p exact_a + (1 - p) exact_b::

        |merged - exact| <= p bound_a + (1 - p) bound_b + |p' - p| max |output_a - output_b|

    for the share p' used; p ranges over what both `lse_bound` allow. Associative up to rounding.

    Parameters
    ----------
    a, b : Attended
        Of equal shapes: the same queries, scale and threshold over disjoint keys.

    Returns
    -------
    Attended
        As if all keys had been there at once; its `bound` and `lse_bound` hold for that.

    Raises
    ------
    ValueError
        Shapes differ.

    Examples
    --------
    >>> import numpy as np, attention
    >>> rng = np.random.default_rng(0)
    >>> q, k, v = rng.standard_normal((3, 200, 8))
    >>> halves = [
    ...     attention.softmax_attention(q[:1], k[s], v[s]) for s in np.split(np.arange(200), 2)
    ... ]
    >>> whole = attention.merge(*halves)
    >>> exact, _ = attention.dense.softmax(q[:1], k, v)
    >>> bool((np.abs(whole.output - exact) <= whole.bound[:, None]).all())
    True
    """
    if a.output.shape != b.output.shape:
        raise ValueError(
            f"merge: expected outputs of equal shapes, got {a.output.shape} and {b.output.shape}"
        )
    (a_low, a_high), (b_low, b_high) = _ends(a), _ends(b)
    # Where one side surely has no weight and the other has some, the share is no question.
    all_a = np.isneginf(b_high) & ~np.isneginf(a.lse)
    all_b = np.isneginf(a_high) & ~np.isneginf(b.lse)
    least, share, most = (
        np.where(all_a, 1.0, np.where(all_b, 0.0, share))
        for share in (
            _share(a_low, b_high, 0.0),
            _share(a.lse, b.lse, 0.5),
            _share(a_high, b_low, 1.0),
        )
    )
    left, right = np.asarray(a.output, np.float64), np.asarray(b.output, np.float64)
    output = share[..., None] * left + (1.0 - share[..., None]) * right
    apart = np.abs(left - right).max(axis=-1, initial=0.0)
    size = (np.abs(left) + np.abs(right)).max(axis=-1, initial=0.0)
    parts = np.maximum(
        _weighted(least, a.bound) + _weighted(1.0 - least, b.bound),
        _weighted(most, a.bound) + _weighted(1.0 - most, b.bound),
    )
    output, rounding = cast_with_bound(output, np.result_type(a.output, b.output))
    drift = np.maximum(most - share, share - least) * apart
    # The last term covers the float64 arithmetic of this function.
    bound = (parts + drift + rounding) * (1.0 + 1e-12) + 2.0**-48 * size
    lse = np.logaddexp(a.lse, b.lse)
    with np.errstate(invalid="ignore"):
        lse_bound = np.maximum(
            np.logaddexp(a_high, b_high) - lse, lse - np.logaddexp(a_low, b_low)
        ) + 2.0**-48 * (1.0 + np.abs(lse))
    empty = np.isneginf(a_high) & np.isneginf(b_high)
    lse_bound = np.where(empty, 0.0, np.where(np.isnan(lse_bound), np.inf, lse_bound))
    return Attended(output, lse, bound, a.reported + b.reported, lse_bound, a.sampled | b.sampled)
