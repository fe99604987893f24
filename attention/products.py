"""Softmax attention over all visible keys by float32 matrix products, with a bound on its rounding.

For many queries of a head that has nothing to skip. Blocks of keys are scored by one product,
weighed in place and averaged by another, as Milakov and Gimelshein (arXiv 1805.02867) and
FlashAttention (arXiv 2205.14135) do; sums over blocks are float64. With u = 2^-24, γ_k = k u / (1 -
k u), norms of a query and the largest key |q|, |k|, and half the width of the values h:

    a weight's exponent is off by at most  e = scale |q| |k| γ_{d+4} + 126 u   (nats)
    a weight by                            Δ = exp(e) - 1 + `SINGLE_ERROR`, relatively,
    and a mean of values by                2 Δ h + (2 γ_BLOCK + 4 u) h,

where the last term is that of products and sums of weights, with values taken relative to the
middle of their range.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from halfspace import parallel
from halfspace.jit import REASSOCIATED, kernel, part
from halfspace.query import SINGLE, relative_error

from .bounds import ValueRange
from .exponential import LEAST_POWER_SINGLE, LOG2_E, SINGLE_ERROR, power_of_two
from .reading import NO_NAN, Readings
from .sampled import Estimates

ROWS = 512
"""Queries of a block."""

BLOCK = 512
"""Keys of a block: its scores stay in the second cache."""

LARGEST = 1e15
"""Coordinates and values beyond are left to float64."""

LARGEST_DRIFT = 1e-2
"""Relative error of a weight beyond which float32 is of no use."""

KEY_NANOSECONDS, COORDINATE_NANOSECONDS = 0.8, 0.025
"""Rough cost of a key of a query, and for each coordinate of keys and values."""

_NONE = np.float32(-3e38)


class Rounding(NamedTuple):
    """What float32 may do."""

    drift: NDArray  # (m,) relative, of the sum of |weight - exact weight|
    output: float  # of a mean of exact weights


def rounding_of(
    norms: NDArray, key_norm: float, scale: float, d: int, values: ValueRange
) -> Rounding:
    """Bounds on what float32 may do to queries of such norms; infinite where it is of no use."""
    with np.errstate(over="ignore"):
        nats = scale * norms * key_norm * relative_error(d + 4, SINGLE) + 126.0 * SINGLE + 1e-25
        drift = np.expm1(nats) + SINGLE_ERROR + relative_error(BLOCK, SINGLE) + 2.0**-60
        largest = max(float(norms.max(initial=0.0)) * scale, key_norm, float(values.size))
    if not largest < LARGEST:
        drift = np.full(len(norms), np.inf)
    drift = np.where(drift < LARGEST_DRIFT, drift * (1.0 + 1e-6), np.inf)
    terms = 2.0 * relative_error(BLOCK, SINGLE) + 4.0 * SINGLE
    return Rounding(drift, 0.5 * float(values.width) * terms * (1.0 + 1e-3) + 1e-30)


@part(flags=NO_NAN)
def _largest(scores, i, count):
    most = _NONE
    for j in range(count):
        most = max(most, scores[i, j])
    return most


@part(flags=REASSOCIATED)
def _weigh_row(scores, i, count, top):
    """The first scores become weights; their sum."""
    total = np.float32(0.0)
    for j in range(count):
        weight = power_of_two(max(scores[i, j] - top, LEAST_POWER_SINGLE))
        scores[i, j] = weight
        total += weight
    return total


@kernel
def _weigh(scores, visible, tops, masses, shrink):
    """Turn scores (m, block), in powers of two, of the first `visible` keys into weights.

    `tops` and `masses` are brought up to date, and what was summed before is to be multiplied by
    `shrink`.
    """
    for i in range(scores.shape[0]):
        count, shrink[i] = min(max(visible[i], 0), scores.shape[1]), 1.0
        if count:
            top = max(tops[i], _largest(scores, i, count))
            shrink[i] = 2.0 ** np.float64(tops[i] - top) if tops[i] > _NONE else 0.0
            masses[i] = masses[i] * shrink[i] + np.float64(_weigh_row(scores, i, count, top))
            tops[i] = top
        for j in range(count, scores.shape[1]):
            scores[i, j] = 0.0


def _blocks(count: int, step: int) -> Iterator[slice]:
    return (slice(a, min(a + step, count)) for a in range(0, count, step))


def read_all(
    queries: NDArray,
    keys: NDArray,
    values: NDArray,
    visible: NDArray,
    span: ValueRange,
    rounding: Rounding,
    scale: float,
    readings: Readings,
) -> Estimates:
    """Fill `readings` of softmax attention over all that queries see.

    Parameters
    ----------
    queries : ndarray of float64, shape (m, head_dim)
    keys : ndarray, shape (n, head_dim)
    values : ndarray, shape (n, value_dim)
        float32 or float64.
    visible : ndarray of int64, shape (m,)
        Each query sees the first so many keys.
    span : ValueRange
        Of the values.
    rounding : Rounding
        Of these queries; finite.
    scale : float
    readings : Readings

    Returns
    -------
    Estimates
        What rounding does besides what `readings` say of it.
    """
    m, middle = len(queries), 0.5 * span.low + 0.5 * span.high
    narrow = (queries * (scale * LOG2_E)).astype(np.float32)
    across = np.ascontiguousarray(keys.T, np.float32)
    centred = (values - middle).astype(np.float32)

    def block(rows: slice) -> None:
        seen, size = visible[rows], rows.stop - rows.start
        tops, masses = np.full(size, _NONE), np.zeros(size)
        shrink, means = np.empty(size), np.zeros((size, values.shape[1]))
        room, sums = np.empty(size * BLOCK, np.float32), np.empty(means.shape, np.float32)
        for some in _blocks(int(seen.max(initial=0)), BLOCK):
            scores = room[: size * (some.stop - some.start)].reshape(size, -1)
            np.matmul(narrow[rows], across[:, some], out=scores)
            _weigh(scores, seen - some.start, tops, masses, shrink)
            means *= shrink[:, None]
            means += np.matmul(scores, centred[some], out=sums)
        any_seen = seen > 0
        readings.output[rows][any_seen] = means[any_seen] / masses[any_seen, None] + middle
        readings.top[rows][any_seen] = tops[any_seen].astype(np.float64) / LOG2_E
        readings.mass[rows] = masses

    each = ROWS * nanoseconds(float(visible.mean()), keys.shape[1], values.shape[1])
    pieces = parallel.parts(-(-m // ROWS), each)
    parallel.run(
        [lambda a=a, b=b: [block(rows) for rows in list(_blocks(m, ROWS))[a:b]] for a, b in pieces]
    )
    readings.looked[:] = readings.reported[:] = visible
    # Weights are raised to the least power at most.
    readings.drift[:] = readings.mass * rounding.drift + visible * 2.0**-124
    return Estimates(np.full(m, rounding.output), np.zeros(m), np.zeros(m, np.bool_))


def nanoseconds(keys: float, d: int, value_dim: int) -> float:
    """Rough cost of a query that sees so many keys."""
    return keys * (KEY_NANOSECONDS + COORDINATE_NANOSECONDS * (d + value_dim))


def shares_of(queries: NDArray, keys: NDArray, visible: NDArray, scale: float) -> Iterator[NDArray]:
    """Shares of the mass that keys have, largest first, of a few queries in turn."""
    for query, seen in zip(queries, visible, strict=True):
        scores = (keys[:seen] @ query.astype(keys.dtype)) * keys.dtype.type(scale)
        weights = np.exp((scores - scores.max(initial=-math.inf)).astype(np.float32))
        yield np.sort(weights / weights.sum())[::-1]
