"""A half-space made ready for filtering: scaled normal, scaled offset, rounding margins.

The normal is scaled by a power of two so that its largest entry lies in [1, 2); that is exact (up
to underflow far below the margin) and keeps the filter's products in range. With u the unit
roundoff of the filter's floats, any order of summation, fused or not, gives

    |fl(<w, x>) - <w, x>| <= gamma_{d+4} ||w|| ||x|| + d * tiny,     gamma_k = k u / (1 - k u)

where the spare terms cover rounding w itself, and `tiny` covers underflow. Scores outside
offset ± margin are settled; the rest go to `predicate.py`.
"""

import math
from typing import NamedTuple

import numpy as np

from .jit import part

REGULAR, ALL, NONE = 0, 1, 2
"""Kinds of half-space: a real plane, every point, no point."""

DOUBLE, SINGLE = 2.0**-53, 2.0**-24
"""Unit roundoff of float64 and float32."""


class Halfspace(NamedTuple):
    """One half-space, ready for filters: scalars only, its normals travel as arrays beside it.

    (Taking an array out of a tuple inside a compiled loop costs atomic reference counts.)
    """

    offset: float  # as given
    least_sign: int  # 0 closed, 1 open: x is in iff sign(<w, x> - b) >= least_sign
    kind: int
    level: float  # offset, scaled as the filter's normal is
    factors: tuple[float, float]  # that scale, in two factors: alone it may overflow
    norm: float  # upper bound on the scaled normal's norm
    relative: float  # filter error per unit of ||x||
    absolute: float
    unit: float  # unit roundoff of the points' dtype


def relative_error(terms, unit):
    """Relative error of a dot product of so many terms, with room for the scaling around it."""
    product = (terms + 4) * unit
    if product >= 0.25:
        return np.inf
    return 1.0001 * product / (1.0 - product)


gamma = part(relative_error)
"""The same, for kernels."""


@part
def prepare(normal, offset, closed, narrow):
    """Make {x : <normal, x> >= offset} ready; fills `narrow` (d,), the scaled normal for filters.

    `narrow` has the dtype of the points, which decides the margins.
    """
    d = normal.size
    largest = 0.0
    for j in range(d):
        largest = max(largest, abs(normal[j]))
    kind = REGULAR
    if offset == -np.inf:
        kind = ALL
    elif offset == np.inf:
        kind = NONE
    elif largest == 0.0:
        kind = ALL if (offset <= 0.0 if closed else offset < 0.0) else NONE
    exponent = 1 - math.frexp(largest)[1]
    first = math.ldexp(1.0, exponent // 2)
    second = math.ldexp(1.0, exponent - exponent // 2)
    squares = 0.0
    for j in range(d):
        scaled = normal[j] * first * second
        narrow[j] = scaled
        squares += scaled * scaled
    norm = math.sqrt(squares) * (1.0 + 1e-6)
    unit, tiny = DOUBLE, 2.0**-1021
    if narrow.itemsize == 4:
        unit, tiny = SINGLE, 2.0**-125
    return Halfspace(
        offset,
        0 if closed else 1,
        kind,
        offset * first * second,
        (first, second),
        norm,
        gamma(d, unit) * norm,
        (d + 4) * tiny,
        unit,
    )


@part(inline=True)
def rescaled(query, offset, level, norm, error):
    """`query` with another normal of such norm, and offset; `error` is gamma for the dimension."""
    return Halfspace(
        offset,
        query.least_sign,
        REGULAR,
        level,
        query.factors,
        norm,
        error * norm,
        query.absolute,
        query.unit,
    )


@part(inline=True)
def score_margin(relative, absolute, unit, level, norm):
    """How far from `level` a score may be and not be settled; fields of a `Halfspace` first."""
    margin = relative * norm + absolute
    return margin + 4.0 * unit * (abs(level) + margin)


@part(inline=True)
def settled_range(query, level, norm):
    """Scores between which nothing is settled, for points of norm <= `norm` against `level`.

    Scores below the first are outside, above the second inside. An infinite norm settles nothing:
    both ends are infinite or NaN, and no comparison holds.
    """
    margin = score_margin(query.relative, query.absolute, query.unit, level, norm)
    return level - margin, level + margin
